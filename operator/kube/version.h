/* version — one version of an object, packed; private to kube's cache. */
#ifndef THOLE_OPERATOR_KUBE_VERSION_H
#define THOLE_OPERATOR_KUBE_VERSION_H

#include "kube/cache.h"

#include <stdint.h>

/* Five strings one behind the other, in one piece of memory. */
struct version {
    uint32_t resource_version, owner, label, json; /* where they begin in `text`; the UID begins at 0 */
    uint32_t size;
    char text[];
};

/* Prunes `object` in place and packs what is left. `project` and `label` may be NULL. */
struct version *version_pack(cJSON *object, kube_project *project, const char *label, struct error *err);
cJSON *version_unpack(const struct version *version);

static inline const char *version_uid(const struct version *version)
{
    return version->text;
}

static inline const char *version_at(const struct version *version, uint32_t offset)
{
    return version->text + offset;
}

bool version_same(const struct version *a, const struct version *b); /* the same life and the same resourceVersion */

#endif
