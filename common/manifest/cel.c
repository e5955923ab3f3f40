#include "common/manifest/cel.h"

#include <ctype.h>
#include <regex.h>
#include <string.h>

/* The rules are read and evaluated in one go, as often as a macro repeats its body. What does not decide (the other
 * side of a short-circuit) is read all the same, with `off` above 0: it looks nothing up, and its value is an error. */

enum kind { ERROR, BOOL, NUMBER, QUANTITY, TEXT, TREE };

struct value {
    enum kind kind;
    bool absent; /* of an ERROR: the last member selected is missing, nothing worse */
    bool truth;
    double number;
    const char *text;
    const cJSON *tree; /* a list or an object */
};

struct variable {
    const char *name;
    size_t length;
    struct value value;
    const struct variable *outer;
};

enum { DEPTH_MOST = 64, WORD_MOST = 24 };

struct cel {
    const char *at;
    const struct variable *variables;
    cJSON *made; /* texts and lists made on the way: an array that owns them */
    int off, depth;
    const char *why; /* the first thing that is not understood */
};

static const struct value no_value = {.kind = ERROR};

static struct value expression(struct cel *cel);

static struct value fault(struct cel *cel, const char *why)
{
    if (cel->why == NULL)
        cel->why = why;
    return no_value;
}

static struct value of_bool(bool truth)
{
    return (struct value){.kind = BOOL, .truth = truth};
}

static struct value of_json(const cJSON *json)
{
    if (json == NULL)
        return (struct value){.kind = ERROR, .absent = true};
    if (cJSON_IsBool(json))
        return of_bool(cJSON_IsTrue(json));
    if (cJSON_IsNumber(json))
        return (struct value){.kind = NUMBER, .number = json->valuedouble};
    if (cJSON_IsString(json))
        return (struct value){.kind = TEXT, .text = json->valuestring};
    return (struct value){.kind = TREE, .tree = json};
}

/* Takes `json` over for the time of the evaluation. */
static struct value keep(struct cel *cel, cJSON *json)
{
    if (json == NULL || !cJSON_AddItemToArray(cel->made, json)) {
        cJSON_Delete(json);
        return fault(cel, "out of memory");
    }
    return of_json(json);
}

static cJSON *to_json(const struct value *value)
{
    switch (value->kind) {
    case BOOL:
        return cJSON_CreateBool(value->truth);
    case NUMBER:
        return cJSON_CreateNumber(value->number);
    case TEXT:
        return cJSON_CreateString(value->text);
    case TREE:
        return cJSON_Duplicate(value->tree, true);
    default:
        return NULL;
    }
}

size_t cel_text_length(const char *text)
{
    size_t length = 0;
    for (; *text != '\0'; text++)
        length += ((unsigned char)*text & 0xC0) != 0x80;
    return length;
}

/* ---- reading ---- */

static void skip_space(struct cel *cel)
{
    cel->at += strspn(cel->at, " \t\r\n");
}

/* Is this sign next? It is taken then. `but`: no sign goes on with one of these. */
static bool take(struct cel *cel, const char *sign)
{
    skip_space(cel);
    size_t length = strlen(sign);
    if (strncmp(cel->at, sign, length) != 0)
        return false;
    bool is_word = isalpha((unsigned char)sign[0]) != 0;
    char next = cel->at[length];
    if (is_word && (isalnum((unsigned char)next) || next == '_'))
        return false;
    cel->at += length;
    return true;
}

static void expect(struct cel *cel, const char *sign)
{
    if (!take(cel, sign))
        fault(cel, "a sign is missing");
}

static size_t word_length(const struct cel *cel)
{
    size_t length = 0;
    while (isalnum((unsigned char)cel->at[length]) || cel->at[length] == '_')
        length++;
    return isdigit((unsigned char)cel->at[0]) ? 0 : length;
}

/* The next word, into `out`; empty where there is none or it is longer than any that is known. */
static void take_word(struct cel *cel, char out[WORD_MOST])
{
    skip_space(cel);
    size_t length = word_length(cel);
    snprintf(out, WORD_MOST, "%.*s", length < WORD_MOST ? (int)length : 0, cel->at);
    cel->at += length;
    if (out[0] == '\0')
        fault(cel, "a name is missing or unknown");
}

static struct value text_literal(struct cel *cel)
{
    char quote = *cel->at++;
    const char *end = strchr(cel->at, quote);
    if (end == NULL || memchr(cel->at, '\\', (size_t)(end - cel->at)) != NULL)
        return fault(cel, "a text has no end, or an escape");
    cleanup_free char *text = strndup(cel->at, (size_t)(end - cel->at));
    cel->at = end + 1;
    return keep(cel, text == NULL ? NULL : cJSON_CreateString(text));
}

