/* A table against one that holds all of its rows from the start: the same values, of both versions, the same rows in
 * the same order; and memory for nothing but the rows that were touched. */
#include "ps/table.h"

#include "common/test/dice.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_MOST = 3000, DIM_MOST = 9, STATES_MOST = 2 };

/* Every kind of state is used, so that one which is not kept, or not kept apart, shows. */
static void update(void *arg, float *theta, float *state, const float *sum, size_t n)
{
    const uint32_t *states = arg;
    for (size_t i = 0; i < n; i++) {
        float step = sum[i];
        for (uint32_t s = 0; s < *states; s++)
            step = state[s * n + i] = 0.5F * state[s * n + i] + step;
        theta[i] -= 0.125F * step;
    }
}

struct world {
    struct network_table spec;
    struct table_options options;
    struct table *table;
    float rows[2][ROWS_MOST][DIM_MOST]; /* of the newest version, and of the one before */
    float state[ROWS_MOST][STATES_MOST * DIM_MOST];
    bool exists[2][ROWS_MOST];
    struct sparse sum;
};

static void world_start(struct world *world, uint64_t *seed)
{
    memset(world, 0, sizeof *world);
    world->spec = (struct network_table){
        .name = "wide.weight", .rows = 1 + below(seed, ROWS_MOST), .dim = 1 + below(seed, DIM_MOST), .bound = 0.5F};
    world->options = (struct table_options){.table = &world->spec,
                                            .number = below(seed, 4),
                                            .seed = random_next(seed),
                                            .shards = 1 + below(seed, 4),
                                            .states = below(seed, STATES_MOST + 1)};
    world->options.shard = below(seed, world->options.shards);
    struct error err = {0};
    assert_int_equal(table_new(&world->table, &world->options, &err), 0);
    world->sum.dim = world->spec.dim;
    struct random_stream stream = random_stream(world->options.seed, RANDOM_TABLE, world->options.number, 0, 0);
    for (uint32_t id = 0; id < world->spec.rows; id++) {
        for (uint32_t i = 0; i < world->spec.dim; i++) {
            uint32_t word = random_u32_at(stream, (uint64_t)id * world->spec.dim + i);
            world->rows[0][id][i] = -0.5F + (float)(word >> 8) * 0x1p-24F;
        }
    }
}

static bool is_here(const struct world *world, uint32_t id)
{
    return id % world->options.shards == world->options.shard;
}

static void take_step(struct world *world, uint64_t *seed)
{
    const uint32_t dim = world->spec.dim;
    uint32_t one_in = 1 + below(seed, 2 * world->spec.rows);
    assert_int_equal(sparse_reserve(&world->sum, ROWS_MOST), 0);
    world->sum.count = 0;
    memcpy(world->rows[1], world->rows[0], sizeof world->rows[0]);
    memcpy(world->exists[1], world->exists[0], sizeof world->exists[0]);
    for (uint32_t id = 0; id < world->spec.rows; id++) {
        if (!is_here(world, id) || below(seed, one_in) != 0)
            continue;
        float *sum = world->sum.rows + (size_t)world->sum.count * dim;
        for (uint32_t i = 0; i < dim; i++)
            sum[i] = (float)below(seed, 1000) * 0.01F - 5;
        world->sum.ids[world->sum.count++] = id;
        world->exists[0][id] = true;
        update(&world->options.states, world->rows[0][id], world->state[id], sum, dim);
    }
    struct error err = {0};
    assert_int_equal(table_reserve(world->table, world->sum.ids, world->sum.count, &err), 0);
    table_apply(world->table, &world->sum, update, &world->options.states);
}

static void check_version(const struct world *world, uint64_t version, uint32_t age)
{
    assert_true(table_has(world->table, version));
    float row[DIM_MOST];
    for (uint32_t id = 0; id < world->spec.rows; id++) {
        assert_int_equal(table_owns(world->table, id), is_here(world, id));
        if (!is_here(world, id))
            continue;
        table_read(world->table, version, &id, 1, row);
        assert_memory_equal(row, world->rows[age][id], world->spec.dim * sizeof(float));
    }
    /* In pages of odd sizes. */
    uint32_t ids[7], next = 0;
    int64_t count;
    while ((count = table_list(world->table, version, next, ids, 7)) > 0) {
        for (int64_t i = 0; i < count; i++) {
            for (; next < ids[i]; next++)
                assert_false(world->exists[age][next]);
            assert_true(world->exists[age][next++]);
        }
    }
    for (; next < world->spec.rows; next++)
        assert_false(world->exists[age][next]);
}

