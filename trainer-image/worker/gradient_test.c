/* A worker's sums: every cover node has the bits that the fixed tree gives to it, however the blocks are dealt. */
#include "worker/gradient.h"

#include "common/buffer.h"
#include "common/test/scarce.h"
#include "numerics/numerics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE = 8, SAMPLES = 60, BATCH = 21, NODES_MOST = 16 };

struct bed {
    char folder[64];
    struct plan plan;
    struct model *model;
    struct dataset *train;
    struct gradient *gradient;
    struct parameters *parameters;
    float *params;
};

static void put_idx(const struct bed *bed, const char *name, uint32_t rank, uint32_t modulus)
{
    struct error err = {0};
    size_t size = rank == 1 ? SAMPLES : (size_t)SAMPLES * SIDE * SIDE;
    uint8_t header[16] = {0, 0, 8, (uint8_t)rank, 0, 0, 0, SAMPLES, 0, 0, 0, SIDE, 0, 0, 0, SIDE};
    cleanup_buffer struct buffer content;
    buffer_init(&content, 1 << 20);
    assert_int_equal(buffer_append(&content, header, rank == 1 ? 8 : 16, &err), 0);
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)((i * 2654435761u >> 7) % modulus);
        assert_int_equal(buffer_append(&content, &byte, 1, &err), 0);
    }
    char path[128];
    snprintf(path, sizeof path, "%s/%s", bed->folder, name);
    assert_int_equal(file_write_atomically(path, content.data, content.length, &err), 0);
}

static void make_zoo(struct bed *bed, const char *zoo, uint32_t blocks, uint32_t batch, enum plan_wire wire)
{
    *bed = (struct bed){.folder = "/tmp/thole-gradient-XXXXXX"};
    assert_non_null(mkdtemp(bed->folder));
    put_idx(bed, "x", 3, 256);
    put_idx(bed, "y", 1, 10);
    struct plan *plan = &bed->plan;
    plan->dataset.train = (struct plan_split){(char *)"x", (char *)"y"};
    plan->dataset.classes = 10;
    plan->dataset.channels = 1;
    plan->dataset.scale = 1 / 255.0;
    plan->dataset.std[0] = 1;
    plan->training.epochs = 2;
    plan->training.batch_size = batch;
    plan->training.seed = 7;
    plan->blocks = blocks;
    plan->shards = 4;
    plan->wire = wire;
    struct error err = {0};
    const struct network_spec spec = {.zoo = zoo};
    const struct network_sample sample = {.shape = {1, SIDE, SIDE}, .classes = 10};
    if (dataset_open(&bed->train, bed->folder, plan, DATASET_TRAIN, &err) < 0 ||
        model_make(&bed->model, &spec, &sample, &err) < 0 ||
        gradient_new(&bed->gradient, plan, bed->model, bed->train, &err) < 0 ||
        parameters_new(&bed->parameters, model_network(bed->model), plan->shards, wire, &err) < 0)
        fail_msg("%s", error_message(&err));
    bed->params = malloc(model_parameters(bed->model) * sizeof(float));
    model_init_range(bed->model, 7, 0, model_parameters(bed->model), bed->params);
}

static void make(struct bed *bed, uint32_t blocks, uint32_t batch, enum plan_wire wire)
{
    make_zoo(bed, "mlp", blocks, batch, wire);
}

