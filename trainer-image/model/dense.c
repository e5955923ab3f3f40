#include "model/dense.h"

#include "model/gemm.h"
#include "model/layer.h"
#include "model/model.h"
#include "numerics/numerics.h"

#include <string.h>

/* A piece of PIECE floats, its blocks' partial sums and what they are products of stay in a second-level cache. */
enum { LARGE = 1 << 15, PIECE = 1 << 14 };

bool dense_is_large(const struct network_layer *layer)
{
    return layer->type == LAYER_DENSE && shape_size(layer->in) * shape_size(layer->out) >= LARGE;
}

uint32_t dense_piece_rows(const struct network_layer *layer)
{
    const uint64_t in = shape_size(layer->in), out = shape_size(layer->out);
    const uint64_t rows = in < PIECE ? PIECE / in : 1;
    return (uint32_t)(rows < out ? rows : out);
}

bool dense_weight_rows_sum(const struct network_layer *layer, enum gemm_unit unit, const struct dense_block *blocks,
                           uint32_t count, bool rounded, uint32_t row, uint32_t rows, float *out)
{
    const size_t ins = shape_size(layer->in), outs = shape_size(layer->out);
    struct gemm_factors factors[GEMM_SUM_MOST];
    for (uint32_t i = 0; i < count; i++)
        factors[i] = (struct gemm_factors){blocks[i].n, blocks[i].dy + row, outs, blocks[i].x, ins};
    return gemm_sparse(unit, GEMM_TN, rows, ins, factors, count, rounded, out, ins);
}

void dense_weight_rows(const struct network_layer *layer, enum gemm_unit unit, const struct dense_block *block,
                       uint32_t row, uint32_t rows, float *out)
{
    const size_t ins = shape_size(layer->in), outs = shape_size(layer->out);
    if (!dense_weight_rows_sum(layer, unit, block, 1, false, row, rows, out))
        gemm_stepped(GEMM_TN, rows, ins, block->n, block->dy + row, outs, block->x, ins, 0, out, ins);
}

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

/* Large products of many samples are fast as they are; those of few are cut as they are where they are left for later.
 */
static void weight_gradient(const struct layer_call *call, uint32_t out)
{
    const struct network_layer *layer = call->layer;
    const size_t in = shape_size(layer->in);
    const bool cut = dense_is_large(layer) && call->n <= MODEL_PIECE_SAMPLES_MOST;
    const uint32_t most = cut ? dense_piece_rows(layer) : out;
    const struct dense_block block = {call->n, call->doutput, call->inputs[0]};
    for (uint32_t row = 0; row < out; row += most)
        dense_weight_rows(layer, call->unit, &block, row, out - row < most ? out - row : most,
                          call->grad + layer->weight + row * in);
}

static void keep(const struct layer_call *call, size_t in, size_t out)
{
    memcpy(call->kept, call->inputs[0], call->n * in * sizeof(float));
    memcpy(call->kept + call->n * in, call->doutput, call->n * out * sizeof(float));
}

static void dense_backward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    float *dy = call->doutput;
    if (call->relu)
        vector_relu_backward(dy, call->output, dy, call->n * out);
    if (call->kept != NULL)
        keep(call, in, out);
    else
        weight_gradient(call, (uint32_t)out);
    if (layer->bias) {
        memcpy(call->grad + layer->bias_at, dy, out * sizeof *dy);
        for (uint32_t i = 1; i < call->n; i++)
            vector_add(call->grad + layer->bias_at, dy + i * out, out);
    }
    const struct gemm_factors factors = {out, dy, out, call->params + layer->weight, in};
    float *dx = call->dinputs[0];
    if (dx != NULL && !gemm_sparse(call->unit, GEMM_NN, call->n, in, &factors, 1, false, dx, in))
        gemm(GEMM_NN, call->n, in, out, dy, factors.b, 0, dx);
}

const struct layer_kind dense_kind = {
    .forward = dense_forward,
    .backward = dense_backward,
    .flags = LAYER_READS_INPUT | LAYER_TAKES_RELU | LAYER_TRAINS,
};
