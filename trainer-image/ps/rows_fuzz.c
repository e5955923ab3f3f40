/* What a DATA dialogue may bring of embedding tables, of any header and payload, in any order: a shard's tables stay
 * what they are, and every refusal has its sentence.
 *
 * The first byte says what the job is like; then every ten bytes are a frame: its type, its numbers, how long its
 * payload is, and where its ids begin and how far they are apart. */
#include "common/plan/tasks.h"
#include "common/test/fuzz.h"
#include "ps/plain_shard.h"
#include "ps/rows_client.h"
#include "wire/net_internal.h"

#include <math.h>
#include <string.h>

enum { ROWS = 50, TABLES = 2, FLOATS = 8, SAMPLES = 12, EVENT = 10 };

struct world {
    struct plan plan;
    struct network network;
    struct network_layer layers[TABLES];
    struct net *net;
    struct conn *conn;
    struct shard *shard;
    struct batches *batches;
    struct rows_client client;
    uint64_t done, ready[TABLES];
    bool commits_late, waits; /* for the answer to round `round` of step `done` */
    uint32_t round;
};

static void commit(struct world *world)
{
    static const double scalars[1] = {0.5};
    struct error err = {0};
    world->waits = false;
    require(shard_commit(world->shard, world->done, world->round++, scalars, 1, &err) == 0);
}

static void measured(void *arg, uint64_t step, uint32_t round, const double *measures, uint32_t count)
{
    struct world *world = arg;
    const bool clips = world->plan.training.optimizer.clip_norm > 0 && round == 0;
    require(step == world->done && round == world->round && !world->waits);
    require(count == (clips ? 1 + EXACT_SUM_DOUBLES : 2));
    for (uint32_t i = 1; clips && i < count; i++)
        require(measures[i] >= 0 || isnan(measures[i]));
    for (uint32_t table = 0; clips && table < TABLES; table++)
        require(world->ready[table] == world->done);
    world->waits = true;
    if (!world->commits_late)
        commit(world);
}

static void rows_ready(void *arg, uint32_t table, uint64_t version)
{
    struct world *world = arg;
    require(table < TABLES && version == ++world->ready[table] && version <= world->done + 1);
    rows_client_ready(&world->client, table, version);
}

static void step_done(void *arg, uint64_t step, double loss)
{
    struct world *world = arg;
    (void)loss;
    require(step == world->done++ && !world->waits);
    world->round = 0;
    for (uint32_t table = 0; table < TABLES; table++)
        require(world->ready[table] == world->done);
}

static void task_done(void *arg, uint64_t task, double loss)
{
    struct world *world = arg;
    (void)task;
    (void)loss;
    world->done++;
    require(world->done <= tasks_of(&world->plan, SAMPLES).count);
}

static bool start(struct world *world, uint8_t kind)
{
    struct error err = {0};
    struct net_options options = {.boot_id = 1};
    world->plan = (struct plan){.blocks = kind / 8 % 2 == 0 ? 3 : 1, .shards = 1 + kind % 3};
    world->plan.wire = kind / 4 % 2 == 0 ? PLAN_FLOAT32 : PLAN_BFLOAT16;
    world->plan.sync = kind / 8 % 2 == 0 ? PLAN_SYNCHRONOUS : PLAN_ASYNCHRONOUS;
    world->plan.max_staleness = 1;
    world->plan.training.epochs = 1;
    world->plan.training.batch_size = 5;
    world->plan.training.optimizer = (struct plan_optimizer){
        .type = kind / 32 % 2 == 0 || world->plan.sync != PLAN_SYNCHRONOUS ? PLAN_SGD : PLAN_LAMB,
        .learning_rate = 0.5,
        .beta1 = 0.9,
        .beta2 = 0.99,
        .epsilon = 1e-6,
        .clip_norm = kind / 64 % 2 == 0 ? 0 : 1,
    };
    world->commits_late = kind / 128 % 2 != 0;
    world->network = (struct network){.layers = world->layers, .layer_count = TABLES, .table_count = TABLES};
    world->network.sample.shape = (struct shape){2, 1, 1};
    for (uint32_t i = 0; i < TABLES; i++) {
        world->network.tables[i] = (struct network_table){.name = "t", .rows = ROWS, .dim = 1 + i, .bound = 0.5F};
        world->layers[i] = (struct network_layer){
            .type = LAYER_EMBEDDING, .inputs = {NETWORK_SAMPLE}, .in = {2, 1, 1}, .table = i, .dim = 1 + i};
    }
    struct shard_hooks hooks = {.rows_ready = rows_ready, .step_done = step_done, .measured = measured, .arg = world};
    struct batches_hooks batch_hooks = {.task_done = task_done, .arg = world};
    if (net_new(&world->net, &options, &err) < 0)
        return false;
    /* Never dialled: what is sent is dropped. */
    world->conn = conn_new_dialled(world->net, "fuzz:1", DIALOGUE_DATA, NULL, NULL);
    if (world->conn == NULL ||
        plain_shard(&world->shard, world->net, &world->plan, 0, FLOATS, FLOATS, SAMPLES, &hooks, &err) < 0 ||
        shard_add_tables(world->shard, &world->network, kind / 16 % world->plan.shards, &err) < 0)
        return false;
    if (world->plan.sync == PLAN_ASYNCHRONOUS &&
        batches_new(&world->batches, world->shard, &world->plan, SAMPLES, &batch_hooks, &err) < 0)
        return false;
    rows_client_init(&world->client, world->net, world->conn, world->shard);
    world->client.batches = world->batches;
    return true;
}

