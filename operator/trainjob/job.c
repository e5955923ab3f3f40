#include "trainjob/job.h"

#include "common/clock.h"

#include <string.h>

static const char *const phase_names[] = {
    [TRAINJOB_PENDING] = "Pending",     [TRAINJOB_STARTING] = "Starting", [TRAINJOB_RUNNING] = "Running",
    [TRAINJOB_SUCCEEDED] = "Succeeded", [TRAINJOB_FAILED] = "Failed",
};

const char *trainjob_phase_name(enum trainjob_phase phase)
{
    return phase_names[phase];
}

const char *trainjob_role_name(enum trainjob_role role)
{
    return role == ROLE_PS ? "ps" : "worker";
}

static enum trainjob_phase phase_of(const cJSON *status)
{
    const char *text = json_string(status, "phase", "");
    for (size_t i = 0; i < TRAINJOB_PHASES; i++)
        if (strcmp(text, phase_names[i]) == 0)
            return (enum trainjob_phase)i;
    return TRAINJOB_PENDING;
}

/* Seconds since 1970, 0 where there is no such time. */
static int64_t time_at(const cJSON *json, const char *path)
{
    int64_t seconds = 0;
    if (time_parse_rfc3339(json_string(json, path, ""), &seconds) < 0)
        return 0;
    return seconds;
}

static uint32_t small_number(const cJSON *json, const char *path, uint32_t fallback, uint32_t most)
{
    int64_t value = json_int(json, path, fallback);
    return value < 0 ? 0 : value > most ? most : (uint32_t)value;
}

void trainjob_decode(struct trainjob *out, const cJSON *object)
{
    *out = (struct trainjob){
        .object = object,
        .status = cJSON_IsObject(json_at(object, "status")) ? json_at(object, "status") : NULL,
        .namespace = json_string(object, "metadata.namespace", ""),
        .name = json_string(object, "metadata.name", ""),
        .uid = json_string(object, "metadata.uid", ""),
        .resource_version = json_string(object, "metadata.resourceVersion", ""),
        .generation = json_int(object, "metadata.generation", 0),
        .deleting = json_at(object, "metadata.deletionTimestamp") != NULL,
        .deleted_at = time_at(object, "metadata.deletionTimestamp"),
        .dataset = json_string(object, "spec.datasetRef.name", ""),
        .epochs = small_number(object, "spec.training.epochs", 0, TRAINJOB_EPOCHS_MOST),
        .replicas = small_number(object, "spec.workers.replicas", 1, PLAN_BLOCKS_MOST),
        .shards = small_number(object, "spec.parameterServers.shards", 1, PLAN_SHARDS_MOST),
        .backoff_limit = small_number(object, "spec.runPolicy.backoffLimit", 6, 1000),
        .output_host_path = json_string(object, "spec.output.volume.hostPath.path", NULL),
        .has_output = json_at(object, "spec.output.volume") != NULL,
        .start_job = json_string(object, "spec.model.trainJobRef.name", NULL),
        .start_file_path = json_string(object, "spec.model.file.volume.hostPath.path", NULL),
    };
    const cJSON *containers = json_at(object, "spec.template.spec.containers");
    out->image = json_string(cJSON_GetArrayItem(containers, 0), "image", NULL);
    const cJSON *finalizer = NULL;
    cJSON_ArrayForEach(finalizer, json_at(object, "metadata.finalizers"))
    {
        if (cJSON_IsString(finalizer) && strcmp(finalizer->valuestring, TRAINJOB_FINALIZER) == 0)
            out->has_finalizer = true;
    }
    out->phase = phase_of(out->status);
    out->start_time = time_at(out->status, "startTime");
    out->started = out->start_time != 0;
    out->trainer_image = json_string(out->status, "trainerImage", "");
    out->dataset_uid = json_string(out->status, "dataset.uid", "");
    out->start = json_at(out->status, "start");
}

