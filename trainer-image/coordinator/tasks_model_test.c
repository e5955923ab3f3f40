/* Random worlds around the coordinator with tasks: workers that come, go, fall silent in the middle of a push and wake
 * up again, pushes that arrive twice, late, on some shards and not on others. The shards' applied sets are the real
 * ones. Every step of every task must be applied once to every chunk of every shard, and every epoch must end. */
#include "common/plan/tasks.h"
#include "coordinator/coordinator.h"
#include "ps/updates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    WORKERS_MOST = 10,
    SHARDS_MOST = 3,
    CHUNKS_MOST = 3, /* of a shard */
    QUEUE = TASKS_OPEN_MOST,
    WORLDS = 150,
    TURNS_MOST = 4000000 /* without an update */
};

struct push {
    uint64_t task;
    uint32_t sequence;
};

struct worker {
    bool present, welcomed, mute; /* mute: neither heard nor computing, and not closed either */
    uint64_t dealt, settled;
    uint64_t queue[QUEUE]; /* tasks */
    uint32_t queued;
    uint32_t sequence; /* of queue[0] */
    uint64_t validate; /* blocks, not computed yet … */
    uint64_t version;  /* … with these parameters */
};

struct world {
    uint64_t random;
    struct plan plan;
    struct tasks tasks;
    uint64_t samples, test_samples;
    uint32_t chunks;
    struct coordinator *coordinator;
    struct instant now;
    struct worker workers[COORDINATOR_MEMBERS_MOST];
    uint32_t present;

    struct updates *updates[SHARDS_MOST];
    uint64_t applied[SHARDS_MOST][CHUNKS_MOST];  /* in all */
    uint8_t *times[SHARDS_MOST][CHUNKS_MOST];    /* that each step of the job was applied */
    uint64_t told[SHARDS_MOST][TASKS_OPEN_MOST]; /* a ring of tasks that the coordinator is still to hear of */
    double losses[TASKS_OPEN_MOST];              /* of those of shard 0 */
    uint64_t told_begin[SHARDS_MOST], told_end[SHARDS_MOST];
    uint64_t duplicates, over;
    uint32_t epochs;
    uint64_t saved_version;
    bool finished, mutes_stay;
};

static uint32_t pick(struct world *world, uint32_t below)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return (uint32_t)((world->random >> 20) % below);
}

/* ---- shards ---- */

/* True where all of its task is there. */
static bool arrive(struct world *world, uint32_t shard, uint32_t chunk, struct push push)
{
    switch (updates_find(world->updates[shard], push.task, push.sequence, chunk)) {
    case UPDATE_MISSING:
        break;
    case UPDATE_APPLIED:
        world->duplicates++;
        return false;
    case UPDATE_TASK_APPLIED:
        world->over++;
        return true;
    case UPDATE_IMPOSSIBLE:
        fail_msg("task %llu was leased too early", (unsigned long long)push.task);
    }
    uint64_t step = tasks_step(&world->tasks, push.task, push.sequence);
    world->times[shard][chunk][step]++;
    world->applied[shard][chunk]++;
    double loss = 0;
    if (!updates_note(world->updates[shard], push.task, push.sequence, chunk, 1, &loss))
        return false;
    assert_true(loss == tasks_steps(&world->tasks, push.task));
    uint64_t place = world->told_end[shard]++ % TASKS_OPEN_MOST;
    world->told[shard][place] = push.task;
    if (shard == 0)
        world->losses[place] = loss;
    return false;
}

static void tell_done(struct world *world, uint32_t shard)
{
    if (world->told_begin[shard] == world->told_end[shard])
        return;
    uint64_t place = world->told_begin[shard]++ % TASKS_OPEN_MOST;
    struct error err = {0};
    int told = coordinator_task_done(world->coordinator, shard, world->told[shard][place],
                                     shard == 0 ? world->losses[place] : 0, world->now, &err);
    assert_string_equal(error_message(&err), "");
    assert_int_equal(told, 0);
}

/* ---- workers ---- */

