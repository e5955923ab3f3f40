#include "common/manifest/schema.h"

#include "common/manifest/cel.h"
#include "common/manifest/value.h"

#include <math.h>
#include <string.h>

enum { PATH_MOST = 512 };

static int check(cJSON *value, const cJSON *schema, const char *path, struct error *err);

/* The value in a sentence, as the API server prints it: strings quoted, lists and objects by their kind. */
static void describe(const cJSON *value, char out[80])
{
    if (cJSON_IsObject(value)) {
        snprintf(out, 80, "\"object\"");
    } else if (cJSON_IsArray(value)) {
        snprintf(out, 80, "\"array\"");
    } else {
        cleanup_free char *text = json_print(value);
        snprintf(out, 80, "%.79s", text == NULL ? "?" : text);
    }
}

static int invalid(const cJSON *value, const char *path, struct error *err, const char *sentence)
{
    char text[80];
    describe(value, text);
    return error_set(err, "%s: Invalid value: %s: %s", path, text, sentence);
}

static int beyond(const cJSON *value, const char *path, struct error *err, const char *relation, double bound)
{
    char sentence[96];
    snprintf(sentence, sizeof sentence, "should be %s %.15g", relation, bound);
    return invalid(value, path, err, sentence);
}

static void join(char out[PATH_MOST], const char *path, const char *name)
{
    snprintf(out, PATH_MOST, "%s%s%s", path, path[0] == '\0' ? "" : ".", name);
}

static bool has_type(const cJSON *value, const char *type)
{
    if (strcmp(type, "object") == 0)
        return cJSON_IsObject(value);
    if (strcmp(type, "array") == 0)
        return cJSON_IsArray(value);
    if (strcmp(type, "string") == 0)
        return cJSON_IsString(value);
    if (strcmp(type, "boolean") == 0)
        return cJSON_IsBool(value);
    if (strcmp(type, "integer") == 0)
        return cJSON_IsNumber(value) && trunc(value->valuedouble) == value->valuedouble;
    return strcmp(type, "number") == 0 && cJSON_IsNumber(value);
}

static int check_type(const cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    char sentence[80];
    if (json_bool(schema, "x-kubernetes-int-or-string", false)) {
        if (has_type(value, "integer") || has_type(value, "string"))
            return 0;
        return invalid(value, path, err, "must be of type integer or string");
    }
    const char *type = json_string(schema, "type", NULL);
    if (type == NULL || has_type(value, type))
        return 0;
    snprintf(sentence, sizeof sentence, "must be of type %s", type);
    return invalid(value, path, err, sentence);
}

static int check_enum(const cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    const cJSON *allowed = json_at(schema, "enum");
    if (allowed == NULL)
        return 0;
    char list[256] = "";
    size_t length = 0;
    const cJSON *word = NULL;
    cJSON_ArrayForEach(word, allowed)
    {
        if (json_equal(value, word))
            return 0;
        char text[80];
        describe(word, text);
        if (length < sizeof list)
            length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", length == 0 ? "" : ", ", text);
    }
    char text[80];
    describe(value, text);
    return error_set(err, "%s: Unsupported value: %s: supported values: %s", path, text, list);
}

static int check_number(const cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    double number = value->valuedouble;
    double least = json_number(schema, "minimum", -INFINITY);
    double most = json_number(schema, "maximum", INFINITY);
    bool above = json_bool(schema, "exclusiveMinimum", false);
    bool below = json_bool(schema, "exclusiveMaximum", false);
    if (!(above ? number > least : number >= least))
        return beyond(value, path, err, above ? "greater than" : "greater than or equal to", least);
    if (!(below ? number < most : number <= most))
        return beyond(value, path, err, below ? "less than" : "less than or equal to", most);
    return 0;
}

static int check_string(const cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    double length = (double)value_text_length(value->valuestring);
    double least = json_number(schema, "minLength", 0);
    double most = json_number(schema, "maxLength", INFINITY);
    char sentence[96];
    if (length < least) {
        snprintf(sentence, sizeof sentence, "should be at least %.0f chars long", least);
        return invalid(value, path, err, sentence);
    }
    if (length > most)
        return error_set(err, "%s: Too long: may not be more than %.0f bytes", path, most);
    return 0;
}