/* ---- children ---- */

/* A label's name holds dots, so that it is no path. */
static const char *label(const cJSON *object, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(json_at(object, "metadata.labels"), name);
    return cJSON_IsString(value) ? value->valuestring : "";
}

static bool read_place(const cJSON *object, enum trainjob_role *role, uint32_t *shard)
{
    const char *text = label(object, TRAINJOB_LABEL_ROLE);
    *shard = 0;
    *role = ROLE_WORKER;
    if (strcmp(text, "worker") == 0)
        return true;
    if (strcmp(text, "ps") != 0)
        return false;
    *role = ROLE_PS;
    const char *number = label(object, TRAINJOB_LABEL_SHARD);
    char *end = NULL;
    unsigned long value = strtoul(number, &end, 10);
    if (end == number || *end != '\0' || value >= PLAN_SHARDS_MOST)
        return false;
    *shard = (uint32_t)value;
    return true;
}

static const cJSON *find_condition(const cJSON *object, const char *type)
{
    const cJSON *condition = NULL;
    cJSON_ArrayForEach(condition, json_at(object, "status.conditions"))
    {
        if (strcmp(json_string(condition, "type", ""), type) == 0)
            return condition;
    }
    return NULL;
}

static bool condition_is(const cJSON *object, const char *type, const char *status)
{
    return strcmp(json_string(find_condition(object, type), "status", ""), status) == 0;
}

/* Without a UID it could not be deleted for sure: it would be whatever has its name then. */
static bool has_uid(const cJSON *object)
{
    return json_string(object, "metadata.uid", "")[0] != '\0';
}

static bool belongs(const cJSON *object, const struct trainjob *job)
{
    const char *owner = kube_controller_uid(object);
    return owner != NULL && strcmp(owner, job->uid) == 0 && has_uid(object);
}

static void add_deployment(struct trainjob_children *out, const struct trainjob *job, const cJSON *object)
{
    struct trainjob_deployment deployment = {
        .name = json_string(object, "metadata.name", ""),
        .uid = json_string(object, "metadata.uid", ""),
        .replicas = json_int(object, "spec.replicas", 1),
        .deleting = json_at(object, "metadata.deletionTimestamp") != NULL,
        .failure = "",
    };
    if (out->deployment_count == TRAINJOB_DEPLOYMENTS_MOST || !belongs(object, job) ||
        !read_place(object, &deployment.role, &deployment.shard))
        return;
    if (condition_is(object, "ReplicaFailure", "True"))
        deployment.failure = json_string(find_condition(object, "ReplicaFailure"), "message", "");
    out->deployments[out->deployment_count++] = deployment;
}

/* A container counts its restarts; one that has ended and not started again has ended once more. */
static void read_end(struct trainjob_pod *pod, const cJSON *container)
{
    const cJSON *terminated = json_at(container, "state.terminated");
    pod->ends = (int32_t)small_number(container, "restartCount", 0, INT32_MAX - 1);
    if (terminated != NULL) {
        pod->ends++;
    } else {
        terminated = json_at(container, "lastState.terminated");
        if (terminated != NULL && json_at(container, "state.waiting") != NULL)
            pod->ends++;
    }
    pod->ended_at = time_at(terminated, "finishedAt");
    pod->exit_code = (int32_t)json_int(terminated, "exitCode", 0);
    pod->signal = (int32_t)json_int(terminated, "signal", 0);
    pod->end_reason = json_string(terminated, "reason", "");
    pod->end_message = json_string(terminated, "message", "");
}

