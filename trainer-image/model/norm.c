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

/* What backward needs of a channel or a sample. */
struct moments {
    float mean, r, unbiased;
};

static struct moments moments_of(float mean, double square, double count, double epsilon)
{
    return (struct moments){mean, inverse_root(square / count, epsilon), (float)(square / (count > 1 ? count - 1 : 1))};
}

/* dx = factor·(dy − mean_dy − (x − mean)·slope); dx may be dy */
VECTOR_CLONES static void backward_plane(const float *x, float mean, const float *dy, float factor, float mean_dy,
                                         float slope, float *dx, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++)
        dx[i] = factor * ((dy[i] - mean_dy) - (x[i] - mean) * slope);
}

/* ---- BatchNorm: per channel, over the block's samples and places:
 *   mean = Σ x / m,  variance = Σ (x − mean)² / m,  r = 1/√(variance + ε),  y = (x − mean)·r·scale + shift
 *   dshift = Σ dy,  dscale = Σ dy·(x − mean)·r,  dx = scale·r·(dy − dshift/m − (x − mean)·r·dscale/m)
 * Each plane is added in float, in lanes, and the planes in double in the samples' order. The statistics are the
 * block's mean and, as PyTorch has it, its variance · m/(m − 1); evaluation normalises by their running values.
 *
 * Images go channel by channel, so that all passes but the first read the caches. Of vectors, whose planes are single
 * numbers, all channels go side by side, in the same bits. ---- */

static bool is_vector(const struct network_layer *layer)
{
    return layer->in.h == 1 && layer->in.w == 1;
}

/* Images: one channel's planes, of sample i from `first` + i·step on. */
struct channel {
    size_t first, step, plane;
};

static struct channel channel_of(const struct network_layer *layer, uint32_t c)
{
    const size_t plane = (size_t)layer->in.h * layer->in.w;
    return (struct channel){c * plane, shape_size(layer->in), plane};
}

