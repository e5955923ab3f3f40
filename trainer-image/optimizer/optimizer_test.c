/* Every optimizer against PyTorch's numbers and against itself in pieces: any cut, any place in memory, the same bits.
 */
#include "optimizer/optimizer.h"

#include "numerics/exact_sum.h"
#include "numerics/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "optimizer/testdata/golden.h"

enum {
    SIZES = sizeof golden_sizes / sizeof golden_sizes[0],
    CASES = sizeof golden_optimizers / sizeof golden_optimizers[0]
};

/* PyTorch rounds in another order, and fuses; six steps of that stay within this of values around 1. */
static const float tolerance = 2e-6F;

static struct schedule steps_of(uint64_t per_epoch, uint64_t epochs)
{
    return (struct schedule){
        .samples = per_epoch, .batch = 1, .steps_per_epoch = per_epoch, .steps = per_epoch * epochs};
}

static void golden_tensors(struct network_tensor tensors[SIZES])
{
    uint64_t at = 0;
    for (size_t i = 0; i < SIZES; i++) {
        tensors[i] = (struct network_tensor){.offset = at, .count = golden_sizes[i]};
        at += golden_sizes[i];
    }
}

static struct optimizer *new_optimizer(const struct plan_optimizer *plan, const struct network_tensor *tensors,
                                       uint32_t count, uint32_t chunk)
{
    struct optimizer *optimizer = NULL;
    struct error err = {0};
    if (optimizer_new(&optimizer, plan, tensors, count, chunk, &err) < 0)
        fail_msg("%s", error_message(&err));
    return optimizer;
}

static void expect_close(const char *name, const char *when, const float *have, const float *want)
{
    for (uint32_t i = 0; i < GOLDEN_FLOATS; i++)
        if (!(fabsf(have[i] - want[i]) <= tolerance * (1 + fabsf(want[i]))))
            fail_msg("%s, %s step, element %u: %.9g and not PyTorch's %.9g", name, when, i, (double)have[i],
                     (double)want[i]);
}

static void test_numbers_are_pytorchs(void **state)
{
    (void)state;
    const struct schedule schedule = steps_of(GOLDEN_STEPS, 1);
    struct network_tensor tensors[SIZES];
    golden_tensors(tensors);
    for (size_t c = 0; c < CASES; c++) {
        const struct golden *golden = &golden_optimizers[c];
        cleanup_optimizer struct optimizer *optimizer = new_optimizer(&golden->plan, tensors, SIZES, 8);
        float memory[OPTIMIZER_STATES_MOST][GOLDEN_FLOATS] = {{0}};
        float *const states[OPTIMIZER_STATES_MOST] = {memory[0], memory[1], memory[2]};
        float theta[GOLDEN_FLOATS];
        memcpy(theta, golden_start, sizeof theta);
        for (uint64_t s = 0; s < GOLDEN_STEPS; s++) {
            struct optimizer_step step = optimizer_step(&golden->plan, &schedule, s, s + 1, GOLDEN_SAMPLES, 1);
            optimizer_update(optimizer, &step, theta, theta, states, golden_sums[s]);
            if (s == 0)
                expect_close(golden->name, "first", theta, golden->first);
        }
        expect_close(golden->name, "last", theta, golden->last);
        /* What says to need fewer states leaves the others alone. */
        for (uint32_t i = optimizer_states(&golden->plan); i < OPTIMIZER_STATES_MOST; i++)
            for (uint32_t k = 0; k < GOLDEN_FLOATS; k++)
                assert_true(memory[i][k] == 0);
    }
}

static void test_rates_are_pytorchs(void **state)
{
    (void)state;
    const struct schedule schedule = steps_of(3, 8);
    for (size_t c = 0; c < sizeof golden_schedules / sizeof golden_schedules[0]; c++)
        for (uint64_t s = 0; s < GOLDEN_RATES; s++) {
            double have = optimizer_rate(&golden_schedules[c].plan, &schedule, s), want = golden_schedules[c].rates[s];
            if (!(fabs(have - want) <= 1e-14))
                fail_msg("schedule %zu, step %lu: %.17g and not PyTorch's %.17g", c, (unsigned long)s, have, want);
        }
}

