/* queue — which keys to reconcile, and when.
 *
 * One entry a key however often it is added; a key is never handed out while an earlier run of it goes on, but being
 * added meanwhile makes it come again. Failures back off per key (base·2^n with jitter) and pass a global token
 * bucket, so that a broken cluster is not hammered; what is new comes before what is only looked at again, and
 * namespaces take turns, so that nobody waits behind ten thousand jobs of somebody else.
 * A pure data structure: time is passed in, randomness is seeded.
 */
#ifndef THOLE_OPERATOR_QUEUE_H
#define THOLE_OPERATOR_QUEUE_H

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "runtime/histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QUEUE_CONCURRENCY = 16 };

/* HIGH: something happened to it. LOW: it is only looked at again. A key that comes back after a while or a failure
 * keeps what it had. */
enum queue_priority { QUEUE_HIGH, QUEUE_LOW };
enum { QUEUE_PRIORITIES = QUEUE_LOW + 1 };

struct queue_options {
    int64_t backoff_base;                     /* nanoseconds; 0: 5 ms */
    int64_t backoff_most;                     /* 0: 1000 s */
    double retries_per_second, retries_burst; /* of failed keys, all together; 0: 50 and 200 */
    unsigned concurrency;                     /* keys out at once; 0: QUEUE_CONCURRENCY */
    size_t most_keys;                         /* 0: 1,000,000 */
    uint64_t seed;                            /* of the jitter */
};

struct queue_metrics {
    uint64_t adds, retries;
    size_t depth[QUEUE_PRIORITIES]; /* ready and waiting for a turn */
    size_t delayed;                 /* waiting for time to pass */
    size_t running;
    size_t keys;             /* all of them, each once */
    struct histogram waited; /* from being due until the turn */
};

struct queue; /* opaque */

struct queue *queue_new(const struct queue_options *options, struct error *err); /* NULL options: all defaults */
void queue_free(struct queue *queue);
CLEANUP_DEFINE(cleanup_queue_pointer, struct queue, queue_free)
#define cleanup_queue CLEANUP(cleanup_queue_pointer)

/* Due at once. Raises a LOW entry to HIGH; an entry that waits for later becomes due now. Only a failed key's back-off
 * is not ended so easily: LOW leaves it alone, and HIGH cuts it to 1 s after the failure at most, because what happens
 * to a failing key may be its own doing. -1 where too many keys wait, or without memory. */
int queue_add(struct queue *queue, const char *key, enum queue_priority priority, struct instant now,
              struct error *err);

/* The next key to run, borrowed until queue_done(); NULL where none is due or `concurrency` run already. */
const char *queue_take(struct queue *queue, struct instant now);

/* The run of `key` ended. QUEUE_OK forgets its failures, QUEUE_AFTER also brings it back after `after` ns,
 * QUEUE_FAILED brings it back after its back-off. */
enum queue_outcome { QUEUE_OK, QUEUE_AFTER, QUEUE_FAILED };
void queue_done(struct queue *queue, const char *key, enum queue_outcome outcome, int64_t after, struct instant now);

/* When queue_take() may next succeed though nothing is added; false: never. */
bool queue_next(const struct queue *queue, struct instant now, struct instant *when);

unsigned queue_failures(const struct queue *queue, const char *key); /* in a row */

/* One key, for whoever wonders what it waits for. */
struct queue_entry {
    const char *state; /* "absent", "ready", "delayed", "running" */
    enum queue_priority priority;
    bool again;         /* added while it ran */
    unsigned failures;  /* in a row */
    struct instant due; /* of a delayed one; of a ready one, since when */
};
void queue_look(const struct queue *queue, const char *key, struct queue_entry *out);

void queue_metrics(const struct queue *queue, struct queue_metrics *out);

#endif
