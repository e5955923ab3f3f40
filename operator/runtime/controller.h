/* controller — runs one kind's reconciles from a queue, on the loop.
 *
 * A reconcile is asynchronous: it is begun with a key, sends its requests, and ends when reconcile_done() is called,
 * exactly once, from wherever on the loop. It must be level-triggered: the key says where to look, not what happened.
 */
#ifndef THOLE_OPERATOR_CONTROLLER_H
#define THOLE_OPERATOR_CONTROLLER_H

#include "common/log.h"
#include "loop/loop.h"
#include "runtime/queue.h"

struct controller; /* opaque */
struct reconcile;  /* opaque: one run, valid until reconcile_done() */

/* Begins a run. May call reconcile_done() before it returns. */
typedef void controller_reconcile(void *arg, struct reconcile *run, const char *key);

/* `name` is in log lines and metrics ("trainjob"). Nothing runs before controller_start(), but keys may be added. */
struct controller *controller_new(struct loop *loop, const char *name, const struct queue_options *options,
                                  controller_reconcile *reconcile, void *arg, const struct log *log, struct error *err);
void controller_start(struct controller *controller); /* e.g. when all informers are synced */
void controller_stop(struct controller *controller);  /* begins no more runs; those under way end as they do */
unsigned controller_running(const struct controller *controller);
/* Runs still under way are forgotten: whoever holds them must not end them any more. NULL is fine. */
void controller_free(struct controller *controller);
CLEANUP_DEFINE(cleanup_controller_pointer, struct controller, controller_free)
#define cleanup_controller CLEANUP(cleanup_controller_pointer)

/* HIGH: something happened to it. LOW: a resync. A full queue is logged; a later resync repairs it. */
void controller_enqueue(struct controller *controller, const char *key, enum queue_priority priority);
void controller_enqueue_after(struct controller *controller, const char *key, int64_t delay);

const char *reconcile_key(const struct reconcile *run); /* "namespace/name" */
uint64_t reconcile_id(const struct reconcile *run);     /* in this run's log lines */

/* Ends the run. `after` > 0: look again then (nanoseconds). */
void reconcile_done(struct reconcile *run);
void reconcile_done_after(struct reconcile *run, int64_t after);
/* Failed: logged with the key, and tried again with back-off. */
void reconcile_failed(struct reconcile *run, const struct error *error);

/* From any thread. Histogram bounds in seconds: controller_metrics_bounds[]. */
enum { CONTROLLER_BUCKETS = 10 };
extern const double controller_metrics_bounds[CONTROLLER_BUCKETS];
struct controller_histogram {
    uint64_t buckets[CONTROLLER_BUCKETS]; /* not cumulative; beyond the last bound: only in `count` */
    uint64_t count;
    double sum; /* seconds */
};
struct controller_metrics {
    const char *name;
    uint64_t adds, retries;
    uint64_t depth, delayed, running, concurrency;
    uint64_t succeeded, requeued_after, failed; /* controller_runtime_reconcile_total by result */
    struct controller_histogram reconcile_seconds;
};
void controller_metrics(const struct controller *controller, struct controller_metrics *out);

#endif
