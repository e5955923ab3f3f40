#include "numerics/numerics.h"

#include <math.h>
#include <string.h>

/* ln 2 in two parts: the first has 21 trailing zero bits, so its products with exponents are exact. */
static const double ln2_high = 0x1.62e42feep-1;
static const double ln2_low = 0x1.a39ef35793c76p-33;

static double bits_to_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t double_to_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* 2^exponent for normal numbers, -1022 ≤ exponent ≤ 1023. */
static double power_of_two(int exponent)
{
    return bits_to_double((uint64_t)(exponent + 1023) << 52);
}

/* exp(x) = 2^k·exp(r), |r| ≤ ln2/2, with r carried in two parts and exp(r) by its Taylor polynomial of degree 13,
 * whose rest is below 2^-57. (Muller et al.: "Handbook of Floating-Point Arithmetic", ch. 11.) */
double numerics_exp(double x)
{
    if (isnan(x))
        return x;
    if (x > 709.79)
        return (double)INFINITY;
    if (x < -745.14)
        return 0;

    /* Adding and taking away 1.5·2^52 rounds to the nearest whole number. */
    double k = (x * 0x1.71547652b82fep0 + 0x1.8p52) - 0x1.8p52;
    double high = x - k * ln2_high;
    double low = k * ln2_low;
    double r = high - low;
    double lost = (high - r) - low;

    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 1.0 / 2;
    double result = 1.0 + (r + (r * r * p + lost));

    /* In two factors: 2^1024 is no double, and a subnormal result must be rounded once, by the last product. */
    int exponent = (int)k;
    if (exponent > 1023)
        return result * 2 * power_of_two(exponent - 1);
    if (exponent < -1021)
        return result * power_of_two(exponent + 200) * 0x1p-200;
    return result * power_of_two(exponent);
}

/* log(x) = k·ln2 + log(1 + f), √½ ≤ 1 + f < √2; with s = f/(2 + f), log(1 + f) = 2·atanh(s) by its Taylor series,
 * added so that the large part f is not rounded: f − (f²/2 − s·(f²/2 + R)), R = 2·(s²/3 + s⁴/5 + …).
 * (The arrangement is that of Ng's log in FDLIBM.) */
double numerics_log(double x)
{
    if (isnan(x))
        return x;
    if (x < 0)
        return (double)NAN;
    if (x == 0)
        return -(double)INFINITY;
    if (isinf(x))
        return x;

    int k = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        k = -54;
    }
    uint64_t bits = double_to_bits(x);
    k += (int)(bits >> 52) - 1023;
    double m = bits_to_double((bits & 0x000FFFFFFFFFFFFFU) | 0x3FF0000000000000U);
    if (m > 0x1.6a09e667f3bcdp0) {
        m *= 0.5;
        k++;
    }

    double f = m - 1;
    double s = f / (2 + f);
    double z = s * s;
    double r = 2.0 / 25;
    r = r * z + 2.0 / 23;
    r = r * z + 2.0 / 21;
    r = r * z + 2.0 / 19;
    r = r * z + 2.0 / 17;
    r = r * z + 2.0 / 15;
    r = r * z + 2.0 / 13;
    r = r * z + 2.0 / 11;
    r = r * z + 2.0 / 9;
    r = r * z + 2.0 / 7;
    r = r * z + 2.0 / 5;
    r = r * z + 2.0 / 3;
    r *= z;
    double half_square = 0.5 * f * f;
    return k * ln2_high - ((half_square - (s * (half_square + r) + k * ln2_low)) - f);
}
