/* resource — names of kinds and of single objects, and the paths under which the API server serves them. */
#ifndef THOLE_OPERATOR_KUBE_RESOURCE_H
#define THOLE_OPERATOR_KUBE_RESOURCE_H

#include "common/buffer.h"
#include "common/error.h"
#include "common/json.h"

#include <stdbool.h>

struct kube_resource {
    const char *group;   /* "apps"; "" is the core group */
    const char *version; /* "v1" */
    const char *plural;  /* "deployments" */
    const char *kind;    /* "Deployment" */
    bool namespaced;
};

/* The key of an object: "namespace/name", or "name" for what is not namespaced. Neither part holds a slash. */
enum { KUBE_NAMESPACE_SIZE = 64, KUBE_NAME_SIZE = 254, KUBE_KEY_SIZE = KUBE_NAMESPACE_SIZE + KUBE_NAME_SIZE };
struct kube_key {
    char text[KUBE_KEY_SIZE];
};

/* -1 where a part is too long, empty (name) or holds a slash. */
int kube_key_make(struct kube_key *out, const char *namespace, const char *name);
int kube_key_of(struct kube_key *out, const cJSON *object); /* from its metadata */
/* `namespace` holds KUBE_NAMESPACE_SIZE, `name` KUBE_NAME_SIZE bytes; -1 where `key` is none. */
int kube_key_split(const char *key, char *namespace, char *name);

/* Appends "/apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL/NAME/SUBRESOURCE", everything percent-escaped.
 * `namespace` NULL: over all namespaces; `name` and `subresource` may be NULL. */
int kube_path(struct buffer *out, const struct kube_resource *resource, const char *namespace, const char *name,
              const char *subresource, struct error *err);

/* Appends "name=value" with `value` escaped, and a '&' before it where `out` is not empty. */
int kube_query_add(struct buffer *out, const char *name, const char *value, struct error *err);

/* "apps/v1", "v1". Borrowed parts; `out` holds 128 bytes. */
enum { KUBE_API_VERSION_SIZE = 128 };
void kube_api_version(const struct kube_resource *resource, char *out);

#endif
