#include "trainjob/memory.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void jobs_are_found_by_key_and_uid(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_memory struct memory *memory = memory_new(true, &err);
    assert_non_null(memory);
    char key[64];
    char uid[64];
    for (int i = 0; i < 1000; i++) { /* beyond the first table */
        snprintf(key, sizeof key, "ns/job-%d", i);
        snprintf(uid, sizeof uid, "uid-%d", i);
        struct job_memory *job = memory_of(memory, key, uid);
        assert_non_null(job);
        assert_true(job->history.configured);
        job->phase = i % 2 == 0 ? TRAINJOB_RUNNING : TRAINJOB_FAILED;
    }
    struct job_memory *job = memory_of(memory, "ns/job-7", "uid-7");
    assert_ptr_equal(job, memory_find(memory, "uid-7"));
    assert_string_equal(job->key, "ns/job-7");
    uint64_t counts[TRAINJOB_PHASES];
    memory_count(memory, counts);
    assert_int_equal(counts[TRAINJOB_RUNNING], 500);
    assert_int_equal(counts[TRAINJOB_FAILED], 500);

    memory_drop(memory, "ns/job-7");
    memory_drop(memory, "ns/job-7");
    assert_null(memory_find(memory, "uid-7"));
    assert_non_null(memory_find(memory, "uid-8"));
}

static void a_later_job_of_that_name_knows_nothing_of_the_earlier(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_memory struct memory *memory = memory_new(false, &err);
    struct job_memory *job = memory_of(memory, "ns/a", "1");
    job->secret_made = true;
    job = memory_of(memory, "ns/a", "2");
    assert_false(job_memory_attempts(job)->secret_made);
    assert_null(memory_find(memory, "1"));
    assert_ptr_equal(memory_find(memory, "2"), job);
}

static void a_settled_job_is_counted_and_begins_anew(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_memory struct memory *memory = memory_new(true, &err);
    struct job_memory *job = memory_of(memory, "ns/a", "1");
    job->phase = TRAINJOB_SUCCEEDED;
    job->secret_made = true;
    memory_settle(memory, "ns/a");
    memory_settle(memory, "ns/a");
    memory_settle(memory, "ns/b");
    assert_null(memory_find(memory, "1"));
    uint64_t counts[TRAINJOB_PHASES];
    memory_count(memory, counts);
    assert_int_equal(counts[TRAINJOB_SUCCEEDED], 1);

    job = memory_of(memory, "ns/a", "1");
    assert_false(job->secret_made);
    assert_true(job->history.configured);
    assert_int_equal(job->phase, TRAINJOB_SUCCEEDED);
    assert_string_equal(job->key, "ns/a");
    assert_string_equal(job->uid, "1");
    memory_count(memory, counts);
    assert_int_equal(counts[TRAINJOB_SUCCEEDED], 1);
    assert_int_equal(counts[TRAINJOB_PENDING], 0);
}

static void attempts_are_kept_while_there_is_something_to_say(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_memory struct memory *memory = memory_new(false, &err);
    struct job_memory *job = memory_of(memory, "ns/a", "1");
    assert_false(job_memory_attempts(job)->secret_made);
    struct trainjob_attempts attempts = {.secret_made = true, .is_conflict = true, .sentence = "taken"};
    job_memory_attempted(job, &attempts);
    assert_true(job_memory_attempts(job)->is_conflict);
    assert_string_equal(job_memory_attempts(job)->sentence, "taken");
    attempts = (struct trainjob_attempts){.secret_made = true};
    job_memory_attempted(job, &attempts);
    assert_null(job->attempts);
    assert_true(job_memory_attempts(job)->secret_made);
    assert_false(job_memory_attempts(job)->is_conflict);
    assert_string_equal(job_memory_attempts(job)->sentence, "");
}

static void add(struct job_memory *job, uint32_t term, uint32_t epoch)
{
    struct report_epoch value = {.term = term, .epoch = epoch};
    assert_int_equal(job_memory_add_epoch(job, &value), 0);
}

