/* apply — the writes: create, patch, server-side apply and delete, each with the preconditions that make it safe
 * against a stale view.
 *
 * Objects are borrowed during the call and name themselves (metadata.name, metadata.namespace). All writes carry the
 * field manager KUBE_FIELD_MANAGER. Handlers as in kube/client.h: on success response->object is the new object;
 * give it to kube_informer_wrote().
 */
#ifndef THOLE_OPERATOR_KUBE_APPLY_H
#define THOLE_OPERATOR_KUBE_APPLY_H

#include "kube/client.h"

#define KUBE_FIELD_MANAGER "thole-operator"

/* What must still be true of the object; members may be NULL. A violated one is answered with response->conflict. */
struct kube_precondition {
    const char *uid;
    const char *resource_version;
};

/* POST. apiVersion and kind are filled in where absent. 409 "AlreadyExists" where the name is taken. */
int kube_create(struct kube_client *client, const struct kube_resource *resource, const cJSON *object,
                kube_handler *handler, void *arg, struct error *err);

/* JSON merge patch; `subresource` NULL or "status". `patch` is not changed; the precondition goes into its metadata. */
int kube_merge_patch(struct kube_client *client, const struct kube_resource *resource, const char *namespace,
                     const char *name, const char *subresource, const cJSON *patch,
                     struct kube_precondition precondition, kube_handler *handler, void *arg, struct error *err);

/* Server-side apply with force: fields that are absent now and were ours are removed. Give the UID: an apply without
 * one would create an object that is gone. */
int kube_apply(struct kube_client *client, const struct kube_resource *resource, const cJSON *object,
               struct kube_precondition precondition, kube_handler *handler, void *arg, struct error *err);

/* `propagation`: "Background", "Foreground", "Orphan", or NULL for the kind's own. response->object is the object while
 * finalizers hold it, else a Status. 404 comes as an error with status 404. */
int kube_delete(struct kube_client *client, const struct kube_resource *resource, const char *namespace,
                const char *name, struct kube_precondition precondition, const char *propagation, kube_handler *handler,
                void *arg, struct error *err);

/* Was the request refused because its namespace is being deleted, or gone? Whatever was to be made there is going too.
 */
bool kube_namespace_ends(const struct kube_response *response);

/* GET of one object, past the cache. */
int kube_get(struct kube_client *client, const struct kube_resource *resource, const char *namespace, const char *name,
             kube_handler *handler, void *arg, struct error *err);

#endif
