/* Shards with rounds around the coordinator's norms: pushes and commits that come late, twice and in any order between
 * the shards, members that die in the middle of what they push. The parameters are those of one vector that one
 * optimizer updates at once, and rows of embedding tables those of one table, bit for bit. */
#include "coordinator/norms.h"

#include "common/plan/schedule.h"
#include "numerics/exact_sum.h"
#include "numerics/numerics.h"
#include "optimizer/optimizer.h"
#include "ps/shard.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TENSORS = 7, FLOATS_MOST = 4096, SHARDS_MOST = 4, STEPS = 4, WAITING_MOST = 64, WORLDS = 150 };
enum { TABLES_MOST = 2, ROWS = 40, DIM = 3 };

static const uint64_t samples = UINT64_C(2) * STEPS;

/* Something on its way: what a shard has measured, or the coordinator's answer. */
struct letter {
    bool commit;
    uint32_t shard, round, count;
    uint64_t step, first;
    double numbers[2 * FLOATS_MOST];
};

struct world {
    uint64_t random;
    struct net *net;
    struct plan plan;
    struct network network;
    struct network_tensor tensors[TENSORS];
    struct network_layer layers[TABLES_MOST];
    struct layout *layout;
    struct norms *norms;
    struct shard *shards[SHARDS_MOST];
    uint64_t done[SHARDS_MOST]; /* steps */
    struct letter *waiting[WAITING_MOST];
    uint32_t waiting_count;

    /* The definition's. */
    struct optimizer *optimizer;
    float theta[FLOATS_MOST], states[OPTIMIZER_STATES_MOST][FLOATS_MOST];
    float rows[TABLES_MOST][ROWS][DIM], row_states[TABLES_MOST][ROWS][OPTIMIZER_STATES_MOST][DIM];
};

struct place {
    struct world *world;
    uint32_t shard;
};

static uint32_t below(struct world *world, uint32_t most)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return (uint32_t)((world->random >> 20) % most);
}

/* ---- letters ---- */

static void post(struct world *world, const struct letter *letter, const double *numbers)
{
    assert_true(world->waiting_count < WAITING_MOST);
    struct letter *copy = malloc(sizeof *copy);
    memcpy(copy, letter, offsetof(struct letter, numbers));
    memcpy(copy->numbers, numbers, letter->count * sizeof *numbers);
    world->waiting[world->waiting_count++] = copy;
}

/* What is measured travels in pieces. */
static void measured(void *arg, uint64_t step, uint32_t round, const double *measures, uint32_t count)
{
    const struct place *place = arg;
    uint32_t piece = 1 + below(place->world, count);
    for (uint32_t first = 0; first < count; first += piece) {
        struct letter letter = {.shard = place->shard, .step = step, .round = round, .first = first};
        letter.count = count - first < piece ? count - first : piece;
        piece = letter.count < count / 8 ? count / 8 : piece; /* not too many */
        letter.count = count - first < piece ? count - first : piece;
        post(place->world, &letter, measures + first);
    }
}

static void deliver_measures(struct world *world, const struct letter *letter)
{
    struct error err = {0};
    int result = norms_add(world->norms, letter->shard, letter->step, letter->round, letter->first, letter->numbers,
                           letter->count * sizeof(double), &err);
    if (result < 0)
        fail_msg("%s", error_message(&err));
    if (result == 0)
        return;
    uint32_t count;
    const double *scalars = norms_scalars(world->norms, &count);
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        post(world,
             &(struct letter){
                 .commit = true, .shard = shard, .step = letter->step, .round = letter->round, .count = count},
             scalars);
}

static void deliver(struct world *world, const struct letter *letter)
{
    struct error err = {0};
    if (!letter->commit)
        deliver_measures(world, letter);
    else if (shard_commit(world->shards[letter->shard], letter->step, letter->round, letter->numbers, letter->count,
                          &err) < 0)
        fail_msg("%s", error_message(&err));
}

