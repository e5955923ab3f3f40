/* Products that step over the zeros of their left operand.
 *
 * What is not zero is listed once. Then c is made in stripes as wide as the registers hold: a row's sums stay there
 * while the rows of b that it needs come from the first-level cache, and each meets one element of a. Every element of
 * c is a chain of fused multiply-adds of its own, so how wide a register is does not show in its bits. */
#include "model/gemm.h"
#include "numerics/numerics.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <string.h>

enum {
    ENTRIES_MOST = 4096, /* in the first-level cache beside a stripe of b */
    ROWS_MOST = 64,
    COLUMNS = 16,     /* n is a multiple of this: the widest register */
    VECTORS_MOST = 8, /* of a stripe: with those of three sums, what AVX-512 has registers for */
    FEW = 64,         /* samples: no more are in a block whose products are added up (model.h) */
};

/* An element of a that is not zero, and where the row of b is that it meets: in floats from b's first. */
struct entry {
    float value;
    uint32_t offset;
};

/* Some rows of c: of each the first product's entries, then the next one's. */
struct rows {
    size_t count;
    const struct entry *entries;
    const uint32_t *ends; /* [count][factor_count]: the entry behind a product's last */
    const struct gemm_factors *factors;
    uint32_t factor_count;
    bool rounded;
    float *c;
    size_t ldc;
};

#ifdef __x86_64__

#define INLINE(TARGET) __attribute__((target(TARGET), always_inline)) static inline

