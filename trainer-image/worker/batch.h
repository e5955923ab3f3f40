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

struct batch_hooks {
    bool (*go_on)(void *arg); /* before every block */
    /* The rows that a block's samples x [n] hold, of each table; NULL where they cannot be had. The hook is NULL where
     * the model has no tables. */
    const struct model_rows *(*rows)(void *arg, const float *x, uint32_t n);
    void *arg;
};

/* The sum of the gradients of step `step`'s samples (among the job's), lent until the next call, to be changed too;
 * *loss gets the sum of their losses. NULL where a hook says no. */
float *batch_compute(struct batch *batch, uint64_t step, const float *params, const struct batch_hooks *hooks,
                     double *loss);

#endif
