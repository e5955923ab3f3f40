#include "model/layer.h"

#include "numerics/numerics.h"

#include <string.h>

/* Layers that bring inputs together or take them apart: copies and sums, element by element. */

/* dinput = or += dy */
static void hand_down(const struct layer_call *call, uint32_t k, const float *dy, size_t n)
{
    if (call->dinputs[k] == NULL || call->dinputs[k] == dy)
        return;
    if (call->add[k])
        vector_add(call->dinputs[k], dy, n);
    else
        memcpy(call->dinputs[k], dy, n * sizeof *dy);
}

/* ---- Add: y = x0 + x1 + …, from left to right ---- */

VECTOR_CLONES static void sum_relu(float *y, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float sum = a[i] + b[i];
        y[i] = sum < 0 ? 0 : sum;
    }
}

static void add_forward(const struct layer_call *call)
{
    const size_t size = call->n * shape_size(call->layer->out);
    const float *sum = call->inputs[0];
    for (uint32_t k = 1; k < call->layer->input_count; k++) {
        const bool last = k + 1 == call->layer->input_count;
        (last && call->relu ? sum_relu : vector_sum)(call->output, sum, call->inputs[k], size);
        sum = call->output;
    }
}

static void add_backward(const struct layer_call *call)
{
    const size_t size = call->n * shape_size(call->layer->out);
    if (call->relu)
        vector_relu_backward(call->doutput, call->output, call->doutput, size);
    for (uint32_t k = 0; k < call->layer->input_count; k++)
        hand_down(call, k, call->doutput, size);
}

const struct layer_kind add_kind = {
    .forward = add_forward,
    .backward = add_backward,
    .flags = LAYER_OVER_INPUT | LAYER_OVER_GRADIENT | LAYER_ADDS | LAYER_TAKES_RELU,
};

/* ---- Concat: of each sample the inputs' elements one after the other, which is along channels ---- */

static void concat_forward(const struct layer_call *call)
{
    const size_t out = shape_size(call->layer->out);
    size_t at = 0;
    for (uint32_t k = 0; k < call->layer->input_count; k++) {
        const size_t in = shape_size(call->shapes[k]);
        for (uint32_t i = 0; i < call->n; i++)
            memcpy(call->output + i * out + at, call->inputs[k] + i * in, in * sizeof(float));
        at += in;
    }
}

static void concat_backward(const struct layer_call *call)
{
    const size_t out = shape_size(call->layer->out);
    size_t at = 0;
    for (uint32_t k = 0; k < call->layer->input_count; k++) {
        const size_t in = shape_size(call->shapes[k]);
        for (uint32_t i = 0; i < call->n && call->dinputs[k] != NULL; i++) {
            const float *dy = call->doutput + i * out + at;
            if (call->add[k])
                vector_add(call->dinputs[k] + i * in, dy, in);
            else
                memcpy(call->dinputs[k] + i * in, dy, in * sizeof(float));
        }
        at += in;
    }
}

const struct layer_kind concat_kind = {
    .forward = concat_forward,
    .backward = concat_backward,
    .flags = LAYER_ADDS,
};

/* ---- Columns: y = x[from, to) ---- */

static void columns_forward(const struct layer_call *call)
{
    const size_t in = shape_size(call->layer->in);
    const size_t out = shape_size(call->layer->out);
    for (uint32_t i = 0; i < call->n; i++)
        memcpy(call->output + i * out, call->inputs[0] + i * in + call->layer->from, out * sizeof(float));
}

static void columns_backward(const struct layer_call *call)
{
    const size_t in = shape_size(call->layer->in);
    const size_t out = shape_size(call->layer->out);
    memset(call->dinputs[0], 0, call->n * in * sizeof(float));
    for (uint32_t i = 0; i < call->n; i++)
        memcpy(call->dinputs[0] + i * in + call->layer->from, call->doutput + i * out, out * sizeof(float));
}

const struct layer_kind columns_kind = {.forward = columns_forward, .backward = columns_backward};

/* ---- Sum: y[j] = Σ x[i·units + j], i from 0 on ---- */

static void sum_forward(const struct layer_call *call)
{
    const size_t in = shape_size(call->layer->in);
    const size_t out = shape_size(call->layer->out);
    for (uint32_t i = 0; i < call->n; i++) {
        float *y = call->output + i * out;
        memcpy(y, call->inputs[0] + i * in, out * sizeof *y);
        for (size_t part = out; part < in; part += out)
            vector_add(y, call->inputs[0] + i * in + part, out);
    }
}

static void sum_backward(const struct layer_call *call)
{
    const size_t in = shape_size(call->layer->in);
    const size_t out = shape_size(call->layer->out);
    for (uint32_t i = 0; i < call->n; i++)
        for (size_t part = 0; part < in; part += out)
            memcpy(call->dinputs[0] + i * in + part, call->doutput + i * out, out * sizeof(float));
}

const struct layer_kind sum_kind = {.forward = sum_forward, .backward = sum_backward};