static void drop(struct world *world, struct worker *worker, uint32_t place)
{
    worker->settled += tasks_steps(&world->tasks, worker->queue[place]) - (place == 0 ? worker->sequence : 0);
    worker->sequence = place == 0 ? 0 : worker->sequence;
    worker->queued--;
    memmove(worker->queue + place, worker->queue + place + 1, (worker->queued - place) * sizeof worker->queue[0]);
}

static void drop_before(struct world *world, struct worker *worker, uint64_t oldest)
{
    for (uint32_t i = worker->queued; i-- > 0;)
        if (worker->queue[i] < oldest)
            drop(world, worker, i);
}

static void get_lease(struct world *world, const struct coordinator_action *action)
{
    struct worker *worker = &world->workers[action->rank];
    assert_true(worker->present && worker->welcomed);
    assert_true(action->step / world->tasks.per_epoch == world->epochs); /* epochs do not mix */
    drop_before(world, worker, action->step - action->count);
    assert_true(worker->queued < QUEUE);
    for (uint32_t i = 0; i < worker->queued; i++)
        assert_int_not_equal(worker->queue[i], action->step);
    worker->queue[worker->queued++] = action->step;
    worker->dealt += tasks_steps(&world->tasks, action->step);
}

static void get_validation(struct world *world, const struct coordinator_action *action)
{
    struct worker *worker = &world->workers[action->rank];
    assert_true(worker->present && worker->welcomed);
    uint64_t version = (world->epochs + UINT64_C(1)) * world->tasks.schedule.steps_per_epoch;
    assert_int_equal(action->step, version);
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        for (uint32_t chunk = 0; chunk < world->chunks; chunk++)
            assert_int_equal(world->applied[shard][chunk], version); /* that version exists everywhere */
    if (worker->version != version) {
        worker->settled += (uint64_t)__builtin_popcountll(worker->validate);
        worker->validate = 0;
        worker->version = version;
    }
    worker->dealt += action->count;
    for (uint32_t block = action->first; block < action->first + action->count; block++) {
        worker->settled += worker->validate >> block & 1;
        worker->validate |= UINT64_C(1) << block;
    }
}

static void take_all(struct world *world)
{
    struct coordinator_action action;
    while (coordinator_take(world->coordinator, &action)) {
        assert_false(world->finished);
        switch (action.type) {
        case COORDINATOR_WELCOME:
            assert_true(world->workers[action.rank].present && !world->workers[action.rank].welcomed);
            world->workers[action.rank].welcomed = true;
            break;
        case COORDINATOR_DEAL:
            fail_msg("a step was dealt");
            break;
        case COORDINATOR_SHARE:
            fail_msg("a share was dealt");
            break;
        case COORDINATOR_LEASE:
            get_lease(world, &action);
            break;
        case COORDINATOR_VALIDATE:
            get_validation(world, &action);
            break;
        case COORDINATOR_EPOCH:
            assert_int_equal(action.first, world->epochs);
            world->epochs++;
            break;
        case COORDINATOR_SAVE:
            world->saved_version = action.step;
            break;
        case COORDINATOR_FINISHED:
            world->finished = true;
            break;
        }
    }
}

