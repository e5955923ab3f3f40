/* Rows of embedding tables behind a shard's port: pushes in several frames, requests that wait for their version,
 * lists; and what breaks the dialogue's rules. */
#include "ps/rows_client.h"
#include "ps/test_bed.h"

/* The second of two shards; 130 rows fill a frame. */
enum { ROWS = 100000, DIM = 500, IDS = 400, SHARDS = 2, SHARD = 1, FRAME_ROWS_MOST = 130, KEPT_MOST = 64 };

struct kept {
    struct frame frame;
    unsigned char *payload;
};

struct client {
    struct user user;
    struct kept kept[KEPT_MOST]; /* what came */
    uint32_t count;
};

struct world {
    struct net *net, *other;
    struct plan plan;
    struct network network;
    struct network_layer layer;
    struct shard *shard;
    struct shard_server *server;
    char address[32];
    struct batches *batches; /* NULL: by the step's tree */
    uint64_t done;           /* steps, or tasks */
};

static void chunk_ready(void *arg, uint64_t version, uint64_t offset)
{
    shard_server_chunk_ready(((struct world *)arg)->server, version, offset);
}

static void rows_ready(void *arg, uint32_t table, uint64_t version)
{
    shard_server_rows_ready(((struct world *)arg)->server, table, version);
}

static void step_done(void *arg, uint64_t step, double loss)
{
    struct world *world = arg;
    (void)loss;
    assert_int_equal(step, world->done);
    world->done++;
}

static struct world *world_start(enum plan_wire wire)
{
    struct world *world = calloc(1, sizeof *world);
    world->net = new_net(1);
    world->other = new_net(2);
    world->plan.blocks = 2;
    world->plan.shards = SHARDS;
    world->plan.wire = wire;
    world->plan.training.batch_size = 2;
    world->plan.training.epochs = 1;
    world->plan.training.optimizer.learning_rate = 1;
    world->network = (struct network){.layers = &world->layer, .layer_count = 1, .table_count = 1};
    world->network.sample.shape = (struct shape){IDS, 1, 1};
    world->network.tables[0] = (struct network_table){.name = "wide.weight", .rows = ROWS, .dim = DIM, .bound = 0.5F};
    world->layer = (struct network_layer){.type = LAYER_EMBEDDING, .inputs = {NETWORK_SAMPLE}, .in = {IDS, 1, 1}};
    struct shard_hooks hooks = {
        .chunk_ready = chunk_ready, .rows_ready = rows_ready, .step_done = step_done, .arg = world};
    struct error err = {0};
    if (plain_shard(&world->shard, world->net, &world->plan, 0, 16, 16, 10, &hooks, &err) < 0 ||
        shard_add_tables(world->shard, &world->network, SHARD, &err) < 0 ||
        shard_server_new(&world->server, world->net, world->shard, NULL, &err) < 0)
        fail_msg("%s", error_message(&err));
    listen_for(world->net, &world->server, world->address);
    return world;
}

static void task_done(void *arg, uint64_t task, double loss)
{
    struct world *world = arg;
    (void)loss;
    assert_int_equal(task, world->done);
    world->done++;
}

/* From now on gradients are applied as they come. */
static void world_apply_at_once(struct world *world)
{
    struct batches_hooks hooks = {.task_done = task_done, .arg = world};
    struct error err = {0};
    world->plan.sync = PLAN_ASYNCHRONOUS;
    world->plan.max_staleness = 1;
    assert_int_equal(batches_new(&world->batches, world->shard, &world->plan, 10, &hooks, &err), 0);
    shard_server_set_batches(world->server, world->batches);
}

static void world_stop(struct world *world)
{
    batches_free(world->batches);
    shard_server_free(world->server);
    shard_free(world->shard);
    net_free(world->net);
    net_free(world->other);
    free(world);
}

/* ---- Clients ---- */

static void heard(struct user *user, const struct frame *frame, const void *payload)
{
    struct client *client = (struct client *)user;
    assert_true(client->count < KEPT_MOST);
    struct kept *kept = &client->kept[client->count++];
    kept->frame = *frame;
    kept->payload = frame->length == 0 ? NULL : malloc(frame->length);
    if (frame->length > 0)
        memcpy(kept->payload, payload, frame->length);
}

