#include "model/im2col.h"

#include "numerics/numerics.h"

#include <string.h>

struct im2col im2col_of(const struct network_layer *layer)
{
    struct im2col m = {
        .k = layer->kernel,
        .padding = layer->padding,
        .stride = layer->stride,
        .ci = layer->in.c,
        .h = layer->in.h,
        .w = layer->in.w,
        .oh = layer->out.h,
        .ow = layer->out.w,
        .places = (size_t)layer->out.h * layer->out.w,
        .padded = layer->in.h + 2 * (size_t)layer->padding,
        .rows = (size_t)layer->in.c * layer->kernel * layer->kernel,
    };
    m.phase = (m.padded + m.stride - 1) / m.stride;
    m.step = m.stride * m.phase * m.ow;
    m.shifted = m.ci * m.k * m.step;
    return m;
}

/* ---- Rows: short ones are what there is most of. Whole vectors, the last one overlapping ---- */

struct copy {
    float *to;
    const float *from;
    size_t to_step, from_step; /* from row to row */
    size_t rows, n;
};

#define COPY_ROWS(width)                                                                                               \
    for (size_t i = 0; i < copy->rows; i++, to += copy->to_step, from += copy->from_step) {                            \
        for (size_t j = 0; j + (width) <= n; j += (width))                                                             \
            memcpy(to + j, from + j, (width) * sizeof *to);                                                            \
        memcpy(to + n - (width), from + n - (width), (width) * sizeof *to);                                            \
    }

static inline __attribute__((always_inline)) void copy_rows(const struct copy *copy)
{
    float *restrict to = copy->to;
    const float *restrict from = copy->from;
    const size_t n = copy->n;
    if (n >= 16)
        COPY_ROWS(16)
    else if (n >= 8)
        COPY_ROWS(8)
    else if (n >= 4)
        COPY_ROWS(4)
    else if (n > 0)
        COPY_ROWS(1)
}

static inline __attribute__((always_inline)) void add_row(float *restrict to, const float *restrict from, size_t n)
{
    enum { ROW = 8 };
    size_t j = 0;
    for (; j + ROW <= n; j += ROW)
        for (size_t lane = 0; lane < ROW; lane++)
            to[j + lane] += from[j + lane];
    for (; j < n; j++)
        to[j] += from[j];
}

/* ---- Shifting ---- */

/* Which j of a row of shifted[c,v] lie in the input, and where the first of them is read. */
struct inside {
    size_t begin, end, from;
};

static struct inside inside_of(const struct im2col *m, size_t v)
{
    struct inside inside = {.begin = v < m->padding ? (m->padding - v + m->stride - 1) / m->stride : 0};
    if (v < m->w + m->padding)
        inside.end = (m->w + m->padding - v + m->stride - 1) / m->stride;
    inside.end = inside.end < m->ow ? inside.end : m->ow;
    inside.begin = inside.begin < inside.end ? inside.begin : inside.end;
    inside.from = inside.begin < inside.end ? inside.begin * m->stride + v - m->padding : 0;
    return inside;
}

static inline __attribute__((always_inline)) void zero_columns(float *to, size_t rows, size_t step, size_t begin,
                                                               size_t end)
{
    for (size_t j = begin; j < end; j++)
        for (size_t i = 0; i < rows; i++)
            to[i * step + j] = 0;
}

/* One channel's rows for one v, where the kernel steps by one. */
static inline __attribute__((always_inline)) void shift_plane(const struct im2col *m, const struct inside *inside,
                                                              const float *x, float *to)
{
    const size_t n = inside->end - inside->begin;
    memset(to, 0, m->padding * m->ow * sizeof *to);
    to += m->padding * m->ow;
    if (m->w == m->ow) /* one piece; what runs over the rows' ends is zeros below */
        copy_rows(
            &(struct copy){to + inside->begin, x + inside->from, 0, 0, 1, m->h * m->w - inside->begin - inside->from});
    else
        copy_rows(&(struct copy){to + inside->begin, x + inside->from, m->ow, m->w, m->h, n});
    zero_columns(to, m->h, m->ow, 0, inside->begin);
    zero_columns(to, m->h, m->ow, inside->end, m->ow);
    memset(to + m->h * m->ow, 0, m->padding * m->ow * sizeof *to);
}

typedef float floats __attribute__((vector_size(32)));

