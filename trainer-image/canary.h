/* canary — a digest over what this process would compute for a job, made before it computes anything: two members with
 * equal ones train the same model to equal bits. Whoever has another than the coordinator is refused.
 *
 * Numbers that are the same everywhere go through the job's own arithmetic: its layers, in blocks of the sizes that its
 * steps have; its optimizer, over several steps of its schedule; sums of gradients in its wire; rows of its tables.
 * What the plan does not use is left out, so that nobody is refused for it. May call model, optimizer, numerics and
 * common.
 */
#ifndef THOLE_TRAINER_CANARY_H
#define THOLE_TRAINER_CANARY_H

#include "common/plan/plan.h"
#include "model/model.h"

/* Of what a shard computes: sums of gradients, and the optimizer's steps. No matrix products: it may run other kernels
 * of OpenBLAS than the job's. Takes about a millisecond. -1 without memory. */
int canary_of_shard(const struct plan *plan, const struct model *model, uint64_t train_samples,
                    uint8_t out[SHA256_SIZE], struct error *err);

/* Of that and the model's own arithmetic: model_canary(). -1 without memory. */
int canary_of_worker(const struct plan *plan, const struct model *model, uint64_t train_samples,
                     uint8_t out[SHA256_SIZE], struct error *err);

#endif
