#include "worker/gradient.h"

#include <stdlib.h>
#include <string.h>

enum {
    LEFT = 2,     /* rows that the left side of a node takes */
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
    struct {
        uint64_t epoch, first;
        uint32_t samples; /* 0: none yet */
    } held;               /* which samples those are */
    uint64_t row;         /* floats of a row: the parameters, up to a whole cache line */
    float *rows;     /* of the left side, then of the right; those of the right that hold nothing yet are scratch */
    uint32_t *waits; /* of each chunk, the floats of the last block that are not final yet */

    /* Of the node that is being computed: left side + (spine[0] + (spine[1] + … + the last block)). */
    const struct gradient_hooks *hooks;
    const struct parameters *parameters;
    const float *params;
    struct schedule_step step;
    struct permutation order;
    uint32_t left, spine; /* rows */
    bool last;            /* the last block is being computed */
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
    size_t height = tree_scratch_rows(gradient->tree, TREE_ROOT);
    size_t rows = LEFT + (height > 0 ? height : 1);
    gradient->x = malloc(samples * model_sample_size(model) * sizeof(float));
    gradient->targets = malloc(samples * sizeof(float));
    gradient->rows = aligned_alloc(64, rows * gradient->row * sizeof(float));
    cleanup_layout struct layout *layout = NULL;
    if (layout_new(&layout, model_network(model), plan->shards, err) < 0)
        return -1;
    gradient->waits = calloc(layout_chunks(layout), sizeof *gradient->waits);
    if (gradient->x == NULL || gradient->targets == NULL || gradient->rows == NULL || gradient->waits == NULL)
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
    free(gradient->waits);
    free(gradient);
}

uint32_t gradient_cover(const struct gradient *gradient, uint64_t step, uint32_t first, uint32_t count,
                        uint32_t nodes[TREE_COVER_MOST])
{
    return tree_cover(gradient->tree, schedule_step(&gradient->schedule, step).count, first, count, nodes);
}

/* ---- handing out ---- */

static float *row_of(const struct gradient *gradient, uint32_t row)
{
    return gradient->rows + row * gradient->row;
}

static bool is_rounded(const struct gradient *gradient)
{
    return gradient->plan->wire == PLAN_BFLOAT16;
}

static void sum_of(const struct gradient *gradient, float *out, const float *a, const float *b, uint32_t count)
{
    if (is_rounded(gradient))
        vector_bfloat16_sum(out, a, b, count);
    else
        vector_sum(out, a, b, count);
}

/* Floats [at, at + count) of the right side, in `out` or where they are already: added from the last block up. */
static const float *right_side(const struct gradient *gradient, uint64_t at, uint32_t count, float out[PIECE])
{
    const float *sum = row_of(gradient, LEFT + gradient->spine) + at;
    for (uint32_t i = gradient->spine; i-- > 0;) {
        sum_of(gradient, out, row_of(gradient, LEFT + i) + at, sum, count);
        sum = out;
    }
    return sum;
}

static const float *left_side(const struct gradient *gradient, uint64_t at, uint32_t count, float out[PIECE])
{
    const float *first = row_of(gradient, 0) + at;
    if (gradient->left == 1)
        return first;
    sum_of(gradient, out, first, row_of(gradient, 1) + at, count);
    return out;
}

/* The node's last levels of sums go straight to where it is sent from, a piece of the first-level cache at a time: each
 * row is read once, and what lies between is never written to memory. */
static void add_up(const struct gradient *gradient, const struct chunk *chunk, void *out)
{
    float left[PIECE], right[PIECE];
    float *floats = out;
    uint16_t *packed = out;
    for (uint32_t done = 0; done < chunk->count; done += PIECE) {
        uint32_t count = chunk->count - done < PIECE ? chunk->count - done : PIECE;
        const float *b = right_side(gradient, chunk->offset + done, count, right);
        if (gradient->left == 0) {
            if (is_rounded(gradient))
                vector_bfloat16_pack(packed + done, b, count);
            else
                memcpy(floats + done, b, count * sizeof *floats);
            continue;
        }
        const float *a = left_side(gradient, chunk->offset + done, count, left);
        if (is_rounded(gradient))
            vector_bfloat16_sum_pack(packed + done, a, b, count);
        else
            vector_sum(floats + done, a, b, count);
    }
}

