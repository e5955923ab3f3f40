#include "numerics/numerics.h"

#include <string.h>

struct tree tree_of(uint32_t blocks)
{
    uint32_t leaves = 1;
    while (leaves < blocks)
        leaves *= 2;
    return (struct tree){blocks, leaves};
}

struct block_range tree_block(struct tree tree, uint64_t samples, uint32_t block)
{
    /* In 128 bits, so that no number of samples overflows. */
    unsigned __int128 n = samples;
    return (struct block_range){(uint64_t)(block * n / tree.blocks), (uint64_t)((block + 1) * n / tree.blocks)};
}

/* How far the node is above the leaves. */
static uint32_t height(struct tree tree, uint32_t node)
{
    return (uint32_t)(__builtin_clz(node) - __builtin_clz(tree.leaves));
}

void tree_node_blocks(struct tree tree, uint32_t node, uint32_t *first, uint32_t *end)
{
    uint32_t up = height(tree, node);
    uint32_t from = (node << up) - tree.leaves;
    uint32_t to = from + (1U << up);
    *first = from < tree.blocks ? from : tree.blocks;
    *end = to < tree.blocks ? to : tree.blocks;
}

/* Have blocks [first, end) no samples? */
static bool range_empty(struct tree tree, uint64_t samples, uint32_t first, uint32_t end)
{
    return first >= end || tree_block(tree, samples, first).begin == tree_block(tree, samples, end - 1).end;
}

bool tree_node_empty(struct tree tree, uint64_t samples, uint32_t node)
{
    uint32_t first;
    uint32_t end;
    tree_node_blocks(tree, node, &first, &end);
    return range_empty(tree, samples, first, end);
}

/* Is every block of the node that has samples in [first, end)? */
static bool covered(struct tree tree, uint64_t samples, uint32_t node, uint32_t first, uint32_t end)
{
    uint32_t node_first;
    uint32_t node_end;
    tree_node_blocks(tree, node, &node_first, &node_end);
    uint32_t before_end = node_end < first ? node_end : first;
    uint32_t after_first = node_first > end ? node_first : end;
    return range_empty(tree, samples, node_first, before_end) && range_empty(tree, samples, after_first, node_end);
}

uint32_t tree_cover(struct tree tree, uint64_t samples, uint32_t first, uint32_t count, uint32_t nodes[TREE_COVER_MOST])
{
    uint32_t found = 0;
    uint32_t node = TREE_ROOT;
    uint32_t left = first < tree.blocks ? tree.blocks - first : 0;
    uint32_t end = first + (count < left ? count : left);
    /* Down where a node is only partly inside, else on to the next node to the right, which is up from right
     * children and across from left ones. */
    for (;;) {
        uint32_t node_first;
        uint32_t node_end;
        tree_node_blocks(tree, node, &node_first, &node_end);
        bool outside =
            range_empty(tree, samples, node_first > first ? node_first : first, node_end < end ? node_end : end);
        if (!outside && !covered(tree, samples, node, first, end)) {
            node *= 2;
            continue;
        }
        if (!outside)
            nodes[found++] = node;
        while (node % 2 == 1 && node > TREE_ROOT)
            node /= 2;
        if (node == TREE_ROOT)
            return found;
        node++;
    }
}

uint32_t tree_scratch_rows(struct tree tree, uint32_t node)
{
    return height(tree, node);
}

int tree_reduce(struct tree tree, uint64_t samples, uint32_t node, size_t n, tree_leaf_function *leaf, void *arg,
                tree_add_function *add, float *scratch, float *out, double *loss)
{
    if (tree_is_leaf(tree, node)) {
        uint32_t block = node - tree.leaves;
        return leaf(arg, block, tree_block(tree, samples, block), out, loss);
    }
    uint32_t left = 2 * node;
    uint32_t right = left + 1;
    if (tree_node_empty(tree, samples, right))
        return tree_reduce(tree, samples, left, n, leaf, arg, add, scratch, out, loss);
    if (tree_node_empty(tree, samples, left))
        return tree_reduce(tree, samples, right, n, leaf, arg, add, scratch, out, loss);

    double right_loss;
    if (tree_reduce(tree, samples, left, n, leaf, arg, add, scratch, out, loss) < 0 ||
        tree_reduce(tree, samples, right, n, leaf, arg, add, scratch + n, scratch, &right_loss) < 0)
        return -1;
    add(arg, out, scratch, n);
    *loss += right_loss;
    return 0;
}
