/* The coordinator's rules, one by one. */
#include "coordinator/coordinator.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* 10 samples in batches of 4: 3 steps an epoch, the last one short. 1200 test samples: 3 validation blocks. */
static struct plan small_plan(uint32_t blocks, uint32_t shards)
{
    struct plan plan = {.blocks = blocks, .shards = shards, .dataset.classes = 10};
    plan.training.epochs = 2;
    plan.training.batch_size = 4;
    plan.training.optimizer.learning_rate = 0.05;
    plan.training.validate_every_epochs = 1;
    return plan;
}

enum { SAMPLES = 10, TEST_SAMPLES = 1200, STEPS_PER_EPOCH = 3 };

struct world {
    struct plan plan;
    struct coordinator *coordinator;
    struct instant now;
    char said[4096]; /* actions since the last look, as text */
};

static void take_all(struct world *world)
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

#define expect(world, text)                                                                                            \
    do {                                                                                                               \
        take_all(world);                                                                                               \
        assert_string_equal((world)->said, text);                                                                      \
        (world)->said[0] = '\0';                                                                                       \
    } while (0)

static void forget(struct world *world)
{
    take_all(world);
    world->said[0] = '\0';
}

static void expect_message(struct world *world, const char *text)
{
    struct report_progress progress;
    coordinator_progress(world->coordinator, world->now, &progress);
    assert_string_equal(progress.message, text);
}

static void begin_plan(struct world *world, const struct plan *plan)
{
    *world = (struct world){.plan = *plan, .now = {1000 * SECONDS}};
    world->coordinator = coordinator_new(&world->plan, SAMPLES, TEST_SAMPLES, 1, world->now);
    assert_non_null(world->coordinator);
}

static void begin(struct world *world, uint32_t blocks, uint32_t shards)
{
    const struct plan plan = small_plan(blocks, shards);
    begin_plan(world, &plan);
}

static void end(struct world *world)
{
    coordinator_free(world->coordinator);
}

static uint32_t join(struct world *world, const char *name)
{
    uint32_t rank = 0;
    struct error err = {0};
    assert_int_equal(coordinator_join(world->coordinator, name, &rank, world->now, &err), 0);
    return rank;
}

static void shard_joins(struct world *world, uint32_t shard)
{
    struct error err = {0};
    assert_int_equal(coordinator_shard_registered(world->coordinator, shard, world->now, &err), 0);
}

static void done(struct world *world, uint32_t shard, uint64_t step)
{
    struct error err = {0};
    assert_int_equal(coordinator_shard_done(world->coordinator, shard, step, 8.0, world->now, &err), 0);
}

static void validated(struct world *world, uint32_t rank, uint64_t version, uint32_t block, uint32_t correct)
{
    struct error err = {0};
    assert_int_equal(
        coordinator_validated(world->coordinator, rank, version, block, correct, 100.0 * (block + 1), world->now, &err),
        0);
}

/* Time goes on in ticks, as it does in the server. */
static void wait_for(struct world *world, int64_t time)
{
    for (; time > 0; time -= 100 * MILLISECONDS) {
        world->now.nanoseconds += 100 * MILLISECONDS;
        coordinator_tick(world->coordinator, world->now);
    }
}

static void test_starts_with_all_shards_and_one_worker(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 3);
    expect_message(&world, "Waits for parameter server 0, 1, 2");
    shard_joins(&world, 0);
    assert_int_equal(join(&world, "a"), 0);
    shard_joins(&world, 2);
    expect(&world, "");
    expect_message(&world, "Waits for parameter server 1");
    shard_joins(&world, 1);
    expect(&world, "welcome 0; deal 0 0:0+8; ");
    expect_message(&world, "Trains epoch 1 of 2 with 1 worker");
    end(&world);

    begin(&world, 8, 1);
    shard_joins(&world, 0);
    expect_message(&world, "Waits for a worker");
    end(&world);
}

