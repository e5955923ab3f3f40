#include "coordinator/random_world.h"

#include "common/plan/schedule.h"

enum { TURNS_MOST = 4000000 /* without progress */ };

static void take_validation(struct world *world, const struct coordinator_action *action)
{
    struct worker *worker = &world->workers[action->rank];
    assert_true(worker->present && worker->welcome);
    world->hooks->check_version(world, action->step);
    if (worker->version != action->step) {
        worker->settled += (uint64_t)__builtin_popcountll(worker->validate);
        worker->validate = 0;
        worker->version = action->step;
    }
    for (uint32_t block = action->first; block < action->first + action->count; block++) {
        assert_true(block < validation_blocks(world->test_samples));
        worker->settled += worker->validate >> block & 1;
        worker->validate |= UINT64_C(1) << block;
    }
}

static void take_all(struct world *world)
{
    struct coordinator_action action;
    while (coordinator_take(world->coordinator, &action)) {
        struct worker *worker = &world->workers[action.rank];
        assert_false(world->over);
        switch (action.type) {
        case COORDINATOR_WELCOME:
            assert_true(worker->present && !worker->welcome);
            worker->welcome = true;
            break;
        case COORDINATOR_DEAL:
        case COORDINATOR_SHARE:
        case COORDINATOR_LEASE:
            assert_true(worker->present && worker->welcome);
            world->hooks->given(world, &action);
            break;
        case COORDINATOR_VALIDATE:
            take_validation(world, &action);
            break;
        case COORDINATOR_EPOCH:
            assert_int_equal(action.first, world->epochs);
            world->epochs++;
            assert_int_equal(coordinator_history(world->coordinator, action.first)->epoch, world->epochs);
            break;
        case COORDINATOR_SAVE:
            world->saved = action.step;
            break;
        case COORDINATOR_FINISHED:
            world->over = true;
            break;
        }
    }
}

/* May come late, of a validation that others have ended: then it is passed over. */
static void validate_one(struct world *world, uint32_t rank)
{
    struct worker *worker = &world->workers[rank];
    if (worker->validate == 0)
        return;
    uint32_t block = (uint32_t)__builtin_ctzll(worker->validate);
    worker->validate &= worker->validate - 1;
    worker->settled++;
    struct error err = {0};
    int result =
        coordinator_validated(world->coordinator, rank, worker->version, block, 1, 1.0 / (block + 1), world->now, &err);
    assert_int_equal(result, 0);
}

static void join(struct world *world)
{
    uint32_t rank = 0;
    struct error err = {0};
    assert_int_equal(coordinator_join(world->coordinator, "w", &rank, world->now, &err), 0);
    assert_false(world->workers[rank].present);
    world->workers[rank] = (struct worker){.present = true};
    world->present++;
    world->hooks->joined(world, rank);
}

static void lose(struct world *world, uint32_t rank)
{
    if (!world->workers[rank].mute)
        world->hooks->compute(world, rank, true);
    coordinator_lost(world->coordinator, rank, world->now);
    world->workers[rank].present = false;
    world->present--;
}

static void turn(struct world *world)
{
    uint32_t rank = below(&world->random, WORLD_WORKERS_MOST);
    struct worker *worker = &world->workers[rank];
    bool acts = worker->present && !worker->mute;
    bool may_change = worker->present && !(worker->mute && world->mutes_stay);
    switch (below(&world->random, 16)) {
    case 0:
        if (world->present < WORLD_WORKERS_MOST && below(&world->random, 4) == 0)
            join(world);
        break;
    case 1:
        if (may_change && below(&world->random, 8) == 0)
            lose(world, rank);
        break;
    case 2:
        if (may_change && below(&world->random, 8) == 0)
            worker->mute = rank != 0 && !worker->mute;
        break;
    case 3:
    case 4:
        world->hooks->tell(world, below(&world->random, world->plan.shards));
        break;
    case 5:
    case 6:
        world->now.nanoseconds += 100 * MILLISECONDS;
        coordinator_tick(world->coordinator, world->now);
        break;
    case 7:
    case 8:
        if (acts && world->hooks->settle != NULL)
            world->hooks->settle(world, rank);
        if (acts)
            coordinator_heartbeat(world->coordinator, rank, worker->settled, world->now);
        break;
    case 9:
    case 10:
        if (acts)
            validate_one(world, rank);
        break;
    default:
        if (acts)
            world->hooks->compute(world, rank, false);
        break;
    }
    take_all(world);
}

void world_choose(struct world *world, const struct world_hooks *hooks, uint64_t seed)
{
    world->hooks = hooks;
    world->seed = world->random = seed;
    world->now.nanoseconds = 5 * SECONDS;
    world->mutes_stay = below(&world->random, 2) == 0;
    static const uint32_t block_counts[] = {1, 2, 5, 8, 16, 64};
    world->plan.blocks = block_counts[below(&world->random, 6)];
    world->plan.shards = 1 + below(&world->random, WORLD_SHARDS_MOST);
    world->plan.training.epochs = 1 + below(&world->random, 3);
    world->plan.training.validate_every_epochs = below(&world->random, 3);
    world->test_samples = below(&world->random, 4) == 0 ? 0 : 1 + below(&world->random, 60 * VALIDATION_BLOCK);
}

void world_start(struct world *world)
{
    struct error err = {0};
    world->coordinator = coordinator_new(&world->plan, world->samples, world->test_samples, 1, world->now);
    assert_non_null(world->coordinator);
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        assert_int_equal(coordinator_shard_registered(world->coordinator, shard, world->now, &err), 0);
    join(world);
    take_all(world);
}

void world_run(struct world *world)
{
    uint64_t progress = 0;
    for (int still = 0; still < TURNS_MOST && coordinator_phase(world->coordinator) < COORDINATOR_SAVING; still++) {
        turn(world);
        if (world->hooks->progress(world) > progress)
            still = 0;
        progress = world->hooks->progress(world);
    }
    if (coordinator_phase(world->coordinator) != COORDINATOR_SAVING)
        fail_msg("world %llu came to no end: it got to %llu in epoch %u", (unsigned long long)world->seed,
                 (unsigned long long)progress, world->epochs);
}

void world_end(struct world *world)
{
    assert_int_equal(world->epochs, world->plan.training.epochs);
    struct report_progress progress;
    coordinator_progress(world->coordinator, world->now, &progress);
    assert_int_equal(progress.step, schedule_of(&world->plan, world->samples).steps);
    const struct report_epoch *last = coordinator_history(world->coordinator, world->epochs - 1);
    assert_true(last->validated == (world->test_samples > 0));
    coordinator_saved(world->coordinator, NULL, NULL);
    take_all(world);
    assert_true(world->over && coordinator_result(world->coordinator)->succeeded);
    coordinator_free(world->coordinator);
}
