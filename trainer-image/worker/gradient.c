#include "worker/gradient.h"

#include <stdlib.h>
#include <string.h>

struct gradient {
    const struct plan *plan;
    const struct model *model;
    const struct dataset *train;
    struct schedule schedule;
    struct tree tree;
    struct workspace *workspace;
    float *x;
    int32_t *labels;
    uint64_t parameters;
    float *rows; /* left and right side, then scratch */

    /* Of the node that is being computed. */
    const struct gradient_hooks *hooks;
    const float *params;
    struct schedule_step step;
    struct permutation order;
};

static uint32_t largest_block(const struct plan *plan)
{
    return (plan->training.batch_size + plan->blocks - 1) / plan->blocks;
}

int gradient_new(struct gradient **out, const struct plan *plan, const struct model *model, const struct dataset *train,
                 struct error *err)
{
    cleanup_gradient struct gradient *gradient = calloc(1, sizeof *gradient);
    if (gradient == NULL)
        return error_set(err, "make room for gradients: no memory");
    gradient->plan = plan;
    gradient->model = model;
    gradient->train = train;
    gradient->schedule = schedule_of(plan, dataset_samples(train));
    gradient->tree = tree_of(plan->blocks);
    gradient->parameters = model_parameters(model);
    uint32_t samples = largest_block(plan);
    if (workspace_new(&gradient->workspace, model, samples, err) < 0)
        return -1;
    size_t rows = 2 + tree_scratch_rows(gradient->tree, TREE_ROOT);
    gradient->x = malloc(samples * model_sample_size(model) * sizeof(float));
    gradient->labels = malloc(samples * sizeof(int32_t));
    gradient->rows = aligned_alloc(64, (rows * gradient->parameters * sizeof(float) + 63) / 64 * 64);
    if (gradient->x == NULL || gradient->labels == NULL || gradient->rows == NULL)
        return error_set(err, "make room for %zu gradients of %llu parameters and blocks of %u samples: no memory",
                         rows, (unsigned long long)gradient->parameters, samples);
    *out = move(gradient);
    return 0;
}

void gradient_free(struct gradient *gradient)
{
    if (gradient == NULL)
        return;
    workspace_free(gradient->workspace);
    free(gradient->x);
    free(gradient->labels);
    free(gradient->rows);
    free(gradient);
}

uint32_t gradient_cover(const struct gradient *gradient, uint64_t step, uint32_t first, uint32_t count,
                        uint32_t nodes[TREE_COVER_MOST])
{
    return tree_cover(gradient->tree, schedule_step(&gradient->schedule, step).count, first, count, nodes);
}

static int compute_block(void *arg, uint32_t block, struct block_range range, float *out, double *loss)
{
    struct gradient *gradient = arg;
    (void)block;
    if (!gradient->hooks->go_on(gradient->hooks->arg))
        return -1;
    uint32_t samples = (uint32_t)(range.end - range.begin);
    dataset_fetch(gradient->train, &gradient->order, gradient->step.first + range.begin, samples, gradient->x,
                  gradient->labels);
    *loss = model_gradient(gradient->model, gradient->params, gradient->x, gradient->labels, samples, out,
                           gradient->workspace);
    return 0;
}

static int reduce(struct gradient *gradient, uint32_t node, float *out, double *loss)
{
    return tree_reduce(gradient->tree, gradient->step.count, node, gradient->parameters, compute_block, gradient,
                       gradient->rows + 2 * gradient->parameters, out, loss);
}

/* The last sum of a node goes straight to where it is sent from; `one_side` where there is nothing to add. */
static void hand_out(const struct gradient *gradient, const struct parameters *parameters, bool one_side, double loss)
{
    const float *left = gradient->rows, *right = gradient->rows + gradient->parameters;
    const struct gradient_hooks *hooks = gradient->hooks;
    for (uint32_t i = 0; i < parameters_chunks(parameters); i++) {
        const struct chunk *chunk = parameters_chunk(parameters, i);
        float *place = hooks->place(hooks->arg, chunk);
        if (place == NULL)
            continue;
        if (one_side)
            memcpy(place, left + chunk->offset, chunk->count * sizeof(float));
        else
            vector_sum(place, left + chunk->offset, right + chunk->offset, chunk->count);
        hooks->filled(hooks->arg, chunk, loss);
    }
}

bool gradient_compute(struct gradient *gradient, uint64_t step, uint32_t node, const float *params,
                      const struct parameters *parameters, const struct gradient_hooks *hooks)
{
    gradient->hooks = hooks;
    gradient->params = params;
    gradient->step = schedule_step(&gradient->schedule, step);
    gradient->order =
        permutation_of_epoch(gradient->schedule.samples, gradient->plan->training.seed, (uint32_t)gradient->step.epoch);
    uint64_t samples = gradient->step.count;
    /* Down to where both sides have samples: with an empty side a node's value is the other's. */
    while (!tree_is_leaf(gradient->tree, node)) {
        if (tree_node_empty(gradient->tree, samples, 2 * node))
            node = 2 * node + 1;
        else if (tree_node_empty(gradient->tree, samples, 2 * node + 1))
            node = 2 * node;
        else
            break;
    }
    float *left = gradient->rows, *right = gradient->rows + gradient->parameters;
    double loss = 0, right_loss = 0;
    if (tree_is_leaf(gradient->tree, node)) {
        if (reduce(gradient, node, left, &loss) < 0)
            return false;
        hand_out(gradient, parameters, true, loss);
        return true;
    }
    if (reduce(gradient, 2 * node, left, &loss) < 0 || reduce(gradient, 2 * node + 1, right, &right_loss) < 0)
        return false;
    hand_out(gradient, parameters, false, loss + right_loss);
    return true;
}
