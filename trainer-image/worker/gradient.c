#include "worker/gradient.h"

#include <stdlib.h>
#include <string.h>

enum {
    LEFT = 2,    /* rows that the left side of a node takes */
    PART = 2048, /* floats added up at a time */
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
    float *rows; /* of the left side, then of the right; those of the right that hold nothing yet are scratch */
    struct pending {
        uint32_t waits; /* floats that are not written yet */
        bool placed;
        void *place;
    } * chunks;

    /* Large weights are added up piece by piece, when all blocks have been computed; rows hold the other ranges. */
    struct model_piece *pieces;
    uint32_t piece_count;
    float *kept; /* [blocks]: see model.h */
    uint64_t kept_row;
    float *sums;      /* a piece of the node, then of its scratch rows */
    uint64_t sum_row; /* floats of the largest piece */
    struct range {
        uint64_t begin, end;
    } * ranges;
    uint32_t range_count;

    /* Of the node that is being computed: left side + (spine[0] + (spine[1] + … + the last block)). */
    const struct gradient_hooks *hooks;
    const struct parameters *parameters;
    const float *params;
    struct schedule_step step;
    struct permutation order;
    uint32_t left, spine; /* rows */
    bool last;            /* the last block is being computed */
    const struct model_piece *piece;
};

static uint32_t largest_block(const struct plan *plan)
{
    return (plan->training.batch_size + plan->blocks - 1) / plan->blocks;
}

