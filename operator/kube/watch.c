#include "kube/watch.h"
#include "common/crypto.h"
#include "kube/decoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OBJECT_MOST = 4 * 1024 * 1024, QUERY_MOST = 16 * 1024, ENDS_MOST = 3 };

static const int64_t first_backoff = 100 * MILLISECONDS;
static const int64_t longest_backoff = 10 * SECONDS;
static const int64_t shortest_watch = 1 * SECONDS; /* one that ends sooner is not begun again at once: no busy loop */
/* The API server's first bookmark comes after two minutes, and then one a minute, also where nothing happens. */
static const int64_t longest_silence = 200 * SECONDS;
static const int64_t list_silence = 60 * SECONDS;
static const int64_t list_timeout = 600 * SECONDS;
static const int64_t longest_retry_after = 60 * SECONDS;
static const int64_t overtime = 30 * SECONDS; /* beyond the time-out that the server was asked to keep */

/* What is asked of the server at the moment. A streaming list that has ended goes on as a watch without a new
 * request. */
enum phase { PHASE_STREAMING_LIST, PHASE_PAGED_LIST, PHASE_WATCH };

struct kube_watch {
    struct loop *loop;
    struct kube_client *client;
    const struct log *log;
    const struct kube_resource *resource;
    char *namespace, *label_selector, *field_selector;
    size_t page_size;
    int64_t first_backoff, silence;
    kube_watch_handler *handler;
    void *arg;

    enum phase phase;
    bool no_streaming_list;
    unsigned unfinished_lists; /* streaming lists in a row that ended without being complete */
    bool listing;              /* LISTING was told, LISTED not yet */
    char *resource_version;    /* to watch from */
    char *continue_token;      /* of a paged list; NULL at its beginning */
    bool whole_list;           /* the next list is not to come in pages */

    struct kube_call *call;
    struct kube_decoder decoder;
    struct loop_timer timer; /* armed between requests */
    struct instant began;    /* the request, or where its streaming list was complete */
    bool received;           /* something good came in this request */
    bool expired;            /* this request's version is too old: list again */
    int64_t retry_after;     /* what the server asked for inside the stream */
    unsigned failures;       /* since a watch last held */
    bool synced;
    char last_error[1000];
    struct kube_watch_counters counters;

    unsigned calling; /* the handler is running */
    bool stopped;     /* inside it */
};

static void begin(void *arg);

static int set_text(char **out, const char *text, struct error *err)
{
    char *copy = text == NULL ? NULL : strdup(text);
    if (text != NULL && copy == NULL)
        return error_set(err, "out of memory for a watch");
    free(*out);
    *out = copy;
    return 0;
}

static void release(struct kube_watch *watch)
{
    loop_timer_cancel(&watch->timer);
    if (watch->call != NULL)
        kube_call_cancel(watch->call);
    watch->call = NULL;
    if (watch->calling > 0) {
        watch->stopped = true;
        return;
    }
    kube_decoder_free(&watch->decoder);
    free(watch->namespace);
    free(watch->label_selector);
    free(watch->field_selector);
    free(watch->resource_version);
    free(watch->continue_token);
    free(watch);
}

/* -1 where the handler stopped the watch: nothing of it may be touched but by leave(). */
static int tell(struct kube_watch *watch, enum kube_watch_event_type type, cJSON *object)
{
    watch->handler(watch->arg, type, object);
    return watch->stopped ? -1 : 0;
}

static void enter(struct kube_watch *watch)
{
    watch->calling++;
}

static void leave(struct kube_watch *watch)
{
    if (--watch->calling == 0 && watch->stopped)
        release(watch);
}

/* ---- what to do next -------------------------------------------------------------------------------------------- */

static void schedule(struct kube_watch *watch, int64_t delay)
{
    loop_timer_set(&watch->timer, delay);
}

static void list_again(struct kube_watch *watch)
{
    watch->phase = watch->no_streaming_list ? PHASE_PAGED_LIST : PHASE_STREAMING_LIST;
    free(watch->continue_token);
    watch->continue_token = NULL;
}

/* Doubles with every failure. */
static int64_t backoff(const struct kube_watch *watch)
{
    int64_t delay = watch->first_backoff << (watch->failures < 16 ? watch->failures : 16);
    return delay < longest_backoff ? delay : longest_backoff;
}