/* Sets: no two items are equal. */
static int check_set(const cJSON *value, const char *path, struct error *err)
{
    size_t index = 0;
    for (const cJSON *item = value->child; item != NULL; item = item->next, index++) {
        for (const cJSON *earlier = value->child; earlier != item; earlier = earlier->next) {
            if (json_equal(item, earlier)) {
                char text[80];
                describe(item, text);
                return error_set(err, "%s[%zu]: Duplicate value: %s", path, index, text);
            }
        }
    }
    return 0;
}

/* List maps: no two items have equal keys. */
static int check_unique(const cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    if (strcmp(json_string(schema, "x-kubernetes-list-type", ""), "set") == 0)
        return check_set(value, path, err);
    const cJSON *keys = json_at(schema, "x-kubernetes-list-map-keys");
    if (keys == NULL || keys->child == NULL || keys->child->valuestring == NULL)
        return 0;
    const char *key = keys->child->valuestring;
    size_t index = 0;
    for (const cJSON *item = value->child; item != NULL; item = item->next, index++)
        for (const cJSON *earlier = value->child; earlier != item; earlier = earlier->next)
            if (json_equal(json_at(item, key), json_at(earlier, key)))
                return error_set(err, "%s[%zu]: Duplicate value: {\"%s\":\"%s\"}", path, index, key,
                                 json_string(item, key, "?"));
    return 0;
}

static int check_array(cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    int count = cJSON_GetArraySize(value);
    double least = json_number(schema, "minItems", 0);
    double most = json_number(schema, "maxItems", INFINITY);
    if (count < least)
        return error_set(err, "%s: Invalid value: %d: should have at least %.0f items", path, count, least);
    if (count > most)
        return error_set(err, "%s: Too many: %d: must have at most %.0f items", path, count, most);
    size_t index = 0;
    for (cJSON *item = value->child; item != NULL; item = item->next, index++) {
        char at[PATH_MOST];
        snprintf(at, sizeof at, "%s[%zu]", path, index);
        if (check(item, json_at(schema, "items"), at, err) < 0)
            return -1;
    }
    return check_unique(value, schema, path, err);
}

/* The schema of a member, NULL where it is unknown. */
static const cJSON *member_schema(const cJSON *schema, const char *name)
{
    const cJSON *properties = json_at(schema, "properties");
    const cJSON *known = cJSON_GetObjectItemCaseSensitive(properties, name);
    return known != NULL ? known : json_at(schema, "additionalProperties");
}

/* A null stands for absence, as it does in the API server. */
static int fill_defaults(cJSON *value, const cJSON *schema, struct error *err)
{
    const cJSON *properties = json_at(schema, "properties");
    const cJSON *property = NULL;
    cJSON_ArrayForEach(property, properties)
    {
        const cJSON *given = cJSON_GetObjectItemCaseSensitive(value, property->string);
        const cJSON *preset = json_at(property, "default");
        if (given != NULL && !cJSON_IsNull(given))
            continue;
        cJSON_DeleteItemFromObjectCaseSensitive(value, property->string);
        if (preset == NULL)
            continue;
        cJSON *copy = cJSON_Duplicate(preset, true);
        if (copy == NULL || !cJSON_AddItemToObject(value, property->string, copy)) {
            cJSON_Delete(copy);
            return error_set(err, "out of memory");
        }
    }
    return 0;
}

static int check_required(const cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    const cJSON *name = NULL;
    cJSON_ArrayForEach(name, json_at(schema, "required"))
    {
        if (cJSON_GetObjectItemCaseSensitive(value, name->valuestring) == NULL) {
            char at[PATH_MOST];
            join(at, path, name->valuestring);
            return error_set(err, "%s: Required value", at);
        }
    }
    return 0;
}

