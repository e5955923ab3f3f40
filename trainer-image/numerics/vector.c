#include "numerics/numerics.h"

/* One version for each vector unit, chosen when the program is loaded; the sanitizers cannot instrument that. Every
 * loop here is free of sums over elements, so all versions give the same bits. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(THOLE_SANITIZE)
#define VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTOR_CLONES
#endif

VECTOR_CLONES void vector_add(float *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

VECTOR_CLONES void vector_sum(float *out, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

VECTOR_CLONES void vector_axpy(float *restrict y, float alpha, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += alpha * x[i];
}

VECTOR_CLONES void vector_scale(float *y, float alpha, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = alpha * x[i];
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

struct sgd sgd_of(double rate, double momentum, double weight_decay, uint64_t samples)
{
    return (struct sgd){(float)rate, (float)momentum, (float)weight_decay, (float)(1.0 / (double)samples)};
}

VECTOR_CLONES void vector_sgd(const struct sgd *sgd, float *next, const float *theta, float *restrict velocity,
                              const float *restrict sum, size_t n)
{
    const struct sgd s = *sgd;
    for (size_t i = 0; i < n; i++) {
        float gradient = sum[i] * s.scale + s.weight_decay * theta[i];
        velocity[i] = s.momentum * velocity[i] + gradient;
        next[i] = theta[i] - s.rate * velocity[i];
    }
}
