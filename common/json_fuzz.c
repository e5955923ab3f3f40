/* Any bytes as JSON: what is understood survives being written and read again, also by a path. */
#include "common/json.h"
#include "common/test/fuzz.h"

#include <math.h>
#include <string.h>

static void check_round_trip(const cJSON *json)
{
    cleanup_free char *text = json_print(json);
    require_with_memory(text != NULL);
    if (text == NULL)
        return;
    struct error err = {0};
    cleanup_json cJSON *again = json_parse(text, strlen(text), "again", &err);
    require_with_memory(again != NULL);
    cleanup_free char *second = again == NULL ? NULL : json_print(again);
    if (second != NULL)
        require(strcmp(text, second) == 0);
}

static void check_number(double value)
{
    if (!isfinite(value))
        return;
    cleanup_json cJSON *number = json_exact_number(value);
    if (number != NULL)
        require(strtod(number->valuestring, NULL) == value);
}

/* Every way to read finds something or gives the default. */
static void check_reading(const cJSON *json)
{
    const char *name = json->child == NULL || json->child->string == NULL ? "a" : json->child->string;
    if (json->child != NULL && strchr(name, '.') == NULL && cJSON_IsObject(json))
        require(json_at(json, name) == json->child);
    (void)json_string(json, name, "");
    (void)json_bool(json, name, false);
    (void)json_find(json, name, "a");
    int64_t whole = json_int(json, name, -1);
    require(whole >= -(INT64_C(1) << 53) && whole <= INT64_C(1) << 53);
    check_number(json_number(json, name, 0.1));
}

/* What is put at a path is there, or nothing has changed hands. */
static void check_putting(cJSON *json)
{
    struct error err = {0};
    const char *last = json->child == NULL || json->child->string == NULL ? "b" : json->child->string;
    char path[256];
    snprintf(path, sizeof path, "a.%s", last);
    int result = json_put(json, path, cJSON_CreateTrue(), &err);
    require((result < 0) == (error_message(&err)[0] != '\0'));
    require(result < 0 || json_bool(json, path, false));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    cleanup_json cJSON *json = json_parse((const char *)data, size, "the input", &err);
    require((json == NULL) == (error_message(&err)[0] != '\0'));
    if (json == NULL)
        return 0;
    check_round_trip(json);
    check_reading(json);
    check_putting(json);
    return 0;
}
