#include "common/buffer.h"
#include "runtime/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A story is a list of steps; each lists the keys that may be taken behind it, in order.
 * Steps:  high KEY | low KEY | ok KEY | again KEY MS | fail KEY | wait MS */
struct step {
    const char *what;
    const char *taken;
};

static const struct story {
    const char *name;
    unsigned concurrency;
    struct step steps[14];
} stories[] = {
    {"in order of arrival", 3, {{"high a", "a"}, {"high b", "b"}, {"high c", "c"}}},
    {"one entry a key",
     1,
     {{"high x", "x"}, {"high a", ""}, {"high a", ""}, {"low a", ""}, {"ok x", "a"}, {"ok a", ""}}},
    {"never two at once for a key", 9, {{"high a", "a"}, {"high a", ""}, {"low a", ""}, {"ok a", "a"}, {"ok a", ""}}},
    {"no more at once than allowed", 2, {{"high a", "a"}, {"high b", "b"}, {"high c", ""}, {"ok a", "c"}}},
    {"new work comes before resyncs",
     1,
     {{"low x", "x"}, {"low a", ""}, {"low b", ""}, {"high c", ""}, {"ok x", "c"}, {"ok c", "a"}, {"ok a", "b"}}},
    {"a resync becomes new work",
     1,
     {{"low x", "x"}, {"low a", ""}, {"low b", ""}, {"high b", ""}, {"ok x", "b"}, {"ok b", "a"}}},
    {"new work is not made a resync", 1, {{"low x", "x"}, {"low a", ""}, {"high b", ""}, {"low b", ""}, {"ok x", "b"}}},
    {"looked at again after a while",
     1,
     {{"high a", "a"}, {"again a 50", ""}, {"wait 49", ""}, {"wait 1", "a"}, {"ok a", ""}, {"wait 99999", ""}}},
    {"what happens meanwhile is not waited for",
     1,
     {{"high a", "a"}, {"again a 50", ""}, {"wait 10", ""}, {"low a", "a"}, {"ok a", ""}, {"wait 50", ""}}},
    {"what happened during the run comes at once",
     1,
     {{"high a", "a"}, {"low a", ""}, {"again a 50", "a"}, {"ok a", ""}, {"wait 50", ""}}},
    {"a failure is tried again",
     1,
     {{"high a", "a"}, {"fail a", ""}, {"wait 4", ""}, {"wait 1000", "a"}, {"ok a", ""}, {"wait 99999", ""}}},
    {"a failed key does not wait for a resync's sake",
     1,
     {{"high a", "a"}, {"fail a", ""}, {"low a", ""}, {"wait 4", ""}, {"wait 6", "a"}}},
    {"nor does one that fails again and again come at every event",
     1,
     {{"high a", "a"},
      {"fail a", ""},
      {"high a", ""},
      {"wait 10", "a"},
      {"high a", ""},
      {"fail a", ""},
      {"wait 8", ""},
      {"wait 12", "a"}}},
    {"a resync that goes on is still behind new work",
     1,
     {{"low a", "a"},
      {"high x", ""},
      {"again a 5", "x"},
      {"wait 5", ""},
      {"high b", ""},
      {"ok x", "b"},
      {"ok b", "a"}}},
    {"new work that goes on is still before resyncs",
     1,
     {{"high a", "a"}, {"low x", ""}, {"again a 5", "x"}, {"wait 5", ""}, {"low b", ""}, {"ok x", "a"}, {"ok a", "b"}}},
    {"so it is after a failure",
     1,
     {{"low a", "a"}, {"low x", ""}, {"fail a", "x"}, {"wait 99", ""}, {"high b", ""}, {"ok x", "b"}, {"ok b", "a"}}},
    {"done twice is done once", 1, {{"high a", "a"}, {"ok a", ""}, {"ok a", ""}, {"fail a", ""}, {"wait 99999", ""}}},
};

static void play(struct queue *queue, const char *what, struct instant *now)
{
    char verb[16] = "";
    char first[16] = "";
    char second[16] = "";
    sscanf(what, "%15s %15s %15s", verb, first, second);
    int64_t milliseconds = strtol(second, NULL, 10) * MILLISECONDS;
    if (strcmp(verb, "high") == 0)
        assert_int_equal(queue_add(queue, first, QUEUE_HIGH, *now, NULL), 0);
    else if (strcmp(verb, "low") == 0)
        assert_int_equal(queue_add(queue, first, QUEUE_LOW, *now, NULL), 0);
    else if (strcmp(verb, "ok") == 0)
        queue_done(queue, first, QUEUE_OK, 0, *now);
    else if (strcmp(verb, "again") == 0)
        queue_done(queue, first, QUEUE_AFTER, milliseconds, *now);
    else if (strcmp(verb, "fail") == 0)
        queue_done(queue, first, QUEUE_FAILED, 0, *now);
    else if (strcmp(verb, "wait") == 0)
        now->nanoseconds += strtol(first, NULL, 10) * MILLISECONDS;
    else
        fail_msg("no such step: %s", what);
}

