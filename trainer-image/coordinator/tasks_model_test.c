/* Random worlds around the coordinator (random_world.h) in which tasks are leased: pushes arrive twice, late, on some
 * shards and not on others. The shards' applied sets are the real ones. Every step of every task must be applied once
 * to every chunk of every shard, and every epoch must end. */
#include "coordinator/random_world.h"

#include "common/plan/tasks.h"
#include "ps/updates.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNKS_MOST = 3 /* of a shard */, WORLDS = 150 };

struct push {
    uint64_t task;
    uint32_t sequence;
};

/* What a worker has been leased. */
struct queue {
    uint64_t tasks[TASKS_OPEN_MOST];
    uint32_t count;
    uint32_t sequence; /* of the first */
};

struct leases {
    struct world world;
    struct tasks tasks;
    uint32_t chunks;
    struct queue queues[COORDINATOR_MEMBERS_MOST];

    struct updates *updates[WORLD_SHARDS_MOST];
    uint64_t applied[WORLD_SHARDS_MOST][CHUNKS_MOST];  /* in all */
    uint8_t *times[WORLD_SHARDS_MOST][CHUNKS_MOST];    /* that each step of the job was applied */
    uint64_t told[WORLD_SHARDS_MOST][TASKS_OPEN_MOST]; /* a ring of tasks that the coordinator is still to hear of */
    double losses[TASKS_OPEN_MOST];                    /* of those of shard 0 */
    uint64_t told_begin[WORLD_SHARDS_MOST], told_end[WORLD_SHARDS_MOST];
    uint64_t again; /* pushes of what had been applied */
};

/* ---- shards ---- */

/* True where all of its task is there. */
static bool arrive(struct leases *leases, uint32_t shard, uint32_t chunk, struct push push)
{
    switch (updates_find(leases->updates[shard], push.task, push.sequence, chunk)) {
    case UPDATE_MISSING:
        break;
    case UPDATE_APPLIED:
        leases->again++;
        return false;
    case UPDATE_TASK_APPLIED:
        leases->again++;
        return true;
    case UPDATE_IMPOSSIBLE:
        fail_msg("task %llu was leased too early", (unsigned long long)push.task);
    }
    uint64_t step = tasks_step(&leases->tasks, push.task, push.sequence);
    leases->times[shard][chunk][step]++;
    leases->applied[shard][chunk]++;
    double loss = 0;
    if (!updates_note(leases->updates[shard], push.task, push.sequence, chunk, 1, &loss))
        return false;
    assert_true(loss == tasks_steps(&leases->tasks, push.task));
    uint64_t place = leases->told_end[shard]++ % TASKS_OPEN_MOST;
    leases->told[shard][place] = push.task;
    if (shard == 0)
        leases->losses[place] = loss;
    return false;
}

static void tell_done(struct world *world, uint32_t shard)
{
    struct leases *leases = (struct leases *)world;
    if (leases->told_begin[shard] == leases->told_end[shard])
        return;
    uint64_t place = leases->told_begin[shard]++ % TASKS_OPEN_MOST;
    struct error err = {0};
    int told = coordinator_task_done(world->coordinator, shard, leases->told[shard][place],
                                     shard == 0 ? leases->losses[place] : 0, world->now, &err);
    assert_string_equal(error_message(&err), "");
    assert_int_equal(told, 0);
}

/* ---- workers ---- */

static void joined(struct world *world, uint32_t rank)
{
    ((struct leases *)world)->queues[rank] = (struct queue){0};
}

static void drop(struct leases *leases, uint32_t rank, uint32_t place)
{
    struct queue *queue = &leases->queues[rank];
    leases->world.workers[rank].settled +=
        tasks_steps(&leases->tasks, queue->tasks[place]) - (place == 0 ? queue->sequence : 0);
    queue->sequence = place == 0 ? 0 : queue->sequence;
    queue->count--;
    memmove(queue->tasks + place, queue->tasks + place + 1, (queue->count - place) * sizeof queue->tasks[0]);
}

static void get_lease(struct world *world, const struct coordinator_action *action)
{
    struct leases *leases = (struct leases *)world;
    struct queue *queue = &leases->queues[action->rank];
    if (action->type != COORDINATOR_LEASE)
        fail_msg("a step or a share was dealt");
    assert_true(action->step / leases->tasks.per_epoch == world->epochs); /* epochs do not mix */
    for (uint32_t i = queue->count; i-- > 0;)
        if (queue->tasks[i] < action->step - action->count)
            drop(leases, action->rank, i);
    assert_true(queue->count < TASKS_OPEN_MOST);
    for (uint32_t i = 0; i < queue->count; i++)
        assert_int_not_equal(queue->tasks[i], action->step);
    queue->tasks[queue->count++] = action->step;
}

