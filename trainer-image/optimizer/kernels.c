#include "optimizer/kernels.h"

#include "numerics/numerics.h"

#include <math.h>

static inline float mean_of(float sum, float scale, float most)
{
    float g = sum * scale;
    g = g < -most ? -most : g;
    return g > most ? most : g;
}

static inline float gradient_of(const struct optimizer_step *s, float sum, float theta)
{
    return mean_of(sum, s->scale, s->clip_value) * s->clip + s->decay * theta;
}

VECTOR_CLONES void kernel_sgd(const struct optimizer_step *step, float *next, const float *theta, float *const states[],
                              const float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    (void)states;
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        next[i] = theta[i] - s.rate * gradient_of(&s, sum[i], theta[i]);
}

VECTOR_CLONES void kernel_momentum(const struct optimizer_step *step, float *next, const float *theta,
                                   float *const states[], const float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    float *velocity = states[0];
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        float v = s.momentum * velocity[i] + gradient_of(&s, sum[i], theta[i]);
        velocity[i] = v;
        next[i] = theta[i] - s.rate * v;
    }
}

VECTOR_CLONES void kernel_nesterov(const struct optimizer_step *step, float *next, const float *theta,
                                   float *const states[], const float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    float *velocity = states[0];
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        float g = gradient_of(&s, sum[i], theta[i]);
        float v = s.momentum * velocity[i] + g;
        velocity[i] = v;
        next[i] = theta[i] - s.rate * (g + s.momentum * v);
    }
}

VECTOR_CLONES void kernel_adagrad(const struct optimizer_step *step, float *next, const float *theta,
                                  float *const states[], const float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    float *squares = states[0];
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        float g = gradient_of(&s, sum[i], theta[i]);
        float total = squares[i] + g * g;
        squares[i] = total;
        next[i] = theta[i] - s.rate * (g / (sqrtf(total) + s.epsilon));
    }
}

VECTOR_CLONES void kernel_rmsprop(const struct optimizer_step *step, float *next, const float *theta,
                                  float *const states[], const float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    float *squares = states[0];
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        float g = gradient_of(&s, sum[i], theta[i]);
        float average = s.keep2 * squares[i] + s.take2 * (g * g);
        squares[i] = average;
        next[i] = theta[i] - s.rate * (g / (sqrtf(average) + s.epsilon));
    }
}

VECTOR_CLONES void kernel_rmsprop_momentum(const struct optimizer_step *step, float *next, const float *theta,
                                           float *const states[], const float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    float *squares = states[0];
    float *buffer = states[1];
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        float g = gradient_of(&s, sum[i], theta[i]);
        float average = s.keep2 * squares[i] + s.take2 * (g * g);
        float b = s.momentum * buffer[i] + g / (sqrtf(average) + s.epsilon);
        squares[i] = average;
        buffer[i] = b;
        next[i] = theta[i] - s.rate * b;
    }
}

VECTOR_CLONES void kernel_adam(const struct optimizer_step *step, float *next, const float *theta,
                               float *const states[], const float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    float *first = states[0];
    float *second = states[1];
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        float g = gradient_of(&s, sum[i], theta[i]);
        float m = s.keep1 * first[i] + s.take1 * g;
        float v = s.keep2 * second[i] + s.take2 * (g * g);
        first[i] = m;
        second[i] = v;
        next[i] = theta[i] * s.shrink - s.rate * (m / (sqrtf(v) * s.correct2 + s.epsilon));
    }
}

VECTOR_CLONES void kernel_amsgrad(const struct optimizer_step *step, float *next, const float *theta,
                                  float *const states[], const float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    float *first = states[0];
    float *second = states[1];
    float *largest = states[2];
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        float g = gradient_of(&s, sum[i], theta[i]);
        float m = s.keep1 * first[i] + s.take1 * g;
        float v = s.keep2 * second[i] + s.take2 * (g * g);
        float most = largest[i] < v ? v : largest[i];
        first[i] = m;
        second[i] = v;
        largest[i] = most;
        next[i] = theta[i] - s.rate * (m / (sqrtf(most) * s.correct2 + s.epsilon));
    }
}

VECTOR_CLONES void kernel_lamb_update(const struct optimizer_step *step, const float *theta, float *const states[],
                                      const float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    float *first = states[0];
    float *second = states[1];
    float *update = states[2];
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        float g = mean_of(sum[i], s.scale, s.clip_value) * s.clip;
        float m = s.keep1 * first[i] + s.take1 * g;
        float v = s.keep2 * second[i] + s.take2 * (g * g);
        first[i] = m;
        second[i] = v;
        update[i] = m * s.correct1 / (sqrtf(v) * s.correct2 + s.epsilon) + s.decay * theta[i];
    }
}

VECTOR_CLONES void kernel_lamb_apply(float rate, float *next, const float *theta, const float *update, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        next[i] = theta[i] - rate * update[i];
}

VECTOR_CLONES void kernel_statistic(float scale, float momentum, float *next, const float *theta, const float *sum,
                                    size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        next[i] = theta[i] + momentum * (sum[i] * scale - theta[i]);
}

VECTOR_CLONES void kernel_clip(const struct optimizer_step *step, float *sum, size_t n)
{
    const struct optimizer_step s = *step;
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        sum[i] = mean_of(sum[i], s.scale, s.clip_value) * s.clip / s.scale;
}

enum { LANES = 16 };

static double add_lanes(double lanes[LANES])
{
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    return lanes[0];
}

VECTOR_CLONES double kernel_squares(const float *x, size_t n)
{
    double lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            lanes[lane] += (double)x[i + lane] * (double)x[i + lane];
    for (size_t lane = 0; i < n; i++, lane++)
        lanes[lane] += (double)x[i] * (double)x[i];
    return add_lanes(lanes);
}

VECTOR_CLONES double kernel_gradient_squares(const struct optimizer_step *step, const float *sum, size_t n)
{
    const float scale = step->scale;
    const float most = step->clip_value;
    double lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++) {
            double g = (double)mean_of(sum[i + lane], scale, most);
            lanes[lane] += g * g;
        }
    for (size_t lane = 0; i < n; i++, lane++) {
        double g = (double)mean_of(sum[i], scale, most);
        lanes[lane] += g * g;
    }
    return add_lanes(lanes);
}
