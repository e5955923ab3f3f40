#include "model/layer.h"

#include "numerics/numerics.h"

#include <string.h>

/* ---- AvgPool: the mean of each window, added row by row; dx = Σ dy/k² over the windows that see it. A row of windows
 * at a time, place by place, so that neighbours are computed together. ---- */

/* y[j] += x[j·stride] */
VECTOR_CLONES static void gather(float *restrict y, const float *restrict x, size_t stride, size_t n)
{
    for (size_t j = 0; j < n; j++)
        y[j] += x[j * stride];
}

/* x[j·stride] += y[j]/count */
VECTOR_CLONES static void scatter(float *restrict x, const float *restrict y, float count, size_t stride, size_t n)
{
    for (size_t j = 0; j < n; j++)
        x[j * stride] += y[j] / count;
}

VECTOR_CLONES static void divide(float *y, float count, size_t n)
{
    for (size_t j = 0; j < n; j++)
        y[j] /= count;
}

static void avgpool_forward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t w = layer->in.w;
    const size_t ow = layer->out.w;
    const size_t k = layer->kernel;
    const float *x = call->inputs[0];
    float *y = call->output;
    for (size_t plane = 0; plane < (size_t)call->n * layer->in.c; plane++, x += layer->in.h * w)
        for (size_t i = 0; i < layer->out.h; i++, y += ow) {
            const float *windows = x + i * layer->stride * w;
            memset(y, 0, ow * sizeof *y);
            for (size_t u = 0; u < k; u++)
                for (size_t v = 0; v < k; v++)
                    gather(y, windows + u * w + v, layer->stride, ow);
            divide(y, (float)(k * k), ow);
        }
}

static void avgpool_backward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t w = layer->in.w;
    const size_t ow = layer->out.w;
    const size_t k = layer->kernel;
    const float *dy = call->doutput;
    float *dx = call->dinputs[0];
    memset(dx, 0, call->n * shape_size(layer->in) * sizeof *dx);
    for (size_t plane = 0; plane < (size_t)call->n * layer->in.c; plane++, dx += layer->in.h * w)
        for (size_t i = 0; i < layer->out.h; i++, dy += ow) {
            float *windows = dx + i * layer->stride * w;
            for (size_t u = 0; u < k; u++)
                for (size_t v = 0; v < k; v++)
                    scatter(windows + u * w + v, dy, (float)(k * k), layer->stride, ow);
        }
}

const struct layer_kind avgpool_kind = {.forward = avgpool_forward, .backward = avgpool_backward};

/* ---- GlobalAvgPool: the mean of each plane ---- */

static void global_avgpool_forward(const struct layer_call *call)
{
    const size_t plane = (size_t)call->layer->in.h * call->layer->in.w;
    for (size_t i = 0; i < (size_t)call->n * call->layer->in.c; i++)
        call->output[i] = vector_total(call->inputs[0] + i * plane, plane) / (float)plane;
}

static void global_avgpool_backward(const struct layer_call *call)
{
    const size_t plane = (size_t)call->layer->in.h * call->layer->in.w;
    float *dx = call->dinputs[0];
    for (size_t i = 0; i < (size_t)call->n * call->layer->in.c; i++) {
        const float part = call->doutput[i] / (float)plane;
        for (size_t j = 0; j < plane; j++)
            *dx++ = part;
    }
}

const struct layer_kind global_avgpool_kind = {
    .forward = global_avgpool_forward,
    .backward = global_avgpool_backward,
};
