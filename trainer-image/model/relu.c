#include "model/layer.h"

#include "numerics/numerics.h"

static void relu_forward(const struct layer_call *call)
{
    vector_relu(call->output, call->inputs[0], call->n * shape_size(call->layer->out));
}

static void relu_backward(const struct layer_call *call)
{
    vector_relu_backward(call->dinputs[0], call->output, call->doutput, call->n * shape_size(call->layer->out));
}

const struct layer_kind relu_kind = {
    .forward = relu_forward,
    .backward = relu_backward,
    .flags = LAYER_OVER_INPUT | LAYER_OVER_GRADIENT | LAYER_READS_OUTPUT,
};
