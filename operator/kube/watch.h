/* watch — one resource's list and watch against the API server.
 *
 * Delivers what there is (between KUBE_WATCH_LISTING and KUBE_WATCH_LISTED), then changes in order, for ever: it
 * survives closed connections, expired versions and slow servers, and lists again where it must. What vanished between
 * two lists is not told here: whoever holds the objects (kube/cache) drops those that a new list did not name.
 */
#ifndef THOLE_OPERATOR_KUBE_WATCH_H
#define THOLE_OPERATOR_KUBE_WATCH_H

#include "kube/client.h"

enum kube_watch_event_type {
    KUBE_WATCH_LISTING, /* a list begins */
    KUBE_WATCH_APPLIED,
    KUBE_WATCH_DELETED, /* with the object's last state */
    KUBE_WATCH_LISTED,  /* the list is complete: what it did not name is gone */
};

/* `object` is borrowed but may be changed (pruned); NULL for LISTING and LISTED. The watch may be stopped inside. */
typedef void kube_watch_handler(void *arg, enum kube_watch_event_type type, cJSON *object);

struct kube_watch_options {
    const struct kube_resource *resource;
    const char *namespace;      /* NULL: all */
    const char *label_selector; /* NULL: everything */
    const char *field_selector;
    size_t page_size;       /* of a paged list; 0: 500 */
    bool no_streaming_list; /* begin with the paged list, as with servers that cannot stream */
    int64_t first_backoff;  /* before the first new try; 0: 100 ms */
    int64_t silence;        /* a watch that says nothing for so long is dead; 0: 200 s, more than bookmarks need */
};

struct kube_watch; /* opaque */

/* Options are copied, but `resource` is borrowed for ever. The handler never runs inside this call. */
int kube_watch_start(struct kube_watch **out, struct loop *loop, struct kube_client *client, const struct log *log,
                     const struct kube_watch_options *options, kube_watch_handler *handler, void *arg,
                     struct error *err);
void kube_watch_stop(struct kube_watch *watch); /* NULL is fine; the handler is not called again */
CLEANUP_DEFINE(cleanup_kube_watch_pointer, struct kube_watch, kube_watch_stop)
#define cleanup_kube_watch CLEANUP(cleanup_kube_watch_pointer)

bool kube_watch_synced(const struct kube_watch *watch);            /* a list has been completed once */
const char *kube_watch_last_error(const struct kube_watch *watch); /* "" while all is well */

struct kube_watch_counters {
    uint64_t lists, watches, events, failures;
};
struct kube_watch_counters kube_watch_counters(const struct kube_watch *watch);

#endif
