/* A worker's rows: what it asks for is what its samples hold, wherever it lies, and what it pushes is what a dense
 * table would have as its gradient, node by node, in both wires. */
#include "worker/rows.h"

#include "common/buffer.h"
#include "common/plan/schedule.h"
#include "ps/layout.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SAMPLES = 60, COLUMNS = 5, BATCH = 21, ROWS = 256, TABLES = 2, DIM_MOST = 1000, FRAMES_MOST = 4096 };

static const char layers[] = "[{\"name\":\"ids_a\",\"type\":\"Columns\",\"inputs\":[\"input\"],\"from\":1,\"to\":3},"
                             "{\"name\":\"a\",\"type\":\"Embedding\",\"dim\":1000},"
                             "{\"name\":\"ids_b\",\"type\":\"Columns\",\"inputs\":[\"input\"],\"from\":3,\"to\":5},"
                             "{\"name\":\"b\",\"type\":\"Embedding\",\"dim\":2},"
                             "{\"name\":\"number\",\"type\":\"Columns\",\"inputs\":[\"input\"],\"from\":0,\"to\":1},"
                             "{\"name\":\"all\",\"type\":\"Concat\",\"inputs\":[\"number\",\"a\",\"b\"]},"
                             "{\"name\":\"out\",\"type\":\"Dense\"}]";

struct kept {
    uint32_t shard;
    struct frame frame;
    struct payload *payload;
};

struct bed {
    char folder[64];
    struct net *net;
    struct plan plan;
    struct model *model;
    struct dataset *train;
    struct rows *rows;
    float *params;
    float *table[TABLES]; /* [ROWS][dim]: what the shards have */
    uint32_t ids[ROWS];   /* all */
    struct kept frames[FRAMES_MOST];
    uint32_t frame_count;
};

static uint32_t dim_of(const struct bed *bed, uint64_t table)
{
    return model_network(bed->model)->tables[table].dim;
}

static void put_idx(const struct bed *bed, const char *name, uint32_t rank, uint32_t modulus)
{
    struct error err = {0};
    size_t size = rank == 1 ? SAMPLES : SAMPLES * COLUMNS;
    uint8_t header[12] = {0, 0, 8, (uint8_t)rank, 0, 0, 0, SAMPLES, 0, 0, 0, COLUMNS};
    cleanup_buffer struct buffer content;
    buffer_init(&content, 1 << 20);
    assert_int_equal(buffer_append(&content, header, rank == 1 ? 8 : 12, &err), 0);
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)((i * 2654435761U >> 9) % modulus);
        byte = i % 4 == 3 ? byte % 7 : byte; /* some rows come often */
        assert_int_equal(buffer_append(&content, &byte, 1, &err), 0);
    }
    char path[128];
    snprintf(path, sizeof path, "%s/%s", bed->folder, name);
    assert_int_equal(file_write_atomically(path, content.data, content.length, &err), 0);
}

static void keep(void *arg, uint32_t shard, const struct frame *frame, struct payload *payload)
{
    struct bed *bed = arg;
    assert_true(bed->frame_count < FRAMES_MOST);
    assert_true(payload == NULL || payload->length <= WIRE_PAYLOAD_MOST);
    bed->frames[bed->frame_count] = (struct kept){shard, *frame, payload == NULL ? NULL : payload_ref(payload)};
    bed->frames[bed->frame_count++].frame.length = payload == NULL ? 0 : payload->length;
}

static void drop_frames(struct bed *bed)
{
    while (bed->frame_count > 0)
        payload_unref(bed->net, bed->frames[--bed->frame_count].payload);
}

