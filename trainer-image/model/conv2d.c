#include "model/layer.h"

#include "model/gemm.h"
#include "model/im2col.h"
#include "numerics/numerics.h"

#include <string.h>

/* One group's part of the products: its output channels see its input channels alone. */
struct parts {
    size_t co, rows; /* output channels and rows of the columns of each group */
    size_t places;
};

static struct parts parts_of(const struct network_layer *layer, const struct im2col *m)
{
    return (struct parts){layer->out.c / layer->groups, m->rows / layer->groups, m->places};
}

static void fill_bias(const struct network_layer *layer, const float *params, size_t places, float *y)
{
    for (size_t o = 0; o < layer->out.c; o++)
        for (size_t j = 0; j < places; j++)
            y[o * places + j] = params[layer->bias_at + o];
}

static void conv2d_forward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const struct im2col m = im2col_of(layer);
    const struct parts parts = parts_of(layer, &m);
    const float *w = call->params + layer->weight;
    for (uint32_t i = 0; i < call->n; i++) {
        const float *columns = im2col_columns(&m, call->inputs[0] + i * shape_size(layer->in), call->scratch);
        float *y = call->output + i * shape_size(layer->out);
        if (layer->bias)
            fill_bias(layer, call->params, parts.places, y);
        for (size_t g = 0; g < layer->groups; g++)
            gemm(GEMM_NN, parts.co, parts.places, parts.rows, w + g * parts.co * parts.rows,
                 columns + g * parts.rows * parts.places, layer->bias ? 1 : 0, y + g * parts.co * parts.places);
        if (call->relu)
            vector_relu(y, y, shape_size(layer->out));
    }
}

/* One sample's part of the gradients of weights and biases. */
static void backward_parameters(const struct layer_call *call, const struct im2col *m, const float *x, const float *dy,
                                bool first)
{
    const struct network_layer *layer = call->layer;
    const struct parts parts = parts_of(layer, m);
    const float *columns = im2col_columns(m, x, call->scratch);
    for (size_t g = 0; g < layer->groups; g++)
        gemm(GEMM_NT, parts.co, parts.rows, parts.places, dy + g * parts.co * parts.places,
             columns + g * parts.rows * parts.places, first ? 0 : 1,
             call->grad + layer->weight + g * parts.co * parts.rows);
    for (size_t o = 0; layer->bias && o < layer->out.c; o++)
        call->grad[layer->bias_at + o] += vector_total(dy + o * parts.places, parts.places);
}

static void backward_input(const struct layer_call *call, const struct im2col *m, const float *dy, float *dx)
{
    const struct network_layer *layer = call->layer;
    const struct parts parts = parts_of(layer, m);
    const float *w = call->params + layer->weight;
    float *columns = im2col_gradient(m, call->scratch);
    for (size_t g = 0; g < layer->groups; g++)
        gemm(GEMM_TN, parts.rows, parts.places, parts.co, w + g * parts.co * parts.rows,
             dy + g * parts.co * parts.places, 0, columns + g * parts.rows * parts.places);
    im2col_sum(m, call->scratch, dx, call->add[0]);
}

static void conv2d_backward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const struct im2col m = im2col_of(layer);
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    for (size_t o = 0; layer->bias && o < layer->out.c; o++)
        call->grad[layer->bias_at + o] = 0;
    for (uint32_t i = 0; i < call->n; i++) {
        float *dy = call->doutput + i * out;
        if (call->relu)
            vector_relu_backward(dy, call->output + i * out, dy, out);
        backward_parameters(call, &m, call->inputs[0] + i * in, dy, i == 0);
        if (call->dinputs[0] != NULL)
            backward_input(call, &m, dy, call->dinputs[0] + i * in);
    }
}

static size_t conv2d_scratch(const struct network_layer *layer, uint32_t n)
{
    (void)n;
    const struct im2col m = im2col_of(layer);
    return im2col_scratch(&m);
}

const struct layer_kind conv2d_kind = {
    .forward = conv2d_forward,
    .backward = conv2d_backward,
    .scratch = conv2d_scratch,
    .flags = LAYER_READS_INPUT | LAYER_ADDS | LAYER_TAKES_RELU | LAYER_TRAINS,
};
