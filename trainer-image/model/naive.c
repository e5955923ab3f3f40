#include "model/naive.h"

#include <math.h>
#include <stdlib.h>

/* One layer's view: its inputs' values and its output, [n][size] each. */
struct view {
    const struct network_layer *layer;
    const double *params;
    const double *inputs[NETWORK_INPUTS_MOST];
    struct shape shapes[NETWORK_INPUTS_MOST];
    double *output;
    size_t n;
    const double *rows;
    const struct model_rows *ids;
};

static double at(const double *values, struct shape shape, size_t s, size_t c, size_t i, size_t j)
{
    return values[((s * shape.c + c) * shape.h + i) * shape.w + j];
}

static double dense_value(const struct view *v, size_t s, size_t o)
{
    const size_t in = shape_size(v->layer->in);
    double sum = v->layer->bias ? v->params[v->layer->bias_at + o] : 0;
    for (size_t k = 0; k < in; k++)
        sum += v->inputs[0][s * in + k] * v->params[v->layer->weight + o * in + k];
    return sum;
}

static double conv2d_value(const struct view *v, size_t s, size_t o, size_t i, size_t j)
{
    const struct network_layer *layer = v->layer;
    const size_t channels = layer->in.c / layer->groups;
    const size_t first = o / (layer->out.c / layer->groups) * channels;
    const size_t k = layer->kernel;
    double sum = layer->bias ? v->params[layer->bias_at + o] : 0;
    for (size_t c = 0; c < channels; c++)
        for (size_t place = 0; place < k * k; place++) {
            const size_t row = i * layer->stride + place / k - layer->padding; /* too large where below zero */
            const size_t column = j * layer->stride + place % k - layer->padding;
            if (row < layer->in.h && column < layer->in.w)
                sum += at(v->inputs[0], layer->in, s, first + c, row, column) *
                       v->params[layer->weight + (o * channels + c) * k * k + place];
        }
    return sum;
}

static double pool_value(const struct view *v, size_t s, size_t c, size_t i, size_t j)
{
    const struct network_layer *layer = v->layer;
    const bool global = layer->type == LAYER_GLOBAL_AVGPOOL;
    const size_t kh = global ? layer->in.h : layer->kernel;
    const size_t kw = global ? layer->in.w : layer->kernel;
    double most = -(double)INFINITY;
    double sum = 0;
    for (size_t u = 0; u < kh; u++)
        for (size_t w = 0; w < kw; w++) {
            const size_t row = i * layer->stride + u - layer->padding; /* too large where below zero */
            const size_t column = j * layer->stride + w - layer->padding;
            if (row >= layer->in.h || column >= layer->in.w)
                continue;
            const double x = at(v->inputs[0], layer->in, s, c, row, column);
            most = fmax(most, x);
            sum += x;
        }
    return layer->type == LAYER_MAXPOOL ? most : sum / (double)(kh * kw);
}

static double element_value(enum layer_type type, double x)
{
    switch (type) {
    case LAYER_RELU:
        return fmax(x, 0);
    case LAYER_GELU:
        return x * 0.5 * erfc(-x * sqrt(0.5));
    case LAYER_TANH:
        return tanh(x);
    case LAYER_SIGMOID:
        return 1 / (1 + exp(-x));
    default:
        return x;
    }
}

/* Element o of the output, which is at (c, i, j). */
static double value(const struct view *v, size_t s, size_t o, size_t c, size_t i, size_t j)
{
    switch (v->layer->type) {
    case LAYER_DENSE:
        return dense_value(v, s, o);
    case LAYER_CONV2D:
        return conv2d_value(v, s, c, i, j);
    case LAYER_MAXPOOL:
    case LAYER_AVGPOOL:
    case LAYER_GLOBAL_AVGPOOL:
        return pool_value(v, s, c, i, j);
    default:
        return element_value(v->layer->type, v->inputs[0][s * shape_size(v->layer->in) + o]);
    }
}

/* Normalises `count` values, the k-th at place(k), to mean 0 and variance 1. */
struct strided {
    size_t first, outer_step, inner; /* element k is at first + k / inner · outer_step + k % inner */
};

static void normalize(const struct view *v, struct strided where, size_t count)
{
    double mean = 0;
    double variance = 0;
    for (size_t k = 0; k < count; k++)
        mean += v->inputs[0][where.first + k / where.inner * where.outer_step + k % where.inner] / (double)count;
    for (size_t k = 0; k < count; k++) {
        const double x = v->inputs[0][where.first + k / where.inner * where.outer_step + k % where.inner] - mean;
        variance += x * x / (double)count;
    }
    for (size_t k = 0; k < count; k++) {
        const size_t e = where.first + k / where.inner * where.outer_step + k % where.inner;
        v->output[e] = (v->inputs[0][e] - mean) / sqrt(variance + v->layer->epsilon);
    }
}

static void norm_values(const struct view *v)
{
    const struct network_layer *layer = v->layer;
    const size_t size = shape_size(layer->in);
    const size_t plane = (size_t)layer->in.h * layer->in.w;
    const bool batch = layer->type == LAYER_BATCHNORM;
    for (size_t c = 0; batch && c < layer->in.c; c++)
        normalize(v, (struct strided){c * plane, size, plane}, v->n * plane);
    for (size_t s = 0; !batch && s < v->n; s++)
        normalize(v, (struct strided){s * size, 0, size}, size);
    for (size_t e = 0; e < v->n * size; e++) {
        const size_t k = batch ? e % size / plane : e % size;
        v->output[e] = v->output[e] * v->params[layer->weight + k] + v->params[layer->bias_at + k];
    }
}