static int check_object(cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    if (fill_defaults(value, schema, err) < 0 || check_required(value, schema, path, err) < 0)
        return -1;
    double most = json_number(schema, "maxProperties", INFINITY);
    if (cJSON_GetArraySize(value) > most)
        return error_set(err, "%s: Too many: must have at most %.0f items", path, most);
    for (cJSON *item = value->child; item != NULL; item = item->next) {
        char at[PATH_MOST];
        join(at, path, item->string);
        if (strcmp(at, "metadata") == 0)
            continue; /* every object's, and no schema's */
        const cJSON *expected = member_schema(schema, item->string);
        if (expected == NULL)
            return error_set(err, "%s: unknown field", at);
        if (check(item, expected, at, err) < 0)
            return -1;
    }
    return 0;
}

static int broken_rule(const cJSON *value, const cJSON *rule, const char *path, struct error *err)
{
    const char *message = json_string(rule, "message", "");
    const char *reason = json_string(rule, "reason", "");
    char at[PATH_MOST];
    snprintf(at, sizeof at, "%s%s", path, json_string(rule, "fieldPath", ""));
    if (at[0] == '\0')
        return error_set(err, "%s", message);
    if (strcmp(reason, "FieldValueRequired") == 0)
        return error_set(err, "%s: Required value: %s", at, message);
    if (strcmp(reason, "FieldValueForbidden") == 0)
        return error_set(err, "%s: Forbidden: %s", at, message);
    return invalid(value, at, err, message);
}

/* Rules of changes have nothing to say: there is nothing that was before. */
static bool is_of_changes(const cJSON *rule)
{
    return strstr(json_string(rule, "rule", ""), "oldSelf") != NULL;
}

static int check_rules(const cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    const cJSON *rule = NULL;
    cJSON_ArrayForEach(rule, json_at(schema, "x-kubernetes-validations"))
    {
        bool holds = false;
        if (is_of_changes(rule))
            continue;
        struct error why = {0};
        if (cel_holds(&holds, json_string(rule, "rule", ""), value, &why) < 0)
            return error_set(err, "%s: %s", path, error_message(&why));
        if (!holds)
            return broken_rule(value, rule, path, err);
    }
    return 0;
}

static int check_content(cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    if (cJSON_IsObject(value))
        return check_object(value, schema, path, err);
    if (cJSON_IsArray(value))
        return check_array(value, schema, path, err);
    if (cJSON_IsNumber(value))
        return check_number(value, schema, path, err);
    return cJSON_IsString(value) ? check_string(value, schema, path, err) : 0;
}

static int check(cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    if (check_type(value, schema, path, err) < 0 || check_enum(value, schema, path, err) < 0)
        return -1;
    return check_content(value, schema, path, err) < 0 ? -1 : check_rules(value, schema, path, err);
}

int schema_apply(cJSON *value, const cJSON *schema, const char *path, struct error *err)
{
    return check(value, schema, path, err);
}

static bool is_known(const char *name)
{
    static const char *const keywords[] = {
        "type",
        "properties",
        "additionalProperties",
        "required",
        "enum",
        "default",
        "minimum",
        "maximum",
        "minLength",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "maxLength",
        "minItems",
        "maxItems",
        "maxProperties",
        "items",
        "format",
        "description",
        "x-kubernetes-int-or-string",
        "x-kubernetes-validations",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
    };
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
        if (strcmp(name, keywords[i]) == 0)
            return true;
    return false;
}

int schema_understood(const cJSON *schema, struct error *err)
{
    for (const cJSON *item = schema->child; item != NULL; item = item->next)
        if (!is_known(item->string))
            return error_set(err, "the keyword '%s' is not understood", item->string);
    const cJSON *rule = NULL;
    cJSON_ArrayForEach(rule, json_at(schema, "x-kubernetes-validations"))
    {
        if (cel_understood(json_string(rule, "rule", ""), err) < 0)
            return -1;
    }
    const cJSON *property = NULL;
    cJSON_ArrayForEach(property, json_at(schema, "properties")) if (schema_understood(property, err) < 0) return -1;
    static const char *const nested[] = {"items", "additionalProperties"};
    for (size_t i = 0; i < 2; i++) {
        const cJSON *child = json_at(schema, nested[i]);
        if (child != NULL && schema_understood(child, err) < 0)
            return -1;
    }
    return 0;
}
