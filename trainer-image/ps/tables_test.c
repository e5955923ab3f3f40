/* A shard's tables against dense ones: whatever order, overlap, repetition or loss the nodes come with, rows of both
 * versions have the bits of a table of which every row exists, summed recursively, with the optimizer written out. */
#include "ps/tables.h"

#include "common/plan/schedule.h"
#include "common/test/dice.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <stdlib.h>
#include <string.h>

enum { ROWS = 60, DIM = 3, TABLES = 2, SHARDS_MOST = 3, PUSHES_MOST = 3000, IDS = 2 };

struct dense {
    bool there[ROWS];
    float rows[ROWS][DIM];
};

struct world {
    uint64_t seed;
    struct plan plan;
    struct network network;
    struct network_layer layers[2 * TABLES];
    struct tree tree;
    struct schedule schedule;
    struct tables *shards[SHARDS_MOST];
    float theta[2][TABLES][ROWS][DIM]; /* newest, and the one before */
    float velocity[TABLES][ROWS][DIM];
};

/* ---- The definition ---- */

/* Sample `at` of a step holds IDS rows of each table, maybe one twice. */
static uint32_t id_of(uint64_t step, uint64_t at, uint32_t table, uint32_t place)
{
    uint64_t seed = step * 1000003 + at * 1009 + UINT64_C(17) * table + place;
    return below(&seed, ROWS);
}

static float gradient_of(uint64_t step, uint64_t at, uint32_t table, uint32_t place, uint32_t i)
{
    uint64_t seed = ~(step * 1000003 + at * 1009 + UINT64_C(17) * table + UINT64_C(7) * place + i);
    float mantissa = (float)(random_next(&seed) >> 40) * 0x1p-24F - 0.5F;
    return mantissa * (float)(1U << random_next(&seed) % 20);
}

static void block_value(uint64_t step, uint32_t table, struct block_range range, struct dense *out)
{
    *out = (struct dense){0};
    for (uint64_t at = range.begin; at < range.end; at++) {
        for (uint32_t place = 0; place < IDS; place++) {
            uint32_t id = id_of(step, at, table, place);
            out->there[id] = true;
            for (uint32_t i = 0; i < DIM; i++)
                out->rows[id][i] += gradient_of(step, at, table, place, i);
        }
    }
}

/* False where the node is empty. */
static bool node_value(const struct world *world, uint64_t step, uint32_t table, uint32_t node, struct dense *out)
{
    uint64_t samples = schedule_step(&world->schedule, step).count;
    *out = (struct dense){0};
    if (node >= world->tree.leaves) {
        if (tree_node_empty(world->tree, samples, node))
            return false;
        block_value(step, table, tree_block(world->tree, samples, node - world->tree.leaves), out);
        return true;
    }
    struct dense right = {0};
    bool has_left = node_value(world, step, table, 2 * node, out);
    bool has_right = node_value(world, step, table, 2 * node + 1, has_left ? &right : out);
    for (uint32_t id = 0; has_left && has_right && id < ROWS; id++) {
        for (uint32_t i = 0; right.there[id] && i < DIM; i++)
            out->rows[id][i] = out->there[id] ? out->rows[id][i] + right.rows[id][i] : right.rows[id][i];
        out->there[id] = out->there[id] || right.there[id];
    }
    return has_left || has_right;
}

static void reference_step(struct world *world, uint64_t step)
{
    uint32_t samples = schedule_step(&world->schedule, step).count;
    float scale = (float)(1.0 / samples), rate = (float)world->plan.training.optimizer.learning_rate;
    float momentum = (float)world->plan.training.optimizer.momentum;
    memcpy(world->theta[1], world->theta[0], sizeof world->theta[0]);
    for (uint32_t table = 0; table < TABLES; table++) {
        struct dense sum;
        assert_true(node_value(world, step, table, TREE_ROOT, &sum));
        for (uint32_t id = 0; id < ROWS; id++) {
            for (uint32_t i = 0; sum.there[id] && i < DIM; i++) {
                float *v = &world->velocity[table][id][i], *theta = &world->theta[0][table][id][i];
                *v = momentum * *v + sum.rows[id][i] * scale;
                *theta = *theta - rate * *v;
            }
        }
    }
}

/* ---- The world ---- */

