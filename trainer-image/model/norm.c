#include "model/layer.h"

#include "numerics/numerics.h"

#include <math.h>
#include <string.h>

enum { LANES = 16 };

/* Adds lanes as a tree. */
static inline __attribute__((always_inline)) float lanes_total(float lanes[LANES])
{
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            lanes[lane] += lanes[lane + half];
    return lanes[0];
}

/* Σ (x − mean)², element i in lane i mod 16. */
VECTOR_CLONES static float squares(const float *x, float mean, size_t n)
{
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            lanes[lane] += (x[i + lane] - mean) * (x[i + lane] - mean);
    for (size_t lane = 0; i < n; i++, lane++)
        lanes[lane] += (x[i] - mean) * (x[i] - mean);
    return lanes_total(lanes);
}

/* Σ a·(x − mean), likewise. */
VECTOR_CLONES static float products(const float *a, const float *x, float mean, size_t n)
{
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            lanes[lane] += a[i + lane] * (x[i + lane] - mean);
    for (size_t lane = 0; i < n; i++, lane++)
        lanes[lane] += a[i] * (x[i] - mean);
    return lanes_total(lanes);
}

static float inverse_root(double variance, double epsilon)
{
    return (float)(1 / sqrt(variance + epsilon));
}

/* ---- BatchNorm: per channel, over the block's samples and places:
 *   mean = Σ x / m,  variance = Σ (x − mean)² / m,  r = 1/√(variance + ε),  y = (x − mean)·r·scale + shift
 * Channel by channel, so that all passes but the first read the caches. The statistics are the block's mean and, as
 * PyTorch has it, its variance · m/(m − 1); evaluation normalises by their running values. ---- */

/* What backward needs of each channel. */
struct moments {
    float mean, r, unbiased;
};

/* One channel's planes: of sample i from `first` + i·step on. */
struct channel {
    uint32_t n;
    size_t first, step, plane;
};

static struct channel channel_of(const struct layer_call *call, uint32_t c)
{
    const size_t plane = (size_t)call->layer->in.h * call->layer->in.w;
    return (struct channel){call->n, c * plane, shape_size(call->layer->in), plane};
}

static struct moments measure(const struct channel *channel, const float *x, double epsilon)
{
    const double count = (double)channel->n * (double)channel->plane;
    double sum = 0;
    for (uint32_t i = 0; i < channel->n; i++)
        sum += (double)vector_total(x + channel->first + i * channel->step, channel->plane);
    const float mean = (float)(sum / count);
    double square = 0;
    for (uint32_t i = 0; i < channel->n; i++)
        square += (double)squares(x + channel->first + i * channel->step, mean, channel->plane);
    return (struct moments){mean, inverse_root(square / count, epsilon), (float)(square / (count > 1 ? count - 1 : 1))};
}

VECTOR_CLONES static void scale_plane(const float *x, float mean, float factor, float shift, bool relu, float *y,
                                      size_t n)
{
    if (relu)
        for (size_t i = 0; i < n; i++) {
            const float value = (x[i] - mean) * factor + shift;
            y[i] = value < 0 ? 0 : value;
        }
    else
        for (size_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * factor + shift;
}

static void batchnorm_forward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    struct moments *moments = call->saved;
    for (uint32_t c = 0; c < layer->in.c; c++) {
        const struct channel channel = channel_of(call, c);
        if (call->training)
            moments[c] = measure(&channel, call->inputs[0], layer->epsilon);
        else
            moments[c] = (struct moments){
                .mean = call->params[layer->mean_at + c],
                .r = inverse_root((double)call->params[layer->variance_at + c], layer->epsilon),
            };
        const float factor = moments[c].r * call->params[layer->weight + c];
        for (uint32_t i = 0; i < channel.n; i++) {
            const size_t at = channel.first + i * channel.step;
            scale_plane(call->inputs[0] + at, moments[c].mean, factor, call->params[layer->bias_at + c], call->relu,
                        call->output + at, channel.plane);
        }
    }
}

/* dx = factor·(dy − mean_dy − (x − mean)·slope) */
VECTOR_CLONES static void backward_plane(const float *x, float mean, const float *dy, float factor, float mean_dy,
                                         float slope, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = factor * ((dy[i] - mean_dy) - (x[i] - mean) * slope);
}