static void test_a_shard_may_come_and_go_before_the_start(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 2);
    shard_joins(&world, 0);
    shard_joins(&world, 1);
    coordinator_shard_lost(world.coordinator, 1, "it closed the connection");
    join(&world, "a");
    expect(&world, "");
    shard_joins(&world, 1);
    expect(&world, "welcome 0; deal 0 0:0+8; ");
    struct error err = {0};
    assert_int_equal(coordinator_shard_registered(world.coordinator, 1, world.now, &err), -1);
    assert_non_null(strstr(err.message, "has started"));
    coordinator_shard_lost(world.coordinator, 1, "it closed the connection");
    expect(&world, "finished ParameterServerLost; ");
    assert_string_equal(coordinator_result(world.coordinator)->message,
                        "Parameter server 1 was lost with its part of the model: it closed the connection");
    end(&world);
}

static void test_blocks_go_in_contiguous_ranges(void **state)
{
    (void)state;
    static const struct {
        uint32_t workers;
        const char *deals;
    } cases[] = {
        {1, "deal 0 1:0+8; "},
        {2, "deal 0 1:0+4; deal 1 1:4+4; "},
        {3, "deal 0 1:0+2; deal 1 1:2+3; deal 2 1:5+3; "},
        {8, "deal 0 1:0+1; deal 1 1:1+1; deal 2 1:2+1; deal 3 1:3+1; deal 4 1:4+1; deal 5 1:5+1; deal 6 1:6+1; "
            "deal 7 1:7+1; "},
        {9, "deal 0 1:0+1; deal 1 1:1+1; deal 2 1:2+1; deal 3 1:3+1; deal 4 1:4+1; deal 5 1:5+1; deal 6 1:6+1; "
            "deal 7 1:7+1; "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct world world;
        begin(&world, 8, 1);
        shard_joins(&world, 0);
        for (uint32_t worker = 0; worker < cases[i].workers; worker++)
            join(&world, "w");
        forget(&world);
        done(&world, 0, 0);
        expect(&world, cases[i].deals);
        if (cases[i].workers == 9)
            expect_message(&world, "Trains epoch 1 of 2 with 8 workers; 1 more idle, as a step has 8 blocks "
                                   "(spec.sync.synchronous.blocks)");
        end(&world);
    }
}

static void test_a_lost_members_blocks_go_to_the_others_at_once(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 2);
    shard_joins(&world, 0);
    shard_joins(&world, 1);
    join(&world, "a");
    join(&world, "b");
    join(&world, "c");
    expect(&world, "welcome 0; deal 0 0:0+8; welcome 1; welcome 2; ");
    done(&world, 0, 0);
    expect(&world, "deal 0 1:0+2; deal 1 1:2+3; deal 2 1:5+3; ");
    /* Step 0 is not done by shard 1: all its blocks were a's, and may be missing there. */
    coordinator_lost(world.coordinator, 0, world.now);
    expect(&world, "deal 1 0:0+4; deal 2 0:4+4; deal 1 1:0+1; deal 2 1:1+1; ");
    done(&world, 1, 0);
    coordinator_lost(world.coordinator, 2, world.now);
    expect(&world, "deal 1 1:1+1; deal 1 1:5+3; ");
    /* The last one goes; the first to come gets all that is missing, and has the smallest free rank. */
    coordinator_lost(world.coordinator, 1, world.now);
    expect(&world, "");
    expect_message(&world, "Waits for a worker in epoch 1 of 2, as all are gone");
    assert_int_equal(join(&world, "d"), 0);
    expect(&world, "welcome 0; deal 0 1:0+8; ");
    end(&world);
}

static void test_only_two_steps_are_open(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 2, 2);
    shard_joins(&world, 0);
    shard_joins(&world, 1);
    join(&world, "a");
    forget(&world);
    done(&world, 0, 0);
    expect(&world, "deal 0 1:0+2; ");
    done(&world, 0, 1); /* shard 1's word on step 0 is still on its way */
    expect(&world, "");
    done(&world, 1, 0);
    expect(&world, "deal 0 2:0+2; ");
    done(&world, 0, 2);
    done(&world, 1, 1);
    expect(&world, ""); /* the epoch ends when every shard is through */
    done(&world, 1, 2);
    expect(&world, "validate 0 3:0+2; ");

    struct error err = {0};
    assert_int_equal(coordinator_shard_done(world.coordinator, 1, 2, 0, world.now, &err), -1);
    assert_int_equal(coordinator_shard_done(world.coordinator, 0, 3, 0, world.now, &err), -1);
    assert_int_equal(coordinator_shard_done(world.coordinator, 2, 0, 0, world.now, &err), -1);
    end(&world);
}