/* Until nothing happens any more. */
static void settle(struct world *world)
{
    struct net *const nets[] = {world->net, world->other};
    settle_nets(nets, 2);
}

static struct client *client_new(struct world *world)
{
    struct client *client = calloc(1, sizeof *client);
    client->user.heard = heard;
    user_dial(&client->user, world->other, world->address);
    for (int i = 0; i < 1000 && !client->user.ready; i++)
        settle(world);
    assert_true(client->user.ready);
    return client;
}

static void client_forget(struct client *client)
{
    while (client->count > 0)
        free(client->kept[--client->count].payload);
}

static void client_free(struct world *world, struct client *client)
{
    if (client->user.conn != NULL)
        conn_close(client->user.conn, NULL);
    for (int i = 0; i < 1000 && !client->user.closed; i++)
        settle(world);
    client_forget(client);
    free(client);
}

/* Rows first, first + 2, first + 4, …: all this shard's where the first is odd. */
static uint32_t id_at(uint32_t first, uint32_t i)
{
    return first + SHARDS * i;
}

static void send_ids(struct world *world, struct client *client, struct frame frame, uint32_t first)
{
    struct payload *payload = payload_new(world->other, frame.count * sizeof(uint32_t));
    for (uint32_t i = 0; i < frame.count; i++)
        ((uint32_t *)(void *)payload->data)[i] = id_at(first, i);
    frame.type = FRAME_GET_ROWS;
    conn_send(client->user.conn, &frame, payload);
    payload_unref(world->other, payload);
}

/* Of row `id`, everywhere; a bfloat16 holds it for the small ids here. */
static float gradient_of(uint32_t id)
{
    uint32_t half = id / 2;
    return (float)half;
}

static void send_part_as(struct world *world, struct client *client, uint8_t type, struct frame frame, uint32_t first,
                         uint32_t rows)
{
    const bool rounded = world->plan.wire == PLAN_BFLOAT16;
    struct payload *payload = payload_new(world->other, rows * (4 + (size_t)DIM * (rounded ? 2 : 4)));
    uint32_t *ids = (uint32_t *)(void *)payload->data;
    for (uint32_t i = 0; i < rows; i++) {
        ids[i] = id_at(first, i);
        for (uint32_t k = 0; k < DIM; k++) {
            float value = gradient_of(ids[i]);
            if (rounded)
                ((uint16_t *)(void *)(ids + rows))[(size_t)i * DIM + k] = bfloat16_of(value);
            else
                ((float *)(void *)(ids + rows))[(size_t)i * DIM + k] = value;
        }
    }
    frame.type = type;
    conn_send(client->user.conn, &frame, rows == 0 ? NULL : payload);
    payload_unref(world->other, payload);
}

static void send_part(struct world *world, struct client *client, struct frame frame, uint32_t first, uint32_t rows)
{
    send_part_as(world, client, FRAME_PUSH_ROWS, frame, first, rows);
}

/* `count` rows from 1 on as the whole part of a node, in as few frames as it takes. */
static void push_rows(struct world *world, struct client *client, uint64_t step, uint32_t node, uint32_t count)
{
    struct frame frame = {.step = step, .node = node, .count = count};
    do {
        uint32_t sent = (uint32_t)frame.value.counter, left = count - sent;
        uint32_t rows = left < FRAME_ROWS_MOST ? left : FRAME_ROWS_MOST;
        send_part(world, client, frame, id_at(1, sent), rows);
        frame.value.counter += rows;
    } while (frame.value.counter < count);
}

static void push_chunk(struct world *world, struct client *client, uint64_t step)
{
    size_t size = world->plan.wire == PLAN_BFLOAT16 ? 32 : 64;
    struct payload *payload = payload_new(world->other, size);
    memset(payload->data, 0, size);
    conn_send(client->user.conn, &(struct frame){.type = FRAME_PUSH, .step = step, .node = 1}, payload);
    payload_unref(world->other, payload);
}