/* Goes on after a pause that is drawn between the half and the whole of what is due. */
static void retry_later(struct kube_watch *watch, int64_t least)
{
    int64_t delay = backoff(watch);
    watch->failures++;
    schedule(watch, delay / 2 + (int64_t)(random_u64() % (uint64_t)(delay / 2)) + least);
}

/* At the end of a request: a watch that held for longer than the pause that is due now makes the failures before it
 * forgotten. So whatever goes wrong, however fast, most of the time nothing is asked; and the time that lists take
 * counts as none. */
static void forget_failures(struct kube_watch *watch)
{
    if (watch->listing || watch->phase != PHASE_WATCH)
        return;
    int64_t due = backoff(watch);
    if (instant_since(clock_now(), watch->began) >= (due > shortest_watch ? due : shortest_watch))
        watch->failures = 0;
}

static void fail(struct kube_watch *watch, const char *message, int64_t least)
{
    watch->counters.failures++;
    /* Said once, not at every try. */
    if (strcmp(watch->last_error, message) != 0)
        log_warn(watch->log, "watch is interrupted and will be tried again", "resource", watch->resource->plural,
                 "error", message, NULL);
    snprintf(watch->last_error, sizeof watch->last_error, "%s", message);
    retry_later(watch, least);
}

static void succeed(struct kube_watch *watch)
{
    watch->received = true;
    if (watch->last_error[0] == '\0')
        return;
    watch->last_error[0] = '\0';
    log_info(watch->log, "watch works again", "resource", watch->resource->plural, NULL);
}

/* ---- objects ---------------------------------------------------------------------------------------------------- */

static int remember_version(struct kube_watch *watch, const cJSON *object, struct error *err)
{
    const char *version = json_string(object, "metadata.resourceVersion", "");
    if (*version == '\0')
        return error_set(err, "the API server sent %s without a resourceVersion", watch->resource->plural);
    return set_text(&watch->resource_version, version, err);
}

static int begin_listing(struct kube_watch *watch, struct error *err)
{
    watch->listing = true;
    watch->counters.lists++;
    return tell(watch, KUBE_WATCH_LISTING, NULL) < 0 ? error_set(err, "stopped") : 0;
}

static int end_listing(struct kube_watch *watch, struct error *err)
{
    watch->listing = false;
    watch->synced = true;
    watch->unfinished_lists = 0;
    watch->whole_list = false;
    watch->phase = PHASE_WATCH;
    watch->began = clock_now();
    return tell(watch, KUBE_WATCH_LISTED, NULL) < 0 ? error_set(err, "stopped") : 0;
}

static int deliver(struct kube_watch *watch, enum kube_watch_event_type type, cJSON *object, struct error *err)
{
    watch->counters.events++;
    return tell(watch, type, object) < 0 ? error_set(err, "stopped") : 0;
}

static int take_bookmark(struct kube_watch *watch, const cJSON *object, struct error *err)
{
    if (remember_version(watch, object, err) < 0)
        return -1;
    /* The annotation's name holds dots, so it is no path. */
    const cJSON *annotations = json_at(object, "metadata.annotations");
    const cJSON *mark = cJSON_GetObjectItemCaseSensitive(annotations, "k8s.io/initial-events-end");
    bool ends_list = cJSON_IsString(mark) && strcmp(mark->valuestring, "true") == 0;
    return ends_list && watch->listing ? end_listing(watch, err) : 0;
}

/* A Status inside the stream. */
static int take_error(struct kube_watch *watch, const cJSON *status, struct error *err)
{
    int64_t code = json_int(status, "code", 0);
    const char *reason = json_string(status, "reason", "");
    if (code == 410 || strcmp(reason, "Gone") == 0 || strcmp(reason, "Expired") == 0)
        watch->expired = true;
    int64_t seconds = json_int(status, "details.retryAfterSeconds", 0);
    if (seconds > 0)
        watch->retry_after = seconds > longest_retry_after / SECONDS ? longest_retry_after : seconds * SECONDS;
    return error_code(err, (int)code, "the API server ended the stream with %d %s: %s", (int)code, reason,
                      json_string(status, "message", ""));
}

