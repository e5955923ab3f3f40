#include "runtime/controller.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A reconciler that ends its runs later, from the loop, as real ones do. */
struct world {
    struct loop *loop;
    struct controller *controller;
    struct reconcile *open;
    struct loop_timer finish;
    int runs, failures_wanted;
    int64_t again;
    bool overlapped;
    char last_id[64];
};

static void finish(void *arg)
{
    struct world *world = arg;
    struct reconcile *run = world->open;
    world->open = NULL;
    const struct error error = {.message = "not yet"};
    if (world->failures_wanted > 0) {
        world->failures_wanted--;
        reconcile_failed(run, &error);
    } else if (world->again > 0) {
        reconcile_done_after(run, world->again);
        world->again = 0;
    } else {
        reconcile_done(run);
        loop_stop(world->loop);
    }
}

static void reconcile(void *arg, struct reconcile *run, const char *key)
{
    struct world *world = arg;
    assert_string_equal(key, "n/a");
    assert_string_equal(reconcile_key(run), key);
    world->overlapped = world->overlapped || world->open != NULL;
    world->open = run;
    assert_null(reconcile_log(run));
    assert_string_not_equal(reconcile_id(run), world->last_id);
    snprintf(world->last_id, sizeof world->last_id, "%s", reconcile_id(run));
    world->runs++;
    controller_enqueue(world->controller, key, QUEUE_LOW); /* comes again, but only after this run */
    if (world->runs > 4)
        controller_stop(world->controller);
    loop_timer_set(&world->finish, 0);
}

static void runs_do_not_overlap_and_failures_come_again(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct world world = {.loop = loop, .failures_wanted = 2, .again = MILLISECONDS};
    loop_timer_init(&world.finish, loop, finish, &world);
    const struct controller_options options = {
        .name = "test", .noun = "key", .queue = {.backoff_base = MILLISECONDS}, .reconcile = reconcile, .arg = &world};
    cleanup_controller struct controller *controller = controller_new(loop, &options, NULL);
    world.controller = controller;
    controller_enqueue(controller, "n/a", QUEUE_HIGH);
    assert_int_equal(world.runs, 0);
    controller_start(controller);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_false(world.overlapped);
    assert_int_equal(world.runs, 4);
    assert_int_equal(controller_running(controller), 0);

    struct controller_metrics metrics;
    controller_metrics(controller, &metrics);
    assert_string_equal(metrics.name, "test");
    assert_int_equal(metrics.failed, 2);
    assert_int_equal(metrics.requeued_after, 1);
    assert_int_equal(metrics.succeeded, 1);
    assert_int_equal(metrics.queue.retries, 2);
    assert_int_equal(metrics.reconcile_seconds.count, 4);
    assert_int_equal(metrics.queue.waited.count, 4);
    assert_int_equal(metrics.queue.running, 0);
    assert_true(metrics.unfinished == 0);
    assert_int_equal(metrics.concurrency, QUEUE_CONCURRENCY);
}

static void done_at_once(void *arg, struct reconcile *run, const char *key)
{
    struct world *world = arg;
    if (++world->runs == 100)
        loop_stop(world->loop);
    (void)key;
    reconcile_done(run);
}

static void a_run_may_end_before_it_returns(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct world world = {.loop = loop};
    const struct controller_options options = {.name = "test", .noun = "key", .reconcile = done_at_once, .arg = &world};
    cleanup_controller struct controller *controller = controller_new(loop, &options, NULL);
    char key[] = "n/aa";
    for (int i = 0; i < 100; i++) {
        key[2] = (char)('a' + i / 10);
        key[3] = (char)('a' + i % 10);
        controller_enqueue(controller, key, QUEUE_LOW);
    }
    controller_start(controller);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(world.runs, 100);
}

static void never_done(void *arg, struct reconcile *run, const char *key)
{
    if (strcmp(key, "n/b") == 0)
        reconcile_done_after(run, SECONDS);
    else
        loop_stop(((struct world *)arg)->loop);
}

/* LeakSanitizer is the judge. */
static void open_runs_are_forgotten_with_the_controller(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct world world = {.loop = loop};
    const struct controller_options options = {.name = "test", .noun = "key", .reconcile = never_done, .arg = &world};
    cleanup_controller struct controller *controller = controller_new(loop, &options, NULL);
    controller_enqueue(controller, "n/b", QUEUE_HIGH);
    controller_enqueue(controller, "n/a", QUEUE_HIGH);
    controller_start(controller);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(controller_running(controller), 1);

    struct controller_metrics metrics;
    controller_metrics(controller, &metrics);
    assert_true(metrics.longest > 0 && metrics.unfinished >= metrics.longest);
    cleanup_json cJSON *running = controller_debug(controller, "n/a");
    assert_string_equal(json_string(running, "state", ""), "running");
    assert_true(json_number(running, "runningForSeconds", -1) > 0);
    assert_string_not_equal(json_string(running, "reconcileID", ""), "");
    cleanup_json cJSON *delayed = controller_debug(controller, "n/b");
    assert_string_equal(json_string(delayed, "state", ""), "delayed");
    assert_true(json_number(delayed, "dueInSeconds", -1) > 0);
    cleanup_json cJSON *absent = controller_debug(controller, "n/c");
    assert_string_equal(json_string(absent, "state", ""), "absent");
}

