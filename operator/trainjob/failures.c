#include "trainjob/status.h"

#include "common/clock.h"
#include "trainjob/objects.h"

#include <inttypes.h>
#include <string.h>

enum { RECENT_SECONDS = 600, PODS_COUNTED_MOST = 200, LOG_TAIL_MOST = 4096, MESSAGE_MOST = 1024 };

int32_t trainjob_counted_ends(const cJSON *status, const char *pod_uid)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, json_at(status, "restarts.pods"))
    {
        if (strcmp(json_string(item, "uid", ""), pod_uid) == 0)
            return (int32_t)json_int(item, "ends", 0);
    }
    return 0;
}

/* ---- sentences ---- */

/* At most `most` bytes of `text` into `out`, without cutting a UTF-8 sequence. */
static void copy_text(char *out, size_t most, const char *text, size_t length)
{
    if (length >= most) {
        length = most - 1;
        while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80)
            length--;
    }
    memcpy(out, text, length);
    out[length] = '\0';
}

/* A termination message is the process' last sentence, or the tail of its log where it left none. */
static const char *last_line(const char *text, size_t *length)
{
    size_t end = strlen(text);
    while (end > 0 && strchr(" \t\r\n", text[end - 1]) != NULL)
        end--;
    size_t begin = end;
    while (begin > 0 && text[begin - 1] != '\n')
        begin--;
    *length = end - begin;
    return text + begin;
}

static bool has_several_lines(const char *text)
{
    size_t length = 0;
    return last_line(text, &length) != text;
}

/* " with exit code 137 (OOMKilled): …" */
static void how_it_ended(const struct trainjob_pod *pod, char *out, size_t size)
{
    char reason[128] = "";
    if (pod->end_reason[0] != '\0' && strcmp(pod->end_reason, "Error") != 0 &&
        strcmp(pod->end_reason, "Completed") != 0)
        snprintf(reason, sizeof reason, " (%.100s)", pod->end_reason);
    size_t length = 0;
    const char *text = last_line(pod->end_message, &length);
    char line[MESSAGE_MOST];
    copy_text(line, sizeof line, text, length);
    snprintf(out, size, "with exit code %" PRId32 "%s%s%s", pod->exit_code, reason, line[0] == '\0' ? "" : ": ", line);
}

/* "pod 'x' on node 'n' ended with exit code 1: …" */
static void end_sentence(const struct trainjob_pod *pod, char *out, size_t size)
{
    char how[MESSAGE_MOST + 256];
    how_it_ended(pod, how, sizeof how);
    snprintf(out, size, "pod '%s' on node '%s' ended %s", pod->name, pod->node, how);
}

/* ---- counting ---- */

static cJSON *failure_json(const struct trainjob_pod *pod, int64_t now)
{
    char time[RFC3339_SIZE];
    time_format_rfc3339(pod->ended_at == 0 ? now : pod->ended_at, time);
    size_t length = 0;
    const char *text = last_line(pod->end_message, &length);
    char line[MESSAGE_MOST];
    copy_text(line, sizeof line, text, length);

    bool whole = true;
    cleanup_json cJSON *json = cJSON_CreateObject();
    json_add_text(json, "time", time, &whole);
    json_add_text(json, "pod", pod->name, &whole);
    json_add_text(json, "node", pod->node, &whole);
    json_add_text(json, "container", "trainer", &whole);
    json_add_number(json, "exitCode", pod->exit_code, &whole);
    int32_t signal = pod->signal != 0 ? pod->signal : pod->exit_code > 128 ? pod->exit_code - 128 : 0;
    if (signal != 0)
        json_add_number(json, "signal", signal, &whole);
    json_add_text(json, "reason", pod->end_reason, &whole);
    json_add_text(json, "message", line, &whole);
    if (has_several_lines(pod->end_message)) {
        char tail[LOG_TAIL_MOST];
        copy_text(tail, sizeof tail, pod->end_message, strlen(pod->end_message));
        json_add_text(json, "logTail", tail, &whole);
    }
    return whole ? move(json) : NULL;
}

static void set_number(cJSON *status, const char *path, double value)
{
    status_put(status, path, cJSON_CreateNumber(value));
}

static void add_number(cJSON *status, const char *path, double value)
{
    set_number(status, path, json_number(status, path, 0) + value);
}

static uint64_t current_step(const struct trainjob_view *view)
{
    if (view->reports->has_progress)
        return view->reports->progress.step;
    return (uint64_t)json_int(view->job->status, "step", 0);
}

