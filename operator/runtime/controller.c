#include "runtime/controller.h"
#include "common/crypto.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS_A_TURN = 32 }; /* so that many keys do not keep the loop from its sockets */

const double controller_metrics_bounds[CONTROLLER_BUCKETS] = {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60};

struct reconcile {
    struct controller *controller;
    struct reconcile *next, *previous;
    const char *key; /* the queue's, until the run is done */
    uint64_t id;
    struct instant began;
};

/* What other threads may read at any time. */
struct counters {
    _Atomic uint64_t adds, retries, depth, delayed, running;
    _Atomic uint64_t succeeded, requeued_after, failed;
    _Atomic uint64_t buckets[CONTROLLER_BUCKETS], count, nanoseconds;
};

struct controller {
    struct loop *loop;
    char name[64];
    const struct log *log;
    controller_reconcile *reconcile;
    void *arg;
    struct queue *queue;
    unsigned concurrency;
    struct loop_timer timer;
    bool started;
    struct reconcile *runs;
    unsigned running;
    uint64_t next_id;
    struct counters counters;
};

static void publish(struct controller *controller)
{
    struct queue_metrics metrics;
    queue_metrics(controller->queue, &metrics);
    struct counters *counters = &controller->counters;
    atomic_store_explicit(&counters->adds, metrics.adds, memory_order_relaxed);
    atomic_store_explicit(&counters->retries, metrics.retries, memory_order_relaxed);
    atomic_store_explicit(&counters->depth, metrics.depth, memory_order_relaxed);
    atomic_store_explicit(&counters->delayed, metrics.delayed, memory_order_relaxed);
    atomic_store_explicit(&counters->running, metrics.running, memory_order_relaxed);
}

static void arm(struct controller *controller)
{
    publish(controller);
    struct instant next;
    if (controller->started && queue_next(controller->queue, clock_now(), &next))
        loop_timer_set_at(&controller->timer, next);
    else
        loop_timer_cancel(&controller->timer);
}

static struct reconcile *begin_run(struct controller *controller, const char *key)
{
    struct reconcile *run = calloc(1, sizeof *run);
    if (run == NULL)
        return NULL;
    *run = (struct reconcile){
        .controller = controller,
        .next = controller->runs,
        .key = key,
        .id = ++controller->next_id,
        .began = clock_now(),
    };
    if (controller->runs != NULL)
        controller->runs->previous = run;
    controller->runs = run;
    controller->running++;
    return run;
}

static void run_some(void *arg)
{
    struct controller *controller = arg;
    for (int i = 0; i < RUNS_A_TURN && controller->started; i++) {
        const char *key = queue_take(controller->queue, clock_now());
        if (key == NULL)
            break;
        struct reconcile *run = begin_run(controller, key);
        if (run == NULL) {
            queue_done(controller->queue, key, QUEUE_FAILED, 0, clock_now());
            continue;
        }
        controller->reconcile(controller->arg, run, key);
    }
    arm(controller);
}

static void record_duration(struct counters *counters, int64_t nanoseconds)
{
    double seconds = (double)nanoseconds / (double)SECONDS;
    atomic_fetch_add_explicit(&counters->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&counters->nanoseconds, (uint64_t)nanoseconds, memory_order_relaxed);
    for (int i = 0; i < CONTROLLER_BUCKETS; i++) {
        if (seconds <= controller_metrics_bounds[i]) {
            atomic_fetch_add_explicit(&counters->buckets[i], 1, memory_order_relaxed);
            return;
        }
    }
}

static void end_run(struct reconcile *run, enum queue_outcome outcome, int64_t after)
{
    struct controller *controller = run->controller;
    struct instant now = clock_now();
    record_duration(&controller->counters, instant_since(now, run->began));
    queue_done(controller->queue, run->key, outcome, after, now);
    if (run->previous != NULL)
        run->previous->next = run->next;
    else
        controller->runs = run->next;
    if (run->next != NULL)
        run->next->previous = run->previous;
    controller->running--;
    free(run);
    arm(controller);
}

void reconcile_done(struct reconcile *run)
{
    atomic_fetch_add_explicit(&run->controller->counters.succeeded, 1, memory_order_relaxed);
    end_run(run, QUEUE_OK, 0);
}

void reconcile_done_after(struct reconcile *run, int64_t after)
{
    if (after <= 0) {
        reconcile_done(run);
        return;
    }
    atomic_fetch_add_explicit(&run->controller->counters.requeued_after, 1, memory_order_relaxed);
    end_run(run, QUEUE_AFTER, after);
}

