/* batch — the gradient of one worker's whole batch, in the types other than Synchronous; private to this folder.
 *
 * A step's samples are those of common/plan/schedule.h. They go through the model in blocks of at most BATCH_BLOCK, so
 * that memory does not grow with the batch; batch norm is over a block.
 */
#ifndef THOLE_WORKER_BATCH_H
#define THOLE_WORKER_BATCH_H

#include "common/plan/schedule.h"
#include "data/data.h"
#include "model/model.h"

enum { BATCH_BLOCK = 64 };

struct batch;

/* All borrowed. */
int batch_new(struct batch **out, const struct plan *plan, const struct model *model, const struct dataset *train,
              struct error *err);
void batch_free(struct batch *batch);
CLEANUP_DEFINE(cleanup_batch_pointer, struct batch, batch_free)
#define cleanup_batch CLEANUP(cleanup_batch_pointer)

/* The sum of the gradients of step `step`'s samples (among the job's), borrowed until the next call; *loss gets the sum
 * of their losses. NULL where go_on(), which is asked before every block, says no. */
const float *batch_compute(struct batch *batch, uint64_t step, const float *params, bool (*go_on)(void *arg), void *arg,
                           double *loss);

#endif
