/* shares — the type KAverage: this worker's steps between two averages; private to this folder.
 *
 * A share begins with the round's parameters and an optimizer that has seen nothing, and is a run of ordinary steps,
 * norms and all; what it makes of the parameters is pushed with its number of samples. Nothing else goes into it, so
 * that whoever computes it comes to the same.
 */
#ifndef THOLE_WORKER_SHARES_H
#define THOLE_WORKER_SHARES_H

#include "common/cleanup.h"
#include "common/error.h"
#include "wire/wire.h"
#include "worker/work.h"

struct shares;
struct worker;

/* The worker is borrowed. */
int shares_new(struct shares **out, struct worker *worker, struct error *err);
void shares_free(struct shares *shares);

/* SHARE has come. */
int shares_add(struct worker *worker, const struct frame *frame, struct error *err);
/* From the round's parameters; false where it was not wanted to its end. */
bool shares_compute(struct worker *worker, const struct deal *deal, const float *params);
/* Steps of the share that is being computed: what a heartbeat adds to what is settled. */
uint64_t shares_progress(const struct shares *shares);

#endif
