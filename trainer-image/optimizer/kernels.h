/* kernels — the optimizers' arithmetic, one pass over memory each; private to this folder. */
#ifndef THOLE_OPTIMIZER_KERNELS_H
#define THOLE_OPTIMIZER_KERNELS_H

#include "optimizer/optimizer.h"

/* `next` may be `theta`. */
typedef void optimizer_kernel(const struct optimizer_step *step, float *next, const float *theta, float *const states[],
                              const float *sum, size_t n);

optimizer_kernel kernel_sgd, kernel_momentum, kernel_nesterov, kernel_adagrad, kernel_rmsprop, kernel_rmsprop_momentum,
    kernel_adam, kernel_amsgrad;

/* LAMB in two: the moments, and u into states[2]; then θ' = θ − rate·u, the rate with its ratio. */
void kernel_lamb_update(const struct optimizer_step *step, const float *theta, float *const states[], const float *sum,
                        size_t n);
void kernel_lamb_apply(float rate, float *next, const float *theta, const float *update, size_t n);

void kernel_statistic(float scale, float momentum, float *next, const float *theta, const float *sum, size_t n);

/* sum = g/scale, g as clipped in both ways. */
void kernel_clip(const struct optimizer_step *step, float *sum, size_t n);

/* Σ x² and Σ g² (of the gradient as clipped by value), in 16 lanes of doubles that are then added in a tree. */
double kernel_squares(const float *x, size_t n);
double kernel_gradient_squares(const struct optimizer_step *step, const float *sum, size_t n);

#endif