/* The oldest letter of some shard and direction: one connection keeps its order. Sometimes it comes twice. */
static void deliver_one(struct world *world)
{
    if (world->waiting_count == 0)
        return;
    uint32_t chosen = below(world, world->waiting_count), i = 0;
    const struct letter *like = world->waiting[chosen];
    while (world->waiting[i]->shard != like->shard || world->waiting[i]->commit != like->commit)
        i++;
    struct letter *letter = world->waiting[i];
    world->waiting_count--;
    for (; i < world->waiting_count; i++)
        world->waiting[i] = world->waiting[i + 1];
    deliver(world, letter);
    if (below(world, 4) == 0)
        deliver(world, letter);
    free(letter);
}

/* ---- the definition ---- */

static float gradient_of(uint64_t step, uint32_t block, uint64_t at)
{
    struct random_stream stream = random_stream(9, RANDOM_CANARY, block, 0, step);
    return (float)((double)random_u32_at(stream, at) * 0x1p-31 - 1) * (float)(1U << at % 7);
}

static void gradient(const struct world *world, uint64_t step, uint32_t node, uint64_t begin, uint64_t end, float *out)
{
    bool rounded = world->plan.wire == PLAN_BFLOAT16;
    for (uint64_t i = begin; i < end; i++) {
        float left = gradient_of(step, 0, i), right = gradient_of(step, 1, i);
        if (rounded) {
            left = bfloat16_value(bfloat16_of(left));
            right = bfloat16_value(bfloat16_of(right));
        }
        float sum = node == 1 ? left + right : node == 2 ? left : right;
        out[i - begin] = rounded ? bfloat16_value(bfloat16_of(sum)) : sum;
    }
}

static float rounded_as(const struct world *world, float x)
{
    return world->plan.wire == PLAN_BFLOAT16 ? bfloat16_value(bfloat16_of(x)) : x;
}

/* Has the block a gradient for the row? */
static bool block_has(uint64_t step, uint32_t block, uint32_t table, uint32_t id)
{
    struct random_stream stream = random_stream(11, RANDOM_CANARY, table, block, step);
    return random_u32_at(stream, id) % 5 < 2;
}

/* False where the node has none for the row. */
static bool row_gradient(const struct world *world, uint64_t step, uint32_t node, uint32_t table, uint32_t id,
                         float out[DIM])
{
    const bool left = node != 3 && block_has(step, 0, table, id), right = node != 2 && block_has(step, 1, table, id);
    for (uint32_t i = 0; i < DIM; i++) {
        const uint64_t at = (uint64_t)(table + 5) * 100000 + (uint64_t)id * DIM + i;
        const float a = rounded_as(world, gradient_of(step, 0, at)), b = rounded_as(world, gradient_of(step, 1, at));
        out[i] = left && right ? rounded_as(world, a + b) : left ? a : b;
    }
    return left || right;
}

/* Down from the last row, which no shard does. */
static double squares_of_rows(const struct world *world, uint64_t step, const struct optimizer_step *of)
{
    struct exact_sum squares = {0};
    float sum[DIM];
    for (uint32_t table = 0; table < world->network.table_count; table++)
        for (uint32_t id = ROWS; id-- > 0;)
            if (row_gradient(world, step, 1, table, id, sum))
                exact_sum_add(&squares, optimizer_row_squares(of, sum, DIM));
    return exact_sum_value(&squares);
}

static void reference_rows(struct world *world, uint64_t step, const struct optimizer_step *of)
{
    float sum[DIM];
    for (uint32_t table = 0; table < world->network.table_count; table++) {
        for (uint32_t id = 0; id < ROWS; id++) {
            float(*memory)[DIM] = world->row_states[table][id];
            float *const states[OPTIMIZER_STATES_MOST] = {memory[0], memory[1], memory[2]};
            if (row_gradient(world, step, 1, table, id, sum))
                optimizer_apply_row(&world->plan.training.optimizer, of, world->rows[table][id], states, sum, DIM);
        }
    }
}

