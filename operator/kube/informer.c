#include "kube/informer.h"

#include <stdlib.h>

struct kube_informer {
    struct loop *loop;
    const struct log *log;
    const struct kube_resource *resource;
    struct kube_cache *cache;
    struct kube_watch *watch;
    loop_callback *synced;
    void *arg;
    bool told_synced;
    struct loop_timer care; /* for what the cache does by time */
};

static void arm(struct kube_informer *informer)
{
    struct instant due = kube_cache_due(informer->cache);
    if (due.nanoseconds != 0)
        loop_timer_set_at(&informer->care, due);
}

static void take_care(void *arg)
{
    struct kube_informer *informer = arg;
    struct instant now = clock_now();
    kube_cache_expire(informer->cache, now);
    kube_cache_squeeze(informer->cache, now);
    arm(informer);
}

static void report(const struct kube_informer *informer, const char *what, const struct error *err)
{
    log_error(informer->log, what, "resource", informer->resource->plural, "error", error_message(err), NULL);
}

static void on_event(void *arg, enum kube_watch_event_type type, cJSON *object)
{
    struct kube_informer *informer = arg;
    struct error err = {0};
    if (kube_cache_observe(informer->cache, type, object, clock_now(), &err) < 0)
        report(informer, "an object cannot be kept", &err);
    if (!informer->care.armed)
        arm(informer);
    if (type != KUBE_WATCH_LISTED || informer->told_synced)
        return;
    informer->told_synced = true;
    if (informer->synced != NULL)
        informer->synced(informer->arg);
}

int kube_informer_start(struct kube_informer **out, struct loop *loop, struct kube_client *client,
                        const struct log *log, const struct kube_informer_options *options, kube_cache_handler *handler,
                        loop_callback *synced, void *arg, struct error *err)
{
    cleanup_kube_informer struct kube_informer *informer = calloc(1, sizeof *informer);
    if (informer == NULL)
        return error_set(err, "out of memory for an informer");
    informer->loop = loop;
    informer->log = log;
    informer->resource = options->watch.resource;
    informer->synced = synced;
    informer->arg = arg;
    loop_timer_init(&informer->care, loop, take_care, informer);
    informer->cache = kube_cache_new(options->project, options->index_label, options->most_objects, err);
    if (informer->cache == NULL)
        return -1;
    kube_cache_on_change(informer->cache, handler, arg);
    if (kube_watch_start(&informer->watch, loop, client, log, &options->watch, on_event, informer, err) < 0)
        return -1;
    *out = move(informer);
    return 0;
}

void kube_informer_stop(struct kube_informer *informer)
{
    if (informer == NULL)
        return;
    loop_timer_cancel(&informer->care);
    kube_watch_stop(informer->watch);
    kube_cache_free(informer->cache);
    free(informer);
}

const struct kube_cache *kube_informer_cache(const struct kube_informer *informer)
{
    return informer->cache;
}

void kube_informer_wrote(struct kube_informer *informer, const cJSON *answer)
{
    struct error err = {0};
    if (kube_cache_wrote(informer->cache, answer, clock_now(), &err) < 0)
        report(informer, "the answer of an own write cannot be kept", &err);
    arm(informer);
}

void kube_informer_removed(struct kube_informer *informer, const char *key, const char *uid)
{
    struct error err = {0};
    if (kube_cache_removed(informer->cache, key, uid, clock_now(), &err) < 0)
        report(informer, "an own delete cannot be kept", &err);
    arm(informer);
}

bool kube_informer_synced(const struct kube_informer *informer)
{
    return kube_watch_synced(informer->watch);
}

const char *kube_informer_last_error(const struct kube_informer *informer)
{
    return kube_watch_last_error(informer->watch);
}

const struct kube_resource *kube_informer_resource(const struct kube_informer *informer)
{
    return informer->resource;
}