static void combine_values(const struct view *v)
{
    const size_t size = shape_size(v->layer->out);
    for (size_t s = 0; s < v->n; s++) {
        double *out = v->output + s * size;
        size_t done = 0;
        for (size_t k = 0; k < v->layer->input_count; k++) {
            const size_t in = shape_size(v->shapes[k]);
            for (size_t e = 0; e < in; e++) {
                const double x = v->inputs[k][s * in + e];
                if (v->layer->type == LAYER_CONCAT)
                    out[done + e] = x;
                else
                    out[e] = k == 0 ? x : out[e] + x;
            }
            done += in;
        }
    }
}

static void columns_values(const struct view *v)
{
    const size_t in = shape_size(v->layer->in);
    const size_t out = shape_size(v->layer->out);
    for (size_t s = 0; s < v->n; s++)
        for (size_t e = 0; e < out; e++)
            v->output[s * out + e] = v->inputs[0][s * in + v->layer->from + e];
}

static void sum_values(const struct view *v)
{
    const size_t in = shape_size(v->layer->in);
    const size_t out = shape_size(v->layer->out);
    for (size_t s = 0; s < v->n; s++)
        for (size_t e = 0; e < in; e++)
            v->output[s * out + e % out] += v->inputs[0][s * in + e];
}

static void embedding_values(const struct view *v)
{
    const size_t k = shape_size(v->layer->in);
    const size_t dim = v->layer->dim;
    for (size_t e = 0; e < v->n * k; e++) {
        size_t row = 0;
        while (v->ids->ids[row] != (uint32_t)v->inputs[0][e])
            row++;
        for (size_t d = 0; d < dim; d++)
            v->output[e * dim + d] = v->rows[row * dim + d];
    }
}

static void values(const struct view *v)
{
    const struct shape out = v->layer->out;
    switch (v->layer->type) {
    case LAYER_BATCHNORM:
    case LAYER_LAYERNORM:
        norm_values(v);
        return;
    case LAYER_ADD:
    case LAYER_CONCAT:
        combine_values(v);
        return;
    case LAYER_COLUMNS:
        columns_values(v);
        return;
    case LAYER_SUM:
        sum_values(v);
        return;
    case LAYER_EMBEDDING:
        embedding_values(v);
        return;
    default:
        for (size_t s = 0; s < v->n; s++)
            for (size_t o = 0; o < shape_size(out); o++)
                v->output[s * shape_size(out) + o] =
                    value(v, s, o, o / ((size_t)out.h * out.w), o / out.w % out.h, o % out.w);
    }
}

static double loss_of(const struct network *network, const double *outputs, double target)
{
    const double difference = fabs(outputs[0] - target);
    double sum = 0;
    switch (network->loss) {
    case LOSS_BINARY_CROSS_ENTROPY:
        return log(1 + exp(-outputs[0])) + (1 - target) * outputs[0];
    case LOSS_MSE:
        return difference * difference;
    case LOSS_HUBER:
        return difference < network->huber_delta ? 0.5 * difference * difference
                                                 : network->huber_delta * (difference - 0.5 * network->huber_delta);
    default:
        for (uint32_t c = 0; c < network->outputs; c++)
            sum += exp(outputs[c]);
        return log(sum) - outputs[(size_t)target];
    }
}

double naive_loss(const struct network *network, const double *params, const double *const *rows,
                  const struct model_batch *batch)
{
    const uint32_t layers = network->layer_count;
    const size_t size = shape_size(network->sample.shape);
    double **outputs = calloc(layers, sizeof *outputs);
    double *sample = calloc(batch->n * size, sizeof *sample);
    if (outputs == NULL || sample == NULL)
        abort();
    for (size_t i = 0; i < batch->n * size; i++)
        sample[i] = (double)batch->x[i];
    for (uint32_t i = 0; i < layers; i++) {
        const struct network_layer *layer = &network->layers[i];
        outputs[i] = calloc(batch->n * shape_size(layer->out), sizeof *outputs[i]);
        if (outputs[i] == NULL)
            abort();
        struct view view = {.layer = layer, .params = params, .output = outputs[i], .n = batch->n, .inputs = {sample}};
        if (layer->type == LAYER_EMBEDDING) {
            view.rows = rows[layer->table];
            view.ids = &batch->rows[layer->table];
        }
        for (uint32_t k = 0; k < layer->input_count; k++) {
            view.inputs[k] = layer->inputs[k] < 0 ? sample : outputs[layer->inputs[k]];
            view.shapes[k] = layer->inputs[k] < 0 ? network->sample.shape : network->layers[layer->inputs[k]].out;
        }
        values(&view);
    }
    double loss = 0;
    for (uint32_t s = 0; s < batch->n; s++)
        loss += loss_of(network, outputs[layers - 1] + (size_t)s * network->outputs, (double)batch->targets[s]);
    for (uint32_t i = 0; i < layers; i++)
        free(outputs[i]);
    free(outputs);
    free(sample);
    return loss;
}
