#include "model/workspace.h"

#include <stdlib.h>
#include <string.h>

/* Time goes in whole steps: layer i's forward is at i, the loss at L, layer i's backward at 2L − i. */
struct span {
    size_t size; /* bytes, a multiple of a cache line */
    uint32_t begin, end;
    size_t offset;
};

struct spans {
    struct span *items; /* as many as `most` */
    uint32_t count, most;
};

enum { LINE = 64, SPANS_OF_LAYER = 4 };

static size_t whole_lines(size_t bytes)
{
    return (bytes + LINE - 1) / LINE * LINE;
}

static uint32_t backward_time(const struct network *network, uint32_t layer)
{
    return 2 * network->layer_count - layer;
}

static uint32_t add_span(struct spans *spans, size_t bytes, uint32_t begin, uint32_t end)
{
    spans->items[spans->count] = (struct span){.size = whole_lines(bytes), .begin = begin, .end = end};
    return spans->count++;
}

static uint32_t later(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* When the output of layer i is last read. */
static uint32_t output_end(const struct model *model, uint32_t i)
{
    const struct network *network = model->network;
    uint32_t end = i + 1 == network->layer_count ? network->layer_count : i;
    if (node_reads_output(&model->nodes[i]))
        end = backward_time(network, i);
    for (uint32_t reader = i + 1; reader < network->layer_count; reader++)
        for (uint32_t k = 0; k < network->layers[reader].input_count; k++)
            if (network->layers[reader].inputs[k] == (int32_t)i)
                end = later(end, node_reads_input(&model->nodes[reader]) ? backward_time(network, reader) : reader);
    return end;
}

/* When the gradient with respect to layer i's output is first written: in the backward of its last reader. */
static uint32_t gradient_begin(const struct model *model, uint32_t i)
{
    const struct network *network = model->network;
    for (uint32_t reader = network->layer_count; reader-- > i + 1;)
        for (uint32_t k = 0; k < network->layers[reader].input_count; k++)
            if (network->layers[reader].inputs[k] == (int32_t)i)
                return backward_time(network, reader);
    return network->layer_count;
}

/* Of a layer's FLOW_ADD, where it does not add itself: one place after the other, in the order of its inputs. */
static size_t extra_bytes(const struct model *model, uint32_t i, size_t samples)
{
    const struct network *network = model->network;
    const struct node *node = &model->nodes[i];
    size_t bytes = 0;
    for (uint32_t k = 0; k < network->layers[i].input_count; k++)
        if (node_adds_apart(node, k))
            bytes += samples * shape_size(network->layers[network->layers[i].inputs[k]].out) * sizeof(float);
    return bytes;
}

/* Which spans each layer's things are in. */
struct numbers {
    uint32_t output, gradient, extra, saved;
};

enum { NO_SPAN = UINT32_MAX };

/* Every chain's buffer lives as long as any of its members. */
static void list_outputs(const struct model *model, size_t samples, struct spans *spans, struct numbers *numbers)
{
    for (uint32_t i = 0; i < model->network->layer_count; i++) {
        const struct node *node = &model->nodes[i];
        const size_t bytes = samples * shape_size(model->network->layers[i].out) * sizeof(float);
        if (node->root < 0)
            numbers[i].output = NO_SPAN;
        else if (node->root == (int32_t)i)
            numbers[i].output = add_span(spans, bytes, i, output_end(model, i));
        else {
            numbers[i].output = numbers[node->root].output;
            struct span *span = &spans->items[numbers[i].output];
            span->end = later(span->end, output_end(model, i));
        }
    }
}

static void list_gradients(const struct model *model, size_t samples, struct spans *spans, struct numbers *numbers)
{
    const struct network *network = model->network;
    for (uint32_t i = network->layer_count; i-- > 0;) {
        const struct node *node = &model->nodes[i];
        const size_t bytes = samples * shape_size(network->layers[i].out) * sizeof(float);
        if (node->gradient_root == i)
            numbers[i].gradient = node->trained || i + 1 == network->layer_count
                                      ? add_span(spans, bytes, gradient_begin(model, i), backward_time(network, i))
                                      : NO_SPAN;
        else {
            numbers[i].gradient = numbers[node->gradient_root].gradient;
            spans->items[numbers[i].gradient].end = backward_time(network, i);
        }
    }
}

static void list_others(const struct model *model, size_t samples, struct spans *spans, struct numbers *numbers)
{
    const struct network *network = model->network;
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        const struct node *node = &model->nodes[i];
        const uint32_t backward = backward_time(network, i);
        const size_t saved = node->kind->saved == NULL ? 0 : node->kind->saved(layer, (uint32_t)samples);
        numbers[i].saved = saved == 0 ? NO_SPAN : add_span(spans, saved, i, node->trained ? backward : i);
        const size_t extra = extra_bytes(model, i, samples);
        numbers[i].extra = extra == 0 ? NO_SPAN : add_span(spans, extra, backward, backward);
    }
}

