/* informer — a watch feeding a cache: what reconcilers read, and what wakes them. */
#ifndef THOLE_OPERATOR_KUBE_INFORMER_H
#define THOLE_OPERATOR_KUBE_INFORMER_H

#include "kube/cache.h"
#include "kube/watch.h"

struct kube_informer_options {
    struct kube_watch_options watch;
    kube_project *project; /* see kube/cache.h; may be NULL */
    const char *index_label;
    size_t most_objects;
};

struct kube_informer; /* opaque */

/* `handler` hears every change of the view (own writes included), with the object as it is now, or as it last was.
 * `synced` (may be NULL) is called once, when the first list is complete. */
int kube_informer_start(struct kube_informer **out, struct loop *loop, struct kube_client *client,
                        const struct log *log, const struct kube_informer_options *options, kube_cache_handler *handler,
                        loop_callback *synced, void *arg, struct error *err);
void kube_informer_stop(struct kube_informer *informer);
CLEANUP_DEFINE(cleanup_kube_informer_pointer, struct kube_informer, kube_informer_stop)
#define cleanup_kube_informer CLEANUP(cleanup_kube_informer_pointer)

/* For reading; writes go in by the two below, which also keep the 30 s. */
const struct kube_cache *kube_informer_cache(const struct kube_informer *informer);

/* Tell it the answer of an own write (kube_response.object), or of a delete that was final. */
void kube_informer_wrote(struct kube_informer *informer, const cJSON *answer);
void kube_informer_removed(struct kube_informer *informer, const char *key, const char *uid);

bool kube_informer_synced(const struct kube_informer *informer);
const char *kube_informer_last_error(const struct kube_informer *informer);
const struct kube_resource *kube_informer_resource(const struct kube_informer *informer);

#endif
