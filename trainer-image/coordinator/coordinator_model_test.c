/* Random worlds around the coordinator: workers that come, go, fall silent and wake up again, shards that report in
 * any order they may; with KAverage, rounds of shares. The world is a plain model of what workers and shards do; the
 * coordinator must bring every one of them to its end, with every step done once and no work for the dead. */
#include "common/plan/schedule.h"
#include "coordinator/coordinator.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WORKERS_MOST = 12, SHARDS_MOST = 3, WORLDS = 400, TURNS_MOST = 2000000 /* without a step */ };

struct worker {
    bool present, welcomed, mute; /* mute: neither heard nor computing, and not closed either */
    uint64_t dealt, settled;
    uint64_t blocks[2]; /* of step % 2, not computed yet */
    uint64_t validate;  /* validation blocks, not computed yet */
    uint64_t validate_version;
};

struct world {
    uint64_t random;
    struct plan plan;
    uint64_t samples, test_samples;
    struct coordinator *coordinator;
    struct instant now;
    struct worker workers[COORDINATOR_MEMBERS_MOST];
    uint32_t present;
    uint64_t opened;                  /* steps, or rounds, that were dealt at all */
    uint32_t shares[2];               /* of round % 2 */
    uint32_t weight[2][64];           /* what a block, or a share's steps, count for */
    uint8_t *covered;                 /* of each of the job's steps, in how many shares it is */
    uint64_t arrived[SHARDS_MOST][2]; /* blocks of step % 2 that reached the shard */
    uint64_t shard_done[SHARDS_MOST]; /* steps whose root is complete there */
    uint64_t shard_told[SHARDS_MOST]; /* those the coordinator knows of */
    uint32_t epochs;
    uint64_t saved_version;
    bool over;
    bool mutes_stay; /* who is mute stays so, and its connection never closes: only silence tells */
};

static uint32_t pick(struct world *world, uint32_t below)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return (uint32_t)((world->random >> 20) % below);
}

static bool has_rounds(const struct world *world)
{
    return world->plan.sync == PLAN_KAVERAGE;
}

static uint64_t full(const struct world *world, uint64_t step)
{
    uint32_t blocks = has_rounds(world) ? world->shares[step % 2] : world->plan.blocks;
    return blocks == 64 ? UINT64_MAX : (UINT64_C(1) << blocks) - 1;
}

static uint64_t weight_of(const struct world *world, uint64_t step, uint64_t blocks)
{
    uint64_t weight = 0;
    for (; blocks != 0; blocks &= blocks - 1)
        weight += has_rounds(world) ? world->weight[step % 2][__builtin_ctzll(blocks)] : 1;
    return weight;
}

static uint64_t slowest(const struct world *world)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        least = world->shard_done[shard] < least ? world->shard_done[shard] : least;
    return least;
}

/* A worker gets blocks; steps that are over are settled without a word, as the real one does. */
static void get_deal(struct world *world, const struct coordinator_action *action)
{
    struct worker *worker = &world->workers[action->rank];
    assert_true(worker->present && worker->welcomed);
    assert_true(has_rounds(world) || (action->count > 0 && action->first + action->count <= world->plan.blocks));
    assert_true(action->step <= world->opened); /* in order, none left out */
    if (action->step == world->opened) {
        world->opened++;
        for (uint32_t shard = 0; shard < world->plan.shards; shard++)
            world->arrived[shard][action->step % 2] = 0;
    }
    assert_true(action->step + 2 >= world->opened);
    assert_true(world->shard_done[0] >= action->step); /* parameters of that step exist on shard 0 */
    for (uint32_t block = action->first; block < action->first + action->count; block++) {
        uint64_t bit = UINT64_C(1) << block;
        worker->dealt += weight_of(world, action->step, bit);
        if (slowest(world) > action->step || (worker->blocks[action->step % 2] & bit) != 0)
            worker->settled += weight_of(world, action->step, bit);
        else
            worker->blocks[action->step % 2] |= bit;
    }
}

/* Shares of a round are always the same, and of one epoch; together, rounds take every step once. */
static void get_share(struct world *world, const struct coordinator_action *action)
{
    uint64_t per_epoch = schedule_of(&world->plan, world->samples).steps_per_epoch;
    assert_true(action->shares > 0 && action->shares <= 64 && action->first < action->shares && action->count > 0);
    assert_int_equal(action->begin / per_epoch, world->epochs);
    assert_true((action->begin + action->count - 1) / per_epoch == world->epochs);
    uint32_t *weight = &world->weight[action->step % 2][action->first];
    if (action->step == world->opened) {
        memset(world->weight[action->step % 2], 0, sizeof world->weight[0]);
        world->shares[action->step % 2] = action->shares;
    }
    assert_int_equal(world->shares[action->step % 2], action->shares);
    assert_true(*weight == 0 || *weight == action->count);
    for (uint32_t i = 0; i < action->count && *weight == 0; i++)
        world->covered[action->begin + i]++;
    *weight = action->count;
    struct coordinator_action deal = *action;
    deal.count = 1;
    get_deal(world, &deal);
}

