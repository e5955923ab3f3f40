/* A shard behind its port: a server and its clients in one process, over loopback. */
#include "common/test/scarce.h"
#include "ps/test_bed.h"

enum { CLIENTS_MOST = 8, CHUNKS_MOST = 8 };

struct world;

struct client {
    struct user user;
    struct world *world;
    struct net *net;
    uint64_t version[CHUNKS_MOST]; /* the newest that came; UINT64_MAX: none */
    uint32_t got[CHUNKS_MOST];     /* PARAMS of each chunk */
    uint32_t term;
    float first[CHUNKS_MOST]; /* parameter of each chunk, at the newest version */
};

/* The server and its clients have a loop each; clients of `slow` do not run unless the test says so. */
struct world {
    struct net *net, *slow, *fast;
    struct plan plan;
    struct shard *shard;
    struct shard_server *server;
    uint32_t chunk_floats, chunks, floats;
    char address[32];
    uint64_t done;
    struct client clients[CLIENTS_MOST];
    uint32_t client_count;
};

static void chunk_ready(void *arg, uint64_t version, uint64_t offset)
{
    struct world *world = arg;
    shard_server_chunk_ready(world->server, version, offset);
}

static void step_done(void *arg, uint64_t step, double loss)
{
    struct world *world = arg;
    assert_int_equal(step, world->done);
    assert_true(loss == 4.5);
    world->done++;
}

static struct world *world_start(uint32_t chunk_floats, uint32_t floats, uint32_t steps)
{
    struct world *world = calloc(1, sizeof *world);
    world->net = new_net(1);
    world->slow = new_net(2);
    world->fast = new_net(3);
    world->plan.blocks = 2;
    world->plan.shards = 1;
    world->plan.training.batch_size = 1;
    world->plan.training.epochs = 1;
    world->plan.training.optimizer.learning_rate = 1;
    world->chunk_floats = chunk_floats;
    world->floats = floats;
    world->chunks = (floats + chunk_floats - 1) / chunk_floats;
    struct shard_hooks hooks = {.chunk_ready = chunk_ready, .step_done = step_done, .arg = world};
    struct error err = {0};
    if (plain_shard(&world->shard, world->net, &world->plan, 0, floats, chunk_floats, steps, &hooks, &err) < 0 ||
        shard_server_new(&world->server, world->net, world->shard, NULL, &err) < 0)
        fail_msg("%s", error_message(&err));
    listen_for(world->net, &world->server, world->address);
    return world;
}

static void world_stop(struct world *world)
{
    shard_server_free(world->server);
    shard_free(world->shard);
    net_free(world->net);
    net_free(world->slow);
    net_free(world->fast);
    free(world);
}

/* ---- Clients ---- */

static void heard(struct user *user, const struct frame *frame, const void *payload)
{
    struct client *client = (struct client *)user;
    assert_int_equal(frame->type, FRAME_PARAMS);
    uint64_t chunk = frame->offset / client->world->chunk_floats;
    assert_true(chunk < client->world->chunks);
    client->version[chunk] = frame->step;
    client->term = frame->term;
    client->got[chunk]++;
    memcpy(&client->first[chunk], payload, sizeof(float));
}

/* Until nothing happens any more. */
static void settle(struct world *world, bool slow_too)
{
    struct net *const nets[] = {world->net, world->fast, world->slow};
    settle_nets(nets, slow_too ? 3 : 2);
}

static struct client *client_new(struct world *world, struct net *net)
{
    struct client *client = &world->clients[world->client_count++];
    *client = (struct client){.world = world, .net = net, .user.heard = heard};
    memset(client->version, 0xff, sizeof client->version);
    user_dial(&client->user, net, world->address);
    settle(world, true);
    assert_true(client->user.ready);
    return client;
}

static void ask(struct client *client, uint8_t type, uint64_t step, uint64_t offset)
{
    conn_send(client->user.conn, &(struct frame){.type = type, .step = step, .offset = offset}, NULL);
}

/* The root's gradient of a chunk, all ones, as blocks have no more than one sample. */
static void push_frame(struct client *client, struct frame frame, uint32_t floats)
{
    struct payload *payload = payload_new(client->net, floats * sizeof(float));
    for (uint32_t i = 0; i < floats; i++)
        ((float *)payload->data)[i] = 1;
    frame.type = FRAME_PUSH;
    conn_send(client->user.conn, &frame, payload);
    payload_unref(client->net, payload);
}

