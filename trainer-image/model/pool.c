#include "model/layer.h"

#include "numerics/numerics.h"

#include <string.h>

/* ---- AvgPool: the mean of each window, added row by row, padding as zeros; dx = Σ dy/k² over the windows that see it.
 * A row of windows at a time, place by place, so that neighbours are computed together. ---- */

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

/* Of a row of windows those [begin, end) whose place in question is in the input: of the first at element `at`, of the
 * others `stride` further each. */
struct run {
    size_t begin, end, at;
};

/* Place (u, v) of the windows of output row i. */
static struct run run_of(const struct network_layer *layer, size_t i, size_t u, size_t v)
{
    const size_t w = layer->in.w;
    const size_t row = i * layer->stride + u - layer->padding; /* too large where above the first */
    const size_t begin = v < layer->padding ? (layer->padding - v + layer->stride - 1) / layer->stride : 0;
    const size_t fit = v < w + layer->padding ? (w + layer->padding - v - 1) / layer->stride + 1 : 0;
    const size_t end = fit < layer->out.w ? fit : layer->out.w;
    if (row >= layer->in.h || begin >= end)
        return (struct run){0};
    return (struct run){begin, end, row * w + begin * layer->stride + v - layer->padding};
}

static void avgpool_forward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t size = (size_t)layer->in.h * layer->in.w;
    const size_t ow = layer->out.w;
    const size_t k = layer->kernel;
    const float *x = call->inputs[0];
    float *y = call->output;
    for (size_t plane = 0; plane < (size_t)call->n * layer->in.c; plane++, x += size)
        for (size_t i = 0; i < layer->out.h; i++, y += ow) {
            memset(y, 0, ow * sizeof *y);
            for (size_t place = 0; place < k * k; place++) {
                const struct run run = run_of(layer, i, place / k, place % k);
                gather(y + run.begin, x + run.at, layer->stride, run.end - run.begin);
            }
            divide(y, (float)(k * k), ow);
        }
}

static void avgpool_backward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t size = (size_t)layer->in.h * layer->in.w;
    const size_t k = layer->kernel;
    const float *dy = call->doutput;
    float *dx = call->dinputs[0];
    memset(dx, 0, call->n * shape_size(layer->in) * sizeof *dx);
    for (size_t plane = 0; plane < (size_t)call->n * layer->in.c; plane++, dx += size)
        for (size_t i = 0; i < layer->out.h; i++, dy += layer->out.w)
            for (size_t place = 0; place < k * k; place++) {
                const struct run run = run_of(layer, i, place / k, place % k);
                scatter(dx + run.at, dy + run.begin, (float)(k * k), layer->stride, run.end - run.begin);
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
