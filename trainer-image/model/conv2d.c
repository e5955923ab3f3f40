#include "model/layer.h"

#include "numerics/numerics.h"

#include <cblas.h>
#include <string.h>

/* Sizes of one sample as a matrix product: columns [rows][places], weights [co][rows]. */
struct im2col {
    size_t k, padding;
    size_t ci, h, w, oh, ow;
    size_t co, rows, places;
};

static struct im2col im2col_of(const struct layer *layer)
{
    return (struct im2col){
        .k = layer->kernel,
        .padding = layer->padding,
        .ci = layer->in.c,
        .h = layer->in.h,
        .w = layer->in.w,
        .oh = layer->out.h,
        .ow = layer->out.w,
        .co = layer->out.c,
        .rows = (size_t)layer->in.c * layer->kernel * layer->kernel,
        .places = (size_t)layer->out.h * layer->out.w,
    };
}

size_t conv2d_scratch(const struct layer *layer)
{
    struct im2col m = im2col_of(layer);
    return 2 * m.rows * m.places; /* columns and their gradients */
}

/* Output columns [first, end) whose tap v lies inside the input's row. */
static void inside(const struct im2col *m, size_t v, size_t *first, size_t *end)
{
    *first = v < m->padding ? m->padding - v : 0;
    size_t right = m->w + m->padding;
    *end = right < v + m->ow ? (right > v ? right - v : 0) : m->ow;
    if (*first > *end)
        *first = *end;
}

/* columns[c,u,v][i,j] = x[c, i+u−p, j+v−p], zero outside. */
static void im2col(const struct im2col *m, const float *x, float *columns)
{
    for (size_t c = 0; c < m->ci; c++)
        for (size_t u = 0; u < m->k; u++)
            for (size_t v = 0; v < m->k; v++) {
                size_t first;
                size_t end;
                inside(m, v, &first, &end);
                for (size_t i = 0; i < m->oh; i++, columns += m->ow) {
                    size_t row = i + u - m->padding; /* wraps below zero, and is then past h too */
                    if (row >= m->h) {
                        memset(columns, 0, m->ow * sizeof *columns);
                        continue;
                    }
                    const float *from = x + (c * m->h + row) * m->w;
                    for (size_t j = 0; j < first; j++)
                        columns[j] = 0;
                    for (size_t j = first; j < end; j++)
                        columns[j] = from[j + v - m->padding];
                    for (size_t j = end; j < m->ow; j++)
                        columns[j] = 0;
                }
            }
}

/* The transpose of im2col: dx[c, i+u−p, j+v−p] += columns[c,u,v][i,j]. */
static void col2im(const struct im2col *m, const float *columns, float *dx)
{
    memset(dx, 0, m->ci * m->h * m->w * sizeof *dx);
    for (size_t c = 0; c < m->ci; c++)
        for (size_t u = 0; u < m->k; u++)
            for (size_t v = 0; v < m->k; v++) {
                size_t first;
                size_t end;
                inside(m, v, &first, &end);
                for (size_t i = 0; i < m->oh; i++, columns += m->ow) {
                    size_t row = i + u - m->padding;
                    if (row >= m->h)
                        continue;
                    float *to = dx + (c * m->h + row) * m->w;
                    for (size_t j = first; j < end; j++)
                        to[j + v - m->padding] += columns[j];
                }
            }
}

void conv2d_forward(const struct layer *layer, const float *params, const float *x, float *y, uint32_t n,
                    float *scratch)
{
    const struct im2col m = im2col_of(layer);
    const float *bias = params + layer->bias;
    for (uint32_t i = 0; i < n; i++) {
        const float *xi = x + i * shape_size(layer->in);
        float *yi = y + i * shape_size(layer->out);
        im2col(&m, xi, scratch);
        for (size_t o = 0; o < m.co; o++)
            for (size_t j = 0; j < m.places; j++)
                yi[o * m.places + j] = bias[o];
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m.co, (int)m.places, (int)m.rows, 1,
                    params + layer->weight, (int)m.rows, scratch, (int)m.places, 1, yi, (int)m.places);
    }
}

void conv2d_backward(const struct layer *layer, const float *params, const float *x, const float *dy, float *dx,
                     float *grad, uint32_t n, float *scratch)
{
    const struct im2col m = im2col_of(layer);
    float *columns = scratch;
    float *dcolumns = scratch + m.rows * m.places;
    memset(grad + layer->bias, 0, m.co * sizeof *grad);
    for (uint32_t i = 0; i < n; i++) {
        const float *dyi = dy + i * shape_size(layer->out);
        im2col(&m, x + i * shape_size(layer->in), columns);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m.co, (int)m.rows, (int)m.places, 1, dyi,
                    (int)m.places, columns, (int)m.places, i == 0 ? 0 : 1, grad + layer->weight, (int)m.rows);
        for (size_t o = 0; o < m.co; o++) {
            float sum = 0;
            for (size_t j = 0; j < m.places; j++)
                sum += dyi[o * m.places + j];
            grad[layer->bias + o] += sum;
        }
        if (dx == NULL)
            continue;
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m.rows, (int)m.places, (int)m.co, 1,
                    params + layer->weight, (int)m.rows, dyi, (int)m.places, 0, dcolumns, (int)m.places);
        col2im(&m, dcolumns, dx + i * shape_size(layer->in));
    }
}
