#include "model/layer.h"

#include "numerics/numerics.h"

#include <cblas.h>
#include <string.h>

void dense_forward(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n)
{
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    for (uint32_t i = 0; i < n; i++)
        memcpy(y + i * out, params + layer->bias, out * sizeof *y);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)out, (int)in, 1, x, (int)in,
                params + layer->weight, (int)in, 1, y, (int)out);
}

void dense_backward(const struct layer *layer, const float *params, const float *x, const float *dy, float *dx,
                    float *grad, uint32_t n)
{
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)out, (int)in, (int)n, 1, dy, (int)out, x, (int)in, 0,
                grad + layer->weight, (int)in);
    memcpy(grad + layer->bias, dy, out * sizeof *dy);
    for (uint32_t i = 1; i < n; i++)
        vector_add(grad + layer->bias, dy + i * out, out);
    if (dx != NULL)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)in, (int)out, 1, dy, (int)out,
                    params + layer->weight, (int)in, 0, dx, (int)in);
}