/* to [n] = every second of `from`: eight at a time, of which none lies behind the last that is wanted. */
static inline __attribute__((always_inline)) void copy_seconds(float *to, const float *from, size_t n)
{
    enum { LANES = 8 };
    for (size_t j = 0; j < n && n >= LANES; j += LANES) {
        const size_t at = j + LANES <= n ? j : n - LANES;
        floats low;
        floats high;
        memcpy(&low, from + 2 * at, sizeof low);
        memcpy(&high, from + 2 * at + LANES - 1, sizeof high);
        const floats seconds = __builtin_shufflevector(low, high, 0, 2, 4, 6, 9, 11, 13, 15);
        memcpy(to + at, &seconds, sizeof seconds);
    }
    for (size_t j = 0; j < n && n < LANES; j++)
        to[j] = from[2 * j];
}

/* The same with wider steps: rows go to their phases. */
static inline __attribute__((always_inline)) void shift_phases(const struct im2col *m, const struct inside *inside,
                                                               const float *x, float *to)
{
    for (size_t row = 0; row < m->padded; row++) {
        if (row % m->stride >= m->k)
            continue; /* nobody reads these */
        float *out = to + im2col_at(m, row);
        if (row < m->padding || row >= m->padding + m->h) {
            memset(out, 0, m->ow * sizeof *out);
            continue;
        }
        const float *in = x + (row - m->padding) * m->w + inside->from;
        zero_columns(out, 1, 0, 0, inside->begin);
        if (m->stride == 2)
            copy_seconds(out + inside->begin, in, inside->end - inside->begin);
        else
            for (size_t j = inside->begin; j < inside->end; j++)
                out[j] = in[(j - inside->begin) * m->stride];
        zero_columns(out, 1, 0, inside->end, m->ow);
    }
}

VECTOR_CLONES void im2col_shift(const struct im2col *m, const float *x, float *shifted)
{
    for (size_t v = 0; v < m->k; v++) {
        const struct inside inside = inside_of(m, v);
        for (size_t c = 0; c < m->ci; c++) {
            float *to = shifted + (c * m->k + v) * m->step;
            if (m->stride == 1)
                shift_plane(m, &inside, x + c * m->h * m->w, to);
            else
                shift_phases(m, &inside, x + c * m->h * m->w, to);
        }
    }
}

static inline __attribute__((always_inline)) void unshift_row(const struct im2col *m, const struct inside *inside,
                                                              const float *from, float *dx)
{
    const size_t n = inside->end - inside->begin;
    if (m->stride == 1)
        add_row(dx + inside->from, from + inside->begin, n);
    else
        for (size_t j = 0; j < n; j++)
            dx[inside->from + j * m->stride] += from[inside->begin + j];
}

VECTOR_CLONES void im2col_unshift(const struct im2col *m, const float *shifted, float *dx)
{
    memset(dx, 0, m->ci * m->h * m->w * sizeof *dx);
    for (size_t v = 0; v < m->k; v++) {
        const struct inside inside = inside_of(m, v);
        for (size_t c = 0; c < m->ci; c++)
            for (size_t i = 0; i < m->h; i++)
                if ((i + m->padding) % m->stride < m->k)
                    unshift_row(m, &inside, shifted + (c * m->k + v) * m->step + im2col_at(m, i + m->padding),
                                dx + (c * m->h + i) * m->w);
    }
}

/* ---- Stacking ---- */

VECTOR_CLONES void im2col_stack(const struct im2col *m, const float *shifted, float *columns)
{
    for (size_t c = 0; c < m->ci; c++)
        for (size_t u = 0; u < m->k; u++)
            for (size_t v = 0; v < m->k; v++, columns += m->places)
                copy_rows(
                    &(struct copy){columns, shifted + (c * m->k + v) * m->step + im2col_at(m, u), 0, 0, 1, m->places});
}

VECTOR_CLONES void im2col_unstack(const struct im2col *m, const float *columns, float *shifted)
{
    memset(shifted, 0, m->shifted * sizeof *shifted);
    for (size_t c = 0; c < m->ci; c++)
        for (size_t u = 0; u < m->k; u++)
            for (size_t v = 0; v < m->k; v++, columns += m->places)
                add_row(shifted + (c * m->k + v) * m->step + im2col_at(m, u), columns, m->places);
}