/* What is computed piece by piece, and what is not. */
static int plan_pieces(struct gradient *gradient, size_t height, struct error *err)
{
    const struct model *model = gradient->model;
    const uint32_t samples = largest_block(gradient->plan);
    gradient->piece_count = samples <= MODEL_PIECE_SAMPLES_MOST ? model_pieces(model) : 0;
    gradient->pieces = calloc((size_t)gradient->piece_count + 1, sizeof *gradient->pieces);
    gradient->ranges = calloc((size_t)gradient->piece_count + 1, sizeof *gradient->ranges);
    if (gradient->pieces == NULL || gradient->ranges == NULL)
        return error_set(err, "make room for the pieces of a gradient: no memory");
    uint64_t at = 0;
    for (uint32_t i = 0; i < gradient->piece_count; i++) {
        const struct model_piece piece = gradient->pieces[i] = model_piece(model, i);
        if (at < piece.begin)
            gradient->ranges[gradient->range_count++] = (struct range){at, piece.begin};
        at = piece.end;
        if (gradient->sum_row < piece.end - piece.begin)
            gradient->sum_row = piece.end - piece.begin;
    }
    if (at < model_parameters(model))
        gradient->ranges[gradient->range_count++] = (struct range){at, model_parameters(model)};
    if (gradient->piece_count == 0)
        return 0;
    gradient->sum_row = (gradient->sum_row + 15) / 16 * 16;
    gradient->kept_row = (model_kept_floats(model, samples) + 15) / 16 * 16;
    gradient->sums = vector_new((height + 1) * gradient->sum_row);
    gradient->kept = vector_new(gradient->plan->blocks * gradient->kept_row);
    if (gradient->sums == NULL || gradient->kept == NULL)
        return error_set(err, "make room for the factors of a gradient of %u blocks of %u samples: no memory",
                         gradient->plan->blocks, samples);
    return 0;
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
    if (plan_pieces(gradient, height, err) < 0)
        return -1;
    size_t rows = LEFT + (height > 0 ? height : 1);
    gradient->x = vector_new(samples * model_sample_size(model));
    gradient->targets = malloc(samples * sizeof(float));
    gradient->rows = vector_new(rows * gradient->row);
    cleanup_layout struct layout *layout = NULL;
    if (layout_new(&layout, model_network(model), plan->shards, err) < 0)
        return -1;
    gradient->chunks = calloc(layout_chunks(layout), sizeof *gradient->chunks);
    if (gradient->x == NULL || gradient->targets == NULL || gradient->rows == NULL || gradient->chunks == NULL)
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
    free(gradient->chunks);
    free(gradient->pieces);
    free(gradient->ranges);
    free(gradient->sums);
    free(gradient->kept);
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

/* Of the plan's wire, one is. */
struct target {
    float *floats;
    uint16_t *packed;
};

/* The node's floats from `at` of the target on: */
static void write_out(const struct gradient *gradient, struct target target, uint32_t at, const float *x,
                      uint32_t count)
{
    if (is_rounded(gradient))
        vector_bfloat16_pack(target.packed + at, x, count);
    else
        memcpy(target.floats + at, x, count * sizeof *x);
}

static void write_sum(const struct gradient *gradient, struct target target, uint32_t at, const float *left,
                      const float *right, uint32_t count)
{
    if (is_rounded(gradient))
        vector_bfloat16_sum_pack(target.packed + at, left, right, count);
    else
        vector_sum(target.floats + at, left, right, count);
}

/* Floats [at, at + count) of the right side, in `out` or where they are already: added from the last block up. */
static const float *right_side(const struct gradient *gradient, uint64_t at, uint32_t count, float out[PART])
{
    const float *sum = row_of(gradient, LEFT + gradient->spine) + at;
    for (uint32_t i = gradient->spine; i-- > 0;) {
        sum_of(gradient, out, row_of(gradient, LEFT + i) + at, sum, count);
        sum = out;
    }
    return sum;
}

static const float *left_side(const struct gradient *gradient, uint64_t at, uint32_t count, float out[PART])
{
    const float *first = row_of(gradient, 0) + at;
    if (gradient->left == 1)
        return first;
    sum_of(gradient, out, first, row_of(gradient, 1) + at, count);
    return out;
}

/* Floats [at, at + count) to where they are sent from; the node's last levels of sums go straight there, a part of the
 * first-level cache at a time: each row is read once, and what lies between is never written to memory. */
static void add_up(const struct gradient *gradient, uint64_t at, uint32_t count, struct target target)
{
    float left[PART], right[PART];
    for (uint32_t done = 0; done < count; done += PART) {
        uint32_t part = count - done < PART ? count - done : PART;
        const float *b = right_side(gradient, at + done, part, right);
        if (gradient->left == 0)
            write_out(gradient, target, done, b, part);
        else
            write_sum(gradient, target, done, left_side(gradient, at + done, part, left), b, part);
    }
}

/* Where float `at` of the node goes; without pointers where its chunk is not wanted. */
static struct target target_of(const struct gradient *gradient, uint32_t index, uint64_t at)
{
    struct pending *pending = &gradient->chunks[index];
    const struct chunk *chunk = parameters_chunk(gradient->parameters, index);
    if (!pending->placed)
        pending->place = gradient->hooks->place(gradient->hooks->arg, chunk);
    pending->placed = true;
    if (pending->place == NULL)
        return (struct target){NULL, NULL};
    if (is_rounded(gradient))
        return (struct target){.packed = (uint16_t *)pending->place + (at - chunk->offset)};
    return (struct target){.floats = (float *)pending->place + (at - chunk->offset)};
}

static void hand_out(const struct gradient *gradient, uint32_t index, double loss)
{
    const struct gradient_hooks *hooks = gradient->hooks;
    if (gradient->chunks[index].place != NULL)
        hooks->filled(hooks->arg, parameters_chunk(gradient->parameters, index), gradient->chunks[index].place, loss);
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

/* Where floats [begin, end) of a node are. */
struct sides {
    const float *left;
    const float *right;
    uint32_t count; /* of them; 1: right is all; 0: both are in rows */
};

/* Hands the node's floats [begin, end) out. Chunks that waited for nothing else go, but the first: it waits for the
 * loss, too. */
static void write_range(const struct gradient *gradient, uint64_t begin, uint64_t end, struct sides sides)
{
    for (uint64_t at = begin; at < end;) {
        uint32_t index = chunk_holding(gradient->parameters, at);
        const struct chunk *chunk = parameters_chunk(gradient->parameters, index);
        uint64_t until = chunk->offset + chunk->count < end ? chunk->offset + chunk->count : end;
        uint32_t count = (uint32_t)(until - at);
        struct target target = target_of(gradient, index, at);
        bool wanted = target.floats != NULL || target.packed != NULL;
        if (wanted && sides.count == 0)
            add_up(gradient, at, count, target);
        else if (wanted && sides.count == 1)
            write_out(gradient, target, 0, sides.right + (at - begin), count);
        else if (wanted)
            write_sum(gradient, target, 0, sides.left + (at - begin), sides.right + (at - begin), count);
        gradient->chunks[index].waits -= count;
        if (gradient->chunks[index].waits == 0 && index > 0)
            hand_out(gradient, index, 0);
        at = until;
    }
}

static void block_ready(void *arg, uint64_t begin, uint64_t end)
{
    write_range(arg, begin, end, (struct sides){.count = 0});
}

static void wait_for_all(struct gradient *gradient)
{
    for (uint32_t i = 0; i < parameters_chunks(gradient->parameters); i++)
        gradient->chunks[i] = (struct pending){.waits = parameters_chunk(gradient->parameters, i)->count};
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
        .kept = gradient->kept == NULL ? NULL : gradient->kept + block * gradient->kept_row,
    };
    if (hooks->rows != NULL && (batch.rows = hooks->rows(hooks->arg, block, gradient->x, samples)) == NULL)
        return -1;
    *loss = model_gradient(gradient->model, gradient->params, &batch, out, gradient->workspace);
    return 0;
}

static void add(const struct gradient *gradient, float *left, const float *right, size_t n)
{
    if (is_rounded(gradient))
        vector_bfloat16_add(left, right, n);
    else
        vector_add(left, right, n);
}

static void add_rows(void *arg, float *left, const float *right, size_t n)
{
    (void)n;
    const struct gradient *gradient = arg;
    for (uint32_t i = 0; i < gradient->range_count; i++) {
        const struct range range = gradient->ranges[i];
        add(gradient, left + range.begin, right + range.begin, range.end - range.begin);
    }
}

/* The node's value into row `row`. Scratch are the rows behind, or those of the right side: a node has as many of them
 * free as it is high. */
static int reduce(struct gradient *gradient, uint32_t node, uint32_t row, double *loss)
{
    return tree_reduce(gradient->tree, gradient->step.count, node, gradient->row, compute_block, gradient, add_rows,
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

static struct model_kept kept_of(const struct gradient *gradient, uint32_t block)
{
    const struct block_range range = tree_block(gradient->tree, gradient->step.count, block);
    return (struct model_kept){gradient->kept + block * gradient->kept_row, (uint32_t)(range.end - range.begin)};
}

/* A node of two or four blocks, each with samples, is made at once where that is faster. */
static bool make_at_once(const struct gradient *gradient, uint32_t node, float *out)
{
    struct model_kept kept[MODEL_PIECE_BATCHES_MOST];
    uint32_t first, end;
    tree_node_blocks(gradient->tree, node, &first, &end);
    if (end - first != 2 && end - first != 4)
        return false;
    for (uint32_t i = 0; i < end - first; i++)
        if ((kept[i] = kept_of(gradient, first + i)).n == 0)
            return false;
    return model_piece_sum(gradient->model, gradient->piece, kept, end - first, is_rounded(gradient), out);
}

/* A node of the tree; scratch are the rows behind `out`, as many as the node is high. */
static void reduce_piece(const struct gradient *gradient, uint32_t node, float *out)
{
    node = descend(gradient, node);
    if (tree_is_leaf(gradient->tree, node)) {
        model_piece_gradient(gradient->model, gradient->piece, kept_of(gradient, node - gradient->tree.leaves), out);
    } else if (!make_at_once(gradient, node, out)) {
        float *right = out + gradient->sum_row;
        reduce_piece(gradient, 2 * node, out);
        reduce_piece(gradient, 2 * node + 1, right);
        add(gradient, out, right, gradient->piece->end - gradient->piece->begin);
    }
}

/* All blocks have been computed: the large weights of the node, the deepest layer's first. */
static void reduce_pieces(struct gradient *gradient, uint32_t node)
{
    float *sums = gradient->sums;
    for (uint32_t i = gradient->piece_count; i-- > 0;) {
        gradient->piece = &gradient->pieces[i];
        struct sides sides = {.left = sums, .right = sums + gradient->sum_row, .count = 2};
        if (tree_is_leaf(gradient->tree, node)) {
            sides = (struct sides){.right = sums, .count = 1};
            reduce_piece(gradient, node, sums);
        } else {
            reduce_piece(gradient, 2 * node, sums);
            reduce_piece(gradient, 2 * node + 1, sums + gradient->sum_row);
        }
        write_range(gradient, gradient->piece->begin, gradient->piece->end, sides);
    }
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
    reduce_pieces(gradient, node);
    hand_out(gradient, 0, loss);
    return true;
}