static void test_rates_have_ends(void **state)
{
    (void)state;
    const struct schedule schedule = steps_of(10, 10);
    struct plan_optimizer plan = {.learning_rate = 2};
    plan.schedule.type = PLAN_SCHEDULE_POLYNOMIAL;
    plan.schedule.power = 2;
    plan.schedule.final_factor = 0.25;
    assert_true(optimizer_rate(&plan, &schedule, 0) == 2);
    assert_true(optimizer_rate(&plan, &schedule, 100) == 0.5);
    assert_true(optimizer_rate(&plan, &schedule, 1000) == 0.5);
    plan.schedule.type = PLAN_SCHEDULE_COSINE;
    assert_true(fabs(optimizer_rate(&plan, &schedule, 50) - 1.25) < 1e-15);
    assert_true(fabs(optimizer_rate(&plan, &schedule, 1000) - 0.5) < 1e-15);
    plan.schedule.warmup_steps = 200; /* longer than the job */
    assert_true(optimizer_rate(&plan, &schedule, 0) == 0.01);
    assert_true(optimizer_rate(&plan, &schedule, 99) == 1);
    assert_true(optimizer_rate(&plan, &schedule, 300) == 2);
}

/* ---- SGD as it is written down: g = Σ/n + λθ, v = μv + g, θ − ηv ---- */

static void test_sgd_is_its_definition(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct random_stream stream = random_stream(3, RANDOM_CANARY, 0, 0, 0);
    static float theta[N], sum[N], velocity[N], plain[N], v[N];
    for (int momentum = 0; momentum < 2; momentum++) {
        const struct plan_optimizer plan = {
            .learning_rate = 0.05, .momentum = momentum == 0 ? 0 : 0.9, .weight_decay = 1e-4};
        const struct schedule schedule = steps_of(5, 1);
        float *const states[OPTIMIZER_STATES_MOST] = {velocity};
        random_uniform_range(stream, 0, N, -1, 1, theta);
        memcpy(plain, theta, sizeof theta);
        memset(velocity, 0, sizeof velocity);
        memset(v, 0, sizeof v);
        for (uint64_t s = 0; s < 5; s++) {
            random_uniform_range(stream, N * (s + 1), N * (s + 2), -9, 9, sum);
            struct optimizer_step step = optimizer_step(&plan, &schedule, s, s + 1, 37, 1);
            optimizer_apply_row(&plan, &step, theta, states, sum, N);
            for (int i = 0; i < N; i++) {
                const float gradient = sum[i] * (float)(1.0 / 37) + 1e-4F * plain[i];
                v[i] = (float)plan.momentum * v[i] + gradient;
                plain[i] = plain[i] - 0.05F * v[i];
            }
            assert_memory_equal(theta, plain, sizeof theta);
        }
    }
}

/* ---- cuts ---- */

enum { CHUNK = 32, TENSORS = 6, FLOATS = 700, TWICE = 2 * FLOATS, DIM_OF_ROW = 17 };

/* Statistics between and next to what is trained, tensors below and above a canonical chunk. */
static void mixed_tensors(struct network_tensor tensors[TENSORS])
{
    static const uint64_t counts[TENSORS] = {150, 10, 20, 30, 3, 487};
    uint64_t at = 0;
    for (uint32_t i = 0; i < TENSORS; i++) {
        tensors[i] = (struct network_tensor){.offset = at, .count = counts[i]};
        if (i == 2 || i == 3) {
            tensors[i].kind = TENSOR_STATISTIC;
            tensors[i].momentum = i == 2 ? 0.1F : 0.25F;
        }
        at += counts[i];
    }
    assert_int_equal(at, FLOATS);
}

struct vector {
    float theta[FLOATS], states[OPTIMIZER_STATES_MOST][FLOATS];
};

/* The last canonical boundary in (begin, begin + most], by looking at all of them. */
static uint64_t cut_at(const struct network_tensor *tensors, uint64_t begin, uint64_t most)
{
    uint64_t found = begin;
    for (uint32_t i = 0; i < TENSORS; i++)
        for (uint64_t k = 0; k < tensors[i].count; k += CHUNK)
            if (tensors[i].offset + k > begin && tensors[i].offset + k <= begin + most)
                found = tensors[i].offset + k;
    return begin + most >= FLOATS ? FLOATS : found;
}