static void test_a_silent_member_is_not_waited_for(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 1);
    shard_joins(&world, 0);
    join(&world, "lenet-worker-a");
    join(&world, "lenet-worker-b");
    done(&world, 0, 0);
    forget(&world);
    for (int i = 0; i < 4; i++) {
        wait_for(&world, 500 * MILLISECONDS);
        coordinator_heartbeat(world.coordinator, 1, 4, world.now); /* has computed all it was dealt, and waits */
    }
    expect(&world, "");
    wait_for(&world, 100 * MILLISECONDS);
    expect(&world, "deal 1 1:0+4; ");
    assert_true(coordinator_is_silent(world.coordinator, 0));
    expect_message(&world, "Trains epoch 1 of 2 with 2 workers; worker lenet-worker-a has not been heard for 2 s, "
                           "others do its work");
    done(&world, 0, 1);
    expect(&world, "deal 1 2:0+8; ");
    /* It speaks again and has got on: the next step is for both. */
    coordinator_heartbeat(world.coordinator, 0, 12, world.now);
    assert_false(coordinator_is_silent(world.coordinator, 0));
    done(&world, 0, 2);
    expect(&world, "validate 0 3:0+2; validate 1 3:2+1; ");
    end(&world);
}

static void test_a_member_that_does_not_get_on_is_silent_too(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 1);
    shard_joins(&world, 0);
    join(&world, "a");
    join(&world, "b");
    done(&world, 0, 0);
    forget(&world);
    for (int i = 0; i < 5; i++) {
        coordinator_heartbeat(world.coordinator, 0, 8, world.now); /* 12 were dealt to it, and 8 it stays */
        coordinator_heartbeat(world.coordinator, 1, 4, world.now);
        wait_for(&world, 500 * MILLISECONDS);
    }
    expect(&world, "deal 1 1:0+4; ");
    expect_message(&world, "Trains epoch 1 of 2 with 2 workers; worker a has not got on for 2 s, others do its work");
    end(&world);
}

static void test_silence_of_all_deals_nothing_twice(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 1);
    shard_joins(&world, 0);
    join(&world, "a");
    join(&world, "b");
    done(&world, 0, 0);
    forget(&world);
    wait_for(&world, 5 * SECONDS);
    expect(&world, "");
    done(&world, 0, 1);
    expect(&world, "deal 0 2:0+4; deal 1 2:4+4; "); /* they may be slow only, and are all there is */
    join(&world, "c");
    expect(&world, "welcome 2; deal 2 2:0+8; ");
    end(&world);
}

static void test_slow_steps_allow_longer_silence(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 1);
    shard_joins(&world, 0);
    join(&world, "a");
    for (int i = 0; i < 8; i++) {
        coordinator_heartbeat(world.coordinator, 0, 0, world.now);
        wait_for(&world, 200 * MILLISECONDS);
    }
    done(&world, 0, 0); /* a step takes 1.6 s */
    join(&world, "b");
    forget(&world);
    coordinator_heartbeat(world.coordinator, 0, 8, world.now);
    wait_for(&world, 6 * SECONDS);
    assert_false(coordinator_is_silent(world.coordinator, 0));
    wait_for(&world, 1 * SECONDS);
    assert_true(coordinator_is_silent(world.coordinator, 0));
    end(&world);
}

static void test_a_coordinator_that_was_stopped_blames_nobody(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 1);
    shard_joins(&world, 0);
    join(&world, "a");
    join(&world, "b");
    coordinator_tick(world.coordinator, world.now);
    world.now.nanoseconds += 60 * SECONDS;
    coordinator_tick(world.coordinator, world.now);
    assert_false(coordinator_is_silent(world.coordinator, 0));
    wait_for(&world, 3 * SECONDS);
    assert_true(coordinator_is_silent(world.coordinator, 0));
    end(&world);
}

