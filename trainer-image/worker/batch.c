#include "worker/batch.h"

#include "numerics/numerics.h"

#include <stdlib.h>

struct batch {
    const struct plan *plan;
    const struct model *model;
    const struct dataset *train;
    struct schedule schedule;
    struct workspace *workspace;
    float *x, *targets;
    float *sum, *block; /* [parameters]; block: NULL where a batch is one */
};

int batch_new(struct batch **out, const struct plan *plan, const struct model *model, const struct dataset *train,
              struct error *err)
{
    cleanup_batch struct batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL)
        return error_set(err, "make room for a batch: no memory");
    batch->plan = plan;
    batch->model = model;
    batch->train = train;
    batch->schedule = schedule_of(plan, dataset_samples(train));
    const bool one = plan->training.batch_size <= BATCH_BLOCK;
    const uint32_t samples = one ? plan->training.batch_size : BATCH_BLOCK;
    if (workspace_new(&batch->workspace, model, samples, err) < 0)
        return -1;
    batch->x = vector_new(samples * model_sample_size(model));
    batch->targets = malloc(samples * sizeof(float));
    batch->sum = vector_new(model_parameters(model));
    batch->block = one ? NULL : vector_new(model_parameters(model));
    if (batch->x == NULL || batch->targets == NULL || batch->sum == NULL || (!one && batch->block == NULL))
        return error_set(err, "make room for a gradient of %llu parameters and blocks of %u samples: no memory",
                         (unsigned long long)model_parameters(model), samples);
    *out = move(batch);
    return 0;
}

void batch_free(struct batch *batch)
{
    if (batch == NULL)
        return;
    workspace_free(batch->workspace);
    free(batch->x);
    free(batch->targets);
    free(batch->sum);
    free(batch->block);
    free(batch);
}

/* False where there are no rows. */
static bool compute_block(struct batch *batch, const struct schedule_step *step, const struct permutation *order,
                          uint32_t done, uint32_t samples, const float *params, const struct batch_hooks *hooks,
                          float *out, double *loss)
{
    dataset_fetch(batch->train, order, step->first + done, samples, batch->x, batch->targets);
    struct model_batch block = {
        .n = samples,
        .x = batch->x,
        .targets = batch->targets,
        .place = {batch->plan->training.seed, (uint32_t)step->epoch, step->first + done},
    };
    if (hooks->rows != NULL && (block.rows = hooks->rows(hooks->arg, batch->x, samples)) == NULL)
        return false;
    *loss += model_gradient(batch->model, params, &block, out, batch->workspace);
    return true;
}

float *batch_compute(struct batch *batch, uint64_t step, const float *params, const struct batch_hooks *hooks,
                     double *loss)
{
    const struct schedule_step of = schedule_step(&batch->schedule, step);
    const struct permutation order =
        permutation_of_epoch(batch->schedule.samples, batch->plan->training.seed, (uint32_t)of.epoch);
    *loss = 0;
    dataset_prefetch(batch->train, &order, of.first, of.count);
    for (uint32_t done = 0; done < of.count; done += BATCH_BLOCK) {
        if (!hooks->go_on(hooks->arg))
            return NULL;
        const uint32_t samples = of.count - done < BATCH_BLOCK ? of.count - done : BATCH_BLOCK;
        float *out = done == 0 ? batch->sum : batch->block;
        if (!compute_block(batch, &of, &order, done, samples, params, hooks, out, loss))
            return NULL;
        if (done > 0)
            vector_add(batch->sum, batch->block, model_parameters(batch->model));
    }
    return batch->sum;
}
