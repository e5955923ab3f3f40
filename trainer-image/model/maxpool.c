#include "model/layer.h"

#include <string.h>

/* Four windows at a time: with their places side by side, a window's largest is found without a branch, which random
 * data would mispredict. The last four of a row overlap the ones before. */
enum { LANES = 4 };
typedef float floats __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t masks __attribute__((vector_size(LANES * sizeof(int32_t)))); /* all bits or none */

/* For rows of fewer than four windows: one window, by the same comparisons. */
static void forward_one(const float *top, const float *bottom, float *y, uint32_t *argmax)
{
    const float places[4] = {top[0], top[1], bottom[0], bottom[1]};
    uint32_t which = 0;
    for (uint32_t place = 1; place < 4; place++)
        which = places[place] > places[which] ? place : which;
    *y = places[which];
    *argmax = which;
}

#define KEEP_LARGER(place, values)                                                                                     \
    do {                                                                                                               \
        masks larger = (values) > best;                                                                                \
        best = (floats)(((masks)(values)&larger) | ((masks)best & ~larger));                                           \
        which = ((place)&larger) | (which & ~larger);                                                                  \
    } while (0)

static void forward_four(const float *top, const float *bottom, float *y, uint32_t *argmax)
{
    floats pairs[4];
    memcpy(pairs, top, 2 * sizeof *pairs);
    memcpy(pairs + 2, bottom, 2 * sizeof *pairs);
    floats best = __builtin_shufflevector(pairs[0], pairs[1], 0, 2, 4, 6);
    masks which = {0, 0, 0, 0};
    KEEP_LARGER(1, __builtin_shufflevector(pairs[0], pairs[1], 1, 3, 5, 7));
    KEEP_LARGER(2, __builtin_shufflevector(pairs[2], pairs[3], 0, 2, 4, 6));
    KEEP_LARGER(3, __builtin_shufflevector(pairs[2], pairs[3], 1, 3, 5, 7));
    memcpy(y, &best, sizeof best);
    memcpy(argmax, &which, sizeof which);
}

/* Windows of 2×2 side by side, which is what there is nearly everywhere. */
static void forward_2x2(const struct network_layer *layer, const float *x, float *y, uint32_t *argmax, uint32_t n)
{
    const size_t w = layer->in.w;
    const size_t ow = layer->out.w;
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++, x += layer->in.h * w)
        for (size_t i = 0; i < layer->out.h; i++, y += ow, argmax += ow) {
            const float *top = x + 2 * i * w;
            const float *bottom = top + w;
            size_t j = 0;
            for (; j + LANES <= ow; j += LANES)
                forward_four(top + 2 * j, bottom + 2 * j, y + j, argmax + j);
            if (j < ow && ow >= LANES) {
                j = ow - LANES;
                forward_four(top + 2 * j, bottom + 2 * j, y + j, argmax + j);
                continue;
            }
            for (; j < ow; j++)
                forward_one(top + 2 * j, bottom + 2 * j, y + j, argmax + j);
        }
}

static void backward_one(uint32_t which, float dy, float *top, float *bottom)
{
    top[0] = which == 0 ? dy : 0;
    top[1] = which == 1 ? dy : 0;
    bottom[0] = which == 2 ? dy : 0;
    bottom[1] = which == 3 ? dy : 0;
}

static void backward_four(const uint32_t *argmax, const float *dy, float *top, float *bottom)
{
    masks which;
    masks gradient;
    memcpy(&which, argmax, sizeof which);
    memcpy(&gradient, dy, sizeof gradient);
    const masks places[4] = {gradient & (which == 0), gradient & (which == 1), gradient & (which == 2),
                             gradient & (which == 3)};
    const masks pairs[4] = {
        __builtin_shufflevector(places[0], places[1], 0, 4, 1, 5),
        __builtin_shufflevector(places[0], places[1], 2, 6, 3, 7),
        __builtin_shufflevector(places[2], places[3], 0, 4, 1, 5),
        __builtin_shufflevector(places[2], places[3], 2, 6, 3, 7),
    };
    memcpy(top, pairs, 2 * sizeof *pairs);
    memcpy(bottom, pairs + 2, 2 * sizeof *pairs);
}