static void get_validation(struct world *world, const struct coordinator_action *action)
{
    struct worker *worker = &world->workers[action->rank];
    assert_true(worker->present && worker->welcomed);
    uint64_t steps = (uint64_t)(world->epochs + 1) * schedule_of(&world->plan, world->samples).steps_per_epoch;
    assert_int_equal(action->step, has_rounds(world) ? world->opened : steps);
    assert_int_equal(slowest(world), action->step);
    if (worker->validate_version != action->step) {
        worker->settled += (uint64_t)__builtin_popcountll(worker->validate);
        worker->validate = 0;
        worker->validate_version = action->step;
    }
    worker->dealt += action->count;
    for (uint32_t block = action->first; block < action->first + action->count; block++) {
        assert_true(block < validation_blocks(world->test_samples));
        uint64_t bit = UINT64_C(1) << block;
        worker->settled += (worker->validate & bit) != 0;
        worker->validate |= bit;
    }
}

static void take_all(struct world *world)
{
    struct coordinator_action action;
    while (coordinator_take(world->coordinator, &action)) {
        assert_false(world->over);
        switch (action.type) {
        case COORDINATOR_WELCOME:
            assert_true(world->workers[action.rank].present && !world->workers[action.rank].welcomed);
            world->workers[action.rank].welcomed = true;
            break;
        case COORDINATOR_DEAL:
            get_deal(world, &action);
            break;
        case COORDINATOR_SHARE:
            get_share(world, &action);
            break;
        case COORDINATOR_LEASE:
            fail_msg("a task was leased");
            break;
        case COORDINATOR_VALIDATE:
            get_validation(world, &action);
            break;
        case COORDINATOR_EPOCH:
            assert_int_equal(action.first, world->epochs);
            world->epochs++;
            assert_int_equal(coordinator_history(world->coordinator, action.first)->epoch, world->epochs);
            break;
        case COORDINATOR_SAVE:
            world->saved_version = action.step;
            break;
        case COORDINATOR_FINISHED:
            world->over = true;
            break;
        }
    }
}

/* Blocks of steps that the whole world is through with are dropped by those who still hold them. */
static void drop_overtaken(struct world *world, struct worker *worker)
{
    for (uint64_t step = world->opened >= 2 ? world->opened - 2 : 0; step < world->opened; step++) {
        if (slowest(world) <= step)
            continue;
        worker->settled += weight_of(world, step, worker->blocks[step % 2]);
        worker->blocks[step % 2] = 0;
    }
}

/* One block more; it reaches each shard at once, or, where the worker dies while pushing, only some of them. */
static void compute_one(struct world *world, uint32_t rank, bool dies)
{
    struct worker *worker = &world->workers[rank];
    drop_overtaken(world, worker);
    for (uint64_t step = world->opened >= 2 ? world->opened - 2 : 0; step < world->opened; step++) {
        uint64_t *blocks = &worker->blocks[step % 2];
        if (*blocks == 0)
            continue;
        if (slowest(world) < step)
            return; /* its parameters are not there yet */
        uint64_t bit = *blocks & -*blocks;
        *blocks &= ~bit;
        worker->settled += weight_of(world, step, bit);
        for (uint32_t shard = 0; shard < world->plan.shards; shard++) {
            if (dies && pick(world, 2) == 0)
                continue;
            if (world->shard_done[shard] != step)
                continue; /* it has its root, and drops what comes again */
            world->arrived[shard][step % 2] |= bit;
            if (world->arrived[shard][step % 2] == full(world, step))
                world->shard_done[shard]++;
        }
        return;
    }
}

static void validate_one(struct world *world, uint32_t rank)
{
    struct worker *worker = &world->workers[rank];
    if (worker->validate == 0)
        return;
    uint32_t block = (uint32_t)__builtin_ctzll(worker->validate);
    worker->validate &= worker->validate - 1;
    worker->settled++;
    struct error err = {0};
    assert_int_equal(coordinator_validated(world->coordinator, rank, worker->validate_version, block, 1,
                                           1.0 / (block + 1), world->now, &err),
                     0);
}

static void tell_done(struct world *world, uint32_t shard)
{
    if (world->shard_told[shard] == world->shard_done[shard])
        return;
    struct error err = {0};
    assert_int_equal(
        coordinator_shard_done(world->coordinator, shard, world->shard_told[shard]++, 1.0, world->now, &err), 0);
}

static void join(struct world *world)
{
    uint32_t rank = 0;
    struct error err = {0};
    assert_int_equal(coordinator_join(world->coordinator, "w", &rank, world->now, &err), 0);
    assert_false(world->workers[rank].present);
    world->workers[rank] = (struct worker){.present = true};
    world->present++;
}

