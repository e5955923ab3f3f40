/* Averages of rounds against the definition, with shares in any order, again, late, and from workers that die. */
#include "ps/average.h"

#include "common/test/dice.h"
#include "common/test/scarce.h"
#include "numerics/numerics.h"
#include "ps/test_bed.h"

enum { CHUNK = 8, CHUNKS = 3, FLOATS = CHUNK * CHUNKS, SHARES_MOST = 7, ROUNDS = 6, WORLDS = 100, SAMPLES = 100000 };

struct world {
    uint64_t seed;
    struct net *net;
    struct plan plan;
    struct shard *shard;
    struct average *average;
    uint64_t rounds_done;
    double loss;
};

static uint32_t shares_in(uint64_t round)
{
    return (uint32_t)(round * 5 % SHARES_MOST) + 1;
}

static uint32_t samples_of(uint64_t round, uint32_t share)
{
    return (uint32_t)(round * 17 + UINT64_C(29) * share) % 200 + 1;
}

static float value_of(const struct world *world, uint64_t round, uint32_t share, uint32_t at)
{
    float value = (float)((round * 7919 + UINT64_C(104729) * share + UINT64_C(1299709) * at) % 10007) / 3.0F;
    return world->plan.wire == PLAN_BFLOAT16 ? bfloat16_value(bfloat16_of(value)) : value;
}

static float mean_of(const struct world *world, uint64_t round, uint32_t at)
{
    uint64_t samples = 0;
    for (uint32_t share = 0; share < shares_in(round); share++)
        samples += samples_of(round, share);
    double mean = 0;
    for (uint32_t share = 0; share < shares_in(round); share++)
        mean += (double)samples_of(round, share) / (double)samples * (double)value_of(world, round, share, at);
    return world->plan.wire == PLAN_BFLOAT16 ? bfloat16_value(bfloat16_of((float)mean)) : (float)mean;
}

static struct frame frame_of(const struct world *world, uint64_t round, uint32_t share, uint32_t chunk)
{
    return (struct frame){.type = FRAME_PUSH_SHARE,
                          .step = round,
                          .node = shares_in(round) << 16 | share,
                          .count = samples_of(round, share),
                          .offset = (uint64_t)chunk * CHUNK,
                          .value.loss = share + 1,
                          .length = CHUNK * layout_value_bytes(world->plan.wire)};
}

static void push(struct world *world, uint64_t round, uint32_t share, uint32_t chunk)
{
    struct frame frame = frame_of(world, round, share, chunk);
    struct error err = {0};
    assert_int_equal(average_check(world->average, &frame, &err), 0);
    struct payload *params = payload_new(world->net, frame.length);
    assert_non_null(params);
    float values[CHUNK];
    for (uint32_t i = 0; i < CHUNK; i++)
        values[i] = value_of(world, round, share, chunk * CHUNK + i);
    if (world->plan.wire == PLAN_BFLOAT16)
        vector_bfloat16_pack((uint16_t *)(void *)params->data, values, CHUNK);
    else
        memcpy(params->data, values, sizeof values);
    /* The round before the last has the most shares: after it there are payloads to use again. */
    scarce_begin(SCARCE_ONE, world->rounds_done < ROUNDS - 1 ? SIZE_MAX : 0);
    int pushed = average_push(world->average, &frame, params, &err);
    assert_false(scarce_end());
    assert_int_equal(pushed, 0);
    payload_unref(world->net, params);
}

static void check_chunk(const struct world *world, uint32_t chunk)
{
    struct shard_chunk here = shard_chunk(world->shard, chunk);
    float values[CHUNK];
    if (world->plan.wire == PLAN_BFLOAT16)
        vector_bfloat16_unpack(values, (const uint16_t *)(const void *)here.params->data, CHUNK);
    else
        memcpy(values, here.params->data, sizeof values);
    for (uint32_t i = 0; i < CHUNK && here.version > 0; i++)
        assert_true(values[i] == mean_of(world, here.version - 1, chunk * CHUNK + i));
}

static void on_step_done(void *arg, uint64_t step, double loss)
{
    struct world *world = arg;
    assert_int_equal(step, world->rounds_done);
    double sum = shares_in(step) * (shares_in(step) + 1.0) / 2;
    assert_true(loss == sum);
    world->rounds_done++;
}

