#include "kube/events.h"
#include "common/crypto.h"
#include "kube/apply.h"
#include "kube/said.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    NOTE_MOST = 1024,
    INSTANCE_MOST = 128,
    UNDER_WAY_MOST = 16,  /* requests at once: Events never fill the connection that reconciles need */
    WAITING_MOST = 1024,  /* Events behind them */
    QUIET_NAMESPACES = 16 /* remembered as being deleted */
};

static const int64_t quiet_time = 60 * SECONDS;
static const int64_t warning_interval = 60 * SECONDS;

static const struct kube_resource event_resource = {
    .group = "events.k8s.io", .version = "v1", .plural = "events", .kind = "Event", .namespaced = true};

/* A new Event that waits for its request. */
struct waiting {
    struct waiting *next;
    cJSON *event;
};

/* Namespaces on their way out take no more objects; that is no news for each Event. */
struct quiet {
    char namespace[KUBE_NAMESPACE_SIZE];
    struct instant until;
};

struct kube_events {
    struct loop *loop;
    struct kube_client *client;
    const struct log *log;
    char instance[INSTANCE_MOST + 1];
    struct said_table *said;
    struct loop_timer flush;
    struct waiting *first, **last;
    unsigned under_way;
    struct quiet quiet[QUIET_NAMESPACES];
    unsigned next_quiet;
    struct instant warned;
    struct kube_events_metrics metrics;
    /* Requests outlive this: their answers find it through here, and it may be gone. */
    struct lifeline *lifeline;
};

struct lifeline {
    struct kube_events *events; /* NULL once they are freed */
    unsigned holders;
};

/* A request under way: which Event it is about. */
struct sending {
    struct lifeline *lifeline;
    char namespace[KUBE_NAMESPACE_SIZE], name[KUBE_NAME_SIZE];
};

static void let_go(struct lifeline *lifeline)
{
    if (--lifeline->holders == 0)
        free(lifeline);
}

/* At most one line a minute: whatever hinders one Event hinders many. */
static void dropped(struct kube_events *events, const char *why)
{
    struct instant now = clock_now();
    events->metrics.dropped++;
    if (events->warned.nanoseconds != 0 && instant_since(now, events->warned) < warning_interval)
        return;
    events->warned = now;
    char count[24];
    snprintf(count, sizeof count, "%llu", (unsigned long long)events->metrics.dropped);
    log_warn(events->log, "an Event cannot be written; more of such within a minute are not logged", "error", why,
             "droppedSoFar", count, NULL);
}

/* ---- namespaces that are going away ---- */

static bool is_quiet(const struct kube_events *events, const char *namespace, struct instant now)
{
    for (size_t i = 0; i < QUIET_NAMESPACES; i++)
        if (instant_since(events->quiet[i].until, now) > 0 && strcmp(events->quiet[i].namespace, namespace) == 0)
            return true;
    return false;
}

static void be_quiet(struct kube_events *events, const char *namespace)
{
    struct instant now = clock_now();
    if (is_quiet(events, namespace, now))
        return;
    struct quiet *quiet = &events->quiet[events->next_quiet++ % QUIET_NAMESPACES];
    snprintf(quiet->namespace, sizeof quiet->namespace, "%s", namespace);
    quiet->until.nanoseconds = now.nanoseconds + quiet_time;
    log_info(events->log, "a namespace is being deleted: nothing is told of its objects any more", "namespace",
             namespace, NULL);
}

/* ---- requests ---- */

static void send_waiting(struct kube_events *events);

static void on_written(void *arg, struct kube_response *response)
{
    cleanup_free struct sending *sending = arg;
    struct kube_events *events = sending->lifeline->events;
    if (events != NULL) {
        events->under_way--;
        if (response->error != NULL && !response->cancelled) {
            said_forget(events->said, sending->namespace, sending->name);
            if (kube_namespace_ends(response))
                be_quiet(events, sending->namespace);
            else if (response->status != 404) /* 404: it has expired; should it be said again, it is a new one */
                dropped(events, error_message(response->error));
        }
        if (!response->cancelled)
            send_waiting(events);
    }
    let_go(sending->lifeline);
}