/* Largest first, each at the lowest offset where it is in nobody's way. Returns the bytes of all. */
static size_t pack(struct spans *spans, uint32_t *order)
{
    size_t total = 0;
    for (uint32_t i = 0; i < spans->count; i++) {
        uint32_t at = i;
        for (; at > 0 && spans->items[order[at - 1]].size < spans->items[i].size; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    for (uint32_t i = 0; i < spans->count; i++) {
        struct span *span = &spans->items[order[i]];
        for (bool moved = true; moved;) {
            moved = false;
            for (uint32_t j = 0; j < i; j++) {
                const struct span *other = &spans->items[order[j]];
                if (span->begin <= other->end && other->begin <= span->end &&
                    span->offset < other->offset + other->size && other->offset < span->offset + span->size) {
                    span->offset = other->offset + other->size;
                    moved = true;
                }
            }
        }
        total = span->offset + span->size > total ? span->offset + span->size : total;
    }
    return total;
}

static size_t scratch_bytes(const struct model *model, uint32_t samples)
{
    size_t most = 0;
    for (uint32_t i = 0; i < model->network->layer_count; i++) {
        const struct layer_kind *kind = model->nodes[i].kind;
        const size_t floats = kind->scratch == NULL ? 0 : kind->scratch(&model->network->layers[i], samples);
        most = floats > most ? floats : most;
    }
    return whole_lines(most * sizeof(float));
}

static void *at(const struct workspace *workspace, const struct spans *spans, uint32_t number)
{
    return number == NO_SPAN ? NULL : (char *)workspace->memory + spans->items[number].offset;
}

static int lay_out(struct workspace *workspace, const struct model *model, struct error *err)
{
    const uint32_t layers = model->network->layer_count;
    const size_t most = (size_t)SPANS_OF_LAYER * layers;
    cleanup_free struct span *items = calloc(most, sizeof *items);
    cleanup_free struct numbers *numbers = calloc(layers, sizeof *numbers);
    cleanup_free uint32_t *order = calloc(most, sizeof *order);
    workspace->places = calloc(layers, sizeof *workspace->places);
    if (items == NULL || numbers == NULL || order == NULL || workspace->places == NULL)
        return error_set(err, "out of memory for a workspace");
    struct spans spans = {items, 0, (uint32_t)most};
    list_outputs(model, workspace->samples, &spans, numbers);
    list_gradients(model, workspace->samples, &spans, numbers);
    list_others(model, workspace->samples, &spans, numbers);
    const size_t packed = pack(&spans, order);
    workspace->size = packed + scratch_bytes(model, workspace->samples);
    workspace->memory = aligned_alloc(LINE, workspace->size);
    if (workspace->memory == NULL)
        return error_set(err, "out of memory for a workspace of %zu bytes (%u samples of model %s)", workspace->size,
                         workspace->samples, model->network->name);
    memset(workspace->memory, 0, workspace->size);
    for (uint32_t i = 0; i < layers; i++)
        workspace->places[i] = (struct places){
            .output = at(workspace, &spans, numbers[i].output),
            .gradient = at(workspace, &spans, numbers[i].gradient),
            .extra = at(workspace, &spans, numbers[i].extra),
            .saved = at(workspace, &spans, numbers[i].saved),
        };
    workspace->scratch = (float *)((char *)workspace->memory + packed);
    return 0;
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
    if (lay_out(workspace, model, err) < 0)
        return -1;
    *out = move(workspace);
    return 0;
}

void workspace_free(struct workspace *workspace)
{
    if (workspace == NULL)
        return;
    free(workspace->places);
    free(workspace->memory);
    free(workspace);
}