/* ---- resync ---- */

enum { RESYNCED = 40 };

struct resynced {
    struct loop *loop;
    int seen[RESYNCED], least;
};

static void list_all(void *arg, controller_visit *visit, void *visit_arg)
{
    (void)arg;
    char key[32];
    for (int i = 0; i < RESYNCED; i++) {
        snprintf(key, sizeof key, "n/job-%d", i);
        visit(visit_arg, key);
    }
}

static void see(void *arg, struct reconcile *run, const char *key)
{
    struct resynced *world = arg;
    world->seen[strtol(strrchr(key, '-') + 1, NULL, 10)]++;
    reconcile_done(run);
    for (int i = 0; i < RESYNCED; i++)
        if (world->seen[i] < world->least)
            return;
    loop_stop(world->loop);
}

/* Nothing is added, and yet every key has its turn, each as often as the others. */
static void every_key_is_looked_at_in_a_period(void **state)
{
    (void)state;
    static const int64_t periods[] = {MILLISECONDS, 400 * MILLISECONDS}; /* one slice, and eight */
    for (size_t i = 0; i < sizeof periods / sizeof periods[0]; i++) {
        cleanup_loop struct loop *loop = loop_new(NULL);
        struct resynced world = {.loop = loop, .least = 3};
        const struct controller_options options = {
            .name = "test", .noun = "key", .reconcile = see, .arg = &world, .list = list_all, .resync = periods[i]};
        cleanup_controller struct controller *controller = controller_new(loop, &options, NULL);
        controller_start(controller);
        assert_int_equal(loop_run(loop, NULL), 0);
        for (int key = 0; key < RESYNCED; key++)
            assert_in_range(world.seen[key], 3, 4);
        struct controller_metrics metrics;
        controller_metrics(controller, &metrics);
        assert_true(metrics.resynced >= (uint64_t)3 * RESYNCED);
        assert_int_equal(metrics.queue.keys, 0);
    }
}

/* ---- log lines ---- */

static void fail_once(void *arg, struct reconcile *run, const char *key)
{
    struct world *world = arg;
    (void)key;
    const struct error error = {.message = "not yet"};
    if (world->runs++ == 0) {
        log_info(reconcile_log(run), "looking", "at", "it", NULL);
        reconcile_failed(run, &error);
        return;
    }
    reconcile_done(run);
    loop_stop(world->loop);
}

/* The value of a field in a line of JSON. */
static void copy_field(const char *line, const char *name, char *out, size_t size)
{
    cleanup_json cJSON *json = json_parse(line, strcspn(line, "\n"), "a log line", NULL);
    assert_non_null(json);
    snprintf(out, size, "%s", json_string(json, name, ""));
}

static void lines_of_a_run_carry_its_key_and_id(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    cleanup_fd int in = ends[0];
    cleanup_fd int out = ends[1];
    const struct log log = {.fd = out, .level = LOG_DEBUG, .format = LOG_JSON};
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct world world = {.loop = loop};
    const struct controller_options options = {
        .name = "test", .noun = "job", .reconcile = fail_once, .arg = &world, .log = &log};
    cleanup_controller struct controller *controller = controller_new(loop, &options, NULL);
    controller_enqueue(controller, "n/a", QUEUE_HIGH);
    controller_start(controller);
    assert_int_equal(loop_run(loop, NULL), 0);

    char text[4096];
    ssize_t length = read(in, text, sizeof text - 1);
    assert_true(length > 0);
    text[length] = '\0';
    static const char *const messages[] = {"looking", "reconcile failed and will be tried again", "reconciled",
                                           "reconciled"};
    char ids[4][64];
    const char *line = text;
    for (int i = 0; i < 4; i++, line = strchr(line, '\n') + 1) {
        char value[128];
        copy_field(line, "message", value, sizeof value);
        assert_string_equal(value, messages[i]);
        copy_field(line, "controller", value, sizeof value);
        assert_string_equal(value, "test");
        copy_field(line, "job", value, sizeof value);
        assert_string_equal(value, "n/a");
        copy_field(line, "reconcileID", ids[i], sizeof ids[i]);
    }
    assert_string_equal(line, "");
    assert_string_equal(ids[0], ids[1]);
    assert_string_equal(ids[0], ids[2]);
    assert_string_not_equal(ids[0], ids[3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_do_not_overlap_and_failures_come_again),
        cmocka_unit_test(a_run_may_end_before_it_returns),
        cmocka_unit_test(open_runs_are_forgotten_with_the_controller),
        cmocka_unit_test(every_key_is_looked_at_in_a_period),
        cmocka_unit_test(lines_of_a_run_carry_its_key_and_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
