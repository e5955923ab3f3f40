#include "numerics/numerics.h"

#include <math.h>
#include <string.h>

/* Computed in double and rounded once; without branches, so that loops over them become vectors. */
#define INLINE static inline __attribute__((always_inline))

/* exp(x) for x ≤ 0, at least exp(−700), to 10^-11 of itself: see numerics_exp(), with a polynomial of degree 9. */
INLINE double exp_below(double x)
{
    x = x < -700 ? -700 : x;
    /* The whole number nearest to x/ln 2 is in the lowest bits of this. */
    const double shifted = x * 0x1.71547652b82fep0 + 0x1.8p52;
    const double k = shifted - 0x1.8p52;
    const double r = (x - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
    double p = 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 1.0 / 2;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    double power; /* 2^k */
    memcpy(&power, &bits, sizeof power);
    return (1 + (r + r * r * p)) * power;
}

INLINE float tanh_of(float value)
{
    const double x = (double)value;
    const double a = fabs(x);
    const double e = exp_below(-2 * a);
    const double large = (1 - e) / (1 + e);
    /* Where 1 − e loses digits, the series. */
    const double small = a - a * a * a * (1.0 / 3);
    const double result = a < 0x1p-10 ? small : large;
    return (float)copysign(result, x);
}

INLINE float sigmoid_of(float value)
{
    const double x = (double)value;
    const double e = exp_below(-fabs(x));
    return (float)((x < 0 ? e : 1) / (1 + e));
}

/* What GELU and its slope need of x: φ(x)·√(2π) and Φ(x), the normal distribution's density and itself. */
struct normal {
    double density, below;
};

/* Φ(−a) = exp(−a²/2)·tail(t)/(1 + a), t = (a − 5)/(a + 5), for 0 ≤ a ≤ 15; beyond that nothing of it is left in a
 * float. The polynomial is made by hack/golden/normal.py. */
INLINE struct normal normal_of(double x)
{
    double a = fabs(x);
    const double density = exp_below(a * a * -0.5);
    a = a > 15 ? 15 : a;
    const double t = (a - 5) / (a + 5);
    double p = -0x1.99b3188fdb332p-16;
    p = p * t - 0x1.e1b7da690225ep-15;
    p = p * t + 0x1.8edc635f3bd05p-13;
    p = p * t + 0x1.b7e7cbad36133p-17;
    p = p * t - 0x1.b7a7a05b4b45dp-10;
    p = p * t + 0x1.ab526c8b12998p-8;
    p = p * t - 0x1.f11b2ead237eep-7;
    p = p * t + 0x1.92044cd67fa09p-6;
    p = p * t - 0x1.b08dea74015cfp-6;
    p = p * t + 0x1.47c1bae45da54p-7;
    p = p * t + 0x1.fc66cb65618a4p-6;
    p = p * t - 0x1.76ff867b615a5p-4;
    p = p * t + 0x1.d8979b0f43bdep-2;
    const double tail = density * p / (1 + a);
    return (struct normal){density, x > 0 ? 1 - tail : tail};
}

VECTOR_CLONES void vector_tanh(float *y, const float *x, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        y[i] = tanh_of(x[i]);
}

VECTOR_CLONES void vector_sigmoid(float *y, const float *x, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        y[i] = sigmoid_of(x[i]);
}

VECTOR_CLONES void vector_gelu(float *y, const float *x, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        y[i] = (float)((double)x[i] * normal_of((double)x[i]).below);
}

VECTOR_CLONES void vector_gelu_slope(float *y, float *slope, const float *x, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        const double value = (double)x[i];
        const struct normal normal = normal_of(value);
        y[i] = (float)(value * normal.below);
        slope[i] = (float)(normal.below + value * normal.density * 0x1.9884533d43651p-2);
    }
}