/* One step more; each chunk gets it at once, perhaps twice, or, where the worker dies while pushing, only some. */
static void compute_one(struct world *world, uint32_t rank, bool dies)
{
    struct worker *worker = &world->workers[rank];
    if (worker->queued == 0)
        return;
    struct push push = {.task = worker->queue[0], .sequence = worker->sequence};
    uint32_t over = 0;
    for (uint32_t shard = 0; shard < world->plan.shards; shard++) {
        for (uint32_t chunk = 0; chunk < world->chunks; chunk++) {
            if (dies && pick(world, 2) == 0)
                continue;
            over += arrive(world, shard, chunk, push);
            if (pick(world, 16) == 0)
                arrive(world, shard, chunk, push);
        }
    }
    worker->settled++;
    worker->sequence++;
    if (over == world->plan.shards * world->chunks || worker->sequence == tasks_steps(&world->tasks, push.task))
        drop(world, worker, 0);
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
    /* May come late, of a validation that others have ended: then it is passed over. */
    assert_int_equal(coordinator_validated(world->coordinator, rank, worker->version, block, 1, 0.5, world->now, &err),
                     0);
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
            coordinator_lost(world->coordinator, rank, world->now);
            worker->present = false;
            world->present--;
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
    world->plan.sync = PLAN_ASYNCHRONOUS;
    world->plan.blocks = 8;
    world->plan.shards = 1 + pick(world, SHARDS_MOST);
    world->plan.training.epochs = 1 + pick(world, 3);
    world->plan.training.batch_size = 1 + pick(world, 10);
    world->plan.training.validate_every_epochs = pick(world, 3);
    world->samples = 1 + pick(world, pick(world, 4) == 0 ? 20000 : 500);
    world->test_samples = pick(world, 4) == 0 ? 0 : 1 + pick(world, 60 * VALIDATION_BLOCK);
    world->tasks = tasks_of(&world->plan, world->samples);
    world->chunks = 1 + pick(world, CHUNKS_MOST);
    world->coordinator = coordinator_new(&world->plan, world->samples, world->test_samples, 1, world->now);
    assert_non_null(world->coordinator);
    struct error err = {0};
    for (uint32_t shard = 0; shard < world->plan.shards; shard++) {
        assert_int_equal(updates_new(&world->updates[shard], &world->tasks, world->chunks, &err), 0);
        for (uint32_t chunk = 0; chunk < world->chunks; chunk++) {
            world->times[shard][chunk] = calloc(world->tasks.schedule.steps, 1);
            assert_non_null(world->times[shard][chunk]);
        }
        assert_int_equal(coordinator_shard_registered(world->coordinator, shard, world->now, &err), 0);
    }
}

static void end_world(struct world *world)
{
    for (uint32_t shard = 0; shard < world->plan.shards; shard++) {
        for (uint32_t chunk = 0; chunk < world->chunks; chunk++) {
            for (uint64_t step = 0; step < world->tasks.schedule.steps; step++)
                assert_int_equal(world->times[shard][chunk][step], 1);
            free(world->times[shard][chunk]);
        }
        updates_free(world->updates[shard]);
    }
    coordinator_free(world->coordinator);
}

static uint64_t run_world(uint64_t seed)
{
    struct world *world = malloc(sizeof *world);
    assert_non_null(world);
    make_world(world, seed);
    join(world);
    take_all(world);
    uint64_t applied = 0;
    for (int still = 0; still < TURNS_MOST && coordinator_phase(world->coordinator) < COORDINATOR_SAVING; still++) {
        turn(world);
        if (world->applied[0][0] > applied)
            still = 0;
        applied = world->applied[0][0];
    }
    if (coordinator_phase(world->coordinator) != COORDINATOR_SAVING)
        fail_msg("world %llu came to no end: %llu updates, epoch %u", (unsigned long long)seed,
                 (unsigned long long)applied, world->epochs);
    assert_int_equal(world->epochs, world->plan.training.epochs);
    assert_int_equal(world->saved_version, world->tasks.schedule.steps);
    const struct report_epoch *last = coordinator_history(world->coordinator, world->epochs - 1);
    assert_true(last->validated == (world->test_samples > 0));
    assert_true(last->train_loss == (double)world->tasks.schedule.steps_per_epoch / (double)world->samples);
    struct report_progress progress;
    coordinator_progress(world->coordinator, world->now, &progress);
    assert_int_equal(progress.step, world->tasks.schedule.steps);
    coordinator_saved(world->coordinator, NULL, NULL);
    take_all(world);
    assert_true(world->finished && coordinator_result(world->coordinator)->succeeded);
    uint64_t again = world->duplicates + world->over;
    end_world(world);
    free(world);
    return again;
}

static void test_random_worlds_apply_every_step_once(void **state)
{
    (void)state;
    uint64_t again = 0;
    for (uint64_t seed = 1; seed <= WORLDS; seed++)
        again += run_world(seed);
    assert_true(again > WORLDS); /* or nothing was tried */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_worlds_apply_every_step_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