static void rows_are_those_of_a_dense_table(void **state)
{
    (void)state;
    uint64_t seed = 3;
    struct world *world = malloc(sizeof *world);
    for (int round = 0; round < 120; round++) {
        world_start(world, &seed);
        uint32_t owned = 0;
        for (uint32_t id = 0; id < world->spec.rows; id++)
            owned += is_here(world, id);
        assert_int_equal(table_rows_most(world->table), owned);
        check_version(world, 0, 0);
        assert_int_equal(table_rows(world->table), 0); /* reading makes nothing */
        for (uint64_t version = 1; version <= 4; version++) {
            take_step(world, &seed);
            assert_int_equal(table_version(world->table), version);
            check_version(world, version, 0);
            check_version(world, version - 1, 1);
            assert_false(table_has(world->table, version + 1));
            assert_true(version < 2 || !table_has(world->table, version - 2));
        }
        sparse_free(&world->sum);
        table_free(world->table);
    }
    free(world);
}

static void rows_of_a_file_are_there_from_the_start(void **state)
{
    (void)state;
    struct network_table spec = {.name = "wide.weight", .rows = 100, .dim = 2, .bound = 1};
    struct table_options options = {.table = &spec, .shards = 2, .shard = 1, .states = 1};
    cleanup_table struct table *table = NULL;
    struct error err = {0};
    assert_int_equal(table_new(&table, &options, &err), 0);
    static const uint32_t ids[] = {3, 99};
    static const float rows[] = {1, 2, 3, 4};
    assert_int_equal(table_set(table, ids, rows, 2, &err), 0);
    float out[4];
    table_read(table, 0, ids, 2, out);
    assert_memory_equal(out, rows, sizeof rows);
    uint32_t listed[3];
    assert_int_equal(table_list(table, 0, 4, listed, 3), 1);
    assert_int_equal(listed[0], 99);
    assert_int_equal(table_version(table), 0);
}

/* Of 10 million rows of 16 floats with two states, 1.9 GB if they were all there, a thousand are touched, and all of a
 * million others are read. */
static void untouched_rows_cost_no_memory(void **state)
{
    (void)state;
    enum { ROWS = 10 * 1000 * 1000, TOUCHED = 1000, DIM = 16 };
    struct network_table spec = {.name = "wide.weight", .rows = ROWS, .dim = DIM, .bound = 0.1F};
    struct table_options options = {.table = &spec, .seed = 1, .shards = 1, .states = 2};
    struct error err = {0};
    size_t before = mallinfo2().uordblks;
    cleanup_table struct table *table = NULL;
    assert_int_equal(table_new(&table, &options, &err), 0);
    struct sparse sum = {.dim = DIM};
    assert_int_equal(sparse_reserve(&sum, 1), 0);
    for (uint32_t i = 0; i < TOUCHED; i++) {
        sum.count = 1;
        sum.ids[0] = i * 9973U;
        memset(sum.rows, 0, DIM * sizeof(float));
        assert_int_equal(table_reserve(table, sum.ids, sum.count, &err), 0);
        table_apply(table, &sum, update, &options.states);
    }
    sparse_free(&sum);
    float row[DIM];
    for (uint32_t id = 0; id < ROWS; id += 10)
        table_read(table, TOUCHED, &id, 1, row);
    assert_int_equal(table_rows(table), TOUCHED);
    /* 192 bytes a row in pages, 16 of index at most, and what a page is not full of. */
    assert_true(table_bytes(table) < TOUCHED * (192 + 32) + 64 * 1024 + 4096);
    /* What it says of itself is what it has taken (the sanitizers' malloc does not count). */
    size_t after = mallinfo2().uordblks;
    if (after > before)
        assert_true(after - before < table_bytes(table) + 8192);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_those_of_a_dense_table),
        cmocka_unit_test(rows_of_a_file_are_there_from_the_start),
        cmocka_unit_test(untouched_rows_cost_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
