/* dense — what the engine knows of Dense layers beyond their kind: gradients of large weights come in pieces. Private
 * to model. See model.h, "Weight gradients piece by piece".
 */
#ifndef THOLE_MODEL_DENSE_H
#define THOLE_MODEL_DENSE_H

#include "common/network/network.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is the layer's weight one whose gradient comes in pieces? */
bool dense_is_large(const struct network_layer *layer);

/* How many rows a piece of such a layer's weight has; its last may have fewer. */
uint32_t dense_piece_rows(const struct network_layer *layer);

/* Rows [row, row + rows) of the weight's gradient over n samples, out [rows][in] = dyᵀ·x of these rows:
 * dy [n][out], x [n][in]. How a piece is computed depends on the layer, rows and n alone. */
void dense_weight_rows(const struct network_layer *layer, uint32_t n, uint32_t row, uint32_t rows, const float *dy,
                       const float *x, float *out);

#endif
