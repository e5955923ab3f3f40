#include "model/im2col.h"

#include "numerics/numerics.h"

#include <string.h>

struct im2col im2col_of(const struct network_layer *layer)
{
    return (struct im2col){
        .k = layer->kernel,
        .padding = layer->padding,
        .stride = layer->stride,
        .ci = layer->in.c,
        .h = layer->in.h,
        .w = layer->in.w,
        .ph = layer->in.h + 2 * (size_t)layer->padding,
        .pw = layer->in.w + 2 * (size_t)layer->padding,
        .oh = layer->out.h,
        .ow = layer->out.w,
        .rows = (size_t)layer->in.c * layer->kernel * layer->kernel,
        .places = (size_t)layer->out.h * layer->out.w,
    };
}

/* The columns of a 1×1 kernel that steps by one are the input. */
static bool is_plain(const struct im2col *m)
{
    return m->k == 1 && m->stride == 1 && m->padding == 0;
}

static size_t padded_size(const struct im2col *m)
{
    return m->ci * m->ph * m->pw;
}

static size_t shifted_size(const struct im2col *m)
{
    return m->ci * m->k * m->ph * m->ow;
}

size_t im2col_scratch(const struct im2col *m)
{
    return padded_size(m) + shifted_size(m) + m->rows * m->places;
}

/* Where the three steps' results lie in the scratch memory. */
static float *shifted_in(const struct im2col *m, float *scratch)
{
    return scratch + padded_size(m);
}

static float *columns_in(const struct im2col *m, float *scratch)
{
    return scratch + padded_size(m) + shifted_size(m);
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
            for (size_t row = 0; row < m->ph; row++, shifted += m->ow) {
                const float *from = padded + (c * m->ph + row) * m->pw + v;
                if (m->stride == 1)
                    copy_row(shifted, from, m->ow);
                else
                    for (size_t j = 0; j < m->ow; j++)
                        shifted[j] = from[j * m->stride];
            }
}

VECTOR_CLONES static void stack(const struct im2col *m, const float *shifted, float *columns)
{
    for (size_t c = 0; c < m->ci; c++)
        for (size_t u = 0; u < m->k; u++)
            for (size_t v = 0; v < m->k; v++, columns += m->places) {
                const float *from = shifted + ((c * m->k + v) * m->ph + u) * m->ow;
                if (m->stride == 1)
                    copy_row(columns, from, m->places);
                else
                    for (size_t i = 0; i < m->oh; i++)
                        copy_row(columns + i * m->ow, from + i * m->stride * m->ow, m->ow);
            }
}

const float *im2col_columns(const struct im2col *m, const float *x, float *scratch)
{
    if (is_plain(m))
        return x;
    float *columns = columns_in(m, scratch);
    shift(m, pad(m, x, scratch), shifted_in(m, scratch));
    stack(m, shifted_in(m, scratch), columns);
    return columns;
}

/* ---- The transposes of the three steps, for gradients: what was copied is added up ---- */

VECTOR_CLONES static void unstack(const struct im2col *m, const float *columns, float *shifted)
{
    memset(shifted, 0, shifted_size(m) * sizeof *shifted);
    for (size_t c = 0; c < m->ci; c++)
        for (size_t u = 0; u < m->k; u++)
            for (size_t v = 0; v < m->k; v++, columns += m->places) {
                float *to = shifted + ((c * m->k + v) * m->ph + u) * m->ow;
                if (m->stride == 1)
                    add_row(to, columns, m->places);
                else
                    for (size_t i = 0; i < m->oh; i++)
                        add_row(to + i * m->stride * m->ow, columns + i * m->ow, m->ow);
            }
}

VECTOR_CLONES static void unshift(const struct im2col *m, const float *shifted, float *padded)
{
    memset(padded, 0, padded_size(m) * sizeof *padded);
    for (size_t c = 0; c < m->ci; c++)
        for (size_t v = 0; v < m->k; v++)
            for (size_t row = 0; row < m->ph; row++, shifted += m->ow) {
                float *to = padded + (c * m->ph + row) * m->pw + v;
                if (m->stride == 1)
                    add_row(to, shifted, m->ow);
                else
                    for (size_t j = 0; j < m->ow; j++)
                        to[j * m->stride] += shifted[j];
            }
}

VECTOR_CLONES static void unpad(const struct im2col *m, const float *padded, float *x, bool add)
{
    for (size_t c = 0; c < m->ci; c++)
        for (size_t i = 0; i < m->h; i++) {
            float *to = x + (c * m->h + i) * m->w;
            const float *from = padded + (c * m->ph + m->padding + i) * m->pw + m->padding;
            if (add)
                add_row(to, from, m->w);
            else
                copy_row(to, from, m->w);
        }
}

float *im2col_gradient(const struct im2col *m, float *scratch)
{
    return columns_in(m, scratch);
}

void im2col_sum(const struct im2col *m, float *scratch, float *dx, bool add)
{
    float *columns = columns_in(m, scratch);
    if (is_plain(m)) {
        unpad(m, columns, dx, add);
        return;
    }
    unstack(m, columns, shifted_in(m, scratch));
    unshift(m, shifted_in(m, scratch), scratch);
    unpad(m, scratch, dx, add);
}
