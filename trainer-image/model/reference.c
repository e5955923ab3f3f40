#include "model/old_layer.h"

/* The layers as their formulas stand, summed in double: slow, and what the fast versions are compared with. */

void dense_forward_reference(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n)
{
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    for (uint32_t i = 0; i < n; i++)
        for (size_t o = 0; o < out; o++) {
            double sum = (double)params[layer->bias + o];
            for (size_t j = 0; j < in; j++)
                sum += (double)x[i * in + j] * (double)params[layer->weight + o * in + j];
            y[i * out + o] = (float)sum;
        }
}

void dense_backward_reference(const struct layer *layer, const float *params, const float *x, const float *dy,
                              float *dx, float *grad, uint32_t n)
{
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    for (size_t o = 0; o < out; o++) {
        double bias = 0;
        for (uint32_t i = 0; i < n; i++)
            bias += (double)dy[i * out + o];
        grad[layer->bias + o] = (float)bias;
        for (size_t j = 0; j < in; j++) {
            double weight = 0;
            for (uint32_t i = 0; i < n; i++)
                weight += (double)dy[i * out + o] * (double)x[i * in + j];
            grad[layer->weight + o * in + j] = (float)weight;
        }
    }
    for (uint32_t i = 0; i < n; i++)
        for (size_t j = 0; j < in; j++) {
            double sum = 0;
            for (size_t o = 0; o < out; o++)
                sum += (double)dy[i * out + o] * (double)params[layer->weight + o * in + j];
            dx[i * in + j] = (float)sum;
        }
}

/* Where tap (u, v) of output (i, j) lies in plane c of sample s; -1 in the padding. */
static ptrdiff_t input_at(const struct layer *layer, size_t s, size_t c, size_t i, size_t j, size_t u, size_t v)
{
    ptrdiff_t row = (ptrdiff_t)(i + u) - (ptrdiff_t)layer->padding;
    ptrdiff_t column = (ptrdiff_t)(j + v) - (ptrdiff_t)layer->padding;
    if (row < 0 || row >= (ptrdiff_t)layer->in.h || column < 0 || column >= (ptrdiff_t)layer->in.w)
        return -1;
    return ((ptrdiff_t)(s * layer->in.c + c) * (ptrdiff_t)layer->in.h + row) * (ptrdiff_t)layer->in.w + column;
}

static size_t weight_at(const struct layer *layer, size_t o, size_t c, size_t u, size_t v)
{
    return layer->weight + ((o * layer->in.c + c) * layer->kernel + u) * layer->kernel + v;
}

static size_t output_at(const struct layer *layer, size_t s, size_t o, size_t i, size_t j)
{
    return ((s * layer->out.c + o) * layer->out.h + i) * layer->out.w + j;
}

void conv2d_forward_reference(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n)
{
    for (size_t s = 0; s < n; s++)
        for (size_t o = 0; o < layer->out.c; o++)
            for (size_t i = 0; i < layer->out.h; i++)
                for (size_t j = 0; j < layer->out.w; j++) {
                    double sum = (double)params[layer->bias + o];
                    for (size_t c = 0; c < layer->in.c; c++)
                        for (size_t u = 0; u < layer->kernel; u++)
                            for (size_t v = 0; v < layer->kernel; v++) {
                                ptrdiff_t at = input_at(layer, s, c, i, j, u, v);
                                if (at >= 0)
                                    sum += (double)x[at] * (double)params[weight_at(layer, o, c, u, v)];
                            }
                    y[output_at(layer, s, o, i, j)] = (float)sum;
                }
}

/* dw[o,c,u,v] = Σ over samples and places of dy·x. */
static float weight_gradient(const struct layer *layer, const float *x, const float *dy, uint32_t n, size_t o, size_t c,
                             size_t u, size_t v)
{
    double sum = 0;
    for (size_t s = 0; s < n; s++)
        for (size_t i = 0; i < layer->out.h; i++)
            for (size_t j = 0; j < layer->out.w; j++) {
                ptrdiff_t at = input_at(layer, s, c, i, j, u, v);
                if (at >= 0)
                    sum += (double)dy[output_at(layer, s, o, i, j)] * (double)x[at];
            }
    return (float)sum;
}

/* dx at row i, column j = Σ over the taps that read it of dy·w. */
static float input_gradient(const struct layer *layer, const float *params, const float *dy, size_t s, size_t c,
                            size_t i, size_t j)
{
    double sum = 0;
    for (size_t o = 0; o < layer->out.c; o++)
        for (size_t u = 0; u < layer->kernel; u++)
            for (size_t v = 0; v < layer->kernel; v++) {
                size_t row = i + layer->padding - u; /* wraps below zero, and is then too large */
                size_t column = j + layer->padding - v;
                if (row < layer->out.h && column < layer->out.w)
                    sum +=
                        (double)dy[output_at(layer, s, o, row, column)] * (double)params[weight_at(layer, o, c, u, v)];
            }
    return (float)sum;
}

void conv2d_backward_reference(const struct layer *layer, const float *params, const float *x, const float *dy,
                               float *dx, float *grad, uint32_t n)
{
    for (size_t o = 0; o < layer->out.c; o++) {
        double bias = 0;
        for (size_t s = 0; s < n; s++)
            for (size_t place = 0; place < (size_t)layer->out.h * layer->out.w; place++)
                bias += (double)dy[output_at(layer, s, o, 0, place)];
        grad[layer->bias + o] = (float)bias;
        for (size_t c = 0; c < layer->in.c; c++)
            for (size_t u = 0; u < layer->kernel; u++)
                for (size_t v = 0; v < layer->kernel; v++)
                    grad[weight_at(layer, o, c, u, v)] = weight_gradient(layer, x, dy, n, o, c, u, v);
    }
    for (size_t s = 0; s < n; s++)
        for (size_t c = 0; c < layer->in.c; c++)
            for (size_t i = 0; i < layer->in.h; i++)
                for (size_t j = 0; j < layer->in.w; j++)
                    *dx++ = input_gradient(layer, params, dy, s, c, i, j);
}

void maxpool_forward_reference(const struct layer *layer, const float *x, float *y, uint32_t *argmax, uint32_t n)
{
    const size_t w = layer->in.w;
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++)
        for (size_t i = 0; i < layer->out.h; i++)
            for (size_t j = 0; j < layer->out.w; j++, y++, argmax++) {
                const float *window = x + (plane * layer->in.h + 2 * i) * w + 2 * j;
                *argmax = 0;
                for (uint32_t place = 0; place < 4; place++)
                    if (window[place / 2 * w + place % 2] > window[*argmax / 2 * w + *argmax % 2])
                        *argmax = place;
                *y = window[*argmax / 2 * w + *argmax % 2];
            }
}

void maxpool_backward_reference(const struct layer *layer, const uint32_t *argmax, const float *dy, float *dx,
                                uint32_t n)
{
    const size_t w = layer->in.w;
    for (size_t i = 0; i < n * shape_size(layer->in); i++)
        dx[i] = 0;
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++)
        for (size_t i = 0; i < layer->out.h; i++)
            for (size_t j = 0; j < layer->out.w; j++, dy++, argmax++)
                dx[(plane * layer->in.h + 2 * i + *argmax / 2) * w + 2 * j + *argmax % 2] = *dy;
}
