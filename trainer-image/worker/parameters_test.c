/* θ in two buffers: what is complete, what is over, what has to be asked for. */
#include "worker/parameters.h"

#include "numerics/numerics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Two shards of a chunk and a half each. */
enum { CHUNKS = 4, COUNT = 3 * WIRE_CHUNK_FLOATS };

static struct parameters *make_with(enum plan_wire wire, uint32_t tables)
{
    struct error err = {0};
    struct parameters *parameters = NULL;
    struct network_tensor tensor = {.count = COUNT};
    const struct network network = {.tensors = &tensor, .tensor_count = 1, .parameters = COUNT, .table_count = tables};
    assert_int_equal(parameters_new(&parameters, &network, 2, wire, &err), 0);
    assert_int_equal(parameters_chunks(parameters), CHUNKS);
    return parameters;
}

static struct parameters *make_of(enum plan_wire wire)
{
    return make_with(wire, 0);
}

static struct parameters *make(void)
{
    return make_of(PLAN_FLOAT32);
}

/* Every value says which version it is of. */
static bool arrive(struct parameters *parameters, uint32_t index, uint64_t version)
{
    const struct chunk *chunk = parameters_chunk(parameters, index);
    float *place = parameters_place(parameters, chunk, version);
    if (place == NULL)
        return false;
    for (uint32_t i = 0; i < chunk->count; i++)
        place[i] = (float)version;
    parameters_placed(parameters, chunk, version);
    return true;
}

static void arrive_all(struct parameters *parameters, uint64_t version)
{
    for (uint32_t i = 0; i < CHUNKS; i++)
        assert_true(arrive(parameters, i, version));
}

static void expect_complete(const struct parameters *parameters, uint64_t version)
{
    const float *values = parameters_at(parameters, version);
    assert_non_null(values);
    for (size_t i = 0; i < COUNT; i += 1000)
        assert_true(values[i] == (float)version);
}

static void test_chunks_are_those_of_the_shards(void **state)
{
    (void)state;
    cleanup_parameters struct parameters *parameters = make();
    uint64_t next = 0;
    for (uint32_t i = 0; i < CHUNKS; i++) {
        const struct chunk *chunk = parameters_chunk(parameters, i);
        assert_int_equal(chunk->shard, i / 2);
        assert_int_equal(chunk->offset, next);
        assert_int_equal(parameters_bytes(parameters, chunk), chunk->count * 4);
        assert_ptr_equal(parameters_find(parameters, chunk->offset), chunk);
        next += chunk->count;
    }
    assert_int_equal(next, COUNT);
    assert_null(parameters_find(parameters, 1));
    assert_null(parameters_find(parameters, COUNT));
}

static void test_both_versions_are_held(void **state)
{
    (void)state;
    cleanup_parameters struct parameters *parameters = make();
    assert_null(parameters_at(parameters, 0));
    arrive_all(parameters, 0);
    expect_complete(parameters, 0);
    assert_false(parameters_over(parameters, 0));
    for (uint32_t i = 0; i < CHUNKS - 1; i++)
        assert_true(arrive(parameters, i, 1));
    expect_complete(parameters, 0);
    assert_null(parameters_at(parameters, 1));
    assert_false(parameters_over(parameters, 0));
    assert_true(arrive(parameters, CHUNKS - 1, 1));
    expect_complete(parameters, 1);
    expect_complete(parameters, 0);
    assert_true(parameters_over(parameters, 0));
    assert_false(parameters_over(parameters, 1));
}

/* Who pushed a step's gradients may have died before it pushed those of rows: others compute it once more, although all
 * chunks are further. */
static void test_tables_may_still_wait_for_a_step(void **state)
{
    (void)state;
    cleanup_parameters struct parameters *parameters = make_with(PLAN_FLOAT32, 1);
    arrive_all(parameters, 0);
    arrive_all(parameters, 1);
    expect_complete(parameters, 0);
    expect_complete(parameters, 1);
    assert_false(parameters_over(parameters, 0));
    assert_true(arrive(parameters, 1, 2));
    assert_true(parameters_over(parameters, 0)); /* that took all tables */
    assert_false(parameters_over(parameters, 1));
}

static void test_a_chunk_that_is_coming_is_not_there(void **state)
{
    (void)state;
    cleanup_parameters struct parameters *parameters = make();
    arrive_all(parameters, 4);
    const struct chunk *chunk = parameters_chunk(parameters, 2);
    assert_non_null(parameters_place(parameters, chunk, 6));
    assert_null(parameters_at(parameters, 4)); /* overwritten in part */
    assert_null(parameters_at(parameters, 6));
    assert_true(parameters_over(parameters, 4)); /* 6 cannot exist otherwise */
    /* The connection broke: the same comes again, from another one. */
    assert_true(arrive(parameters, 2, 6));
    assert_null(parameters_at(parameters, 6));
    for (uint32_t i = 0; i < CHUNKS; i++)
        assert_int_equal(arrive(parameters, i, 6), i != 2);
    expect_complete(parameters, 6);
}