static struct sending *sending_new(const struct kube_events *events, const char *namespace, const char *name)
{
    struct sending *sending = calloc(1, sizeof *sending);
    if (sending == NULL)
        return NULL;
    sending->lifeline = events->lifeline;
    snprintf(sending->namespace, sizeof sending->namespace, "%s", namespace);
    snprintf(sending->name, sizeof sending->name, "%s", name);
    return sending;
}

/* `result` is what the request's function returned; `sending` is taken over. */
static void sent(struct kube_events *events, struct sending *sending, int result, const struct error *err)
{
    if (result < 0) {
        said_forget(events->said, sending->namespace, sending->name);
        free(sending);
        dropped(events, error_message(err));
        return;
    }
    events->under_way++;
    events->lifeline->holders++;
}

static void create(struct kube_events *events, const cJSON *event)
{
    struct error err = {0};
    struct sending *sending =
        sending_new(events, json_string(event, "metadata.namespace", ""), json_string(event, "metadata.name", ""));
    if (sending == NULL)
        return;
    events->metrics.written++;
    sent(events, sending, kube_create(events->client, &event_resource, event, on_written, sending, &err), &err);
}

static void send_waiting(struct kube_events *events)
{
    while (events->first != NULL && events->under_way < UNDER_WAY_MOST) {
        struct waiting *waiting = events->first;
        events->first = waiting->next;
        if (events->first == NULL)
            events->last = &events->first;
        events->metrics.waiting--;
        if (!is_quiet(events, json_string(waiting->event, "metadata.namespace", ""), clock_now()))
            create(events, waiting->event);
        cJSON_Delete(waiting->event);
        free(waiting);
    }
}

/* `event` is taken over. */
static void enqueue(struct kube_events *events, cJSON *event)
{
    struct waiting *waiting = events->metrics.waiting >= WAITING_MOST ? NULL : calloc(1, sizeof *waiting);
    if (waiting == NULL || event == NULL) {
        said_forget(events->said, json_string(event, "metadata.namespace", ""),
                    json_string(event, "metadata.name", ""));
        cJSON_Delete(event);
        free(waiting);
        dropped(events, "too many at once");
        return;
    }
    waiting->event = event;
    *events->last = waiting;
    events->last = &waiting->next;
    events->metrics.waiting++;
    send_waiting(events);
}

/* ---- repetitions ---- */

static void write_count(struct kube_events *events, const struct said *said)
{
    char seconds[RFC3339_SIZE];
    char micro[40];
    time_format_rfc3339(said->last_wall, seconds);
    snprintf(micro, sizeof micro, "%.19s.000000Z", seconds);
    cleanup_json cJSON *patch = cJSON_CreateObject();
    cJSON *series = cJSON_AddObjectToObject(patch, "series");
    cJSON_AddNumberToObject(series, "count", said->count);
    cJSON_AddStringToObject(series, "lastObservedTime", micro);
    struct error err = {0};
    struct sending *sending = sending_new(events, said->namespace, said->name);
    if (sending == NULL)
        return;
    sent(events, sending,
         kube_merge_patch(events->client, &event_resource, said->namespace, said->name, NULL, patch,
                          (struct kube_precondition){0}, on_written, sending, &err),
         &err);
}

static void flush(void *arg)
{
    struct kube_events *events = arg;
    struct instant now = clock_now();
    struct instant next = {0};
    const struct said *said = NULL;
    while (events->under_way < UNDER_WAY_MOST && (said = said_due(events->said, now, &next)) != NULL)
        write_count(events, said);
    if (events->under_way >= UNDER_WAY_MOST)
        loop_timer_set(&events->flush, SECONDS);
    else if (next.nanoseconds != 0)
        loop_timer_set_at(&events->flush, next);
}

/* ---- saying ---- */

