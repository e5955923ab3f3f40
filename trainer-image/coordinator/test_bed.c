#include "coordinator/test_bed.h"

#include <stdio.h>
#include <string.h>

struct plan small_plan(uint32_t blocks, uint32_t shards)
{
    struct plan plan = {.blocks = blocks, .shards = shards, .dataset.classes = 10};
    plan.training.epochs = 2;
    plan.training.batch_size = 4;
    plan.training.optimizer.learning_rate = 0.05;
    plan.training.validate_every_epochs = 1;
    return plan;
}

void take_all(struct world *world)
{
    static const char *const names[] = {"welcome", "deal", "share", "lease", "validate", "epoch", "save", "finished"};
    struct coordinator_action action;
    while (coordinator_take(world->coordinator, &action)) {
        size_t length = strlen(world->said);
        char *out = world->said + length;
        size_t size = sizeof world->said - length;
        const char *name = names[action.type];
        switch (action.type) {
        case COORDINATOR_DEAL:
        case COORDINATOR_VALIDATE:
            snprintf(out, size, "%s %u %llu:%u+%u; ", name, action.rank, (unsigned long long)action.step, action.first,
                     action.count);
            break;
        case COORDINATOR_WELCOME:
            snprintf(out, size, "%s %u; ", name, action.rank);
            break;
        case COORDINATOR_SHARE:
            snprintf(out, size, "%s %u %llu:%u/%u=%llu+%u; ", name, action.rank, (unsigned long long)action.step,
                     action.first, action.shares, (unsigned long long)action.begin, action.count);
            break;
        case COORDINATOR_LEASE:
            snprintf(out, size, "%s %u %llu; ", name, action.rank, (unsigned long long)action.step);
            break;
        case COORDINATOR_SAVE:
            snprintf(out, size, "%s %llu; ", name, (unsigned long long)action.step);
            break;
        case COORDINATOR_EPOCH:
            snprintf(out, size, "%s %u; ", name, action.first);
            break;
        case COORDINATOR_FINISHED:
            snprintf(out, size, "%s %s; ", name, coordinator_result(world->coordinator)->reason);
            break;
        }
    }
}

void forget(struct world *world)
{
    take_all(world);
    world->said[0] = '\0';
}

void expect_message(struct world *world, const char *text)
{
    struct report_progress progress;
    coordinator_progress(world->coordinator, world->now, &progress);
    assert_string_equal(progress.message, text);
}

void begin_plan(struct world *world, const struct plan *plan)
{
    *world = (struct world){.plan = *plan, .now = {1000 * SECONDS}};
    world->coordinator = coordinator_new(&world->plan, SAMPLES, TEST_SAMPLES, 1, world->now);
    assert_non_null(world->coordinator);
}

void begin(struct world *world, uint32_t blocks, uint32_t shards)
{
    const struct plan plan = small_plan(blocks, shards);
    begin_plan(world, &plan);
}

void end(struct world *world)
{
    coordinator_free(world->coordinator);
}

uint32_t join(struct world *world, const char *name)
{
    uint32_t rank = 0;
    struct error err = {0};
    assert_int_equal(coordinator_join(world->coordinator, name, &rank, world->now, &err), 0);
    return rank;
}

void shard_joins(struct world *world, uint32_t shard)
{
    struct error err = {0};
    assert_int_equal(coordinator_shard_registered(world->coordinator, shard, world->now, &err), 0);
}

void done(struct world *world, uint32_t shard, uint64_t step)
{
    struct error err = {0};
    assert_int_equal(coordinator_shard_done(world->coordinator, shard, step, 8.0, world->now, &err), 0);
}

void validated(struct world *world, uint32_t rank, uint64_t version, uint32_t block, uint32_t correct)
{
    struct error err = {0};
    assert_int_equal(
        coordinator_validated(world->coordinator, rank, version, block, correct, 100.0 * (block + 1), world->now, &err),
        0);
}

void wait_for(struct world *world, int64_t time)
{
    for (; time > 0; time -= 100 * MILLISECONDS) {
        world->now.nanoseconds += 100 * MILLISECONDS;
        coordinator_tick(world->coordinator, world->now);
    }
}

void task_done(struct world *world, uint32_t shard, uint64_t task)
{
    struct error err = {0};
    int taken = coordinator_task_done(world->coordinator, shard, task, 8, world->now, &err);
    assert_string_equal(error_message(&err), "");
    assert_int_equal(taken, 0);
}

void begin_with(struct world *world, uint32_t blocks, uint32_t shards, uint32_t workers)
{
    begin(world, blocks, shards);
    for (uint32_t shard = 0; shard < shards; shard++)
        shard_joins(world, shard);
    for (uint32_t rank = 0; rank < workers; rank++)
        assert_int_equal(join(world, (char[]){(char)('a' + (int)rank), '\0'}), rank);
}
