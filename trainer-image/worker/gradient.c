#include "worker/gradient.h"

#include <stdlib.h>
#include <string.h>

enum {
    SIDES = 4,    /* rows that the two sides of a node take */
    PIECE = 2048, /* floats added up at a time */
};

struct gradient {
    const struct plan *plan;
    const struct model *model;
    const struct dataset *train;
    struct schedule schedule;
    struct tree tree;
    struct workspace *workspace;
    float *x;
    float *targets;
    uint64_t row; /* floats of a row: the parameters, up to a whole cache line */
    float *rows;  /* of the left side and of the right, two each, then scratch */

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
    gradient->row = (model_parameters(model) + 15) / 16 * 16;
    uint32_t samples = largest_block(plan);
    if (workspace_new(&gradient->workspace, model, samples, err) < 0)
        return -1;
    size_t rows = SIDES + tree_scratch_rows(gradient->tree, TREE_ROOT);
    gradient->x = malloc(samples * model_sample_size(model) * sizeof(float));
    gradient->targets = malloc(samples * sizeof(float));
    gradient->rows = aligned_alloc(64, rows * gradient->row * sizeof(float));
    if (gradient->x == NULL || gradient->targets == NULL || gradient->rows == NULL)
        return error_set(err, "make room for %zu gradients of %llu parameters and blocks of %u samples: no memory",
                         rows, (unsigned long long)gradient->row, samples);
    memset(gradient->rows, 0, rows * gradient->row * sizeof(float)); /* what is behind the last parameter stays 0 */
    *out = move(gradient);
    return 0;
}

void gradient_free(struct gradient *gradient)
{
    if (gradient == NULL)
        return;
    workspace_free(gradient->workspace);
    free(gradient->x);
    free(gradient->targets);
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
                  gradient->targets);
    const struct model_batch batch = {
        .n = samples,
        .x = gradient->x,
        .targets = gradient->targets,
        .place = {gradient->plan->training.seed, (uint32_t)gradient->step.epoch, gradient->step.first + range.begin},
    };
    *loss = model_gradient(gradient->model, gradient->params, &batch, out, gradient->workspace);
    return 0;
}

/* The node's value into row `row`. */
static int reduce(struct gradient *gradient, uint32_t node, uint32_t row, double *loss)
{
    return tree_reduce(gradient->tree, gradient->step.count, node, gradient->row, compute_block, gradient,
                       gradient->rows + SIDES * gradient->row, gradient->rows + row * gradient->row, loss);
}

/* Down to where both sides have samples: with an empty side a node's value is the other's. */
static uint32_t descend(const struct gradient *gradient, uint32_t node)
{
    uint64_t samples = gradient->step.count;
    while (!tree_is_leaf(gradient->tree, node)) {
        if (tree_node_empty(gradient->tree, samples, 2 * node))
            node = 2 * node + 1;
        else if (tree_node_empty(gradient->tree, samples, 2 * node + 1))
            node = 2 * node;
        else
            break;
    }
    return node;
}

/* One side of the node: as one row, or as two that are still to be added. Returns how many rows from `row` on hold it,
 * 0 where it is no longer wanted. */
static uint32_t reduce_side(struct gradient *gradient, uint32_t node, uint32_t row, double *loss)
{
    node = descend(gradient, node);
    if (tree_is_leaf(gradient->tree, node))
        return reduce(gradient, node, row, loss) < 0 ? 0 : 1;
    double right = 0;
    if (reduce(gradient, 2 * node, row, loss) < 0 || reduce(gradient, 2 * node + 1, row + 1, &right) < 0)
        return 0;
    *loss += right;
    return 2;
}

/* Floats [begin, begin + count) of one side, in `out` or where they are already. */
static const float *side(const struct gradient *gradient, uint32_t row, uint32_t rows, uint64_t begin, uint32_t count,
                         float *out)
{
    const float *first = gradient->rows + row * gradient->row + begin;
    if (rows == 1)
        return first;
    vector_sum(out, first, first + gradient->row, count);
    return out;
}

/* The node's last two levels of sums go straight to where it is sent from, a piece of the first-level cache at a time:
 * each row is read once, and what lies between is never written to memory. */
static void add_up(const struct gradient *gradient, const uint32_t rows[2], const struct chunk *chunk, float *out)
{
    float left[PIECE], right[PIECE];
    for (uint32_t done = 0; done < chunk->count; done += PIECE) {
        uint32_t count = chunk->count - done < PIECE ? chunk->count - done : PIECE;
        uint64_t begin = chunk->offset + done;
        const float *a = side(gradient, 0, rows[0], begin, count, left);
        if (rows[1] == 0)
            memcpy(out + done, a, count * sizeof(float));
        else
            vector_sum(out + done, a, side(gradient, 2, rows[1], begin, count, right), count);
    }
}

static void hand_out(const struct gradient *gradient, const struct parameters *parameters, const uint32_t rows[2],
                     double loss)
{
    const struct gradient_hooks *hooks = gradient->hooks;
    for (uint32_t i = 0; i < parameters_chunks(parameters); i++) {
        const struct chunk *chunk = parameters_chunk(parameters, i);
        float *place = hooks->place(hooks->arg, chunk);
        if (place == NULL)
            continue;
        add_up(gradient, rows, chunk, place);
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
    node = descend(gradient, node);
    uint32_t rows[2] = {0, 0};
    double loss = 0, right = 0;
    if (tree_is_leaf(gradient->tree, node)) {
        rows[0] = reduce_side(gradient, node, 0, &loss);
        if (rows[0] == 0)
            return false;
    } else {
        rows[0] = reduce_side(gradient, 2 * node, 0, &loss);
        rows[1] = rows[0] == 0 ? 0 : reduce_side(gradient, 2 * node + 1, 2, &right);
        if (rows[1] == 0)
            return false;
        loss += right;
    }
    hand_out(gradient, parameters, rows, loss);
    return true;
}