static void backward_2x2(const struct network_layer *layer, const uint32_t *argmax, const float *dy, float *dx,
                         uint32_t n)
{
    const size_t w = layer->in.w;
    const size_t ow = layer->out.w;
    if (layer->in.h % 2 != 0 || layer->in.w % 2 != 0)
        memset(dx, 0, n * shape_size(layer->in) * sizeof *dx);
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++, dx += layer->in.h * w)
        for (size_t i = 0; i < layer->out.h; i++, dy += ow, argmax += ow) {
            float *top = dx + 2 * i * w;
            float *bottom = top + w;
            size_t j = 0;
            for (; j + LANES <= ow; j += LANES)
                backward_four(argmax + j, dy + j, top + 2 * j, bottom + 2 * j);
            if (j < ow && ow >= LANES) {
                j = ow - LANES;
                backward_four(argmax + j, dy + j, top + 2 * j, bottom + 2 * j);
                continue;
            }
            for (; j < ow; j++)
                backward_one(argmax[j], dy[j], top + 2 * j, bottom + 2 * j);
        }
}

/* ---- Windows of any size and step, over an input with any padding ---- */

/* Rows, or columns, of a window that are in the input: [begin, end), never none. */
struct extent {
    uint32_t begin, end;
};

static struct extent extent_of(const struct network_layer *layer, uint32_t window, uint32_t size)
{
    const uint32_t at = window * layer->stride; /* in an input that begins with its padding */
    const uint32_t left = size + layer->padding - at;
    return (struct extent){at < layer->padding ? layer->padding - at : 0, left < layer->kernel ? left : layer->kernel};
}

/* Where in its plane the place (u, v) of output (i, j)'s window is. */
static size_t element_of(const struct network_layer *layer, uint32_t i, uint32_t j, uint32_t u, uint32_t v)
{
    const uint32_t row = i * layer->stride + u - layer->padding;
    const uint32_t column = j * layer->stride + v - layer->padding;
    return (size_t)row * layer->in.w + column;
}

static void forward_window(const struct network_layer *layer, const float *x, uint32_t i, uint32_t j, float *y,
                           uint32_t *argmax)
{
    const struct extent rows = extent_of(layer, i, layer->in.h);
    const struct extent columns = extent_of(layer, j, layer->in.w);
    uint32_t which = rows.begin * layer->kernel + columns.begin;
    float best = x[element_of(layer, i, j, rows.begin, columns.begin)];
    for (uint32_t u = rows.begin; u < rows.end; u++)
        for (uint32_t v = columns.begin; v < columns.end; v++) {
            const float value = x[element_of(layer, i, j, u, v)];
            which = value > best ? u * layer->kernel + v : which;
            best = value > best ? value : best;
        }
    *y = best;
    *argmax = which;
}

static void forward_any(const struct network_layer *layer, const float *x, float *y, uint32_t *argmax, uint32_t n)
{
    const size_t size = (size_t)layer->in.h * layer->in.w;
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++, x += size)
        for (uint32_t i = 0; i < layer->out.h; i++)
            for (uint32_t j = 0; j < layer->out.w; j++)
                forward_window(layer, x, i, j, y++, argmax++);
}

static void backward_any(const struct network_layer *layer, const uint32_t *argmax, const float *dy, float *dx,
                         uint32_t n)
{
    const size_t size = (size_t)layer->in.h * layer->in.w;
    const uint32_t k = layer->kernel;
    memset(dx, 0, n * shape_size(layer->in) * sizeof *dx);
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++, dx += size)
        for (uint32_t i = 0; i < layer->out.h; i++)
            for (uint32_t j = 0; j < layer->out.w; j++, dy++, argmax++)
                dx[element_of(layer, i, j, *argmax / k, *argmax % k)] += *dy;
}

static bool is_2x2(const struct network_layer *layer)
{
    return layer->kernel == 2 && layer->stride == 2 && layer->padding == 0;
}

static void maxpool_forward(const struct layer_call *call)
{
    (is_2x2(call->layer) ? forward_2x2 : forward_any)(call->layer, call->inputs[0], call->output, call->saved, call->n);
}

static void maxpool_backward(const struct layer_call *call)
{
    (is_2x2(call->layer) ? backward_2x2 : backward_any)(call->layer, call->saved, call->doutput, call->dinputs[0],
                                                        call->n);
}

/* Which place of its window each output is. */
static size_t maxpool_saved(const struct network_layer *layer, uint32_t n)
{
    return n * shape_size(layer->out) * sizeof(uint32_t);
}

const struct layer_kind maxpool_kind = {
    .forward = maxpool_forward,
    .backward = maxpool_backward,
    .saved = maxpool_saved,
};