static void make(struct bed *bed, uint32_t blocks, uint32_t shards, enum plan_wire wire)
{
    *bed = (struct bed){.folder = "/tmp/thole-rows-XXXXXX"};
    assert_non_null(mkdtemp(bed->folder));
    put_idx(bed, "x", 2, ROWS);
    put_idx(bed, "y", 1, 3);
    struct plan *plan = &bed->plan;
    plan->dataset.train = (struct plan_split){(char *)"x", (char *)"y"};
    plan->dataset.classes = 3;
    plan->dataset.channels = 1;
    plan->dataset.scale = 1;
    plan->dataset.std[0] = 1;
    plan->training.epochs = 1;
    plan->training.batch_size = BATCH;
    plan->training.seed = 7;
    plan->blocks = blocks;
    plan->shards = shards;
    plan->wire = wire;
    struct error err = {0};
    struct net_options options = {.boot_id = 1};
    cleanup_json cJSON *list = cJSON_Parse(layers);
    struct network_sample sample = {.shape = {COLUMNS, 1, 1}, .categories = 4, .rows = ROWS, .classes = 3};
    struct network *network = NULL;
    struct rows_hooks hooks = {keep, bed};
    if (net_new(&bed->net, &options, &err) < 0 ||
        dataset_open(&bed->train, bed->folder, plan, DATASET_TRAIN, &err) < 0 ||
        network_build(&network, &(struct network_spec){.layers = list}, &sample, &err) < 0 ||
        model_build(&bed->model, network, &err) < 0 ||
        rows_new(&bed->rows, bed->net, plan, bed->model, &hooks, &err) < 0)
        fail_msg("%s", error_message(&err));
    bed->params = malloc(model_parameters(bed->model) * sizeof(float));
    model_init_range(bed->model, 7, 0, model_parameters(bed->model), bed->params);
    for (uint32_t table = 0; table < TABLES; table++) {
        size_t floats = (size_t)ROWS * dim_of(bed, table);
        bed->table[table] = malloc(floats * sizeof(float));
        random_uniform_range(random_stream(3, RANDOM_CANARY, table, 0, 0), 0, floats, -1, 1, bed->table[table]);
        for (size_t i = 0; i < floats && wire == PLAN_BFLOAT16; i++)
            bed->table[table][i] = bfloat16_value(bfloat16_of(bed->table[table][i]));
    }
    for (uint32_t id = 0; id < ROWS; id++)
        bed->ids[id] = id;
}

