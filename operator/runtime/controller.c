#include "runtime/controller.h"
#include "common/crypto.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RUNS_A_TURN = 32,    /* so that many keys do not keep the loop from its sockets */
    RESYNC_SLICES = 360, /* of a resync: at ten hours, some keys every hundred seconds */
    ID_SIZE = 40,
};

static const int64_t shortest_slice = 50 * MILLISECONDS;

struct reconcile {
    struct controller *controller;
    struct reconcile *next, *previous;
    const char *key; /* the queue's, until the run is done */
    char id[ID_SIZE];
    struct log log;
    struct instant began;
};

struct controller {
    struct controller_options options;
    struct loop *loop;
    struct queue *queue;
    struct loop_timer timer;
    bool started;
    struct reconcile *runs;
    unsigned running;
    uint32_t life; /* in the ids of runs: other processes count from 1 too */
    uint64_t next_id;
    struct controller_metrics metrics;

    struct loop_timer resync;
    uint32_t slices, slice;
};

static void arm(struct controller *controller)
{
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
        .began = clock_now(),
    };
    snprintf(run->id, sizeof run->id, "%08" PRIx32 "-%" PRIu64, controller->life, ++controller->next_id);
    const struct controller_options *options = &controller->options;
    if (options->log != NULL) {
        run->log = log_with(options->log, "controller", options->name);
        run->log = log_with(&run->log, options->noun, run->key);
        run->log = log_with(&run->log, "reconcileID", run->id);
    }
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
        controller->options.reconcile(controller->options.arg, run, key);
    }
    arm(controller);
}

static void log_end(const struct reconcile *run, const char *result, int64_t took)
{
    if (!log_enabled(reconcile_log(run), LOG_DEBUG))
        return;
    char milliseconds[32];
    snprintf(milliseconds, sizeof milliseconds, "%.3f", (double)took / (double)MILLISECONDS);
    log_debug(&run->log, "reconciled", "result", result, "milliseconds", milliseconds, NULL);
}

static void end_run(struct reconcile *run, enum queue_outcome outcome, int64_t after)
{
    static const char *const results[] = {
        [QUEUE_OK] = "success", [QUEUE_AFTER] = "requeue_after", [QUEUE_FAILED] = "error"};
    struct controller *controller = run->controller;
    struct instant now = clock_now();
    histogram_add(&controller->metrics.reconcile_seconds, instant_since(now, run->began));
    log_end(run, results[outcome], instant_since(now, run->began));
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
    run->controller->metrics.succeeded++;
    end_run(run, QUEUE_OK, 0);
}

void reconcile_done_after(struct reconcile *run, int64_t after)
{
    if (after <= 0) {
        reconcile_done(run);
        return;
    }
    run->controller->metrics.requeued_after++;
    end_run(run, QUEUE_AFTER, after);
}

void reconcile_failed(struct reconcile *run, const struct error *error)
{
    struct controller *controller = run->controller;
    char failures[32];
    snprintf(failures, sizeof failures, "%u", queue_failures(controller->queue, run->key) + 1);
    log_warn(reconcile_log(run), "reconcile failed and will be tried again", "failures", failures, "error",
             error_message(error), NULL);
    controller->metrics.failed++;
    end_run(run, QUEUE_FAILED, 0);
}

const char *reconcile_key(const struct reconcile *run)
{
    return run->key;
}

const char *reconcile_id(const struct reconcile *run)
{
    return run->id;
}

const struct log *reconcile_log(const struct reconcile *run)
{
    return run->controller->options.log == NULL ? NULL : &run->log;
}

static void report(const struct controller *controller, const char *key, const struct error *err)
{
    log_error(controller->options.log, "a key cannot be queued", "controller", controller->options.name,
              controller->options.noun, key, "error", error_message(err), NULL);
}

void controller_enqueue(struct controller *controller, const char *key, enum queue_priority priority)
{
    struct error err = {0};
    if (queue_add(controller->queue, key, priority, clock_now(), &err) < 0)
        report(controller, key, &err);
    arm(controller);
}

/* ---- resync ----------------------------------------------------------------------------------------------------- */

/* A key belongs to one slice, and each slice has its turn once in a period: nothing is kept of when which key was
 * looked at last. */
