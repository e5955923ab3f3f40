#include "kube/events.h"
#include "common/crypto.h"
#include "kube/apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TABLE = 1024, NOTE_MOST = 1024, INSTANCE_MOST = 128, PENDING_MOST = 64 };

static const int64_t memory = 600 * SECONDS;        /* how long a repetition counts as one */
static const int64_t patch_interval = 30 * SECONDS; /* a count is written at most so often */

static const struct kube_resource event_resource = {
    .group = "events.k8s.io", .version = "v1", .plural = "events", .kind = "Event", .namespaced = true};

/* One Event that was written and may be repeated. */
struct said {
    uint64_t hash; /* of everything that makes it the same; 0: free */
    char namespace[KUBE_NAMESPACE_SIZE];
    char name[KUBE_NAME_SIZE];
    struct instant last, written;
    int64_t last_wall;
    unsigned count, count_written;
};

struct kube_events {
    struct loop *loop;
    struct kube_client *client;
    const struct log *log;
    char instance[INSTANCE_MOST + 1];
    struct said *table;
    struct loop_timer flush;
    unsigned pending;
    /* Requests outlive this: their answers find it through here, and it may be gone. */
    struct lifeline *lifeline;
};

struct lifeline {
    struct kube_events *events; /* NULL once they are freed */
    unsigned holders;
};

static void let_go(struct lifeline *lifeline)
{
    if (--lifeline->holders == 0)
        free(lifeline);
}

static void on_written(void *arg, struct kube_response *response)
{
    struct lifeline *lifeline = arg;
    struct kube_events *events = lifeline->events;
    if (events != NULL) {
        events->pending--;
        if (response->error != NULL && !response->cancelled)
            log_warn(events->log, "an Event could not be written", "error", error_message(response->error), NULL);
    }
    let_go(lifeline);
}

static void sent(struct kube_events *events, int result, const struct error *err)
{
    if (result < 0) {
        log_warn(events->log, "an Event could not be written", "error", error_message(err), NULL);
        return;
    }
    events->pending++;
    events->lifeline->holders++;
}

/* FNV-1a over the parts, each with its end, so that ("ab", "c") is not ("a", "bc"). */
static uint64_t hash_parts(const char *const *parts, size_t count)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < count; i++)
        for (const char *c = parts[i];; c++) {
            hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
            if (*c == '\0')
                break;
        }
    return hash == 0 ? 1 : hash;
}

/* ---- repetitions ------------------------------------------------------------------------------------------------ */

static void write_count(struct kube_events *events, struct said *said)
{
    if (events->pending >= PENDING_MOST)
        return;
    char seconds[RFC3339_SIZE];
    char micro[40];
    time_format_rfc3339(said->last_wall, seconds);
    snprintf(micro, sizeof micro, "%.19s.000000Z", seconds);
    cleanup_json cJSON *patch = cJSON_CreateObject();
    cJSON *series = cJSON_AddObjectToObject(patch, "series");
    cJSON_AddNumberToObject(series, "count", said->count);
    cJSON_AddStringToObject(series, "lastObservedTime", micro);
    said->count_written = said->count;
    said->written = clock_now();
    struct error err = {0};
    sent(events,
         kube_merge_patch(events->client, &event_resource, said->namespace, said->name, NULL, patch,
                          (struct kube_precondition){0}, on_written, events->lifeline, &err),
         &err);
}

static void on_flush(void *arg)
{
    struct kube_events *events = arg;
    struct instant now = clock_now();
    bool more = false;
    for (size_t i = 0; i < TABLE; i++) {
        struct said *said = &events->table[i];
        if (said->hash == 0)
            continue;
        if (said->count > said->count_written) {
            if (instant_since(now, said->written) >= patch_interval)
                write_count(events, said);
            more = more || said->count > said->count_written;
        } else if (instant_since(now, said->last) > memory) {
            said->hash = 0;
        }
    }
    if (more)
        loop_timer_set(&events->flush, patch_interval);
}

static void say_again(struct kube_events *events, struct said *said, struct instant now)
{
    said->last = now;
    said->last_wall = clock_wall_seconds();
    said->count++;
    if (instant_since(now, said->written) >= patch_interval)
        write_count(events, said);
    else if (!events->flush.armed)
        loop_timer_set(&events->flush, patch_interval);
}

/* The entry with this hash, or else the one to overwrite: a free one, or the one that was silent longest. */
static struct said *look_up(struct kube_events *events, uint64_t hash, struct instant now)
{
    struct said *best = &events->table[0];
    for (size_t i = 0; i < TABLE; i++) {
        struct said *said = &events->table[i];
        if (said->hash != 0 && instant_since(now, said->last) > memory)
            said->hash = 0;
        if (said->hash == hash)
            return said;
        if (best->hash != 0 && (said->hash == 0 || said->last.nanoseconds < best->last.nanoseconds))
            best = said;
    }
    best->hash = 0;
    return best;
}

