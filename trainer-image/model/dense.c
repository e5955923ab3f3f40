#include "model/old_layer.h"

#include "model/gemm.h"
#include "numerics/numerics.h"

#include <string.h>

void dense_forward(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n)
{
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    for (uint32_t i = 0; i < n; i++)
        memcpy(y + i * out, params + layer->bias, out * sizeof *y);
    gemm(GEMM_NT, n, out, in, x, params + layer->weight, 1, y);
}

void dense_backward(const struct layer *layer, const float *params, const float *x, const float *dy, float *dx,
                    float *grad, uint32_t n)
{
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    gemm(GEMM_TN, out, in, n, dy, x, 0, grad + layer->weight);
    memcpy(grad + layer->bias, dy, out * sizeof *dy);
    for (uint32_t i = 1; i < n; i++)
        vector_add(grad + layer->bias, dy + i * out, out);
    if (dx != NULL)
        gemm(GEMM_NN, n, in, out, dy, params + layer->weight, 0, dx);
}