static struct value number_literal(struct cel *cel)
{
    char *end = NULL;
    double number = strtod(cel->at, &end);
    cel->at = end;
    return (struct value){.kind = NUMBER, .number = number};
}

static struct value list_literal(struct cel *cel)
{
    cleanup_json cJSON *list = cJSON_CreateArray();
    bool whole = true;
    expect(cel, "[");
    while (cel->why == NULL && !take(cel, "]")) {
        struct value item = expression(cel);
        cJSON *json = to_json(&item);
        if (json == NULL || !cJSON_AddItemToArray(list, json)) {
            cJSON_Delete(json);
            whole = false;
        }
        skip_space(cel);
        if (*cel->at != ']')
            expect(cel, ",");
    }
    return whole ? keep(cel, move(list)) : no_value;
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

static struct value size_of(const struct value *value)
{
    if (value->kind == TEXT)
        return (struct value){.kind = NUMBER, .number = (double)cel_text_length(value->text)};
    if (value->kind == TREE)
        return (struct value){.kind = NUMBER, .number = cJSON_GetArraySize(value->tree)};
    return no_value;
}

static struct value string_of(struct cel *cel, const struct value *value)
{
    if (value->kind != NUMBER)
        return value->kind == TEXT ? *value : no_value;
    char text[40];
    snprintf(text, sizeof text, "%.17g", value->number);
    return keep(cel, cJSON_CreateString(text));
}

static struct value call_function(struct cel *cel, const char *name)
{
    struct value argument = expression(cel);
    double number = 0;
    expect(cel, ")");
    if (strcmp(name, "has") == 0) {
        if (argument.kind != ERROR)
            return of_bool(true);
        return argument.absent ? of_bool(false) : no_value;
    }
    if (strcmp(name, "size") == 0)
        return size_of(&argument);
    if (strcmp(name, "string") == 0)
        return string_of(cel, &argument);
    bool is_check = strcmp(name, "isQuantity") == 0;
    if (!is_check && strcmp(name, "quantity") != 0)
        return fault(cel, "a function is unknown");
    if (argument.kind != TEXT)
        return no_value;
    bool is_quantity = read_quantity(argument.text, &number);
    if (is_check)
        return of_bool(is_quantity);
    return is_quantity ? (struct value){.kind = QUANTITY, .number = number} : no_value;
}

static struct value matches(struct cel *cel, const char *text, const char *pattern)
{
    regex_t regex;
    if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        return fault(cel, "a pattern is not understood");
    bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return of_bool(found);
}

static struct value split(struct cel *cel, const char *text, const char *by)
{
    cleanup_json cJSON *list = cJSON_CreateArray();
    bool whole = by[0] != '\0';
    for (const char *part = text; whole && part != NULL;) {
        const char *end = strstr(part, by);
        cleanup_free char *copy = end == NULL ? strdup(part) : strndup(part, (size_t)(end - part));
        json_add_text(list, NULL, copy, &whole);
        part = end == NULL ? NULL : end + strlen(by);
    }
    return whole ? keep(cel, move(list)) : no_value;
}

/* A member function of one text. */
static struct value call_on_text(struct cel *cel, const char *name, const struct value *self,
                                 const struct value *argument)
{
    bool fits = self->kind == TEXT && argument->kind == TEXT;
    if (strcmp(name, "startsWith") == 0)
        return fits ? of_bool(strncmp(self->text, argument->text, strlen(argument->text)) == 0) : no_value;
    if (strcmp(name, "contains") == 0)
        return fits ? of_bool(strstr(self->text, argument->text) != NULL) : no_value;
    if (strcmp(name, "matches") == 0)
        return fits ? matches(cel, self->text, argument->text) : no_value;
    if (strcmp(name, "split") == 0)
        return fits ? split(cel, self->text, argument->text) : no_value;
    return fault(cel, "a function is unknown");
}

static struct value call_member(struct cel *cel, const char *name, const struct value *self)
{
    if (strcmp(name, "size") == 0) {
        expect(cel, ")");
        return size_of(self);
    }
    struct value argument = expression(cel);
    expect(cel, ")");
    bool less = strcmp(name, "isLessThan") == 0;
    if (less || strcmp(name, "isGreaterThan") == 0) {
        if (self->kind != QUANTITY || argument.kind != QUANTITY)
            return no_value;
        return of_bool(less ? self->number < argument.number : self->number > argument.number);
    }
    return call_on_text(cel, name, self, &argument);
}

/* ---- macros ---- */

/* One round of a macro's body, which begins at `body`. */
static struct value round_of(struct cel *cel, const char *body, struct variable *variable)
{
    cel->at = body;
    cel->variables = variable;
    struct value value = expression(cel);
    cel->variables = variable->outer;
    return value;
}

static struct value repeat(struct cel *cel, const char *name, const struct value *over)
{
    skip_space(cel);
    struct variable variable = {.name = cel->at, .length = word_length(cel), .outer = cel->variables};
    if (variable.length == 0)
        return fault(cel, "a macro names no variable");
    cel->at += variable.length;
    expect(cel, ",");
    const char *body = cel->at;
    cel->off++;
    round_of(cel, body, &variable); /* where it ends, also of an empty list */
    const char *end = cel->at;
    cel->off--;
    bool maps = strcmp(name, "map") == 0;
    cleanup_json cJSON *mapped = maps ? cJSON_CreateArray() : NULL;
    size_t count = 0, holds = 0, errors = over->kind == TREE ? 0 : 1;
    for (const cJSON *item = over->kind == TREE && cel->off == 0 ? over->tree->child : NULL; item != NULL;
         item = item->next, count++) {
        bool is_list = cJSON_IsArray(over->tree);
        variable.value = is_list ? of_json(item) : (struct value){.kind = TEXT, .text = item->string};
        struct value value = round_of(cel, body, &variable);
        holds += value.kind == BOOL && value.truth;
        cJSON *copy = maps ? to_json(&value) : NULL;
        errors += maps ? copy == NULL : value.kind != BOOL;
        cJSON_AddItemToArray(mapped, copy);
    }
    cel->at = end;
    expect(cel, ")");
    if (cel->off > 0)
        return no_value;
    if (maps)
        return errors > 0 ? no_value : keep(cel, move(mapped));
    if (strcmp(name, "all") == 0)
        return holds + errors < count ? of_bool(false) : errors > 0 ? no_value : of_bool(true);
    if (strcmp(name, "exists") == 0)
        return holds > 0 ? of_bool(true) : errors > 0 ? no_value : of_bool(false);
    return errors > 0 ? no_value : of_bool(holds == 1);
}

static bool is_macro(const char *name)
{
    return strcmp(name, "all") == 0 || strcmp(name, "exists") == 0 || strcmp(name, "exists_one") == 0 ||
           strcmp(name, "map") == 0;
}

/* ---- operators ---- */

static struct value variable_of(struct cel *cel, const char *name)
{
    for (const struct variable *variable = cel->variables; variable != NULL; variable = variable->outer)
        if (variable->length == strlen(name) && strncmp(variable->name, name, variable->length) == 0)
            return cel->off > 0 ? no_value : variable->value;
    return fault(cel, "a name is unknown");
}

static struct value primary(struct cel *cel)
{
    skip_space(cel);
    if (take(cel, "(")) {
        struct value value = expression(cel);
        expect(cel, ")");
        return value;
    }
    if (*cel->at == '[')
        return list_literal(cel);
    if (*cel->at == '\'' || *cel->at == '"')
        return text_literal(cel);
    if (isdigit((unsigned char)*cel->at))
        return number_literal(cel);
    if (take(cel, "true"))
        return of_bool(true);
    if (take(cel, "false"))
        return of_bool(false);
    char name[WORD_MOST];
    take_word(cel, name);
    if (cel->why != NULL)
        return no_value;
    return take(cel, "(") ? call_function(cel, name) : variable_of(cel, name);
}

static struct value member_of(const struct value *value, const char *name, size_t length)
{
    if (value->kind != TREE || !cJSON_IsObject(value->tree))
        return no_value;
    for (const cJSON *item = value->tree->child; item != NULL; item = item->next)
        if (strlen(item->string) == length && strncmp(item->string, name, length) == 0)
            return of_json(item);
    return of_json(NULL);
}

static struct value element_of(const struct value *value, const struct value *index)
{
    if (value->kind == TREE && cJSON_IsArray(value->tree) && index->kind == NUMBER && index->number >= 0)
        return of_json(cJSON_GetArrayItem(value->tree, (int)index->number));
    if (index->kind == TEXT)
        return member_of(value, index->text, strlen(index->text));
    return no_value;
}

static struct value postfix(struct cel *cel)
{
    struct value value = primary(cel);
    while (cel->why == NULL) {
        if (take(cel, "[")) {
            struct value index = expression(cel);
            expect(cel, "]");
            value = element_of(&value, &index);
        } else if (take(cel, ".")) {
            const char *name = cel->at;
            size_t length = word_length(cel);
            cel->at += length;
            if (length == 0)
                return fault(cel, "a member has no name");
            if (!take(cel, "(")) {
                value = member_of(&value, name, length);
                continue;
            }
            char word[WORD_MOST];
            snprintf(word, sizeof word, "%.*s", length < WORD_MOST ? (int)length : 0, name);
            value = is_macro(word) ? repeat(cel, word, &value) : call_member(cel, word, &value);
        } else {
            break;
        }
    }
    return value;
}

static struct value unary(struct cel *cel)
{
    if (take(cel, "!")) {
        struct value value = unary(cel);
        return value.kind == BOOL ? of_bool(!value.truth) : no_value;
    }
    if (take(cel, "-")) {
        struct value value = unary(cel);
        value.number = -value.number;
        return value.kind == NUMBER ? value : no_value;
    }
    return postfix(cel);
}

static struct value equal(const struct value *a, const struct value *b)
{
    if (a->kind != b->kind || a->kind == ERROR)
        return no_value;
    if (a->kind == TEXT)
        return of_bool(strcmp(a->text, b->text) == 0);
    if (a->kind == TREE)
        return of_bool(json_equal(a->tree, b->tree));
    return of_bool(a->kind == BOOL ? a->truth == b->truth : a->number == b->number);
}

static struct value is_in(const struct value *a, const struct value *list)
{
    if (a->kind == ERROR || list->kind != TREE)
        return no_value;
    for (const cJSON *item = list->tree->child; item != NULL; item = item->next) {
        struct value other =
            cJSON_IsArray(list->tree) ? of_json(item) : (struct value){.kind = TEXT, .text = item->string};
        if (equal(a, &other).truth)
            return of_bool(true);
    }
    return of_bool(false);
}

static struct value relation(struct cel *cel)
{
    static const char *const signs[] = {"==", "!=", "<=", ">=", "<", ">", "in"};
    struct value left = unary(cel);
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (!take(cel, signs[i]))
            continue;
        struct value right = unary(cel);
        if (i == 6)
            return is_in(&left, &right);
        if (i < 2) {
            struct value value = equal(&left, &right);
            value.truth = value.truth == (i == 0);
            return value;
        }
        if (left.kind != NUMBER || right.kind != NUMBER)
            return no_value;
        double a = left.number, b = right.number;
        return of_bool(i == 2 ? a <= b : i == 3 ? a >= b : i == 4 ? a < b : a > b);
    }
    return left;
}

