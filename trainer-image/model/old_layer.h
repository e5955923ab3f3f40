/* layer — one layer's mathematics each: forward and backward over a block of n samples. Private to model.
 *
 * `params` and `grad` are the model's whole flat vectors; a layer knows its ranges of them. Backward functions
 * overwrite their ranges of `grad` with the sum over the block, and `dx` (NULL: not wanted, as in a first layer).
 * Nothing is allocated; scratch is the workspace's.
 * Plain versions of the layers that have fast ones stand in reference.c; they are the definition.
 */
#ifndef THOLE_MODEL_OLD_LAYER_H
#define THOLE_MODEL_OLD_LAYER_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

enum layer_type { LAYER_DENSE, LAYER_CONV2D, LAYER_MAXPOOL, LAYER_RELU, LAYER_FLATTEN };

struct shape {
    uint32_t c, h, w;
};

struct layer {
    enum layer_type type;
    char name[16];
    struct shape in, out;     /* of one sample; dense and flatten: [size, 1, 1] */
    uint64_t weight, bias;    /* where they begin in the flat vector */
    uint32_t kernel, padding; /* conv2d: k×k, stride 1, zeros around */
};

static inline size_t shape_size(struct shape shape)
{
    return (size_t)shape.c * shape.h * shape.w;
}

/* y [n][out] = x [n][in] · wᵀ + b,   w [out][in] */
void dense_forward(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n);
void dense_backward(const struct layer *layer, const float *params, const float *x, const float *dy, float *dx,
                    float *grad, uint32_t n);

/* y [n][co][oh][ow] = x [n][ci][h][w] ⋆ w + b,   w [co][ci][k][k];   y[o,i,j] = b[o] + Σ x[c, i+u−p, j+v−p]·w[o,c,u,v]
 */
void conv2d_forward(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n,
                    float *scratch);
void conv2d_backward(const struct layer *layer, const float *params, const float *x, const float *dy, float *dx,
                     float *grad, uint32_t n, float *scratch);
size_t conv2d_scratch(const struct layer *layer); /* floats */

/* y [n][c][h/2][w/2]: the largest of each 2×2 window, the first of equal ones; `argmax` like y: which, row by row.
 * An odd last row or column is left out. */
void maxpool_forward(const struct layer *layer, const float *x, float *y, uint32_t *argmax, uint32_t n);
void maxpool_backward(const struct layer *layer, const uint32_t *argmax, const float *dy, float *dx, uint32_t n);

/* Softmax cross-entropy over logits [n][classes]: writes dlogits = softmax − onehot(label) (may be the logits) and
 * returns the sum of −log softmax[label], in double. */
double loss_gradient(const float *logits, const float *targets, uint32_t n, uint32_t classes, float *dlogits);

/* The same without gradients; *correct counts samples whose first largest logit is the label's. */
double loss_evaluate(const float *logits, const float *targets, uint32_t n, uint32_t classes, uint64_t *correct);

/* ---- reference.c ---- */
void dense_forward_reference(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n);
void dense_backward_reference(const struct layer *layer, const float *params, const float *x, const float *dy,
                              float *dx, float *grad, uint32_t n);
void conv2d_forward_reference(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n);
void conv2d_backward_reference(const struct layer *layer, const float *params, const float *x, const float *dy,
                               float *dx, float *grad, uint32_t n);
void maxpool_forward_reference(const struct layer *layer, const float *x, float *y, uint32_t *argmax, uint32_t n);
void maxpool_backward_reference(const struct layer *layer, const uint32_t *argmax, const float *dy, float *dx,
                                uint32_t n);

#endif