/* 3 steps an epoch: one each of two members', then the one that is left. */
static void test_rounds_are_shared_and_lost_shares_dealt_again(void **state)
{
    (void)state;
    struct world world;
    struct plan plan = small_plan(1, 2);
    plan.sync = PLAN_KAVERAGE;
    plan.local_steps = 1;
    begin_plan(&world, &plan);
    shard_joins(&world, 0);
    shard_joins(&world, 1);
    join(&world, "a");
    wait_for(&world, 900 * MILLISECONDS);
    join(&world, "b");
    wait_for(&world, 900 * MILLISECONDS);
    expect(&world, "");
    expect_message(&world, "Waits a moment for more workers to share the first round");
    wait_for(&world, 200 * MILLISECONDS);
    expect(&world, "welcome 0; welcome 1; share 0 0:0/2=0+1; share 1 0:1/2=1+1; ");
    coordinator_lost(world.coordinator, 1, world.now);
    expect(&world, "share 0 0:1/2=1+1; "); /* the same share: the same bits */
    join(&world, "c");
    expect(&world, "welcome 1; ");
    expect_message(&world, "Trains epoch 1 of 2 with 2 workers");
    join(&world, "d");
    expect(&world, "welcome 2; ");
    expect_message(&world, "Trains epoch 1 of 2 with 2 workers; 1 more idle until the next round");
    done(&world, 0, 0);
    expect(&world, "share 0 1:0/1=2+1; ");
    done(&world, 0, 1);
    expect(&world, "");
    done(&world, 1, 0);
    done(&world, 1, 1);
    expect(&world, "validate 0 2:0+2; validate 1 2:2+1; ");
    struct report_progress progress;
    coordinator_progress(world.coordinator, world.now, &progress);
    assert_int_equal(progress.step, STEPS_PER_EPOCH);
    assert_true(progress.sync.known);
    assert_int_equal(progress.sync.steps, STEPS_PER_EPOCH);
    end(&world);
}

static void task_done(struct world *world, uint32_t shard, uint64_t task)
{
    struct error err = {0};
    int taken = coordinator_task_done(world->coordinator, shard, task, 8, world->now, &err);
    assert_string_equal(error_message(&err), "");
    assert_int_equal(taken, 0);
}

/* 3 tasks of one step each an epoch; who computes one has another waiting. */
static void test_tasks_are_leased_and_what_is_lost_leased_again(void **state)
{
    (void)state;
    struct world world;
    struct plan plan = small_plan(1, 2);
    plan.sync = PLAN_ASYNCHRONOUS;
    begin_plan(&world, &plan);
    shard_joins(&world, 0);
    shard_joins(&world, 1);
    join(&world, "a");
    expect(&world, "welcome 0; lease 0 0; lease 0 1; ");
    join(&world, "b");
    expect(&world, "welcome 1; lease 1 2; "); /* and no more in this epoch */
    coordinator_lost(world.coordinator, 0, world.now);
    expect(&world, "lease 1 0; ");
    join(&world, "c");
    expect(&world, "welcome 0; lease 0 1; ");
    task_done(&world, 0, 2);
    expect(&world, "");
    task_done(&world, 1, 2); /* everywhere */
    task_done(&world, 1, 0);
    task_done(&world, 1, 1);
    task_done(&world, 0, 1);
    expect(&world, "");
    struct error err = {0};
    assert_int_equal(coordinator_task_done(world.coordinator, 0, 1, 0, world.now, &err), -1);
    assert_string_equal(error_message(&err), "shard 0 reports task 1, and open are 0 to 3, each once");
    assert_int_equal(coordinator_shard_done(world.coordinator, 0, 0, 0, world.now, &err), -1);
    assert_string_equal(error_message(&err), "shard 0 reports a step, and this job has tasks");
    task_done(&world, 0, 0);
    expect(&world, "validate 0 3:0+2; validate 1 3:2+1; ");
    for (uint32_t block = 0; block < 3; block++)
        validated(&world, 0, 3, block, 1);
    expect(&world, "epoch 0; lease 0 3; lease 1 4; lease 0 5; ");
    assert_true(coordinator_history(world.coordinator, 0)->train_loss == 24.0 / SAMPLES);
    assert_int_equal(coordinator_history(world.coordinator, 0)->parallelism, 2);
    end(&world);
}