static void hand_out(const struct gradient *gradient, uint32_t index, double loss)
{
    const struct gradient_hooks *hooks = gradient->hooks;
    const struct chunk *chunk = parameters_chunk(gradient->parameters, index);
    void *place = hooks->place(hooks->arg, chunk);
    if (place == NULL)
        return;
    add_up(gradient, chunk, place);
    hooks->filled(hooks->arg, chunk, index == 0 ? loss : 0);
}

/* The chunk that holds parameter `at`. */
static uint32_t chunk_holding(const struct parameters *parameters, uint64_t at)
{
    uint32_t low = 0, high = parameters_chunks(parameters) - 1;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (parameters_chunk(parameters, middle)->offset <= at)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Parameters [begin, end) of the last block are final: chunks that waited for nothing else go. The first waits for the
 * loss, too. */
static void block_ready(void *arg, uint64_t begin, uint64_t end)
{
    struct gradient *gradient = arg;
    while (begin < end) {
        uint32_t index = chunk_holding(gradient->parameters, begin);
        const struct chunk *chunk = parameters_chunk(gradient->parameters, index);
        uint64_t until = chunk->offset + chunk->count < end ? chunk->offset + chunk->count : end;
        gradient->waits[index] -= (uint32_t)(until - begin);
        if (gradient->waits[index] == 0 && index > 0)
            hand_out(gradient, index, 0);
        begin = until;
    }
}

static void wait_for_all(struct gradient *gradient)
{
    for (uint32_t i = 0; i < parameters_chunks(gradient->parameters); i++)
        gradient->waits[i] = parameters_chunk(gradient->parameters, i)->count;
}

static void hand_out_rest(struct gradient *gradient, double loss)
{
    for (uint32_t i = parameters_chunks(gradient->parameters); i-- > 0;)
        if (i == 0 || gradient->waits[i] > 0)
            hand_out(gradient, i, loss);
}

/* ---- computing ---- */

/* Samples `range` of a step into x and targets, unless they are there. */
static void fetch(struct gradient *gradient, const struct schedule_step *of, const struct permutation *order,
                  struct block_range range)
{
    const uint64_t first = of->first + range.begin;
    const uint32_t samples = (uint32_t)(range.end - range.begin);
    if (gradient->held.epoch == of->epoch && gradient->held.first == first && gradient->held.samples == samples)
        return;
    dataset_fetch(gradient->train, order, first, samples, gradient->x, gradient->targets);
    gradient->held.epoch = of->epoch;
    gradient->held.first = first;
    gradient->held.samples = samples;
}

static int compute_block(void *arg, uint32_t block, struct block_range range, float *out, double *loss)
{
    struct gradient *gradient = arg;
    const struct gradient_hooks *hooks = gradient->hooks;
    if (!hooks->go_on(hooks->arg))
        return -1;
    uint32_t samples = (uint32_t)(range.end - range.begin);
    uint64_t first = gradient->step.first + range.begin;
    fetch(gradient, &gradient->step, &gradient->order, range);
    struct model_batch batch = {
        .n = samples,
        .x = gradient->x,
        .targets = gradient->targets,
        .place = {gradient->plan->training.seed, (uint32_t)gradient->step.epoch, first},
        .ready = gradient->last ? block_ready : NULL,
        .ready_arg = gradient,
    };
    if (hooks->rows != NULL && (batch.rows = hooks->rows(hooks->arg, block, gradient->x, samples)) == NULL)
        return -1;
    *loss = model_gradient(gradient->model, gradient->params, &batch, out, gradient->workspace);
    return 0;
}

/* The node's value into row `row`. Scratch are the rows behind, or those of the right side: a node has as many of them
 * free as it is high. */
static int reduce(struct gradient *gradient, uint32_t node, uint32_t row, double *loss)
{
    return tree_reduce_by(gradient->tree, gradient->step.count, node, gradient->row, compute_block, gradient,
                          is_rounded(gradient) ? vector_bfloat16_add : vector_add,
                          row_of(gradient, row < LEFT ? LEFT : row + 1), row_of(gradient, row), loss);
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

/* The left side: as one row, or as two that are still to be added. False where it is no longer wanted. */
static bool reduce_left(struct gradient *gradient, uint32_t node, double *loss)
{
    node = descend(gradient, node);
    gradient->left = tree_is_leaf(gradient->tree, node) ? 1 : 2;
    if (gradient->left == 1)
        return reduce(gradient, node, 0, loss) == 0;
    double right = 0;
    if (reduce(gradient, 2 * node, 0, loss) < 0 || reduce(gradient, 2 * node + 1, 1, &right) < 0)
        return false;
    *loss += right;
    return true;
}

/* The right side, or all of a node: down to its last block, whose gradient is final only when it is handed out. */
static bool reduce_right(struct gradient *gradient, uint32_t node, double *loss)
{
    double losses[TREE_DEPTH_MOST + 1];
    for (node = descend(gradient, node); !tree_is_leaf(gradient->tree, node); node = descend(gradient, 2 * node + 1)) {
        if (reduce(gradient, 2 * node, LEFT + gradient->spine, &losses[gradient->spine]) < 0)
            return false;
        gradient->spine++;
    }
    gradient->last = true;
    int reduced = reduce(gradient, node, LEFT + gradient->spine, loss);
    gradient->last = false;
    for (uint32_t i = gradient->spine; reduced == 0 && i-- > 0;)
        *loss = losses[i] + *loss;
    return reduced == 0;
}

static struct permutation order_of(const struct gradient *gradient, const struct schedule_step *step)
{
    return permutation_of_epoch(gradient->schedule.samples, gradient->plan->training.seed, (uint32_t)step->epoch);
}

/* What the same blocks of the next step read: a worker is mostly dealt those again. */
static void read_ahead(const struct gradient *gradient, uint64_t step, uint32_t node)
{
    if (step + 1 >= gradient->schedule.steps)
        return;
    const struct schedule_step next = schedule_step(&gradient->schedule, step + 1);
    const struct permutation order = order_of(gradient, &next);
    uint32_t first, end;
    tree_node_blocks(gradient->tree, node, &first, &end);
    const uint64_t from = tree_block(gradient->tree, next.count, first).begin;
    const uint64_t to = tree_block(gradient->tree, next.count, end - 1).end;
    dataset_prefetch(gradient->train, &order, next.first + from, to - from);
}

void gradient_prepare(struct gradient *gradient, uint64_t step, uint32_t first)
{
    if (step >= gradient->schedule.steps)
        return;
    const struct schedule_step of = schedule_step(&gradient->schedule, step);
    const struct permutation order = order_of(gradient, &of);
    for (uint32_t block = first; block < gradient->tree.blocks; block++) {
        const struct block_range range = tree_block(gradient->tree, of.count, block);
        if (range.begin == range.end)
            continue;
        fetch(gradient, &of, &order, range);
        return;
    }
}

bool gradient_compute(struct gradient *gradient, uint64_t step, uint32_t node, const float *params,
                      const struct parameters *parameters, const struct gradient_hooks *hooks)
{
    gradient->hooks = hooks;
    gradient->parameters = parameters;
    gradient->params = params;
    gradient->step = schedule_step(&gradient->schedule, step);
    gradient->order = order_of(gradient, &gradient->step);
    read_ahead(gradient, step, node);
    gradient->left = gradient->spine = 0;
    wait_for_all(gradient);
    node = descend(gradient, node);
    double left = 0, loss = 0;
    if (tree_is_leaf(gradient->tree, node)) {
        if (!reduce_right(gradient, node, &loss))
            return false;
    } else {
        if (!reduce_left(gradient, 2 * node, &left) || !reduce_right(gradient, 2 * node + 1, &loss))
            return false;
        loss = left + loss;
    }
    hand_out_rest(gradient, loss);
    return true;
}