/* One step in pieces of at most `most`, the last first, as shards would. */
static void update_in_pieces(struct optimizer *optimizer, struct optimizer_step *step,
                             const struct network_tensor *tensors, const struct plan_optimizer *plan,
                             struct vector *vector, const float *sum, uint32_t most)
{
    uint64_t cuts[FLOATS + 1] = {0};
    uint32_t pieces = 0;
    while (cuts[pieces] < FLOATS) {
        cuts[pieces + 1] = cut_at(tensors, cuts[pieces], most);
        pieces++;
    }
    static double scalars[OPTIMIZER_ROUNDS_MOST][TENSORS];
    for (uint32_t round = 0; round <= optimizer_rounds(plan); round++) {
        double measures[2 * FLOATS] = {0};
        for (uint32_t i = pieces; i-- > 0;) {
            uint64_t at = cuts[i], first = optimizer_chunks(optimizer, at);
            float *states[OPTIMIZER_STATES_MOST];
            for (int k = 0; k < OPTIMIZER_STATES_MOST; k++)
                states[k] = vector->states[k] + at;
            if (round == optimizer_rounds(plan))
                optimizer_apply(optimizer, step, at, cuts[i + 1], vector->theta + at, vector->theta + at, states,
                                sum + at);
            else
                optimizer_measure(optimizer, step, round, at, cuts[i + 1], vector->theta + at, states, sum + at,
                                  measures + first * optimizer_measures(optimizer, round));
        }
        if (round == optimizer_rounds(plan))
            return;
        optimizer_fold(optimizer, round, measures, 0, scalars[round]);
        optimizer_commit(optimizer, round, scalars[round], step);
    }
}

static void expect_statistics(const struct vector *before, const struct vector *after, const float *sum)
{
    for (uint32_t i = 160; i < 210; i++) {
        float momentum = i < 180 ? 0.1F : 0.25F;
        float scale = (float)(1.0 / 7);
        assert_true(after->theta[i] == before->theta[i] + momentum * (sum[i] * scale - before->theta[i]));
        for (int k = 0; k < OPTIMIZER_STATES_MOST; k++)
            assert_true(after->states[k][i] == 0);
    }
}

static void test_any_cut_gives_the_same_bits(void **state)
{
    (void)state;
    static const uint32_t cuts[] = {32, 33, 100, 331, 699, 700};
    struct random_stream stream = random_stream(7, RANDOM_CANARY, 0, 0, 0);
    struct network_tensor tensors[TENSORS];
    mixed_tensors(tensors);
    const struct schedule schedule = steps_of(3, 1);
    for (size_t c = 0; c < CASES; c++) {
        const struct plan_optimizer *plan = &golden_optimizers[c].plan;
        cleanup_optimizer struct optimizer *optimizer = new_optimizer(plan, tensors, TENSORS, CHUNK);
        for (size_t k = 0; k < sizeof cuts / sizeof cuts[0]; k++) {
            static struct vector whole, pieces, before;
            memset(&whole, 0, sizeof whole);
            random_uniform_range(stream, 0, FLOATS, -1, 1, whole.theta);
            pieces = whole;
            float *const states[OPTIMIZER_STATES_MOST] = {whole.states[0], whole.states[1], whole.states[2]};
            for (uint64_t s = 0; s < 3; s++) {
                static float sum[FLOATS], next[FLOATS];
                random_uniform_range(stream, FLOATS * (s + 1), FLOATS * (s + 2), -20, 20, sum);
                before = whole;
                struct optimizer_step step = optimizer_step(plan, &schedule, s, s + 1, 7, 1);
                optimizer_update(optimizer, &step, next, whole.theta, states, sum);
                memcpy(whole.theta, next, sizeof next);
                step = optimizer_step(plan, &schedule, s, s + 1, 7, 1);
                update_in_pieces(optimizer, &step, tensors, plan, &pieces, sum, cuts[k]);
                assert_memory_equal(&whole, &pieces, sizeof whole);
                expect_statistics(&before, &whole, sum);
            }
        }
    }
}

