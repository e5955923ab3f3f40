#include "common/manifest/manifest.h"

#include "common/manifest/embedded.h"
#include "common/manifest/schema.h"
#include "common/yaml.h"

#include <string.h>

#define GROUP   "thole.dev/"
#define VERSION "thole.dev/v1alpha1"

/* The openAPIV3Schema of a kind. `crds`: the parsed CRDs, an array. */
static const cJSON *schema_of(const cJSON *crds, const char *kind)
{
    const cJSON *crd = NULL;
    cJSON_ArrayForEach(crd, crds)
    {
        if (strcmp(json_string(crd, "spec.names.kind", ""), kind) == 0)
            return json_at(cJSON_GetArrayItem(json_at(crd, "spec.versions"), 0), "schema.openAPIV3Schema");
    }
    return NULL;
}

static cJSON *read_crds(struct error *err)
{
    cleanup_json cJSON *crds = cJSON_CreateArray();
    bool whole = crds != NULL;
    for (const struct embedded_file *file = embedded_crds; file->name != NULL; file++) {
        cleanup_json cJSON *documents = yaml_parse((const char *)file->bytes, file->length, file->name, err);
        if (documents == NULL)
            return NULL;
        while (documents->child != NULL)
            json_add(crds, NULL, cJSON_DetachItemFromArray(documents, 0), &whole);
    }
    if (!whole) {
        error_set(err, "out of memory");
        return NULL;
    }
    return move(crds);
}

/* Lower-case letters, digits, '-' and '.', as Kubernetes asks of names. */
static bool is_name(const char *text, bool dots, size_t most)
{
    size_t length = strlen(text);
    if (length == 0 || length > most)
        return false;
    for (size_t i = 0; i < length; i++) {
        bool alphanumeric = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9');
        bool edge = i == 0 || i == length - 1 || text[i - 1] == '.' || text[i + 1] == '.';
        if (!alphanumeric && (edge || (text[i] != '-' && !(dots && text[i] == '.'))))
            return false;
    }
    return true;
}

static int check_metadata(cJSON *object, struct error *err)
{
    if (!cJSON_IsObject(json_at(object, "metadata")))
        return error_set(err, "metadata: Required value");
    if (!is_name(json_string(object, "metadata.name", ""), true, 253))
        return error_set(err, "metadata.name: must be lower-case letters, digits, '-' and '.', and begin and end with "
                              "a letter or digit");
    if (json_at(object, "metadata.namespace") == NULL)
        return json_put(object, "metadata.namespace", cJSON_CreateString("default"), err);
    if (!is_name(json_string(object, "metadata.namespace", ""), false, 63))
        return error_set(err, "metadata.namespace: must be lower-case letters, digits and '-', and begin and end with "
                              "a letter or digit");
    return 0;
}

static int check_with(cJSON *object, const cJSON *crds, struct error *err)
{
    const char *kind = json_string(object, "kind", "");
    if (strcmp(json_string(object, "apiVersion", ""), VERSION) != 0)
        return error_set(err, "apiVersion: must be " VERSION);
    const cJSON *schema = schema_of(crds, kind);
    if (schema == NULL)
        return error_set(err, "kind: \"%.60s\" is not one of Dataset, TrainJob", kind);
    if (check_metadata(object, err) < 0)
        return -1;
    cJSON_DeleteItemFromObjectCaseSensitive(object, "status");
    return schema_apply(object, schema, "", err);
}

int manifest_check(cJSON *object, struct error *err)
{
    cleanup_json cJSON *crds = read_crds(err);
    return crds == NULL ? -1 : check_with(object, crds, err);
}

cJSON *manifest_parse(const char *text, size_t length, const char *what, struct error *err)
{
    cleanup_json cJSON *crds = read_crds(err);
    cleanup_json cJSON *documents = crds == NULL ? NULL : yaml_parse(text, length, what, err);
    cleanup_json cJSON *objects = cJSON_CreateArray();
    if (documents != NULL && objects == NULL)
        error_set(err, "%s: out of memory", what);
    if (documents == NULL || objects == NULL)
        return NULL;
    while (documents->child != NULL) {
        cleanup_json cJSON *object = cJSON_DetachItemFromArray(documents, 0);
        if (!cJSON_IsObject(object)) {
            error_set(err, "%s: a document is not an object with apiVersion, kind and metadata", what);
            return NULL;
        }
        if (strncmp(json_string(object, "apiVersion", ""), GROUP, strlen(GROUP)) != 0)
            continue;
        struct error why = {0};
        if (check_with(object, crds, &why) < 0) {
            error_set(err, "%s: %s \"%s\": %s", what, json_string(object, "kind", "object"),
                      json_string(object, "metadata.name", ""), error_message(&why));
            return NULL;
        }
        if (cJSON_GetArraySize(objects) == MANIFEST_OBJECTS_MOST) {
            error_set(err, "%s: more than %d objects", what, MANIFEST_OBJECTS_MOST);
            return NULL;
        }
        if (!cJSON_AddItemToArray(objects, object)) {
            error_set(err, "%s: out of memory", what);
            return NULL;
        }
        object = NULL;
    }
    return move(objects);
}

cJSON *manifest_read_file(const char *path, struct error *err)
{
    cleanup_buffer struct buffer buffer;
    buffer_init(&buffer, YAML_BYTES_MOST);
    if (buffer_read_file(&buffer, path, err) < 0)
        return NULL;
    return manifest_parse(buffer_text(&buffer), buffer.length, path, err);
}

const cJSON *manifest_find(const cJSON *objects, const char *kind, const char *name_space, const char *name)
{
    const cJSON *object = NULL;
    cJSON_ArrayForEach(object, objects)
    {
        if (strcmp(json_string(object, "kind", ""), kind) == 0 &&
            (name_space == NULL || strcmp(json_string(object, "metadata.namespace", ""), name_space) == 0) &&
            (name == NULL || strcmp(json_string(object, "metadata.name", ""), name) == 0))
            return object;
    }
    return NULL;
}