static uint32_t chunk_size(const struct world *world, uint32_t chunk)
{
    uint32_t left = world->floats - chunk * world->chunk_floats;
    return left < world->chunk_floats ? left : world->chunk_floats;
}

static void push_step(struct client *client, uint64_t step)
{
    struct world *world = client->world;
    for (uint32_t i = 0; i < world->chunks; i++) {
        struct frame frame = {.step = step, .node = 1, .value.loss = 4.5};
        frame.offset = (uint64_t)i * world->chunk_floats;
        push_frame(client, frame, chunk_size(world, i));
    }
}

static void check_version(const struct client *client, uint64_t version)
{
    for (uint32_t i = 0; i < client->world->chunks; i++) {
        assert_int_equal(client->version[i], version);
        assert_true(client->first[i] == -(float)version);
    }
}

/* ---- Tests ---- */

static void subscribers_get_every_version(void **state)
{
    (void)state;
    struct world *world = world_start(16, 40, 5);
    shard_server_set_term(world->server, 3);
    struct client *a = client_new(world, world->fast), *b = client_new(world, world->slow);
    struct client *silent = client_new(world, world->fast);
    ask(a, FRAME_SUBSCRIBE, 0, 0);
    ask(a, FRAME_SUBSCRIBE, 0, 0); /* twice is once */
    settle(world, true);
    check_version(a, 0);
    assert_int_equal(a->got[0], 1);
    assert_int_equal(a->term, 3);
    for (uint64_t step = 0; step < 5; step++) {
        for (uint32_t i = 0; i < 3; i++)
            push_frame(
                step % 2 == 0 ? a : b,
                (struct frame){.term = 3, .node = 1, .step = step, .offset = UINT64_C(16) * i, .value.loss = 4.5},
                i == 2 ? 8 : 16);
        settle(world, true);
        assert_int_equal(world->done, step + 1);
        check_version(a, step + 1);
        assert_int_equal(a->got[2], step + 2);
        if (step == 2)
            ask(b, FRAME_SUBSCRIBE, 0, 0);
        settle(world, true);
    }
    check_version(b, 5);
    assert_int_equal(b->got[0], 3); /* versions 3, 4, 5 */
    assert_int_equal(silent->got[0], 0);
    world_stop(world);
}

/* Both ends: pushes are sent, received, added up and applied, and the parameters come back. */
static void warm_steps_allocate_nothing(void **state)
{
    (void)state;
    enum { WARM = 4, STEPS = 20 };
    struct world *world = world_start(WIRE_CHUNK_FLOATS, 2 * WIRE_CHUNK_FLOATS + 100, STEPS);
    struct client *a = client_new(world, world->fast), *b = client_new(world, world->slow);
    ask(a, FRAME_SUBSCRIBE, 0, 0);
    ask(b, FRAME_SUBSCRIBE, 0, 0);
    settle(world, true);
    for (uint64_t step = 0; step < STEPS; step++) {
        scarce_begin(SCARCE_ONE, step < WARM ? SIZE_MAX : 0);
        push_step(a, step);
        push_step(b, step); /* again */
        settle(world, true);
        assert_false(scarce_end());
        check_version(a, step + 1);
        check_version(b, step + 1);
    }
    world_stop(world);
}