/* dshift = Σ dy,  dscale = Σ dy·(x − mean)·r,  dx = scale·r·(dy − dshift/m − (x − mean)·r·dscale/m) */
static void backward_channel(const struct layer_call *call, uint32_t c)
{
    const struct network_layer *layer = call->layer;
    const struct channel channel = channel_of(call, c);
    const struct moments moments = ((const struct moments *)call->saved)[c];
    const double count = (double)channel.n * (double)channel.plane;
    double shift = 0;
    double scale = 0;
    for (uint32_t i = 0; i < channel.n; i++) {
        const size_t at = channel.first + i * channel.step;
        float *dy = call->doutput + at;
        if (call->relu)
            vector_relu_backward(dy, call->output + at, dy, channel.plane);
        shift += (double)vector_total(dy, channel.plane);
        scale += (double)products(dy, call->inputs[0] + at, moments.mean, channel.plane);
    }
    scale *= (double)moments.r;
    call->grad[layer->weight + c] = (float)scale;
    call->grad[layer->bias_at + c] = (float)shift;
    call->grad[layer->mean_at + c] = (float)call->n * moments.mean;
    call->grad[layer->variance_at + c] = (float)call->n * moments.unbiased;
    for (uint32_t i = 0; i < channel.n && call->dinputs[0] != NULL; i++) {
        const size_t at = channel.first + i * channel.step;
        backward_plane(call->inputs[0] + at, moments.mean, call->doutput + at,
                       moments.r * call->params[layer->weight + c], (float)(shift / count),
                       (float)(scale * (double)moments.r / count), call->dinputs[0] + at, channel.plane);
    }
}

static void batchnorm_backward(const struct layer_call *call)
{
    for (uint32_t c = 0; c < call->layer->in.c; c++)
        backward_channel(call, c);
}

static size_t batchnorm_saved(const struct network_layer *layer, uint32_t n)
{
    (void)n;
    return layer->in.c * sizeof(struct moments);
}

const struct layer_kind batchnorm_kind = {
    .forward = batchnorm_forward,
    .backward = batchnorm_backward,
    .saved = batchnorm_saved,
    .flags = LAYER_OVER_GRADIENT | LAYER_READS_INPUT | LAYER_TAKES_RELU | LAYER_TRAINS,
};

/* ---- LayerNorm: of each sample over all its elements, y = (x − mean)·r·scale + shift, element by element ---- */

VECTOR_CLONES static void scale_sample(const float *x, float mean, float r, const float *scale, const float *shift,
                                       float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * r * scale[i] + shift[i];
}

static void layernorm_forward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t size = shape_size(layer->in);
    struct moments *moments = call->saved;
    for (uint32_t i = 0; i < call->n; i++) {
        const struct channel sample = {1, i * size, size, size};
        moments[i] = measure(&sample, call->inputs[0], layer->epsilon);
        scale_sample(call->inputs[0] + i * size, moments[i].mean, moments[i].r, call->params + layer->weight,
                     call->params + layer->bias_at, call->output + i * size, size);
    }
}

/* Adds dy·(x − mean)·r to dscale and dy to dshift, and makes g = dy·scale of dy. */
VECTOR_CLONES static void backward_scales(const float *x, struct moments moments, const float *scale, float *dy,
                                          float *dscale, float *dshift, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        dscale[i] += dy[i] * ((x[i] - moments.mean) * moments.r);
        dshift[i] += dy[i];
        dy[i] *= scale[i];
    }
}

/* With g = dy·scale: dx = r·(g − Σg/m − (x − mean)·r²·Σ g·(x − mean)/m) */
static void layernorm_backward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t size = shape_size(layer->in);
    const struct moments *moments = call->saved;
    memset(call->grad + layer->weight, 0, size * sizeof(float));
    memset(call->grad + layer->bias_at, 0, size * sizeof(float));
    for (uint32_t i = 0; i < call->n; i++) {
        const float *x = call->inputs[0] + i * size;
        float *g = call->doutput + i * size;
        backward_scales(x, moments[i], call->params + layer->weight, g, call->grad + layer->weight,
                        call->grad + layer->bias_at, size);
        if (call->dinputs[0] == NULL)
            continue;
        const double r = (double)moments[i].r;
        const double mean_g = (double)vector_total(g, size) / (double)size;
        const double slope = (double)products(g, x, moments[i].mean, size) * r * r / (double)size;
        backward_plane(x, moments[i].mean, g, moments[i].r, (float)mean_g, (float)slope, call->dinputs[0] + i * size,
                       size);
    }
}

static size_t layernorm_saved(const struct network_layer *layer, uint32_t n)
{
    (void)layer;
    return n * sizeof(struct moments);
}

const struct layer_kind layernorm_kind = {
    .forward = layernorm_forward,
    .backward = layernorm_backward,
    .saved = layernorm_saved,
    .flags = LAYER_OVER_GRADIENT | LAYER_READS_INPUT | LAYER_TRAINS,
};
