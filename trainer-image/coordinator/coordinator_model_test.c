/* Random worlds around the coordinator (random_world.h) in which steps are dealt, or with KAverage rounds of shares;
 * the shards report in any order they may. The world is a plain model of what workers and shards do; the coordinator
 * must bring every one of them to its end, with every step done once and no work for the dead. */
#include "coordinator/random_world.h"

#include "common/plan/schedule.h"

#include <stdlib.h>
#include <string.h>

enum { WORLDS = 400 };

struct steps {
    struct world world;
    uint64_t held[COORDINATOR_MEMBERS_MOST][2]; /* by each worker: blocks of step % 2, not computed yet */
    uint64_t opened;                            /* steps, or rounds, that were dealt at all */
    uint32_t shares[2];                         /* of round % 2 */
    uint32_t weight[2][64];                     /* what a block, or a share's steps, count for */
    uint8_t *covered;                           /* of each of the job's steps, in how many shares it is */
    uint64_t arrived[WORLD_SHARDS_MOST][2];     /* blocks of step % 2 that reached the shard */
    uint64_t done[WORLD_SHARDS_MOST];           /* steps whose root is complete there */
    uint64_t told[WORLD_SHARDS_MOST];           /* those the coordinator knows of */
};

static bool has_rounds(const struct steps *steps)
{
    return steps->world.plan.sync == PLAN_KAVERAGE;
}

static uint64_t full(const struct steps *steps, uint64_t step)
{
    uint32_t blocks = has_rounds(steps) ? steps->shares[step % 2] : steps->world.plan.blocks;
    return blocks == 64 ? UINT64_MAX : (UINT64_C(1) << blocks) - 1;
}

static uint64_t weight_of(const struct steps *steps, uint64_t step, uint64_t blocks)
{
    uint64_t weight = 0;
    for (; blocks != 0; blocks &= blocks - 1)
        weight += has_rounds(steps) ? steps->weight[step % 2][__builtin_ctzll(blocks)] : 1;
    return weight;
}

static uint64_t slowest(const struct steps *steps)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t shard = 0; shard < steps->world.plan.shards; shard++)
        least = steps->done[shard] < least ? steps->done[shard] : least;
    return least;
}

/* A step takes the place of the one before the last, of which somebody who was mute may still hold blocks. */
static void open_step(struct steps *steps, const struct coordinator_action *action)
{
    uint64_t place = action->step % 2;
    for (uint32_t rank = 0; rank < COORDINATOR_MEMBERS_MOST; rank++) {
        steps->world.workers[rank].settled += weight_of(steps, action->step, steps->held[rank][place]);
        steps->held[rank][place] = 0;
    }
    for (uint32_t shard = 0; shard < steps->world.plan.shards; shard++)
        steps->arrived[shard][place] = 0;
    memset(steps->weight[place], 0, sizeof steps->weight[place]);
    steps->shares[place] = action->shares;
    steps->opened++;
}

/* A worker gets blocks; steps that are over are settled without a word, as the real one does. */
static void get_deal(struct steps *steps, const struct coordinator_action *action)
{
    struct worker *worker = &steps->world.workers[action->rank];
    uint64_t *held = &steps->held[action->rank][action->step % 2];
    assert_true(has_rounds(steps) || (action->count > 0 && action->first + action->count <= steps->world.plan.blocks));
    assert_true(action->step + 2 >= steps->opened);
    assert_true(steps->done[0] >= action->step); /* parameters of that step exist on shard 0 */
    for (uint32_t block = action->first; block < action->first + action->count; block++) {
        uint64_t bit = UINT64_C(1) << block;
        if (slowest(steps) > action->step || (*held & bit) != 0)
            worker->settled += weight_of(steps, action->step, bit);
        else
            *held |= bit;
    }
}

/* Shares of a round are always the same, and of one epoch; together, rounds take every step once. */
static void get_share(struct steps *steps, const struct coordinator_action *action)
{
    uint64_t per_epoch = schedule_of(&steps->world.plan, steps->world.samples).steps_per_epoch;
    assert_true(action->shares > 0 && action->shares <= 64 && action->first < action->shares && action->count > 0);
    assert_int_equal(action->begin / per_epoch, steps->world.epochs);
    assert_true((action->begin + action->count - 1) / per_epoch == steps->world.epochs);
    uint32_t *weight = &steps->weight[action->step % 2][action->first];
    assert_int_equal(steps->shares[action->step % 2], action->shares);
    assert_true(*weight == 0 || *weight == action->count);
    for (uint32_t i = 0; i < action->count && *weight == 0; i++)
        steps->covered[action->begin + i]++;
    *weight = action->count;
    struct coordinator_action deal = *action;
    deal.count = 1;
    get_deal(steps, &deal);
}

