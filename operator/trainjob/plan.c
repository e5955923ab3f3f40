#include "trainjob/plan.h"

#include "common/clock.h"
#include "trainjob/objects.h"
#include "trainjob/status.h"

#include <string.h>

enum { RESTART_DELAY_MOST = 60 };

/* A merge patch of one member; `value` is taken over. NULL without memory. */
static cJSON *patch_of(const char *path, cJSON *value)
{
    cleanup_json cJSON *patch = cJSON_CreateObject();
    return json_put(patch, path, value, NULL) < 0 ? NULL : move(patch);
}

/* ---- the end of the object ---- */

static void remove_finalizer(const struct trainjob *job, struct intents *out, enum reason event, const char *note)
{
    bool whole = true;
    cleanup_json cJSON *kept = cJSON_CreateArray();
    const cJSON *finalizer = NULL;
    cJSON_ArrayForEach(finalizer, json_at(job->object, "metadata.finalizers"))
    {
        if (strcmp(cJSON_IsString(finalizer) ? finalizer->valuestring : "", TRAINJOB_FINALIZER) != 0)
            json_add(kept, NULL, cJSON_Duplicate(finalizer, true), &whole);
    }
    cJSON *patch = patch_of("metadata.finalizers", whole ? move(kept) : NULL);
    struct intent *intent = intents_add(out, INTENT_FINALIZERS, &trainjob_resource, job->name, job->uid, patch);
    if (intent == NULL)
        return;
    intent->event = event;
    intent->event_note = note;
}

static void add_finalizer(const struct trainjob *job, struct intents *out)
{
    const cJSON *old = json_at(job->object, "metadata.finalizers");
    bool whole = true;
    cleanup_json cJSON *list = cJSON_IsArray(old) ? cJSON_Duplicate(old, true) : cJSON_CreateArray();
    json_add_text(list, NULL, TRAINJOB_FINALIZER, &whole);
    cJSON *patch = patch_of("metadata.finalizers", whole ? move(list) : NULL);
    intents_add(out, INTENT_FINALIZERS, &trainjob_resource, job->name, job->uid, patch);
}

/* Deleted with propagationPolicy Orphan: Kubernetes takes the children's owner away, and they are nobody's. */
static bool leaves_orphans(const struct trainjob *job)
{
    const cJSON *finalizer = NULL;
    cJSON_ArrayForEach(finalizer, json_at(job->object, "metadata.finalizers"))
    {
        if (cJSON_IsString(finalizer) && strcmp(finalizer->valuestring, "orphan") == 0)
            return true;
    }
    return false;
}

/* While the object waits for its record, its children do not wait for the object. */
static void plan_deletion(const struct trainjob_view *view, struct intents *out)
{
    const struct trainjob *job = view->job;
    if (!job->has_finalizer)
        return; /* the garbage collector does the rest */
    bool orphans = leaves_orphans(job);
    for (size_t i = 0; i < view->children->deployment_count; i++) {
        const struct trainjob_deployment *deployment = &view->children->deployments[i];
        if (!deployment->deleting && !orphans)
            intents_add(out, INTENT_DELETE, &deployment_resource, deployment->name, deployment->uid, NULL);
    }
    int64_t left = job->deleted_at + TRAINJOB_HISTORY_WAIT - view->now;
    /* Of a job that was never started there is nothing to record. */
    if (!view->history->configured || view->history->final || !job->started)
        remove_finalizer(job, out, REASON_NONE, NULL);
    else if (left <= 0)
        remove_finalizer(job, out, REASON_HISTORY_LOST,
                         "the job is deleted though MongoDB has not taken its record for 10 minutes");
    else
        intents_look_again(out, left);
}

/* ---- the start ---- */

/* The status of the started job as it stands when nothing has happened yet, so that there is only one to write. */
static cJSON *whole_start_status(const struct trainjob_view *view, cJSON *start)
{
    cleanup_json cJSON *frozen = start;
    cleanup_json cJSON *object = cJSON_Duplicate(view->job->object, true);
    if (frozen == NULL || object == NULL)
        return NULL;
    const cJSON *member = NULL;
    cJSON_ArrayForEach(member, frozen)
    {
        char path[128];
        snprintf(path, sizeof path, "status.%s", member->string);
        if (json_put(object, path, cJSON_Duplicate(member, true), NULL) < 0)
            return NULL;
    }
    struct trainjob job;
    trainjob_decode(&job, object);
    struct trainjob_view started = *view;
    started.job = &job;
    return trainjob_status(&started);
}

static void plan_start(const struct trainjob_view *view, struct intents *out)
{
    char sentence[1200];
    enum reason reason = REASON_NONE;
    bool stalled = false;
    if (trainjob_start_is_blocked(view, &reason, &stalled, sentence, sizeof sentence))
        return; /* the status says so; what it waits for will wake us */
    if (view->history->configured && !view->job->has_finalizer) {
        add_finalizer(view->job, out);
        return;
    }
    cleanup_json cJSON *status = whole_start_status(view, trainjob_start_status(view));
    if (status == NULL) {
        intents_look_again(out, 1);
        return;
    }
    intents_add(out, INTENT_FREEZE, &trainjob_resource, view->job->name, view->job->uid,
                trainjob_status_patch(view->job->status, status));
}