/* What can be taken now; the queue must have announced it, and nothing more. */
static void take_all(struct queue *queue, struct instant now, char *out, size_t size)
{
    *out = '\0';
    for (;;) {
        struct instant when = {INT64_MAX};
        bool announced = queue_next(queue, now, &when) && when.nanoseconds <= now.nanoseconds;
        const char *key = queue_take(queue, now);
        assert_int_equal(announced, key != NULL);
        if (key == NULL)
            return;
        size_t length = strlen(out);
        snprintf(out + length, size - length, "%s%s", length > 0 ? " " : "", key);
    }
}

static void stories_go_as_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof stories / sizeof stories[0]; i++) {
        const struct story *story = &stories[i];
        const struct queue_options options = {.concurrency = story->concurrency, .backoff_base = 10 * MILLISECONDS};
        cleanup_queue struct queue *queue = queue_new(&options, NULL);
        struct instant now = {SECONDS};
        for (size_t j = 0; story->steps[j].what != NULL; j++) {
            play(queue, story->steps[j].what, &now);
            char taken[64];
            take_all(queue, now, taken, sizeof taken);
            if (strcmp(taken, story->steps[j].taken) != 0)
                fail_msg("%s: behind '%s' came '%s' instead of '%s'", story->name, story->steps[j].what, taken,
                         story->steps[j].taken);
        }
    }
}

static void backoff_doubles_within_its_jitter_up_to_the_most(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        const struct queue_options options = {
            .backoff_base = 5 * MILLISECONDS, .backoff_most = 2 * SECONDS, .seed = seed};
        cleanup_queue struct queue *queue = queue_new(&options, NULL);
        struct instant now = {SECONDS};
        assert_int_equal(queue_add(queue, "a", QUEUE_HIGH, now, NULL), 0);
        int64_t whole = 5 * MILLISECONDS;
        for (unsigned failures = 1; failures < 15; failures++) {
            assert_string_equal(queue_take(queue, now), "a");
            queue_done(queue, "a", QUEUE_FAILED, 0, now);
            assert_int_equal(queue_failures(queue, "a"), failures);
            struct instant when;
            assert_true(queue_next(queue, now, &when));
            int64_t delay = instant_since(when, now);
            assert_true(delay >= whole / 2 && delay <= whole);
            whole = whole * 2 > 2 * SECONDS ? 2 * SECONDS : whole * 2;
            now = when;
        }
        assert_string_equal(queue_take(queue, now), "a");
        queue_done(queue, "a", QUEUE_OK, 0, now);
        assert_int_equal(queue_failures(queue, "a"), 0);
    }
}

static void a_failing_key_with_events_runs_once_a_second(void **state)
{
    (void)state;
    cleanup_queue struct queue *queue = queue_new(NULL, NULL);
    struct instant now = {SECONDS};
    struct instant begin = now;
    assert_int_equal(queue_add(queue, "a", QUEUE_HIGH, now, NULL), 0);
    int runs = 0;
    while (instant_since(now, begin) < 100 * SECONDS) {
        if (queue_take(queue, now) != NULL) {
            runs++;
            queue_add(queue, "a", QUEUE_HIGH, now, NULL); /* its own doing */
            queue_done(queue, "a", QUEUE_FAILED, 0, now);
        }
        struct instant when;
        assert_true(queue_next(queue, now, &when));
        now = when;
    }
    assert_in_range(runs, 100, 120);
}

/* With a back-off of minutes: a resync waits for it, an event for a second, and a success ends it. */
static void what_cuts_a_long_backoff_short(void **state)
{
    (void)state;
    const struct queue_options options = {.backoff_base = 100 * SECONDS};
    cleanup_queue struct queue *queue = queue_new(&options, NULL);
    struct instant now = {SECONDS};
    assert_int_equal(queue_add(queue, "a", QUEUE_HIGH, now, NULL), 0);
    assert_string_equal(queue_take(queue, now), "a");
    queue_done(queue, "a", QUEUE_FAILED, 0, now);
    assert_int_equal(queue_add(queue, "a", QUEUE_LOW, now, NULL), 0);
    now.nanoseconds += 40 * SECONDS;
    assert_null(queue_take(queue, now));
    assert_int_equal(queue_add(queue, "a", QUEUE_HIGH, now, NULL), 0);
    assert_string_equal(queue_take(queue, now), "a");

    queue_done(queue, "a", QUEUE_FAILED, 0, now);
    assert_int_equal(queue_failures(queue, "a"), 2);
    assert_int_equal(queue_add(queue, "a", QUEUE_HIGH, now, NULL), 0);
    assert_null(queue_take(queue, now));
    now.nanoseconds += SECONDS;
    assert_string_equal(queue_take(queue, now), "a");

    queue_done(queue, "a", QUEUE_AFTER, SECONDS, now);
    assert_int_equal(queue_failures(queue, "a"), 0);
    assert_int_equal(queue_add(queue, "a", QUEUE_LOW, now, NULL), 0);
    assert_string_equal(queue_take(queue, now), "a");
}