/* The list of counted pods: only those that still exist. */
static cJSON *counted_pods(const struct trainjob_view *view)
{
    bool whole = true;
    cleanup_json cJSON *list = cJSON_CreateArray();
    for (size_t i = 0, count = 0; i < view->children->pod_count && count < PODS_COUNTED_MOST; i++) {
        const struct trainjob_pod *pod = &view->children->pods[i];
        int32_t counted = trainjob_counted_ends(view->job->status, pod->uid);
        int32_t ends = pod->deleting || counted > pod->ends ? counted : pod->ends;
        if (ends == 0)
            continue;
        cJSON *item = json_add_object(list, NULL, &whole);
        json_add_text(item, "uid", pod->uid, &whole);
        json_add_number(item, "ends", ends, &whole);
        count++;
    }
    return whole ? move(list) : NULL;
}

/* Ends of a role since the last step of progress begin anew when there was progress. */
static void count_role(cJSON *status, const char *total, const char *since, bool progressed, int64_t ends)
{
    add_number(status, total, (double)ends);
    if (ends > 0)
        set_number(status, since, (progressed ? 0 : json_number(status, since, 0)) + (double)ends);
}

void trainjob_count_ends(const struct trainjob_view *view, cJSON *status)
{
    const struct trainjob_pod *newest = NULL;
    int64_t ends[2] = {0, 0};
    for (size_t i = 0; i < view->children->pod_count; i++) {
        const struct trainjob_pod *pod = &view->children->pods[i];
        int32_t counted = trainjob_counted_ends(view->job->status, pod->uid);
        if (pod->deleting || pod->ends <= counted)
            continue;
        ends[pod->role] += (int64_t)pod->ends - counted;
        if (newest == NULL || pod->ended_at > newest->ended_at)
            newest = pod;
    }
    uint64_t step = current_step(view);
    bool progressed = (double)step > json_number(status, "restarts.step", 0);
    count_role(status, "restarts.workers", "restarts.workersSinceProgress", progressed, ends[ROLE_WORKER]);
    count_role(status, "restarts.parameterServers", "restarts.parameterServersSinceProgress", progressed,
               ends[ROLE_PS]);
    status_put(status, "restarts.pods", counted_pods(view));
    if (newest == NULL)
        return;

    int64_t before = 0;
    bool recently = time_parse_rfc3339(json_string(status, "lastFailure.time", ""), &before) == 0 &&
                    view->now - before < RECENT_SECONDS;
    set_number(status, "restarts.recent",
               (recently ? json_number(status, "restarts.recent", 0) : 0) +
                   (double)(ends[ROLE_WORKER] + ends[ROLE_PS]));
    set_number(status, "restarts.step", (double)step);
    status_put(status, "lastFailure", failure_json(newest, view->now));
}

bool trainjob_is_beyond_limit(const struct trainjob_view *view, const cJSON *status, enum trainjob_role role)
{
    const char *path = role == ROLE_PS ? "restarts.parameterServersSinceProgress" : "restarts.workersSinceProgress";
    int64_t processes = role == ROLE_PS ? view->job->shards : view->job->replicas;
    int64_t limit = view->job->backoff_limit * (processes < 1 ? 1 : processes);
    return json_int(status, path, 0) > limit && (double)current_step(view) <= json_number(status, "restarts.step", 0);
}

/* ---- what keeps pods from running ---- */

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

static bool pod_problem(const struct trainjob_view *view, const struct trainjob_pod *pod, const char *before, char *out,
                        size_t size)
{
    static const char *const image[] = {"ErrImagePull",      "ImagePullBackOff",    "InvalidImageName",
                                        "ErrImageNeverPull", "RegistryUnavailable", NULL};
    static const char *const harmless[] = {"", "ContainerCreating", "PodInitializing", "CrashLoopBackOff", NULL};
    if (pod->deleting || pod->over)
        return false;
    if (pod->unscheduled[0] != '\0') {
        snprintf(out, size, "no node takes pod '%s': %s", pod->name, pod->unscheduled);
    } else if (is_one_of(pod->waiting_reason, image)) {
        /* Kubelet alternates between two reasons; the sentence that was there first stays. */
        char start[512];
        snprintf(start, sizeof start, "pod '%s' on node '%s' cannot get image '%s'", pod->name, pod->node,
                 view->job->trainer_image);
        const char *kept = strstr(before, start + 1); /* its first letter may be a capital one */
        if (kept != NULL)
            snprintf(out, size, "p%s", kept);
        else
            snprintf(out, size, "%s: %s: %s", start, pod->waiting_reason, pod->waiting_message);
    } else if (!is_one_of(pod->waiting_reason, harmless)) {
        snprintf(out, size, "pod '%s' on node '%s' cannot start: %s: %s", pod->name, pod->node, pod->waiting_reason,
                 pod->waiting_message);
    } else if (pod->ends > 0 && !pod->ready) {
        end_sentence(pod, out, size);
    } else if (pod->event[0] != '\0' && !pod->ready) {
        snprintf(out, size, "pod '%s' on node '%s' cannot start: %s", pod->name, pod->node, pod->event);
    } else {
        return false;
    }
    return true;
}

