/* json — short ways to read and build cJSON trees.
 *
 * A path names members with dots ("spec.model.zoo"); absent members, a wrong type and NULL trees all read as the
 * default, so that observed objects of any shape can be looked at without a ladder of checks.
 */
#ifndef THOLE_COMMON_JSON_H
#define THOLE_COMMON_JSON_H

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/error.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

CLEANUP_DEFINE(cleanup_json_pointer, cJSON, cJSON_Delete)
#define cleanup_json CLEANUP(cleanup_json_pointer)

/* NULL with *err naming `what` and the place of the mistake. */
cJSON *json_parse(const char *text, size_t length, const char *what, struct error *err);
cJSON *json_read_file(const char *path, size_t most_bytes, struct error *err);

/* Compact text, to be freed; NULL without memory. */
char *json_print(const cJSON *json);

const cJSON *json_at(const cJSON *json, const char *path); /* NULL where there is none */
const char *json_string(const cJSON *json, const char *path, const char *fallback);
int64_t json_int(const cJSON *json, const char *path, int64_t fallback); /* fallback too where it is not whole */
double json_number(const cJSON *json, const char *path, double fallback);
bool json_bool(const cJSON *json, const char *path, bool fallback);

/* The first object of a list whose member `name` is the string `value`, or NULL: a condition by its type. */
const cJSON *json_find(const cJSON *list, const char *name, const char *value);

/* Adds or replaces `value` (taken over, also on failure) at a path, making the objects on the way. */
int json_put(cJSON *json, const char *path, cJSON *value, struct error *err);

/* Adds `value` (taken over, also on failure) to an object under `name`, or to a list where that is NULL, and returns
 * it. Where that fails, for want of memory, here or in making `value` or its parent, *whole becomes false: so a tree is
 * built without looking back, and asked once at its end whether all of it is there. */
cJSON *json_add(cJSON *parent, const char *name, cJSON *value, bool *whole);
cJSON *json_add_object(cJSON *parent, const char *name, bool *whole);
cJSON *json_add_list(cJSON *parent, const char *name, bool *whole);
void json_add_text(cJSON *parent, const char *name, const char *text, bool *whole);
void json_add_number(cJSON *parent, const char *name, double number, bool *whole);

/* Numbers with as many digits as it takes to read the same double again, and no more: cJSON's own printing may drop the
 * last bit. NULL without memory. */
cJSON *json_exact_number(double value);
cJSON *json_exact_numbers(const double *values, size_t count);

/* The same text and the same values in the same order of lists; the order of members does not matter. */
bool json_equal(const cJSON *a, const cJSON *b);

#endif