static void add_pod(struct trainjob_children *out, const struct trainjob *job, const cJSON *object, const cJSON *events)
{
    struct trainjob_pod pod = {
        .name = json_string(object, "metadata.name", ""),
        .uid = json_string(object, "metadata.uid", ""),
        .node = json_string(object, "spec.nodeName", ""),
        .created = time_at(object, "metadata.creationTimestamp"),
        .deleting = json_at(object, "metadata.deletionTimestamp") != NULL,
        .ready = condition_is(object, "Ready", "True"),
        .unscheduled_reason = "",
        .unscheduled = "",
    };
    if (out->pod_count == TRAINJOB_PODS_MOST || strcmp(label(object, TRAINJOB_LABEL_UID), job->uid) != 0 ||
        !has_uid(object) || !read_place(object, &pod.role, &pod.shard))
        return;
    const char *phase = json_string(object, "status.phase", "");
    pod.over = strcmp(phase, "Failed") == 0 || strcmp(phase, "Succeeded") == 0;
    const cJSON *container = cJSON_GetArrayItem(json_at(object, "status.containerStatuses"), 0);
    read_end(&pod, container);
    if (pod.over && json_at(object, "status.reason") != NULL) { /* evicted and the like */
        pod.end_reason = json_string(object, "status.reason", "");
        pod.end_message = json_string(object, "status.message", "");
        pod.ends = pod.ends == 0 ? 1 : pod.ends;
    }
    pod.waiting_reason = json_string(container, "state.waiting.reason", "");
    pod.waiting_message = json_string(container, "state.waiting.message", "");
    if (condition_is(object, "PodScheduled", "False")) {
        const cJSON *condition = find_condition(object, "PodScheduled");
        pod.unscheduled_reason = json_string(condition, "reason", "");
        pod.unscheduled = json_string(condition, "message", "");
    }
    const cJSON *event = cJSON_GetObjectItemCaseSensitive(events, pod.uid);
    pod.event = cJSON_IsString(event) ? event->valuestring : "";
    out->pods[out->pod_count++] = pod;
}

static void find_part(struct trainjob_part *out, const struct trainjob *job, const cJSON *objects)
{
    const cJSON *object = NULL;
    cJSON_ArrayForEach(object, objects)
    {
        if (!belongs(object, job) || strcmp(json_string(object, "metadata.name", ""), job->name) != 0)
            continue;
        out->uid = json_string(object, "metadata.uid", "");
        out->deleting = json_at(object, "metadata.deletionTimestamp") != NULL;
    }
}

void trainjob_children_decode(struct trainjob_children *out, const struct trainjob *job, const cJSON *deployments,
                              const cJSON *pods, const cJSON *services, const cJSON *policies, const cJSON *events)
{
    out->deployment_count = 0;
    out->pod_count = 0;
    out->service = (struct trainjob_part){0};
    out->policy = (struct trainjob_part){0};
    const cJSON *object = NULL;
    cJSON_ArrayForEach(object, deployments) add_deployment(out, job, object);
    cJSON_ArrayForEach(object, pods) add_pod(out, job, object, events);
    find_part(&out->service, job, services);
    find_part(&out->policy, job, policies);
}

const struct trainjob_deployment *trainjob_find_deployment(const struct trainjob_children *children,
                                                           enum trainjob_role role, uint32_t shard)
{
    for (size_t i = 0; i < children->deployment_count; i++) {
        const struct trainjob_deployment *deployment = &children->deployments[i];
        if (deployment->role == role && deployment->shard == shard)
            return deployment;
    }
    return NULL;
}

const struct trainjob_pod *trainjob_shard_pod(const struct trainjob_children *children, uint32_t shard)
{
    const struct trainjob_pod *newest = NULL;
    for (size_t i = 0; i < children->pod_count; i++) {
        const struct trainjob_pod *pod = &children->pods[i];
        if (pod->role == ROLE_PS && pod->shard == shard && !pod->deleting && !pod->over &&
            (newest == NULL || pod->created > newest->created))
            newest = pod;
    }
    return newest;
}

bool trainjob_has_its_dataset(const struct trainjob_view *view)
{
    return view->dataset != NULL && strcmp(json_string(view->dataset, "metadata.uid", ""), view->job->dataset_uid) == 0;
}
