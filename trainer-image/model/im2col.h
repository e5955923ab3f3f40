/* im2col — convolution as a matrix product: one sample's taps as columns, and back. Private to model.
 *
 * Sample by sample, so that all of one sample stays in the caches:
 *   y [co][oh·ow] = w [co][ci·k·k] · columns [ci·k·k][oh·ow],   columns[c,u,v][i,j] = x[c, i·s+u−p, j·s+v−p]
 * The columns are made in two steps. Shifting the padded input sideways gives shifted[c,v][row,j] = x[c, row−p,
 * j·s+v−p], of which row (c,u,v) of the columns is every s-th row from row u on: with stride 1 one contiguous piece.
 */
#ifndef THOLE_MODEL_IM2COL_H
#define THOLE_MODEL_IM2COL_H

#include "common/network/network.h"

#include <stddef.h>

struct im2col {
    size_t k, padding, stride;
    size_t ci, h, w; /* of the input */
    size_t ph, pw;   /* of the padded input */
    size_t oh, ow;
    size_t rows, places; /* of the columns */
};

struct im2col im2col_of(const struct network_layer *layer);

/* Floats of scratch memory that both functions use. */
size_t im2col_scratch(const struct im2col *m);

/* The columns of x [ci][h][w]: in scratch, or x itself where they are the same. */
const float *im2col_columns(const struct im2col *m, const float *x, float *scratch);

/* Where to put gradients with respect to the columns, before … */
float *im2col_gradient(const struct im2col *m, float *scratch);

/* … they are added up to dx [ci][h][w], which is overwritten, or added to. */
void im2col_sum(const struct im2col *m, float *scratch, float *dx, bool add);

#endif
