#include "model/old_layer.h"

#include "model/gemm.h"
#include "numerics/numerics.h"

#include <string.h>

/* Sample by sample as a matrix product, so that all of one sample stays in the caches:
 *   y [co][oh·ow] = w [co][ci·k·k] · columns [ci·k·k][oh·ow],   columns[c,u,v][i,j] = x[c, i+u−p, j+v−p]
 * The columns are made in two steps. Shifting the padded input sideways gives shifted[c,v][row,j] = x[c, row−p, j+v−p],
 * of which row (c,u,v) of the columns is one contiguous piece, from row u on. */
struct im2col {
    size_t k, padding;
    size_t ci, h, w; /* of the input */
    size_t ph, pw;   /* of the padded input */
    size_t co, ow;
    size_t rows, places; /* of the columns */
};

static struct im2col im2col_of(const struct layer *layer)
{
    return (struct im2col){
        .k = layer->kernel,
        .padding = layer->padding,
        .ci = layer->in.c,
        .h = layer->in.h,
        .w = layer->in.w,
        .ph = layer->in.h + 2 * (size_t)layer->padding,
        .pw = layer->in.w + 2 * (size_t)layer->padding,
        .co = layer->out.c,
        .ow = layer->out.w,
        .rows = (size_t)layer->in.c * layer->kernel * layer->kernel,
        .places = (size_t)layer->out.h * layer->out.w,
    };
}

static size_t padded_size(const struct im2col *m)
{
    return m->ci * m->ph * m->pw;
}

static size_t shifted_size(const struct im2col *m)
{
    return m->ci * m->k * m->ph * m->ow;
}

size_t conv2d_scratch(const struct layer *layer)
{
    struct im2col m = im2col_of(layer);
    return padded_size(&m) + shifted_size(&m) + m.rows * m.places;
}

enum { ROW = 8 };

/* Short rows are what there is most of: whole vectors, the last one overlapping. */
static inline __attribute__((always_inline)) void copy_row(float *restrict to, const float *restrict from, size_t n)
{
    size_t j = 0;
    for (; j + ROW <= n; j += ROW)
        memcpy(to + j, from + j, ROW * sizeof *to);
    if (j < n && n >= ROW)
        memcpy(to + n - ROW, from + n - ROW, ROW * sizeof *to);
    else
        for (; j < n; j++)
            to[j] = from[j];
}

static inline __attribute__((always_inline)) void add_row(float *restrict to, const float *restrict from, size_t n)
{
    size_t j = 0;
    for (; j + ROW <= n; j += ROW)
        for (size_t lane = 0; lane < ROW; lane++)
            to[j + lane] += from[j + lane];
    for (; j < n; j++)
        to[j] += from[j];
}

/* x [ci][h][w] into padded [ci][ph][pw]; returns what to read, which without padding is x itself. */
VECTOR_CLONES static const float *pad(const struct im2col *m, const float *x, float *padded)
{
    if (m->padding == 0)
        return x;
    memset(padded, 0, padded_size(m) * sizeof *padded);
    for (size_t c = 0; c < m->ci; c++)
        for (size_t i = 0; i < m->h; i++)
            copy_row(padded + (c * m->ph + m->padding + i) * m->pw + m->padding, x + (c * m->h + i) * m->w, m->w);
    return padded;
}

VECTOR_CLONES static void shift(const struct im2col *m, const float *padded, float *shifted)
{
    for (size_t c = 0; c < m->ci; c++)
        for (size_t v = 0; v < m->k; v++)
            for (size_t row = 0; row < m->ph; row++, shifted += m->ow)
                copy_row(shifted, padded + (c * m->ph + row) * m->pw + v, m->ow);
}

VECTOR_CLONES static void stack(const struct im2col *m, const float *shifted, float *columns)
{
    for (size_t c = 0; c < m->ci; c++)
        for (size_t u = 0; u < m->k; u++)
            for (size_t v = 0; v < m->k; v++, columns += m->places)
                copy_row(columns, shifted + ((c * m->k + v) * m->ph + u) * m->ow, m->places);
}

/* The transposes of the three steps, for gradients: what was copied is added up. */
VECTOR_CLONES static void unstack(const struct im2col *m, const float *columns, float *shifted)
{
    memset(shifted, 0, shifted_size(m) * sizeof *shifted);
    for (size_t c = 0; c < m->ci; c++)
        for (size_t u = 0; u < m->k; u++)
            for (size_t v = 0; v < m->k; v++, columns += m->places)
                add_row(shifted + ((c * m->k + v) * m->ph + u) * m->ow, columns, m->places);
}

VECTOR_CLONES static void unshift(const struct im2col *m, const float *shifted, float *padded)
{
    memset(padded, 0, padded_size(m) * sizeof *padded);
    for (size_t c = 0; c < m->ci; c++)
        for (size_t v = 0; v < m->k; v++)
            for (size_t row = 0; row < m->ph; row++, shifted += m->ow)
                add_row(padded + (c * m->ph + row) * m->pw + v, shifted, m->ow);
}

VECTOR_CLONES static void unpad(const struct im2col *m, const float *padded, float *x)
{
    for (size_t c = 0; c < m->ci; c++)
        for (size_t i = 0; i < m->h; i++)
            copy_row(x + (c * m->h + i) * m->w, padded + (c * m->ph + m->padding + i) * m->pw + m->padding, m->w);
}

/* Where the three steps' results lie in the scratch memory. */
struct steps {
    float *padded, *shifted, *columns;
};

static struct steps steps_in(const struct im2col *m, float *scratch)
{
    return (struct steps){scratch, scratch + padded_size(m), scratch + padded_size(m) + shifted_size(m)};
}

static void make_columns(const struct im2col *m, const float *x, const struct steps *steps)
{
    shift(m, pad(m, x, steps->padded), steps->shifted);
    stack(m, steps->shifted, steps->columns);
}

void conv2d_forward(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n,
                    float *scratch)
{
    const struct im2col m = im2col_of(layer);
    const struct steps steps = steps_in(&m, scratch);
    const float *bias = params + layer->bias;
    for (uint32_t i = 0; i < n; i++, x += shape_size(layer->in), y += shape_size(layer->out)) {
        make_columns(&m, x, &steps);
        for (size_t o = 0; o < m.co; o++)
            for (size_t j = 0; j < m.places; j++)
                y[o * m.places + j] = bias[o];
        gemm(GEMM_NN, m.co, m.places, m.rows, params + layer->weight, steps.columns, 1, y);
    }
}

void conv2d_backward(const struct layer *layer, const float *params, const float *x, const float *dy, float *dx,
                     float *grad, uint32_t n, float *scratch)
{
    const struct im2col m = im2col_of(layer);
    const struct steps steps = steps_in(&m, scratch);
    for (size_t o = 0; o < m.co; o++)
        grad[layer->bias + o] = 0;
    for (uint32_t i = 0; i < n; i++, x += shape_size(layer->in), dy += shape_size(layer->out)) {
        make_columns(&m, x, &steps);
        gemm(GEMM_NT, m.co, m.rows, m.places, dy, steps.columns, i == 0 ? 0 : 1, grad + layer->weight);
        for (size_t o = 0; o < m.co; o++)
            grad[layer->bias + o] += vector_total(dy + o * m.places, m.places);
        if (dx == NULL)
            continue;
        gemm(GEMM_TN, m.rows, m.places, m.co, params + layer->weight, dy, 0, steps.columns);
        unstack(&m, steps.columns, steps.shifted);
        unshift(&m, steps.shifted, steps.padded);
        unpad(&m, steps.padded, dx + i * shape_size(layer->in));
    }
}
