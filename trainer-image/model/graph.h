/* graph — what the engine decides about a network once, when the model is built. Private to model.
 *
 * A layer's output and the gradient with respect to it lie in buffers. Some share one: an output that overwrites its
 * layer's input, or only gives it another shape; a gradient that backward turns into the input's in place. Such layers
 * form a chain, named by its `root`: the first layer of the chain for outputs, the last one for gradients.
 */
#ifndef THOLE_MODEL_GRAPH_H
#define THOLE_MODEL_GRAPH_H

#include "model/layer.h"

/* What becomes of the gradient with respect to one of a layer's inputs. */
enum flow {
    FLOW_NONE,  /* not wanted: nothing trained lies below */
    FLOW_PASS,  /* input 0: written over the gradient with respect to the output */
    FLOW_WRITE, /* written: this layer's backward comes before those of the input's other readers */
    FLOW_ADD,   /* added to what readers further on have left */
};

struct node {
    const struct layer_kind *kind;
    bool trained; /* the gradient with respect to the output is wanted: backward runs */
    bool fused;   /* a ReLU that the layer before computes */
    bool relu;    /* that layer */
    int32_t root; /* NETWORK_SAMPLE: its output is the sample, in another shape */
    uint32_t gradient_root;
    enum flow flows[NETWORK_INPUTS_MOST];
    uint64_t begin, end; /* its range of the flat vector */
    uint64_t kept_at;    /* where its part of a batch's `kept` begins, floats a sample */
};

struct model {
    struct network *network;
    struct node *nodes;  /* [layer_count] */
    uint64_t kept;       /* floats a sample of a batch's `kept` */
    enum gemm_unit unit; /* for products that step over zeros */
};

/* Does the output only give the input another shape, or is it there already? */
static inline bool node_is_view(const struct node *node)
{
    return node->kind->forward == NULL || node->fused;
}

/* Does backward look at the layer's inputs, its output? */
static inline bool node_reads_input(const struct node *node)
{
    return node->trained && !node_is_view(node) && (node->kind->flags & LAYER_READS_INPUT) != 0;
}
static inline bool node_reads_output(const struct node *node)
{
    return node->trained && !node_is_view(node) && (node->relu || (node->kind->flags & LAYER_READS_OUTPUT) != 0);
}

/* Is what goes to input k added by the engine, not by the layer? */
static inline bool node_adds_apart(const struct node *node, uint32_t k)
{
    return node->flows[k] == FLOW_ADD && !node_is_view(node) && (node->kind->flags & LAYER_ADDS) == 0;
}

/* Fills nodes[layer_count], which are zeros. */
int graph_plan(const struct network *network, struct node *nodes, struct error *err);

#endif