void trainjob_problem(const struct trainjob_view *view, const char *before, char *out, size_t size)
{
    const struct trainjob_children *children = view->children;
    out[0] = '\0';
    static const enum trainjob_role order[] = {ROLE_PS, ROLE_WORKER};
    for (size_t r = 0; r < 2; r++) {
        for (size_t i = 0; i < children->deployment_count; i++) {
            const struct trainjob_deployment *deployment = &children->deployments[i];
            if (deployment->role == order[r] && deployment->failure[0] != '\0') {
                snprintf(out, size, "Deployment '%s' cannot make its pods: %s", deployment->name, deployment->failure);
                return;
            }
        }
        for (size_t i = 0; i < children->pod_count; i++)
            if (children->pods[i].role == order[r] && pod_problem(view, &children->pods[i], before, out, size))
                return;
    }
}

/* ---- parameter servers ---- */

void trainjob_record_shards(const struct trainjob_view *view, cJSON *status)
{
    bool whole = true;
    cleanup_json cJSON *list = cJSON_CreateArray();
    for (uint32_t shard = 0; shard < view->job->shards; shard++) {
        const struct trainjob_pod *pod = trainjob_shard_pod(view->children, shard);
        if (pod == NULL)
            return; /* not all there: a later look writes them down */
        cJSON *item = json_add_object(list, NULL, &whole);
        json_add_number(item, "shard", shard, &whole);
        json_add_text(item, "uid", pod->uid, &whole);
        json_add_number(item, "ends", pod->ends, &whole);
    }
    status_put(status, "parameterServers.pods", whole ? move(list) : NULL);
}

static const struct trainjob_pod *find_pod(const struct trainjob_children *children, const char *uid)
{
    for (size_t i = 0; i < children->pod_count; i++)
        if (strcmp(children->pods[i].uid, uid) == 0)
            return &children->pods[i];
    return NULL;
}

bool trainjob_ps_is_lost(const struct trainjob_view *view, char *sentence, size_t size)
{
    static const char mend[] = "the model was in its memory; make the job again to train anew";
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, json_at(view->job->status, "parameterServers.pods"))
    {
        int shard = (int)json_int(item, "shard", 0);
        const struct trainjob_pod *pod = find_pod(view->children, json_string(item, "uid", ""));
        if (pod == NULL) {
            char name[OBJECT_NAME_SIZE];
            object_deployment_name(view->job, ROLE_PS, (uint32_t)shard, name);
            snprintf(sentence, size, "parameter server %d is lost: the pod of '%s' that held it is gone; %s", shard,
                     name, mend);
            return true;
        }
        char how[MESSAGE_MOST + 256];
        if (pod->over || pod->ends > json_int(item, "ends", 0)) {
            how_it_ended(pod, how, sizeof how);
            snprintf(sentence, size, "parameter server %d is lost: pod '%s' on node '%s' ended %s; %s", shard,
                     pod->name, pod->node, how, mend);
            return true;
        }
        if (pod->deleting) {
            snprintf(sentence, size, "parameter server %d is lost: pod '%s' on node '%s' is being deleted; %s", shard,
                     pod->name, pod->node, mend);
            return true;
        }
    }
    const char *boot = json_string(view->job->status, "coordinator.boot", "");
    if (view->reports->connected && boot[0] != '\0' && strcmp(boot, view->reports->boot) != 0) {
        snprintf(sentence, size, "parameter server 0 is lost: its process in pod '%s' was started anew; %s",
                 view->reports->pod, mend);
        return true;
    }
    return false;
}
