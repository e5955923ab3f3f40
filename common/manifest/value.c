#include "common/manifest/value.h"

#include <regex.h>
#include <string.h>

struct value value_fault(struct value_pool *pool, const char *why)
{
    if (pool->why == NULL)
        pool->why = why;
    return no_value;
}

struct value value_of_bool(bool truth)
{
    return (struct value){.kind = VALUE_BOOL, .truth = truth};
}

struct value value_of_json(const cJSON *json)
{
    if (json == NULL)
        return (struct value){.kind = VALUE_ERROR, .absent = true};
    if (cJSON_IsBool(json))
        return value_of_bool(cJSON_IsTrue(json));
    if (cJSON_IsNumber(json))
        return (struct value){.kind = VALUE_NUMBER, .number = json->valuedouble};
    if (cJSON_IsString(json))
        return (struct value){.kind = VALUE_TEXT, .text = json->valuestring};
    return (struct value){.kind = VALUE_TREE, .tree = json};
}

struct value value_keep(struct value_pool *pool, cJSON *json)
{
    if (json == NULL || !cJSON_AddItemToArray(pool->made, json)) {
        cJSON_Delete(json);
        return value_fault(pool, "out of memory");
    }
    return value_of_json(json);
}

cJSON *value_to_json(const struct value *value)
{
    switch (value->kind) {
    case VALUE_BOOL:
        return cJSON_CreateBool(value->truth);
    case VALUE_NUMBER:
        return cJSON_CreateNumber(value->number);
    case VALUE_TEXT:
        return cJSON_CreateString(value->text);
    case VALUE_TREE:
        return cJSON_Duplicate(value->tree, true);
    default:
        return NULL;
    }
}

size_t value_text_length(const char *text)
{
    size_t length = 0;
    for (; *text != '\0'; text++)
        length += ((unsigned char)*text & 0xC0) != 0x80;
    return length;
}

/* ---- trees ---- */

struct value value_equal(const struct value *a, const struct value *b)
{
    if (a->kind != b->kind || a->kind == VALUE_ERROR)
        return no_value;
    if (a->kind == VALUE_TEXT)
        return value_of_bool(strcmp(a->text, b->text) == 0);
    if (a->kind == VALUE_TREE)
        return value_of_bool(json_equal(a->tree, b->tree));
    return value_of_bool(a->kind == VALUE_BOOL ? a->truth == b->truth : a->number == b->number);
}

struct value value_is_in(const struct value *a, const struct value *list)
{
    if (a->kind == VALUE_ERROR || list->kind != VALUE_TREE)
        return no_value;
    for (const cJSON *item = list->tree->child; item != NULL; item = item->next) {
        struct value other =
            cJSON_IsArray(list->tree) ? value_of_json(item) : (struct value){.kind = VALUE_TEXT, .text = item->string};
        if (value_equal(a, &other).truth)
            return value_of_bool(true);
    }
    return value_of_bool(false);
}

struct value value_member(const struct value *value, const char *name, size_t length)
{
    if (value->kind != VALUE_TREE || !cJSON_IsObject(value->tree))
        return no_value;
    for (const cJSON *item = value->tree->child; item != NULL; item = item->next)
        if (strlen(item->string) == length && strncmp(item->string, name, length) == 0)
            return value_of_json(item);
    return value_of_json(NULL);
}

struct value value_element(const struct value *value, const struct value *index)
{
    if (value->kind == VALUE_TREE && cJSON_IsArray(value->tree) && index->kind == VALUE_NUMBER && index->number >= 0)
        return value_of_json(cJSON_GetArrayItem(value->tree, (int)index->number));
    if (index->kind == VALUE_TEXT)
        return value_member(value, index->text, strlen(index->text));
    return no_value;
}

/* ---- quantities ---- */

