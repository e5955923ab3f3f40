/* y [n][k][dim] = rows of the ids x [n][k];  backward: grad [count][dim] = Σ dy over the places that hold a row's id,
 * in the samples' order, each from 0. Ids have no gradient. */
#include "model/embedding.h"

#include "model/layer.h"
#include "numerics/sparse.h"

#include <string.h>

static uint32_t ids_of(const struct network_layer *layer)
{
    return (uint32_t)shape_size(layer->in);
}

static size_t embedding_saved(const struct network_layer *layer, uint32_t n)
{
    return (size_t)n * ids_of(layer) * sizeof(uint32_t);
}

static void embedding_forward(const struct layer_call *call)
{
    const struct model_rows *rows = call->rows;
    const uint32_t dim = call->layer->dim;
    const size_t places = (size_t)call->n * ids_of(call->layer);
    uint32_t *which = call->saved; /* of the rows each place has */
    for (size_t i = 0; i < places; i++) {
        uint32_t row = sparse_find(rows->ids, rows->count, (uint32_t)call->inputs[0][i]);
        memcpy(call->output + i * dim, rows->values + (size_t)row * dim, dim * sizeof(float));
        if (call->training)
            which[i] = row;
    }
}

static void embedding_backward(const struct layer_call *call)
{
    const struct model_rows *rows = call->rows;
    const uint32_t dim = call->layer->dim;
    const size_t places = (size_t)call->n * ids_of(call->layer);
    const uint32_t *which = call->saved;
    memset(rows->grad, 0, (size_t)rows->count * dim * sizeof(float));
    for (size_t i = 0; i < places; i++)
        vector_add(rows->grad + (size_t)which[i] * dim, call->doutput + i * dim, dim);
    if (call->dinputs[0] != NULL)
        memset(call->dinputs[0], 0, places * sizeof(float));
}

const struct layer_kind embedding_kind = {
    .forward = embedding_forward, .backward = embedding_backward, .saved = embedding_saved, .flags = LAYER_TRAINS};

static const struct network_layer *layer_of(const struct network *network, uint32_t table)
{
    for (uint32_t i = 0; i < network->layer_count; i++)
        if (network->layers[i].type == LAYER_EMBEDDING && network->layers[i].table == table)
            return &network->layers[i];
    return NULL;
}

int embedding_source(const struct network *network, uint32_t table, struct embedding_source *out, struct error *err)
{
    const struct network_layer *embedding = layer_of(network, table);
    if (embedding == NULL)
        return error_set(err, "no layer uses table %s", network->tables[table].name);
    *out = (struct embedding_source){0, ids_of(embedding)};
    for (int32_t input = embedding->inputs[0]; input != NETWORK_SAMPLE;) {
        const struct network_layer *layer = &network->layers[input];
        if (layer->type != LAYER_COLUMNS && layer->type != LAYER_FLATTEN)
            return error_set(
                err,
                "layer %s (Embedding) reads layer %s: its input must be the sample's ids, as they are or by "
                "way of Columns",
                embedding->name, layer->name);
        out->from += layer->type == LAYER_COLUMNS ? layer->from : 0;
        input = layer->inputs[0];
    }
    return 0;
}

int embedding_ids(const struct network *network, uint32_t table, struct embedding_source source, const float *x,
                  uint32_t n, uint32_t *ids, struct error *err)
{
    const float rows = (float)network->tables[table].rows;
    const size_t size = shape_size(network->sample.shape);
    for (uint32_t sample = 0; sample < n; sample++) {
        for (uint32_t i = 0; i < source.count; i++) {
            float id = x[sample * size + source.from + i];
            if (!(id >= 0 && id < rows) || id != (float)(uint32_t)id)
                return error_set(err, "a sample has %g where table %s needs an id: a whole number from 0 to %u",
                                 (double)id, network->tables[table].name, network->tables[table].rows - 1);
            *ids++ = (uint32_t)id;
        }
    }
    return 0;
}