static void reference_step(struct world *world, uint64_t step)
{
    static float sum[FLOATS_MOST];
    const struct plan_optimizer *plan = &world->plan.training.optimizer;
    const struct schedule schedule = schedule_of(&world->plan, samples);
    gradient(world, step, 1, 0, world->network.parameters, sum);
    float *const states[OPTIMIZER_STATES_MOST] = {world->states[0], world->states[1], world->states[2]};
    struct optimizer_step of = optimizer_step(plan, &schedule, step, step + 1, 2, 1);
    if (plan->clip_norm > 0)
        optimizer_find_clip(world->optimizer, &of, squares_of_rows(world, step, &of), sum);
    reference_rows(world, step, &of);
    if (plan->type == PLAN_LAMB) {
        static double measures[OPTIMIZER_MEASURES_MOST * FLOATS_MOST], ratios[TENSORS];
        const uint32_t round = plan->clip_norm > 0;
        optimizer_measure(world->optimizer, &of, round, 0, world->network.parameters, world->theta, states, sum,
                          measures);
        optimizer_fold(world->optimizer, round, measures, 0, ratios);
        optimizer_commit(world->optimizer, round, ratios, &of);
    }
    optimizer_apply(world->optimizer, &of, 0, world->network.parameters, world->theta, world->theta, states, sum);
}

/* ---- the world ---- */

static void step_done(void *arg, uint64_t step, double loss)
{
    const struct place *place = arg;
    (void)loss;
    assert_int_equal(step, place->world->done[place->shard]);
    place->world->done[place->shard]++;
}

static void make_network(struct world *world)
{
    for (uint32_t i = 0; i < TENSORS; i++) {
        world->tensors[i] = (struct network_tensor){
            .offset = world->network.parameters,
            .count = 1 + below(world, i % 2 == 0 ? 900 : 50),
            .kind = i == 3 ? TENSOR_STATISTIC : TENSOR_WEIGHT,
            .momentum = 0.1F,
        };
        world->network.parameters += world->tensors[i].count;
    }
    world->network.tensors = world->tensors;
    world->network.tensor_count = TENSORS;
    world->network.sample.shape = (struct shape){ROWS, 1, 1};
    world->network.layers = world->layers;
    world->network.table_count = world->network.layer_count = below(world, TABLES_MOST + 1);
    for (uint32_t i = 0; i < world->network.table_count; i++) {
        world->network.tables[i] = (struct network_table){.name = "deep", .rows = ROWS, .dim = DIM, .bound = 0.5F};
        world->layers[i] = (struct network_layer){
            .type = LAYER_EMBEDDING, .inputs = {NETWORK_SAMPLE}, .in = {ROWS, 1, 1}, .table = i, .dim = DIM};
    }
}

static void make_plan(struct world *world)
{
    bool lamb = below(world, 3) > 0;
    world->plan = (struct plan){
        .blocks = 2,
        .shards = 1 + below(world, SHARDS_MOST),
        .wire = below(world, 2) == 0 ? PLAN_FLOAT32 : PLAN_BFLOAT16,
        .training = {.epochs = 1,
                     .batch_size = 2,
                     .optimizer = {.type = lamb ? PLAN_LAMB : PLAN_ADAM,
                                   .learning_rate = 0.01,
                                   .beta1 = 0.9,
                                   .beta2 = 0.99,
                                   .epsilon = 1e-6,
                                   .weight_decay = 0.01,
                                   .clip_norm = lamb && below(world, 2) == 0 ? 0 : 3}},
    };
}

static bool some_shard_is_empty(const struct world *world)
{
    for (uint32_t i = 0; i < world->plan.shards; i++)
        if (world->layout->first[i] == world->layout->first[i + 1])
            return true;
    return false;
}