/* One step more; each chunk gets it at once, perhaps twice. */
static void compute_one(struct world *world, uint32_t rank, bool dies)
{
    struct leases *leases = (struct leases *)world;
    struct queue *queue = &leases->queues[rank];
    if (queue->count == 0)
        return;
    struct push push = {.task = queue->tasks[0], .sequence = queue->sequence};
    uint32_t over = 0;
    for (uint32_t shard = 0; shard < world->plan.shards; shard++) {
        for (uint32_t chunk = 0; chunk < leases->chunks; chunk++) {
            if (dies && below(&world->random, 2) == 0)
                continue;
            over += arrive(leases, shard, chunk, push);
            if (below(&world->random, 16) == 0)
                arrive(leases, shard, chunk, push);
        }
    }
    world->workers[rank].settled++;
    queue->sequence++;
    if (over == world->plan.shards * leases->chunks || queue->sequence == tasks_steps(&leases->tasks, push.task))
        drop(leases, rank, 0);
}

static void check_version(const struct world *world, uint64_t version)
{
    const struct leases *leases = (const struct leases *)world;
    assert_int_equal(version, (world->epochs + UINT64_C(1)) * leases->tasks.schedule.steps_per_epoch);
    for (uint32_t shard = 0; shard < world->plan.shards; shard++)
        for (uint32_t chunk = 0; chunk < leases->chunks; chunk++)
            assert_int_equal(leases->applied[shard][chunk], version);
}

static uint64_t applied(const struct world *world)
{
    return ((const struct leases *)world)->applied[0][0];
}

static const struct world_hooks hooks = {.joined = joined,
                                         .given = get_lease,
                                         .compute = compute_one,
                                         .tell = tell_done,
                                         .check_version = check_version,
                                         .progress = applied};

/* ---- the whole ---- */

static struct leases *make_leases(uint64_t seed)
{
    struct leases *leases = calloc(1, sizeof *leases);
    assert_non_null(leases);
    struct world *world = &leases->world;
    world_choose(world, &hooks, seed);
    world->plan.sync = PLAN_ASYNCHRONOUS;
    world->plan.training.batch_size = 1 + below(&world->random, 10);
    world->samples = 1 + below(&world->random, below(&world->random, 4) == 0 ? 20000 : 500);
    leases->tasks = tasks_of(&world->plan, world->samples);
    leases->chunks = 1 + below(&world->random, CHUNKS_MOST);
    struct error err = {0};
    for (uint32_t shard = 0; shard < world->plan.shards; shard++) {
        assert_int_equal(updates_new(&leases->updates[shard], &leases->tasks, leases->chunks, &err), 0);
        for (uint32_t chunk = 0; chunk < leases->chunks; chunk++) {
            leases->times[shard][chunk] = calloc(leases->tasks.schedule.steps, 1);
            assert_non_null(leases->times[shard][chunk]);
        }
    }
    return leases;
}

static void free_leases(struct leases *leases)
{
    for (uint32_t shard = 0; shard < leases->world.plan.shards; shard++) {
        for (uint32_t chunk = 0; chunk < leases->chunks; chunk++)
            free(leases->times[shard][chunk]);
        updates_free(leases->updates[shard]);
    }
    free(leases);
}

static void check_applied_once(const struct leases *leases)
{
    for (uint32_t shard = 0; shard < leases->world.plan.shards; shard++)
        for (uint32_t chunk = 0; chunk < leases->chunks; chunk++)
            for (uint64_t step = 0; step < leases->tasks.schedule.steps; step++)
                assert_int_equal(leases->times[shard][chunk][step], 1);
}

static uint64_t run_leases(uint64_t seed)
{
    struct leases *leases = make_leases(seed);
    struct world *world = &leases->world;
    world_start(world);
    world_run(world);
    assert_int_equal(world->saved, leases->tasks.schedule.steps);
    const struct report_epoch *last = coordinator_history(world->coordinator, world->epochs - 1);
    assert_true(last->train_loss == (double)leases->tasks.schedule.steps_per_epoch / (double)world->samples);
    world_end(world);
    check_applied_once(leases);
    uint64_t again = leases->again;
    free_leases(leases);
    return again;
}

static void test_random_worlds_apply_every_step_once(void **state)
{
    (void)state;
    uint64_t again = 0;
    for (uint64_t seed = 1; seed <= WORLDS; seed++)
        again += run_leases(seed);
    assert_true(again > WORLDS); /* or nothing was tried */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_worlds_apply_every_step_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