/* && where `decides` is false, || where it is true: the value that decides alone. */
static struct value chain(struct cel *cel, const char *sign, bool decides, struct value (*operand)(struct cel *cel))
{
    struct value value = operand(cel);
    while (cel->why == NULL && take(cel, sign)) {
        bool decided = value.kind == BOOL && value.truth == decides;
        cel->off += decided;
        struct value right = operand(cel);
        cel->off -= decided;
        if (decided)
            continue;
        bool right_decides = right.kind == BOOL && right.truth == decides;
        value = right_decides || (value.kind == BOOL && right.kind == BOOL) ? right : no_value;
    }
    return value;
}

static struct value conjunction(struct cel *cel)
{
    return chain(cel, "&&", false, relation);
}

static struct value disjunction(struct cel *cel)
{
    return chain(cel, "||", true, conjunction);
}

static struct value expression(struct cel *cel)
{
    if (cel->depth == DEPTH_MOST)
        return fault(cel, "it is nested too deeply");
    cel->depth++;
    struct value value = disjunction(cel);
    if (cel->why == NULL && take(cel, "?")) {
        bool first = value.kind == BOOL && value.truth, second = value.kind == BOOL && !value.truth;
        cel->off += !first;
        struct value yes = expression(cel);
        cel->off -= !first;
        expect(cel, ":");
        cel->off += !second;
        struct value no = expression(cel);
        cel->off -= !second;
        value = first ? yes : second ? no : no_value;
    }
    cel->depth--;
    return value;
}

