/* Deals: which comes first, which are over, what counts as settled. */
#include "worker/work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct work *make(void)
{
    struct work *work = calloc(1, sizeof *work);
    assert_non_null(work);
    work_clear(work);
    return work;
}

static struct parameters *at_version(uint64_t version)
{
    struct error err = {0};
    struct parameters *parameters = NULL;
    struct network_tensor tensor = {.count = 100};
    const struct network network = {.tensors = &tensor, .tensor_count = 1, .parameters = 100};
    assert_int_equal(parameters_new(&parameters, &network, 1, PLAN_FLOAT32, &err), 0);
    const struct chunk *chunk = parameters_chunk(parameters, 0);
    assert_non_null(parameters_place(parameters, chunk, version));
    parameters_placed(parameters, chunk, version);
    return parameters;
}

static void add(struct work *work, bool validate, uint64_t step, uint32_t first, uint32_t count)
{
    struct error err = {0};
    struct deal deal = {.validate = validate, .step = step, .first = first, .count = count};
    assert_int_equal(work_add(work, &deal, &err), 0);
}

static void expect_next(const struct work *work, bool validate, uint64_t step, uint32_t first)
{
    const struct deal *next = work_next(work);
    assert_non_null(next);
    assert_int_equal(next->validate, validate);
    assert_int_equal(next->step, step);
    assert_int_equal(next->first, first);
}

static void compute_next(struct work *work)
{
    struct deal deal = *work_next(work);
    work_computed(work, &deal);
}

static void test_the_oldest_step_comes_first(void **state)
{
    (void)state;
    struct work *work = make();
    assert_null(work_next(work));
    add(work, false, 5, 0, 2);
    add(work, false, 4, 2, 2); /* dealt again, somebody was lost */
    add(work, false, 4, 6, 1);
    expect_next(work, false, 4, 2);
    compute_next(work);
    expect_next(work, false, 4, 6);
    compute_next(work);
    expect_next(work, false, 5, 0);
    compute_next(work);
    assert_null(work_next(work));
    assert_int_equal(work->settled, 5);
    free(work);
}

static void test_what_is_over_is_settled(void **state)
{
    (void)state;
    struct work *work = make();
    add(work, false, 4, 0, 2);
    add(work, false, 5, 0, 3);
    cleanup_parameters struct parameters *parameters = at_version(5);
    work_drop_over(work, parameters);
    assert_int_equal(work->settled, 2);
    expect_next(work, false, 5, 0);
    /* Two steps are open at most, so step 7 tells that 5 is over, whatever has come of its parameters. */
    add(work, false, 7, 0, 4);
    work_drop_over(work, parameters);
    assert_int_equal(work->settled, 5);
    assert_int_equal(work->count, 1);
    expect_next(work, false, 7, 0);
    free(work);
}

static void test_computed_deals_stay_until_they_are_over(void **state)
{
    (void)state;
    struct work *work = make();
    cleanup_parameters struct parameters *before = at_version(4);
    cleanup_parameters struct parameters *after = at_version(5);
    add(work, false, 4, 0, 2);
    compute_next(work);
    work_drop_over(work, before);
    work_again(work); /* a shard's connection broke */
    expect_next(work, false, 4, 0);
    compute_next(work);
    assert_int_equal(work->settled, 2); /* once is enough */
    work_drop_over(work, after);
    work_again(work);
    assert_null(work_next(work));
    assert_int_equal(work->count, 0);
    free(work);
}

static void test_validation_ends_with_the_next_step(void **state)
{
    (void)state;
    struct work *work = make();
    cleanup_parameters struct parameters *parameters = at_version(6);
    add(work, false, 5, 0, 2);
    compute_next(work);
    add(work, true, 6, 3, 2);
    add(work, true, 6, 9, 1);
    work_drop_over(work, parameters);
    expect_next(work, true, 6, 3);
    compute_next(work);
    work_again(work); /* validation goes to the coordinator: nothing of it is lost with a shard's connection */
    expect_next(work, true, 6, 9);
    add(work, false, 6, 0, 2);
    work_drop_over(work, parameters);
    assert_int_equal(work->count, 1);
    assert_int_equal(work->settled, 5);
    expect_next(work, false, 6, 0);
    free(work);
}

/* Nobody else tells so whoever had nothing of the epoch between them. */
static void test_validation_ends_with_the_next_validation(void **state)
{
    (void)state;
    struct work *work = make();
    add(work, true, 6, 3, 2);
    add(work, true, 9, 0, 1);
    work_drop_over(work, NULL);
    assert_int_equal(work->count, 1);
    assert_int_equal(work->settled, 2);
    expect_next(work, true, 9, 0);
    free(work);
}

static void test_a_deal_that_is_gone_is_not_computed(void **state)
{
    (void)state;
    struct work *work = make();
    add(work, false, 4, 0, 2);
    struct deal copy = *work_next(work);
    work_clear(work);
    add(work, false, 4, 0, 1);
    work_computed(work, &copy);
    assert_int_equal(work->settled, 0);
    expect_next(work, false, 4, 0);
    free(work);
}

static void test_deals_have_a_cap(void **state)
{
    (void)state;
    struct work *work = make();
    for (uint32_t i = 0; i < WORK_MOST; i++)
        add(work, false, 4, i, 1);
    struct error err = {0};
    struct deal deal = {.step = 4, .first = 0, .count = 1};
    assert_int_equal(work_add(work, &deal, &err), -1);
    free(work);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_oldest_step_comes_first),
        cmocka_unit_test(test_what_is_over_is_settled),
        cmocka_unit_test(test_computed_deals_stay_until_they_are_over),
        cmocka_unit_test(test_validation_ends_with_the_next_step),
        cmocka_unit_test(test_validation_ends_with_the_next_validation),
        cmocka_unit_test(test_a_deal_that_is_gone_is_not_computed),
        cmocka_unit_test(test_deals_have_a_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