static struct moments measure_channel(const struct layer_call *call, uint32_t c)
{
    const struct channel channel = channel_of(call->layer, c);
    const float *x = call->inputs[0] + channel.first;
    const double count = (double)call->n * (double)channel.plane;
    double sum = 0;
    for (uint32_t i = 0; i < call->n; i++)
        sum += (double)vector_total(x + i * channel.step, channel.plane);
    const float mean = (float)(sum / count);
    double square = 0;
    for (uint32_t i = 0; i < call->n; i++)
        square += (double)squares(x + i * channel.step, mean, channel.plane);
    return moments_of(mean, square, count, call->layer->epsilon);
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

static void scale_channel(const struct layer_call *call, uint32_t c, const struct moments *moments)
{
    const struct channel channel = channel_of(call->layer, c);
    for (uint32_t i = 0; i < call->n; i++) {
        const size_t at = channel.first + i * channel.step;
        scale_plane(call->inputs[0] + at, moments->mean, moments->r * call->params[call->layer->weight + c],
                    call->params[call->layer->bias_at + c], call->relu, call->output + at, channel.plane);
    }
}

struct slopes {
    float dy, product;
};

/* Σ dy and Σ dy·(x − mean), in lanes as above, in one pass; with `relu` dy counts where y > 0, and becomes 0 elsewhere.
 */
static inline __attribute__((always_inline)) struct slopes
slopes_of(const float *restrict x, float mean, const float *restrict y, float *restrict dy, bool relu, size_t n)
{
    float sums[LANES] = {0};
    float products[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma GCC unroll 1
        for (size_t lane = 0; lane < LANES; lane++) {
            const float gradient = !relu || y[i + lane] > 0 ? dy[i + lane] : 0;
            dy[i + lane] = gradient;
            sums[lane] += gradient;
            products[lane] += gradient * (x[i + lane] - mean);
        }
    for (size_t lane = 0; i < n; i++, lane++) {
        const float gradient = !relu || y[i] > 0 ? dy[i] : 0;
        dy[i] = gradient;
        sums[lane] += gradient;
        products[lane] += gradient * (x[i] - mean);
    }
    return (struct slopes){lanes_total(sums), lanes_total(products)};
}

VECTOR_CLONES static struct slopes plane_slopes(const float *x, float mean, float *dy, size_t n)
{
    return slopes_of(x, mean, NULL, dy, false, n);
}

VECTOR_CLONES static struct slopes plane_slopes_relu(const float *x, float mean, const float *y, float *dy, size_t n)
{
    return slopes_of(x, mean, y, dy, true, n);
}

/* The channel's gradients, from sums over the block. */
static void write_gradients(const struct layer_call *call, uint32_t c, const struct moments *moments, double shift,
                            double scale)
{
    const struct network_layer *layer = call->layer;
    call->grad[layer->weight + c] = (float)scale;
    call->grad[layer->bias_at + c] = (float)shift;
    call->grad[layer->mean_at + c] = (float)call->n * moments->mean;
    call->grad[layer->variance_at + c] = (float)call->n * moments->unbiased;
}

static void backward_channel(const struct layer_call *call, uint32_t c, const struct moments *moments)
{
    const struct channel channel = channel_of(call->layer, c);
    const double count = (double)call->n * (double)channel.plane;
    double shift = 0;
    double scale = 0;
    for (uint32_t i = 0; i < call->n; i++) {
        const size_t at = channel.first + i * channel.step;
        const float *x = call->inputs[0] + at;
        const struct slopes slopes =
            call->relu ? plane_slopes_relu(x, moments->mean, call->output + at, call->doutput + at, channel.plane)
                       : plane_slopes(x, moments->mean, call->doutput + at, channel.plane);
        shift += (double)slopes.dy;
        scale += (double)slopes.product;
    }
    scale *= (double)moments->r;
    write_gradients(call, c, moments, shift, scale);
    for (uint32_t i = 0; i < call->n && call->dinputs[0] != NULL; i++) {
        const size_t at = channel.first + i * channel.step;
        backward_plane(call->inputs[0] + at, moments->mean, call->doutput + at,
                       moments->r * call->params[call->layer->weight + c], (float)(shift / count),
                       (float)(scale * (double)moments->r / count), call->dinputs[0] + at, channel.plane);
    }
}

/* Vectors: what belongs to the channels lies side by side in `saved`. */
struct rows {
    double *sums, *others;
    float *means, *roots, *unbiased;
};

static struct rows rows_of(const struct layer_call *call)
{
    const size_t c = call->layer->in.c;
    double *sums = call->saved;
    float *means = (float *)(sums + 2 * c);
    return (struct rows){sums, sums + c, means, means + c, means + 2 * c};
}

VECTOR_CLONES static void add_row(double *restrict sums, const float *restrict x, size_t n)
{
    for (size_t c = 0; c < n; c++)
        sums[c] += (double)x[c];
}

VECTOR_CLONES static void add_row_squares(double *restrict squares, const float *restrict x,
                                          const float *restrict means, size_t n)
{
    for (size_t c = 0; c < n; c++)
        squares[c] += (double)((x[c] - means[c]) * (x[c] - means[c]));
}

static void measure_rows(const struct layer_call *call, const struct rows *rows)
{
    const size_t size = call->layer->in.c;
    memset(rows->sums, 0, 2 * size * sizeof(double));
    for (uint32_t i = 0; i < call->n; i++)
        add_row(rows->sums, call->inputs[0] + i * size, size);
    for (size_t c = 0; c < size; c++)
        rows->means[c] = (float)(rows->sums[c] / (double)call->n);
    for (uint32_t i = 0; i < call->n; i++)
        add_row_squares(rows->others, call->inputs[0] + i * size, rows->means, size);
    for (size_t c = 0; c < size; c++) {
        const struct moments moments =
            moments_of(rows->means[c], rows->others[c], (double)call->n, call->layer->epsilon);
        rows->roots[c] = moments.r;
        rows->unbiased[c] = moments.unbiased;
    }
}

VECTOR_CLONES static void scale_row(const float *restrict x, const struct rows *rows, const float *restrict scale,
                                    const float *restrict shift, float *restrict y, size_t n)
{
    const float *restrict means = rows->means;
    const float *restrict roots = rows->roots;
    for (size_t c = 0; c < n; c++)
        y[c] = (x[c] - means[c]) * (roots[c] * scale[c]) + shift[c];
}

static void forward_rows(const struct layer_call *call)
{
    const size_t size = call->layer->in.c;
    const struct rows rows = rows_of(call);
    if (call->training)
        measure_rows(call, &rows);
    for (size_t c = 0; c < size && !call->training; c++) {
        rows.means[c] = call->params[call->layer->mean_at + c];
        rows.roots[c] = inverse_root((double)call->params[call->layer->variance_at + c], call->layer->epsilon);
    }
    for (uint32_t i = 0; i < call->n; i++) {
        float *y = call->output + i * size;
        scale_row(call->inputs[0] + i * size, &rows, call->params + call->layer->weight,
                  call->params + call->layer->bias_at, y, size);
        if (call->relu)
            vector_relu(y, y, size);
    }
}

VECTOR_CLONES static void add_row_slopes(const struct rows *rows, const float *restrict x, const float *restrict dy,
                                         size_t n)
{
    double *restrict shifts = rows->sums;
    double *restrict scales = rows->others;
    const float *restrict means = rows->means;
    for (size_t c = 0; c < n; c++) {
        shifts[c] += (double)dy[c];
        scales[c] += (double)(dy[c] * (x[c] - means[c]));
    }
}

/* See backward_plane(); `means_dy` and `slopes` are of the channels. */
VECTOR_CLONES static void backward_row(const float *x, const struct rows *rows, const float *scale, const float *dy,
                                       const float *means_dy, const float *slopes, float *dx, size_t n)
{
    const float *means = rows->means;
    const float *roots = rows->roots;
    VECTOR_EACH_ALONE
    for (size_t c = 0; c < n; c++)
        dx[c] = roots[c] * scale[c] * ((dy[c] - means_dy[c]) - (x[c] - means[c]) * slopes[c]);
}

static void backward_rows(const struct layer_call *call)
{
    const size_t size = call->layer->in.c;
    const struct rows rows = rows_of(call);
    memset(rows.sums, 0, 2 * size * sizeof(double));
    for (uint32_t i = 0; i < call->n; i++) {
        float *dy = call->doutput + i * size;
        if (call->relu)
            vector_relu_backward(dy, call->output + i * size, dy, size);
        add_row_slopes(&rows, call->inputs[0] + i * size, dy, size);
    }
    float *means_dy = call->scratch;
    float *slopes = call->scratch + size;
    for (uint32_t c = 0; c < size; c++) {
        const struct moments moments = {rows.means[c], rows.roots[c], rows.unbiased[c]};
        const double scale = rows.others[c] * (double)moments.r;
        write_gradients(call, c, &moments, rows.sums[c], scale);
        means_dy[c] = (float)(rows.sums[c] / (double)call->n);
        slopes[c] = (float)(scale * (double)moments.r / (double)call->n);
    }
    for (uint32_t i = 0; i < call->n && call->dinputs[0] != NULL; i++)
        backward_row(call->inputs[0] + i * size, &rows, call->params + call->layer->weight, call->doutput + i * size,
                     means_dy, slopes, call->dinputs[0] + i * size, size);
}

static void batchnorm_forward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    if (is_vector(layer)) {
        forward_rows(call);
        return;
    }
    struct moments *moments = call->saved;
    for (uint32_t c = 0; c < layer->in.c; c++) {
        if (call->training)
            moments[c] = measure_channel(call, c);
        else
            moments[c] = (struct moments){
                .mean = call->params[layer->mean_at + c],
                .r = inverse_root((double)call->params[layer->variance_at + c], layer->epsilon),
            };
        scale_channel(call, c, &moments[c]);
    }
}

static void batchnorm_backward(const struct layer_call *call)
{
    if (is_vector(call->layer)) {
        backward_rows(call);
        return;
    }
    const struct moments *moments = call->saved;
    for (uint32_t c = 0; c < call->layer->in.c; c++)
        backward_channel(call, c, &moments[c]);
}

static size_t batchnorm_scratch(const struct network_layer *layer, uint32_t n)
{
    (void)n;
    return is_vector(layer) ? 2 * (size_t)layer->in.c : 0;
}

static size_t batchnorm_saved(const struct network_layer *layer, uint32_t n)
{
    (void)n;
    return layer->in.c * (sizeof(struct moments) + (is_vector(layer) ? 2 * sizeof(double) : 0));
}

const struct layer_kind batchnorm_kind = {
    .forward = batchnorm_forward,
    .backward = batchnorm_backward,
    .scratch = batchnorm_scratch,
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
        const float *x = call->inputs[0] + i * size;
        const float mean = (float)((double)vector_total(x, size) / (double)size);
        moments[i] = moments_of(mean, (double)squares(x, mean, size), (double)size, layer->epsilon);
        scale_sample(x, moments[i].mean, moments[i].r, call->params + layer->weight, call->params + layer->bias_at,
                     call->output + i * size, size);
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