void reconcile_failed(struct reconcile *run, const struct error *error)
{
    struct controller *controller = run->controller;
    char id[32];
    char failures[32];
    snprintf(id, sizeof id, "%llu", (unsigned long long)run->id);
    snprintf(failures, sizeof failures, "%u", queue_failures(controller->queue, run->key) + 1);
    log_warn(controller->log, "reconcile failed and will be tried again", "controller", controller->name, "key",
             run->key, "reconcile", id, "failures", failures, "error", error_message(error), NULL);
    atomic_fetch_add_explicit(&controller->counters.failed, 1, memory_order_relaxed);
    end_run(run, QUEUE_FAILED, 0);
}

const char *reconcile_key(const struct reconcile *run)
{
    return run->key;
}

uint64_t reconcile_id(const struct reconcile *run)
{
    return run->id;
}

static void report(const struct controller *controller, const char *key, const struct error *err)
{
    log_error(controller->log, "a key cannot be queued", "controller", controller->name, "key", key, "error",
              error_message(err), NULL);
}

void controller_enqueue(struct controller *controller, const char *key, enum queue_priority priority)
{
    struct error err = {0};
    if (queue_add(controller->queue, key, priority, clock_now(), &err) < 0)
        report(controller, key, &err);
    arm(controller);
}

void controller_enqueue_after(struct controller *controller, const char *key, int64_t delay)
{
    struct error err = {0};
    if (queue_add_after(controller->queue, key, delay, clock_now(), &err) < 0)
        report(controller, key, &err);
    arm(controller);
}

struct controller *controller_new(struct loop *loop, const char *name, const struct queue_options *options,
                                  controller_reconcile *reconcile, void *arg, const struct log *log, struct error *err)
{
    cleanup_controller struct controller *controller = calloc(1, sizeof *controller);
    if (controller == NULL) {
        error_set(err, "out of memory for a controller");
        return NULL;
    }
    struct queue_options chosen = options == NULL ? (struct queue_options){0} : *options;
    if (chosen.seed == 0)
        chosen.seed = random_u64();
    if (chosen.concurrency == 0)
        chosen.concurrency = QUEUE_CONCURRENCY;
    controller->loop = loop;
    controller->log = log;
    controller->reconcile = reconcile;
    controller->arg = arg;
    controller->concurrency = chosen.concurrency;
    snprintf(controller->name, sizeof controller->name, "%s", name);
    loop_timer_init(&controller->timer, loop, run_some, controller);
    controller->queue = queue_new(&chosen, err);
    return controller->queue == NULL ? NULL : move(controller);
}

void controller_start(struct controller *controller)
{
    controller->started = true;
    arm(controller);
}

void controller_stop(struct controller *controller)
{
    controller->started = false;
    arm(controller);
}

unsigned controller_running(const struct controller *controller)
{
    return controller->running;
}

void controller_free(struct controller *controller)
{
    if (controller == NULL)
        return;
    loop_timer_cancel(&controller->timer);
    for (struct reconcile *run = controller->runs, *next; run != NULL; run = next) {
        next = run->next;
        free(run);
    }
    queue_free(controller->queue);
    free(controller);
}

void controller_metrics(const struct controller *controller, struct controller_metrics *out)
{
    const struct counters *from = &controller->counters;
    *out = (struct controller_metrics){
        .name = controller->name,
        .adds = atomic_load_explicit(&from->adds, memory_order_relaxed),
        .retries = atomic_load_explicit(&from->retries, memory_order_relaxed),
        .depth = atomic_load_explicit(&from->depth, memory_order_relaxed),
        .delayed = atomic_load_explicit(&from->delayed, memory_order_relaxed),
        .running = atomic_load_explicit(&from->running, memory_order_relaxed),
        .concurrency = controller->concurrency,
        .succeeded = atomic_load_explicit(&from->succeeded, memory_order_relaxed),
        .requeued_after = atomic_load_explicit(&from->requeued_after, memory_order_relaxed),
        .failed = atomic_load_explicit(&from->failed, memory_order_relaxed),
    };
    struct controller_histogram *histogram = &out->reconcile_seconds;
    for (int i = 0; i < CONTROLLER_BUCKETS; i++)
        histogram->buckets[i] = atomic_load_explicit(&from->buckets[i], memory_order_relaxed);
    histogram->count = atomic_load_explicit(&from->count, memory_order_relaxed);
    histogram->sum = (double)atomic_load_explicit(&from->nanoseconds, memory_order_relaxed) / (double)SECONDS;
}