/* Functions of one vector unit, named …_UNIT; `stripe` makes columns [column, column + vectors registers). */
#define STRIPES(UNIT, TARGET, VECTOR, BYTES, ZERO, SPREAD, LOAD, STORE, FMA)                                           \
    typedef uint32_t bits_##UNIT __attribute__((vector_size(BYTES)));                                                  \
    typedef int32_t ints_##UNIT __attribute__((vector_size(BYTES)));                                                   \
                                                                                                                       \
    /* As bfloat16_value(bfloat16_of(x)). */                                                                           \
    INLINE(TARGET) VECTOR round_##UNIT(VECTOR x)                                                                       \
    {                                                                                                                  \
        const bits_##UNIT bits = (bits_##UNIT)x, even = bits >> 16 & 1;                                                \
        const bits_##UNIT rounded = (bits + 0x7fff + even) & 0xffff0000;                                               \
        const bits_##UNIT nan = (bits_##UNIT)((ints_##UNIT)(bits & 0x7fffffff) > 0x7f800000);                          \
        return (VECTOR)((rounded & ~nan) | (nan & 0x7fc00000));                                                        \
    }                                                                                                                  \
                                                                                                                       \
    INLINE(TARGET) void add_##UNIT(VECTOR *left, const VECTOR *right, size_t vectors, bool rounded)                    \
    {                                                                                                                  \
        _Pragma("GCC unroll 8") for (size_t v = 0; v < vectors; v++) left[v] =                                         \
            rounded ? round_##UNIT(round_##UNIT(left[v]) + round_##UNIT(right[v])) : (VECTOR)(left[v] + right[v]);     \
    }                                                                                                                  \
                                                                                                                       \
    INLINE(TARGET)                                                                                                     \
    const struct entry *product_##UNIT(VECTOR *sums, size_t vectors, const struct entry *entry,                        \
                                       const struct entry *end, const float *b)                                        \
    {                                                                                                                  \
        _Pragma("GCC unroll 8") for (size_t v = 0; v < vectors; v++) sums[v] = ZERO();                                 \
        for (; entry < end; entry++) {                                                                                 \
            const VECTOR x = SPREAD(entry->value);                                                                     \
            const float *row = b + entry->offset;                                                                      \
            _Pragma("GCC unroll 8") for (size_t v = 0; v < vectors; v++) sums[v] =                                     \
                FMA(x, LOAD(row + v * (BYTES / sizeof(float))), sums[v]);                                              \
        }                                                                                                              \
        return entry;                                                                                                  \
    }                                                                                                                  \
                                                                                                                       \
    INLINE(TARGET) void stripe_##UNIT(const struct rows *of, size_t column, size_t vectors)                            \
    {                                                                                                                  \
        const struct gemm_factors *const factors = of->factors;                                                        \
        const struct entry *const entries = of->entries, *at = entries;                                                \
        const uint32_t *end = of->ends;                                                                                \
        const size_t rows = of->count, ldc = of->ldc;                                                                  \
        const uint32_t count = of->factor_count;                                                                       \
        const bool rounded = of->rounded;                                                                              \
        float *c = of->c + column;                                                                                     \
        for (size_t i = 0; i < rows; i++, c += ldc) {                                                                  \
            VECTOR first[VECTORS_MOST], third[VECTORS_MOST], next[VECTORS_MOST];                                       \
            at = product_##UNIT(first, vectors, at, entries + *end++, factors[0].b + column);                          \
            if (count > 1) {                                                                                           \
                at = product_##UNIT(next, vectors, at, entries + *end++, factors[1].b + column);                       \
                add_##UNIT(first, next, vectors, rounded);                                                             \
            }                                                                                                          \
            if (count > 2) {                                                                                           \
                at = product_##UNIT(third, vectors, at, entries + *end++, factors[2].b + column);                      \
                at = product_##UNIT(next, vectors, at, entries + *end++, factors[3].b + column);                       \
                add_##UNIT(third, next, vectors, rounded);                                                             \
                add_##UNIT(first, third, vectors, rounded);                                                            \
            }                                                                                                          \
            _Pragma("GCC unroll 8") for (size_t v = 0; v < vectors; v++)                                               \
                STORE(c + v * (BYTES / sizeof(float)), first[v]);                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    WIDTH(UNIT, TARGET, 1)                                                                                             \
    WIDTH(UNIT, TARGET, 2)                                                                                             \
    WIDTH(UNIT, TARGET, 3)                                                                                             \
    WIDTH(UNIT, TARGET, 4)                                                                                             \
    WIDTH(UNIT, TARGET, 5)                                                                                             \
    WIDTH(UNIT, TARGET, 6)                                                                                             \
    WIDTH(UNIT, TARGET, 7)                                                                                             \
    WIDTH(UNIT, TARGET, 8)

/* How many registers wide a stripe is must be known when it is compiled, so that its sums stay in them. */
#define WIDTH(UNIT, TARGET, VECTORS)                                                                                   \
    __attribute__((target(TARGET))) static void stripe_##UNIT##_##VECTORS(const struct rows *of, size_t column)        \
    {                                                                                                                  \
        stripe_##UNIT(of, column, VECTORS);                                                                            \
    }

STRIPES(512, "avx512f", __m512, 64, _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps,
        _mm512_fmadd_ps)
STRIPES(256, "avx2,fma", __m256, 32, _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
        _mm256_fmadd_ps)

typedef void stripe_function(const struct rows *of, size_t column);

static stripe_function *const stripes_512[VECTORS_MOST] = {stripe_512_1, stripe_512_2, stripe_512_3, stripe_512_4,
                                                           stripe_512_5, stripe_512_6, stripe_512_7, stripe_512_8};
static stripe_function *const stripes_256[VECTORS_MOST] = {stripe_256_1, stripe_256_2, stripe_256_3, stripe_256_4,
                                                           stripe_256_5, stripe_256_6, stripe_256_7, stripe_256_8};

/* In stripes of nearly one width: few registers have too few sums under way to hide what an addition takes. */
static void make_rows(enum gemm_unit unit, const struct rows *of, size_t n)
{
    stripe_function *const *const stripes = unit == GEMM_AVX512 ? stripes_512 : stripes_256;
    const size_t lanes = unit == GEMM_AVX512 ? 16 : 8;
    const size_t vectors = n / lanes;
    const size_t count = (vectors + VECTORS_MOST - 1) / VECTORS_MOST;
    for (size_t i = 0; i < count; i++) {
        const size_t begin = vectors * i / count, end = vectors * (i + 1) / count;
        stripes[end - begin - 1](of, begin * lanes);
    }
}

enum gemm_unit gemm_unit(void)
{
    if (__builtin_cpu_supports("avx512f"))
        return GEMM_AVX512;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? GEMM_AVX2 : GEMM_NO_UNIT;
}

#else

static void make_rows(enum gemm_unit unit, const struct rows *of, size_t n)
{
    (void)unit;
    (void)of;
    (void)n;
}

enum gemm_unit gemm_unit(void)
{
    return GEMM_NO_UNIT;
}

#endif

/* 1, unless x is 0 or −0. Integers need one comparison for what takes floats two, because of NaN. */
static uint32_t counts(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits << 1 != 0;
}

/* Of eight elements, how many may not be zero before OpenBLAS is as fast. Over few samples a product is mostly one of
 * several that are added up, which OpenBLAS leaves to be done in memory. */
static size_t most_of_8(enum gemm_form form, size_t k)
{
    return form == GEMM_TN && k <= FEW ? 5 : 3;
}

static bool is_sparse(enum gemm_form form, size_t m, const struct gemm_factors *factors)
{
    const size_t rows = form == GEMM_TN ? factors->k : m, columns = form == GEMM_TN ? m : factors->k;
    size_t found = 0;
    for (size_t i = 0; i < rows; i++) {
        const float *row = factors->a + i * factors->lda;
        uint32_t in_row = 0;
        for (size_t j = 0; j < columns; j++)
            in_row += counts(row[j]);
        found += in_row;
    }
    return 8 * found <= most_of_8(form, factors->k) * m * factors->k;
}

/* Row i of a product; returns where the next entry goes. `entry` has room for one that does not count. */
static struct entry *list_row(struct entry *entry, enum gemm_form form, size_t i, const struct gemm_factors *factors)
{
    const float *a = factors->a + i * (form == GEMM_TN ? 1 : factors->lda);
    const size_t step = form == GEMM_TN ? factors->lda : 1;
    uint32_t offset = 0;
    for (size_t p = 0; p < factors->k; p++, a += step, offset += (uint32_t)factors->ldb) {
        *entry = (struct entry){*a, offset};
        entry += counts(*a);
    }
    return entry;
}

static bool can_list(size_t n, const struct gemm_factors *factors)
{
    return n % COLUMNS == 0 && factors->ldb * (uint64_t)factors->k <= UINT32_MAX;
}

bool gemm_sparse(enum gemm_unit unit, enum gemm_form form, size_t m, size_t n, const struct gemm_factors *factors,
                 uint32_t count, bool rounded, float *c, size_t ldc)
{
    struct entry entries[ENTRIES_MOST + 1];
    uint32_t ends[ROWS_MOST * GEMM_SUM_MOST];
    size_t k = 0;
    for (uint32_t f = 0; f < count; f++)
        k += factors[f].k;
    bool sparse = unit != GEMM_NO_UNIT && form != GEMM_NT && k > 0 && k <= ENTRIES_MOST;
    for (uint32_t f = 0; f < count && sparse; f++)
        sparse = can_list(n, &factors[f]) && is_sparse(form, m, &factors[f]);
    if (!sparse)
        return false;
    const size_t most = ENTRIES_MOST / k < ROWS_MOST ? ENTRIES_MOST / k : ROWS_MOST;
    for (size_t row = 0; row < m; row += most) {
        struct rows rows = {.count = m - row < most ? m - row : most,
                            .entries = entries,
                            .ends = ends,
                            .factors = factors,
                            .factor_count = count,
                            .rounded = rounded,
                            .c = c + row * ldc,
                            .ldc = ldc};
        struct entry *end = entries;
        for (size_t i = 0; i < rows.count; i++)
            for (uint32_t f = 0; f < count; f++) {
                end = list_row(end, form, row + i, &factors[f]);
                ends[i * count + f] = (uint32_t)(end - entries);
            }
        make_rows(unit, &rows, n);
    }
    return true;
}