static void unmake(struct bed *bed)
{
    drop_frames(bed);
    rows_free(bed->rows);
    dataset_free(bed->train);
    model_free(bed->model);
    net_free(bed->net);
    free(bed->params);
    for (uint32_t table = 0; table < TABLES; table++)
        free(bed->table[table]);
    char path[128];
    snprintf(path, sizeof path, "%s/x", bed->folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/y", bed->folder);
    unlink(path);
    rmdir(bed->folder);
}

/* Answers a request as a shard would. */
static void answer(struct bed *bed, const struct kept *ask)
{
    const uint32_t dim = dim_of(bed, ask->frame.offset);
    const uint32_t *ids = ask->payload == NULL ? NULL : (const uint32_t *)(const void *)ask->payload->data;
    assert_int_equal(ask->frame.type, FRAME_GET_ROWS);
    assert_int_equal(ask->frame.length, ask->frame.count * 4);
    unsigned char values[WIRE_PAYLOAD_MOST];
    for (uint32_t i = 0; ids != NULL && i < ask->frame.count; i++) {
        assert_true(ids[i] < ROWS && ids[i] % bed->plan.shards == ask->shard && (i == 0 || ids[i] > ids[i - 1]));
        const float *row = bed->table[ask->frame.offset] + (size_t)ids[i] * dim;
        if (bed->plan.wire == PLAN_BFLOAT16)
            vector_bfloat16_pack((uint16_t *)(void *)values + (size_t)i * dim, row, dim);
        else
            memcpy(values + (size_t)i * dim * 4, row, dim * sizeof(float));
    }
    struct frame frame = ask->frame;
    frame.type = FRAME_ROWS;
    frame.length = frame.count * dim * layout_value_bytes(bed->plan.wire);
    struct error err = {0};
    bool wanted = false;
    assert_int_equal(rows_check(bed->rows, ask->shard, &frame, &wanted, &err), 0);
    if (wanted)
        rows_received(bed->rows, ask->shard, &frame, values);
}

static struct rows_range range_of(const struct bed *bed, const struct permutation *order, uint64_t step, uint32_t first,
                                  uint32_t count)
{
    struct schedule schedule = schedule_of(&bed->plan, SAMPLES);
    struct schedule_step at = schedule_step(&schedule, step);
    struct tree tree = tree_of(bed->plan.blocks);
    uint64_t begin = tree_block(tree, at.count, first).begin, end = tree_block(tree, at.count, first + count - 1).end;
    return (struct rows_range){bed->train, order, at.epoch, at.first + begin, end - begin, step, 0};
}

static void want_and_get(struct bed *bed, const struct rows_range *range)
{
    struct error err = {0};
    if (rows_want(bed->rows, range, &err) < 0)
        fail_msg("%s", error_message(&err));
    uint32_t asked = bed->frame_count;
    assert_int_equal(rows_want(bed->rows, range, &err), 0); /* once is enough */
    assert_int_equal(bed->frame_count, asked);
    /* Shards answer in any order; each in the order of its requests. */
    for (uint32_t shard = bed->plan.shards; shard-- > 0;) {
        for (uint32_t i = 0; i < asked; i++) {
            if (bed->frames[i].shard != shard)
                continue;
            assert_false(rows_here(bed->rows));
            answer(bed, &bed->frames[i]);
        }
    }
    assert_true(rows_here(bed->rows));
    drop_frames(bed);
}

/* ---- the definition: tables of which every row is there ---- */

struct dense {
    bool there[ROWS];
    float *rows; /* [ROWS][dim] */
};

struct block {
    float x[BATCH * COLUMNS], targets[BATCH];
    uint32_t n;
};

static void fetch(const struct bed *bed, const struct permutation *order, const struct rows_range *range,
                  struct block *out)
{
    out->n = (uint32_t)range->count;
    dataset_fetch(bed->train, order, range->first, out->n, out->x, out->targets);
}

static bool define(const struct bed *bed, const struct permutation *order, uint64_t step, uint32_t node,
                   uint32_t samples, struct dense out[TABLES])
{
    struct tree tree = tree_of(bed->plan.blocks);
    for (uint32_t t = 0; t < TABLES; t++)
        memset(out[t].there, 0, sizeof out[t].there);
    if (tree_node_empty(tree, samples, node))
        return false;
    if (tree_is_leaf(tree, node)) {
        struct block block;
        struct rows_range range = range_of(bed, order, step, node - tree.leaves, 1);
        fetch(bed, order, &range, &block);
        struct model_rows rows[TABLES];
        for (uint32_t t = 0; t < TABLES; t++) {
            rows[t] = (struct model_rows){ROWS, bed->ids, bed->table[t], out[t].rows};
            for (uint32_t i = 0; i < block.n; i++)
                for (uint32_t k = 0; k < 2; k++)
                    out[t].there[(uint32_t)block.x[(size_t)i * COLUMNS + 1 + (size_t)2 * t + k]] = true;
        }
        struct error err = {0};
        cleanup_workspace struct workspace *workspace = NULL;
        assert_int_equal(workspace_new(&workspace, bed->model, block.n, &err), 0);
        cleanup_free float *grad = malloc(model_parameters(bed->model) * sizeof(float));
        model_gradient(bed->model, bed->params,
                       &(struct model_batch){.n = block.n, .x = block.x, .targets = block.targets, .rows = rows}, grad,
                       workspace);
        return true;
    }
    struct dense right[TABLES] = {0};
    for (uint32_t t = 0; t < TABLES; t++)
        right[t].rows = malloc((size_t)ROWS * dim_of(bed, t) * sizeof(float));
    bool has_left = define(bed, order, step, 2 * node, samples, out);
    bool has_right = define(bed, order, step, 2 * node + 1, samples, has_left ? right : out);
    for (uint32_t t = 0; t < TABLES && has_left && has_right; t++) {
        const uint32_t dim = dim_of(bed, t);
        for (uint32_t id = 0; id < ROWS; id++) {
            float *to = out[t].rows + (size_t)id * dim, *from = right[t].rows + (size_t)id * dim;
            if (right[t].there[id] && !out[t].there[id])
                memcpy(to, from, dim * sizeof(float));
            else if (right[t].there[id] && bed->plan.wire == PLAN_BFLOAT16)
                vector_bfloat16_add(to, from, dim);
            else if (right[t].there[id])
                vector_add(to, from, dim);
            out[t].there[id] = out[t].there[id] || right[t].there[id];
        }
    }
    for (uint32_t t = 0; t < TABLES; t++)
        free(right[t].rows);
    return has_left || has_right;
}

/* ---- what was pushed ---- */

/* Every shard has been sent each table's part, whole and in order: the definition's rows, and none beside. */
static void expect_pushed(const struct bed *bed, enum frame_type type, uint32_t node, const struct dense want[TABLES])
{
    const uint32_t value_bytes = layout_value_bytes(bed->plan.wire);
    uint32_t at = 0;
    for (uint32_t t = 0; t < TABLES; t++) {
        const uint32_t dim = dim_of(bed, t);
        for (uint32_t shard = 0; shard < bed->plan.shards; shard++) {
            uint32_t id = shard, seen = 0, total = 0;
            do {
                assert_true(at < bed->frame_count);
                const struct kept *kept = &bed->frames[at++];
                const struct frame *frame = &kept->frame;
                assert_int_equal(frame->type, type);
                assert_int_equal(frame->node, node);
                assert_int_equal(frame->offset, t);
                assert_int_equal(kept->shard, shard);
                assert_int_equal(frame->value.counter, seen);
                total = frame->count;
                uint32_t rows = frame->length / (4 + dim * value_bytes);
                assert_int_equal(frame->length, rows * (4 + dim * value_bytes));
                const uint32_t *ids =
                    kept->payload == NULL ? NULL : (const uint32_t *)(const void *)kept->payload->data;
                assert_true(rows == 0 || ids != NULL);
                for (uint32_t i = 0; ids != NULL && i < rows; i++, id += bed->plan.shards, seen++) {
                    while (!want[t].there[id])
                        id += bed->plan.shards;
                    assert_int_equal(ids[i], id);
                    uint16_t packed[DIM_MOST];
                    vector_bfloat16_pack(packed, want[t].rows + (size_t)id * dim, dim);
                    const void *expected =
                        value_bytes == 2 ? (const void *)packed : (const void *)(want[t].rows + (size_t)id * dim);
                    assert_memory_equal((const unsigned char *)(ids + rows) + (size_t)i * dim * value_bytes, expected,
                                        (size_t)dim * value_bytes);
                }
            } while (seen < total);
            for (; id < ROWS; id += bed->plan.shards)
                assert_false(want[t].there[id]);
        }
    }
    assert_int_equal(at, bed->frame_count);
}

static void compute_node(struct bed *bed, const struct permutation *order, uint64_t step, uint32_t node,
                         uint32_t samples)
{
    struct tree tree = tree_of(bed->plan.blocks);
    uint32_t first, end;
    tree_node_blocks(tree, node, &first, &end);
    struct error err = {0};
    cleanup_workspace struct workspace *workspace = NULL;
    assert_int_equal(workspace_new(&workspace, bed->model, BATCH, &err), 0);
    cleanup_free float *grad = malloc(model_parameters(bed->model) * sizeof(float));
    rows_begin(bed->rows);
    for (uint32_t b = first; b < end; b++) {
        struct block block;
        struct rows_range range = range_of(bed, order, step, b, 1);
        if (range.count == 0)
            continue;
        fetch(bed, order, &range, &block);
        struct model_batch batch = {.n = block.n, .x = block.x, .targets = block.targets};
        batch.rows = rows_block(bed->rows, b, block.x, block.n);
        assert_non_null(batch.rows);
        model_gradient(bed->model, bed->params, &batch, grad, workspace);
    }
    struct frame frame = {.term = 3, .step = step, .node = node};
    if (rows_push(bed->rows, &frame, samples, &err) < 0)
        fail_msg("%s", error_message(&err));
}

static void run(uint32_t blocks, uint32_t shards, enum plan_wire wire)
{
    cleanup_free struct bed *bed = malloc(sizeof *bed);
    make(bed, blocks, shards, wire);
    struct dense want[TABLES];
    for (uint32_t t = 0; t < TABLES; t++)
        want[t].rows = malloc((size_t)ROWS * dim_of(bed, t) * sizeof(float));
    struct tree tree = tree_of(blocks);
    struct schedule schedule = schedule_of(&bed->plan, SAMPLES);
    struct permutation order = permutation_of_epoch(SAMPLES, bed->plan.training.seed, 0);
    for (uint64_t step = 0; step < 3; step++) {
        uint32_t samples = schedule_step(&schedule, step).count;
        for (uint32_t first = 0; first < blocks; first += 2) {
            uint32_t count = first % 4 == 0 ? blocks - first : 1, nodes[TREE_COVER_MOST];
            uint32_t cover = tree_cover(tree, samples, first, count, nodes);
            struct rows_range range = range_of(bed, &order, step, first, count);
            if (cover == 0)
                continue;
            want_and_get(bed, &range);
            for (uint32_t i = 0; i < cover; i++) {
                assert_true(define(bed, &order, step, nodes[i], samples, want));
                compute_node(bed, &order, step, nodes[i], samples);
                expect_pushed(bed, FRAME_PUSH_ROWS, nodes[i], want);
                drop_frames(bed);
            }
        }
    }
    for (uint32_t t = 0; t < TABLES; t++)
        free(want[t].rows);
    unmake(bed);
}

static void gradients_are_those_of_dense_tables(void **state)
{
    (void)state;
    run(1, 1, PLAN_FLOAT32);
    run(5, 3, PLAN_FLOAT32);
    run(8, 2, PLAN_FLOAT32);
    run(8, 2, PLAN_BFLOAT16);
    run(30, 4, PLAN_FLOAT32); /* some blocks are empty */
}

/* Of two blocks, which is what a tree of two leaves adds up, too. */
static void compute_whole(struct bed *bed, const struct permutation *order)
{
    struct error err = {0};
    cleanup_workspace struct workspace *workspace = NULL;
    assert_int_equal(workspace_new(&workspace, bed->model, BATCH, &err), 0);
    cleanup_free float *grad = malloc(model_parameters(bed->model) * sizeof(float));
    rows_begin(bed->rows);
    for (uint32_t b = 0; b < 2; b++) {
        struct block block;
        struct rows_range range = range_of(bed, order, 0, b, 1);
        fetch(bed, order, &range, &block);
        struct model_batch batch = {.n = block.n, .x = block.x, .targets = block.targets};
        batch.rows = rows_next_block(bed->rows, block.x, block.n);
        assert_non_null(batch.rows);
        model_gradient(bed->model, bed->params, &batch, grad, workspace);
    }
    assert_int_equal(rows_end(bed->rows), 0);
}

static double clip_dense(const struct bed *bed, const struct optimizer_step *step, struct dense want[TABLES])
{
    double squares = 0;
    for (uint32_t t = 0; t < TABLES; t++) {
        const uint32_t dim = dim_of(bed, t);
        for (uint32_t id = 0; id < ROWS; id++) {
            float *row = want[t].rows + (size_t)id * dim;
            squares += want[t].there[id] ? optimizer_row_squares(step, row, dim) : 0;
            optimizer_clip_row(step, row, dim);
        }
    }
    return squares;
}

static void run_whole(enum plan_wire wire, uint32_t shards)
{
    cleanup_free struct bed *bed = malloc(sizeof *bed);
    make(bed, 2, shards, wire);
    struct dense want[TABLES];
    for (uint32_t t = 0; t < TABLES; t++)
        want[t].rows = calloc((size_t)ROWS * dim_of(bed, t), sizeof(float));
    struct permutation order = permutation_of_epoch(SAMPLES, bed->plan.training.seed, 0);
    struct rows_range range = range_of(bed, &order, 0, 0, 2);
    assert_true(define(bed, &order, 0, TREE_ROOT, BATCH, want));
    want_and_get(bed, &range);
    compute_whole(bed, &order);

    const struct optimizer_step step = {.scale = 1.0F / BATCH, .clip_value = 1e-4F, .clip = 0.25F};
    const double squares = rows_squares(bed->rows, &step), expected = clip_dense(bed, &step, want);
    assert_true(squares > 0 && fabs(squares - expected) < 1e-12 * expected);
    rows_clip(bed->rows, &step);
    const struct frame frame = {.term = 3, .step = 4, .node = 5};
    for (uint32_t t = 0; t < TABLES; t++)
        for (uint32_t shard = 0; shard < shards; shard++)
            assert_int_equal(rows_push_part(bed->rows, &frame, t, shard), 0);
    expect_pushed(bed, FRAME_PUSH_BATCH_ROWS, 5, want);
    for (uint32_t t = 0; t < TABLES; t++)
        free(want[t].rows);
    unmake(bed);
}

static void whole_gradients_are_clipped_and_pushed(void **state)
{
    (void)state;
    run_whole(PLAN_FLOAT32, 1);
    run_whole(PLAN_FLOAT32, 3);
    run_whole(PLAN_BFLOAT16, 2);
}

static void what_was_lost_is_asked_for_again(void **state)
{
    (void)state;
    cleanup_free struct bed *bed = malloc(sizeof *bed);
    make(bed, 4, 2, PLAN_FLOAT32);
    struct permutation order = permutation_of_epoch(SAMPLES, bed->plan.training.seed, 0);
    struct rows_range range = range_of(bed, &order, 0, 0, 4);
    struct error err = {0};
    assert_int_equal(rows_want(bed->rows, &range, &err), 0);
    uint32_t asked = bed->frame_count, of_first = 0;
    for (uint32_t i = 0; i < asked; i++)
        of_first += bed->frames[i].shard == 0;
    for (uint32_t i = 0; i < asked; i++)
        if (bed->frames[i].shard == 1 || bed->frames[i].frame.offset == 0)
            answer(bed, &bed->frames[i]);
    assert_false(rows_here(bed->rows));
    drop_frames(bed);
    rows_ask_again(bed->rows, 1); /* has said all */
    assert_int_equal(bed->frame_count, 0);
    rows_ask_again(bed->rows, 0);
    assert_true(bed->frame_count > 0 && bed->frame_count < of_first);
    for (uint32_t i = 0; i < bed->frame_count; i++)
        answer(bed, &bed->frames[i]);
    assert_true(rows_here(bed->rows));
    unmake(bed);
}

/* Of few samples some shards have no row: they are asked all the same, and nothing begins before they have answered. */
static void shards_without_rows_are_waited_for(void **state)
{
    (void)state;
    cleanup_free struct bed *bed = malloc(sizeof *bed);
    make(bed, 4, 16, PLAN_FLOAT32);
    struct permutation order = permutation_of_epoch(SAMPLES, bed->plan.training.seed, 0);
    struct rows_range range = range_of(bed, &order, 0, 0, 1);
    struct error err = {0};
    assert_int_equal(rows_want(bed->rows, &range, &err), 0);
    uint32_t empty = 0, asked = bed->frame_count;
    assert_true(asked >= 16 * TABLES);
    for (uint32_t i = 0; i < asked; i++) {
        empty += bed->frames[i].payload == NULL;
        if (bed->frames[i].payload != NULL)
            answer(bed, &bed->frames[i]);
    }
    assert_true(empty > 0);
    for (uint32_t i = 0; i < asked; i++) {
        if (bed->frames[i].payload != NULL)
            continue;
        assert_false(rows_here(bed->rows));
        answer(bed, &bed->frames[i]);
    }
    assert_true(rows_here(bed->rows));
    unmake(bed);
}

static void answers_are_checked(void **state)
{
    (void)state;
    cleanup_free struct bed *bed = malloc(sizeof *bed);
    make(bed, 4, 2, PLAN_FLOAT32);
    struct permutation order = permutation_of_epoch(SAMPLES, bed->plan.training.seed, 0);
    struct rows_range range = range_of(bed, &order, 0, 0, 4), next = range_of(bed, &order, 1, 0, 4);
    struct error err = {0};
    bool wanted = true;
    assert_int_equal(rows_want(bed->rows, &range, &err), 0);
    struct kept old = bed->frames[0];
    struct frame frame = old.frame;
    frame.type = FRAME_ROWS;
    frame.length = frame.count * dim_of(bed, 0) * 4;
    assert_int_equal(rows_check(bed->rows, old.shard, &frame, &wanted, &err), 0);
    assert_true(wanted);
    struct frame wrong = frame;
    wrong.offset = TABLES;
    assert_int_equal(rows_check(bed->rows, old.shard, &wrong, &wanted, &err), -1);
    wrong = frame;
    wrong.length += 4;
    assert_int_equal(rows_check(bed->rows, old.shard, &wrong, &wanted, &err), -1);
    wrong = frame;
    wrong.offset = 1;
    wrong.count = 2000;
    wrong.length = wrong.count * 8;
    assert_int_equal(rows_check(bed->rows, old.shard, &wrong, &wanted, &err), -1);
    /* What was wanted before is nothing that anybody waits for. */
    assert_int_equal(rows_want(bed->rows, &next, &err), 0);
    assert_int_equal(rows_check(bed->rows, old.shard, &frame, &wanted, &err), 0);
    assert_false(wanted);
    rows_forget(bed->rows);
    assert_false(rows_here(bed->rows));
    unmake(bed);
}

static void what_is_no_id_is_a_sentence(void **state)
{
    (void)state;
    cleanup_free struct bed *bed = malloc(sizeof *bed);
    make(bed, 4, 2, PLAN_FLOAT32);
    dataset_free(bed->train);
    bed->plan.dataset.scale = 0.5; /* halves of ids */
    struct error err = {0};
    assert_int_equal(dataset_open(&bed->train, bed->folder, &bed->plan, DATASET_TRAIN, &err), 0);
    struct rows_range range = range_of(bed, NULL, 0, 0, 4);
    assert_int_equal(rows_want(bed->rows, &range, &err), -1);
    assert_non_null(strstr(error_message(&err), "needs an id: a whole number from 0 to 255"));
    unmake(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_dense_tables),
        cmocka_unit_test(whole_gradients_are_clipped_and_pushed),
        cmocka_unit_test(what_was_lost_is_asked_for_again),
        cmocka_unit_test(shards_without_rows_are_waited_for),
        cmocka_unit_test(answers_are_checked),
        cmocka_unit_test(what_is_no_id_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