static void test_what_is_old_is_not_taken(void **state)
{
    (void)state;
    cleanup_parameters struct parameters *parameters = make();
    arrive_all(parameters, 5);
    assert_false(arrive(parameters, 0, 5));
    assert_false(arrive(parameters, 0, 3));
    assert_true(arrive(parameters, 0, 4)); /* asked for: it lives in the other buffer */
    expect_complete(parameters, 5);
}

static void test_versions_may_be_left_out(void **state)
{
    (void)state;
    cleanup_parameters struct parameters *parameters = make();
    arrive_all(parameters, 1);
    for (uint32_t i = 0; i < CHUNKS; i++)
        assert_true(arrive(parameters, i, i < 2 ? 3 : 5)); /* a receiver that lags gets the newest */
    assert_null(parameters_at(parameters, 3));
    assert_null(parameters_at(parameters, 5));
    assert_true(arrive(parameters, 0, 5));
    assert_true(arrive(parameters, 1, 5));
    expect_complete(parameters, 5);
    assert_true(parameters_over(parameters, 3));
    assert_true(parameters_over(parameters, 4));
    assert_false(parameters_over(parameters, 5));
}

static void test_what_was_overtaken_is_asked_for_once(void **state)
{
    (void)state;
    cleanup_parameters struct parameters *parameters = make();
    assert_false(parameters_must_ask(parameters, 0, 2)); /* nothing has come: it will */
    assert_true(arrive(parameters, 0, 3));
    assert_false(parameters_must_ask(parameters, 1, 2));
    assert_true(parameters_must_ask(parameters, 0, 2));
    assert_false(parameters_must_ask(parameters, 0, 2));
    parameters_ask_again(parameters, 1);
    assert_false(parameters_must_ask(parameters, 0, 2)); /* another shard's connection is new */
    parameters_ask_again(parameters, 0);
    assert_true(parameters_must_ask(parameters, 0, 2));
    assert_true(arrive(parameters, 0, 2));
    parameters_ask_again(parameters, 0);
    assert_false(parameters_must_ask(parameters, 0, 2));
    assert_false(parameters_must_ask(parameters, 0, 3));
}

static void test_all_can_be_forgotten(void **state)
{
    (void)state;
    cleanup_parameters struct parameters *parameters = make();
    arrive_all(parameters, 7);
    arrive_all(parameters, 8);
    parameters_forget(parameters);
    assert_null(parameters_at(parameters, 7));
    assert_null(parameters_at(parameters, 8));
    assert_false(parameters_over(parameters, 0));
    arrive_all(parameters, 0);
    expect_complete(parameters, 0);
}

/* Every value its own, in chunks of odd sizes, too; what is not whole is not unpacked over a neighbour. */
static void test_rounded_ones_are_unpacked(void **state)
{
    (void)state;
    enum { ODD = 70001 };
    struct error err = {0};
    cleanup_parameters struct parameters *parameters = NULL;
    struct network_tensor tensors[2] = {{.count = 3}, {.offset = 3, .count = ODD - 3}};
    const struct network network = {.tensors = tensors, .tensor_count = 2, .parameters = ODD};
    assert_int_equal(parameters_new(&parameters, &network, 1, PLAN_BFLOAT16, &err), 0);
    for (uint32_t i = parameters_chunks(parameters); i-- > 0;) {
        const struct chunk *chunk = parameters_chunk(parameters, i);
        assert_int_equal(parameters_bytes(parameters, chunk), chunk->count * 2);
        uint16_t *place = parameters_place(parameters, chunk, 4);
        for (uint32_t k = 0; k < chunk->count; k++)
            place[k] = (uint16_t)((chunk->offset + k) % 0x7f80); /* no NaN, which equals nothing */
        parameters_placed(parameters, chunk, 4);
    }
    const float *values = parameters_at(parameters, 4);
    assert_non_null(values);
    for (uint32_t i = 0; i < ODD; i++)
        assert_true(values[i] == bfloat16_value((uint16_t)(i % 0x7f80)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_are_those_of_the_shards),
        cmocka_unit_test(test_both_versions_are_held),
        cmocka_unit_test(test_tables_may_still_wait_for_a_step),
        cmocka_unit_test(test_a_chunk_that_is_coming_is_not_there),
        cmocka_unit_test(test_what_is_old_is_not_taken),
        cmocka_unit_test(test_versions_may_be_left_out),
        cmocka_unit_test(test_what_was_overtaken_is_asked_for_once),
        cmocka_unit_test(test_all_can_be_forgotten),
        cmocka_unit_test(test_rounded_ones_are_unpacked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
