/* Sparse gradients against a dense table: the same tree, with a flag for each row that says whether it is there. */
#include "numerics/sparse.h"

#include "common/test/dice.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <stdlib.h>
#include <string.h>

enum { ROWS = 40, DIM = 3, BLOCKS_MOST = 20, NODES = 64 };

/* Of very different sizes, so that another order of additions gives other bits. */
static float random_value(uint64_t *state)
{
    float mantissa = (float)(random_next(state) >> 40) * 0x1p-24F - 0.5F;
    return mantissa * (float)(1U << below(state, 20));
}

static float to_bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t low = bits & 0xFFFF, high = bits >> 16;
    high += low > 0x8000 || (low == 0x8000 && high % 2 == 1);
    bits = high << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

struct dense {
    bool there[ROWS];
    float rows[ROWS][DIM];
};

/* A random block; `out` may stay without ids. */
static void make_block(uint64_t *state, bool bfloat16, struct dense *dense, struct sparse *out)
{
    *dense = (struct dense){0};
    assert_int_equal(sparse_reserve(out, ROWS), 0);
    out->count = 0;
    uint32_t one_in = 1 + below(state, 6);
    for (uint32_t id = 0; id < ROWS; id++) {
        if (below(state, one_in) != 0)
            continue;
        dense->there[id] = true;
        for (uint32_t i = 0; i < DIM; i++) {
            float value = random_value(state);
            dense->rows[id][i] = bfloat16 ? to_bfloat16(value) : value;
        }
        memcpy(out->rows + (size_t)out->count * DIM, dense->rows[id], sizeof dense->rows[id]);
        out->ids[out->count++] = id;
    }
}

static void dense_sum(struct dense *left, const struct dense *right, bool bfloat16)
{
    for (uint32_t id = 0; id < ROWS; id++) {
        for (uint32_t i = 0; right->there[id] && i < DIM; i++) {
            float *at = &left->rows[id][i];
            *at = left->there[id] ? *at + right->rows[id][i] : right->rows[id][i];
            *at = bfloat16 ? to_bfloat16(*at) : *at;
        }
        left->there[id] = left->there[id] || right->there[id];
    }
}

static void assert_same(const struct sparse *sparse, const struct dense *dense)
{
    uint32_t at = 0;
    for (uint32_t id = 0; id < ROWS; id++) {
        if (!dense->there[id])
            continue;
        assert_true(at < sparse->count);
        assert_int_equal(sparse->ids[at], id);
        assert_memory_equal(sparse->rows + (size_t)at * DIM, dense->rows[id], sizeof dense->rows[id]);
        at++;
    }
    assert_int_equal(at, sparse->count);
}

struct world {
    struct tree tree;
    uint64_t samples;
    bool bfloat16;
    struct dense dense[BLOCKS_MOST];
    struct sparse blocks[BLOCKS_MOST];
};

/* The definition. False where the node is empty. */
static bool define(const struct world *world, uint32_t node, struct dense *out)
{
    if (node >= world->tree.leaves) {
        if (tree_node_empty(world->tree, world->samples, node))
            return false;
        *out = world->dense[node - world->tree.leaves];
        return true;
    }
    struct dense right;
    bool has_left = define(world, 2 * node, out);
    bool has_right = define(world, 2 * node + 1, has_left ? &right : out);
    if (has_left && has_right)
        dense_sum(out, &right, world->bfloat16);
    return has_left || has_right;
}

/* Known: what the definition says of a random set of nodes, and of what they leave. */
static void cover(const struct world *world, uint64_t *state, uint32_t node, struct sparse **values)
{
    static const struct sparse fresh = {.dim = DIM};
    if (tree_node_empty(world->tree, world->samples, node))
        return;
    if (!tree_is_leaf(world->tree, node) && below(state, 3) != 0) {
        cover(world, state, 2 * node, values);
        cover(world, state, 2 * node + 1, values);
        return;
    }
    struct dense dense;
    assert_true(define(world, node, &dense));
    values[node] = malloc(sizeof *values[node]);
    *values[node] = fresh;
    assert_int_equal(sparse_reserve(values[node], ROWS), 0);
    for (uint32_t id = 0; id < ROWS; id++) {
        if (!dense.there[id])
            continue;
        memcpy(values[node]->rows + (size_t)values[node]->count * DIM, dense.rows[id], sizeof dense.rows[id]);
        values[node]->ids[values[node]->count++] = id;
    }
}

static void sums_are_those_of_a_dense_table(void **state)
{
    (void)state;
    uint64_t seed = 1;
    struct sparse scratch[SPARSE_SCRATCH] = {0};
    for (int i = 0; i < SPARSE_SCRATCH; i++)
        scratch[i].dim = DIM;
    for (int round = 0; round < 2000; round++) {
        struct world world = {.tree = tree_of(1 + below(&seed, BLOCKS_MOST)), .bfloat16 = round % 2 == 1};
        world.samples = 1 + below(&seed, 2 * BLOCKS_MOST);
        for (uint32_t b = 0; b < world.tree.blocks; b++) {
            world.blocks[b] = (struct sparse){.dim = DIM};
            make_block(&seed, world.bfloat16, &world.dense[b], &world.blocks[b]);
        }
        for (int i = 0; i < SPARSE_SCRATCH; i++)
            scratch[i].bfloat16 = world.bfloat16;
        struct sparse *values[NODES] = {0};
        cover(&world, &seed, TREE_ROOT, values);
        assert_true(sparse_tree_complete(world.tree, world.samples, TREE_ROOT, values));
        struct dense want;
        assert_true(define(&world, TREE_ROOT, &want));
        assert_same(sparse_tree_value(world.tree, world.samples, TREE_ROOT, values, scratch), &want);

        /* One less, and it is not complete. */
        for (uint32_t node = 0; node < NODES; node++) {
            struct sparse *taken = values[node];
            values[node] = NULL;
            assert_true(taken == NULL || !sparse_tree_complete(world.tree, world.samples, TREE_ROOT, values));
            values[node] = taken;
        }
        for (uint32_t node = 0; node < NODES; node++) {
            if (values[node] != NULL)
                sparse_free(values[node]);
            free(values[node]);
        }
        for (uint32_t b = 0; b < world.tree.blocks; b++)
            sparse_free(&world.blocks[b]);
    }
    for (int i = 0; i < SPARSE_SCRATCH; i++)
        sparse_free(&scratch[i]);
}

static void ids_are_sorted_and_unique(void **state)
{
    (void)state;
    enum { MOST = 500 };
    uint64_t seed = 9;
    for (int round = 0; round < 300; round++) {
        uint32_t ids[MOST], scratch[MOST], count = below(&seed, MOST), range = 1U << below(&seed, 32);
        bool seen[MOST] = {0};
        uint32_t given[MOST];
        for (uint32_t i = 0; i < count; i++)
            given[i] = ids[i] = round % 3 == 0 ? (uint32_t)random_next(&seed) : below(&seed, range);
        uint32_t kept = sparse_unique(ids, count, scratch);
        for (uint32_t i = 0; i < kept; i++)
            assert_true(i == 0 || ids[i - 1] < ids[i]);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t at = sparse_find(ids, kept, given[i]);
            assert_true(at < kept);
            seen[at] = true;
            uint32_t next = sparse_find(ids, kept, given[i] + 1);
            assert_true(next == kept || ids[next] == given[i] + 1);
        }
        for (uint32_t i = 0; i < kept; i++)
            assert_true(seen[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_a_dense_table),
        cmocka_unit_test(ids_are_sorted_and_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