static void world_start(struct world *world, struct net *net, uint64_t seed, struct place places[SHARDS_MOST])
{
    *world = (struct world){.random = seed * 7919 + 1, .net = net};
    struct error err = {0};
    make_network(world);
    make_plan(world);
    if (layout_new(&world->layout, &world->network, world->plan.shards, &err) < 0)
        fail_msg("%s", error_message(&err));
    while (some_shard_is_empty(world)) {
        layout_free(world->layout);
        world->plan.shards--;
        assert_int_equal(layout_new(&world->layout, &world->network, world->plan.shards, &err), 0);
    }
    if (norms_new(&world->norms, &world->plan, &world->network, &err) < 0 ||
        optimizer_new(&world->optimizer, &world->plan.training.optimizer, world->tensors, TENSORS,
                      network_chunk(&world->network), &err) < 0)
        fail_msg("%s", error_message(&err));
    for (uint64_t i = 0; i < world->network.parameters; i++)
        world->theta[i] = (float)i * 0.001F - 1;
    for (uint32_t i = 0; i < world->plan.shards; i++) {
        places[i] = (struct place){world, i};
        struct shard_hooks hooks = {.step_done = step_done, .measured = measured, .arg = &places[i]};
        const struct chunk *chunk = &world->layout->chunks[world->layout->first[i]];
        const struct shard_cut cut = {.chunks = chunk,
                                      .chunk_count = world->layout->first[i + 1] - world->layout->first[i],
                                      .tensors = world->tensors,
                                      .tensor_count = TENSORS,
                                      .canonical = network_chunk(&world->network)};
        if (shard_make(&world->shards[i], net, &world->plan, &cut, samples, &hooks, &err) < 0)
            fail_msg("%s", error_message(&err));
        shard_start_from(world->shards[i], world->theta + chunk->offset);
        if (shard_add_tables(world->shards[i], &world->network, i, &err) < 0)
            fail_msg("%s", error_message(&err));
    }
    for (uint32_t table = 0; table < world->network.table_count; table++)
        for (uint32_t shard = 0; shard < world->plan.shards; shard++)
            for (uint32_t id = shard; id < ROWS; id += world->plan.shards)
                table_read(tables_at(shard_tables(world->shards[shard]), table), 0, &id, 1, world->rows[table][id]);
}

static void world_stop(struct world *world)
{
    for (uint32_t i = 0; i < world->plan.shards; i++)
        shard_free(world->shards[i]);
    while (world->waiting_count > 0)
        free(world->waiting[--world->waiting_count]);
    norms_free(world->norms);
    optimizer_free(world->optimizer);
    layout_free(world->layout);
}

/* A member's part of a node for one shard's rows. */
static void push_rows(struct world *world, uint64_t step, uint32_t node, uint32_t table, uint32_t shard)
{
    struct tables *tables = shard_tables(world->shards[shard]);
    struct sparse *rows = tables_take(tables, table, ROWS);
    for (uint32_t id = shard; id < ROWS; id += world->plan.shards) {
        rows->ids[rows->count] = id;
        rows->count += row_gradient(world, step, node, table, id, rows->rows + (size_t)rows->count * DIM);
    }
    const struct frame frame = {
        .type = FRAME_PUSH_ROWS, .step = step, .node = node, .offset = table, .count = rows->count};
    enum push_result result;
    struct error err = {0};
    if (tables_check_push(tables, &frame, &err) < 0 ||
        shard_push_rows(world->shards[shard], &frame, rows, &result, &err) < 0)
        fail_msg("%s", error_message(&err));
}

/* A member pushes a node to the shards, and dies before some of them get it: of the chunks or, also, of the rows. */
static void push_some(struct world *world, uint64_t step)
{
    uint32_t node = 1 + below(world, 3), dies_at = below(world, layout_chunks(world->layout) + 1);
    for (uint32_t i = 0; i < dies_at; i++) {
        const struct chunk *chunk = &world->layout->chunks[i];
        static float values[FLOATS_MOST];
        struct payload *payload = payload_new(world->net, (size_t)chunk->count * layout_value_bytes(world->plan.wire));
        gradient(world, step, node, chunk->offset, chunk->offset + chunk->count, values);
        if (world->plan.wire == PLAN_BFLOAT16)
            vector_bfloat16_pack((uint16_t *)payload->data, values, chunk->count);
        else
            memcpy(payload->data, values, payload->length);
        struct frame frame = {
            .type = FRAME_PUSH, .step = step, .node = node, .offset = chunk->offset, .length = payload->length};
        enum push_result result;
        struct error err = {0};
        if (shard_check_push(world->shards[chunk->shard], &frame, &err) < 0 ||
            shard_push(world->shards[chunk->shard], &frame, payload, &result, &err) < 0)
            fail_msg("%s", error_message(&err));
        payload_unref(world->net, payload);
    }
    const uint32_t parts = world->plan.shards * world->network.table_count;
    dies_at = below(world, parts + 1);
    for (uint32_t i = 0; i < dies_at; i++)
        push_rows(world, step, node, i / world->plan.shards, i % world->plan.shards);
}