static void all_failures_together_pass_the_bucket(void **state)
{
    (void)state;
    enum { KEYS = 400 };
    const struct queue_options options = {
        .retries_per_second = 20, .retries_burst = 100, .concurrency = KEYS, .backoff_base = MILLISECONDS};
    cleanup_queue struct queue *queue = queue_new(&options, NULL);
    struct instant now = {SECONDS};
    char key[16];
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%d", i);
        queue_add(queue, key, QUEUE_HIGH, now, NULL);
    }
    char taken[KEYS][16];
    for (int i = 0; i < KEYS; i++)
        snprintf(taken[i], sizeof taken[i], "%s", queue_take(queue, now));
    for (int i = 0; i < KEYS; i++)
        queue_done(queue, taken[i], QUEUE_FAILED, 0, now);
    /* A hundred at once; the others at 20 a second. */
    now.nanoseconds += 10 * MILLISECONDS;
    int first = 0;
    while (queue_take(queue, now) != NULL)
        first++;
    assert_int_equal(first, 100);
    now.nanoseconds += 5 * SECONDS;
    int second = 0;
    while (queue_take(queue, now) != NULL)
        second++;
    assert_in_range(second, 99, 101);
    struct queue_metrics metrics;
    queue_metrics(queue, &metrics);
    assert_int_equal(metrics.retries, KEYS);
    assert_int_equal(metrics.running, first + second);
    assert_int_equal(metrics.delayed, KEYS - first - second);
    assert_int_equal(metrics.depth[QUEUE_HIGH] + metrics.depth[QUEUE_LOW], 0);
    assert_int_equal(metrics.keys, KEYS);
    assert_int_equal(metrics.waited.count, KEYS + first + second);
    assert_int_equal(metrics.adds, KEYS + first + second);
}

/* What is in front of `wanted` when it is its turn. */
static int turns_before(struct queue *queue, const char *wanted, struct instant now)
{
    for (int turns = 0;; turns++) {
        const char *key = queue_take(queue, now);
        assert_non_null(key);
        bool found = strcmp(key, wanted) == 0;
        queue_done(queue, key, QUEUE_OK, 0, now);
        if (found)
            return turns;
    }
}

static void a_new_job_is_not_behind_ten_thousand_resyncs(void **state)
{
    (void)state;
    enum { KEYS = 10000 };
    cleanup_queue struct queue *queue = queue_new(NULL, NULL);
    struct instant now = {SECONDS};
    char key[32];
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "n%d/job-%d", i % 100, i);
        assert_int_equal(queue_add(queue, key, QUEUE_LOW, now, NULL), 0);
    }
    assert_int_equal(queue_add(queue, "n0/mine", QUEUE_HIGH, now, NULL), 0);
    assert_int_equal(turns_before(queue, "n0/mine", now), 0);
}

static void namespaces_take_turns(void **state)
{
    (void)state;
    enum { KEYS = 10000 };
    for (uint64_t seed = 1; seed < 10; seed++) {
        const struct queue_options options = {.seed = seed};
        cleanup_queue struct queue *queue = queue_new(&options, NULL);
        struct instant now = {SECONDS};
        char key[32];
        for (int i = 0; i < KEYS; i++) {
            snprintf(key, sizeof key, "crowd/job-%d", i);
            assert_int_equal(queue_add(queue, key, QUEUE_HIGH, now, NULL), 0);
        }
        /* Two others: one of them may share the crowd's flow, by chance, but hardly both. */
        assert_int_equal(queue_add(queue, "alice/job", QUEUE_HIGH, now, NULL), 0);
        assert_int_equal(queue_add(queue, "bob/job", QUEUE_HIGH, now, NULL), 0);
        int first = 0;
        for (int i = 0; i < 4; i++) {
            const char *taken = queue_take(queue, now);
            first += strncmp(taken, "crowd/", 6) != 0;
            queue_done(queue, taken, QUEUE_OK, 0, now);
        }
        assert_in_range(first, 1, 2);
    }
}

