/* Pods that do not start, and say why only in Events. */

#include "trainjob/look.h"

#include "common/buffer.h"
#include "trainjob/objects.h"

#include <string.h>

enum {
    STUCK_SECONDS = 3,   /* a container that is still being created then has something to tell */
    EVENTS_SECONDS = 5,  /* between looks at such a pod's events */
    STUCK_PODS_MOST = 3, /* looked at: one sentence is shown */
};

static bool is_stuck(const struct trainjob_pod *pod, int64_t now)
{
    return !pod->deleting && !pod->over && !pod->ready && pod->node[0] != '\0' && now - pod->created >= STUCK_SECONDS &&
           strcmp(pod->waiting_reason, "ContainerCreating") == 0;
}

struct event_read {
    struct look *look;
    char pod_uid[64];
};

/* An Event's time: of the newest of its kind, in one of three places. */
static const char *event_time(const cJSON *event)
{
    const char *time = json_string(event, "series.lastObservedTime", NULL);
    if (time == NULL)
        time = json_string(event, "lastTimestamp", NULL);
    return time != NULL ? time : json_string(event, "eventTime", "");
}

static const char *newest_warning(const cJSON *list)
{
    const char *text = "";
    const char *newest = "";
    const cJSON *event = NULL;
    cJSON_ArrayForEach(event, json_at(list, "items"))
    {
        const char *time = event_time(event); /* RFC 3339 in UTC: ordered as text */
        if (strcmp(json_string(event, "type", ""), "Warning") != 0 || strcmp(time, newest) < 0)
            continue;
        newest = time;
        text = json_string(event, "message", "");
    }
    return text;
}

/* The one child that is not watched, because Secrets are not read: its loss shows in the pods that want it. */
static void notice_lost_secret(struct job_memory *memory, const char *text)
{
    struct trainjob job = {.name = strchr(memory->key, '/') + 1, .uid = memory->uid};
    char name[OBJECT_NAME_SIZE];
    char sign[OBJECT_NAME_SIZE + 32];
    object_secret_name(&job, name);
    snprintf(sign, sizeof sign, "secret \"%s\" not found", name);
    if (strstr(text, sign) == NULL)
        return;
    job_memory_set_secret_made(memory, false);
    memory->secret_lost = true;
    memory->secret_uncertain = true; /* the Event may be older than a Secret that is there again */
}

static void on_events(void *arg, struct kube_response *response)
{
    cleanup_free struct event_read *read = arg;
    struct look *look = read->look;
    if (look_was_cancelled(look, response))
        return;
    struct job_memory *memory = look_memory(look);
    const char *text = response->error == NULL ? newest_warning(response->object) : "";
    if (memory != NULL && text[0] != '\0') {
        if (memory->events == NULL)
            memory->events = cJSON_CreateObject();
        const cJSON *old = cJSON_GetObjectItemCaseSensitive(memory->events, read->pod_uid);
        if (strcmp(cJSON_IsString(old) ? old->valuestring : "", text) != 0)
            look_again(look, 1);
        cJSON_DeleteItemFromObjectCaseSensitive(memory->events, read->pod_uid);
        cJSON_AddStringToObject(memory->events, read->pod_uid, text);
        notice_lost_secret(memory, text);
    }
    if (--look->outstanding == 0)
        look_end(look);
}

static int read_events(struct look *look, const struct trainjob_pod *pod)
{
    char selector[160];
    snprintf(selector, sizeof selector, "involvedObject.uid=%s,type=Warning", pod->uid);
    cleanup_buffer struct buffer query;
    buffer_init(&query, 1024);
    struct event_read *read = malloc(sizeof *read);
    if (read == NULL)
        return -1;
    *read = (struct event_read){.look = look};
    snprintf(read->pod_uid, sizeof read->pod_uid, "%s", pod->uid);
    if (kube_query_add(&query, "fieldSelector", selector, NULL) == 0 &&
        kube_query_add(&query, "limit", "50", NULL) == 0) {
        struct kube_request request = {
            .method = KUBE_GET,
            .resource = &event_resource,
            .namespace = look->namespace,
            .query = buffer_text(&query),
        };
        if (kube_request(look->controller->options.client, &request, on_events, read, NULL, NULL) == 0)
            return 0;
    }
    free(read);
    return -1;
}

/* Whether a pod's events are still wanted is not worth remembering: all go when nothing is stuck. */
void look_at_stuck_pods(struct look *look, const struct observation *observed, struct job_memory *memory)
{
    const struct trainjob_children *children = &observed->children;
    struct instant now = loop_now(look->controller->options.loop);
    bool may_read =
        memory->events_read.nanoseconds == 0 || instant_since(now, memory->events_read) >= EVENTS_SECONDS * SECONDS;
    size_t stuck = 0;
    bool young = false;
    for (size_t i = 0; i < children->pod_count; i++) {
        const struct trainjob_pod *pod = &children->pods[i];
        if (is_stuck(pod, observed->view.now)) {
            if (may_read && stuck < STUCK_PODS_MOST && read_events(look, pod) == 0)
                look->outstanding++;
            stuck++;
        } else {
            young = young || is_stuck(pod, pod->created + STUCK_SECONDS);
        }
    }
    if (stuck > 0 && may_read)
        memory->events_read = now;
    if (stuck > 0)
        look_again(look, EVENTS_SECONDS * SECONDS);
    else if (young)
        look_again(look, STUCK_SECONDS * SECONDS);
    if (stuck == 0 && memory->events != NULL) {
        cJSON_Delete(memory->events);
        memory->events = NULL;
    }
}
