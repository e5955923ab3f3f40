/* One chunk's tree for one step: nodes come in any order and overlapping, and the root's value does not depend on that.
 * Private to ps. */
#ifndef THOLE_PS_REDUCTION_H
#define THOLE_PS_REDUCTION_H

#include "common/cleanup.h"
#include "common/plan/plan.h"
#include "numerics/numerics.h"
#include "wire/wire.h"

enum {
    REDUCTION_LEAVES_MOST = PLAN_BLOCKS_MOST, /* a power of two */
    REDUCTION_NODES = 2 * REDUCTION_LEAVES_MOST,
};

enum node_state {
    NODE_MISSING,
    NODE_HELD,    /* its value is here */
    NODE_COVERED, /* it has gone into an ancestor's value, or an ancestor came and replaced it */
};

struct node {
    enum node_state state;
    bool crc_known; /* of what came for this node itself; survives the value */
    uint32_t crc;
    struct payload *value; /* NODE_HELD */
    double loss;
};

struct reduction {
    struct tree tree;
    enum plan_wire wire; /* what the values are made of, and rounded to */
    uint64_t samples;    /* of the step */
    struct node nodes[REDUCTION_NODES];
};

enum reduction_result {
    REDUCTION_ADDED,
    REDUCTION_DUPLICATE,
    REDUCTION_CONFLICT,  /* other bits came for this node before */
    REDUCTION_NO_MEMORY, /* nothing is lost: the next reduction_add() that touches the same place goes on */
};

/* Forgets everything; a step of `samples` samples (≥ 1) begins. */
void reduction_begin(struct reduction *reduction, struct net *net, struct tree tree, enum plan_wire wire,
                     uint64_t samples);

/* `node` is one of the tree's and not empty, `value` has the chunk's values and a known CRC; a reference is taken where
 * it is kept. */
enum reduction_result reduction_add(struct reduction *reduction, struct net *net, uint32_t node, struct payload *value,
                                    double loss);

/* The root's node, where it is complete; else NULL. */
const struct node *reduction_root(const struct reduction *reduction);

#endif
