#include "model/layer.h"

#include "model/gemm.h"
#include "numerics/numerics.h"

#include <string.h>

static void dense_forward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    for (uint32_t i = 0; layer->bias && i < call->n; i++)
        memcpy(call->output + i * out, call->params + layer->bias_at, out * sizeof(float));
    gemm(GEMM_NT, call->n, out, in, call->inputs[0], call->params + layer->weight, layer->bias ? 1 : 0, call->output);
    if (call->relu)
        vector_relu(call->output, call->output, call->n * out);
}

static void dense_backward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    float *dy = call->doutput;
    if (call->relu)
        vector_relu_backward(dy, call->output, dy, call->n * out);
    gemm(GEMM_TN, out, in, call->n, dy, call->inputs[0], 0, call->grad + layer->weight);
    if (layer->bias) {
        memcpy(call->grad + layer->bias_at, dy, out * sizeof *dy);
        for (uint32_t i = 1; i < call->n; i++)
            vector_add(call->grad + layer->bias_at, dy + i * out, out);
    }
    if (call->dinputs[0] != NULL)
        gemm(GEMM_NN, call->n, in, out, dy, call->params + layer->weight, 0, call->dinputs[0]);
}

const struct layer_kind dense_kind = {
    .forward = dense_forward,
    .backward = dense_backward,
    .flags = LAYER_READS_INPUT | LAYER_TAKES_RELU | LAYER_TRAINS,
};
