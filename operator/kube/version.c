#define ZLIB_CONST
#include "kube/version.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Raw deflate with a window that holds the pattern and most objects. */
enum { WINDOW_BITS = 14, MEMORY_LEVEL = 6, LEVEL = 6, PATTERN_MOST = 1 << (WINDOW_BITS - 1) };

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
    *version = (struct version){offsets[1], offsets[2], offsets[3], offsets[4], offsets[PARTS], 0};
    for (int i = 0; i < PARTS; i++)
        memcpy(version->text + offsets[i], parts[i], offsets[i + 1] - offsets[i]);
    return version;
}

void pattern_free(struct pattern *pattern)
{
    free(pattern->text);
    *pattern = (struct pattern){0};
}

static int make_pattern(struct pattern *pattern, const char *json, uint32_t length)
{
    uint32_t kept = length < PATTERN_MOST ? length : PATTERN_MOST;
    pattern->text = malloc(kept);
    if (pattern->text == NULL)
        return -1;
    memcpy(pattern->text, json, kept);
    pattern->length = kept;
    return 0;
}

/* Bytes written to `out`, or 0 where they are more than `room`. */
static uint32_t squeeze(const char *json, uint32_t length, const struct pattern *pattern, unsigned char *out,
                        uint32_t room)
{
    z_stream stream = {0};
    if (deflateInit2(&stream, LEVEL, Z_DEFLATED, -WINDOW_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    stream.next_in = (const unsigned char *)json;
    stream.avail_in = length;
    stream.next_out = out;
    stream.avail_out = room;
    bool good = deflateSetDictionary(&stream, pattern->text, pattern->length) == Z_OK &&
                deflate(&stream, Z_FINISH) == Z_STREAM_END;
    uint32_t written = room - stream.avail_out;
    deflateEnd(&stream);
    return good ? written : 0;
}

struct version *version_squeeze(const struct version *version, struct pattern *pattern)
{
    uint32_t length = version->size - version->json - 1;
    const char *json = version_at(version, version->json);
    if (version->squeezed != 0 || length == 0 || (pattern->text == NULL && make_pattern(pattern, json, length) < 0))
        return NULL;
    uint32_t room = length / 4 * 3;
    cleanup_free unsigned char *bytes = malloc((size_t)room + 1);
    uint32_t written = bytes == NULL ? 0 : squeeze(json, length, pattern, bytes, room);
    struct version *out = written == 0 ? NULL : malloc(sizeof *out + version->json + written);
    if (out == NULL)
        return NULL;
    *out = *version;
    out->size = version->json + written;
    out->squeezed = length;
    memcpy(out->text, version->text, version->json);
    memcpy(out->text + version->json, bytes, written);
    return out;
}

/* The JSON text, to be freed; NULL without memory. */
static char *expand(const struct version *version, const struct pattern *pattern)
{
    char *text = malloc((size_t)version->squeezed + 1);
    z_stream stream = {0};
    if (text == NULL || inflateInit2(&stream, -WINDOW_BITS) != Z_OK) {
        free(text);
        return NULL;
    }
    stream.next_in = (const unsigned char *)version_at(version, version->json);
    stream.avail_in = version->size - version->json;
    stream.next_out = (unsigned char *)text;
    stream.avail_out = version->squeezed;
    bool good = inflateSetDictionary(&stream, pattern->text, pattern->length) == Z_OK &&
                inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_out == 0;
    inflateEnd(&stream);
    if (!good) {
        free(text);
        return NULL;
    }
    text[version->squeezed] = '\0';
    return text;
}

cJSON *version_unpack(const struct version *version, const struct pattern *pattern)
{
    if (version->squeezed == 0)
        return cJSON_Parse(version_at(version, version->json));
    cleanup_free char *text = expand(version, pattern);
    return text == NULL ? NULL : cJSON_Parse(text);
}

bool version_same(const struct version *a, const struct version *b)
{
    return strcmp(version_uid(a), version_uid(b)) == 0 &&
           strcmp(version_at(a, a->resource_version), version_at(b, b->resource_version)) == 0;
}
