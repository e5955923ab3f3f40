#include "model/layer.h"

#include "model/gemm.h"
#include "model/im2col.h"
#include "numerics/numerics.h"

#include <string.h>

/* Sample by sample, so that all of one sample stays in the caches, and group by group: a group's output channels see
 * its input channels alone. Products are made in one of two ways:
 *   stacked  y = w·columns
 *   by rows  y = Σ w_u·shifted_u over the kernel's rows u, w_u [co][ci·k] and shifted_u [ci·k][oh·ow] being a part of
 *            the shifted input as it lies there: without stacking, for one product less deep for each u
 * By rows wherever these are deep enough to be as fast. */
enum { DEPTH_LEAST = 32 };

struct products {
    struct im2col m;
    size_t groups, co, depth;  /* of each group: output channels, and rows of shifted */
    bool by_rows, plain;       /* plain: a 1×1 kernel that steps by one reads the input as it is */
    float *shifted, *columns;  /* scratch; columns only where stacked */
    float *weights, *dweights; /* by rows: [k][groups·co][depth] */
    float *dx;                 /* [ci][h][w] before it is added */
};

static float *take(float **scratch, size_t floats)
{
    float *taken = *scratch;
    *scratch += floats;
    return taken;
}

/* *scratch moves behind what is needed. */
static struct products plan_of(const struct network_layer *layer, float **scratch)
{
    struct products plan = {.m = im2col_of(layer), .groups = layer->groups, .co = layer->out.c / layer->groups};
    plan.depth = plan.m.ci / plan.groups * plan.m.k;
    plan.by_rows = plan.m.k == 1 || plan.depth >= DEPTH_LEAST;
    plan.plain = plan.m.k == 1 && plan.m.stride == 1 && plan.m.padding == 0;
    const size_t weights = plan.groups * plan.co * plan.depth * plan.m.k;
    plan.shifted = take(scratch, plan.m.shifted);
    plan.columns = take(scratch, plan.by_rows ? 0 : plan.m.rows * plan.m.places);
    plan.weights = take(scratch, plan.by_rows ? weights : 0);
    plan.dweights = take(scratch, plan.by_rows ? weights : 0);
    plan.dx = take(scratch, shape_size(layer->in));
    return plan;
}

/* ---- Weights by the kernel's rows: w [co][c][u][v] as [u][co][c][v], and back ---- */

static void split_weights(const struct products *plan, const float *w)
{
    const size_t k = plan->m.k;
    const size_t rows = plan->groups * plan->co * plan->depth / k; /* (co, c) */
    for (size_t r = 0; r < rows; r++)
        for (size_t u = 0; u < k; u++)
            for (size_t v = 0; v < k; v++)
                plan->weights[(u * rows + r) * k + v] = w[(r * k + u) * k + v];
}

static void join_weights(const struct products *plan, float *dw)
{
    const size_t k = plan->m.k;
    const size_t rows = plan->groups * plan->co * plan->depth / k;
    for (size_t r = 0; r < rows; r++)
        for (size_t u = 0; u < k; u++)
            for (size_t v = 0; v < k; v++)
                dw[(r * k + u) * k + v] = plan->dweights[(u * rows + r) * k + v];
}

/* Where group g's weights for row u are, in weights and dweights. */
static size_t weights_at(const struct products *plan, size_t g, size_t u)
{
    return (u * plan->groups + g) * plan->co * plan->depth;
}

/* Where group g's part for row u is in the shifted input. */
static size_t shifted_at(const struct products *plan, size_t g, size_t u)
{
    return g * plan->depth * plan->m.step + im2col_at(&plan->m, u);
}

/* ---- Forward ---- */

static const float *shift(const struct products *plan, const float *x)
{
    if (plan->plain)
        return x;
    im2col_shift(&plan->m, x, plan->shifted);
    if (plan->by_rows)
        return plan->shifted;
    im2col_stack(&plan->m, plan->shifted, plan->columns);
    return plan->columns;
}

static void fill_bias(const float *bias, size_t channels, size_t places, float *y)
{
    for (size_t o = 0; o < channels; o++)
        for (size_t j = 0; j < places; j++)
            y[o * places + j] = bias[o];
}

/* y = (beta·y +) w·columns */
static void multiply(const struct products *plan, const float *w, const float *x, float beta, float *y)
{
    const struct im2col *m = &plan->m;
    const float *shifted = shift(plan, x);
    for (size_t g = 0; g < plan->groups; g++) {
        float *out = y + g * plan->co * m->places;
        if (!plan->by_rows)
            gemm(GEMM_NN, plan->co, m->places, plan->depth * m->k, w + g * plan->co * plan->depth * m->k,
                 shifted + g * plan->depth * m->k * m->places, beta, out);
        for (size_t u = 0; plan->by_rows && u < m->k; u++)
            gemm_stepped(GEMM_NN, plan->co, m->places, plan->depth, plan->weights + weights_at(plan, g, u), plan->depth,
                         shifted + shifted_at(plan, g, u), m->step, u == 0 ? beta : 1, out, m->places);
    }
}

