/* Validation, the history, the end, and how many may take part. */
#include "coordinator/test_bed.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void test_validation_and_history(void **state)
{
    (void)state;
    struct world world;
    begin_with(&world, 8, 1, 2);
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

    struct error err = {0};
    begin_with(&world, 8, 1, 1);
    forget(&world);
    assert_int_equal(coordinator_shard_done(world.coordinator, 0, 0, (double)NAN, world.now, &err), 0);
    expect(&world, "finished Diverged; ");
    assert_non_null(strstr(coordinator_result(world.coordinator)->message,
                           "its first step is not a finite number; look "
                           "in the data set"));
    end(&world);

    begin_with(&world, 8, 1, 1);
    done(&world, 0, 0);
    forget(&world);
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
        cmocka_unit_test(test_validation_and_history),
        cmocka_unit_test(test_values_are_neither_right_nor_wrong),
        cmocka_unit_test(test_the_end_comes_early_or_badly),
        cmocka_unit_test(test_members_have_a_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