static void test_tasks_of_the_silent_are_leased_to_others(void **state)
{
    (void)state;
    struct world world;
    struct plan plan = small_plan(1, 1);
    plan.sync = PLAN_HOGWILD;
    begin_plan(&world, &plan);
    shard_joins(&world, 0);
    join(&world, "a");
    join(&world, "b");
    forget(&world); /* a has tasks 0 and 1, b has task 2 */
    for (int i = 0; i < 5; i++) {
        wait_for(&world, 500 * MILLISECONDS);
        coordinator_heartbeat(world.coordinator, 1, 0, world.now);
    }
    coordinator_heartbeat(world.coordinator, 1, 1, world.now); /* it gets on */
    expect(&world, "lease 1 0; ");
    task_done(&world, 0, 2);
    expect(&world, "lease 1 1; ");
    task_done(&world, 0, 0); /* by whomever */
    task_done(&world, 0, 1);
    expect(&world, "validate 1 3:0+2; ");
    end(&world);
}

static void test_validation_and_history(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 1);
    shard_joins(&world, 0);
    join(&world, "a");
    join(&world, "b");
    for (uint64_t step = 0; step < STEPS_PER_EPOCH; step++)
        done(&world, 0, step);
    forget(&world);
    expect_message(&world, "Validates epoch 1 of 2 with 2 workers");
    world.now.nanoseconds += 3 * SECONDS;
    coordinator_lost(world.coordinator, 0, world.now);
    expect(&world, "validate 1 3:0+1; "); /* one block more makes a handful */
    validated(&world, 1, 3, 2, 100);
    expect(&world, "validate 1 3:1+1; ");
    validated(&world, 1, 3, 2, 100); /* twice is once */
    validated(&world, 1, 3, 0, 300);
    validated(&world, 1, 2, 1, 300); /* of an older version: passed over */
    expect(&world, "");
    validated(&world, 1, 3, 1, 400);
    expect(&world, "epoch 0; deal 1 3:0+8; ");

    const struct report_epoch *entry = coordinator_history(world.coordinator, 0);
    assert_int_equal(entry->epoch, 1);
    assert_int_equal(entry->term, 1);
    assert_int_equal(entry->parallelism, 2);
    assert_true(entry->validated);
    assert_true(entry->train_loss == 24.0 / SAMPLES);
    assert_true(entry->validation_loss == 600.0 / TEST_SAMPLES);
    assert_true(entry->accuracy == 100.0 * 800 / TEST_SAMPLES);
    assert_true(entry->duration_seconds == 3.0);
    assert_null(coordinator_history(world.coordinator, 1));

    struct error err = {0};
    for (uint64_t step = 3; step < 6; step++)
        done(&world, 0, step);
    assert_int_equal(coordinator_validated(world.coordinator, 1, 6, 3, 0, 0, world.now, &err), -1);
    assert_int_equal(coordinator_validated(world.coordinator, 1, 6, 2, 201, 0, world.now, &err), -1);
    assert_int_equal(coordinator_validated(world.coordinator, 1, 7, 2, 1, 0, world.now, &err), -1);
    for (uint32_t block = 0; block < 3; block++)
        validated(&world, 1, 6, block, 200);
    forget(&world);
    assert_int_equal(coordinator_phase(world.coordinator), COORDINATOR_SAVING);
    expect_message(&world, "Writes the model");
    struct report_model model = {.path = "model.safetensors"};
    coordinator_saved(world.coordinator, &model, NULL);
    expect(&world, "finished Completed; ");
    assert_true(coordinator_result(world.coordinator)->has_model);
    assert_string_equal(coordinator_result(world.coordinator)->message, "Trained all 2 epochs; accuracy 50.00 %");
    end(&world);
}

/* There is no accuracy where values are learned, in no place. */
static void test_values_are_neither_right_nor_wrong(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 1);
    world.plan.dataset.classes = 0;
    world.plan.training.epochs = 1;
    shard_joins(&world, 0);
    join(&world, "a");
    for (uint64_t step = 0; step < STEPS_PER_EPOCH; step++)
        done(&world, 0, step);
    for (uint32_t block = 0; block < 3; block++)
        validated(&world, 0, 3, block, 0);
    const struct report_epoch *entry = coordinator_history(world.coordinator, 0);
    assert_true(entry->validated && isnan(entry->accuracy) && isfinite(entry->validation_loss));
    coordinator_saved(world.coordinator, NULL, NULL);
    char want[80];
    snprintf(want, sizeof want, "Trained all 1 epochs; validation loss %.4g", entry->validation_loss);
    assert_string_equal(coordinator_result(world.coordinator)->message, want);
    end(&world);
}