/* A row is a tensor of its own that is within one canonical chunk: rows one by one are tensors all together. */
static void test_rows_are_tensors(void **state)
{
    (void)state;
    enum { DIM = 20, ROWS = 12, ALL = DIM * ROWS };
    struct random_stream stream = random_stream(8, RANDOM_CANARY, 0, 0, 0);
    struct network_tensor tensors[ROWS];
    for (uint32_t i = 0; i < ROWS; i++)
        tensors[i] = (struct network_tensor){.offset = (uint64_t)DIM * i, .count = DIM};
    const struct schedule schedule = steps_of(3, 1);
    for (size_t c = 0; c < CASES; c++) {
        const struct plan_optimizer *plan = &golden_optimizers[c].plan;
        cleanup_optimizer struct optimizer *optimizer = new_optimizer(plan, tensors, ROWS, CHUNK);
        static struct vector whole, rows;
        memset(&whole, 0, sizeof whole);
        random_uniform_range(stream, 0, ALL - DIM, -1, 1, whole.theta); /* one is all zero */
        rows = whole;
        float *const states[OPTIMIZER_STATES_MOST] = {whole.states[0], whole.states[1], whole.states[2]};
        for (uint64_t s = 0; s < 3; s++) {
            static float sum[ALL];
            random_uniform_range(stream, FLOATS * (s + 1), FLOATS * (s + 1) + ALL, -20, 20, sum);
            struct optimizer_step step = optimizer_step(plan, &schedule, s, s + 1, 7, 1);
            if (plan->clip_norm > 0)
                optimizer_find_clip(optimizer, &step, 0, sum);
            for (uint32_t i = 0; i < ROWS; i++) {
                float *const own[OPTIMIZER_STATES_MOST] = {rows.states[0] + (size_t)i * DIM,
                                                           rows.states[1] + (size_t)i * DIM,
                                                           rows.states[2] + (size_t)i * DIM};
                optimizer_apply_row(plan, &step, rows.theta + (size_t)i * DIM, own, sum + (size_t)i * DIM, DIM);
            }
            step = optimizer_step(plan, &schedule, s, s + 1, 7, 1);
            optimizer_update(optimizer, &step, whole.theta, whole.theta, states, sum);
            assert_memory_equal(&whole, &rows, sizeof whole);
        }
    }
}

/* What a gradient that was clipped before comes to is what clipping comes to; with a power of two of samples, in which
 * nothing is rounded, bit for bit. */
static void test_clipping_ahead_is_clipping(void **state)
{
    (void)state;
    struct random_stream stream = random_stream(9, RANDOM_CANARY, 0, 0, 0);
    struct network_tensor tensors[TENSORS];
    mixed_tensors(tensors);
    const struct schedule schedule = steps_of(3, 1);
    struct plan_optimizer plan = {
        .type = PLAN_SGD, .learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01, .clip_value = 0.8};
    float *const none[OPTIMIZER_STATES_MOST] = {0};
    static struct vector at_once, ahead;
    static float sum[FLOATS], row[DIM_OF_ROW];
    for (int i = 0; i < 3; i++) {
        plan.clip_norm = i == 2 ? 1e6 : 3;
        const uint64_t samples = i == 1 ? 7 : 8;
        cleanup_optimizer struct optimizer *optimizer = new_optimizer(&plan, tensors, TENSORS, CHUNK);
        memset(&at_once, 0, sizeof at_once);
        random_uniform_range(stream, 0, FLOATS, -1, 1, at_once.theta);
        ahead = at_once;
        random_uniform_range(stream, FLOATS, TWICE, -20, 20, sum);
        random_uniform_range(stream, TWICE, TWICE + DIM_OF_ROW, -20, 20, row);
        struct optimizer_step step = optimizer_step(&plan, &schedule, 0, 1, samples, 1);
        const double rows = optimizer_row_squares(&step, row, DIM_OF_ROW);
        optimizer_find_clip(optimizer, &step, rows, sum);
        assert_int_equal(step.clip < 1, i != 2);
        float *const states[OPTIMIZER_STATES_MOST] = {at_once.states[0]};
        optimizer_apply(optimizer, &step, 0, FLOATS, at_once.theta, at_once.theta, states, sum);
        optimizer_clip(optimizer, &step, sum);
        optimizer_clip_row(&step, row, DIM_OF_ROW);

        struct optimizer_step later = optimizer_step(&plan, &schedule, 0, 1, samples, 1);
        float *const later_states[OPTIMIZER_STATES_MOST] = {ahead.states[0]};
        optimizer_apply(optimizer, &later, 0, FLOATS, ahead.theta, ahead.theta, later_states, sum);
        if (samples == 8)
            assert_memory_equal(&at_once, &ahead, sizeof ahead);
        for (uint32_t k = 0; k < FLOATS; k++)
            assert_true(fabsf(at_once.theta[k] - ahead.theta[k]) < 1e-6F);
        /* Norms are now what they may be at most, rows included. */
        double all[FLOATS], left = optimizer_row_squares(&later, row, DIM_OF_ROW);
        optimizer_measure(optimizer, &later, 0, 0, FLOATS, ahead.theta, none, sum, all);
        for (uint64_t k = 0; k < optimizer_chunks(optimizer, FLOATS); k++)
            left += all[k];
        assert_true(i == 2 || fabs(sqrt(left) - 3) < 1e-4);
    }
}

