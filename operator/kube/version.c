#include "kube/version.h"

#include <stdlib.h>
#include <string.h>

const char *kube_controller_uid(const cJSON *object)
{
    const cJSON *owner = NULL;
    cJSON_ArrayForEach(owner, json_at(object, "metadata.ownerReferences"))
    {
        if (json_bool(owner, "controller", false))
            return json_string(owner, "uid", NULL);
    }
    return NULL;
}

/* A label's name holds dots, so it is no path. */
static const char *label_of(const cJSON *object, const char *name)
{
    const char *value =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json_at(object, "metadata.labels"), name));
    return value == NULL ? "" : value;
}

struct version *version_pack(cJSON *object, kube_project *project, const char *label_name, struct error *err)
{
    cJSON_DeleteItemFromObjectCaseSensitive(cJSON_GetObjectItemCaseSensitive(object, "metadata"), "managedFields");
    if (project != NULL)
        project(object);
    const char *label = label_name == NULL ? "" : label_of(object, label_name);
    const char *owner = kube_controller_uid(object);
    cleanup_free char *json = json_print(object);
    const char *parts[] = {json_string(object, "metadata.uid", ""), json_string(object, "metadata.resourceVersion", ""),
                           owner == NULL ? "" : owner, label, json};
    enum { PARTS = sizeof parts / sizeof parts[0] };
    uint32_t offsets[PARTS + 1] = {0};
    for (int i = 0; json != NULL && i < PARTS; i++)
        offsets[i + 1] = offsets[i] + (uint32_t)strlen(parts[i]) + 1;
    struct version *version = json == NULL ? NULL : malloc(sizeof *version + offsets[PARTS]);
    if (version == NULL) {
        error_set(err, "out of memory for an object of the cache");
        return NULL;
    }
    *version = (struct version){offsets[1], offsets[2], offsets[3], offsets[4], offsets[PARTS]};
    for (int i = 0; i < PARTS; i++)
        memcpy(version->text + offsets[i], parts[i], offsets[i + 1] - offsets[i]);
    return version;
}

cJSON *version_unpack(const struct version *version)
{
    return cJSON_Parse(version_at(version, version->json));
}

bool version_same(const struct version *a, const struct version *b)
{
    return strcmp(version_uid(a), version_uid(b)) == 0 &&
           strcmp(version_at(a, a->resource_version), version_at(b, b->resource_version)) == 0;
}