static void lose(struct world *world, uint32_t rank)
{
    coordinator_lost(world->coordinator, rank, world->now);
    world->workers[rank].present = false;
    world->present--;
}

static void turn(struct world *world)
{
    uint32_t rank = pick(world, WORKERS_MOST);
    struct worker *worker = &world->workers[rank];
    bool acts = worker->present && !worker->mute;
    switch (pick(world, 16)) {
    case 0:
        if (world->present < WORKERS_MOST && pick(world, 4) == 0)
            join(world);
        break;
    case 1:
        if (worker->present && pick(world, 8) == 0 && !(worker->mute && world->mutes_stay)) {
            if (!worker->mute)
                compute_one(world, rank, true);
            lose(world, rank);
        }
        break;
    case 2:
        if (worker->present && pick(world, 8) == 0 && !(worker->mute && world->mutes_stay))
            worker->mute = rank != 0 && !worker->mute;
        break;
    case 3:
    case 4:
        tell_done(world, pick(world, world->plan.shards));
        break;
    case 5:
    case 6:
        world->now.nanoseconds += 100 * MILLISECONDS;
        coordinator_tick(world->coordinator, world->now);
        break;
    case 7:
    case 8:
        if (acts) {
            drop_overtaken(world, worker);
            coordinator_heartbeat(world->coordinator, rank, worker->settled, world->now);
        }
        break;
    case 9:
    case 10:
        if (acts)
            validate_one(world, rank);
        break;
    default:
        if (acts)
            compute_one(world, rank, false);
        break;
    }
    take_all(world);
}

static void make_world(struct world *world, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    world->random = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    world->now.nanoseconds = 5 * SECONDS;
    world->mutes_stay = pick(world, 2) == 0;
    static const uint32_t block_counts[] = {1, 2, 5, 8, 16, 64};
    world->plan.blocks = block_counts[pick(world, 6)];
    world->plan.shards = 1 + pick(world, SHARDS_MOST);
    world->plan.training.epochs = 1 + pick(world, 3);
    world->plan.training.batch_size = 1 + pick(world, 40);
    world->plan.training.validate_every_epochs = pick(world, 3);
    world->samples = 1 + pick(world, 200);
    world->test_samples = pick(world, 4) == 0 ? 0 : 1 + pick(world, 60 * VALIDATION_BLOCK);
    if (pick(world, 2) == 0) {
        world->plan.sync = PLAN_KAVERAGE;
        world->plan.local_steps = pick(world, 8);
    }
    world->covered = calloc(schedule_of(&world->plan, world->samples).steps, 1);
    assert_non_null(world->covered);
    world->coordinator = coordinator_new(&world->plan, world->samples, world->test_samples, 1, world->now);
    assert_non_null(world->coordinator);
}

static void run_world(uint64_t seed)
{
    struct world *world = malloc(sizeof *world);
    assert_non_null(world);
    make_world(world, seed);
    struct error err = {0};
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        assert_int_equal(coordinator_shard_registered(world->coordinator, shard, world->now, &err), 0);
    join(world);
    take_all(world);
    uint64_t opened = 0;
    for (int still = 0; still < TURNS_MOST && coordinator_phase(world->coordinator) < COORDINATOR_SAVING; still++) {
        turn(world);
        if (world->opened > opened)
            still = 0;
        opened = world->opened;
    }
    if (coordinator_phase(world->coordinator) != COORDINATOR_SAVING)
        fail_msg("world %llu came to no end: step %llu, epoch %u", (unsigned long long)seed,
                 (unsigned long long)world->opened, world->epochs);
    uint64_t steps = schedule_of(&world->plan, world->samples).steps;
    assert_int_equal(world->epochs, world->plan.training.epochs);
    for (uint64_t step = 0; step < steps && has_rounds(world); step++)
        assert_int_equal(world->covered[step], 1);
    assert_true(has_rounds(world) ? world->opened <= steps : world->opened == steps);
    assert_int_equal(world->saved_version, world->opened);
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        assert_int_equal(world->shard_done[shard], world->opened);
    struct report_progress progress;
    coordinator_progress(world->coordinator, world->now, &progress);
    assert_int_equal(progress.step, steps);
    const struct report_epoch *last = coordinator_history(world->coordinator, world->epochs - 1);
    assert_true(last->validated == (world->test_samples > 0));
    coordinator_saved(world->coordinator, NULL, NULL);
    take_all(world);
    assert_true(world->over && coordinator_result(world->coordinator)->succeeded);
    coordinator_free(world->coordinator);
    free(world->covered);
    free(world);
}

static void test_random_worlds_come_to_their_end(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= WORLDS; seed++)
        run_world(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_worlds_come_to_their_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
