/* Any conversation with an API server, through a watch into a cache: whatever is answered, the watch goes on, tells
 * what it promises and in that order, and the cache never loses count.
 *
 * Client and loop are played below, so nothing waits. The input is read line by line. Most lines are bytes of the
 * answer to the request under way; others say:
 *
 *   %ok               the answer ends well
 *   %410, %503, …     it ends so, or is refused
 *   %lost             the connection breaks
 *   %wait             no reply comes: on to the timer, if there is one
 *   %stop             the watch is stopped at its next event
 *   %paged            the watch begins anew, without streaming lists
 *   %wrote OBJECT     we wrote that ourselves
 *   %removed UID KEY  and deleted that
 *   %piece N          lines come in pieces of N bytes from here on
 */
#include "common/test/fuzz.h"
#include "kube/cache.h"
#include "kube/watch.h"

#include <string.h>

enum { LINES_MOST = 400, OBJECTS_MOST = 20 };

static const struct kube_resource resource = {"thole.dev", "v1alpha1", "trainjobs", "TrainJob", true};

/* ---- the loop and the client that the watch talks to ---- */

struct kube_call {
    kube_data *data;
    kube_handler *handler;
    void *arg;
};

struct loop {
    struct loop_timer *armed;
};

struct kube_client {
    struct kube_call call;
    bool active;
    char query[1024];
};

void loop_timer_init(struct loop_timer *timer, struct loop *loop, loop_callback *callback, void *arg)
{
    *timer = (struct loop_timer){.loop = loop, .callback = callback, .arg = arg};
}

void loop_timer_set(struct loop_timer *timer, int64_t delay)
{
    require(delay >= 0);
    timer->armed = true;
    timer->loop->armed = timer;
}

void loop_timer_cancel(struct loop_timer *timer)
{
    timer->armed = false;
    if (timer->loop->armed == timer)
        timer->loop->armed = NULL;
}

struct instant loop_now(const struct loop *loop)
{
    (void)loop;
    return (struct instant){0};
}

/* One request at a time, of the right form. */
int kube_stream(struct kube_client *client, const struct kube_request *request, kube_data *data, kube_handler *handler,
                void *arg, struct kube_call **call, struct error *err)
{
    (void)err;
    require(!client->active && request->resource == &resource && request->query != NULL && request->timeout > 0);
    if (strstr(request->query, "watch=true") != NULL && strstr(request->query, "sendInitialEvents") == NULL)
        require(strstr(request->query, "resourceVersion=") != NULL);
    client->active = true;
    client->call = (struct kube_call){data, handler, arg};
    *call = &client->call;
    return 0;
}

void kube_call_cancel(struct kube_call *call)
{
    struct kube_client *client = (struct kube_client *)(void *)call;
    require(client->active);
    client->active = false;
}

/* ---- who listens ---- */

struct bench {
    struct loop loop;
    struct kube_client client;
    struct kube_watch *watch;
    struct kube_cache *cache;
    struct instant now;
    bool listing, listed, stop, stopped;
    size_t visible;
    size_t piece;
    struct error broken; /* why the watch wants no more of this answer */
};

static void on_change(void *arg, enum kube_change change, const char *key, const cJSON *object)
{
    struct bench *bench = arg;
    require(*key != '\0');
    require_with_memory(object != NULL);
    if (change == KUBE_APPEARED)
        bench->visible++;
    if (change == KUBE_VANISHED) {
        require(bench->visible > 0);
        bench->visible--;
    }
}

static void on_event(void *arg, enum kube_watch_event_type type, cJSON *object)
{
    struct bench *bench = arg;
    require(!bench->stopped);
    require((object == NULL) == (type == KUBE_WATCH_LISTING || type == KUBE_WATCH_LISTED));
    require(type == KUBE_WATCH_LISTING || bench->listing || bench->listed);
    if (type == KUBE_WATCH_LISTED)
        require(bench->listing);
    bench->listing = type == KUBE_WATCH_LISTING || (bench->listing && type != KUBE_WATCH_LISTED);
    bench->listed = bench->listed || type == KUBE_WATCH_LISTED;
    struct error err = {0};
    int result = kube_cache_observe(bench->cache, type, object, bench->now, &err);
    require((result < 0) == (error_message(&err)[0] != '\0'));
    if (bench->stop) {
        bench->stopped = true;
        kube_watch_stop(bench->watch);
        bench->watch = NULL;
    }
}

static bool watch_begin(struct bench *bench, bool paged)
{
    const struct kube_watch_options options = {
        .resource = &resource, .namespace = "team", .label_selector = "a=b", .no_streaming_list = paged};
    struct error err = {0};
    bench->stop = bench->stopped = bench->listing = bench->listed = false;
    int result = kube_watch_start(&bench->watch, &bench->loop, &bench->client, NULL, &options, on_event, bench, &err);
    require((result < 0) == (error_message(&err)[0] != '\0'));
    require_with_memory(result == 0);
    return result == 0;
}

/* ---- what the server does ---- */

static void end_call(struct bench *bench, int status, const struct error *err)
{
    if (!bench->client.active)
        return;
    struct kube_call call = bench->client.call;
    bench->client.active = false;
    struct kube_response response = {.status = status, .reason = "", .error = err};
    call.handler(call.arg, &response);
}