static float value_at(const struct world *world, const unsigned char *values, size_t i)
{
    if (world->plan.wire == PLAN_BFLOAT16)
        return bfloat16_value(((const uint16_t *)(const void *)values)[i]);
    return ((const float *)(const void *)values)[i];
}

/* The row as it is after `steps` steps with the gradients of push_rows() from two samples each. */
static void check_row(const struct world *world, uint32_t id, uint32_t steps, const unsigned char *values, size_t row)
{
    float theta[DIM];
    struct random_stream stream = random_stream(0, RANDOM_TABLE, 0, 0, 0);
    random_uniform_range(stream, (uint64_t)id * DIM, (uint64_t)(id + 1) * DIM, -0.5F, 0.5F, theta);
    for (uint32_t k = 0; k < DIM; k++) {
        for (uint32_t step = 0; step < steps; step++)
            theta[k] = theta[k] - gradient_of(id) * 0.5F;
        float want = world->plan.wire == PLAN_BFLOAT16 ? bfloat16_value(bfloat16_of(theta[k])) : theta[k];
        assert_true(value_at(world, values, row * DIM + k) == want);
    }
}

static void check_answer(const struct world *world, const struct kept *kept, uint64_t version, uint32_t node,
                         uint32_t first, uint32_t count, uint32_t touched)
{
    assert_int_equal(kept->frame.type, FRAME_ROWS);
    assert_int_equal(kept->frame.step, version);
    assert_int_equal(kept->frame.node, node);
    assert_int_equal(kept->frame.count, count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = id_at(first, i);
        check_row(world, id, id < id_at(1, touched) ? (uint32_t)version : 0, kept->payload, i);
    }
}

/* ---- Tests ---- */

/* Version 0 is there; version 1 when step 0 is. */
static void ask_early(struct world *world, struct client *client)
{
    send_ids(world, client, (struct frame){.step = 0, .node = 7, .count = 100}, 101);
    for (uint32_t number = 20; number < 60; number++) /* of which only the newest counts */
        send_ids(world, client, (struct frame){.step = 1, .node = number, .count = 130}, 1);
    send_ids(world, client, (struct frame){.step = 1, .node = 8, .count = 130}, 101);
    send_ids(world, client, (struct frame){.step = 1, .node = 8, .count = 3}, 99001);
    conn_send(client->user.conn, &(struct frame){.type = FRAME_GET_ROWS, .step = 1, .node = 8}, NULL);
    settle(world);
    assert_int_equal(client->count, 1);
    check_answer(world, &client->kept[0], 0, 7, 101, 100, 0);
    client_forget(client);
}

/* Two push the two leaves; one of them also the root, which is the same. 200 rows take two frames. */
static void do_a_step_in_parts(struct world *world, struct client *client, struct client *other)
{
    push_rows(world, client, 0, 2, 200);
    settle(world);
    push_rows(world, other, 0, 3, 0);
    settle(world);
    assert_int_equal(client->count, 3);
    check_answer(world, &client->kept[0], 1, 8, 101, 130, 200);
    check_answer(world, &client->kept[1], 1, 8, 99001, 3, 200);
    check_answer(world, &client->kept[2], 1, 8, 1, 0, 200); /* without rows: the version is there */
    assert_int_equal(world->done, 0);                       /* the chunk is missing */
    push_chunk(world, other, 0);
    push_rows(world, other, 0, 1, 200); /* too late, and no harm */
    settle(world);
    assert_int_equal(world->done, 1);
    client_forget(client);
}

static void ask_for_all_versions(struct world *world, struct client *client, struct client *other)
{
    push_rows(world, other, 1, 1, 200);
    push_chunk(world, other, 1);
    settle(world);
    assert_int_equal(world->done, 2);
    for (uint64_t version = 0; version <= 2; version++)
        send_ids(world, client, (struct frame){.step = version, .node = 1, .count = 130}, 201);
    settle(world);
    assert_int_equal(client->count, 2); /* version 0 is over */
    check_answer(world, &client->kept[0], 1, 1, 201, 130, 200);
    check_answer(world, &client->kept[1], 2, 1, 201, 130, 200);
    client_forget(client);
}