static int take_event(struct kube_watch *watch, const char *text, size_t length, struct error *err)
{
    cleanup_json cJSON *event = json_parse(text, length, "an event of the API server", err);
    if (event == NULL)
        return -1;
    cJSON *object = cJSON_GetObjectItemCaseSensitive(event, "object");
    const char *type = json_string(event, "type", "");
    if (strcmp(type, "ERROR") == 0)
        return take_error(watch, object, err);
    succeed(watch);
    if (strcmp(type, "BOOKMARK") == 0)
        return take_bookmark(watch, object, err);
    bool deleted = strcmp(type, "DELETED") == 0;
    if (!deleted && strcmp(type, "ADDED") != 0 && strcmp(type, "MODIFIED") != 0)
        return error_set(err, "the API server sent an event of the unknown type '%s'", type);
    /* Before the handler: it may prune the object. */
    if (remember_version(watch, object, err) < 0)
        return -1;
    return deliver(watch, deleted ? KUBE_WATCH_DELETED : KUBE_WATCH_APPLIED, object, err);
}

/* Items of built-in kinds come without saying what they are. */
static int name_kind(const struct kube_resource *resource, cJSON *object)
{
    char version[KUBE_API_VERSION_SIZE];
    kube_api_version(resource, version);
    if (!cJSON_HasObjectItem(object, "apiVersion") && cJSON_AddStringToObject(object, "apiVersion", version) == NULL)
        return -1;
    if (!cJSON_HasObjectItem(object, "kind") && cJSON_AddStringToObject(object, "kind", resource->kind) == NULL)
        return -1;
    return 0;
}

static int take_item(struct kube_watch *watch, const char *text, size_t length, struct error *err)
{
    cleanup_json cJSON *object = json_parse(text, length, "an item of a list", err);
    if (object == NULL)
        return -1;
    if (name_kind(watch->resource, object) < 0)
        return error_set(err, "out of memory for an item of a list");
    return deliver(watch, KUBE_WATCH_APPLIED, object, err);
}

static int on_object(void *arg, const char *text, size_t length, struct error *err)
{
    struct kube_watch *watch = arg;
    return watch->phase == PHASE_PAGED_LIST ? take_item(watch, text, length, err)
                                            : take_event(watch, text, length, err);
}

static void on_skipped(void *arg, size_t length)
{
    struct kube_watch *watch = arg;
    char bytes[32];
    char most[32];
    snprintf(bytes, sizeof bytes, "%zu", length);
    snprintf(most, sizeof most, "%d", OBJECT_MOST);
    log_error(watch->log, "an object is too large and will not be seen", "resource", watch->resource->plural, "bytes",
              bytes, "most", most, NULL);
}

static int on_data(void *arg, const char *data, size_t length, struct error *err)
{
    struct kube_watch *watch = arg;
    enter(watch);
    int result = kube_decoder_feed(&watch->decoder, data, length, err);
    leave(watch);
    return result;
}

/* ---- the end of a request --------------------------------------------------------------------------------------- */

/* The page is complete: on to the next, or to watching. */
static int end_page(struct kube_watch *watch, struct error *err)
{
    const struct buffer *skeleton = &watch->decoder.skeleton;
    cleanup_json cJSON *list = json_parse(buffer_text(skeleton), skeleton->length, "a list of the API server", err);
    if (list == NULL)
        return -1;
    const char *token = json_string(list, "metadata.continue", "");
    if (watch->continue_token != NULL && strcmp(token, watch->continue_token) == 0)
        return error_set(err, "the API server's list of %s does not go on: a page names itself as the next",
                         watch->resource->plural);
    if (set_text(&watch->continue_token, *token == '\0' ? NULL : token, err) < 0)
        return -1;
    succeed(watch);
    if (watch->continue_token == NULL)
        if (remember_version(watch, list, err) < 0 || end_listing(watch, err) < 0)
            return -1;
    schedule(watch, 0);
    return 0;
}

/* A streaming list ended before it was complete. Some servers and proxies never finish one. */
static void note_unfinished_list(struct kube_watch *watch)
{
    if (++watch->unfinished_lists < ENDS_MOST || watch->no_streaming_list)
        return;
    log_info(watch->log, "streaming lists do not end; paged lists are used", "resource", watch->resource->plural, NULL);
    watch->no_streaming_list = true;
}