static void test_the_end_comes_early_or_badly(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 1);
    world.plan.training.goal_accuracy = 50;
    shard_joins(&world, 0);
    join(&world, "a");
    for (uint64_t step = 0; step < STEPS_PER_EPOCH; step++)
        done(&world, 0, step);
    for (uint32_t block = 0; block < 3; block++)
        validated(&world, 0, 3, block, 200);
    forget(&world);
    coordinator_saved(world.coordinator, NULL, NULL);
    expect(&world, "finished GoalReached; ");
    assert_false(coordinator_result(world.coordinator)->has_model);
    end(&world);

    begin(&world, 8, 1);
    world.plan.training.validate_every_epochs = 0;
    shard_joins(&world, 0);
    join(&world, "a");
    for (uint64_t step = 0; step < UINT64_C(2) * STEPS_PER_EPOCH; step++)
        done(&world, 0, step);
    assert_false(coordinator_history(world.coordinator, 0)->validated);
    assert_int_equal(coordinator_phase(world.coordinator), COORDINATOR_VALIDATING); /* the last epoch always */
    for (uint32_t block = 0; block < 3; block++)
        validated(&world, 0, 6, block, 200);
    forget(&world);
    coordinator_saved(world.coordinator, NULL, "write '/output/model.safetensors': No space left on device");
    expect(&world, "finished OutputFailed; ");
    assert_false(coordinator_result(world.coordinator)->succeeded);
    end(&world);

    begin(&world, 8, 1);
    shard_joins(&world, 0);
    join(&world, "a");
    done(&world, 0, 0);
    forget(&world);
    struct error err = {0};
    assert_int_equal(coordinator_shard_done(world.coordinator, 0, 1, (double)NAN, world.now, &err), 0);
    expect(&world, "finished Diverged; ");
    assert_string_equal(coordinator_result(world.coordinator)->message,
                        "Training diverged: the loss of step 1 (epoch 1) is not a finite number; a "
                        "spec.training.optimizer.learningRate below 0.05 may help");
    struct report_progress progress;
    coordinator_progress(world.coordinator, world.now, &progress);
    assert_int_equal(progress.epoch, 1); /* reports count from 1, also where no epoch was completed */
    join(&world, "late");
    coordinator_lost(world.coordinator, 0, world.now);
    coordinator_fail(world.coordinator, "Other", "once is enough");
    expect(&world, "");
    end(&world);
}

static void test_members_have_a_cap(void **state)
{
    (void)state;
    struct world world;
    begin(&world, 8, 1);
    for (int i = 0; i < COORDINATOR_MEMBERS_MOST; i++)
        join(&world, "w");
    uint32_t rank = 0;
    struct error err = {0};
    assert_int_equal(coordinator_join(world.coordinator, "w", &rank, world.now, &err), -1);
    assert_non_null(strstr(err.message, "256 workers"));
    shard_joins(&world, 0);
    forget(&world);
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts_with_all_shards_and_one_worker),
        cmocka_unit_test(test_a_shard_may_come_and_go_before_the_start),
        cmocka_unit_test(test_blocks_go_in_contiguous_ranges),
        cmocka_unit_test(test_a_lost_members_blocks_go_to_the_others_at_once),
        cmocka_unit_test(test_only_two_steps_are_open),
        cmocka_unit_test(test_a_silent_member_is_not_waited_for),
        cmocka_unit_test(test_a_member_that_does_not_get_on_is_silent_too),
        cmocka_unit_test(test_silence_of_all_deals_nothing_twice),
        cmocka_unit_test(test_slow_steps_allow_longer_silence),
        cmocka_unit_test(test_a_coordinator_that_was_stopped_blames_nobody),
        cmocka_unit_test(test_rounds_are_shared_and_lost_shares_dealt_again),
        cmocka_unit_test(test_tasks_are_leased_and_what_is_lost_leased_again),
        cmocka_unit_test(test_tasks_of_the_silent_are_leased_to_others),
        cmocka_unit_test(test_validation_and_history),
        cmocka_unit_test(test_values_are_neither_right_nor_wrong),
        cmocka_unit_test(test_the_end_comes_early_or_badly),
        cmocka_unit_test(test_members_have_a_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
