/* said — which Events were said lately: a repetition is one Event that counts, and many that differ only in their note
 * become one. Pure: time is passed in. Private to kube.
 */
#ifndef THOLE_OPERATOR_KUBE_SAID_H
#define THOLE_OPERATOR_KUBE_SAID_H

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SAID_MOST = 1024,   /* remembered */
    SAID_SIMILAR = 10,  /* of one object and reason within ten minutes; those behind them are combined */
    SAID_INTERVAL = 30, /* seconds: a count is written at most so often */
    SAID_MEMORY = 600,  /* seconds of silence after which it is said anew */
};

/* What makes two Events the same. */
struct said_identity {
    const char *namespace, *object; /* the object's name */
    const char *uid, *kind, *type, *reason, *action, *note;
};

/* An Event that was written and may be repeated. */
struct said {
    uint64_t hash;
    char *namespace, *name; /* of the Event itself */
    bool combined;
    struct instant last, written;
    int64_t last_wall; /* seconds since 1970 */
    unsigned count, count_written;
};

struct said_table; /* opaque */
struct said_table *said_new(struct error *err);
void said_free(struct said_table *table); /* NULL is fine */

/* Remembers that it is said now. *is_new: an Event is to be written, with the name and the `combined` of the answer;
 * else it counts. NULL without memory. Where too many are remembered, the one that was silent longest is forgotten.
 * `wall`: seconds since 1970; `unique` makes the name of a new one. */
struct said *said_this(struct said_table *table, const struct said_identity *identity, struct instant now, int64_t wall,
                       uint64_t unique, bool *is_new);

/* One whose count has grown and may be written now; then it counts as written. NULL: none. *next: when to ask again,
 * 0: when something is said. What was silent too long is forgotten. */
struct said *said_due(struct said_table *table, struct instant now, struct instant *next);

/* The Event is not there (any more): it would be written anew. */
void said_forget(struct said_table *table, const char *namespace, const char *name);
size_t said_count(const struct said_table *table);

#endif
