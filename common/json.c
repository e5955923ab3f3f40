#include "common/json.h"

#include <math.h>
#include <string.h>

cJSON *json_parse(const char *text, size_t length, const char *what, struct error *err)
{
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts(text, length, &end, false);
    if (json == NULL) {
        error_set(err, "%s is not JSON: mistake at byte %zu", what, end == NULL ? 0 : (size_t)(end - text));
        return NULL;
    }
    for (const char *rest = end; rest < text + length; rest++) {
        if (strchr(" \t\r\n", *rest) == NULL) {
            error_set(err, "%s is not JSON: there is more behind its end at byte %zu", what, (size_t)(rest - text));
            cJSON_Delete(json);
            return NULL;
        }
    }
    return json;
}

cJSON *json_read_file(const char *path, size_t most_bytes, struct error *err)
{
    cleanup_buffer struct buffer buffer;
    buffer_init(&buffer, most_bytes);
    if (buffer_read_file(&buffer, path, err) < 0)
        return NULL;
    return json_parse(buffer_text(&buffer), buffer.length, path, err);
}

char *json_print(const cJSON *json)
{
    return cJSON_PrintUnformatted(json);
}

static const cJSON *member(const cJSON *json, const char *name, size_t length)
{
    if (!cJSON_IsObject(json))
        return NULL;
    for (const cJSON *item = json->child; item != NULL; item = item->next)
        if (strncmp(item->string, name, length) == 0 && item->string[length] == '\0')
            return item;
    return NULL;
}

const cJSON *json_at(const cJSON *json, const char *path)
{
    while (json != NULL) {
        size_t length = strcspn(path, ".");
        json = member(json, path, length);
        if (path[length] == '\0')
            return json;
        path += length + 1;
    }
    return NULL;
}

const char *json_string(const cJSON *json, const char *path, const char *fallback)
{
    const cJSON *value = json_at(json, path);
    return cJSON_IsString(value) ? value->valuestring : fallback;
}

double json_number(const cJSON *json, const char *path, double fallback)
{
    const cJSON *value = json_at(json, path);
    return cJSON_IsNumber(value) ? value->valuedouble : fallback;
}

int64_t json_int(const cJSON *json, const char *path, int64_t fallback)
{
    double value = json_number(json, path, NAN);
    /* Beyond 2^53 a double no longer holds every whole number. */
    if (!(fabs(value) <= 9007199254740992.0) || trunc(value) != value)
        return fallback;
    return (int64_t)value;
}

bool json_bool(const cJSON *json, const char *path, bool fallback)
{
    const cJSON *value = json_at(json, path);
    return cJSON_IsBool(value) ? cJSON_IsTrue(value) : fallback;
}

const cJSON *json_find(const cJSON *list, const char *name, const char *value)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list)
    {
        const char *text = json_string(item, name, NULL);
        if (text != NULL && strcmp(text, value) == 0)
            return item;
    }
    return NULL;
}

static int put_member(cJSON *object, const char *name, cJSON *value)
{
    cJSON *old = cJSON_GetObjectItemCaseSensitive(object, name);
    if (old == NULL)
        return cJSON_AddItemToObject(object, name, value) ? 0 : -1;
    /* The name moves over: where cJSON copies it and finds no memory, the member is left without one. */
    if ((value->type & cJSON_StringIsConst) == 0)
        cJSON_free(value->string);
    value->string = old->string;
    value->type |= old->type & cJSON_StringIsConst;
    old->string = NULL;
    return cJSON_ReplaceItemViaPointer(object, old, value) ? 0 : -1;
}

int json_put(cJSON *json, const char *path, cJSON *value, struct error *err)
{
    cleanup_json cJSON *owned = value;
    for (;;) {
        if (!cJSON_IsObject(json) || owned == NULL)
            return error_set(err, "cannot set '%s': out of memory, or its parent is no object", path);
        size_t length = strcspn(path, ".");
        cleanup_free char *name = strndup(path, length);
        if (name == NULL)
            return error_set(err, "cannot set '%s': out of memory", path);
        if (path[length] == '\0') {
            if (put_member(json, name, owned) < 0)
                return error_set(err, "cannot set '%s': out of memory", path);
            owned = NULL;
            return 0;
        }
        cJSON *child = cJSON_GetObjectItemCaseSensitive(json, name);
        json = child != NULL ? child : cJSON_AddObjectToObject(json, name);
        path += length + 1;
    }
}

cJSON *json_add(cJSON *parent, const char *name, cJSON *value, bool *whole)
{
    bool added = name == NULL ? cJSON_AddItemToArray(parent, value) : cJSON_AddItemToObject(parent, name, value);
    if (added)
        return value;
    cJSON_Delete(value);
    *whole = false;
    return NULL;
}

cJSON *json_add_object(cJSON *parent, const char *name, bool *whole)
{
    return json_add(parent, name, cJSON_CreateObject(), whole);
}

cJSON *json_add_list(cJSON *parent, const char *name, bool *whole)
{
    return json_add(parent, name, cJSON_CreateArray(), whole);
}

void json_add_text(cJSON *parent, const char *name, const char *text, bool *whole)
{
    json_add(parent, name, cJSON_CreateString(text), whole);
}

void json_add_number(cJSON *parent, const char *name, double number, bool *whole)
{
    json_add(parent, name, cJSON_CreateNumber(number), whole);
}

cJSON *json_exact_number(double value)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    return cJSON_CreateRaw(text);
}

cJSON *json_exact_numbers(const double *values, size_t count)
{
    cleanup_json cJSON *list = cJSON_CreateArray();
    bool whole = list != NULL;
    for (size_t i = 0; i < count; i++)
        json_add(list, NULL, json_exact_number(values[i]), &whole);
    return whole ? move(list) : NULL;
}

bool json_equal(const cJSON *a, const cJSON *b)
{
    return cJSON_Compare(a, b, true);
}