static void stop(struct world *world)
{
    if (world->client.shard != NULL)
        rows_client_end(&world->client);
    batches_free(world->batches);
    shard_free(world->shard);
    net_free(world->net);
}

/* The chunk's gradient of the step that it waits for, so that steps are done. */
static void push_chunk(struct world *world)
{
    struct error err = {0};
    struct shard_chunk chunk = shard_chunk(world->shard, 0);
    struct frame frame = {.type = FRAME_PUSH,
                          .step = chunk.version,
                          .node = 1,
                          .length = chunk.params->length,
                          .count = (uint32_t)chunk.version};
    struct payload *zeros = payload_new(world->net, chunk.params->length);
    if (zeros == NULL)
        return;
    memset(zeros->data, 0, zeros->length);
    enum push_result result;
    enum taken taken;
    if (world->batches != NULL) {
        frame.node = 0;
        if (batches_check(world->batches, &frame, &err) == 0)
            batches_push(world->batches, &frame, zeros, &taken, &err);
    } else if (shard_check_push(world->shard, &frame, &err) == 0) {
        shard_push(world->shard, &frame, zeros, &result, &err);
    }
    payload_unref(world->net, zeros);
}

static size_t row_size(const struct world *world, const struct frame *frame)
{
    size_t dim = frame->offset < TABLES ? 1 + frame->offset : 1;
    return sizeof(uint32_t) + dim * (world->plan.wire == PLAN_FLOAT32 ? 4 : 2);
}

static struct frame frame_of(const struct world *world, const uint8_t *event)
{
    static const uint8_t types[4] = {FRAME_GET_ROWS, FRAME_PUSH_ROWS, FRAME_PUSH_BATCH_ROWS, FRAME_LIST_ROWS};
    struct frame frame = {.type = types[event[0] % 4],
                          .step = event[1] % 16 == 15 ? WIRE_NEWEST : event[1] % 16,
                          .offset = event[1] / 16 % 4,
                          .node = event[2] % 16,
                          .count = event[3],
                          .value.counter = event[4] % 64};
    if (frame.type == FRAME_PUSH_BATCH_ROWS)
        frame.value.counter |= (uint64_t)(event[4] / 64) << 32;
    /* Mostly as long as it should be. */
    size_t rows = event[5] % 64;
    frame.length = (uint32_t)(rows * (frame.type == FRAME_GET_ROWS ? sizeof(uint32_t) : row_size(world, &frame)));
    frame.length += event[5] / 64 == 3;
    return frame;
}

/* As the connection does: a refusal ends it, and another comes. */
static void handle(struct world *world, const uint8_t *event)
{
    struct frame frame = frame_of(world, event);
    struct error err = {0};
    if (frame.type == FRAME_LIST_ROWS)
        frame.length = 0;
    require(rows_client_takes(&frame));
    bool refused = false;
    if (frame.length > 0) {
        uint8_t *place = rows_client_place(&world->client, &frame, &err);
        refused = place == NULL;
        if (place != NULL)
            memset(place, 0, frame.length);
        for (uint32_t i = 0; place != NULL && i < (event[5] % 64U) && (i + 1) * sizeof i <= frame.length; i++) {
            uint32_t id = event[6] + i * (event[7] % 8);
            memcpy(place + i * sizeof id, &id, sizeof id);
        }
        if (place != NULL && frame.length > 8)
            memcpy(place + frame.length - 2, event + 8, 2);
    }
    if (!refused)
        refused = rows_client_received(&world->client, &frame, &err) < 0;
    if (!refused)
        return;
    rows_client_end(&world->client);
    rows_client_init(&world->client, world->net, world->conn, world->shard);
    world->client.batches = world->batches;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 4096)
        return 0;
    struct world *world = calloc(1, sizeof *world);
    if (world == NULL)
        return 0;
    if (start(world, data[0])) {
        for (size_t at = 1; at + EVENT <= size; at += EVENT) {
            if (world->waits && data[at] % 4 == 3)
                commit(world);
            else if (data[at] % 8 == 7)
                push_chunk(world);
            else
                handle(world, data + at);
        }
        for (uint32_t i = 0; i < TABLES; i++) {
            const struct table *table = tables_at(shard_tables(world->shard), i);
            require(table_rows(table) <= table_rows_most(table) && table_version(table) <= 3);
        }
    }
    stop(world);
    free(world);
    return 0;
}