/* The server closed the stream in good order. */
static void end_stream(struct kube_watch *watch)
{
    forget_failures(watch);
    if (watch->listing) {
        note_unfinished_list(watch);
        list_again(watch);
        fail(watch, "the API server ended a streaming list before it was complete", 0);
    } else if (instant_since(clock_now(), watch->began) >= shortest_watch) {
        schedule(watch, 0);
    } else if (watch->received) {
        retry_later(watch, 0);
    } else {
        fail(watch, "the API server ends watches at once", 0);
    }
}

static void end_unsupported(struct kube_watch *watch, const struct error *error)
{
    log_info(watch->log, "the API server has no streaming lists; paged lists are used", "resource",
             watch->resource->plural, "error", error_message(error), NULL);
    watch->no_streaming_list = true;
    list_again(watch);
    schedule(watch, 0);
}

/* The version to watch from, or the token to go on with, is too old. A list that came in pages for longer than the
 * server remembers is asked for as a whole next time. (The server also offers to go on inconsistently; what is deleted
 * meanwhile would then stay here for ever.) */
static void end_expired(struct kube_watch *watch, const struct kube_response *response)
{
    bool first = watch->failures == 0;
    watch->whole_list = watch->phase == PHASE_PAGED_LIST && watch->continue_token != NULL;
    list_again(watch);
    if (!first) {
        fail(watch, error_message(response->error), response->retry_after);
        return;
    }
    log_info(watch->log, "the watched version is too old: listing again", "resource", watch->resource->plural, NULL);
    watch->counters.failures++;
    watch->failures = 1;
    schedule(watch, 0);
}

static void end_refused(struct kube_watch *watch, const struct kube_response *response)
{
    forget_failures(watch);
    bool streaming_list = watch->phase == PHASE_STREAMING_LIST;
    if (streaming_list && (response->status == 400 || response->status == 422)) {
        end_unsupported(watch, response->error);
        return;
    }
    if (watch->expired || response->status == 410) {
        end_expired(watch, response);
        return;
    }
    /* A proxy that wants to see an answer's end before it passes on its beginning lets the time run out. */
    if (streaming_list && (watch->received || response->timed_out || response->status == 504))
        note_unfinished_list(watch);
    /* A page is asked for again by its token, and the pages before it stand. */
    if (streaming_list)
        list_again(watch);
    fail(watch, error_message(response->error),
         response->retry_after > watch->retry_after ? response->retry_after : watch->retry_after);
}

/* What came cannot be used. A page begins the list anew; a stream goes on behind its last good event. */
static void end_broken(struct kube_watch *watch, const struct error *err)
{
    forget_failures(watch);
    if (watch->listing || watch->phase == PHASE_PAGED_LIST)
        list_again(watch);
    fail(watch, error_message(err), 0);
}

static void on_end(void *arg, struct kube_response *response)
{
    struct kube_watch *watch = arg;
    watch->call = NULL;
    if (response->cancelled)
        return;
    enter(watch);
    bool paged = watch->phase == PHASE_PAGED_LIST;
    struct error err = {0};
    if (response->error != NULL) {
        end_refused(watch, response);
    } else if (kube_decoder_end(&watch->decoder, &err) < 0 || (paged && end_page(watch, &err) < 0)) {
        if (!watch->stopped)
            end_broken(watch, &err);
    } else if (!paged) {
        end_stream(watch);
    }
    leave(watch);
}

/* ---- the beginning of a request --------------------------------------------------------------------------------- */

static int add_streaming_query(struct kube_watch *watch, struct buffer *query, char *seconds, struct error *err)
{
    if (kube_query_add(query, "watch", "true", err) < 0 ||
        kube_query_add(query, "allowWatchBookmarks", "true", err) < 0 ||
        kube_query_add(query, "timeoutSeconds", seconds, err) < 0)
        return -1;
    if (watch->phase == PHASE_WATCH)
        return kube_query_add(query, "resourceVersion", watch->resource_version, err);
    if (kube_query_add(query, "sendInitialEvents", "true", err) < 0)
        return -1;
    return kube_query_add(query, "resourceVersionMatch", "NotOlderThan", err);
}

static int add_page_query(struct kube_watch *watch, struct buffer *query, struct error *err)
{
    if (watch->whole_list)
        return 0;
    char limit[32];
    snprintf(limit, sizeof limit, "%zu", watch->page_size);
    if (kube_query_add(query, "limit", limit, err) < 0)
        return -1;
    return watch->continue_token == NULL ? 0 : kube_query_add(query, "continue", watch->continue_token, err);
}

