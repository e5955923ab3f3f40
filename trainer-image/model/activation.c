#include "model/layer.h"

#include "numerics/numerics.h"

/* ReLU's smooth relatives. */

static size_t size_of(const struct layer_call *call)
{
    return call->n * shape_size(call->layer->out);
}

/* ---- Sigmoid: its slope is y·(1 − y) ---- */

static void sigmoid_forward(const struct layer_call *call)
{
    vector_sigmoid(call->output, call->inputs[0], size_of(call));
}

VECTOR_CLONES static void sigmoid_slopes(const float *y, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * (y[i] * (1 - y[i]));
}

static void sigmoid_backward(const struct layer_call *call)
{
    sigmoid_slopes(call->output, call->doutput, call->dinputs[0], size_of(call));
}

const struct layer_kind sigmoid_kind = {
    .forward = sigmoid_forward,
    .backward = sigmoid_backward,
    .flags = LAYER_OVER_INPUT | LAYER_OVER_GRADIENT | LAYER_READS_OUTPUT,
};

/* ---- Tanh: its slope is 1 − y² ---- */

static void tanh_forward(const struct layer_call *call)
{
    vector_tanh(call->output, call->inputs[0], size_of(call));
}

VECTOR_CLONES static void tanh_slopes(const float *y, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * (1 - y[i] * y[i]);
}

static void tanh_backward(const struct layer_call *call)
{
    tanh_slopes(call->output, call->doutput, call->dinputs[0], size_of(call));
}

const struct layer_kind tanh_kind = {
    .forward = tanh_forward,
    .backward = tanh_backward,
    .flags = LAYER_OVER_INPUT | LAYER_OVER_GRADIENT | LAYER_READS_OUTPUT,
};

/* ---- GELU: forward leaves the slopes for backward ---- */

static void gelu_forward(const struct layer_call *call)
{
    if (call->training)
        vector_gelu_slope(call->output, call->saved, call->inputs[0], size_of(call));
    else
        vector_gelu(call->output, call->inputs[0], size_of(call));
}

VECTOR_CLONES static void multiply(const float *slope, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = dy[i] * slope[i];
}

static void gelu_backward(const struct layer_call *call)
{
    multiply(call->saved, call->doutput, call->dinputs[0], size_of(call));
}

static size_t gelu_saved(const struct network_layer *layer, uint32_t n)
{
    return n * shape_size(layer->out) * sizeof(float);
}

const struct layer_kind gelu_kind = {
    .forward = gelu_forward,
    .backward = gelu_backward,
    .saved = gelu_saved,
    .flags = LAYER_OVER_INPUT | LAYER_OVER_GRADIENT,
};