static void resync_one(void *arg, const char *key)
{
    struct controller *controller = arg;
    uint32_t hash = UINT32_C(2166136261);
    for (const char *c = key; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * UINT32_C(16777619);
    if ((hash ^ hash >> 16) % controller->slices != controller->slice)
        return;
    controller->metrics.resynced++;
    controller_enqueue(controller, key, QUEUE_LOW);
}

static void resync_slice(void *arg)
{
    struct controller *controller = arg;
    const struct controller_options *options = &controller->options;
    controller->slice = (controller->slice + 1) % controller->slices;
    options->list(options->arg, resync_one, controller);
    loop_timer_set(&controller->resync, options->resync / controller->slices);
}

static void start_resync(struct controller *controller)
{
    int64_t period = controller->options.resync;
    if (period <= 0 || controller->options.list == NULL || controller->resync.armed)
        return;
    int64_t slices = period / shortest_slice;
    controller->slices = slices < 1 ? 1 : slices > RESYNC_SLICES ? RESYNC_SLICES : (uint32_t)slices;
    controller->slice = controller->life % controller->slices; /* so that replicas' turns differ */
    loop_timer_set(&controller->resync, period / controller->slices);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

struct controller *controller_new(struct loop *loop, const struct controller_options *options, struct error *err)
{
    cleanup_controller struct controller *controller = calloc(1, sizeof *controller);
    if (controller == NULL) {
        error_set(err, "out of memory for a controller");
        return NULL;
    }
    controller->options = *options;
    struct queue_options *queue = &controller->options.queue;
    if (queue->seed == 0)
        queue->seed = random_u64();
    if (queue->concurrency == 0)
        queue->concurrency = QUEUE_CONCURRENCY;
    controller->loop = loop;
    controller->life = (uint32_t)random_u64();
    loop_timer_init(&controller->timer, loop, run_some, controller);
    loop_timer_init(&controller->resync, loop, resync_slice, controller);
    controller->queue = queue_new(queue, err);
    return controller->queue == NULL ? NULL : move(controller);
}

void controller_start(struct controller *controller)
{
    controller->started = true;
    start_resync(controller);
    arm(controller);
}

void controller_stop(struct controller *controller)
{
    controller->started = false;
    loop_timer_cancel(&controller->resync);
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
    loop_timer_cancel(&controller->resync);
    for (struct reconcile *run = controller->runs, *next; run != NULL; run = next) {
        next = run->next;
        free(run);
    }
    queue_free(controller->queue);
    free(controller);
}

/* ---- for who watches -------------------------------------------------------------------------------------------- */

static double seconds_since(struct instant now, struct instant then)
{
    return (double)instant_since(now, then) / (double)SECONDS;
}

void controller_metrics(const struct controller *controller, struct controller_metrics *out)
{
    *out = controller->metrics;
    out->name = controller->options.name;
    out->concurrency = controller->options.queue.concurrency;
    queue_metrics(controller->queue, &out->queue);
    struct instant now = clock_now();
    for (const struct reconcile *run = controller->runs; run != NULL; run = run->next) {
        double seconds = seconds_since(now, run->began);
        out->unfinished += seconds;
        out->longest = seconds > out->longest ? seconds : out->longest;
    }
}

static const struct reconcile *find_run(const struct controller *controller, const char *key)
{
    const struct reconcile *run = controller->runs;
    while (run != NULL && strcmp(run->key, key) != 0)
        run = run->next;
    return run;
}

cJSON *controller_debug(const struct controller *controller, const char *key)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    struct queue_entry entry;
    struct instant now = clock_now();
    queue_look(controller->queue, key, &entry);
    bool good = cJSON_AddStringToObject(json, "state", entry.state) != NULL &&
                cJSON_AddStringToObject(json, "priority", entry.priority == QUEUE_HIGH ? "high" : "low") != NULL &&
                cJSON_AddNumberToObject(json, "failures", entry.failures) != NULL;
    if (strcmp(entry.state, "delayed") == 0)
        good = good && cJSON_AddNumberToObject(json, "dueInSeconds", seconds_since(entry.due, now)) != NULL;
    else if (strcmp(entry.state, "ready") == 0)
        good = good && cJSON_AddNumberToObject(json, "waitingForSeconds", seconds_since(now, entry.due)) != NULL;
    const struct reconcile *run = find_run(controller, key);
    if (run != NULL)
        good = good && cJSON_AddBoolToObject(json, "again", entry.again) != NULL &&
               cJSON_AddStringToObject(json, "reconcileID", run->id) != NULL &&
               cJSON_AddNumberToObject(json, "runningForSeconds", seconds_since(now, run->began)) != NULL;
    return good ? move(json) : NULL;
}