static void unmake(struct bed *bed)
{
    gradient_free(bed->gradient);
    parameters_free(bed->parameters);
    dataset_free(bed->train);
    model_free(bed->model);
    free(bed->params);
    char path[128];
    snprintf(path, sizeof path, "%s/x", bed->folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/y", bed->folder);
    unlink(path);
    rmdir(bed->folder);
}

/* Linked in place of the model's (see CMakeLists.txt), so that a test knows what is still to be computed. */
static _Thread_local uint32_t pieces_computed, sums_asked, sums_made[2]; /* of two blocks, of four */
/* NOLINTBEGIN(bugprone-reserved-identifier) */
void __real_model_piece_gradient(const struct model *model, const struct model_piece *piece, struct model_kept kept,
                                 float *out);
void __wrap_model_piece_gradient(const struct model *model, const struct model_piece *piece, struct model_kept kept,
                                 float *out);
void __wrap_model_piece_gradient(const struct model *model, const struct model_piece *piece, struct model_kept kept,
                                 float *out)
{
    pieces_computed++;
    __real_model_piece_gradient(model, piece, kept, out);
}
bool __real_model_piece_sum(const struct model *model, const struct model_piece *piece, const struct model_kept *kept,
                            uint32_t count, bool rounded, float *out);
bool __wrap_model_piece_sum(const struct model *model, const struct model_piece *piece, const struct model_kept *kept,
                            uint32_t count, bool rounded, float *out);
bool __wrap_model_piece_sum(const struct model *model, const struct model_piece *piece, const struct model_kept *kept,
                            uint32_t count, bool rounded, float *out)
{
    if (++sums_asked % 3 == 0)
        return false; /* as where one of them is too full */
    const bool made = __real_model_piece_sum(model, piece, kept, count, rounded, out);
    pieces_computed += made;
    sums_made[count == 4] += made;
    return made;
}
/* NOLINTEND(bugprone-reserved-identifier) */

/* Where a node's chunks go in these tests. */
struct sink {
    enum plan_wire wire;
    float *values;
    double loss; /* of the first chunk */
    uint32_t chunks, all, stop_after;
    uint32_t pieces; /* that had been computed when a chunk came first */
};

static bool go_on(void *arg)
{
    struct sink *sink = arg;
    return sink->stop_after == 0 || --sink->stop_after > 0;
}

static void *place(void *arg, const struct chunk *chunk)
{
    const struct sink *sink = arg;
    if (sink->wire == PLAN_FLOAT32)
        return sink->values + chunk->offset;
    return malloc(chunk->count * sizeof(uint16_t));
}

static void filled(void *arg, const struct chunk *chunk, void *place, double loss)
{
    struct sink *sink = arg;
    if (sink->wire == PLAN_BFLOAT16)
        vector_bfloat16_unpack(sink->values + chunk->offset, place, chunk->count);
    if (sink->wire == PLAN_BFLOAT16)
        free(place);
    sink->chunks++;
    if (chunk->offset == 0) {
        assert_int_equal(sink->chunks, sink->all);
        sink->loss = loss;
    } else {
        if (sink->chunks == 1)
            sink->pieces = pieces_computed;
        assert_true(loss == 0);
    }
}

static bool compute(struct bed *bed, uint64_t step, uint32_t node, struct sink *sink)
{
    struct gradient_hooks hooks = {.go_on = go_on, .place = place, .filled = filled, .arg = sink};
    return gradient_compute(bed->gradient, step, node, bed->params, bed->parameters, &hooks);
}

static void round_all(const struct bed *bed, float *values)
{
    for (uint64_t i = 0; bed->plan.wire == PLAN_BFLOAT16 && i < model_parameters(bed->model); i++)
        values[i] = bfloat16_value(bfloat16_of(values[i]));
}

/* The definition: the tree, written down once more, over one block a call. */
static bool define(struct bed *bed, uint64_t step, uint32_t node, float *out, double *loss)
{
    uint64_t n = model_parameters(bed->model);
    struct tree tree = tree_of(bed->plan.blocks);
    struct schedule schedule = schedule_of(&bed->plan, SAMPLES);
    struct schedule_step at = schedule_step(&schedule, step);
    struct error err = {0};
    if (node >= tree.leaves) {
        if (node - tree.leaves >= tree.blocks)
            return false;
        struct block_range range = tree_block(tree, at.count, node - tree.leaves);
        uint32_t count = (uint32_t)(range.end - range.begin);
        if (count == 0)
            return false;
        float x[BATCH * SIDE * SIDE];
        float targets[BATCH];
        struct permutation order = permutation_of_epoch(SAMPLES, bed->plan.training.seed, (uint32_t)at.epoch);
        dataset_fetch(bed->train, &order, at.first + range.begin, count, x, targets);
        cleanup_workspace struct workspace *workspace = NULL;
        assert_int_equal(workspace_new(&workspace, bed->model, count, &err), 0);
        *loss = model_gradient(bed->model, bed->params, &(struct model_batch){.n = count, .x = x, .targets = targets},
                               out, workspace);
        round_all(bed, out);
        return true;
    }
    cleanup_free float *right = malloc(n * sizeof(float));
    double right_loss = 0;
    bool has_left = define(bed, step, 2 * node, out, loss);
    bool has_right = define(bed, step, 2 * node + 1, has_left ? right : out, has_left ? &right_loss : loss);
    if (has_left && has_right) {
        for (uint64_t i = 0; i < n; i++)
            out[i] += right[i];
        round_all(bed, out);
        *loss += right_loss;
    }
    return has_left || has_right;
}

static void expect_nodes_as_defined(struct bed *bed, uint64_t step, uint32_t first, uint32_t count)
{
    size_t bytes = model_parameters(bed->model) * sizeof(float);
    cleanup_free float *want = malloc(bytes);
    cleanup_free float *have = malloc(bytes);
    uint32_t nodes[TREE_COVER_MOST];
    uint32_t cover = gradient_cover(bed->gradient, step, first, count, nodes);
    for (uint32_t i = 0; i < cover; i++) {
        struct sink sink = {.wire = bed->plan.wire, .values = have, .all = parameters_chunks(bed->parameters)};
        pieces_computed = 0;
        double loss = 0;
        assert_true(define(bed, step, nodes[i], want, &loss));
        /* What was prepared, rightly or not, changes nothing: its samples, another epoch's, no step at all. */
        gradient_prepare(bed->gradient,
                         (const uint64_t[]){step, (step + 3) % 6, step + 1, 1000}[(step + i + first) % 4], first);
        assert_true(compute(bed, step, nodes[i], &sink));
        assert_int_equal(sink.chunks, parameters_chunks(bed->parameters));
        assert_true(sink.pieces < pieces_computed); /* servers have work before all is computed */
        assert_true(sink.loss == loss);
        assert_memory_equal(have, want, bytes);
    }
}

static void check_nodes(enum plan_wire wire)
{
    memset(sums_made, 0, sizeof sums_made);
    static const uint32_t block_counts[] = {1, 2, 3, 5, 7, 8, 12, 16};
    for (size_t i = 0; i < sizeof block_counts / sizeof block_counts[0]; i++) {
        struct bed bed;
        uint32_t blocks = block_counts[i];
        make(&bed, blocks, BATCH, wire);
        /* 60 samples in batches of 21: step 2 is short, 3 another epoch. */
        for (uint64_t step = 0; step < 4; step += 3) {
            expect_nodes_as_defined(&bed, step, 0, blocks);
            for (uint32_t first = 0; first < blocks; first++)
                for (uint32_t count = 1; count <= blocks - first; count += 3)
                    expect_nodes_as_defined(&bed, step, first, count);
        }
        unmake(&bed);
    }
    if (numerics_kernel_fuses())
        assert_true(sums_made[0] > 0 && sums_made[1] > 0);
}

static void test_nodes_have_the_trees_bits(void **state)
{
    (void)state;
    check_nodes(PLAN_FLOAT32);
}

static void test_rounded_nodes_have_the_trees_bits(void **state)
{
    (void)state;
    check_nodes(PLAN_BFLOAT16);
}

static void test_short_steps_have_empty_blocks(void **state)
{
    (void)state;
    struct bed bed;
    make(&bed, 8, 19, PLAN_FLOAT32); /* steps of 19, 19, 19 and 3 samples: five blocks are empty */
    expect_nodes_as_defined(&bed, 3, 0, 8);
    for (uint32_t block = 0; block < 8; block++)
        expect_nodes_as_defined(&bed, 3, block, 1);
    uint32_t nodes[TREE_COVER_MOST];
    assert_int_equal(gradient_cover(bed.gradient, 3, 0, 1, nodes), 0);
    unmake(&bed);
}

static void test_it_stops_when_it_is_told_to(void **state)
{
    (void)state;
    struct bed bed;
    make(&bed, 8, BATCH, PLAN_FLOAT32);
    cleanup_free float *values = malloc(model_parameters(bed.model) * sizeof(float));
    struct sink sink = {.values = values, .stop_after = 3};
    assert_false(compute(&bed, 0, TREE_ROOT, &sink));
    assert_int_equal(sink.chunks, 0);
    unmake(&bed);
}

static void *place_anywhere(void *arg, const struct chunk *chunk)
{
    (void)chunk;
    return arg;
}

static void look_away(void *arg, const struct chunk *chunk, void *place, double loss)
{
    (void)arg, (void)chunk, (void)place, (void)loss;
}

static bool always(void *arg)
{
    (void)arg;
    return true;
}

static void test_steps_allocate_nothing(void **state)
{
    (void)state;
    static const char *const zoos[] = {"mlp", "resnet8"};
    cleanup_free void *room = malloc(WIRE_PAYLOAD_MOST);
    const struct gradient_hooks hooks = {.go_on = always, .place = place_anywhere, .filled = look_away, .arg = room};
    for (size_t i = 0; i < 2 * sizeof zoos / sizeof zoos[0]; i++) {
        struct bed bed;
        make_zoo(&bed, zoos[i / 2], 5, BATCH, i % 2 == 0 ? PLAN_FLOAT32 : PLAN_BFLOAT16);
        scarce_begin(SCARCE_ONE, 0);
        for (uint64_t step = 0; step < 4; step++) { /* of two epochs, one of them short */
            gradient_prepare(bed.gradient, step, 0);
            assert_true(gradient_compute(bed.gradient, step, TREE_ROOT, bed.params, bed.parameters, &hooks));
        }
        assert_false(scarce_end());
        unmake(&bed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes_have_the_trees_bits),     cmocka_unit_test(test_rounded_nodes_have_the_trees_bits),
        cmocka_unit_test(test_short_steps_have_empty_blocks), cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_it_stops_when_it_is_told_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
