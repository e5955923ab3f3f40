#include "canary.h"

#include "common/plan/tasks.h"
#include "numerics/exact_sum.h"
#include "numerics/numerics.h"
#include "numerics/sparse.h"
#include "optimizer/optimizer.h"

#include <stdlib.h>

/* Loops over so many floats have whole vectors of every vector unit, and a rest. */
enum {
    WEIGHTS = 1037,
    STATISTICS = 21,
    FLOATS = WEIGHTS + STATISTICS,
    CANONICAL = 256,
    INITIAL_MOST = 4096,
    ROWS = 6,
    STEPS = 4,
};

static const uint64_t canary_seed = UINT64_C(0x43616e617279); /* "Canary" */

/* What values are for; of each so many streams as it takes. */
enum purpose { PURPOSE_THETA, PURPOSE_SUM, PURPOSE_LEFT, PURPOSE_RIGHT, PURPOSE_ROWS };

static void make_values(enum purpose purpose, uint32_t which, float most, float *out, size_t n)
{
    random_uniform_range(random_stream(canary_seed, RANDOM_CANARY, purpose, which, 0), 0, n, -most, most, out);
}

static void sing_initial_values(const struct model *model, struct sha256_stream *digest)
{
    float values[INITIAL_MOST];
    const uint64_t all = model_parameters(model);
    const uint64_t count = all < INITIAL_MOST ? all : INITIAL_MOST;
    model_init_range(model, canary_seed, 0, count, values);
    sha256_stream_add(digest, values, count * sizeof values[0]);
}

/* ---- Sums ---- */

static void sing_sums(struct sha256_stream *digest)
{
    float left[FLOATS], right[FLOATS], sum[FLOATS];
    make_values(PURPOSE_LEFT, 0, 2, left, FLOATS);
    make_values(PURPOSE_RIGHT, 0, 2, right, FLOATS);
    vector_sum(sum, left, right, FLOATS);
    vector_add(left, right, FLOATS);
    sha256_stream_add(digest, sum, sizeof sum);
    sha256_stream_add(digest, left, sizeof left);
}

/* In all forms that they have on the way: see numerics.h. */
static void sing_rounded_sums(struct sha256_stream *digest)
{
    float left[FLOATS], right[FLOATS], sum[FLOATS];
    uint16_t packed[4][FLOATS];
    make_values(PURPOSE_LEFT, 0, 2, left, FLOATS);
    make_values(PURPOSE_RIGHT, 0, 2, right, FLOATS);
    vector_bfloat16_pack(packed[0], left, FLOATS);
    vector_bfloat16_pack(packed[1], right, FLOATS);
    vector_bfloat16_sum_packed(packed[2], packed[0], packed[1], FLOATS);
    vector_bfloat16_sum_pack(packed[3], left, right, FLOATS);
    vector_bfloat16_sum(sum, left, right, FLOATS);
    vector_bfloat16_add(left, right, FLOATS);
    vector_bfloat16_unpack(right, packed[2], FLOATS);
    sha256_stream_add(digest, packed, sizeof packed);
    sha256_stream_add(digest, sum, sizeof sum);
    sha256_stream_add(digest, left, sizeof left);
    sha256_stream_add(digest, right, sizeof right);
}

/* ---- Steps of the optimizer: the first two, one in the middle of the schedule and the last ---- */

static struct schedule schedule_for(const struct plan *plan, uint64_t train_samples)
{
    return schedule_of(plan, train_samples > 0 ? train_samples : 1);
}

static uint64_t step_at(const struct schedule *schedule, uint64_t i)
{
    const uint64_t last = schedule->steps - 1;
    return i == STEPS - 1 ? last : i == STEPS - 2 ? last / 2 : i < last ? i : last;
}

static struct optimizer_step step_of(const struct plan *plan, const struct schedule *schedule, uint64_t i)
{
    const uint64_t step = step_at(schedule, i);
    return optimizer_step(&plan->training.optimizer, schedule, step, step + 1, schedule_step(schedule, step).count, 1);
}

static const struct network_tensor tensors[] = {
    {.name = "weights", .count = WEIGHTS},
    {.name = "statistics", .kind = TENSOR_STATISTIC, .offset = WEIGHTS, .count = STATISTICS, .momentum = 0.1F},
};
enum { TENSORS = sizeof tensors / sizeof tensors[0], CHUNKS_MOST = FLOATS / CANONICAL + TENSORS + 1 };

/* Norms as they travel: in double, where a parameter's float may not show what differs. */
static void sing_rounds(const struct plan *plan, const struct optimizer *optimizer, struct optimizer_step *step,
                        const float *theta, float *const states[], const float *sum, double *scalars,
                        struct sha256_stream *digest)
{
    for (uint32_t round = 0; round < optimizer_rounds(&plan->training.optimizer); round++) {
        double measures[CHUNKS_MOST * OPTIMIZER_MEASURES_MOST] = {0};
        optimizer_measure(optimizer, step, round, 0, FLOATS, theta, states, sum, measures);
        optimizer_fold(optimizer, round, measures, 0, scalars);
        optimizer_commit(optimizer, round, scalars, step);
        sha256_stream_add(digest, measures, sizeof measures);
        sha256_stream_add(digest, scalars, optimizer_scalars(optimizer, round) * sizeof *scalars);
    }
}