/* "500m", "1Gi", "2e3"; false where it is none. */
static bool read_quantity(const char *text, double *out)
{
    static const struct {
        const char *suffix;
        double factor;
    } units[] = {
        {"", 1},        {"n", 1e-9},    {"u", 1e-6},    {"m", 1e-3},    {"k", 1e3},     {"M", 1e6},
        {"G", 1e9},     {"T", 1e12},    {"P", 1e15},    {"E", 1e18},    {"Ki", 0x1p10}, {"Mi", 0x1p20},
        {"Gi", 0x1p30}, {"Ti", 0x1p40}, {"Pi", 0x1p50}, {"Ei", 0x1p60},
    };
    size_t sign = strspn(text, "+-") > 0 ? 1 : 0;
    size_t digits = strspn(text + sign, "0123456789.");
    bool has_digit = strcspn(text + sign, "0123456789") < digits;
    const char *rest = text + sign + digits;
    const char *dot = memchr(text + sign, '.', digits);
    if (!has_digit || (dot != NULL && memchr(dot + 1, '.', (size_t)(rest - dot - 1)) != NULL))
        return false;
    if ((*rest == 'e' || *rest == 'E') && rest[1] != '\0') { /* an exponent; "E" alone is exa */
        const char *exponent = rest + 1 + (strspn(rest + 1, "+-") > 0 ? 1 : 0);
        size_t length = strspn(exponent, "0123456789");
        if (length == 0 || exponent[length] != '\0')
            return false;
        *out = strtod(text, NULL);
        return true;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(rest, units[i].suffix) == 0) {
            *out = strtod(text, NULL) * units[i].factor;
            return true;
        }
    }
    return false;
}

/* ---- functions ---- */

struct value value_size(const struct value *value)
{
    if (value->kind == VALUE_TEXT)
        return (struct value){.kind = VALUE_NUMBER, .number = (double)value_text_length(value->text)};
    if (value->kind == VALUE_TREE)
        return (struct value){.kind = VALUE_NUMBER, .number = cJSON_GetArraySize(value->tree)};
    return no_value;
}

static struct value string_of(struct value_pool *pool, const struct value *value)
{
    if (value->kind != VALUE_NUMBER)
        return value->kind == VALUE_TEXT ? *value : no_value;
    char text[40];
    snprintf(text, sizeof text, "%.17g", value->number);
    return value_keep(pool, cJSON_CreateString(text));
}

struct value value_call(struct value_pool *pool, const char *name, const struct value *argument)
{
    double number = 0;
    if (strcmp(name, "has") == 0) {
        if (argument->kind != VALUE_ERROR)
            return value_of_bool(true);
        return argument->absent ? value_of_bool(false) : no_value;
    }
    if (strcmp(name, "size") == 0)
        return value_size(argument);
    if (strcmp(name, "string") == 0)
        return string_of(pool, argument);
    bool is_check = strcmp(name, "isQuantity") == 0;
    if (!is_check && strcmp(name, "quantity") != 0)
        return value_fault(pool, "a function is unknown");
    if (argument->kind != VALUE_TEXT)
        return no_value;
    bool is_quantity = read_quantity(argument->text, &number);
    if (is_check)
        return value_of_bool(is_quantity);
    return is_quantity ? (struct value){.kind = VALUE_QUANTITY, .number = number} : no_value;
}

static struct value matches(struct value_pool *pool, const char *text, const char *pattern)
{
    regex_t regex;
    if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        return value_fault(pool, "a pattern is not understood");
    bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return value_of_bool(found);
}

static struct value split(struct value_pool *pool, const char *text, const char *by)
{
    cleanup_json cJSON *list = cJSON_CreateArray();
    bool whole = by[0] != '\0';
    for (const char *part = text; whole && part != NULL;) {
        const char *end = strstr(part, by);
        cleanup_free char *copy = end == NULL ? strdup(part) : strndup(part, (size_t)(end - part));
        json_add_text(list, NULL, copy, &whole);
        part = end == NULL ? NULL : end + strlen(by);
    }
    return whole ? value_keep(pool, move(list)) : no_value;
}

/* A member function of one text. */
static struct value call_on_text(struct value_pool *pool, const char *name, const struct value *self,
                                 const struct value *argument)
{
    bool fits = self->kind == VALUE_TEXT && argument->kind == VALUE_TEXT;
    if (strcmp(name, "startsWith") == 0)
        return fits ? value_of_bool(strncmp(self->text, argument->text, strlen(argument->text)) == 0) : no_value;
    if (strcmp(name, "contains") == 0)
        return fits ? value_of_bool(strstr(self->text, argument->text) != NULL) : no_value;
    if (strcmp(name, "matches") == 0)
        return fits ? matches(pool, self->text, argument->text) : no_value;
    if (strcmp(name, "split") == 0)
        return fits ? split(pool, self->text, argument->text) : no_value;
    return value_fault(pool, "a function is unknown");
}

struct value value_call_member(struct value_pool *pool, const char *name, const struct value *self,
                               const struct value *argument)
{
    bool less = strcmp(name, "isLessThan") == 0;
    if (!less && strcmp(name, "isGreaterThan") != 0)
        return call_on_text(pool, name, self, argument);
    if (self->kind != VALUE_QUANTITY || argument->kind != VALUE_QUANTITY)
        return no_value;
    return value_of_bool(less ? self->number < argument->number : self->number > argument->number);
}