static int send_request(struct kube_watch *watch, struct error *err)
{
    bool paged = watch->phase == PHASE_PAGED_LIST;
    /* Different watches must not all end at the same time. */
    int64_t timeout = 300 * SECONDS + (int64_t)(random_u64() % (uint64_t)(300 * SECONDS));
    char seconds[32];
    snprintf(seconds, sizeof seconds, "%lld", (long long)(timeout / SECONDS));

    cleanup_buffer struct buffer query;
    buffer_init(&query, QUERY_MOST);
    if ((paged ? add_page_query(watch, &query, err) : add_streaming_query(watch, &query, seconds, err)) < 0)
        return -1;
    if (watch->label_selector != NULL && kube_query_add(&query, "labelSelector", watch->label_selector, err) < 0)
        return -1;
    if (watch->field_selector != NULL && kube_query_add(&query, "fieldSelector", watch->field_selector, err) < 0)
        return -1;
    const struct kube_request request = {
        .method = KUBE_GET,
        .resource = watch->resource,
        .namespace = watch->namespace,
        .query = buffer_text(&query),
        .lane = KUBE_LANE_WATCH,
        .timeout = paged ? list_timeout : timeout + overtime,
        .silence = paged && list_silence < watch->silence ? list_silence : watch->silence,
    };
    return kube_stream(watch->client, &request, on_data, on_end, watch, &watch->call, err);
}

static int begin_request(struct kube_watch *watch, struct error *err)
{
    bool paged = watch->phase == PHASE_PAGED_LIST;
    kube_decoder_free(&watch->decoder);
    kube_decoder_init(&watch->decoder, paged ? KUBE_DECODE_LIST : KUBE_DECODE_STREAM, OBJECT_MOST, on_object,
                      on_skipped, watch);
    watch->received = false;
    watch->expired = false;
    watch->retry_after = 0;
    watch->began = clock_now();
    bool new_list = watch->phase == PHASE_STREAMING_LIST || (paged && watch->continue_token == NULL);
    if (new_list && begin_listing(watch, err) < 0)
        return -1;
    if (watch->phase == PHASE_WATCH)
        watch->counters.watches++;
    return send_request(watch, err);
}

static void begin(void *arg)
{
    struct kube_watch *watch = arg;
    enter(watch);
    struct error err = {0};
    if (begin_request(watch, &err) < 0 && !watch->stopped)
        end_broken(watch, &err);
    leave(watch);
}

int kube_watch_start(struct kube_watch **out, struct loop *loop, struct kube_client *client, const struct log *log,
                     const struct kube_watch_options *options, kube_watch_handler *handler, void *arg,
                     struct error *err)
{
    struct kube_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return error_set(err, "out of memory for a watch");
    watch->loop = loop;
    watch->client = client;
    watch->log = log;
    watch->resource = options->resource;
    watch->page_size = options->page_size == 0 ? 500 : options->page_size;
    watch->no_streaming_list = options->no_streaming_list;
    watch->first_backoff = options->first_backoff == 0 ? first_backoff : options->first_backoff;
    watch->silence = options->silence == 0 ? longest_silence : options->silence;
    watch->handler = handler;
    watch->arg = arg;
    loop_timer_init(&watch->timer, loop, begin, watch);
    kube_decoder_init(&watch->decoder, KUBE_DECODE_STREAM, OBJECT_MOST, on_object, on_skipped, watch);
    if (set_text(&watch->namespace, options->namespace, err) < 0 ||
        set_text(&watch->label_selector, options->label_selector, err) < 0 ||
        set_text(&watch->field_selector, options->field_selector, err) < 0) {
        release(watch);
        return -1;
    }
    list_again(watch);
    schedule(watch, 0);
    *out = watch;
    return 0;
}

void kube_watch_stop(struct kube_watch *watch)
{
    if (watch != NULL)
        release(watch);
}

bool kube_watch_synced(const struct kube_watch *watch)
{
    return watch->synced;
}

const char *kube_watch_last_error(const struct kube_watch *watch)
{
    return watch->last_error;
}

struct kube_watch_counters kube_watch_counters(const struct kube_watch *watch)
{
    return watch->counters;
}