static bool all_done(const struct world *world, uint64_t steps)
{
    for (uint32_t i = 0; i < world->plan.shards; i++)
        if (world->done[i] < steps)
            return false;
    return true;
}

static void expect_rows(const struct world *world, uint64_t version)
{
    for (uint32_t table = 0; table < world->network.table_count; table++) {
        for (uint32_t id = 0; id < ROWS; id++) {
            const struct table *of = tables_at(shard_tables(world->shards[id % world->plan.shards]), table);
            float row[DIM];
            assert_true(table_has(of, version));
            table_read(of, version, &id, 1, row);
            assert_memory_equal(row, world->rows[table][id], sizeof row);
        }
    }
}

static void expect_parameters(const struct world *world, uint64_t version)
{
    expect_rows(world, version);
    for (uint32_t i = 0; i < layout_chunks(world->layout); i++) {
        const struct chunk *chunk = &world->layout->chunks[i];
        static float values[FLOATS_MOST];
        struct payload *params = shard_params(world->shards[chunk->shard], version, chunk->offset);
        assert_non_null(params);
        for (uint32_t k = 0; k < chunk->count; k++) {
            float want = world->theta[chunk->offset + k];
            if (world->plan.wire == PLAN_BFLOAT16) {
                want = bfloat16_value(bfloat16_of(want));
                vector_bfloat16_unpack(values, (const uint16_t *)params->data, chunk->count);
            } else {
                memcpy(values, params->data, params->length);
            }
            assert_memory_equal(&values[k], &want, sizeof want);
        }
    }
}

static void test_bits_do_not_depend_on_how_norms_travel(void **state)
{
    (void)state;
    static struct world world;
    static struct place places[SHARDS_MOST];
    struct error err = {0};
    struct net_options options = {.boot_id = 1};
    cleanup_net struct net *net = NULL;
    assert_int_equal(net_new(&net, &options, &err), 0);
    for (uint64_t seed = 1; seed <= WORLDS; seed++) {
        world_start(&world, net, seed, places);
        for (uint64_t step = 0; step < STEPS; step++) {
            reference_step(&world, step);
            while (!all_done(&world, step + 1)) {
                if (below(&world, 3) == 0)
                    push_some(&world, step);
                deliver_one(&world);
            }
            expect_parameters(&world, step + 1);
        }
        world_stop(&world);
    }
}

/* ---- mistakes ---- */

static int add(struct norms *norms, uint32_t shard, uint64_t first, const double *measures, uint64_t count,
               struct error *err)
{
    return norms_add(norms, shard, 0, 0, first, measures, count * sizeof *measures, err);
}

/* Those of rows come behind those of chunks, and must be a sum. */
static void test_rows_are_part_of_a_norm(void **state)
{
    (void)state;
    enum { CHUNKS = 2, ALL = CHUNKS + EXACT_SUM_DOUBLES };
    struct network_tensor tensors[2] = {{.count = 3}, {.offset = 3, .count = 1}};
    const struct network network = {.tensors = tensors, .tensor_count = 2, .parameters = 4, .table_count = 1};
    const struct plan plan = {.shards = 2, .training.optimizer = {.type = PLAN_LAMB, .clip_norm = 1}};
    struct error err = {0};
    cleanup_norms struct norms *norms = NULL;
    assert_int_equal(norms_new(&norms, &plan, &network, &err), 0);
    double measures[ALL + 1] = {2, 3};
    struct exact_sum rows = {0};
    exact_sum_add(&rows, 20);
    exact_sum_write(&rows, measures + CHUNKS);
    assert_int_equal(add(norms, 0, 0, measures, ALL + 1, &err), -1);
    assert_int_equal(add(norms, 0, 0, measures, 1, &err), 0);
    assert_int_equal(add(norms, 0, 1, measures + 1, 5, &err), 0);
    assert_int_equal(add(norms, 0, 6, measures + 6, ALL - 6, &err), 0);
    assert_int_equal(add(norms, 0, 6, measures + 6, ALL - 6, &err), 0); /* again */

    measures[ALL - 2] = 0.5;
    assert_int_equal(add(norms, 1, 0, measures, ALL, &err), -1);
    assert_string_equal(error_message(&err), "digit 67 of a sum is 0.5 and no whole number below 2^32");
    measures[ALL - 2] = 0;
    exact_sum_write(&rows, measures + CHUNKS);
    assert_int_equal(add(norms, 1, 0, measures, ALL, &err), 1);
    uint32_t count;
    assert_true(norms_scalars(norms, &count)[0] == 1 / (sqrt(50) + 1e-6));
    assert_int_equal(count, 1);
    /* A row's trust ratio is nobody else's business. */
    assert_int_equal(norms_add(norms, 0, 0, 1, 0, measures, sizeof(double) * 5, &err), -1);
    assert_int_equal(norms_add(norms, 0, 0, 1, 0, measures, sizeof(double) * 4, &err), 0);
}