/* All rows that exist, a frame at a time. */
static void list_rows(struct world *world, struct client *client)
{
    for (uint64_t from = 0, next = 1; from != UINT64_MAX;) {
        conn_send(client->user.conn, &(struct frame){.type = FRAME_LIST_ROWS, .step = 2, .value.counter = from}, NULL);
        settle(world);
        assert_int_equal(client->count, 1);
        const struct kept *kept = &client->kept[0];
        assert_int_equal(kept->frame.type, FRAME_LISTED);
        assert_int_equal(kept->frame.value.counter, from);
        const uint32_t *ids = (const uint32_t *)(const void *)kept->payload;
        for (uint32_t i = 0; i < kept->frame.count; i++, next += SHARDS) {
            assert_int_equal(ids[i], next);
            check_row(world, ids[i], 2, (const unsigned char *)(ids + kept->frame.count), i);
        }
        from = kept->frame.count == 0 ? UINT64_MAX : next;
        assert_true(kept->frame.count > 0 || next == id_at(1, 200));
        client_forget(client);
    }
}

static void run_steps(enum plan_wire wire)
{
    struct world *world = world_start(wire);
    struct client *client = client_new(world), *other = client_new(world);
    shard_server_set_term(world->server, 0);
    ask_early(world, client);
    do_a_step_in_parts(world, client, other);
    ask_for_all_versions(world, client, other);
    list_rows(world, client);
    client_free(world, client);
    client_free(world, other);
    world_stop(world);
}

static void rows_go_out_and_gradients_in(void **state)
{
    (void)state;
    run_steps(PLAN_FLOAT32);
    run_steps(PLAN_BFLOAT16);
}

static void half_a_part_is_nothing(void **state)
{
    (void)state;
    struct world *world = world_start(PLAN_FLOAT32);
    struct client *client = client_new(world), *other = client_new(world);
    send_part(world, client, (struct frame){.node = 1, .count = 200}, 1, FRAME_ROWS_MOST);
    settle(world);
    client_free(world, client);
    push_chunk(world, other, 0);
    push_rows(world, other, 0, 1, 200);
    settle(world);
    assert_int_equal(world->done, 1);
    client_free(world, other);
    world_stop(world);
}

/* `count` rows from 1 on as the gradient of step 0 of a task, of rows of a version: what came of it. */
static enum taken push_batch(struct world *world, struct client *client, uint64_t task, uint64_t version,
                             uint32_t count)
{
    struct frame frame = {.step = task, .count = count};
    uint32_t sent = 0;
    do {
        uint32_t rows = count - sent < FRAME_ROWS_MOST ? count - sent : FRAME_ROWS_MOST;
        frame.value.counter = version << 32 | sent;
        send_part_as(world, client, FRAME_PUSH_BATCH_ROWS, frame, id_at(1, sent), rows);
        sent += rows;
    } while (sent < count);
    settle(world);
    assert_int_equal(client->count, 1);
    const struct frame answer = client->kept[0].frame;
    assert_int_equal(answer.type, FRAME_TAKEN_ROWS);
    assert_int_equal(answer.step, task);
    assert_int_equal(answer.value.counter, table_version(tables_at(shard_tables(world->shard), 0)));
    client_forget(client);
    return (enum taken)answer.count;
}

