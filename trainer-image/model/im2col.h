/* im2col — a sample rearranged so that its convolution is a matrix product, and back. Private to model.
 *
 *   y [co][oh·ow] = w [co][ci·k·k] · columns [ci·k·k][oh·ow],   columns[c,u,v][i,j] = x[c, i·s+u−p, j·s+v−p]
 * In two steps. Shifting the padded input sideways gives shifted[c,v][row,j] = x[c, row−p, j·s+v−p]; its rows lie in s
 * phases, row r as the r/s-th of phase r mod s, so that row (c,u,v) of the columns is one contiguous piece of it, from
 * im2col_at(u) on. Stacking copies these pieces; a product with a wide step from row to row can do without.
 */
#ifndef THOLE_MODEL_IM2COL_H
#define THOLE_MODEL_IM2COL_H

#include "common/network/network.h"

#include <stddef.h>

struct im2col {
    size_t k, padding, stride;
    size_t ci, h, w; /* of the input */
    size_t oh, ow, places;
    size_t padded;  /* rows of the padded input */
    size_t phase;   /* rows of a phase */
    size_t step;    /* floats from shifted[c,v] to the next */
    size_t shifted; /* floats of shifted */
    size_t rows;    /* of the columns */
};

struct im2col im2col_of(const struct network_layer *layer);

/* Where the pieces of the kernel's row u begin in shifted[c,v]. */
static inline size_t im2col_at(const struct im2col *m, size_t u)
{
    return (u % m->stride * m->phase + u / m->stride) * m->ow;
}

/* x [ci][h][w] into shifted, and its transpose: dx is overwritten with the sums of what was copied from each element,
 * v ascending. */
void im2col_shift(const struct im2col *m, const float *x, float *shifted);
void im2col_unshift(const struct im2col *m, const float *shifted, float *dx);

/* shifted into columns, and its transpose: shifted is overwritten with sums, u ascending. */
void im2col_stack(const struct im2col *m, const float *shifted, float *columns);
void im2col_unstack(const struct im2col *m, const float *columns, float *shifted);

#endif