static int sing_steps(const struct plan *plan, const struct schedule *schedule, struct sha256_stream *digest,
                      struct error *err)
{
    cleanup_optimizer struct optimizer *optimizer = NULL;
    if (optimizer_new(&optimizer, &plan->training.optimizer, tensors, TENSORS, CANONICAL, err) < 0)
        return -1;
    float theta[FLOATS], sum[FLOATS], memory[OPTIMIZER_STATES_MOST][FLOATS] = {0};
    float *const states[OPTIMIZER_STATES_MOST] = {memory[0], memory[1], memory[2]};
    make_values(PURPOSE_THETA, 0, 1, theta, FLOATS);
    for (uint32_t i = 0; i < STEPS; i++) {
        struct optimizer_step step = step_of(plan, schedule, i);
        make_values(PURPOSE_SUM, i, 1 / step.scale, sum, FLOATS);
        double scalars[TENSORS];
        sing_rounds(plan, optimizer, &step, theta, states, sum, scalars, digest);
        if (plan->training.optimizer.clip_norm > 0 && tasks_are_leased(plan)) { /* workers clip their own */
            optimizer_clip(optimizer, &step, sum);
            sha256_stream_add(digest, sum, sizeof sum);
        }
        optimizer_apply(optimizer, &step, 0, FLOATS, theta, theta, states, sum);
        sha256_stream_add(digest, theta, sizeof theta);
    }
    sha256_stream_add(digest, memory, sizeof memory);
    return 0;
}

/* ---- Rows of a table: gradients of two blocks, which share every other id, and a step with their sum ---- */

static int make_rows(struct sparse *out, uint32_t dim, enum purpose purpose, uint32_t apart)
{
    *out = (struct sparse){.dim = dim};
    if (sparse_reserve(out, ROWS) < 0)
        return -1;
    for (uint32_t i = 0; i < ROWS; i++)
        out->ids[i] = i * apart;
    out->count = ROWS;
    make_values(purpose, dim, 2, out->rows, (size_t)ROWS * dim);
    return 0;
}

static int sing_rows(const struct plan *plan, const struct network_table *table, const struct schedule *schedule,
                     struct sha256_stream *digest)
{
    const uint32_t dim = table->dim;
    cleanup_sparse struct sparse left = {0}, right = {0};
    cleanup_sparse struct sparse sum = {.dim = dim, .bfloat16 = plan->wire == PLAN_BFLOAT16};
    cleanup_free float *memory = calloc((size_t)(1 + OPTIMIZER_STATES_MOST) * dim, sizeof *memory);
    if (memory == NULL || make_rows(&left, dim, PURPOSE_LEFT, 1) < 0 || make_rows(&right, dim, PURPOSE_RIGHT, 2) < 0 ||
        sparse_sum(&sum, &left, &right) < 0)
        return -1;
    float *const theta = memory;
    float *const states[OPTIMIZER_STATES_MOST] = {memory + dim, memory + 2 * (size_t)dim, memory + 3 * (size_t)dim};
    make_values(PURPOSE_ROWS, dim, table->bound, theta, dim);
    const struct optimizer_step step = step_of(plan, schedule, 0);
    struct exact_sum squares = {0};
    if (plan->training.optimizer.clip_norm > 0)
        optimizer_add_row_squares(&step, &sum, &squares);
    for (uint32_t i = 0; i < sum.count; i++)
        optimizer_apply_row(&plan->training.optimizer, &step, theta, states, sum.rows + (size_t)i * dim, dim);
    const double total = exact_sum_value(&squares);
    sha256_stream_add(digest, &total, sizeof total);
    sha256_stream_add(digest, sum.rows, (size_t)sum.count * dim * sizeof(float));
    sha256_stream_add(digest, memory, (size_t)(1 + OPTIMIZER_STATES_MOST) * dim * sizeof(float));
    return 0;
}

/* ---- All of it ---- */

int canary_of_shard(const struct plan *plan, const struct model *model, uint64_t train_samples,
                    uint8_t out[SHA256_SIZE], struct error *err)
{
    const struct network *network = model_network(model);
    const struct schedule schedule = schedule_for(plan, train_samples);
    cleanup_sha256_stream struct sha256_stream *digest = sha256_stream_new();
    sing_initial_values(model, digest);
    (plan->wire == PLAN_BFLOAT16 ? sing_rounded_sums : sing_sums)(digest);
    if (sing_steps(plan, &schedule, digest, err) < 0)
        return -1;
    for (uint32_t i = 0; i < network->table_count; i++)
        if (sing_rows(plan, &network->tables[i], &schedule, digest) < 0)
            return error_set(err, "out of memory for checking this machine's arithmetic");
    sha256_stream_end(digest, out);
    return 0;
}

int canary_of_worker(const struct plan *plan, const struct model *model, uint64_t train_samples,
                     uint8_t out[SHA256_SIZE], struct error *err)
{
    uint8_t parts[2][SHA256_SIZE];
    if (canary_of_shard(plan, model, train_samples, parts[0], err) < 0 ||
        model_canary(model, plan->training.batch_size, plan->blocks, train_samples, parts[1], err) < 0)
        return -1;
    sha256(parts, sizeof parts, out);
    return 0;
}
