#include "numerics/numerics.h"

#include <stdlib.h>
#include <string.h>

float *vector_new(size_t n)
{
    enum { LINE = 64 / sizeof(float) };
    return aligned_alloc(LINE * sizeof(float), (n + LINE - 1) / LINE * LINE * sizeof(float));
}

VECTOR_CLONES void vector_add(float *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

VECTOR_CLONES void vector_sum(float *out, const float *a, const float *b, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

VECTOR_CLONES void vector_relu(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] < 0 ? 0 : x[i];
}

VECTOR_CLONES void vector_relu_backward(float *dx, const float *y, const float *dy, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = y[i] > 0 ? dy[i] : 0;
}

VECTOR_CLONES float vector_total(const float *x, size_t n)
{
    enum { LANES = 16 };
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            lanes[lane] += x[i + lane];
    for (size_t lane = 0; i < n; i++, lane++)
        lanes[lane] += x[i];
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    return lanes[0];
}

/* In lanes of 32 bits throughout, which vector units have more operations for than for 16. */
static inline uint32_t rounded_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    /* Half a unit, less one where the last place that stays is even: a tie then goes to even. */
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : rounded;
}

static inline uint16_t round_bits(float x)
{
    return (uint16_t)(rounded_bits(x) >> 16);
}

static inline float rounded(float x)
{
    uint32_t bits = rounded_bits(x);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float value_of(uint16_t upper)
{
    uint32_t bits = (uint32_t)upper << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t bfloat16_of(float x)
{
    return round_bits(x);
}

float bfloat16_value(uint16_t bits)
{
    return value_of(bits);
}

VECTOR_CLONES void vector_bfloat16_pack(uint16_t *restrict out, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = round_bits(x[i]);
}

VECTOR_CLONES void vector_bfloat16_unpack(float *restrict out, const uint16_t *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = value_of(x[i]);
}

VECTOR_CLONES void vector_bfloat16_add(float *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = rounded(rounded(y[i]) + rounded(x[i]));
}

VECTOR_CLONES void vector_bfloat16_sum(float *out, const float *a, const float *b, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        out[i] = rounded(rounded(a[i]) + rounded(b[i]));
}

VECTOR_CLONES void vector_bfloat16_sum_pack(uint16_t *restrict out, const float *restrict a, const float *restrict b,
                                            size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = round_bits(rounded(a[i]) + rounded(b[i]));
}

VECTOR_CLONES void vector_bfloat16_sum_packed(uint16_t *out, const uint16_t *a, const uint16_t *b, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        out[i] = round_bits(value_of(a[i]) + value_of(b[i]));
}
