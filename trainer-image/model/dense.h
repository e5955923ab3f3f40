/* dense — what the engine knows of Dense layers beyond their kind: gradients of large weights come in pieces. Private
 * to model. See model.h, "Weight gradients piece by piece".
 */
#ifndef THOLE_MODEL_DENSE_H
#define THOLE_MODEL_DENSE_H

#include "common/network/network.h"
#include "model/gemm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is the layer's weight one whose gradient comes in pieces? */
bool dense_is_large(const struct network_layer *layer);

/* How many rows a piece of such a layer's weight has; its last may have fewer. */
uint32_t dense_piece_rows(const struct network_layer *layer);

/* What a weight's gradient over n samples is made of: dyᵀ·x, dy [n][out], x [n][in]. */
struct dense_block {
    uint32_t n;
    const float *dy, *x;
};

/* Rows [row, row + rows) of the weight's gradient, out [rows][in]. How it is computed depends on the layer, rows, n,
 * dy's zeros and whether there is a unit, which all members of a job have or have not. */
void dense_weight_rows(const struct network_layer *layer, enum gemm_unit unit, const struct dense_block *block,
                       uint32_t row, uint32_t rows, float *out);

/* Of one, two or four blocks, added up as by gemm_sparse(); false, and nothing done, where that does it in no better
 * way. */
bool dense_weight_rows_sum(const struct network_layer *layer, enum gemm_unit unit, const struct dense_block *blocks,
                           uint32_t count, bool rounded, uint32_t row, uint32_t rows, float *out);

#endif
