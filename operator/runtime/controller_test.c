#include "runtime/controller.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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
    assert_int_equal(reconcile_id(run), ++world->runs);
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
    const struct queue_options options = {.backoff_base = MILLISECONDS};
    cleanup_controller struct controller *controller =
        controller_new(loop, "test", &options, reconcile, &world, NULL, NULL);
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
    assert_int_equal(metrics.retries, 2);
    assert_int_equal(metrics.reconcile_seconds.count, 4);
    assert_int_equal(metrics.running, 0);
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
    cleanup_controller struct controller *controller =
        controller_new(loop, "test", NULL, done_at_once, &world, NULL, NULL);
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
    (void)run;
    (void)key;
    loop_stop(((struct world *)arg)->loop);
}

/* LeakSanitizer is the judge. */
static void open_runs_are_forgotten_with_the_controller(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct world world = {.loop = loop};
    cleanup_controller struct controller *controller =
        controller_new(loop, "test", NULL, never_done, &world, NULL, NULL);
    controller_enqueue(controller, "n/a", QUEUE_HIGH);
    controller_enqueue_after(controller, "n/b", SECONDS);
    controller_start(controller);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(controller_running(controller), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_do_not_overlap_and_failures_come_again),
        cmocka_unit_test(a_run_may_end_before_it_returns),
        cmocka_unit_test(open_runs_are_forgotten_with_the_controller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