static void send_bytes(struct bench *bench, const char *bytes, size_t length)
{
    for (size_t at = 0; at < length && bench->client.active; at += bench->piece) {
        size_t piece = bench->piece < length - at ? bench->piece : length - at;
        cleanup_free char *copy = malloc(piece);
        if (copy == NULL)
            return;
        memcpy(copy, bytes + at, piece);
        struct error err = {0};
        struct kube_call call = bench->client.call;
        if (call.data(call.arg, copy, piece, &err) < 0) {
            require(error_message(&err)[0] != '\0');
            end_call(bench, 200, &err);
            return;
        }
    }
}

/* The next request, if the watch wants one now. A watch that neither waits nor asks would be dead. */
static void on_timer(struct bench *bench)
{
    struct loop_timer *timer = bench->loop.armed;
    require(bench->watch == NULL || timer != NULL || bench->client.active);
    require(timer == NULL || !bench->client.active);
    if (timer == NULL)
        return;
    bench->now.nanoseconds += 7 * SECONDS;
    loop_timer_cancel(timer);
    timer->callback(timer->arg);
}

static void write_object(struct bench *bench, const char *text)
{
    cleanup_json cJSON *object = cJSON_Parse(text);
    struct error err = {0};
    int result = kube_cache_wrote(bench->cache, object, bench->now, &err);
    require((result < 0) == (error_message(&err)[0] != '\0'));
}

static void remove_object(struct bench *bench, char *text)
{
    char *key = strchr(text, ' ');
    struct error err = {0};
    if (key == NULL)
        return;
    *key++ = '\0';
    int result = kube_cache_removed(bench->cache, key, text, bench->now, &err);
    require((result < 0) == (error_message(&err)[0] != '\0'));
}

static void refuse(struct bench *bench, int status)
{
    struct error err = {0};
    error_set(&err, "the server said %d", status);
    end_call(bench, status, &err);
}

static void obey(struct bench *bench, char *order)
{
    if (strcmp(order, "ok") == 0) {
        end_call(bench, 200, NULL);
    } else if (strcmp(order, "lost") == 0) {
        refuse(bench, 0);
    } else if (strcmp(order, "stop") == 0) {
        bench->stop = true;
    } else if (strcmp(order, "wait") == 0) {
        bench->now.nanoseconds += 31 * SECONDS;
        kube_cache_expire(bench->cache, bench->now);
    } else if (strcmp(order, "paged") == 0) {
        kube_watch_stop(bench->watch);
        bench->watch = NULL;
        watch_begin(bench, true);
    } else if (strncmp(order, "wrote ", 6) == 0) {
        write_object(bench, order + 6);
    } else if (strncmp(order, "removed ", 8) == 0) {
        remove_object(bench, order + 8);
    } else if (strncmp(order, "piece ", 6) == 0) {
        bench->piece = 1 + strtoul(order + 6, NULL, 10) % 1000;
    } else {
        refuse(bench, 400 + (int)(strtoul(order, NULL, 10) % 200));
    }
}

/* ---- the cache's own promises ---- */

static void on_key(void *arg, const char *key)
{
    struct bench *bench = arg;
    cleanup_json cJSON *object = kube_cache_get(bench->cache, key);
    require_with_memory(object != NULL);
    struct kube_key again;
    require(object == NULL || (kube_key_of(&again, object) == 0 && strcmp(again.text, key) == 0));
    const char *owner = kube_controller_uid(object);
    if (owner == NULL || *owner == '\0')
        return;
    cleanup_json cJSON *owned = kube_cache_owned(bench->cache, owner);
    require_with_memory(cJSON_GetArraySize(owned) > 0);
}

static void check_cache(struct bench *bench)
{
    require(kube_cache_count(bench->cache) == bench->visible && bench->visible <= (size_t)2 * OBJECTS_MOST);
    require((kube_cache_bytes(bench->cache) > 0) == (bench->visible > 0));
    kube_cache_keys(bench->cache, on_key, bench);
    cleanup_json cJSON *labelled = kube_cache_labelled(bench->cache, "team", "x");
    require_with_memory(labelled != NULL);
}

static void converse(struct bench *bench, char *text)
{
    for (int i = 0; i < LINES_MOST; i++) {
        char *line = strsep(&text, "\n");
        if (line == NULL)
            break;
        on_timer(bench);
        if (bench->watch == NULL)
            return;
        if (*line == '%') {
            obey(bench, line + 1);
        } else {
            size_t length = strlen(line);
            line[length] = '\n';
            send_bytes(bench, line, length + 1);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct bench bench = {.piece = 1000};
    cleanup_free char *text = malloc(size + 2);
    bench.cache = kube_cache_new(NULL, "job", OBJECTS_MOST, &err);
    require((bench.cache == NULL) == (error_message(&err)[0] != '\0'));
    if (text == NULL || bench.cache == NULL || !watch_begin(&bench, false)) {
        kube_cache_free(bench.cache);
        return 0;
    }
    kube_cache_on_change(bench.cache, on_change, &bench);
    memcpy(text, data, size);
    text[size] = '\n';
    text[size + 1] = '\0';
    converse(&bench, text);
    check_cache(&bench);
    kube_watch_stop(bench.watch);
    require(!bench.client.active && bench.loop.armed == NULL);
    kube_cache_free(bench.cache);
    return 0;
}