/* ---- hooks ---- */

static void joined(struct world *world, uint32_t rank)
{
    struct steps *steps = (struct steps *)world;
    memset(steps->held[rank], 0, sizeof steps->held[rank]);
}

static void given(struct world *world, const struct coordinator_action *action)
{
    struct steps *steps = (struct steps *)world;
    if (action->type == COORDINATOR_LEASE)
        fail_msg("a task was leased");
    assert_true(action->step <= steps->opened); /* in order, none left out */
    if (action->step == steps->opened)
        open_step(steps, action);
    if (action->type == COORDINATOR_SHARE)
        get_share(steps, action);
    else
        get_deal(steps, action);
}

/* Blocks of steps that the whole world is through with are dropped by those who still hold them. */
static void drop_overtaken(struct world *world, uint32_t rank)
{
    struct steps *steps = (struct steps *)world;
    for (uint64_t step = steps->opened >= 2 ? steps->opened - 2 : 0; step < steps->opened; step++) {
        if (slowest(steps) <= step)
            continue;
        world->workers[rank].settled += weight_of(steps, step, steps->held[rank][step % 2]);
        steps->held[rank][step % 2] = 0;
    }
}

/* One block more; it reaches each shard at once. */
static void compute_one(struct world *world, uint32_t rank, bool dies)
{
    struct steps *steps = (struct steps *)world;
    drop_overtaken(world, rank);
    for (uint64_t step = steps->opened >= 2 ? steps->opened - 2 : 0; step < steps->opened; step++) {
        uint64_t *held = &steps->held[rank][step % 2];
        if (*held == 0)
            continue;
        if (slowest(steps) < step)
            return; /* its parameters are not there yet */
        uint64_t bit = *held & -*held;
        *held &= ~bit;
        world->workers[rank].settled += weight_of(steps, step, bit);
        for (uint32_t shard = 0; shard < world->plan.shards; shard++) {
            if (dies && below(&world->random, 2) == 0)
                continue;
            if (steps->done[shard] != step)
                continue; /* it has its root, and drops what comes again */
            steps->arrived[shard][step % 2] |= bit;
            if (steps->arrived[shard][step % 2] == full(steps, step))
                steps->done[shard]++;
        }
        return;
    }
}

static void tell_done(struct world *world, uint32_t shard)
{
    struct steps *steps = (struct steps *)world;
    struct error err = {0};
    if (steps->told[shard] == steps->done[shard])
        return;
    assert_int_equal(coordinator_shard_done(world->coordinator, shard, steps->told[shard]++, 1.0, world->now, &err), 0);
}

static void check_version(const struct world *world, uint64_t version)
{
    const struct steps *steps = (const struct steps *)world;
    uint64_t trained = (uint64_t)(world->epochs + 1) * schedule_of(&world->plan, world->samples).steps_per_epoch;
    assert_int_equal(version, has_rounds(steps) ? steps->opened : trained);
    assert_int_equal(slowest(steps), version);
}

static uint64_t opened(const struct world *world)
{
    return ((const struct steps *)world)->opened;
}

static const struct world_hooks hooks = {.joined = joined,
                                         .given = given,
                                         .compute = compute_one,
                                         .tell = tell_done,
                                         .settle = drop_overtaken,
                                         .check_version = check_version,
                                         .progress = opened};

static void run_steps(uint64_t seed)
{
    struct steps *steps = calloc(1, sizeof *steps);
    assert_non_null(steps);
    struct world *world = &steps->world;
    world_choose(world, &hooks, seed);
    world->plan.training.batch_size = 1 + below(&world->random, 40);
    world->samples = 1 + below(&world->random, 200);
    if (below(&world->random, 2) == 0) {
        world->plan.sync = PLAN_KAVERAGE;
        world->plan.local_steps = below(&world->random, 8);
    }
    uint64_t count = schedule_of(&world->plan, world->samples).steps;
    steps->covered = calloc(count, 1);
    assert_non_null(steps->covered);
    world_start(world);
    world_run(world);
    world_end(world);
    for (uint64_t step = 0; step < count && has_rounds(steps); step++)
        assert_int_equal(steps->covered[step], 1);
    assert_true(has_rounds(steps) ? steps->opened <= count : steps->opened == count);
    assert_int_equal(world->saved, steps->opened);
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        assert_int_equal(steps->done[shard], steps->opened);
    free(steps->covered);
    free(steps);
}

static void test_random_worlds_come_to_their_end(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= WORLDS; seed++)
        run_steps(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_worlds_come_to_their_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
