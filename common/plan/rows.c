#include "common/plan/rows.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const cJSON *place_value(const struct source *source, const struct place *place)
{
    const cJSON *item = NULL;
    if (source->plan == NULL) {
        item = json_at(place->of_dataset ? source->dataset : source->trainjob, place->path);
    } else if (place->plan_path != NULL) {
        item = json_at(source->plan, place->plan_path);
    } else {
        const cJSON *root = place->of_dataset ? json_at(source->plan, "dataset") : source->plan;
        item = json_at(root, place->path + strlen("spec."));
    }
    return cJSON_IsNull(item) ? NULL : item;
}

static int check_number(const struct number_row *row, const cJSON *item, double *out, struct error *err)
{
    double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    bool fits = (row->above ? value > row->least : value >= row->least) &&
                (row->below ? value < row->most : value <= row->most) && (row->type == F64 || trunc(value) == value);
    if (!fits)
        return error_set(err, "%s: must be a %snumber %s %.15g and %s %.15g", row->place.path,
                         row->type == F64 ? "" : "whole ", row->above ? "above" : "at least", row->least,
                         row->below ? "below" : "at most", row->most);
    *out = value;
    return 0;
}

int read_number(void *into, const struct source *source, const struct number_row *row, struct error *err)
{
    const cJSON *item = place_value(source, &row->place);
    double value = row->fallback;
    if (item == NULL && !row->optional)
        return error_set(err, "%s: is missing", row->place.path);
    if (item != NULL && check_number(row, item, &value, err) < 0)
        return -1;
    void *member = (char *)into + row->offset;
    if (row->type == U32)
        *(uint32_t *)member = (uint32_t)value;
    else if (row->type == U64)
        *(uint64_t *)member = (uint64_t)value;
    else
        *(double *)member = value;
    return 0;
}

int read_numbers(void *into, const struct source *source, const struct number_row *rows, size_t count,
                 struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (read_number(into, source, &rows[i], err) < 0)
            return -1;
    return 0;
}

double row_value(const void *from, const struct number_row *row)
{
    const void *member = (const char *)from + row->offset;
    if (row->type == U32)
        return *(const uint32_t *)member;
    if (row->type == U64)
        return (double)*(const uint64_t *)member;
    return *(const double *)member;
}

int read_flag(const struct source *source, const struct place *place, bool fallback, bool *out, struct error *err)
{
    const cJSON *item = place_value(source, place);
    if (item != NULL && !cJSON_IsBool(item))
        return error_set(err, "%s: must be true or false", place->path);
    *out = item != NULL ? cJSON_IsTrue(item) != 0 : fallback;
    return 0;
}

int read_text(const struct source *source, const struct place *place, size_t most, bool optional, char **out,
              struct error *err)
{
    const cJSON *item = place_value(source, place);
    if (item == NULL && optional)
        return 0;
    const char *text = cJSON_GetStringValue(item);
    if (text == NULL || text[0] == '\0')
        return error_set(err, "%s: is missing", place->path);
    if (strlen(text) > most)
        return error_set(err, "%s: is longer than %zu characters", place->path, most);
    *out = strdup(text);
    return *out == NULL ? error_set(err, "out of memory") : 0;
}

/* No leading '/', no ".." as a part. */
static bool is_inside(const char *path)
{
    if (path[0] == '/')
        return false;
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        if (length == 2 && strncmp(path, "..", 2) == 0)
            return false;
        path += length;
        path += *path == '/';
    }
    return true;
}

int read_path(const struct source *source, const struct place *place, bool optional, char **out, struct error *err)
{
    if (read_text(source, place, PLAN_PATH_MOST, optional, out, err) < 0)
        return -1;
    if (*out != NULL && !is_inside(*out))
        return error_set(err, "%s: must be a relative path without '..'", place->path);
    return 0;
}

int read_choice(const struct source *source, const struct place *place, const char *const *choices, size_t count,
                int fallback, uint32_t *out, struct error *err)
{
    const cJSON *item = place_value(source, place);
    if (item == NULL && fallback >= 0) {
        *out = (uint32_t)fallback;
        return 0;
    }
    const char *text = cJSON_GetStringValue(item);
    char list[160] = "";
    for (size_t i = 0, length = 0; i < count; i++) {
        if (text != NULL && strcmp(text, choices[i]) == 0) {
            *out = (uint32_t)i;
            return 0;
        }
        if (length < sizeof list)
            length += (size_t)snprintf(list + length, sizeof list - length, "%s\"%s\"", i == 0 ? "" : ", ", choices[i]);
    }
    return error_set(err, "%s: Unsupported value: \"%.60s\": supported values: %s", place->path,
                     text != NULL ? text : "", list);
}
