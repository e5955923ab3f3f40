#include "numerics/numerics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void blocks_follow_the_formula(void **state)
{
    (void)state;
    static const struct {
        uint64_t blocks, samples, block;
        struct block_range expected;
    } cases[] = {
        {8, 128, 0, {0, 16}},
        {8, 128, 7, {112, 128}},
        {8, 100, 1, {12, 25}},
        {8, 100, 7, {87, 100}},
        {8, 3, 0, {0, 0}},
        {8, 3, 2, {0, 1}},
        {1, 7, 0, {0, 7}},
        {3, 0, 2, {0, 0}},
        {64, UINT64_MAX, 63, {UINT64_C(0xFC00000000000000) - 1, UINT64_MAX}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct block_range range =
            tree_block(tree_of((uint32_t)cases[i].blocks), cases[i].samples, (uint32_t)cases[i].block);
        assert_int_equal(range.begin, cases[i].expected.begin);
        assert_int_equal(range.end, cases[i].expected.end);
    }
}

static void blocks_fill_every_step(void **state)
{
    (void)state;
    for (uint32_t blocks = 1; blocks <= 33; blocks++)
        for (uint64_t samples = 0; samples <= 70; samples++) {
            uint64_t at = 0;
            for (uint32_t block = 0; block < blocks; block++) {
                struct block_range range = tree_block(tree_of(blocks), samples, block);
                assert_int_equal(range.begin, at);
                assert_true(range.end >= at);
                at = range.end;
            }
            assert_int_equal(at, samples);
        }
}

static void nodes_are_a_heap_over_the_next_power_of_two(void **state)
{
    (void)state;
    assert_int_equal(tree_of(1).leaves, 1);
    assert_int_equal(tree_of(5).leaves, 8);
    assert_int_equal(tree_of(8).leaves, 8);
    assert_int_equal(tree_of(TREE_BLOCKS_MOST).leaves, TREE_BLOCKS_MOST);

    struct tree tree = tree_of(6);
    static const uint32_t expected[][2] = {
        [1] = {0, 6},  [2] = {0, 4},  [3] = {4, 6},  [4] = {0, 2},  [5] = {2, 4},
        [6] = {4, 6},  [7] = {6, 6},  [8] = {0, 1},  [9] = {1, 2},  [10] = {2, 3},
        [11] = {3, 4}, [12] = {4, 5}, [13] = {5, 6}, [14] = {6, 6}, [15] = {6, 6},
    };
    assert_false(tree_is_node(tree, 0));
    assert_false(tree_is_node(tree, 16));
    for (uint32_t node = 1; node < 16; node++) {
        uint32_t first;
        uint32_t end;
        tree_node_blocks(tree, node, &first, &end);
        assert_true(tree_is_node(tree, node));
        assert_int_equal(first, expected[node][0]);
        assert_int_equal(end, expected[node][1]);
    }
    assert_int_equal(tree_leaf(tree, 5), 13);
    assert_true(tree_is_leaf(tree, 8));
    assert_false(tree_is_leaf(tree, 7));
}

/* Emptiness by its definition, for comparison. */
static bool empty_by_definition(struct tree tree, uint64_t samples, uint32_t node)
{
    if (!tree_is_leaf(tree, node))
        return empty_by_definition(tree, samples, 2 * node) && empty_by_definition(tree, samples, 2 * node + 1);
    uint32_t block = node - tree.leaves;
    if (block >= tree.blocks)
        return true;
    struct block_range range = tree_block(tree, samples, block);
    return range.begin == range.end;
}

static void empty_nodes_are_those_without_samples(void **state)
{
    (void)state;
    for (uint32_t blocks = 1; blocks <= 17; blocks++)
        for (uint64_t samples = 0; samples <= 20; samples++) {
            struct tree tree = tree_of(blocks);
            for (uint32_t node = 1; node < 2 * tree.leaves; node++)
                assert_int_equal(tree_node_empty(tree, samples, node), empty_by_definition(tree, samples, node));
        }
}

/* The cover by its definition: the largest nodes whose non-empty blocks are all inside. */
static bool inside(struct tree tree, uint64_t samples, uint32_t node, uint32_t first, uint32_t end)
{
    if (empty_by_definition(tree, samples, node))
        return true;
    if (tree_is_leaf(tree, node))
        return node - tree.leaves >= first && node - tree.leaves < end;
    return inside(tree, samples, 2 * node, first, end) && inside(tree, samples, 2 * node + 1, first, end);
}

static uint32_t cover_by_definition(struct tree tree, uint64_t samples, uint32_t node, uint32_t first, uint32_t end,
                                    uint32_t *nodes, uint32_t found)
{
    if (empty_by_definition(tree, samples, node))
        return found;
    if (inside(tree, samples, node, first, end)) {
        nodes[found] = node;
        return found + 1;
    }
    if (tree_is_leaf(tree, node))
        return found;
    found = cover_by_definition(tree, samples, 2 * node, first, end, nodes, found);
    return cover_by_definition(tree, samples, 2 * node + 1, first, end, nodes, found);
}

static void covers_are_the_largest_nodes_inside(void **state)
{
    (void)state;
    for (uint32_t blocks = 1; blocks <= 13; blocks++)
        for (uint64_t samples = 0; samples <= 16; samples++)
            for (uint32_t first = 0; first < blocks; first++)
                for (uint32_t count = 0; first + count <= blocks; count++) {
                    struct tree tree = tree_of(blocks);
                    uint32_t expected[TREE_COVER_MOST];
                    uint32_t nodes[TREE_COVER_MOST];
                    uint32_t found = cover_by_definition(tree, samples, 1, first, first + count, expected, 0);
                    assert_int_equal(tree_cover(tree, samples, first, count, nodes), found);
                    assert_memory_equal(nodes, expected, found * sizeof nodes[0]);
                }
}

static void covers_by_example(void **state)
{
    (void)state;
    static const struct {
        uint64_t samples;
        uint32_t blocks, first, count, found, nodes[5];
    } cases[] = {
        {128, 8, 0, 8, 1, {1}},
        {128, 8, 0, 4, 1, {2}},
        {128, 8, 1, 6, 4, {9, 5, 6, 14}},
        {128, 6, 4, 2, 1, {3}}, /* nothing right of block 5 */
        {128, 6, 0, 6, 1, {1}},
        {2, 8, 0, 8, 1, {1}}, /* only blocks 3 and 7 have a sample */
        {2, 8, 0, 4, 1, {2}},
        {2, 8, 4, 3, 0, {0}},
        {2, 8, 3, 1, 1, {2}},      /* a node's value is that of its one block with samples */
        {128, 8, 7, 100, 1, {15}}, /* a range past the end is cut */
        {128, 8, 9, 1, 0, {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t nodes[TREE_COVER_MOST];
        uint32_t found = tree_cover(tree_of(cases[i].blocks), cases[i].samples, cases[i].first, cases[i].count, nodes);
        assert_int_equal(found, cases[i].found);
        assert_memory_equal(nodes, cases[i].nodes, found * sizeof nodes[0]);
    }
}

static void the_largest_tree_is_covered_within_the_bound(void **state)
{
    (void)state;
    uint32_t nodes[TREE_COVER_MOST];
    assert_int_equal(tree_cover(tree_of(TREE_BLOCKS_MOST), 1U << 20, 1, TREE_BLOCKS_MOST - 2, nodes), 30);
}

enum { WIDTH = 3 };

/* Values whose float sums depend on the order they are added in. */
static int leaf_value(void *arg, uint32_t block, struct block_range range, float *out, double *loss)
{
    uint32_t *calls = arg;
    calls[block]++;
    assert_true(range.begin < range.end);
    for (uint32_t i = 0; i < WIDTH; i++) {
        uint32_t mixed = block * 2654435761U + i * 40503U;
        out[i] = (float)(mixed % 1000003U) * 1.1e-3F;
    }
    *loss = (double)(block + 1) * 0.1;
    return 0;
}

static void add(void *arg, float *left, const float *right, size_t n)
{
    (void)arg;
    vector_add(left, right, n);
}

static void reduce_by_definition(struct tree tree, uint64_t samples, uint32_t node, float *out, double *loss)
{
    uint32_t calls[64] = {0};
    if (tree_is_leaf(tree, node)) {
        leaf_value(calls, node - tree.leaves, tree_block(tree, samples, node - tree.leaves), out, loss);
        return;
    }
    float right[WIDTH] = {0};
    double right_loss = 0;
    bool has_left = !empty_by_definition(tree, samples, 2 * node);
    bool has_right = !empty_by_definition(tree, samples, 2 * node + 1);
    if (has_left)
        reduce_by_definition(tree, samples, 2 * node, out, loss);
    if (has_right)
        reduce_by_definition(tree, samples, 2 * node + 1, right, &right_loss);
    for (int i = 0; i < WIDTH; i++) {
        if (has_left && has_right)
            out[i] = out[i] + right[i];
        else if (has_right)
            out[i] = right[i];
    }
    if (has_right)
        *loss = has_left ? *loss + right_loss : right_loss;
}

static void reducing_adds_as_the_tree_says(void **state)
{
    (void)state;
    for (uint32_t blocks = 1; blocks <= 33; blocks++)
        for (uint64_t samples = 1; samples <= 40; samples += 3) {
            struct tree tree = tree_of(blocks);
            for (uint32_t node = 1; node < 2 * tree.leaves; node++) {
                if (tree_node_empty(tree, samples, node))
                    continue;
                uint32_t calls[64] = {0};
                float scratch[TREE_DEPTH_MOST * WIDTH];
                float out[WIDTH];
                float expected[WIDTH] = {0};
                double loss = 0;
                double expected_loss = 0;
                assert_int_equal(tree_reduce(tree, samples, node, WIDTH, leaf_value, calls, add, scratch, out, &loss),
                                 0);
                reduce_by_definition(tree, samples, node, expected, &expected_loss);
                assert_memory_equal(out, expected, sizeof out);
                assert_true(loss == expected_loss);
                uint32_t first;
                uint32_t end;
                tree_node_blocks(tree, node, &first, &end);
                for (uint32_t block = 0; block < blocks; block++) {
                    bool below =
                        block >= first && block < end && !empty_by_definition(tree, samples, tree_leaf(tree, block));
                    assert_int_equal(calls[block], below ? 1 : 0);
                }
            }
        }
}

static int refuse_block_2(void *arg, uint32_t block, struct block_range range, float *out, double *loss)
{
    return block == 2 ? -1 : leaf_value(arg, block, range, out, loss);
}

static void a_leaf_can_stop_the_walk(void **state)
{
    (void)state;
    uint32_t calls[64] = {0};
    float scratch[TREE_DEPTH_MOST * WIDTH];
    float out[WIDTH];
    double loss;
    assert_int_equal(tree_reduce(tree_of(8), 64, 1, WIDTH, refuse_block_2, calls, add, scratch, out, &loss), -1);
    assert_int_equal(calls[1], 1);
    assert_int_equal(calls[3], 0);
}

/* What makes workers interchangeable: any way to share out the blocks, reduced in any grouping that covers give,
 * joins to the root's bits. */
static void any_deal_gives_the_roots_bits(void **state)
{
    (void)state;
    struct tree tree = tree_of(11);
    const uint64_t samples = 97;
    float scratch[TREE_DEPTH_MOST * WIDTH];
    float root[WIDTH];
    double root_loss;
    uint32_t calls[64] = {0};
    tree_reduce(tree, samples, TREE_ROOT, WIDTH, leaf_value, calls, add, scratch, root, &root_loss);
    for (uint32_t cut1 = 0; cut1 <= 11; cut1++)
        for (uint32_t cut2 = cut1; cut2 <= 11; cut2++) {
            float values[32][WIDTH];
            bool have[32] = {false};
            const uint32_t cuts[] = {0, cut1, cut2, 11};
            for (int worker = 0; worker < 3; worker++) {
                uint32_t nodes[TREE_COVER_MOST];
                uint32_t found = tree_cover(tree, samples, cuts[worker], cuts[worker + 1] - cuts[worker], nodes);
                for (uint32_t i = 0; i < found; i++) {
                    double loss;
                    tree_reduce(tree, samples, nodes[i], WIDTH, leaf_value, calls, add, scratch, values[nodes[i]],
                                &loss);
                    have[nodes[i]] = true;
                }
            }
            for (uint32_t node = 15; node >= 1; node--) {
                uint32_t l = 2 * node;
                uint32_t r = l + 1;
                if (have[node] || !(have[l] || have[r]))
                    continue;
                if (have[l] && have[r])
                    vector_sum(values[node], values[l], values[r], WIDTH);
                else
                    memcpy(values[node], values[have[l] ? l : r], sizeof values[node]);
                have[node] = true;
            }
            assert_true(have[1]);
            assert_memory_equal(values[1], root, sizeof root);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_follow_the_formula),
        cmocka_unit_test(blocks_fill_every_step),
        cmocka_unit_test(nodes_are_a_heap_over_the_next_power_of_two),
        cmocka_unit_test(empty_nodes_are_those_without_samples),
        cmocka_unit_test(covers_are_the_largest_nodes_inside),
        cmocka_unit_test(covers_by_example),
        cmocka_unit_test(the_largest_tree_is_covered_within_the_bound),
        cmocka_unit_test(reducing_adds_as_the_tree_says),
        cmocka_unit_test(a_leaf_can_stop_the_walk),
        cmocka_unit_test(any_deal_gives_the_roots_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