static void gradients_of_tasks_are_applied_once(void **state)
{
    (void)state;
    struct world *world = world_start(PLAN_FLOAT32);
    world_apply_at_once(world);
    struct client *client = client_new(world);
    assert_int_equal(push_batch(world, client, 0, 0, 200), TAKEN_APPLIED);
    assert_int_equal(push_batch(world, client, 0, 1, 200), TAKEN_DUPLICATE);
    assert_int_equal(world->done, 0); /* the chunk's is missing */
    struct payload *chunk = payload_new(world->other, 64);
    memset(chunk->data, 0, 64);
    conn_send(client->user.conn, &(struct frame){.type = FRAME_PUSH_BATCH}, chunk);
    payload_unref(world->other, chunk);
    settle(world);
    assert_int_equal(world->done, 1);
    client_forget(client);
    assert_int_equal(push_batch(world, client, 0, 1, 200), TAKEN_TASK_OVER);

    send_ids(world, client, (struct frame){.step = WIRE_NEWEST, .node = 5, .count = 130}, 101);
    settle(world);
    check_answer(world, &client->kept[0], 1, 5, 101, 130, 200);
    client_forget(client);

    assert_int_equal(push_batch(world, client, 1, 1, 200), TAKEN_APPLIED);
    send_ids(world, client, (struct frame){.step = WIRE_NEWEST, .node = 6, .count = 130}, 101);
    settle(world);
    check_answer(world, &client->kept[0], 2, 6, 101, 130, 200);
    client_forget(client);
    assert_int_equal(push_batch(world, client, 2, 0, 3), TAKEN_STALE);
    assert_int_equal(push_batch(world, client, 2, 1, 3), TAKEN_APPLIED); /* half the rate, but applied */
    assert_int_equal(push_batch(world, client, 3, 3, 0), TAKEN_APPLIED);
    client_free(world, client);
    world_stop(world);
}

static void expect_refused(struct world *world, struct client *client, const char *sentence)
{
    for (int i = 0; i < 1000 && !client->user.closed; i++)
        settle(world);
    if (strstr(client->user.reason, sentence) == NULL)
        fail_msg("'%s' does not say '%s'", client->user.reason, sentence);
    client_free(world, client);
}

static void wrong_pushes_are_refused(void **state)
{
    (void)state;
    struct world *world = world_start(PLAN_FLOAT32);
    static const struct {
        struct frame frame;
        uint32_t first, rows;
        const char *sentence;
    } pushes[] = {
        {{.node = 1, .count = 5, .offset = 1}, 1, 5, "PUSH_ROWS names table 1; the model has 1, from 0"},
        {{.node = 1, .offset = UINT64_C(1) << 33}, 1, 0, "PUSH_ROWS names table 8589934592; the model has 1, from 0"},
        {{.node = 1, .count = 5, .step = 9}, 1, 5, "PUSH_ROWS names step 9; the job has 5, from 0"},
        {{.node = 1, .count = 5, .step = 1}, 1, 5, "PUSH_ROWS is of step 1, for which this shard has no parameters"},
        {{.node = 1, .count = 0, .step = 1}, 1, 0, "PUSH_ROWS is of step 1, for which this shard has no parameters"},
        {{.node = 4, .count = 5}, 1, 5, "PUSH_ROWS names node 4, which has no samples"},
        {{.node = 1, .count = 801}, 1, 100, "PUSH_ROWS brings 801 rows for node 1 of step 0, which can have 800 here"},
        {{.node = 1, .count = 5}, 1, 6, "PUSH_ROWS has 12024 bytes for rows from 0 on, of 5 in all"},
        {{.node = 1, .count = 0}, 1, 1, "PUSH_ROWS has 2004 bytes for rows from 0 on, of 0 in all"},
        {{.node = 1, .count = 5}, 1, 0, "PUSH_ROWS has 0 bytes for rows from 0 on, of 5 in all"},
        {{.node = 1, .count = 5, .value.counter = 3}, 1, 2, "PUSH_ROWS comes out of order: rows from 3 on of node 1"},
        {{.node = 1, .count = 5}, 2, 5, "row 2 of table wide.weight came to a shard that does not have it"},
        {{.node = 1, .count = 2}, ROWS - 1, 2, "row 100001 of table wide.weight came to a shard that does not"},
    };
    for (size_t i = 0; i < sizeof pushes / sizeof pushes[0]; i++) {
        struct client *client = client_new(world);
        send_part(world, client, pushes[i].frame, pushes[i].first, pushes[i].rows);
        expect_refused(world, client, pushes[i].sentence);
    }
    assert_int_equal(world->done, 0);
    world_stop(world);
}