/* ---- a started job ---- */

static void create(struct intents *out, const struct kube_resource *resource, cJSON *object)
{
    intents_add(out, INTENT_CREATE, resource, json_string(object, "metadata.name", ""), NULL, object);
}

static void plan_parts(const struct trainjob_view *view, struct intents *out)
{
    if (view->children->service.uid == NULL)
        create(out, &service_resource, object_service(view));
    if (view->children->policy.uid == NULL)
        create(out, &policy_resource, object_policy(view));
}

static void plan_deployment(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard,
                            struct intents *out)
{
    const struct trainjob_deployment *deployment = trainjob_find_deployment(view->children, role, shard);
    int64_t replicas = role == ROLE_PS ? 1 : view->job->replicas;
    if (deployment == NULL && trainjob_has_its_dataset(view)) {
        create(out, &deployment_resource, object_deployment(view, role, shard));
    } else if (deployment != NULL && !deployment->deleting && deployment->replicas != replicas) {
        cJSON *patch = patch_of("spec.replicas", cJSON_CreateNumber((double)replicas));
        intents_add(out, INTENT_SCALE, &deployment_resource, deployment->name, deployment->uid, patch);
    }
}

/* How long after its end a crash-looping pod is left alone, in seconds: the operator's own back-off. */
static int64_t restart_delay(const struct trainjob *job)
{
    /* Twice: in place, and after that. */
    int64_t ends_a_round = 2 * ((int64_t)job->shards + job->replicas);
    int64_t rounds = json_int(job->status, "restarts.recent", 0) / ends_a_round;
    return rounds >= 6 ? RESTART_DELAY_MOST : INT64_C(1) << rounds;
}

/* Kubelet restarts a container in place at once, then waits ever longer. Such a pod is replaced as soon as its end
 * stands in the status: that is sooner, and on a node that may be better. */
static void plan_crash_loops(const struct trainjob_view *view, struct intents *out)
{
    for (size_t i = 0; i < view->children->pod_count; i++) {
        const struct trainjob_pod *pod = &view->children->pods[i];
        if (pod->deleting || pod->over || strcmp(pod->waiting_reason, "CrashLoopBackOff") != 0 ||
            trainjob_counted_ends(view->job->status, pod->uid) < pod->ends)
            continue;
        int64_t left = pod->ended_at + restart_delay(view->job) - view->now;
        if (left > 0)
            intents_look_again(out, left);
        else
            intents_add(out, INTENT_DELETE, &pod_resource, pod->name, pod->uid, NULL);
    }
}

static void plan_running(const struct trainjob_view *view, struct intents *out)
{
    if (view->attempts->is_refused)
        return; /* becomes Failed */
    if (!view->attempts->secret_made) {
        struct error err = {0};
        cJSON *secret = trainjob_has_its_dataset(view) ? object_secret(view, &err) : NULL;
        if (secret != NULL)
            create(out, &secret_resource, secret);
        return;
    }
    plan_parts(view, out);
    for (uint32_t shard = 0; shard < view->job->shards; shard++)
        plan_deployment(view, ROLE_PS, shard, out);
    plan_deployment(view, ROLE_WORKER, 0, out);
    plan_crash_loops(view, out);
}

/* ---- a job that is over ---- */

/* Shard 0 keeps the history until all of it is durable elsewhere: in the status, or in MongoDB. */
static bool shard_0_may_go(const struct trainjob_view *view)
{
    if (view->job->phase == TRAINJOB_FAILED || !view->history->configured || view->history->final)
        return true;
    const cJSON *first = cJSON_GetArrayItem(json_at(view->job->status, "history"), 0);
    return first == NULL || json_int(first, "epoch", 0) == 1;
}

static void plan_over(const struct trainjob_view *view, struct intents *out)
{
    const struct trainjob_children *children = view->children;
    for (size_t i = 0; i < children->deployment_count; i++) {
        const struct trainjob_deployment *deployment = &children->deployments[i];
        bool keep = deployment->role == ROLE_PS && deployment->shard == 0 && !shard_0_may_go(view);
        if (deployment->deleting || deployment->replicas == 0 || keep)
            continue;
        cJSON *patch = patch_of("spec.replicas", cJSON_CreateNumber(0));
        intents_add(out, INTENT_SCALE, &deployment_resource, deployment->name, deployment->uid, patch);
    }
    if (children->service.uid != NULL && !children->service.deleting)
        intents_add(out, INTENT_DELETE, &service_resource, view->job->name, children->service.uid, NULL);
    if (children->policy.uid != NULL && !children->policy.deleting)
        intents_add(out, INTENT_DELETE, &policy_resource, view->job->name, children->policy.uid, NULL);
}

void trainjob_plan(const struct trainjob_view *view, struct intents *out)
{
    *out = (struct intents){.count = 0};
    if (view->job->deleting)
        plan_deletion(view, out);
    else if (trainjob_is_over(view->job))
        plan_over(view, out);
    else if (!view->job->started)
        plan_start(view, out);
    else
        plan_running(view, out);
}