static void conv2d_forward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    float *scratch = call->scratch;
    const struct products plan = plan_of(layer, &scratch);
    const float *w = call->params + layer->weight;
    if (plan.by_rows)
        split_weights(&plan, w);
    for (uint32_t i = 0; i < call->n; i++) {
        float *y = call->output + i * shape_size(layer->out);
        if (layer->bias)
            fill_bias(call->params + layer->bias_at, layer->out.c, plan.m.places, y);
        multiply(&plan, w, call->inputs[0] + i * shape_size(layer->in), layer->bias ? 1 : 0, y);
        if (call->relu)
            vector_relu(y, y, shape_size(layer->out));
    }
}

/* ---- Backward ---- */

/* dw += dy·columnsᵀ; the first sample's is written. */
static void backward_weights(const struct products *plan, const float *x, const float *dy, bool first, float *dw)
{
    const struct im2col *m = &plan->m;
    const float *shifted = shift(plan, x);
    for (size_t g = 0; g < plan->groups; g++) {
        const float *out = dy + g * plan->co * m->places;
        if (!plan->by_rows)
            gemm(GEMM_NT, plan->co, plan->depth * m->k, m->places, out, shifted + g * plan->depth * m->k * m->places,
                 first ? 0 : 1, dw + g * plan->co * plan->depth * m->k);
        for (size_t u = 0; plan->by_rows && u < m->k; u++)
            gemm_stepped(GEMM_NT, plan->co, plan->depth, m->places, out, m->places, shifted + shifted_at(plan, g, u),
                         m->step, first ? 0 : 1, plan->dweights + weights_at(plan, g, u), plan->depth);
    }
}

/* dx = the sum of wᵀ·dy over the places where each element was read. */
static void backward_input(const struct products *plan, const float *w, const float *dy, float *dx)
{
    const struct im2col *m = &plan->m;
    float *shifted = plan->plain ? dx : plan->shifted;
    if (plan->by_rows && !plan->plain)
        memset(shifted, 0, m->shifted * sizeof *shifted);
    for (size_t g = 0; g < plan->groups; g++) {
        const float *out = dy + g * plan->co * m->places;
        if (!plan->by_rows)
            gemm(GEMM_TN, plan->depth * m->k, m->places, plan->co, w + g * plan->co * plan->depth * m->k, out, 0,
                 plan->columns + g * plan->depth * m->k * m->places);
        for (size_t u = 0; plan->by_rows && u < m->k; u++)
            gemm_stepped(GEMM_TN, plan->depth, m->places, plan->co, plan->weights + weights_at(plan, g, u), plan->depth,
                         out, m->places, plan->plain ? 0 : 1, shifted + shifted_at(plan, g, u), m->step);
    }
    if (!plan->by_rows)
        im2col_unstack(m, plan->columns, shifted);
    if (!plan->plain)
        im2col_unshift(m, shifted, dx);
}

static void backward_sample(const struct layer_call *call, const struct products *plan, uint32_t i)
{
    const struct network_layer *layer = call->layer;
    const size_t in = shape_size(layer->in);
    const size_t out = shape_size(layer->out);
    float *dy = call->doutput + i * out;
    if (call->relu)
        vector_relu_backward(dy, call->output + i * out, dy, out);
    backward_weights(plan, call->inputs[0] + i * in, dy, i == 0, call->grad + layer->weight);
    for (size_t o = 0; layer->bias && o < layer->out.c; o++)
        call->grad[layer->bias_at + o] += vector_total(dy + o * plan->m.places, plan->m.places);
    if (call->dinputs[0] == NULL)
        return;
    backward_input(plan, call->params + layer->weight, dy, call->add[0] ? plan->dx : call->dinputs[0] + i * in);
    if (call->add[0])
        vector_add(call->dinputs[0] + i * in, plan->dx, in);
}

static void conv2d_backward(const struct layer_call *call)
{
    const struct network_layer *layer = call->layer;
    float *scratch = call->scratch;
    const struct products plan = plan_of(layer, &scratch);
    if (plan.by_rows && call->dinputs[0] != NULL)
        split_weights(&plan, call->params + layer->weight);
    for (size_t o = 0; layer->bias && o < layer->out.c; o++)
        call->grad[layer->bias_at + o] = 0;
    for (uint32_t i = 0; i < call->n; i++)
        backward_sample(call, &plan, i);
    if (plan.by_rows)
        join_weights(&plan, call->grad + layer->weight);
}

static size_t conv2d_scratch(const struct network_layer *layer, uint32_t n)
{
    (void)n;
    float *begin = NULL;
    float *end = begin;
    (void)plan_of(layer, &end);
    return (size_t)(end - begin);
}

const struct layer_kind conv2d_kind = {
    .forward = conv2d_forward,
    .backward = conv2d_backward,
    .scratch = conv2d_scratch,
    .flags = LAYER_READS_INPUT | LAYER_ADDS | LAYER_TAKES_RELU | LAYER_TRAINS,
};