static void test_canonical_chunks(void **state)
{
    (void)state;
    struct network_tensor tensors[TENSORS];
    mixed_tensors(tensors);
    const struct plan_optimizer plan = {.type = PLAN_LAMB, .clip_norm = 1};
    cleanup_optimizer struct optimizer *optimizer = new_optimizer(&plan, tensors, TENSORS, CHUNK);
    static const uint64_t chunks[][2] = {{0, 0},   {32, 1},  {128, 4}, {150, 5},  {160, 6},
                                         {180, 7}, {210, 8}, {213, 9}, {245, 10}, {700, 25}};
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++)
        assert_int_equal(optimizer_chunks(optimizer, chunks[i][0]), chunks[i][1]);
    assert_int_equal(optimizer_measures(optimizer, 0), 1);
    assert_int_equal(optimizer_measures(optimizer, 1), 2);
    assert_int_equal(optimizer_row_measures(optimizer, 0), EXACT_SUM_DOUBLES);
    assert_int_equal(optimizer_row_measures(optimizer, 1), 0);
    assert_int_equal(optimizer_scalars(optimizer, 0), 1);
    assert_int_equal(optimizer_scalars(optimizer, 1), TENSORS);
}

static void test_norms_that_are_none(void **state)
{
    (void)state;
    struct network_tensor tensors[2] = {{.count = 4}, {.offset = 4, .count = 4}};
    struct plan_optimizer plan = {.type = PLAN_LAMB, .learning_rate = 1, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-6};
    cleanup_optimizer struct optimizer *optimizer = new_optimizer(&plan, tensors, 2, 4);
    double scalars[2];
    optimizer_fold(optimizer, 0, (double[]){0, 9, 9, 0}, 0, scalars);
    assert_true(scalars[0] == 1 && scalars[1] == 1);
    optimizer_fold(optimizer, 0, (double[]){4, 16, 25, 4}, 0, scalars);
    assert_true(scalars[0] == 0.5 && scalars[1] == 2.5);
    plan.clip_norm = 2;
    cleanup_optimizer struct optimizer *clipping = new_optimizer(&plan, tensors, 2, 4);
    optimizer_fold(clipping, 0, (double[]){0, 0}, 0, scalars);
    assert_true(scalars[0] == 1);
    optimizer_fold(clipping, 0, (double[]){9, 16}, 0, scalars);
    assert_true(scalars[0] == 2 / (5 + 1e-6));
    optimizer_fold(clipping, 0, (double[]){9, 16}, 144, scalars);
    assert_true(scalars[0] == 2 / (13 + 1e-6));
    optimizer_fold(clipping, 0, (double[]){(double)NAN, 16}, 0, scalars);
    assert_true(isnan(scalars[0])); /* and with it the parameters: a broken gradient must be seen */
    optimizer_fold(clipping, 0, (double[]){9, 16}, (double)NAN, scalars);
    assert_true(isnan(scalars[0]));
}

static void test_tensors_fill_the_vector(void **state)
{
    (void)state;
    const struct network_tensor tensors[2] = {{.name = "fc1.weight", .count = 4},
                                              {.name = "fc1.bias", .offset = 5, .count = 4}};
    const struct plan_optimizer plan = {.learning_rate = 1};
    struct optimizer *optimizer = NULL;
    struct error err = {0};
    assert_int_equal(optimizer_new(&optimizer, &plan, tensors, 2, 4, &err), -1);
    assert_string_equal(error_message(&err), "tensor fc1.bias does not begin where the one before it ends");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_are_pytorchs),
        cmocka_unit_test(test_rates_are_pytorchs),
        cmocka_unit_test(test_rates_have_ends),
        cmocka_unit_test(test_sgd_is_its_definition),
        cmocka_unit_test(test_any_cut_gives_the_same_bits),
        cmocka_unit_test(test_rows_are_tensors),
        cmocka_unit_test(test_clipping_ahead_is_clipping),
        cmocka_unit_test(test_canonical_chunks),
        cmocka_unit_test(test_norms_that_are_none),
        cmocka_unit_test(test_tensors_fill_the_vector),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