static void world_start(struct world *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    world->seed = seed;
    uint64_t *r = &world->seed;
    world->plan.blocks = 1 + below(r, 12);
    world->plan.shards = 1 + below(r, SHARDS_MOST);
    world->plan.training.batch_size = 1 + below(r, 30);
    world->plan.training.epochs = 1 + below(r, 2);
    world->plan.training.seed = random_next(r);
    world->plan.training.optimizer.type = PLAN_SGD;
    world->plan.training.optimizer.learning_rate = 0.05;
    world->plan.training.optimizer.momentum = 0.9;
    world->network = (struct network){.layers = world->layers,
                                      .layer_count = 2 * TABLES,
                                      .table_count = TABLES,
                                      .has_rows_seed = below(r, 2) == 0, /* it goes on from another job's model */
                                      .rows_seed = random_next(r)};
    const uint64_t rows_seed = world->network.has_rows_seed ? world->network.rows_seed : world->plan.training.seed;
    world->network.sample.shape = (struct shape){IDS * TABLES, 1, 1};
    for (uint32_t table = 0; table < TABLES; table++) {
        world->network.tables[table] = (struct network_table){.name = "wide", .rows = ROWS, .dim = DIM, .bound = 0.5F};
        struct network_layer *layers = world->layers + (size_t)2 * table;
        layers[0] = (struct network_layer){
            .type = LAYER_COLUMNS, .inputs = {NETWORK_SAMPLE}, .from = IDS * table, .to = IDS * (table + 1)};
        layers[1] = (struct network_layer){
            .type = LAYER_EMBEDDING, .inputs = {(int32_t)(2 * table)}, .table = table, .dim = DIM, .in = {IDS, 1, 1}};
        struct random_stream stream = random_stream(rows_seed, RANDOM_TABLE, table, 0, 0);
        for (uint32_t i = 0; i < ROWS * DIM; i++)
            world->theta[0][table][i / DIM][i % DIM] = -0.5F + (float)(random_u32_at(stream, i) >> 8) * 0x1p-24F;
    }
    uint64_t samples = 1 + below(r, 3 * world->plan.training.batch_size);
    world->schedule = schedule_of(&world->plan, samples);
    world->tree = tree_of(world->plan.blocks);
    struct error err = {0};
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        if (tables_new(&world->shards[shard], &world->plan, &world->network, shard, samples, &err) < 0)
            fail_msg("%s", error_message(&err));
}

static void world_stop(struct world *world)
{
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        tables_free(world->shards[shard]);
}

static void check_version(const struct world *world, uint64_t version, uint32_t age)
{
    for (uint32_t table = 0; table < TABLES; table++) {
        for (uint32_t id = 0; id < ROWS; id++) {
            float row[DIM];
            const struct table *part = tables_at(world->shards[id % world->plan.shards], table);
            assert_true(table_has(part, version));
            table_read(part, version, &id, 1, row);
            assert_memory_equal(row, world->theta[age][table][id], sizeof row);
        }
    }
}

/* The node's part for a shard; `value` is the whole node's. */
static struct sparse *part_of(const struct world *world, uint32_t table, uint32_t shard, const struct dense *value)
{
    struct sparse *rows = tables_take(world->shards[shard], table, ROWS);
    for (uint32_t id = shard; id < ROWS; id += world->plan.shards) {
        if (!value->there[id])
            continue;
        memcpy(rows->rows + (size_t)rows->count * DIM, value->rows[id], sizeof value->rows[id]);
        rows->ids[rows->count++] = id;
    }
    return rows;
}

static void expect_applied(const struct world *world, struct tables *tables, uint32_t table, uint64_t step)
{
    const struct plan_optimizer *plan = &world->plan.training.optimizer;
    const uint32_t samples = schedule_step(&world->schedule, step).count;
    const struct optimizer_step of = optimizer_step(plan, &world->schedule, step, step + 1, samples, 1);
    assert_int_equal(table_version(tables_at(tables, table)), step);
    tables_apply(tables, table, &of);
    assert_int_equal(table_version(tables_at(tables, table)), step + 1);
}

