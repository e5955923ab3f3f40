#include "model/reference.h"

void dense_forward_reference(const struct network_layer *layer, const float *params, const float *x, float *y,
                             uint32_t n)
{
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    for (uint32_t i = 0; i < n; i++)
        for (size_t o = 0; o < out; o++) {
            double sum = layer->bias ? (double)params[layer->bias_at + o] : 0;
            for (size_t j = 0; j < in; j++)
                sum += (double)x[i * in + j] * (double)params[layer->weight + o * in + j];
            y[i * out + o] = (float)sum;
        }
}

void dense_backward_reference(const struct network_layer *layer, const float *params, const float *x, const float *dy,
                              float *dx, float *grad, uint32_t n)
{
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    for (size_t o = 0; o < out; o++) {
        double bias = 0;
        for (uint32_t i = 0; i < n; i++)
            bias += (double)dy[i * out + o];
        if (layer->bias)
            grad[layer->bias_at + o] = (float)bias;
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

/* One tap of a convolution: which output, which input channel of its group, which place in the kernel. */
struct tap {
    size_t o, c, u, v;
};

static size_t inputs_of_group(const struct network_layer *layer)
{
    return layer->in.c / layer->groups;
}

static size_t input_channel(const struct network_layer *layer, const struct tap *tap)
{
    size_t group = 0;
    while ((group + 1) * layer->out.c <= tap->o * layer->groups)
        group++;
    return group * inputs_of_group(layer) + tap->c;
}

/* Where the tap of output (i, j) of sample s reads; -1 in the padding. */
static ptrdiff_t input_at(const struct network_layer *layer, const struct tap *tap, size_t s, size_t i, size_t j)
{
    const ptrdiff_t row = (ptrdiff_t)(i * layer->stride + tap->u) - (ptrdiff_t)layer->padding;
    const ptrdiff_t column = (ptrdiff_t)(j * layer->stride + tap->v) - (ptrdiff_t)layer->padding;
    if (row < 0 || row >= (ptrdiff_t)layer->in.h || column < 0 || column >= (ptrdiff_t)layer->in.w)
        return -1;
    return ((ptrdiff_t)(s * layer->in.c + input_channel(layer, tap)) * (ptrdiff_t)layer->in.h + row) *
               (ptrdiff_t)layer->in.w +
           column;
}

static size_t weight_at(const struct network_layer *layer, const struct tap *tap)
{
    return layer->weight + ((tap->o * inputs_of_group(layer) + tap->c) * layer->kernel + tap->u) * layer->kernel +
           tap->v;
}

static size_t output_at(const struct network_layer *layer, size_t s, size_t o, size_t i, size_t j)
{
    return ((s * layer->out.c + o) * layer->out.h + i) * layer->out.w + j;
}

/* Steps through all taps; begins with {0}. */
static bool next_tap(const struct network_layer *layer, struct tap *tap)
{
    if (++tap->v < layer->kernel)
        return true;
    tap->v = 0;
    if (++tap->u < layer->kernel)
        return true;
    tap->u = 0;
    if (++tap->c < inputs_of_group(layer))
        return true;
    tap->c = 0;
    return ++tap->o < layer->out.c;
}

/* The sum over the taps of output o at (i, j). */
static double output_value(const struct network_layer *layer, const float *params, const float *x, size_t s, size_t o,
                           size_t i, size_t j)
{
    double sum = layer->bias ? (double)params[layer->bias_at + o] : 0;
    struct tap tap = {.o = o};
    do {
        const ptrdiff_t at = input_at(layer, &tap, s, i, j);
        if (at >= 0)
            sum += (double)x[at] * (double)params[weight_at(layer, &tap)];
    } while (next_tap(layer, &tap) && tap.o == o);
    return sum;
}

void conv2d_forward_reference(const struct network_layer *layer, const float *params, const float *x, float *y,
                              uint32_t n)
{
    for (size_t s = 0; s < n; s++)
        for (size_t o = 0; o < layer->out.c; o++)
            for (size_t i = 0; i < layer->out.h; i++)
                for (size_t j = 0; j < layer->out.w; j++)
                    y[output_at(layer, s, o, i, j)] = (float)output_value(layer, params, x, s, o, i, j);
}

/* What one tap adds to its weight's gradient and to the inputs' gradients. */
static double backward_tap(const struct network_layer *layer, const struct tap *tap, const float *params,
                           const float *x, const float *dy, double *dx, uint32_t n)
{
    double weight = 0;
    for (size_t s = 0; s < n; s++)
        for (size_t i = 0; i < layer->out.h; i++)
            for (size_t j = 0; j < layer->out.w; j++) {
                const ptrdiff_t at = input_at(layer, tap, s, i, j);
                if (at < 0)
                    continue;
                const double gradient = (double)dy[output_at(layer, s, tap->o, i, j)];
                weight += gradient * (double)x[at];
                dx[at] += gradient * (double)params[weight_at(layer, tap)];
            }
    return weight;
}

void conv2d_backward_reference(const struct network_layer *layer, const float *params, const float *x, const float *dy,
                               float *dx, float *grad, uint32_t n)
{
    for (size_t o = 0; layer->bias && o < layer->out.c; o++) {
        double bias = 0;
        for (size_t s = 0; s < n; s++)
            for (size_t place = 0; place < (size_t)layer->out.h * layer->out.w; place++)
                bias += (double)dy[output_at(layer, s, o, 0, place)];
        grad[layer->bias_at + o] = (float)bias;
    }
    const size_t in = n * shape_size(layer->in);
    cleanup_free double *sums = calloc(in + 1, sizeof *sums);
    struct tap tap = {0};
    do
        grad[weight_at(layer, &tap)] = (float)backward_tap(layer, &tap, params, x, dy, sums, n);
    while (next_tap(layer, &tap));
    for (size_t i = 0; i < in; i++)
        dx[i] = (float)sums[i];
}

/* Where place `place` of output (i, j)'s window is in its plane; SIZE_MAX: in the padding. */
static size_t place_at(const struct network_layer *layer, size_t i, size_t j, uint32_t place)
{
    const size_t row = i * layer->stride + place / layer->kernel - layer->padding; /* too large where below zero */
    const size_t column = j * layer->stride + place % layer->kernel - layer->padding;
    return row < layer->in.h && column < layer->in.w ? row * layer->in.w + column : SIZE_MAX;
}

void maxpool_forward_reference(const struct network_layer *layer, const float *x, float *y, uint32_t *argmax,
                               uint32_t n)
{
    const size_t size = (size_t)layer->in.h * layer->in.w;
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++, x += size)
        for (size_t i = 0; i < layer->out.h; i++)
            for (size_t j = 0; j < layer->out.w; j++, y++, argmax++) {
                size_t best = SIZE_MAX;
                for (uint32_t place = 0; place < layer->kernel * layer->kernel; place++) {
                    const size_t at = place_at(layer, i, j, place);
                    if (at == SIZE_MAX || (best != SIZE_MAX && !(x[at] > x[best])))
                        continue;
                    best = at;
                    *argmax = place;
                }
                *y = x[best];
            }
}

void maxpool_backward_reference(const struct network_layer *layer, const uint32_t *argmax, const float *dy, float *dx,
                                uint32_t n)
{
    const size_t size = (size_t)layer->in.h * layer->in.w;
    for (size_t i = 0; i < n * shape_size(layer->in); i++)
        dx[i] = 0;
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++, dx += size)
        for (size_t i = 0; i < layer->out.h; i++)
            for (size_t j = 0; j < layer->out.w; j++, dy++, argmax++)
                dx[place_at(layer, i, j, *argmax)] += *dy;
}