static void begin(struct world *world, uint64_t seed)
{
    *world = (struct world){.seed = seed};
    world->plan.sync = PLAN_KAVERAGE;
    world->plan.wire = below(&world->seed, 2) == 0 ? PLAN_FLOAT32 : PLAN_BFLOAT16;
    world->plan.shards = world->plan.blocks = world->plan.training.epochs = world->plan.training.batch_size = 1;
    world->plan.training.optimizer = (struct plan_optimizer){.type = PLAN_ADAM, .learning_rate = 0.1};
    struct error err = {0};
    world->net = new_net(1);
    const struct shard_hooks hooks = {.step_done = on_step_done, .arg = world};
    assert_int_equal(plain_shard(&world->shard, world->net, &world->plan, 0, FLOATS, CHUNK, SAMPLES, &hooks, &err), 0);
    assert_int_equal(average_new(&world->average, world->net, world->shard, &world->plan, SAMPLES, &err), 0);
}

static void end(struct world *world)
{
    average_free(world->average);
    shard_free(world->shard);
    net_free(world->net);
}

static void a_round_is_the_mean_of_its_shares_in_their_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= WORLDS; seed++) {
        struct world world;
        begin(&world, seed);
        uint64_t duplicates = 0; /* to the first chunk, which all are counted by */
        bool here[SHARES_MOST] = {false};
        while (world.rounds_done < ROUNDS) {
            uint32_t chunk = below(&world.seed, CHUNKS);
            uint64_t version = shard_chunk(world.shard, chunk).version;
            /* Nobody has parameters of a round that is not over everywhere. */
            uint64_t round = world.rounds_done - (world.rounds_done > 0 && below(&world.seed, 8) == 0);
            uint32_t share = below(&world.seed, shares_in(round));
            if (chunk == 0) {
                duplicates += round < version || here[share];
                here[share] = here[share] || round == version;
            }
            push(&world, round, share, chunk);
            check_chunk(&world, chunk);
            if (chunk == 0 && shard_chunk(world.shard, chunk).version > version)
                memset(here, 0, sizeof here);
        }
        assert_int_equal(average_sync(world.average)->duplicates, duplicates);
        uint64_t samples = 0;
        for (uint64_t round = 0; round < ROUNDS; round++)
            for (uint32_t share = 0; share < shares_in(round); share++)
                samples += samples_of(round, share);
        assert_int_equal(average_sync(world.average)->samples, samples);
        push(&world, ROUNDS, 0, 1); /* what is kept at the end is given back */
        end(&world);
    }
}

static void shares_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct frame frame;
        const char *sentence;
    } cases[] = {
        {{.offset = 3}, "PUSH_SHARE names parameters from 3 on, where no chunk of this shard begins"},
        {{.length = 31}, "PUSH_SHARE has 31 bytes for parameters from 0 on; they are "},
        {{.node = 2 << 16 | 2, .count = 1}, "PUSH_SHARE names share 2 of 2; there are at most 64"},
        {{.node = 65 << 16, .count = 1}, "PUSH_SHARE names share 0 of 65; there are at most 64"},
        {{.node = 1 << 16}, "PUSH_SHARE is of 0 samples; the data set has 100000"},
        {{.node = 1 << 16, .count = SAMPLES + 1}, "PUSH_SHARE is of 100001 samples; the data set has 100000"},
        {{.node = 1 << 16, .count = 1, .step = 1}, "PUSH_SHARE is of round 1, and round 0 is not over"},
    };
    struct world world;
    begin(&world, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct frame frame = cases[i].frame;
        frame.length = frame.length != 0 ? frame.length : CHUNK * layout_value_bytes(world.plan.wire);
        struct error err = {0};
        assert_int_equal(average_check(world.average, &frame, &err), -1);
        assert_non_null(strstr(error_message(&err), cases[i].sentence));
    }
    push(&world, 0, 0, 0); /* of one share: the round is over */
    push(&world, 1, 0, 0);
    struct frame frame = frame_of(&world, 1, 1, 0);
    frame.node = 3 << 16 | 1;
    struct error err = {0};
    struct payload *params = payload_new(world.net, frame.length);
    assert_int_equal(average_push(world.average, &frame, params, &err), -1);
    assert_string_equal(error_message(&err), "PUSH_SHARE is of a round of 3 shares, and others said that it has 6");
    payload_unref(world.net, params);
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_is_the_mean_of_its_shares_in_their_order),
        cmocka_unit_test(shares_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
