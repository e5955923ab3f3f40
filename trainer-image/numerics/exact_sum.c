#include "numerics/exact_sum.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    DIGIT_BITS = 32,
    MANTISSA_BITS = 52, /* that are stored */
    EXPONENT_MOST = 0x7ff,
};

/* A summand brings a digit less than 2^33, and two halves of it. */
static const uint32_t ADDED_MOST = UINT32_C(1) << 30;

static uint64_t low_half(uint64_t x)
{
    return x & UINT32_MAX;
}

/* The last digit keeps what is carried into it. */
static void carry(struct exact_sum *sum)
{
    for (uint32_t i = 0; i + 1 < EXACT_SUM_DIGITS; i++) {
        sum->digits[i + 1] += sum->digits[i] >> DIGIT_BITS;
        sum->digits[i] = low_half(sum->digits[i]);
    }
    sum->added = 0;
}

void exact_sum_add(struct exact_sum *sum, double x)
{
    uint64_t bits;
    if (!(x >= 0) || isinf(x)) {
        sum->other += x >= 0 ? x : (double)NAN;
        return;
    }
    if (x == 0)
        return; /* maybe with a sign */
    memcpy(&bits, &x, sizeof bits);
    /* x = mantissa · 2^(shift − 1074) */
    const uint32_t exponent = (uint32_t)(bits >> MANTISSA_BITS);
    const uint32_t shift = exponent == 0 ? 0 : exponent - 1;
    const uint64_t implied = exponent == 0 ? 0 : UINT64_C(1) << MANTISSA_BITS;
    const uint64_t mantissa = (bits & ((UINT64_C(1) << MANTISSA_BITS) - 1)) | implied;
    const uint64_t low = low_half(mantissa) << shift % DIGIT_BITS;
    const uint64_t high = (mantissa >> DIGIT_BITS) << shift % DIGIT_BITS;
    uint64_t *digits = &sum->digits[shift / DIGIT_BITS];
    digits[0] += low_half(low);
    digits[1] += (low >> DIGIT_BITS) + low_half(high);
    digits[2] += high >> DIGIT_BITS;
    if (++sum->added == ADDED_MOST)
        carry(sum);
}

/* ---- rounding ---- */

static uint64_t bit_at(const struct exact_sum *sum, uint32_t at)
{
    return sum->digits[at / DIGIT_BITS] >> at % DIGIT_BITS & 1;
}

static bool any_below(const struct exact_sum *sum, uint32_t at)
{
    for (uint32_t i = 0; i < at / DIGIT_BITS; i++)
        if (sum->digits[i] != 0)
            return true;
    return (sum->digits[at / DIGIT_BITS] & ((UINT64_C(1) << at % DIGIT_BITS) - 1)) != 0;
}

/* Bits in front of the last one that is set; 0 where none is. The last digit may be longer than the others. */
static uint32_t length_of(const struct exact_sum *sum)
{
    for (uint32_t i = EXACT_SUM_DIGITS; i-- > 0;)
        if (sum->digits[i] != 0)
            return i * DIGIT_BITS + 64 - (uint32_t)__builtin_clzll(sum->digits[i]);
    return 0;
}

/* The double's bits are the exponent, counted from 1 at the least normal number, followed by the mantissa without its
 * first bit; where there is no such bit the exponent is 0, so that small numbers are their own bits. A mantissa that is
 * rounded up past its end carries into the exponent, which is right. */
static uint64_t rounded_bits(const struct exact_sum *sum)
{
    const uint32_t length = length_of(sum);
    const uint32_t below = length > MANTISSA_BITS + 1 ? length - (MANTISSA_BITS + 1) : 0; /* bits to be rounded away */
    if (below + 1 >= EXPONENT_MOST)
        return (uint64_t)EXPONENT_MOST << MANTISSA_BITS;
    uint64_t mantissa = 0;
    for (uint32_t at = length; at-- > below;)
        mantissa = mantissa << 1 | bit_at(sum, at);
    const uint64_t bits = ((uint64_t)below << MANTISSA_BITS) + mantissa;
    const bool half = below > 0 && bit_at(sum, below - 1) != 0;
    const bool up = half && ((mantissa & 1) != 0 || any_below(sum, below - 1));
    return bits + up;
}

double exact_sum_value(const struct exact_sum *sum)
{
    struct exact_sum carried = *sum;
    carry(&carried);
    const uint64_t bits = rounded_bits(&carried);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value + sum->other;
}

/* ---- from process to process ---- */

void exact_sum_write(const struct exact_sum *sum, double out[EXACT_SUM_DOUBLES])
{
    struct exact_sum carried = *sum;
    carry(&carried);
    for (uint32_t i = 0; i < EXACT_SUM_DIGITS; i++)
        out[i] = (double)carried.digits[i];
    out[EXACT_SUM_DIGITS] = sum->other;
}

static bool is_digit(double x)
{
    return x >= 0 && x <= UINT32_MAX && x == (double)(uint32_t)x;
}

int exact_sum_read(struct exact_sum *sum, const double in[EXACT_SUM_DOUBLES], struct error *err)
{
    const double other = in[EXACT_SUM_DIGITS];
    for (uint32_t i = 0; i < EXACT_SUM_DIGITS; i++)
        if (!is_digit(in[i]))
            return error_set(err, "digit %u of a sum is %g and no whole number below 2^32", i, in[i]);
    if (other < 0 || (other > 0 && !isinf(other)))
        return error_set(err, "a sum ends with %g and not with 0, infinity or NaN", other);
    carry(sum);
    for (uint32_t i = 0; i < EXACT_SUM_DIGITS; i++)
        sum->digits[i] += (uint64_t)in[i];
    sum->other += other;
    carry(sum);
    return 0;
}
