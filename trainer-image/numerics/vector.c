#include "numerics/numerics.h"

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
