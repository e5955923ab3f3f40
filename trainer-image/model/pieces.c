/* Gradients of large weights, made for one block after the other while a piece's sum stays in the cache. */
#include "model/dense.h"
#include "model/graph.h"

/* Of a layer; 0 where its weight, if it has one, is not large. */
static uint32_t pieces_of(const struct network_layer *layer)
{
    if (!dense_is_large(layer))
        return 0;
    const uint32_t rows = dense_piece_rows(layer);
    return (uint32_t)((shape_size(layer->out) + rows - 1) / rows);
}

uint32_t model_pieces(const struct model *model)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < model->network->layer_count; i++)
        count += pieces_of(&model->network->layers[i]);
    return count;
}

struct model_piece model_piece(const struct model *model, uint32_t index)
{
    uint32_t i = 0;
    for (;; i++) {
        const uint32_t count = pieces_of(&model->network->layers[i]);
        if (index < count)
            break;
        index -= count;
    }
    const struct network_layer *layer = &model->network->layers[i];
    const uint64_t in = shape_size(layer->in), out = shape_size(layer->out);
    const uint32_t most = dense_piece_rows(layer), row = index * most;
    const uint32_t rows = out - row < most ? (uint32_t)(out - row) : most;
    return (struct model_piece){i, row, rows, layer->weight + row * in, layer->weight + (row + rows) * in};
}

uint64_t model_kept_floats(const struct model *model, uint32_t samples)
{
    return samples * model->kept;
}

static struct dense_block block_of(const struct model *model, const struct model_piece *piece, struct model_kept kept)
{
    const float *x = kept.factors + kept.n * model->nodes[piece->layer].kept_at;
    return (struct dense_block){kept.n, x + kept.n * shape_size(model->network->layers[piece->layer].in), x};
}

void model_piece_gradient(const struct model *model, const struct model_piece *piece, struct model_kept kept,
                          float *out)
{
    const struct dense_block block = block_of(model, piece, kept);
    dense_weight_rows(&model->network->layers[piece->layer], model->unit, &block, piece->row, piece->rows, out);
}

_Static_assert((int)MODEL_PIECE_BATCHES_MOST == (int)GEMM_SUM_MOST, "pieces are added up as products are");

bool model_piece_sum(const struct model *model, const struct model_piece *piece, const struct model_kept *kept,
                     uint32_t count, bool rounded, float *out)
{
    struct dense_block blocks[MODEL_PIECE_BATCHES_MOST];
    for (uint32_t i = 0; i < count; i++)
        blocks[i] = block_of(model, piece, kept[i]);
    return dense_weight_rows_sum(&model->network->layers[piece->layer], model->unit, blocks, count, rounded, piece->row,
                                 piece->rows, out);
}