/* Both, at most NOTE_MOST bytes together, never cutting a character in two. */
static void cut_note(char *out, const char *prefix, const char *note)
{
    size_t begin = strlen(prefix);
    memcpy(out, prefix, begin);
    size_t length = strnlen(note, NOTE_MOST - begin);
    if (note[length] != '\0')
        while (length > 0 && ((unsigned char)note[length] & 0xc0) == 0x80)
            length--;
    memcpy(out + begin, note, length);
    out[begin + length] = '\0';
}

static cJSON *build(const struct kube_events *events, const struct said *said, const cJSON *regarding,
                    const struct said_identity *identity)
{
    char now[MICRO_TIME_SIZE];
    char combined[NOTE_MOST + 1];
    clock_wall_micro_time(now);
    cut_note(combined, said->combined ? "(combined from similar events): " : "", identity->note);
    cJSON *event = cJSON_CreateObject();
    cJSON *metadata = cJSON_AddObjectToObject(event, "metadata");
    cJSON_AddStringToObject(metadata, "name", said->name);
    cJSON_AddStringToObject(metadata, "namespace", said->namespace);
    cJSON_AddStringToObject(event, "eventTime", now);
    cJSON_AddStringToObject(event, "type", identity->type);
    cJSON_AddStringToObject(event, "reason", identity->reason);
    cJSON_AddStringToObject(event, "action", identity->action);
    cJSON_AddStringToObject(event, "note", combined);
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

void kube_event(struct kube_events *events, const cJSON *regarding, enum kube_event_type type, const char *reason,
                const char *action, const char *note)
{
    char short_note[NOTE_MOST + 1];
    cut_note(short_note, "", note);
    const struct said_identity identity = {
        .namespace = json_string(regarding, "metadata.namespace", "default"),
        .object = json_string(regarding, "metadata.name", "thole"),
        .uid = json_string(regarding, "metadata.uid", ""),
        .kind = json_string(regarding, "kind", ""),
        .type = type == KUBE_EVENT_WARNING ? "Warning" : "Normal",
        .reason = reason,
        .action = action,
        .note = short_note,
    };
    struct instant now = clock_now();
    if (is_quiet(events, identity.namespace, now))
        return;
    bool is_new = false;
    const struct said *said = said_this(events->said, &identity, now, clock_wall_seconds(), random_u64(), &is_new);
    if (said == NULL) {
        dropped(events, "out of memory");
    } else if (is_new) {
        enqueue(events, build(events, said, regarding, &identity));
    } else {
        events->metrics.counted++;
        if (!events->flush.armed)
            loop_timer_set(&events->flush, 0);
    }
}

void kube_events_metrics(const struct kube_events *events, struct kube_events_metrics *out)
{
    *out = events->metrics;
    out->remembered = said_count(events->said);
}

struct kube_events *kube_events_new(struct loop *loop, struct kube_client *client, const struct log *log,
                                    const char *instance, struct error *err)
{
    struct kube_events *events = calloc(1, sizeof *events);
    struct said_table *said = said_new(err);
    struct lifeline *lifeline = calloc(1, sizeof *lifeline);
    if (events == NULL || said == NULL || lifeline == NULL) {
        free(events);
        said_free(said);
        free(lifeline);
        error_set(err, "out of memory for Events");
        return NULL;
    }
    events->loop = loop;
    events->client = client;
    events->log = log;
    events->said = said;
    events->last = &events->first;
    events->lifeline = lifeline;
    *lifeline = (struct lifeline){.events = events, .holders = 1};
    snprintf(events->instance, sizeof events->instance, "%s", *instance == '\0' ? "thole-operator" : instance);
    loop_timer_init(&events->flush, loop, flush, events);
    return events;
}

void kube_events_free(struct kube_events *events)
{
    if (events == NULL)
        return;
    loop_timer_cancel(&events->flush);
    while (events->first != NULL) {
        struct waiting *next = events->first->next;
        cJSON_Delete(events->first->event);
        free(events->first);
        events->first = next;
    }
    events->lifeline->events = NULL;
    let_go(events->lifeline);
    said_free(events->said);
    free(events);
}
