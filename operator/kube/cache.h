/* cache — the objects a watch has shown, small, indexed, and never behind our own writes.
 *
 * Objects are kept packed (pruned by `project`, as compact text, which is compressed once it has not changed for a
 * minute) and handed out as trees that belong to the caller.
 * The answer of an own write lies over the watched object until the watch shows that version, or a list that began
 * after the write is complete, or 30 s have passed: so a reconcile never acts on what it has already changed.
 * resourceVersion is opaque: it is compared for equality only.
 * A pure data structure: time is passed in.
 */
#ifndef THOLE_OPERATOR_KUBE_CACHE_H
#define THOLE_OPERATOR_KUBE_CACHE_H

#include "common/clock.h"
#include "kube/resource.h"
#include "kube/watch.h"

#include <stddef.h>

struct kube_cache; /* opaque */

/* Prunes `object` in place to what reconcilers read. metadata.managedFields is dropped before; metadata's name,
 * namespace, uid, resourceVersion, labels and ownerReferences must stay. */
typedef void kube_project(cJSON *object);

/* `project` may be NULL. `label` is the label to index by, or NULL. At most `most_objects` are kept (0: 1,000,000). */
struct kube_cache *kube_cache_new(kube_project *project, const char *label, size_t most_objects, struct error *err);
void kube_cache_free(struct kube_cache *cache);
CLEANUP_DEFINE(cleanup_kube_cache_pointer, struct kube_cache, kube_cache_free)
#define cleanup_kube_cache CLEANUP(cleanup_kube_cache_pointer)

/* What changed in the view, told during the calls below. */
enum kube_change { KUBE_APPEARED, KUBE_CHANGED, KUBE_VANISHED };
typedef void kube_cache_handler(void *arg, enum kube_change change, const char *key, const cJSON *object);
void kube_cache_on_change(struct kube_cache *cache, kube_cache_handler *handler, void *arg);

/* Takes an event of a watch; `object` is pruned in place. -1 where the object cannot be kept (no name, too many, no
 * memory); all else is as it was.
 */
int kube_cache_observe(struct kube_cache *cache, enum kube_watch_event_type type, cJSON *object, struct instant now,
                       struct error *err);

/* Lays the answer of an own write over what was watched. */
int kube_cache_wrote(struct kube_cache *cache, const cJSON *answer, struct instant now, struct error *err);
/* The object `key` with this UID was deleted by us and is gone at once (no finalizer). */
int kube_cache_removed(struct kube_cache *cache, const char *key, const char *uid, struct instant now,
                       struct error *err);

/* Drops own writes that the watch has not shown for 30 s. Returns the instant of the next one; 0: none. */
struct instant kube_cache_expire(struct kube_cache *cache, struct instant now);

/* Compresses some of what has not changed for a minute; it reads as before. */
void kube_cache_squeeze(struct kube_cache *cache, struct instant now);

/* When one of these two should be called; 0: never. */
struct instant kube_cache_due(const struct kube_cache *cache);

/* Trees are copies that belong to the caller. NULL: no such object (or no memory). */
cJSON *kube_cache_get(const struct kube_cache *cache, const char *key);
/* Arrays, sorted by key, never NULL unless without memory: the objects whose controller has this UID; the objects of
 * `namespace` whose indexed label has this value. */
cJSON *kube_cache_owned(const struct kube_cache *cache, const char *owner_uid);
cJSON *kube_cache_labelled(const struct kube_cache *cache, const char *namespace, const char *value);

/* Calls `visit` with every key, in no order; the cache must not change meanwhile. */
typedef void kube_cache_visit(void *arg, const char *key);
void kube_cache_keys(const struct kube_cache *cache, kube_cache_visit *visit, void *arg);

/* How one object is kept, for people: the version that was watched, an own write over it, and the view as "object".
 * To be freed; NULL without memory. */
cJSON *kube_cache_debug(const struct kube_cache *cache, const char *key, struct instant now);

size_t kube_cache_count(const struct kube_cache *cache);
size_t kube_cache_bytes(const struct kube_cache *cache); /* of the packed objects, as they are kept */

/* The UID of the object's controller (ownerReferences with controller: true), or NULL; borrowed. */
const char *kube_controller_uid(const cJSON *object);

#endif