/* ---- a new one -------------------------------------------------------------------------------------------------- */

/* At most NOTE_MOST bytes, never cutting a character in two. */
static void cut_note(char *out, const char *note)
{
    size_t length = strnlen(note, NOTE_MOST);
    if (note[length] != '\0')
        while (length > 0 && ((unsigned char)note[length] & 0xc0) == 0x80)
            length--;
    memcpy(out, note, length);
    out[length] = '\0';
}

static cJSON *build(const struct kube_events *events, const struct said *said, const cJSON *regarding,
                    enum kube_event_type type, const char *reason, const char *action, const char *note)
{
    char now[MICRO_TIME_SIZE];
    clock_wall_micro_time(now);
    cJSON *event = cJSON_CreateObject();
    cJSON *metadata = cJSON_AddObjectToObject(event, "metadata");
    cJSON_AddStringToObject(metadata, "name", said->name);
    cJSON_AddStringToObject(metadata, "namespace", said->namespace);
    cJSON_AddStringToObject(event, "eventTime", now);
    cJSON_AddStringToObject(event, "type", type == KUBE_EVENT_WARNING ? "Warning" : "Normal");
    cJSON_AddStringToObject(event, "reason", reason);
    cJSON_AddStringToObject(event, "action", action);
    cJSON_AddStringToObject(event, "note", note);
    cJSON_AddStringToObject(event, "reportingController", "thole.dev/thole-operator");
    cJSON_AddStringToObject(event, "reportingInstance", events->instance);
    cJSON *reference = cJSON_AddObjectToObject(event, "regarding");
    static const char *const members[][2] = {
        {"apiVersion", "apiVersion"}, {"kind", "kind"},        {"namespace", "metadata.namespace"},
        {"name", "metadata.name"},    {"uid", "metadata.uid"}, {"resourceVersion", "metadata.resourceVersion"}};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const char *value = json_string(regarding, members[i][1], NULL);
        if (value != NULL)
            cJSON_AddStringToObject(reference, members[i][0], value);
    }
    return event;
}

static void say(struct kube_events *events, struct said *said, const cJSON *regarding, enum kube_event_type type,
                const char *reason, const char *action, const char *note)
{
    snprintf(said->namespace, sizeof said->namespace, "%s", json_string(regarding, "metadata.namespace", "default"));
    snprintf(said->name, sizeof said->name, "%.230s.%016llx", json_string(regarding, "metadata.name", "thole"),
             (unsigned long long)random_u64());
    said->count = said->count_written = 1;
    said->last_wall = clock_wall_seconds();
    cleanup_json cJSON *event = build(events, said, regarding, type, reason, action, note);
    struct error err = {0};
    sent(events, kube_create(events->client, &event_resource, event, on_written, events->lifeline, &err), &err);
}

void kube_event(struct kube_events *events, const cJSON *regarding, enum kube_event_type type, const char *reason,
                const char *action, const char *note)
{
    char short_note[NOTE_MOST + 1];
    cut_note(short_note, note);
    const char *parts[] = {json_string(regarding, "metadata.uid", ""), json_string(regarding, "kind", ""), reason,
                           action, short_note};
    uint64_t hash = hash_parts(parts, sizeof parts / sizeof parts[0]);
    struct instant now = clock_now();
    struct said *said = look_up(events, hash, now);
    if (said->hash == hash) {
        say_again(events, said, now);
        return;
    }
    if (events->pending >= PENDING_MOST) {
        log_warn(events->log, "too many Events at once: one is dropped", "reason", reason, "note", short_note, NULL);
        return;
    }
    said->hash = hash;
    said->last = now;
    said->written = now;
    say(events, said, regarding, type, reason, action, short_note);
}

struct kube_events *kube_events_new(struct loop *loop, struct kube_client *client, const struct log *log,
                                    const char *instance, struct error *err)
{
    struct kube_events *events = calloc(1, sizeof *events);
    struct said *table = calloc(TABLE, sizeof *table);
    struct lifeline *lifeline = calloc(1, sizeof *lifeline);
    if (events == NULL || table == NULL || lifeline == NULL) {
        free(events);
        free(table);
        free(lifeline);
        error_set(err, "out of memory for Events");
        return NULL;
    }
    events->loop = loop;
    events->client = client;
    events->log = log;
    events->table = table;
    events->lifeline = lifeline;
    *lifeline = (struct lifeline){.events = events, .holders = 1};
    snprintf(events->instance, sizeof events->instance, "%s", *instance == '\0' ? "thole-operator" : instance);
    loop_timer_init(&events->flush, loop, on_flush, events);
    return events;
}

void kube_events_free(struct kube_events *events)
{
    if (events == NULL)
        return;
    loop_timer_cancel(&events->flush);
    events->lifeline->events = NULL;
    let_go(events->lifeline);
    free(events->table);
    free(events);
}