static void wrong_requests_are_refused(void **state)
{
    (void)state;
    struct world *world = world_start(PLAN_FLOAT32);
    static const struct {
        struct frame frame;
        uint32_t first;
        const char *sentence;
    } asks[] = {
        {{.count = 5, .offset = 3}, 1, "GET_ROWS names table 3; the model has 1, from 0"},
        {{.count = 131}, 1, "GET_ROWS asks for 131 rows by 524 bytes"},
        {{.count = 5}, 4, "row 4 of table wide.weight came to a shard that does not have it"},
        {{.count = 5, .step = 2}, 1, "GET_ROWS asks for version 2, and the newest is 0"},
    };
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        struct client *client = client_new(world);
        send_ids(world, client, asks[i].frame, asks[i].first);
        expect_refused(world, client, asks[i].sentence);
    }
    assert_int_equal(world->done, 0);
    world_stop(world);
}

static void what_comes_out_of_turn_is_refused(void **state)
{
    (void)state;
    struct world *world = world_start(PLAN_FLOAT32);
    struct client *client = client_new(world); /* rows that follow, but not on what came before */
    send_part(world, client, (struct frame){.node = 1, .count = 200}, 1, FRAME_ROWS_MOST);
    send_part(world, client, (struct frame){.node = 1, .count = 200, .value.counter = FRAME_ROWS_MOST}, 259, 70);
    expect_refused(world, client, "row 259 of table wide.weight came");
    client = client_new(world);
    send_part(world, client, (struct frame){.node = 1, .count = 200}, 1, FRAME_ROWS_MOST);
    send_part(world, client, (struct frame){.node = 2, .count = 200}, 1, FRAME_ROWS_MOST);
    expect_refused(world, client, "PUSH_ROWS comes out of order: rows from 0 on of node 2");
    client = client_new(world);
    for (int i = 0; i < 40; i++)
        send_ids(world, client, (struct frame){.step = 1, .count = 130}, 1);
    expect_refused(world, client, "GET_ROWS asks ahead for more rows than steps can have");
    client = client_new(world);
    shard_server_set_term(world->server, 4);
    push_rows(world, client, 0, 1, 0);
    expect_refused(world, client, "PUSH is of term 0, this shard serves term 4");
    assert_int_equal(world->done, 0);
    world_stop(world);
}

static void wrong_gradients_of_tasks_are_refused(void **state)
{
    (void)state;
    struct world *world = world_start(PLAN_FLOAT32);
    world_apply_at_once(world);
    static const struct {
        struct frame frame;
        uint8_t type;
        uint32_t rows;
        const char *sentence;
    } batches[] = {
        {{.node = 1}, FRAME_PUSH_ROWS, 0, "PUSH_ROWS came to a shard whose plan has none (spec.sync.type)"},
        {{.offset = 1}, FRAME_PUSH_BATCH_ROWS, 0, "PUSH_BATCH_ROWS names table 1; the model has 1, from 0"},
        {{.value.counter = UINT64_C(1) << 32}, FRAME_PUSH_BATCH_ROWS, 0, "is of version 1 of table 0, and the newest"},
        {{.count = 801}, FRAME_PUSH_BATCH_ROWS, 1, "PUSH_BATCH_ROWS brings 801 rows of table 0; a step can have 800"},
        {{.step = 5}, FRAME_PUSH_BATCH_ROWS, 0, "names step 0 of task 5, which cannot have been leased"},
        {{.node = 1}, FRAME_PUSH_BATCH_ROWS, 0, "names step 1 of task 0, which cannot have been leased"},
        {{.count = 2, .value.counter = 1}, FRAME_PUSH_BATCH_ROWS, 1, "PUSH_BATCH_ROWS comes out of order: rows from 1"},
    };
    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
        struct client *client = client_new(world);
        send_part_as(world, client, batches[i].type, batches[i].frame, 1, batches[i].rows);
        expect_refused(world, client, batches[i].sentence);
    }
    assert_int_equal(world->done, 0);
    world_stop(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_go_out_and_gradients_in),         cmocka_unit_test(half_a_part_is_nothing),
        cmocka_unit_test(gradients_of_tasks_are_applied_once),  cmocka_unit_test(wrong_pushes_are_refused),
        cmocka_unit_test(wrong_requests_are_refused),           cmocka_unit_test(what_comes_out_of_turn_is_refused),
        cmocka_unit_test(wrong_gradients_of_tasks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
