#include "ps/reduction.h"

#include <string.h>

static void drop_value(struct node *node, struct net *net)
{
    payload_unref(net, node->value);
    node->value = NULL;
    node->state = NODE_COVERED;
}

void reduction_begin(struct reduction *reduction, struct net *net, struct tree tree, enum plan_wire wire,
                     uint64_t samples)
{
    for (uint32_t i = TREE_ROOT; i < 2 * reduction->tree.leaves; i++)
        if (reduction->nodes[i].value != NULL)
            payload_unref(net, reduction->nodes[i].value);
    memset(reduction->nodes, 0, (size_t)2 * tree.leaves * sizeof reduction->nodes[0]);
    reduction->tree = tree;
    reduction->wire = wire;
    reduction->samples = samples;
}

const struct node *reduction_root(const struct reduction *reduction)
{
    const struct node *root = &reduction->nodes[TREE_ROOT];
    return root->state == NODE_HELD ? root : NULL;
}

static bool is_complete(const struct reduction *reduction, uint32_t node)
{
    for (; node >= TREE_ROOT; node /= 2)
        if (reduction->nodes[node].state != NODE_MISSING)
            return true;
    return false;
}

/* An ancestor came: what is below it counts no more. */
static void cover_descendants(struct reduction *reduction, struct net *net, uint32_t node)
{
    uint32_t first = node;
    for (uint32_t count = 2; (first *= 2) < 2 * reduction->tree.leaves; count *= 2)
        for (uint32_t i = first; i < first + count; i++)
            if (reduction->nodes[i].state == NODE_HELD)
                drop_value(&reduction->nodes[i], net);
}

/* left + right, in one of the two where nobody else looks at it. Releases both; NULL, and neither, without memory. */
static struct payload *sum_of(struct net *net, enum plan_wire wire, struct payload *left, struct payload *right)
{
    struct payload *out = left->references == 1 ? left : right->references == 1 ? right : NULL;
    if (out != NULL)
        payload_ref(out);
    else
        out = payload_new(net, left->length);
    if (out == NULL)
        return NULL;
    if (wire == PLAN_BFLOAT16)
        vector_bfloat16_sum_packed((uint16_t *)out->data, (const uint16_t *)left->data, (const uint16_t *)right->data,
                                   left->length / sizeof(uint16_t));
    else
        vector_sum((float *)out->data, (const float *)left->data, (const float *)right->data,
                   left->length / sizeof(float));
    out->crc_known = false;
    payload_unref(net, left);
    payload_unref(net, right);
    return out;
}

/* From a held node up, as far as both sides of each parent are there. -1 without memory. */
static int combine_up(struct reduction *reduction, struct net *net, uint32_t at)
{
    for (; at > TREE_ROOT && reduction->nodes[at].state == NODE_HELD; at /= 2) {
        struct node *here = &reduction->nodes[at], *there = &reduction->nodes[at ^ 1];
        struct node *parent = &reduction->nodes[at / 2];
        if (tree_node_empty(reduction->tree, reduction->samples, at ^ 1)) {
            parent->value = here->value;
            parent->loss = here->loss;
        } else if (there->state == NODE_HELD) {
            struct node *left = at % 2 == 0 ? here : there, *right = at % 2 == 0 ? there : here;
            struct payload *sum = sum_of(net, reduction->wire, left->value, right->value);
            if (sum == NULL)
                return -1;
            parent->value = sum;
            parent->loss = left->loss + right->loss;
            there->value = NULL;
            there->state = NODE_COVERED;
        } else {
            break;
        }
        here->value = NULL;
        here->state = NODE_COVERED;
        parent->state = NODE_HELD;
    }
    return 0;
}

/* Nothing new: but are they the bits that came, or were computed, before? */
static bool agrees(struct node *known, const struct payload *value)
{
    if (!known->crc_known) {
        const struct payload *held = known->state == NODE_HELD ? known->value : NULL;
        known->crc = held != NULL ? crc32c(0, held->data, held->length) : value->crc;
        known->crc_known = true;
    }
    return known->crc == value->crc;
}

enum reduction_result reduction_add(struct reduction *reduction, struct net *net, uint32_t node, struct payload *value,
                                    double loss)
{
    struct node *here = &reduction->nodes[node];
    enum reduction_result result = REDUCTION_DUPLICATE;
    if (!is_complete(reduction, node)) {
        cover_descendants(reduction, net, node);
        *here = (struct node){
            .state = NODE_HELD, .crc_known = true, .crc = value->crc, .value = payload_ref(value), .loss = loss};
        result = REDUCTION_ADDED;
    } else if (!agrees(here, value)) {
        return REDUCTION_CONFLICT;
    }
    /* Also after a duplicate: memory may have run out where the node's value went on from. */
    while (reduction->nodes[node].state != NODE_HELD)
        node /= 2;
    return combine_up(reduction, net, node) < 0 ? REDUCTION_NO_MEMORY : result;
}