static void check_epochs(const struct job_memory *job, const char *want)
{
    char text[256] = "";
    for (size_t i = 0, length = 0; i < job->epoch_count; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%" PRIu32 ".%" PRIu32 " ",
                                   job->epochs[i].epoch, job->epochs[i].term);
    assert_string_equal(text, want);
    assert_ptr_equal(job_memory_reports(job)->epochs, job->epochs);
    assert_int_equal(job_memory_reports(job)->epoch_count, job->epoch_count);
}

static void epochs_stay_in_order_and_the_highest_term_stays(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_memory struct memory *memory = memory_new(false, &err);
    struct job_memory *job = memory_of(memory, "ns/a", "1");
    assert_int_equal(job_memory_reports(job)->epoch_count, 0);
    assert_non_null(job_memory_listen(job));
    add(job, 1, 2);
    add(job, 1, 1);
    add(job, 1, 4);
    add(job, 1, 3);
    check_epochs(job, "1.1 2.1 3.1 4.1 ");
    add(job, 1, 2);
    add(job, 2, 3);
    add(job, 1, 3);
    check_epochs(job, "1.1 2.1 3.2 4.1 ");
    job_memory_drop_epochs(job, 3, 1);
    check_epochs(job, "3.2 4.1 ");
    job_memory_drop_epochs(job, 3, 2);
    check_epochs(job, "4.1 ");
    job_memory_drop_epochs(job, UINT32_MAX, UINT32_MAX);
    check_epochs(job, "");
}

static void epochs_have_a_cap(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_memory struct memory *memory = memory_new(false, &err);
    struct job_memory *job = memory_of(memory, "ns/a", "1");
    for (uint32_t i = 0; i < TRAINJOB_EPOCHS_MOST; i++)
        add(job, 1, i + 1);
    struct report_epoch more = {.term = 1, .epoch = TRAINJOB_EPOCHS_MOST + 1};
    assert_int_equal(job_memory_add_epoch(job, &more), -1);
    more = (struct report_epoch){.term = 2, .epoch = 5};
    assert_int_equal(job_memory_add_epoch(job, &more), 0);
    assert_int_equal(job->epoch_count, TRAINJOB_EPOCHS_MOST);
}

static void count_waiter(void *arg, const char *waiter)
{
    (void)waiter;
    ++*(int *)arg;
}

static int waiters(const struct memory *memory, const char *key)
{
    int count = 0;
    memory_waiting_for(memory, key, count_waiter, &count);
    return count;
}

static void those_that_wait_for_a_job_are_found(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_memory struct memory *memory = memory_new(false, &err);
    struct job_memory *a = memory_of(memory, "ns/a", "uid-a");
    struct job_memory *b = memory_of(memory, "ns/b", "uid-b");
    assert_int_equal(waiters(memory, "ns/teacher"), 0);
    assert_int_equal(memory_await(memory, a, "ns/teacher"), 0);
    assert_int_equal(memory_await(memory, a, "ns/teacher"), 0);
    assert_int_equal(memory_await(memory, b, "ns/teacher"), 0);
    assert_int_equal(waiters(memory, "ns/teacher"), 2);
    assert_int_equal(memory_await(memory, b, "ns/other"), 0);
    assert_int_equal(waiters(memory, "ns/teacher"), 1);
    assert_int_equal(waiters(memory, "ns/other"), 1);
    assert_int_equal(memory_await(memory, a, NULL), 0);
    assert_int_equal(waiters(memory, "ns/teacher"), 0);
    memory_drop(memory, "ns/b");
    assert_int_equal(waiters(memory, "ns/other"), 0);
    assert_int_equal(memory_await(memory, a, "ns/other"), 0);
    memory_settle(memory, "ns/a");
    assert_int_equal(waiters(memory, "ns/other"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_found_by_key_and_uid),
        cmocka_unit_test(a_later_job_of_that_name_knows_nothing_of_the_earlier),
        cmocka_unit_test(a_settled_job_is_counted_and_begins_anew),
        cmocka_unit_test(attempts_are_kept_while_there_is_something_to_say),
        cmocka_unit_test(epochs_stay_in_order_and_the_highest_term_stays),
        cmocka_unit_test(epochs_have_a_cap),
        cmocka_unit_test(those_that_wait_for_a_job_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
