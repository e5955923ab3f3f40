/* The sync types that deal other work than blocks: rounds of shares, and leased tasks. */
#include "coordinator/test_bed.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounds_are_shared_and_lost_shares_dealt_again),
        cmocka_unit_test(test_tasks_are_leased_and_what_is_lost_leased_again),
        cmocka_unit_test(test_tasks_of_the_silent_are_leased_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
