/* How a job begins, how blocks are dealt, and what a loss or a silence does to them. */
#include "coordinator/test_bed.h"

#include <string.h>

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
    begin_with(&world, 8, 2, 3);
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
    begin_with(&world, 2, 2, 1);
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
    begin_with(&world, 8, 1, 2);
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
    begin_with(&world, 8, 1, 2);
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
    begin_with(&world, 8, 1, 1);
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
    begin_with(&world, 8, 1, 2);
    coordinator_tick(world.coordinator, world.now);
    world.now.nanoseconds += 60 * SECONDS;
    coordinator_tick(world.coordinator, world.now);
    assert_false(coordinator_is_silent(world.coordinator, 0));
    wait_for(&world, 3 * SECONDS);
    assert_true(coordinator_is_silent(world.coordinator, 0));
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
