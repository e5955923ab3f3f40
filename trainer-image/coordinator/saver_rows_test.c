/* The lists of all shards become one table, in both wires; what is no answer is refused, so that listing ends. */
#include "coordinator/saver_rows.h"

#include "numerics/numerics.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <stdlib.h>
#include <string.h>

enum { ROWS = 1000, DIM = 3, SHARDS = 3 };

static const struct network network = {
    .table_count = 2,
    .tables = {{.name = "a.weight", .rows = ROWS, .dim = DIM}, {.name = "b.weight", .rows = ROWS, .dim = 1000}}};

/* Row `id` is id + 0.5 everywhere, and exists where its number says so. */
static bool exists(uint32_t id)
{
    return id * 2654435761U % 5 < 2;
}

/* What a shard answers to `ask`: at most `most` rows. */
static struct frame answer(const struct frame *ask, uint32_t shard, uint32_t most, enum plan_wire wire, uint32_t *out)
{
    struct frame frame = *ask;
    const uint32_t dim = ask->offset == 0 ? DIM : 1000;
    uint32_t ids[64], count = 0;
    for (uint32_t id = (uint32_t)ask->value.counter; id < ROWS && count < most; id++)
        if (id % SHARDS == shard && exists(id) && (ask->offset == 0 || id < 10))
            ids[count++] = id;
    memcpy(out, ids, count * sizeof *ids);
    for (uint32_t i = 0; i < count * dim; i++) {
        uint32_t id = ids[i / dim];
        float value = (float)id + 0.5F;
        if (wire == PLAN_BFLOAT16)
            ((uint16_t *)(void *)(out + count))[i] = bfloat16_of(value);
        else
            ((float *)(void *)(out + count))[i] = value;
    }
    frame.type = FRAME_LISTED;
    frame.count = count;
    frame.length = count * (4 + dim * (wire == PLAN_BFLOAT16 ? 2 : 4));
    return frame;
}

static void collect(enum plan_wire wire)
{
    struct plan plan = {.shards = SHARDS, .wire = wire};
    struct saver_rows *rows = NULL;
    struct error err = {0};
    assert_int_equal(saver_rows_new(&rows, &network, &plan, 9, &err), 0);
    cleanup_free uint32_t *payload = malloc(WIRE_PAYLOAD_MOST);
    bool any = true;
    for (int turn = 0; any; turn++) {
        any = false;
        for (uint32_t shard = 0; shard < SHARDS; shard++) { /* by turns, in pages of different lengths */
            struct frame ask;
            if (!saver_rows_ask(rows, shard, &ask))
                continue;
            any = true;
            assert_int_equal(ask.type, FRAME_LIST_ROWS);
            assert_int_equal(ask.step, 9);
            struct frame frame = answer(&ask, shard, 1 + (uint32_t)(turn % 7), wire, payload);
            if (saver_rows_check(rows, shard, &frame, &err) < 0 ||
                saver_rows_take(rows, shard, &frame, payload, &err) < 0)
                fail_msg("%s", error_message(&err));
        }
    }
    const struct model_table *tables = saver_rows_tables(rows);
    assert_non_null(tables);
    for (uint32_t t = 0; t < 2; t++) {
        uint32_t at = 0, end = t == 0 ? ROWS : 10, dim = t == 0 ? DIM : 1000;
        for (uint32_t id = 0; id < end; id++) {
            if (!exists(id))
                continue;
            float value = (float)id + 0.5F;
            value = wire == PLAN_BFLOAT16 ? bfloat16_value(bfloat16_of(value)) : value;
            assert_int_equal(tables[t].ids[at], id);
            for (uint32_t i = 0; i < dim; i++)
                assert_true(tables[t].values[(size_t)at * dim + i] == value);
            at++;
        }
        assert_int_equal(tables[t].count, at);
    }
    saver_rows_free(rows);
}

static void lists_become_one(void **state)
{
    (void)state;
    collect(PLAN_FLOAT32);
    collect(PLAN_BFLOAT16);
}

static void what_is_no_answer_is_refused(void **state)
{
    (void)state;
    struct plan plan = {.shards = SHARDS};
    struct saver_rows *rows = NULL;
    struct error err = {0};
    assert_int_equal(saver_rows_new(&rows, &network, &plan, 9, &err), 0);
    struct frame ask;
    uint32_t payload[64];
    assert_true(saver_rows_ask(rows, 1, &ask));
    const struct frame good = answer(&ask, 1, 4, PLAN_FLOAT32, payload);
    assert_int_equal(saver_rows_check(rows, 1, &good, &err), 0);
    struct frame wrong[6] = {good, good, good, good, good, good};
    wrong[0].type = FRAME_PARAMS;
    wrong[1].step = 8;
    wrong[2].offset = 1;
    wrong[3].value.counter = 1;
    wrong[4].count = 3;
    wrong[5].count = UINT32_MAX;
    for (int i = 0; i < 6; i++)
        assert_int_equal(saver_rows_check(rows, 1, &wrong[i], &err), -1);
    uint32_t ids[4];
    memcpy(ids, payload, sizeof ids);
    payload[1] = payload[0]; /* twice */
    assert_int_equal(saver_rows_take(rows, 1, &good, payload, &err), -1);
    payload[1] = ids[1] + 1; /* another shard's */
    assert_int_equal(saver_rows_take(rows, 1, &good, payload, &err), -1);
    payload[1] = ids[1];
    payload[3] = ROWS; /* none of the table's: 1000 = 1 mod 3 */
    assert_int_equal(saver_rows_take(rows, 1, &good, payload, &err), -1);
    payload[3] = ids[3];
    assert_int_equal(saver_rows_take(rows, 1, &good, payload, &err), 0);
    assert_true(saver_rows_ask(rows, 1, &ask));
    assert_int_equal(ask.value.counter, ids[3] + 1);
    struct frame again = good;
    again.value = ask.value; /* ids below what was asked for */
    assert_int_equal(saver_rows_check(rows, 1, &again, &err), 0);
    assert_int_equal(saver_rows_take(rows, 1, &again, payload, &err), -1);
    saver_rows_free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_become_one),
        cmocka_unit_test(what_is_no_answer_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
