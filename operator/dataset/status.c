#include "dataset/dataset.h"

#include "common/clock.h"

#include <inttypes.h>
#include <string.h>

#define FLAG "--allowed-host-paths"

static bool is_clean_path(const char *path)
{
    if (path[0] != '/')
        return false;
    for (const char *part = path; *part != '\0';) {
        part += strspn(part, "/");
        size_t length = strcspn(part, "/");
        if (length == 2 && strncmp(part, "..", 2) == 0)
            return false;
        part += length;
    }
    return true;
}

int host_paths_parse(struct host_paths *out, const char *text, struct error *err)
{
    *out = (struct host_paths){0};
    for (const char *item = text; *item != '\0';) {
        size_t length = strcspn(item, ",");
        cleanup_free char *path = strndup(item, length);
        char **items = path == NULL ? NULL : realloc(out->items, (out->count + 1) * sizeof *items);
        if (items == NULL) {
            host_paths_free(out);
            return error_set(err, FLAG ": out of memory");
        }
        out->items = items;
        if (!is_clean_path(path)) {
            host_paths_free(out);
            return error_set(err, FLAG ": '%.*s' must be an absolute path without '..'", (int)length, item);
        }
        out->items[out->count++] = move(path);
        item += length;
        item += *item == ',';
    }
    return 0;
}

void host_paths_free(struct host_paths *paths)
{
    for (size_t i = 0; i < paths->count; i++)
        free(paths->items[i]);
    free(paths->items);
    *paths = (struct host_paths){0};
}

/* The next part of a path, behind slashes and "." parts; its length, 0 at the end. */
static size_t next_part(const char **path)
{
    for (;;) {
        *path += strspn(*path, "/");
        size_t length = strcspn(*path, "/");
        if (length != 1 || **path != '.')
            return length;
        *path += 1;
    }
}

static bool is_below(const char *path, const char *allowed)
{
    for (;;) {
        size_t wanted = next_part(&allowed);
        size_t length = next_part(&path);
        if (wanted == 0)
            return true;
        if (length != wanted || strncmp(path, allowed, length) != 0)
            return false;
        path += length;
        allowed += wanted;
    }
}

int host_paths_check(const struct host_paths *paths, const char *path, const char *field, struct error *err)
{
    if (!is_clean_path(path))
        return error_set(err, "%s: '%s' must be an absolute path without '..'", field, path);
    for (size_t i = 0; i < paths->count; i++)
        if (is_below(path, paths->items[i]))
            return 0;
    if (paths->count == 0)
        return error_set(err,
                         "%s: '%s' is not allowed, because the operator allows no host paths; use a "
                         "persistentVolumeClaim, or have the operator started with " FLAG "=%s",
                         field, path, path);
    char list[512] = "";
    for (size_t i = 0, length = 0; i < paths->count && length < sizeof list; i++)
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", i == 0 ? "" : ", ", paths->items[i]);
    return error_set(err,
                     "%s: '%s' is not below one of the operator's " FLAG " (%s); move the files there, or have "
                     "the path added to that flag",
                     field, path, list);
}

/* ---- status ---- */

/* lastTransitionTime stays as long as the condition's status does. */
static void add_condition(cJSON *list, const cJSON *old_status, const char *type, bool holds, const char *reason,
                          const char *message, int64_t now, bool *whole)
{
    char time[RFC3339_SIZE];
    time_format_rfc3339(now, time);
    const char *value = holds ? "True" : "False";
    const cJSON *old = json_find(json_at(old_status, "conditions"), "type", type);
    bool same = old != NULL && strcmp(json_string(old, "status", ""), value) == 0;
    const char *since = same ? json_string(old, "lastTransitionTime", time) : time;
    cJSON *condition = json_add_object(list, NULL, whole);
    json_add_text(condition, "type", type, whole);
    json_add_text(condition, "status", value, whole);
    json_add_text(condition, "reason", reason, whole);
    json_add_text(condition, "message", message, whole);
    json_add_text(condition, "lastTransitionTime", since, whole);
}

cJSON *dataset_status(const cJSON *dataset, const struct host_paths *allowed, int64_t now)
{
    const cJSON *old = json_at(dataset, "status");
    const char *path = json_string(dataset, "spec.source.hostPath.path", NULL);
    struct error why = {0};
    bool fits = path == NULL || host_paths_check(allowed, path, "spec.source.hostPath.path", &why) == 0;
    const char *reason = fits ? "SourceAccepted" : "SourceNotAllowed";
    const char *message =
        fits ? "the source is acceptable; its files are read when a job trains with them" : error_message(&why);

    bool whole = true;
    double generation = (double)json_int(dataset, "metadata.generation", 0);
    cleanup_json cJSON *status = cJSON_CreateObject();
    json_add_number(status, "observedGeneration", generation, &whole);
    json_add_text(status, "phase", fits ? "Ready" : "Failed", &whole);
    json_add_text(status, "message", message, &whole);
    cJSON *conditions = json_add_list(status, "conditions", &whole);
    add_condition(conditions, old, "Ready", fits, reason, message, now, &whole);
    add_condition(conditions, old, "Stalled", !fits, reason, message, now, &whole);
    return whole ? move(status) : NULL;
}

bool dataset_is_ready(const cJSON *dataset, char *sentence, size_t size)
{
    const char *name = json_string(dataset, "metadata.name", "");
    const char *phase = json_string(dataset, "status.phase", "");
    if (json_at(dataset, "metadata.deletionTimestamp") != NULL) {
        snprintf(sentence, size, "Dataset '%s' is being deleted", name);
        return false;
    }
    if (strcmp(phase, "Ready") == 0)
        return true;
    if (strcmp(phase, "Failed") == 0)
        snprintf(sentence, size, "Dataset '%s' cannot be used: %s", name, json_string(dataset, "status.message", ""));
    else
        snprintf(sentence, size, "Dataset '%s' is not ready yet", name);
    return false;
}