/* The root, which replaces all that came before where the step is not complete. What is given back is used again. */
static void push_once_more(const struct world *world, uint64_t step, uint32_t table, uint32_t shard)
{
    enum { TAKEN = 3 };
    struct tables *tables = world->shards[shard];
    struct sparse *taken[TAKEN];
    struct dense value;
    struct error err = {0};
    assert_true(node_value(world, step, table, TREE_ROOT, &value));
    assert_int_equal(tables_push(tables, table, TREE_ROOT, part_of(world, table, shard, &value), &err),
                     TABLES_DUPLICATE);
    for (int i = 0; i < TAKEN; i++) {
        taken[i] = tables_take(tables, table, ROWS);
        memset(taken[i]->rows, 0xff, sizeof value.rows);
        memset(taken[i]->ids, 0, ROWS * sizeof taken[i]->ids[0]);
    }
    for (int i = 0; i < TAKEN; i++)
        tables_give(tables, taken[i]);
}

/* One node for some of the shards and tables: the sender dies between two. True where a part was applied. */
static void push_node(struct world *world, uint64_t step, uint32_t node)
{
    uint64_t *r = &world->seed;
    uint32_t only_shard = below(r, 2 * world->plan.shards), only_table = below(r, 2 * TABLES);
    for (uint32_t table = 0; table < TABLES; table++) {
        struct dense value;
        assert_true(node_value(world, step, table, node, &value));
        for (uint32_t shard = 0; shard < world->plan.shards; shard++) {
            if ((only_shard < world->plan.shards && shard != only_shard) ||
                (only_table < TABLES && table != only_table))
                continue;
            struct tables *tables = world->shards[shard];
            struct table *part = tables_at(tables, table);
            if (table_version(part) != step)
                continue;
            struct sparse *rows = part_of(world, table, shard, &value);
            struct frame frame = {.type = FRAME_PUSH_ROWS, .step = step, .node = node, .offset = table};
            frame.count = rows->count;
            struct error err = {0};
            if (tables_check_push(tables, &frame, &err) < 0 ||
                tables_check_ids(tables, table, rows->ids, rows->count, -1, &err) < 0)
                fail_msg("%s", error_message(&err));
            enum tables_result result = tables_push(tables, table, node, rows, &err);
            assert_true(result != TABLES_CONFLICT && result != TABLES_NO_MEMORY);
            /* What waits to be applied stays as it is, whatever else comes. */
            if (result != TABLES_DUPLICATE && below(r, 4) == 0)
                assert_int_equal(tables_push(tables, table, node, part_of(world, table, shard, &value), &err),
                                 TABLES_DUPLICATE);
            if (result == TABLES_COMPLETE && below(r, 4) == 0)
                push_once_more(world, step, table, shard);
            if (result == TABLES_COMPLETE)
                expect_applied(world, tables, table, step);
        }
    }
}

static bool all_at(const struct world *world, uint64_t version)
{
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        for (uint32_t table = 0; table < TABLES; table++)
            if (table_version(tables_at(world->shards[shard], table)) != version)
                return false;
    return true;
}

static void push_something(struct world *world, uint64_t step)
{
    uint64_t *r = &world->seed;
    uint64_t samples = schedule_step(&world->schedule, step).count;
    uint32_t nodes[TREE_COVER_MOST], count = 1;
    nodes[0] = 1 + below(r, 2 * world->tree.leaves - 1);
    if (below(r, 4) != 0) {
        uint32_t first = below(r, world->plan.blocks);
        count = tree_cover(world->tree, samples, first, 1 + below(r, world->plan.blocks - first), nodes);
    }
    for (uint32_t i = 0; i < count; i++)
        if (!tree_node_empty(world->tree, samples, nodes[i]))
            push_node(world, step, nodes[i]);
}

static void rows_do_not_depend_on_how_nodes_come(void **state)
{
    (void)state;
    struct world *world = malloc(sizeof *world);
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        world_start(world, seed * 7919);
        check_version(world, 0, 0);
        for (uint64_t step = 0; step < world->schedule.steps; step++) {
            reference_step(world, step);
            for (int i = 0; !all_at(world, step + 1); i++) {
                assert_true(i < PUSHES_MOST);
                push_something(world, step);
            }
            check_version(world, step + 1, 0);
            check_version(world, step, 1);
        }
        world_stop(world);
    }
    free(world);
}

