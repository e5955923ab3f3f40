#include "model/layer.h"

#include <stddef.h>

/* Only another shape of the same numbers. */
static const struct layer_kind flatten_kind = {.forward = NULL};

static const struct layer_kind *const layer_kinds[LAYER_TYPES] = {
    [LAYER_AVGPOOL] = &avgpool_kind,
    [LAYER_GLOBAL_AVGPOOL] = &global_avgpool_kind,
    [LAYER_BATCHNORM] = &batchnorm_kind,
    [LAYER_LAYERNORM] = &layernorm_kind,
    [LAYER_DROPOUT] = &dropout_kind,
    [LAYER_ADD] = &add_kind,
    [LAYER_CONCAT] = &concat_kind,
    [LAYER_COLUMNS] = &columns_kind,
    [LAYER_SUM] = &sum_kind,
    [LAYER_GELU] = &gelu_kind,
    [LAYER_TANH] = &tanh_kind,
    [LAYER_SIGMOID] = &sigmoid_kind,
    [LAYER_DENSE] = &dense_kind,
    [LAYER_CONV2D] = &conv2d_kind,
    [LAYER_MAXPOOL] = &maxpool_kind,
    [LAYER_FLATTEN] = &flatten_kind,
    [LAYER_RELU] = &relu_kind,
    [LAYER_EMBEDDING] = &embedding_kind,
};

const struct layer_kind *layer_kind(enum layer_type type)
{
    return layer_kinds[type];
}