static void gets_are_answered_for_two_versions(void **state)
{
    (void)state;
    struct world *world = world_start(16, 40, 5);
    struct client *client = client_new(world, world->fast);
    for (uint64_t step = 0; step < 3; step++) {
        push_step(client, step);
        settle(world, true);
    }
    static const struct {
        uint64_t version, offset;
        bool answered;
    } cases[] = {{3, 0, true}, {2, 16, true}, {1, 32, false}, {4, 0, false}, {UINT64_MAX, 0, false}, {3, 32, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memset(client->version, 0xff, sizeof client->version);
        ask(client, FRAME_GET, cases[i].version, cases[i].offset);
        settle(world, true);
        assert_int_equal(client->version[cases[i].offset / 16], cases[i].answered ? cases[i].version : UINT64_MAX);
    }
    world_stop(world);
}

static void a_lagging_subscriber_gets_the_newest(void **state)
{
    (void)state;
    /* Versions of a megabyte and a little; more of them than any socket buffer holds. */
    enum { STEPS = 60 };
    struct world *world = world_start(WIRE_CHUNK_FLOATS, 4 * WIRE_CHUNK_FLOATS + 100, STEPS);
    struct client *slow = client_new(world, world->slow), *fast = client_new(world, world->fast);
    ask(slow, FRAME_SUBSCRIBE, 0, 0);
    ask(fast, FRAME_SUBSCRIBE, 0, 0);
    settle(world, true);
    for (uint64_t step = 0; step < STEPS; step++) {
        push_step(fast, step);
        settle(world, false);
        check_version(fast, step + 1);
        assert_true(shard_server_queued_most(world->server) <=
                    5 * (size_t)(WIRE_HEADER_SIZE + WIRE_PAYLOAD_MOST) + WIRE_HEADER_SIZE + WIRE_PAYLOAD_MOST);
    }
    assert_int_equal(fast->got[0], STEPS + 1);
    settle(world, true);
    check_version(slow, STEPS);
    assert_true(slow->got[0] < STEPS / 2);
    world_stop(world);
}

static void mistakes_close_the_connection_with_a_sentence(void **state)
{
    (void)state;
    struct world *world = world_start(16, 40, 5);
    shard_server_set_term(world->server, 2);
    static const struct {
        struct frame frame;
        const char *sentence;
    } cases[] = {
        {{.type = FRAME_GET, .offset = 8}, "GET names parameters from 8 on, where no chunk of this shard begins"},
        {{.type = FRAME_PUSH, .term = 1, .node = 1, .length = 64}, "PUSH is of term 1, this shard serves term 2"},
        {{.type = FRAME_PUSH, .term = 3, .node = 1, .length = 64}, "PUSH is of term 3, this shard serves term 2"},
        {{.type = FRAME_PUSH, .term = 2, .node = 2, .length = 64}, "PUSH names node 2, which has no samples"},
        {{.type = FRAME_PUSH, .term = 2, .node = 1, .length = 60}, "PUSH has 60 bytes for parameters from 0 on"},
        {{.type = FRAME_PUSH, .term = 2, .node = 1, .step = 1, .length = 64},
         "PUSH is of step 1, for which this shard has no parameters yet: it is at step 0"},
    };
    struct client *good = client_new(world, world->fast);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        world->client_count = 1;
        struct client *client = client_new(world, world->slow);
        if (cases[i].frame.type == FRAME_PUSH)
            push_frame(client, cases[i].frame, cases[i].frame.length / 4);
        else
            conn_send(client->user.conn, &cases[i].frame, NULL);
        settle(world, true);
        assert_true(client->user.closed);
        if (strstr(client->user.reason, cases[i].sentence) == NULL)
            fail_msg("'%s' does not say '%s'", client->user.reason, cases[i].sentence);
    }
    ask(good, FRAME_SUBSCRIBE, 0, 0);
    settle(world, true);
    check_version(good, 0);
    world_stop(world);
}

static void connections_may_break_in_the_middle_of_a_push(void **state)
{
    (void)state;
    struct world *world = world_start(WIRE_CHUNK_FLOATS, 4 * WIRE_CHUNK_FLOATS, 5);
    struct client *client = client_new(world, world->fast);
    struct client *lost = client_new(world, world->slow);
    ask(lost, FRAME_SUBSCRIBE, 0, 0);
    for (int i = 0; i < 40; i++) /* more than its socket takes at once */
        push_step(lost, 0);
    turn(world->slow, 0);
    turn(world->net, 0);
    net_free(world->slow); /* as a killed process */
    world->slow = new_net(4);
    settle(world, true);
    push_step(client, 0);
    ask(client, FRAME_SUBSCRIBE, 0, 0);
    settle(world, true);
    check_version(client, 1);
    assert_int_equal(world->done, 1);
    world_stop(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(subscribers_get_every_version),
        cmocka_unit_test(warm_steps_allocate_nothing),
        cmocka_unit_test(gets_are_answered_for_two_versions),
        cmocka_unit_test(a_lagging_subscriber_gets_the_newest),
        cmocka_unit_test(mistakes_close_the_connection_with_a_sentence),
        cmocka_unit_test(connections_may_break_in_the_middle_of_a_push),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