static void waiting_is_measured_from_when_a_key_was_due(void **state)
{
    (void)state;
    const struct queue_options options = {.concurrency = 1};
    cleanup_queue struct queue *queue = queue_new(&options, NULL);
    struct instant now = {SECONDS};
    queue_add(queue, "a", QUEUE_LOW, now, NULL);
    assert_string_equal(queue_take(queue, now), "a");
    queue_done(queue, "a", QUEUE_AFTER, 10 * SECONDS, now);
    queue_add(queue, "b", QUEUE_LOW, now, NULL);
    now.nanoseconds += 4 * SECONDS;
    queue_add(queue, "b", QUEUE_HIGH, now, NULL); /* raised, it has waited all the same */
    assert_string_equal(queue_take(queue, now), "b");
    now.nanoseconds += 7 * SECONDS;
    queue_done(queue, "b", QUEUE_OK, 0, now);
    assert_string_equal(queue_take(queue, now), "a");
    struct queue_metrics metrics;
    queue_metrics(queue, &metrics);
    assert_int_equal(metrics.waited.count, 3);
    assert_int_equal((int)(metrics.waited.sum * 1000 + 0.5), 4000 + 1000);
}

static void one_key_can_be_looked_at(void **state)
{
    (void)state;
    const struct queue_options options = {.concurrency = 1, .backoff_base = 8 * SECONDS};
    cleanup_queue struct queue *queue = queue_new(&options, NULL);
    struct instant now = {SECONDS};
    struct queue_entry entry;
    queue_look(queue, "a", &entry);
    assert_string_equal(entry.state, "absent");
    queue_add(queue, "a", QUEUE_LOW, now, NULL);
    queue_look(queue, "a", &entry);
    assert_string_equal(entry.state, "ready");
    assert_int_equal(entry.priority, QUEUE_LOW);
    assert_int_equal(entry.due.nanoseconds, now.nanoseconds);
    assert_string_equal(queue_take(queue, now), "a");
    queue_add(queue, "a", QUEUE_LOW, now, NULL);
    queue_look(queue, "a", &entry);
    assert_string_equal(entry.state, "running");
    assert_true(entry.again);
    queue_done(queue, "a", QUEUE_FAILED, 0, now);
    queue_look(queue, "a", &entry);
    assert_string_equal(entry.state, "delayed");
    assert_false(entry.again);
    assert_int_equal(entry.failures, 1);
    assert_in_range(instant_since(entry.due, now), 4 * SECONDS, 8 * SECONDS);
}

static void resyncs_are_not_starved(void **state)
{
    (void)state;
    const struct queue_options options = {.concurrency = 1};
    cleanup_queue struct queue *queue = queue_new(&options, NULL);
    struct instant now = {SECONDS};
    queue_add(queue, "resync", QUEUE_LOW, now, NULL);
    queue_add(queue, "a", QUEUE_HIGH, now, NULL);
    queue_add(queue, "b", QUEUE_HIGH, now, NULL);
    for (int i = 0; i < 100; i++) {
        const char *key = queue_take(queue, now);
        assert_non_null(key);
        if (strcmp(key, "resync") == 0)
            return;
        queue_add(queue, key, QUEUE_HIGH, now, NULL);
        queue_done(queue, key, QUEUE_OK, 0, now);
    }
    fail_msg("the resync never came");
}

static void many_keys_and_no_more_than_the_most(void **state)
{
    (void)state;
    enum { KEYS = 3000 };
    const struct queue_options options = {.most_keys = KEYS, .concurrency = 1};
    cleanup_queue struct queue *queue = queue_new(&options, NULL);
    struct instant now = {SECONDS};
    char key[16];
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(queue_add(queue, key, QUEUE_HIGH, now, NULL), 0);
    }
    struct error err = {0};
    assert_int_equal(queue_add(queue, "more", QUEUE_HIGH, now, &err), -1);
    assert_string_equal(error_message(&err), "more than 3000 keys wait: 'more' is not queued");
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_string_equal(queue_take(queue, now), key);
        queue_done(queue, key, QUEUE_OK, 0, now);
    }
    assert_null(queue_take(queue, now));
    struct instant when;
    assert_false(queue_next(queue, now, &when));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_go_as_told),
        cmocka_unit_test(backoff_doubles_within_its_jitter_up_to_the_most),
        cmocka_unit_test(a_failing_key_with_events_runs_once_a_second),
        cmocka_unit_test(what_cuts_a_long_backoff_short),
        cmocka_unit_test(all_failures_together_pass_the_bucket),
        cmocka_unit_test(a_new_job_is_not_behind_ten_thousand_resyncs),
        cmocka_unit_test(namespaces_take_turns),
        cmocka_unit_test(waiting_is_measured_from_when_a_key_was_due),
        cmocka_unit_test(one_key_can_be_looked_at),
        cmocka_unit_test(resyncs_are_not_starved),
        cmocka_unit_test(many_keys_and_no_more_than_the_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
