/* Products that step over zeros: their bits are those of the chain of fused multiply-adds that they are defined as, for
 * every vector unit of this CPU. */
#include "model/gemm.h"

#include "numerics/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GAP = 3, UNITS = 3 };

struct size {
    enum gemm_form form;
    size_t m, n, k;
};

/* The operands of up to GEMM_SUM_MOST products, with gaps behind their rows. */
struct bed {
    struct size size;
    struct gemm_factors factors[GEMM_SUM_MOST];
    float *a[GEMM_SUM_MOST], *b[GEMM_SUM_MOST];
    float *have, *want, *part;
    size_t ldc;
};

static size_t a_floats(const struct bed *bed)
{
    const struct size *size = &bed->size;
    return size->form == GEMM_TN ? size->k * (size->m + GAP) : size->m * (size->k + GAP);
}

static float *random_floats(size_t n, uint32_t stream)
{
    float *values = vector_new(n);
    assert_non_null(values);
    random_uniform_range(random_stream(11, RANDOM_CANARY, stream, 0, 0), 0, n, -1, 1, values);
    return values;
}

/* Of ten elements of each a, `of_ten` are not zero. */
static void make(struct bed *bed, struct size size, uint32_t of_ten)
{
    *bed = (struct bed){.size = size, .ldc = size.n + GAP};
    for (uint32_t f = 0; f < GEMM_SUM_MOST; f++) {
        bed->a[f] = random_floats(a_floats(bed), f);
        bed->b[f] = random_floats(size.k * (size.n + GAP), GEMM_SUM_MOST + f);
        float *chosen = random_floats(a_floats(bed), 2 * GEMM_SUM_MOST + f);
        for (size_t i = 0; i < a_floats(bed); i++)
            if (5 * (chosen[i] + 1) >= (float)of_ten)
                bed->a[f][i] = i % 2 == 0 ? 0.0F : -0.0F;
        free(chosen);
        bed->factors[f] = (struct gemm_factors){size.k, bed->a[f], (size.form == GEMM_TN ? size.m : size.k) + GAP,
                                                bed->b[f], bed->ldc};
    }
    bed->have = vector_new(size.m * bed->ldc);
    bed->want = vector_new(size.m * bed->ldc);
    bed->part = vector_new(2 * size.n);
    assert_true(bed->have != NULL && bed->want != NULL && bed->part != NULL);
    memset(bed->have, 0xff, size.m * bed->ldc * sizeof(float));
    memset(bed->want, 0xff, size.m * bed->ldc * sizeof(float));
}

static void unmake(struct bed *bed)
{
    for (uint32_t f = 0; f < GEMM_SUM_MOST; f++) {
        free(bed->a[f]);
        free(bed->b[f]);
    }
    free(bed->have);
    free(bed->want);
    free(bed->part);
}

/* Row i of product f. */
static void define_row(const struct bed *bed, uint32_t f, size_t i, float *out)
{
    const struct gemm_factors *of = &bed->factors[f];
    for (size_t j = 0; j < bed->size.n; j++) {
        out[j] = 0;
        for (size_t p = 0; p < of->k; p++) {
            const float x = bed->size.form == GEMM_TN ? of->a[p * of->lda + i] : of->a[i * of->lda + p];
            if (x != 0)
                out[j] = fmaf(x, of->b[p * of->ldb + j], out[j]);
        }
    }
}

static void define_sum(const struct bed *bed, uint32_t first, uint32_t count, size_t i, bool rounded, float *out,
                       float *scratch)
{
    const size_t n = bed->size.n;
    if (count == 1) {
        define_row(bed, first, i, out);
        return;
    }
    define_sum(bed, first, count / 2, i, rounded, out, scratch);
    define_sum(bed, first + count / 2, count / 2, i, rounded, scratch, scratch + n);
    if (rounded)
        vector_bfloat16_add(out, scratch, n);
    else
        vector_add(out, scratch, n);
}

/* The units that this CPU has. */
static uint32_t units_here(enum gemm_unit units[UNITS])
{
    uint32_t count = 0;
    for (enum gemm_unit unit = GEMM_AVX2; unit <= gemm_unit(); unit++)
        units[count++] = unit;
    return count;
}

static void expect_as_defined(struct bed *bed, enum gemm_unit unit, uint32_t count, bool rounded)
{
    const struct size *size = &bed->size;
    for (size_t i = 0; i < size->m; i++) {
        float *row = bed->want + i * bed->ldc;
        float scratch[2][size->n];
        define_sum(bed, 0, count, i, rounded, row, scratch[0]);
    }
    memset(bed->have, 0xff, size->m * bed->ldc * sizeof(float));
    assert_true(gemm_sparse(unit, size->form, size->m, size->n, bed->factors, count, rounded, bed->have, bed->ldc));
    assert_memory_equal(bed->have, bed->want, size->m * bed->ldc * sizeof(float));
}

static void sums_have_the_bits_of_their_definition(void **state)
{
    (void)state;
    /* Stripes of each number of registers, of two numbers side by side, and more rows than are listed at once. */
    static const struct {
        struct size size;
        uint32_t of_ten;
    } cases[] = {
        {{GEMM_TN, 1, 16, 1}, 0},    {{GEMM_TN, 20, 784, 16}, 3}, {{GEMM_TN, 7, 48, 33}, 2},
        {{GEMM_TN, 150, 64, 5}, 4},  {{GEMM_TN, 9, 240, 17}, 5},  {{GEMM_NN, 16, 256, 10}, 1},
        {{GEMM_NN, 1, 16, 1}, 0},    {{GEMM_NN, 16, 80, 128}, 3}, {{GEMM_NN, 130, 112, 8}, 3},
        {{GEMM_NN, 5, 96, 1000}, 3}, {{GEMM_NN, 3, 400, 65}, 2},  {{GEMM_TN, 70, 32, 64}, 0},
    };
    enum gemm_unit units[UNITS];
    const uint32_t unit_count = units_here(units);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bed bed;
        make(&bed, cases[i].size, cases[i].of_ten);
        for (uint32_t u = 0; u < unit_count; u++)
            for (uint32_t count = 1; count <= GEMM_SUM_MOST; count *= 2) {
                expect_as_defined(&bed, units[u], count, false);
                expect_as_defined(&bed, units[u], count, true);
            }
        unmake(&bed);
    }
}

