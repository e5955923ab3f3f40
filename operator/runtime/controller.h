/* controller — runs one kind's reconciles from a queue, on the loop.
 *
 * A reconcile is asynchronous: it is begun with a key, sends its requests, and ends when reconcile_done() is called,
 * exactly once, from wherever on the loop. It must be level-triggered: the key says where to look, not what happened.
 * Everything here is of the loop's thread.
 */
#ifndef THOLE_OPERATOR_CONTROLLER_H
#define THOLE_OPERATOR_CONTROLLER_H

#include "common/json.h"
#include "common/log.h"
#include "loop/loop.h"
#include "runtime/queue.h"

struct controller; /* opaque */
struct reconcile;  /* opaque: one run, valid until reconcile_done() */

/* Begins a run. May call reconcile_done() before it returns. */
typedef void controller_reconcile(void *arg, struct reconcile *run, const char *key);

/* Calls `visit` with every key there is. */
typedef void controller_visit(void *arg, const char *key);
typedef void controller_list(void *arg, controller_visit *visit, void *visit_arg);

struct controller_options {
    const char *name; /* in metrics and log lines: "trainjob"; borrowed, as all here */
    const char *noun; /* what a key is called in log lines: "job" */
    struct queue_options queue;
    controller_reconcile *reconcile;
    void *arg; /* of the two functions */
    const struct log *log;

    /* Looks at every key of `list` once in `resync` (nanoseconds; 0: never), a few at a time and behind all that
     * happens: what a lost event hid, or somebody changed behind our back, is found then. */
    controller_list *list;
    int64_t resync;
};

/* Nothing runs before controller_start(), but keys may be added. */
struct controller *controller_new(struct loop *loop, const struct controller_options *options, struct error *err);
void controller_start(struct controller *controller); /* e.g. when all informers are synced */
void controller_stop(struct controller *controller);  /* begins no more runs; those under way end as they do */
unsigned controller_running(const struct controller *controller);
/* Runs still under way are forgotten: whoever holds them must not end them any more. NULL is fine. */
void controller_free(struct controller *controller);
CLEANUP_DEFINE(cleanup_controller_pointer, struct controller, controller_free)
#define cleanup_controller CLEANUP(cleanup_controller_pointer)

/* HIGH: something happened to it. LOW: it is only looked at again, as after a start. A full queue is logged; the next
 * resync repairs it. */
void controller_enqueue(struct controller *controller, const char *key, enum queue_priority priority);

const char *reconcile_key(const struct reconcile *run); /* "namespace/name" */
const char *reconcile_id(const struct reconcile *run);  /* of no other run, of this process or another */
/* A log whose lines carry the controller, the key and the id; NULL where the controller has none. */
const struct log *reconcile_log(const struct reconcile *run);

/* Ends the run. `after` > 0: look again then (nanoseconds). */
void reconcile_done(struct reconcile *run);
void reconcile_done_after(struct reconcile *run, int64_t after);
/* Failed: logged with the key, and tried again with back-off. */
void reconcile_failed(struct reconcile *run, const struct error *error);

struct controller_metrics {
    const char *name;
    struct queue_metrics queue;
    uint64_t concurrency;
    uint64_t succeeded, requeued_after, failed; /* controller_runtime_reconcile_total by result */
    uint64_t resynced;                          /* keys that were looked at because it was time */
    double unfinished, longest;                 /* seconds of the runs under way: of all together, of the oldest */
    struct histogram reconcile_seconds;
};
void controller_metrics(const struct controller *controller, struct controller_metrics *out);

/* What the queue knows of a key, as JSON, to be freed; NULL without memory. */
cJSON *controller_debug(const struct controller *controller, const char *key);

#endif