static void test_what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct network_tensor tensors[2] = {{.count = 3}, {.offset = 3, .count = 1}};
    const struct network network = {.tensors = tensors, .tensor_count = 2, .parameters = 4};
    struct plan plan = {.shards = 2, .training.optimizer = {.type = PLAN_LAMB, .clip_norm = 1}};
    struct error err = {0};
    cleanup_norms struct norms *norms = NULL;
    assert_int_equal(norms_new(&norms, &plan, &network, &err), 0);
    static const struct {
        uint32_t shard, round;
        uint64_t step, first;
        size_t bytes;
        int result;
        const char *sentence;
    } cases[] = {
        /* Canonical chunks of one parameter: two each. */
        {0, 1, 0, 0, 32, -1, "shard 0 has measured round 1 of step 0 before it could"},
        {0, 0, 1, 0, 16, -1, "shard 0 has measured round 0 of step 1 before it could"},
        {0, 0, UINT64_MAX, 0, 16, -1, "before it could"},
        {0, 0, 0, 0, 7, -1, "shard 0 sent 7 bytes of measures from 0 on, and has 2 measures, of which 0 came"},
        {0, 0, 0, 0, 0, -1, "sent 0 bytes"},
        {0, 0, 0, 0, 24, -1, "sent 24 bytes"},
        {0, 0, 0, 1, 8, -1, "from 1 on"},
        {0, 0, 0, UINT64_MAX, 8, -1, "from 18446744073709551615 on"},
        {0, 0, 0, 0, 16, 0, NULL},
        {0, 0, 0, 0, 16, 0, NULL}, /* again */
        {1, 0, 0, 1, 8, -1, "shard 1 sent 8 bytes of measures from 1 on"},
        {1, 0, 0, 0, 8, 0, NULL},
        {1, 0, 0, 2, 8, -1, "of which 1 came"},
        {1, 0, 0, 1, 16, -1, "has 2 measures"},
        {1, 0, 0, 1, 8, 1, NULL},
        {1, 0, 0, 1, 8, 0, NULL}, /* the round is over */
        {1, 1, 0, 0, 32, 0, NULL},
        {0, 1, 0, 0, 32, 1, NULL},
        {0, 1, 0, 0, 32, 0, NULL},
        {0, 0, 1, 0, 16, 0, NULL},
    };
    const double measures[6] = {1, 2, 3, 4, 5, 6};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        err.message[0] = '\0';
        int result = norms_add(norms, cases[i].shard, cases[i].step, cases[i].round, cases[i].first, measures,
                               cases[i].bytes, &err);
        if (result != cases[i].result || (result < 0 && strstr(error_message(&err), cases[i].sentence) == NULL))
            fail_msg("case %zu: %d, '%s'", i, result, error_message(&err));
        uint32_t count;
        norms_scalars(norms, &count);
        if (result == 1)
            assert_int_equal(count, cases[i].round == 0 ? 1 : 2);
    }

    plan.training.optimizer = (struct plan_optimizer){.type = PLAN_SGD};
    cleanup_norms struct norms *none = NULL;
    assert_int_equal(norms_new(&none, &plan, &network, &err), 0);
    assert_int_equal(norms_add(none, 0, 0, 0, 0, measures, 8, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_do_not_depend_on_how_norms_travel),
        cmocka_unit_test(test_rows_are_part_of_a_norm),
        cmocka_unit_test(test_what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
