#include "trainjob/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void what_waits_how_long(void **state)
{
    (void)state;
    static const struct {
        enum status_change change;
        int64_t since_written; /* milliseconds; -1: never written */
        int64_t wait;
    } cases[] = {
        {STATUS_AT_ONCE, -1, 0},   {STATUS_AT_ONCE, 0, 0},    {STATUS_SOON, -1, 0},  {STATUS_SOON, 0, 5000},
        {STATUS_SOON, 4000, 1000}, {STATUS_SOON, 5000, 0},    {STATUS_LATER, -1, 0}, {STATUS_LATER, 5000, 10000},
        {STATUS_LATER, 15000, 0},  {STATUS_LATER, 999999, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct instant now = {2000 * SECONDS};
        struct budget budget;
        budget_init(&budget, now);
        struct budget_share share = {0};
        if (cases[i].since_written >= 0)
            share.written.nanoseconds = now.nanoseconds - cases[i].since_written * MILLISECONDS;
        assert_int_equal(budget_wait(&budget, &share, cases[i].change, now), cases[i].wait * MILLISECONDS);
    }
    struct budget budget;
    struct budget_share share = {0};
    budget_init(&budget, (struct instant){0});
    assert_int_equal(budget_wait(&budget, &share, STATUS_SAME, (struct instant){SECONDS}), INT64_MAX);
}

static void a_turn_is_asked_for_once_and_kept(void **state)
{
    (void)state;
    struct instant now = {SECONDS};
    struct budget budget;
    budget_init(&budget, now);
    struct budget_share others = {0};
    for (int i = 0; i < BUDGET_BURST; i++) {
        assert_int_equal(budget_wait(&budget, &others, STATUS_LATER, now), 0);
        others = (struct budget_share){0};
    }
    struct budget_share share = {0};
    int64_t wait = budget_wait(&budget, &share, STATUS_LATER, now);
    assert_int_equal(wait, SECONDS / BUDGET_WRITES_PER_SECOND);
    assert_false(budget_is_open(&share, now));
    for (int i = 0; i < 1000; i++) /* asking again takes nothing from the others */
        assert_int_equal(budget_wait(&budget, &share, STATUS_SOON, now), wait);
    assert_int_equal(budget.spent, BUDGET_BURST + 1);
    assert_int_equal(budget_wait(&budget, &share, STATUS_AT_ONCE, now), 0);
    now.nanoseconds += wait;
    assert_true(budget_is_open(&share, now));
    assert_int_equal(budget_wait(&budget, &share, STATUS_LATER, now), 0);
    budget_written(&share, now);
    assert_false(budget_is_open(&share, now));
    now.nanoseconds += STATUS_INTERVAL;
    assert_true(budget_is_open(&share, now));
}

/* A simulation of ten minutes: jobs that report every second, looked at as the controller looks at them. */
static void ten_thousand_running_jobs_write_fifty_times_a_second(void **state)
{
    (void)state;
    enum { JOBS = 10000, MINUTES = 10 };
    static struct budget_share shares[JOBS];
    static int writes[JOBS];
    struct instant begin = {1000 * SECONDS};
    struct instant now = begin;
    struct budget budget;
    budget_init(&budget, now);
    int total = 0;
    for (; instant_since(now, begin) < MINUTES * 60 * SECONDS; now.nanoseconds += SECONDS / 4) {
        for (int i = 0; i < JOBS; i++) {
            if (!budget_is_open(&shares[i], now) || budget_wait(&budget, &shares[i], STATUS_LATER, now) > 0)
                continue;
            budget_written(&shares[i], now);
            writes[i]++;
            total++;
        }
    }
    assert_true(total <= MINUTES * 60 * BUDGET_WRITES_PER_SECOND + BUDGET_BURST);
    assert_true(total >= MINUTES * 59 * BUDGET_WRITES_PER_SECOND);
    for (int i = 0; i < JOBS; i++)
        assert_in_range(writes[i], 2, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_waits_how_long),
        cmocka_unit_test(a_turn_is_asked_for_once_and_kept),
        cmocka_unit_test(ten_thousand_running_jobs_write_fifty_times_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
