/* trainjob — the controller of TrainJobs: what a job's children should be, and what its status says.
 *
 * Everything is decided by pure functions (private headers plan.h and status.h) from what was observed: the TrainJob,
 * its Dataset, Deployments and pods, and the coordinator's newest reports. The controller is the shell that gathers
 * those and sends what was decided to the API server; it keeps nothing that cannot be had again from the API server
 * and the coordinators.
 * Calls kube, runtime, dataset and common. Knows neither sockets nor MongoDB: what comes from and goes to the
 * coordinators and the history is messages, by the functions and hooks below. All of it, hooks too, runs on the
 * loop's thread; whoever serves a hook on another thread copies what is borrowed and returns at once.
 */
#ifndef THOLE_OPERATOR_TRAINJOB_TRAINJOB_H
#define THOLE_OPERATOR_TRAINJOB_TRAINJOB_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/json.h"
#include "common/log.h"
#include "common/report/report.h"
#include "dataset/dataset.h"
#include "kube/kube.h"
#include "runtime/controller.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TRAINJOB_EPOCHS_MOST = 10000, /* spec.training.epochs' maximum: also the most epochs held for one job */
    TRAINJOB_HISTORY_MOST = 500,  /* status.history keeps the newest */
    TRAINJOB_KEY_MOST = 64 * 1024 /* bytes of the operator's key file */
};

/* What the controller asks of the server and of the history. A hook that is NULL is not called. */
struct trainjob_hooks {
    void *arg;

    /* To the connection of the coordinator with this job UID and boot id; nothing happens where it is gone.
     * `welcome` and `refuse` answer a hello; the others may come at any time after a welcome. */
    void (*welcome)(void *arg, const char *job_uid, const char *boot, struct report_ack ack);
    void (*refuse)(void *arg, const char *job_uid, const char *boot, const char *sentence);
    void (*ack)(void *arg, const char *job_uid, const char *boot, struct report_ack ack);
    void (*ack_finished)(void *arg, const char *job_uid, const char *boot);

    /* Make MongoDB hold these epochs of this job (upsert by (term, epoch): an equal or higher term that is there
     * stays) and the job's document itself. `trainjob` is the whole object as the API server has it. `final`: the
     * job has ended, or is being deleted: with all `epochs` its record is complete. Answered, once it is durable, by
     * trainjob_history_synced; called again (with more, or after a failure) whenever something is owed.
     * NULL where no MongoDB is configured: then jobs get no finalizer. */
    void (*history_put)(void *arg, const cJSON *trainjob, const struct report_epoch *epochs, size_t count, bool final);
};

/* Everything is borrowed for the controller's life. */
struct trainjob_options {
    struct loop *loop;
    struct kube_client *client;
    struct kube_events *events;
    const struct log *log;
    struct dataset_controller *datasets;
    struct trainjob_hooks hooks;
    const char *namespace;         /* NULL: all */
    const char *trainer_image;     /* of jobs that name none */
    const char *advertise_address; /* host:port where coordinators find the operator's server */
    const struct host_paths *allowed_host_paths;
    const void *key; /* the operator's */
    size_t key_length;
    int64_t resync; /* nanoseconds between looks at a job that nothing happens to; 0: none */
};

struct trainjob_controller; /* opaque */

/* Begins to watch. */
int trainjob_start(struct trainjob_controller **out, const struct trainjob_options *options, struct error *err);
void trainjob_stop(struct trainjob_controller *controller); /* NULL is fine */
CLEANUP_DEFINE(cleanup_trainjob_controller_pointer, struct trainjob_controller, trainjob_stop)
#define cleanup_trainjob_controller CLEANUP(cleanup_trainjob_controller_pointer)

/* Reconciles begin as soon as all first lists are complete: from now on this operator acts. */
void trainjob_begin(struct trainjob_controller *controller);

/* What is not synced yet, for /readyz ("trainjobs", "pods"); NULL: everything is. */
const char *trainjob_waiting_for(const struct trainjob_controller *controller);

/* A coordinator proved that it knows the job's token. Answered by `welcome` or `refuse`: only the newest pod of
 * shard 0 that is not being deleted may report, and only for a job that exists. */
void trainjob_hello(struct trainjob_controller *controller, const struct report_hello *hello);

/* A PROGRESS, EPOCH or FINISHED message of a coordinator that was welcomed; others are ignored. */
void trainjob_report(struct trainjob_controller *controller, const char *job_uid, const char *boot,
                     const struct report_message *message);

/* MongoDB holds all epochs of this job up to `epoch` and, with `final`, its end. */
void trainjob_history_synced(struct trainjob_controller *controller, const char *job_uid, uint32_t epoch, bool final);

/* MongoDB could not be written: shown in the job's condition HistorySynced. Put again after its own back-off by the
 * history's writer; the controller does nothing. */
void trainjob_history_failed(struct trainjob_controller *controller, const char *job_uid, const char *sentence);

/* Jobs by phase, for metrics. */
enum trainjob_phase {
    TRAINJOB_PENDING,
    TRAINJOB_STARTING,
    TRAINJOB_RUNNING,
    TRAINJOB_SUCCEEDED,
    TRAINJOB_FAILED,
};
enum { TRAINJOB_PHASES = TRAINJOB_FAILED + 1 };
const char *trainjob_phase_name(enum trainjob_phase phase);
void trainjob_count(const struct trainjob_controller *controller, uint64_t out[TRAINJOB_PHASES]);
/* What the asynchronous trainings of all jobs did since this operator runs. */
const struct report_sync *trainjob_sync(const struct trainjob_controller *controller);
struct controller *trainjob_runtime(const struct trainjob_controller *controller);
/* What is queued, kept and remembered of the job with this key, as JSON for people, to be freed. Holds no secrets. */
cJSON *trainjob_debug(const struct trainjob_controller *controller, const char *key);
/* All informers into `out`, up to `most`; returns how many. */
size_t trainjob_informers(const struct trainjob_controller *controller, const struct kube_informer **out, size_t most);

#endif
