#include "model/graph.h"

static uint32_t readers_of(const struct network *network, uint32_t layer)
{
    uint32_t count = 0;
    for (uint32_t i = layer + 1; i < network->layer_count; i++)
        for (uint32_t k = 0; k < network->layers[i].input_count; k++)
            count += network->layers[i].inputs[k] == (int32_t)layer;
    return count;
}

static bool reads(const struct network_layer *layer, int32_t input)
{
    for (uint32_t k = 0; k < layer->input_count; k++)
        if (layer->inputs[k] == input)
            return true;
    return false;
}

static bool is_repeated(const struct network_layer *layer, int32_t input)
{
    uint32_t times = 0;
    for (uint32_t k = 0; k < layer->input_count; k++)
        times += layer->inputs[k] == input;
    return times > 1;
}

static bool same_size(const struct network_layer *layer)
{
    return shape_size(layer->in) == shape_size(layer->out);
}

/* Trained: a layer that trains, and whatever reads one. */
static void find_trained(const struct network *network, struct node *nodes)
{
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        nodes[i].trained = (nodes[i].kind->flags & LAYER_TRAINS) != 0;
        for (uint32_t k = 0; k < layer->input_count; k++)
            nodes[i].trained = nodes[i].trained || (layer->inputs[k] >= 0 && nodes[layer->inputs[k]].trained);
    }
}

/* A ReLU alone behind a layer that can compute it on the way. */
static void fuse(const struct network *network, struct node *nodes)
{
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const int32_t before = network->layers[i].inputs[0];
        if (network->layers[i].type != LAYER_RELU || before < 0 ||
            (nodes[before].kind->flags & LAYER_TAKES_RELU) == 0 || readers_of(network, (uint32_t)before) != 1)
            continue;
        nodes[i].fused = true;
        nodes[before].relu = true;
    }
}

/* May layer i write its output over what lies in its first input's buffer? Not where anything still reads that. */
static bool may_overwrite(const struct network *network, const struct node *nodes, uint32_t i)
{
    const struct network_layer *layer = &network->layers[i];
    const int32_t root = nodes[layer->inputs[0]].root;
    if ((nodes[i].kind->flags & LAYER_OVER_INPUT) == 0 || !same_size(layer) || root < 0 || node_reads_input(&nodes[i]))
        return false;
    for (uint32_t k = 1; k < layer->input_count; k++)
        if (layer->inputs[k] >= 0 && nodes[layer->inputs[k]].root == root)
            return false;
    for (uint32_t m = 0; m < i; m++) {
        if (nodes[m].root != root)
            continue;
        if (node_reads_output(&nodes[m]))
            return false;
        for (uint32_t reader = m + 1; reader < network->layer_count; reader++) {
            const bool in_chain = reader < i && nodes[reader].root == root;
            if (reader != i && !in_chain && reads(&network->layers[reader], (int32_t)m) &&
                (reader > i || node_reads_input(&nodes[reader])))
                return false;
        }
    }
    return true;
}

static void find_roots(const struct network *network, struct node *nodes)
{
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const int32_t before = network->layers[i].inputs[0];
        if (node_is_view(&nodes[i]))
            nodes[i].root = before < 0 ? NETWORK_SAMPLE : nodes[before].root;
        else if (before >= 0 && may_overwrite(network, nodes, i))
            nodes[i].root = nodes[before].root;
        else
            nodes[i].root = (int32_t)i;
    }
}

/* Has a layer behind i, or an input of i before its k-th, written the gradient with respect to `input` already? */
static bool is_written(const struct network *network, uint32_t i, uint32_t k, int32_t input)
{
    for (uint32_t j = 0; j < k; j++)
        if (network->layers[i].inputs[j] == input)
            return true;
    for (uint32_t reader = i + 1; reader < network->layer_count; reader++)
        if (reads(&network->layers[reader], input))
            return true;
    return false;
}

static void find_flows(const struct network *network, struct node *nodes)
{
    for (uint32_t i = network->layer_count; i-- > 0;)
        nodes[i].gradient_root = i;
    for (uint32_t i = network->layer_count; i-- > 0;) {
        const struct network_layer *layer = &network->layers[i];
        const bool passes = node_is_view(&nodes[i]) || ((nodes[i].kind->flags & LAYER_OVER_GRADIENT) != 0 &&
                                                        same_size(layer) && !is_repeated(layer, layer->inputs[0]));
        for (uint32_t k = 0; k < layer->input_count; k++) {
            const int32_t input = layer->inputs[k];
            if (input < 0 || !nodes[input].trained)
                nodes[i].flows[k] = FLOW_NONE;
            else if (is_written(network, i, k, input))
                nodes[i].flows[k] = FLOW_ADD;
            else if (k > 0 || !passes)
                nodes[i].flows[k] = FLOW_WRITE;
            else {
                nodes[i].flows[k] = FLOW_PASS;
                nodes[input].gradient_root = nodes[i].gradient_root;
            }
        }
    }
}

/* Tensors lie in the order of their layers. */
static void find_ranges(const struct network *network, struct node *nodes)
{
    uint64_t end = network->parameters;
    for (uint32_t i = network->layer_count; i-- > 0;) {
        const bool has_tensors =
            (nodes[i].kind->flags & LAYER_TRAINS) != 0 && network->layers[i].type != LAYER_EMBEDDING;
        nodes[i].end = end;
        nodes[i].begin = end = has_tensors ? network->layers[i].weight : end;
    }
}

int graph_plan(const struct network *network, struct node *nodes, struct error *err)
{
    for (uint32_t i = 0; i < network->layer_count; i++) {
        nodes[i].kind = layer_kind(network->layers[i].type);
        if (nodes[i].kind == NULL)
            return error_set(err, "layer %s (%s): this program cannot compute such layers", network->layers[i].name,
                             layer_type_name(network->layers[i].type));
    }
    find_trained(network, nodes);
    fuse(network, nodes);
    find_roots(network, nodes);
    find_flows(network, nodes);
    find_ranges(network, nodes);
    return 0;
}
