/* controller — the controller's insides, shared by controller.c (what wakes a job up, what coordinators say) and
 * reconcile.c (one look at one job). */
#ifndef THOLE_OPERATOR_TRAINJOB_CONTROLLER_H
#define THOLE_OPERATOR_TRAINJOB_CONTROLLER_H

#include "trainjob/budget.h"
#include "trainjob/intents.h"
#include "trainjob/memory.h"

struct trainjob_controller {
    struct trainjob_options options;
    struct kube_informer *jobs, *deployments, *pods, *services, *policies;
    struct controller *runtime;
    struct memory *memory;
    struct budget budget;    /* of status writes that can wait */
    struct report_sync sync; /* of all jobs, since this operator runs */
    struct loop_timer begin; /* looks whether everything is synced */
    bool begun;
};

/* What was observed of one job at one moment; all trees are owned. */
struct observation {
    cJSON *object, *dataset, *start_job, *start_chain, *deployments, *pods, *services, *policies;
    struct trainjob job;
    struct trainjob_children children;
    struct trainjob_view view;
};

/* NULL where there is no such job (or no memory). `*memory` is the job's. */
struct observation *observe(struct trainjob_controller *controller, const char *key, struct job_memory **memory);
void observation_free(struct observation *observation);
CLEANUP_DEFINE(cleanup_observation_pointer, struct observation, observation_free)
#define cleanup_observation CLEANUP(cleanup_observation_pointer)

/* What may be acknowledged of a job: what the status as written and MongoDB hold. */
struct report_ack durable_ack(const struct job_memory *memory, const cJSON *status);

/* The informer of a child's kind; NULL for Secrets. */
struct kube_informer *informer_of(const struct trainjob_controller *controller, const struct kube_resource *resource);

void reconcile_trainjob(void *arg, struct reconcile *run, const char *key);

#endif
