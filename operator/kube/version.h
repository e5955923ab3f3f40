/* version — one version of an object, packed; private to kube's cache.
 *
 * Five strings one behind the other, in one piece of memory. The last, the object itself, may be squeezed: compressed
 * against a pattern, another object of its kind, which it resembles but for names, numbers and times. That makes it
 * five times smaller, and costs as much to read as to parse.
 */
#ifndef THOLE_OPERATOR_KUBE_VERSION_H
#define THOLE_OPERATOR_KUBE_VERSION_H

#include "kube/cache.h"

#include <stdbool.h>
#include <stdint.h>

struct version {
    uint32_t resource_version, owner, label, json; /* where they begin in `text`; the UID begins at 0 */
    uint32_t size;
    uint32_t squeezed; /* 0: it is not; else the length of the JSON text */
    char text[];
};

/* Prunes `object` in place and packs what is left. `project` and `label` may be NULL. */
struct version *version_pack(cJSON *object, kube_project *project, const char *label, struct error *err);

/* What objects of one kind look like: one of them, when there is one. */
struct pattern {
    unsigned char *text;
    uint32_t length;
};
void pattern_free(struct pattern *pattern);

/* A smaller copy; NULL where there is no memory for it, or nothing to be won. An empty pattern is made from it. */
struct version *version_squeeze(const struct version *version, struct pattern *pattern);

/* `pattern` is the one that it was squeezed with. */
cJSON *version_unpack(const struct version *version, const struct pattern *pattern);

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