static void nan_stays_seen(void **state)
{
    (void)state;
    enum gemm_unit units[UNITS];
    const uint32_t unit_count = units_here(units);
    for (uint32_t u = 0; u < unit_count; u++) {
        struct bed bed;
        make(&bed, (struct size){GEMM_TN, 4, 16, 8}, 2);
        const uint32_t unusual = 0xffc12345; /* NaN */
        memcpy(&bed.a[1][2], &unusual, sizeof unusual);
        bed.a[0][1] = INFINITY;
        bed.a[2][1] = -INFINITY;
        for (uint32_t i = 0; i < 2; i++) {
            const bool rounded = i > 0;
            assert_true(gemm_sparse(units[u], GEMM_TN, 4, 16, bed.factors, 4, rounded, bed.have, bed.ldc));
            assert_true(isnan(bed.have[2 * bed.ldc]) != 0);
            assert_true(isfinite(bed.have[bed.ldc]) == 0);
            assert_true(isfinite(bed.have[3 * bed.ldc]) != 0);
            uint32_t bits;
            memcpy(&bits, &bed.have[2 * bed.ldc], sizeof bits);
            if (rounded)
                assert_int_equal(bits, 0x7fc00000);
        }
        unmake(&bed);
    }
}

static void what_meets_zeros_is_not_read(void **state)
{
    (void)state;
    enum gemm_unit units[UNITS];
    const uint32_t unit_count = units_here(units);
    for (uint32_t u = 0; u < unit_count; u++) {
        struct bed bed;
        make(&bed, (struct size){GEMM_NN, 2, 16, 8}, 0);
        bed.a[0][3] = 2;
        bed.b[0][2 * bed.ldc] = NAN;
        bed.b[0][3 * bed.ldc] = 1.5F;
        assert_true(gemm_sparse(units[u], GEMM_NN, 2, 16, bed.factors, 1, false, bed.have, bed.ldc));
        assert_true(bed.have[0] == 3);
        assert_true(bed.have[bed.ldc] == 0);
        unmake(&bed);
    }
}

/* So that it is not made in two ways: which way a product goes depends on itself alone. */
static void expect_decisions(enum gemm_form form, size_t k, size_t most)
{
    enum gemm_unit units[UNITS];
    const uint32_t unit_count = units_here(units);
    struct bed bed;
    make(&bed, (struct size){form, 1, 16, k}, 0);
    const size_t step = form == GEMM_TN ? bed.factors[0].lda : 1;
    for (uint32_t u = 0; u < unit_count; u++) {
        for (uint32_t f = 0; f < GEMM_SUM_MOST; f++) {
            for (size_t p = 0; p < most; p++)
                bed.a[f][p * step] = 1;
            assert_true(gemm_sparse(units[u], form, 1, 16, bed.factors, 4, false, bed.have, bed.ldc));
            bed.a[f][most * step] = 1;
            assert_false(gemm_sparse(units[u], form, 1, 16, bed.factors, 4, false, bed.have, bed.ldc));
            assert_false(gemm_sparse(units[u], form, 1, 16, &bed.factors[f], 1, false, bed.have, bed.ldc));
            memset(bed.a[f], 0, a_floats(&bed) * sizeof(float));
        }
    }
    unmake(&bed);
}

static void each_product_decides_for_itself(void **state)
{
    (void)state;
    expect_decisions(GEMM_TN, 64, 40);
    expect_decisions(GEMM_TN, 72, 27);
    expect_decisions(GEMM_NN, 16, 6);
}

static void what_it_cannot_do_is_left_alone(void **state)
{
    (void)state;
    struct bed bed;
    make(&bed, (struct size){GEMM_TN, 16, 32, 2000}, 1);
    float before;
    memcpy(&before, bed.have, sizeof before);
    const enum gemm_unit unit = gemm_unit();
    assert_false(gemm_sparse(GEMM_NO_UNIT, GEMM_TN, 16, 32, bed.factors, 1, false, bed.have, bed.ldc));
    assert_false(gemm_sparse(unit, GEMM_TN, 16, 31, bed.factors, 1, false, bed.have, bed.ldc));
    assert_false(gemm_sparse(unit, GEMM_NT, 16, 32, bed.factors, 1, false, bed.have, bed.ldc));
    assert_false(gemm_sparse(unit, GEMM_TN, 16, 32, bed.factors, 4, false, bed.have, bed.ldc)); /* 8,000 a row */
    bed.factors[0].ldb = UINT32_MAX;
    assert_false(gemm_sparse(unit, GEMM_TN, 16, 32, bed.factors, 1, false, bed.have, bed.ldc));
    assert_memory_equal(&before, bed.have, sizeof before);
    unmake(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_have_the_bits_of_their_definition), cmocka_unit_test(nan_stays_seen),
        cmocka_unit_test(what_meets_zeros_is_not_read),           cmocka_unit_test(each_product_decides_for_itself),
        cmocka_unit_test(what_it_cannot_do_is_left_alone),
    };
    numerics_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
