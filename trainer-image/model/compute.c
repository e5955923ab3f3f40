#include "model/model.h"

#include "model/network.h"
#include "numerics/numerics.h"

#include <stdlib.h>
#include <string.h>

struct workspace {
    uint32_t samples;
    float *outputs[LAYERS_MOST];   /* of each layer; relu and flatten share their input's where that is ours */
    uint32_t *argmax[LAYERS_MOST]; /* of each maxpool */
    float *gradients[2];           /* with respect to a layer's output and to its input, by turns */
    float *scratch;                /* of conv2d */
    void *memory;                  /* all of the above */
};

/* Does layer i write its output over its input? Never over the caller's samples. */
static bool in_place(const struct model *model, uint32_t i)
{
    enum layer_type type = model->layers[i].type;
    if (type != LAYER_RELU && type != LAYER_FLATTEN)
        return false;
    for (; i > 0; i--)
        if (model->layers[i - 1].type != LAYER_FLATTEN)
            return true;
    return type == LAYER_FLATTEN; /* only an alias, read by those that follow */
}

/* Takes `bytes` from what is left of the memory, or only counts them while there is none. */
static void *take(void *memory, size_t *used, size_t bytes)
{
    void *taken = memory == NULL ? NULL : (char *)memory + *used;
    *used += (bytes + 63) / 64 * 64;
    return taken;
}

static size_t lay_out(struct workspace *workspace, const struct model *model, void *memory)
{
    const size_t n = workspace->samples;
    size_t used = 0;
    size_t largest = 0;
    size_t scratch = 0;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        const struct layer *layer = &model->layers[i];
        size_t out = shape_size(layer->out);
        largest = out > largest ? out : largest;
        if (in_place(model, i))
            workspace->outputs[i] = i == 0 ? NULL : workspace->outputs[i - 1];
        else
            workspace->outputs[i] = take(memory, &used, n * out * sizeof(float));
        if (layer->type == LAYER_MAXPOOL)
            workspace->argmax[i] = take(memory, &used, n * out * sizeof(uint32_t));
        if (layer->type == LAYER_CONV2D && conv2d_scratch(layer) > scratch)
            scratch = conv2d_scratch(layer);
    }
    for (int i = 0; i < 2; i++)
        workspace->gradients[i] = take(memory, &used, n * largest * sizeof(float));
    workspace->scratch = take(memory, &used, scratch * sizeof(float));
    return used;
}

int workspace_new(struct workspace **out, const struct model *model, uint32_t samples, struct error *err)
{
    if (samples > MODEL_WORKSPACE_SAMPLES_MOST)
        return error_set(err, "a block of %u samples is more than %d: raise blocks or lower batchSize", samples,
                         MODEL_WORKSPACE_SAMPLES_MOST);
    cleanup_workspace struct workspace *workspace = calloc(1, sizeof *workspace);
    if (workspace == NULL)
        return error_set(err, "out of memory for a workspace");
    workspace->samples = samples > MODEL_EVALUATE_SAMPLES ? samples : MODEL_EVALUATE_SAMPLES;
    size_t size = lay_out(workspace, model, NULL);
    workspace->memory = aligned_alloc(64, size);
    if (workspace->memory == NULL)
        return error_set(err, "out of memory for a workspace of %zu bytes (%u samples of model %s)", size,
                         workspace->samples, model_name(model));
    memset(workspace->memory, 0, size);
    lay_out(workspace, model, workspace->memory);
    *out = move(workspace);
    return 0;
}

void workspace_free(struct workspace *workspace)
{
    if (workspace == NULL)
        return;
    free(workspace->memory);
    free(workspace);
}

/* What layer i reads. */
static const float *input_of(const struct workspace *workspace, uint32_t i, const float *x)
{
    return i == 0 || workspace->outputs[i - 1] == NULL ? x : workspace->outputs[i - 1];
}

/* Runs all layers; the logits are the last one's output, in the workspace. */
static float *forward(const struct model *model, const float *params, const float *x, uint32_t n,
                      struct workspace *workspace)
{
    for (uint32_t i = 0; i < model->layer_count; i++) {
        const struct layer *layer = &model->layers[i];
        const float *in = input_of(workspace, i, x);
        float *out = workspace->outputs[i];
        switch (layer->type) {
        case LAYER_DENSE:
            dense_forward(layer, params, in, out, n);
            break;
        case LAYER_CONV2D:
            conv2d_forward(layer, params, in, out, n, workspace->scratch);
            break;
        case LAYER_MAXPOOL:
            maxpool_forward(layer, in, out, workspace->argmax[i], n);
            break;
        case LAYER_RELU:
            vector_relu(out, in, n * shape_size(layer->out));
            break;
        case LAYER_FLATTEN:
            break;
        }
    }
    return workspace->outputs[model->layer_count - 1];
}

/* The first layer with parameters: gradients with respect to inputs are not wanted from there down. */
static uint32_t first_trained(const struct model *model)
{
    uint32_t i = 0;
    while (model->layers[i].type != LAYER_DENSE && model->layers[i].type != LAYER_CONV2D)
        i++;
    return i;
}

/* Runs the layers backwards; gradients[0] holds the gradient with respect to the logits. */
static void backward(const struct model *model, const float *params, const float *x, uint32_t n, float *grad,
                     struct workspace *workspace)
{
    float *dy = workspace->gradients[0];
    float *dx = workspace->gradients[1];
    const uint32_t first = first_trained(model);
    for (uint32_t i = model->layer_count; i-- > first;) {
        const struct layer *layer = &model->layers[i];
        const float *in = input_of(workspace, i, x);
        switch (layer->type) {
        case LAYER_DENSE:
            dense_backward(layer, params, in, dy, i == first ? NULL : dx, grad, n);
            break;
        case LAYER_CONV2D:
            conv2d_backward(layer, params, in, dy, i == first ? NULL : dx, grad, n, workspace->scratch);
            break;
        case LAYER_MAXPOOL:
            maxpool_backward(layer, workspace->argmax[i], dy, dx, n);
            break;
        case LAYER_RELU:
            vector_relu_backward(dy, workspace->outputs[i], dy, n * shape_size(layer->out));
            continue;
        case LAYER_FLATTEN:
            continue;
        }
        float *swapped = dy;
        dy = dx;
        dx = swapped;
    }
}

double model_gradient(const struct model *model, const float *params, const struct model_batch *batch, float *grad,
                      struct workspace *workspace)
{
    const float *logits = forward(model, params, batch->x, batch->n, workspace);
    double loss = loss_gradient(logits, batch->targets, batch->n, model->classes, workspace->gradients[0]);
    backward(model, params, batch->x, batch->n, grad, workspace);
    return loss;
}

struct evaluation model_evaluate(const struct model *model, const float *params, const float *x, const float *targets,
                                 uint64_t n, struct workspace *workspace)
{
    struct evaluation result = {0, 0};
    const size_t size = model_sample_size(model);
    for (uint64_t at = 0; at < n; at += MODEL_EVALUATE_SAMPLES) {
        uint32_t piece = n - at < MODEL_EVALUATE_SAMPLES ? (uint32_t)(n - at) : MODEL_EVALUATE_SAMPLES;
        const float *logits = forward(model, params, x + at * size, piece, workspace);
        result.loss_sum += loss_evaluate(logits, targets + at, piece, model->classes, &result.correct);
    }
    return result;
}