/* ---- the whole ---- */

static int evaluate(const char *rule, const cJSON *self, struct value *out, struct error *err)
{
    static const char self_name[] = "self", old_name[] = "oldSelf";
    struct variable old = {.name = old_name, .length = sizeof old_name - 1};
    struct variable variable = {.name = self_name, .length = sizeof self_name - 1, .outer = &old};
    cleanup_json cJSON *made = cJSON_CreateArray();
    struct cel cel = {.at = rule, .made = made, .variables = &variable, .off = self == NULL};
    if (made == NULL)
        return error_set(err, "out of memory");
    if (self != NULL)
        variable.value = of_json(self);
    *out = expression(&cel);
    skip_space(&cel);
    if (cel.why == NULL && *cel.at != '\0')
        fault(&cel, "something follows its end");
    if (cel.why != NULL)
        return error_set(err, "the rule '%s' is not understood at '%.20s': %s", rule, cel.at, cel.why);
    return 0;
}

int cel_understood(const char *rule, struct error *err)
{
    struct value value = no_value;
    return evaluate(rule, NULL, &value, err);
}

int cel_holds(bool *holds, const char *rule, const cJSON *self, struct error *err)
{
    struct value value = no_value;
    if (evaluate(rule, self, &value, err) < 0)
        return -1;
    if (value.kind != BOOL)
        return error_set(err, "the rule '%s' cannot be evaluated", rule);
    *holds = value.truth;
    return 0;
}
