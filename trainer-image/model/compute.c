#include "model/dense.h"
#include "model/workspace.h"

#include "numerics/numerics.h"

#include <string.h>

/* One computation under way. */
struct run {
    const struct model *model;
    const float *params;
    const struct model_batch *batch;
    struct workspace *workspace;
    float *grad; /* NULL: evaluation */
};

static const float *output_of(const struct run *run, int32_t layer)
{
    if (layer == NETWORK_SAMPLE || run->workspace->places[layer].output == NULL)
        return run->batch->x;
    return run->workspace->places[layer].output;
}

/* Is the weight's gradient left for later? */
static bool is_kept(const struct run *run, uint32_t layer)
{
    return run->batch->kept != NULL && dense_is_large(&run->model->network->layers[layer]);
}

/* What forward needs, and of backward what does not depend on where gradients flow. */
static struct layer_call call_of(const struct run *run, uint32_t i)
{
    const struct network *network = run->model->network;
    const struct network_layer *layer = &network->layers[i];
    const struct places *places = &run->workspace->places[i];
    struct layer_call call = {
        .layer = layer,
        .index = i,
        .n = run->batch->n,
        .training = run->grad != NULL,
        .unit = run->model->unit,
        .relu = run->model->nodes[i].relu,
        .params = run->params,
        .output = places->output,
        .doutput = places->gradient,
        .grad = run->grad,
        .scratch = run->workspace->scratch,
        .kept = is_kept(run, i) ? run->batch->kept + run->batch->n * run->model->nodes[i].kept_at : NULL,
        .saved = places->saved,
        .batch = run->batch,
        .rows = layer->type == LAYER_EMBEDDING ? &run->batch->rows[layer->table] : NULL,
    };
    for (uint32_t k = 0; k < layer->input_count; k++) {
        call.inputs[k] = output_of(run, layer->inputs[k]);
        call.shapes[k] = layer->inputs[k] < 0 ? network->sample.shape : network->layers[layer->inputs[k]].out;
    }
    return call;
}

/* Runs all layers; returns the last one's output, in the workspace. */
static const float *forward(const struct run *run)
{
    const uint32_t layers = run->model->network->layer_count;
    for (uint32_t i = 0; i < layers; i++) {
        const struct node *node = &run->model->nodes[i];
        if (node_is_view(node))
            continue;
        const struct layer_call call = call_of(run, i);
        node->kind->forward(&call);
    }
    return output_of(run, (int32_t)layers - 1);
}

/* The gradient of a layer that computes nothing is its input's too. */
static void backward_view(const struct run *run, uint32_t i)
{
    const struct network_layer *layer = &run->model->network->layers[i];
    if (run->model->nodes[i].flows[0] == FLOW_ADD)
        vector_add(run->workspace->places[layer->inputs[0]].gradient, run->workspace->places[i].gradient,
                   run->batch->n * shape_size(layer->out));
}

static void backward_layer(const struct run *run, uint32_t i)
{
    const struct node *node = &run->model->nodes[i];
    const struct network_layer *layer = &run->model->network->layers[i];
    const struct places *places = run->workspace->places;
    struct layer_call call = call_of(run, i);
    float *extra = places[i].extra;
    for (uint32_t k = 0; k < layer->input_count; k++) {
        if (node_adds_apart(node, k)) {
            call.dinputs[k] = extra;
            extra += call.n * shape_size(call.shapes[k]);
        } else if (node->flows[k] != FLOW_NONE) {
            call.dinputs[k] = places[layer->inputs[k]].gradient;
            call.add[k] = node->flows[k] == FLOW_ADD;
        }
    }
    node->kind->backward(&call);
    for (uint32_t k = 0; k < layer->input_count; k++)
        if (node_adds_apart(node, k))
            vector_add(places[layer->inputs[k]].gradient, call.dinputs[k], call.n * shape_size(call.shapes[k]));
}

static void tell_ready(const struct run *run, uint32_t i)
{
    const struct node *node = &run->model->nodes[i];
    const struct network_layer *layer = &run->model->network->layers[i];
    uint64_t begin = node->begin;
    if (is_kept(run, i)) /* all but its weight, which comes first */
        begin += shape_size(layer->in) * shape_size(layer->out);
    if (begin != node->end)
        run->batch->ready(run->batch->ready_arg, begin, node->end);
}

/* Runs the layers backwards; the gradient with respect to the last one's output is there. A layer that several read
 * gets the sum of what they hand down, the last reader's first. */
static void backward(const struct run *run)
{
    for (uint32_t i = run->model->network->layer_count; i-- > 0;) {
        const struct node *node = &run->model->nodes[i];
        if (!node->trained)
            continue;
        if (node_is_view(node))
            backward_view(run, i);
        else
            backward_layer(run, i);
        if (run->batch->ready != NULL)
            tell_ready(run, i);
    }
}

double model_gradient(const struct model *model, const float *params, const struct model_batch *batch, float *grad,
                      struct workspace *workspace)
{
    const struct network *network = model->network;
    const struct run run = {model, params, batch, workspace, grad};
    const float *outputs = forward(&run);
    double loss =
        loss_gradient(network, outputs, batch->targets, batch->n, workspace->places[network->layer_count - 1].gradient);
    backward(&run);
    return loss;
}

struct evaluation model_evaluate(const struct model *model, const float *params, const struct model_batch *batch,
                                 struct workspace *workspace)
{
    struct evaluation result = {0, 0};
    for (uint32_t at = 0; at < batch->n; at += MODEL_EVALUATE_SAMPLES) {
        struct model_batch piece = *batch;
        piece.n = batch->n - at < MODEL_EVALUATE_SAMPLES ? batch->n - at : MODEL_EVALUATE_SAMPLES;
        piece.x = batch->x + at * model_sample_size(model);
        piece.targets = batch->targets + at;
        const struct run run = {model, params, &piece, workspace, NULL};
        const float *outputs = forward(&run);
        result.loss_sum += loss_evaluate(model->network, outputs, piece.targets, piece.n, &result.correct);
    }
    return result;
}
