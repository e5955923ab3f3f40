#include "model/layer.h"

#include "numerics/numerics.h"

#include <string.h>

/* ---- AvgPool: the mean of each window, added row by row; dx = Σ dy/k² over the windows that see it ---- */

static void avgpool_forward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t w = layer->in.w;
    const size_t k = layer->kernel;
    const float *x = call->inputs[0];
    float *y = call->output;
    for (size_t plane = 0; plane < (size_t)call->n * layer->in.c; plane++, x += layer->in.h * w)
        for (size_t i = 0; i < layer->out.h; i++)
            for (size_t j = 0; j < layer->out.w; j++, y++) {
                const float *window = x + i * layer->stride * w + j * layer->stride;
                float sum = 0;
                for (size_t u = 0; u < k; u++)
                    for (size_t v = 0; v < k; v++)
                        sum += window[u * w + v];
                *y = sum / (float)(k * k);
            }
}

static void avgpool_backward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t w = layer->in.w;
    const size_t k = layer->kernel;
    const float *dy = call->doutput;
    float *dx = call->dinputs[0];
    memset(dx, 0, call->n * shape_size(layer->in) * sizeof *dx);
    for (size_t plane = 0; plane < (size_t)call->n * layer->in.c; plane++, dx += layer->in.h * w)
        for (size_t i = 0; i < layer->out.h; i++)
            for (size_t j = 0; j < layer->out.w; j++, dy++) {
                float *window = dx + i * layer->stride * w + j * layer->stride;
                const float part = *dy / (float)(k * k);
                for (size_t u = 0; u < k; u++)
                    for (size_t v = 0; v < k; v++)
                        window[u * w + v] += part;
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
