#include "runtime/bucket.h"
#include "runtime/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Is there a token now? A promise of none at all is asked for. */
static bool take(struct bucket *bucket, struct instant now)
{
    return bucket_reserve(bucket, now, 1) == 0;
}

static void so_much_at_once_and_so_much_a_second(void **state)
{
    (void)state;
    struct instant now = {5 * SECONDS};
    struct bucket bucket = bucket_make(10, 3, now);
    for (int i = 0; i < 3; i++)
        assert_true(take(&bucket, now));
    assert_false(take(&bucket, now));
    now.nanoseconds += 99 * MILLISECONDS;
    assert_false(take(&bucket, now));
    now.nanoseconds += 2 * MILLISECONDS;
    assert_true(take(&bucket, now));
    assert_false(take(&bucket, now));
    now.nanoseconds += 3600 * SECONDS; /* it holds no more than the burst */
    for (int i = 0; i < 3; i++)
        assert_true(take(&bucket, now));
    assert_false(take(&bucket, now));
}

static void promises_are_a_queue(void **state)
{
    (void)state;
    struct instant now = {SECONDS};
    struct bucket bucket = bucket_make(10, 2, now);
    static const int64_t waits[] = {0, 0, 100, 200, 300};
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++)
        assert_int_equal(bucket_reserve(&bucket, now, SECONDS), waits[i] * MILLISECONDS);
    /* What is promised is not given to somebody else before. */
    now.nanoseconds += 350 * MILLISECONDS;
    assert_false(take(&bucket, now));
    assert_int_equal(bucket_reserve(&bucket, now, SECONDS), 50 * MILLISECONDS);
}

static void no_promise_is_longer_than_the_most(void **state)
{
    (void)state;
    struct instant now = {SECONDS};
    struct bucket bucket = bucket_make(1, 1, now);
    assert_int_equal(bucket_reserve(&bucket, now, 2 * SECONDS), 0);
    assert_int_equal(bucket_reserve(&bucket, now, 2 * SECONDS), SECONDS);
    assert_int_equal(bucket_reserve(&bucket, now, 2 * SECONDS), 2 * SECONDS);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(bucket_reserve(&bucket, now, 2 * SECONDS), 2 * SECONDS);
    now.nanoseconds += 3 * SECONDS; /* nobody of those thousand took anything */
    assert_true(take(&bucket, now));
}

/* Ten thousand that always want to, for ten minutes: the rate is kept, and each has its turn. */
static void everyone_has_a_turn(void **state)
{
    (void)state;
    enum { JOBS = 10000, RATE = 50 };
    static int64_t due[JOBS];
    static int turns[JOBS];
    struct instant begin = {SECONDS};
    struct instant now = begin;
    struct bucket bucket = bucket_make(RATE, RATE, now);
    int taken = 0;
    for (; instant_since(now, begin) < 600 * SECONDS; now.nanoseconds += 100 * MILLISECONDS) {
        for (int i = 0; i < JOBS; i++) {
            if (due[i] == 0)
                due[i] = now.nanoseconds + bucket_reserve(&bucket, now, 3600 * SECONDS);
            if (now.nanoseconds < due[i])
                continue;
            due[i] = 0;
            turns[i]++;
            taken++;
        }
    }
    assert_in_range(taken, 599 * RATE, 601 * RATE + RATE);
    for (int i = 0; i < JOBS; i++)
        assert_in_range(turns[i], 2, 4);
}

static void durations_fall_into_buckets(void **state)
{
    (void)state;
    struct histogram histogram = {0};
    histogram_add(&histogram, -1);
    histogram_add(&histogram, 10 * MILLISECONDS);     /* exactly a bound: it is in it */
    histogram_add(&histogram, 10 * MILLISECONDS + 1); /* just above */
    histogram_add(&histogram, 5000 * SECONDS);        /* beyond all */
    assert_int_equal(histogram.count, 4);
    assert_int_equal(histogram.buckets[0], 1);
    assert_int_equal(histogram.buckets[5], 1);
    assert_int_equal(histogram.buckets[6], 1);
    uint64_t inside = 0;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        inside += histogram.buckets[i];
        assert_true(i == 0 || histogram_bounds[i] > histogram_bounds[i - 1]);
    }
    assert_int_equal(inside, 3);
    assert_true(histogram.sum > 5000.019 && histogram.sum < 5000.021);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(so_much_at_once_and_so_much_a_second), cmocka_unit_test(promises_are_a_queue),
        cmocka_unit_test(no_promise_is_longer_than_the_most),   cmocka_unit_test(everyone_has_a_turn),
        cmocka_unit_test(durations_fall_into_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