static void other_bits_for_the_same_node_are_a_conflict(void **state)
{
    (void)state;
    struct world *world = malloc(sizeof *world);
    world_start(world, 4);
    while (world->plan.blocks < 2 || schedule_step(&world->schedule, 0).count < 2) {
        world_stop(world);
        world_start(world, world->seed);
    }
    struct error err = {0};
    uint64_t samples = schedule_step(&world->schedule, 0).count;
    uint32_t node = world->tree.leaves;
    while (tree_node_empty(world->tree, samples, node))
        node++;
    struct sparse *rows = tables_take(world->shards[0], 0, 1);
    assert_int_equal(tables_push(world->shards[0], 0, node, rows, &err), TABLES_ADDED);
    rows = tables_take(world->shards[0], 0, 1);
    assert_int_equal(tables_push(world->shards[0], 0, node, rows, &err), TABLES_DUPLICATE);
    rows = tables_take(world->shards[0], 0, 1);
    rows->ids[0] = 0;
    rows->rows[0] = rows->rows[1] = rows->rows[2] = 1;
    rows->count = 1;
    assert_int_equal(tables_push(world->shards[0], 0, node, rows, &err), TABLES_CONFLICT);
    world_stop(world);
    free(world);
}

static void what_the_plan_does_not_have_is_refused(void **state)
{
    (void)state;
    struct world *world = malloc(sizeof *world);
    world_start(world, 1);
    world_stop(world);
    world->plan.blocks = 6;
    world->plan.shards = 2;
    world->plan.training.batch_size = 12;
    world->plan.training.epochs = 1;
    struct tables *tables = NULL;
    struct error err = {0};
    assert_int_equal(tables_new(&tables, &world->plan, &world->network, 1, 27, &err), 0); /* steps of 12, 12 and 3 */
    static const struct {
        uint64_t step, table;
        uint32_t node, count;
        const char *sentence;
    } cases[] = {
        {0, 0, 1, 24, NULL},
        {0, 1, 8, 4, NULL},
        {0, 1, 8, 0, NULL},
        {0, 2, 8, 0, "PUSH_ROWS names table 2; the model has 2, from 0"},
        {3, 0, 1, 0, "PUSH_ROWS names step 3; the job has 3, from 0"},
        {0, 0, 0, 0, "PUSH_ROWS names node 0, which has no samples in step 0 with 6 blocks"},
        {0, 0, 16, 0, "PUSH_ROWS names node 16"},
        {0, 0, 14, 0, "PUSH_ROWS names node 14"},
        {2, 0, 8, 0, "PUSH_ROWS names node 8, which has no samples in step 2"},
        {0, 0, 8, 5, "PUSH_ROWS brings 5 rows for node 8 of step 0, which can have 4 here"},
        {0, 0, 1, 31, "PUSH_ROWS brings 31 rows for node 1 of step 0, which can have 24 here"},
        {2, 0, 1, UINT32_MAX, "PUSH_ROWS brings 4294967295 rows for node 1 of step 2, which can have 6 here"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct frame frame = {.type = FRAME_PUSH_ROWS,
                              .step = cases[i].step,
                              .offset = cases[i].table,
                              .node = cases[i].node,
                              .count = cases[i].count};
        err.message[0] = '\0';
        assert_int_equal(tables_check_push(tables, &frame, &err), cases[i].sentence == NULL ? 0 : -1);
        if (cases[i].sentence != NULL && strstr(error_message(&err), cases[i].sentence) == NULL)
            fail_msg("'%s' does not say '%s'", error_message(&err), cases[i].sentence);
    }
    static const uint32_t good[] = {1, 5, 59}, other[] = {1, 4}, again[] = {5, 5}, far[] = {61};
    assert_int_equal(tables_check_ids(tables, 0, good, 3, -1, &err), 0);
    assert_int_equal(tables_check_ids(tables, 0, good, 3, 0, &err), 0);
    assert_int_equal(tables_check_ids(tables, 0, good, 3, 1, &err), -1);
    assert_int_equal(tables_check_ids(tables, 0, other, 2, -1, &err), -1);
    assert_int_equal(tables_check_ids(tables, 0, again, 2, -1, &err), -1);
    assert_int_equal(tables_check_ids(tables, 0, far, 1, -1, &err), -1);
    assert_int_equal(tables_rows_most(tables, 0), 24);
    tables_free(tables);
    free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_do_not_depend_on_how_nodes_come),
        cmocka_unit_test(other_bits_for_the_same_node_are_a_conflict),
        cmocka_unit_test(what_the_plan_does_not_have_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
