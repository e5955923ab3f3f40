/* job — what was observed of one TrainJob, decoded: the object, its children, and what its coordinator reported.
 *
 * Everything the pure functions (plan.h, status.h) look at. Texts are borrowed from the trees they were decoded from.
 */
#ifndef THOLE_OPERATOR_TRAINJOB_JOB_H
#define THOLE_OPERATOR_TRAINJOB_JOB_H

#include "common/json.h"
#include "common/plan/plan.h"
#include "trainjob/reasons.h"
#include "trainjob/trainjob.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRAINJOB_FINALIZER   "thole.dev/history"
#define TRAINJOB_LABEL_JOB   "thole.dev/job"
#define TRAINJOB_LABEL_UID   "thole.dev/job-uid"
#define TRAINJOB_LABEL_ROLE  "thole.dev/role"
#define TRAINJOB_LABEL_SHARD "thole.dev/shard"

enum {
    TRAINJOB_PODS_MOST = 512, /* looked at for one job */
    TRAINJOB_DEPLOYMENTS_MOST = PLAN_SHARDS_MOST + 1,
    TRAINJOB_PORT = 7077,
};

struct trainjob {
    const cJSON *object, *status; /* `status` NULL where there is none yet */
    const char *namespace, *name, *uid, *resource_version;
    int64_t generation;
    bool deleting;
    int64_t deleted_at; /* seconds since 1970 */
    bool has_finalizer;

    const char *dataset;
    uint32_t epochs, replicas, shards, backoff_limit;
    const char *output_host_path; /* NULL: none */
    bool has_output;
    const char *start_job;       /* whose model is the start; NULL: none's */
    const char *start_file_path; /* hostPath of the volume with the model file that is; NULL: none */
    const char *image;           /* spec.template's, or NULL */

    enum trainjob_phase phase;
    bool started; /* frozen: status.startTime exists */
    int64_t start_time;
    const char *trainer_image, *dataset_uid; /* frozen with it */
    const cJSON *start;                      /* too, where there is a start_job: status.start */
};

static inline bool trainjob_is_over(const struct trainjob *job)
{
    return job->phase == TRAINJOB_SUCCEEDED || job->phase == TRAINJOB_FAILED;
}

/* Reads any shape: what is missing is empty or 0. */
void trainjob_decode(struct trainjob *out, const cJSON *object);

enum trainjob_role { ROLE_WORKER, ROLE_PS };
const char *trainjob_role_name(enum trainjob_role role); /* "worker", "ps" */

struct trainjob_pod {
    const char *name, *uid, *node; /* node "" : not placed yet */
    enum trainjob_role role;
    uint32_t shard;
    int64_t created; /* seconds since 1970 */
    bool deleting, ready;
    bool over; /* the pod itself has ended (phase Failed or Succeeded) and will not run again */

    /* How often its container has ended, and how it ended last. */
    int32_t ends;
    int64_t ended_at;
    int32_t exit_code, signal;
    const char *end_reason, *end_message;

    const char *waiting_reason, *waiting_message; /* of its container, "" : it does not wait */
    const char *unscheduled_reason, *unscheduled; /* why no node takes it, "" : placed */
    const char *event;                            /* newest warning read for it, "" : none */
};

struct trainjob_deployment {
    const char *name, *uid;
    enum trainjob_role role;
    uint32_t shard;
    int64_t replicas;
    bool deleting;
    const char *failure; /* why it cannot make pods, "" : it can */
};

/* A Service or NetworkPolicy. */
struct trainjob_part {
    const char *uid; /* NULL: there is none */
    bool deleting;
};

struct trainjob_children {
    struct trainjob_deployment deployments[TRAINJOB_DEPLOYMENTS_MOST];
    size_t deployment_count;
    struct trainjob_pod pods[TRAINJOB_PODS_MOST];
    size_t pod_count;
    struct trainjob_part service, policy;
};

/* Keeps what belongs to this job: Deployments and parts by owner, pods by the label with the job's UID.
 * `events`: an object of texts by pod UID, or NULL. */
void trainjob_children_decode(struct trainjob_children *out, const struct trainjob *job, const cJSON *deployments,
                              const cJSON *pods, const cJSON *services, const cJSON *policies, const cJSON *events);

const struct trainjob_deployment *trainjob_find_deployment(const struct trainjob_children *children,
                                                           enum trainjob_role role, uint32_t shard);
/* The newest pod of that shard that is neither deleted nor over; NULL where there is none. */
const struct trainjob_pod *trainjob_shard_pod(const struct trainjob_children *children, uint32_t shard);

/* What the coordinator said since this operator runs; all 0 at first. */
struct trainjob_reports {
    bool connected; /* a hello was accepted */
    char pod[256], pod_uid[64], boot[17], kernel[32];
    uint32_t term;
    bool has_progress;
    struct report_progress progress;
    const struct report_epoch *epochs; /* by (epoch), each once, with the highest term seen; borrowed */
    size_t epoch_count;
    bool has_finished;
    struct report_finished finished;
    struct report_sync counted; /* what is in the totals of all jobs, of this life of the process */
};

/* What happened to this operator's own attempts; all 0 at first. */
struct trainjob_attempts {
    bool secret_made;    /* by us or by an operator before us */
    bool is_conflict;    /* a child's name is taken by an object that is not this job's */
    bool is_refused;     /* the API server will never take a child as it is */
    char sentence[1000]; /* of those two, or of what failed and is tried again; "" : nothing */
};

/* What MongoDB has. */
struct trainjob_history {
    bool configured;
    uint32_t synced; /* all epochs up to this */
    bool final;      /* and the end */
    char failure[1000];
};

/* Everything a decision looks at. */
struct trainjob_view {
    const struct trainjob *job;
    const cJSON *dataset;   /* NULL: there is none */
    const cJSON *start_job; /* the TrainJob that job->start_job names; NULL: there is none */
    /* Who waits for whom: names, of job->start_job, of the job that is the start of that one, and so on as far as none
     * has started. Ends early with a name that was there before, or is the job's own. NULL: nobody waits. */
    const cJSON *start_chain;
    const struct trainjob_children *children;
    const struct trainjob_reports *reports;
    const struct trainjob_attempts *attempts;
    const struct trainjob_history *history;
    const struct host_paths *allowed_host_paths;
    const char *trainer_image, *advertise_address; /* of this operator */
    const void *key;
    size_t key_length;
    int64_t now; /* seconds since 1970 */
};

/* Is the Dataset that was seen the one the job was planned with? */
bool trainjob_has_its_dataset(const struct trainjob_view *view);

/* ---- start.c: before the start, and from what ---- */

/* Why a job that has not started cannot start now; false where it can. *stalled: a person must do something. */
bool trainjob_start_is_blocked(const struct trainjob_view *view, enum reason *reason, bool *stalled, char *sentence,
                               size_t size);

/* status.start of a job that begins from view->start_job's model: which it is, its SHA-256, and the volume it is in.
 * NULL without memory. */
cJSON *trainjob_start_of(const struct trainjob_view *view);

/* The volume that holds the model to begin from, and the directory in it, for `sub_path`; NULL: there is none. */
enum { TRAINJOB_SUB_PATH_SIZE = 512 };
const cJSON *trainjob_start_volume(const struct trainjob *job, char sub_path[TRAINJOB_SUB_PATH_SIZE]);

#endif
