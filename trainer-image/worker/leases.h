/* leases — the types Asynchronous and Hogwild: tasks that are leased to this worker, step by step; private to this
 * folder.
 *
 * Parameters are held chunk by chunk, each in its own version. A step's gradient goes to all chunks; each answers with
 * its newest parameters and what came of the push, and the next step begins when all have: a second step on its way
 * would only make both staler. A chunk that says "stale" gets its part of the same step once more, from newer ones.
 *
 * To clip by norm takes all of a gradient, and only here is all of it: it is clipped before it is pushed, by value too.
 */
#ifndef THOLE_WORKER_LEASES_H
#define THOLE_WORKER_LEASES_H

#include "common/cleanup.h"
#include "common/error.h"
#include "wire/wire.h"

struct leases;
struct link;
struct worker;

/* The worker is borrowed. */
int leases_new(struct leases **out, struct worker *worker, struct error *err);
void leases_free(struct leases *leases);

/* LEASE has come. */
int leases_add(struct worker *worker, const struct frame *frame, struct error *err);
/* The coordinator is gone, and nothing is leased any more; `parameters_too`: it is another process than before. */
void leases_forget(struct worker *worker, bool parameters_too);

/* The connection to a shard is new: what was pushed over a former one may have been lost with it. */
void leases_link_ready(struct link *link);
/* PARAMS and TAKEN. */
void *leases_place(struct link *link, struct conn *conn, const struct frame *frame, struct error *err);
void leases_received(struct link *link, const struct frame *frame, const void *payload);
/* TAKEN_ROWS. */
int leases_rows_taken(struct link *link, const struct frame *frame, struct error *err);

/* Computes what can be; false where there is nothing to do but wait. */
bool leases_compute(struct worker *worker);

#endif
