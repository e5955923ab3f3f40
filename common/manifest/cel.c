#include "common/manifest/cel.h"

#include "common/manifest/value.h"

#include <ctype.h>
#include <string.h>

/* The rules are read and evaluated in one go, as often as a macro repeats its body. What does not decide (the other
 * side of a short-circuit) is read all the same, with `off` above 0: it looks nothing up, and its value is an error. */

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
    struct value_pool pool;
    int off, depth;
};

static struct value expression(struct cel *cel);

/* ---- reading ---- */

static void skip_space(struct cel *cel)
{
    cel->at += strspn(cel->at, " \t\r\n");
}

/* Is this sign next? It is taken then. A sign that is a word is a whole one. */
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
        value_fault(&cel->pool, "a sign is missing");
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
        value_fault(&cel->pool, "a name is missing or unknown");
}

static struct value text_literal(struct cel *cel)
{
    char quote = *cel->at++;
    const char *end = strchr(cel->at, quote);
    if (end == NULL || memchr(cel->at, '\\', (size_t)(end - cel->at)) != NULL)
        return value_fault(&cel->pool, "a text has no end, or an escape");
    cleanup_free char *text = strndup(cel->at, (size_t)(end - cel->at));
    cel->at = end + 1;
    return value_keep(&cel->pool, text == NULL ? NULL : cJSON_CreateString(text));
}

static struct value number_literal(struct cel *cel)
{
    char *end = NULL;
    double number = strtod(cel->at, &end);
    cel->at = end;
    return (struct value){.kind = VALUE_NUMBER, .number = number};
}

static struct value list_literal(struct cel *cel)
{
    cleanup_json cJSON *list = cJSON_CreateArray();
    bool whole = true;
    expect(cel, "[");
    while (cel->pool.why == NULL && !take(cel, "]")) {
        struct value item = expression(cel);
        cJSON *json = value_to_json(&item);
        if (json == NULL || !cJSON_AddItemToArray(list, json)) {
            cJSON_Delete(json);
            whole = false;
        }
        skip_space(cel);
        if (*cel->at != ']')
            expect(cel, ",");
    }
    return whole ? value_keep(&cel->pool, move(list)) : no_value;
}

/* ---- functions ---- */

static struct value call_function(struct cel *cel, const char *name)
{
    struct value argument = expression(cel);
    expect(cel, ")");
    return value_call(&cel->pool, name, &argument);
}

static struct value call_member(struct cel *cel, const char *name, const struct value *self)
{
    if (strcmp(name, "size") == 0) {
        expect(cel, ")");
        return value_size(self);
    }
    struct value argument = expression(cel);
    expect(cel, ")");
    return value_call_member(&cel->pool, name, self, &argument);
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
        return value_fault(&cel->pool, "a macro names no variable");
    cel->at += variable.length;
    expect(cel, ",");
    const char *body = cel->at;
    cel->off++;
    round_of(cel, body, &variable); /* where it ends, also of an empty list */
    const char *end = cel->at;
    cel->off--;
    bool maps = strcmp(name, "map") == 0;
    cleanup_json cJSON *mapped = maps ? cJSON_CreateArray() : NULL;
    size_t count = 0, holds = 0, errors = over->kind == VALUE_TREE ? 0 : 1;
    for (const cJSON *item = over->kind == VALUE_TREE && cel->off == 0 ? over->tree->child : NULL; item != NULL;
         item = item->next, count++) {
        bool is_list = cJSON_IsArray(over->tree);
        variable.value = is_list ? value_of_json(item) : (struct value){.kind = VALUE_TEXT, .text = item->string};
        struct value value = round_of(cel, body, &variable);
        holds += value.kind == VALUE_BOOL && value.truth;
        cJSON *copy = maps ? value_to_json(&value) : NULL;
        errors += maps ? copy == NULL : value.kind != VALUE_BOOL;
        cJSON_AddItemToArray(mapped, copy);
    }
    cel->at = end;
    expect(cel, ")");
    if (cel->off > 0)
        return no_value;
    if (maps)
        return errors > 0 ? no_value : value_keep(&cel->pool, move(mapped));
    if (strcmp(name, "all") == 0)
        return holds + errors < count ? value_of_bool(false) : errors > 0 ? no_value : value_of_bool(true);
    if (strcmp(name, "exists") == 0)
        return holds > 0 ? value_of_bool(true) : errors > 0 ? no_value : value_of_bool(false);
    return errors > 0 ? no_value : value_of_bool(holds == 1);
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
    return value_fault(&cel->pool, "a name is unknown");
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
        return value_of_bool(true);
    if (take(cel, "false"))
        return value_of_bool(false);
    char name[WORD_MOST];
    take_word(cel, name);
    if (cel->pool.why != NULL)
        return no_value;
    return take(cel, "(") ? call_function(cel, name) : variable_of(cel, name);
}

static struct value postfix(struct cel *cel)
{
    struct value value = primary(cel);
    while (cel->pool.why == NULL) {
        if (take(cel, "[")) {
            struct value index = expression(cel);
            expect(cel, "]");
            value = value_element(&value, &index);
        } else if (take(cel, ".")) {
            const char *name = cel->at;
            size_t length = word_length(cel);
            cel->at += length;
            if (length == 0)
                return value_fault(&cel->pool, "a member has no name");
            if (!take(cel, "(")) {
                value = value_member(&value, name, length);
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
        return value.kind == VALUE_BOOL ? value_of_bool(!value.truth) : no_value;
    }
    if (take(cel, "-")) {
        struct value value = unary(cel);
        value.number = -value.number;
        return value.kind == VALUE_NUMBER ? value : no_value;
    }
    return postfix(cel);
}

static struct value sum(struct cel *cel)
{
    struct value value = unary(cel);
    while (cel->pool.why == NULL && take(cel, "+")) {
        struct value right = unary(cel);
        value.number += right.number;
        if (value.kind != VALUE_NUMBER || right.kind != VALUE_NUMBER)
            value = no_value;
    }
    return value;
}

static struct value relation(struct cel *cel)
{
    static const char *const signs[] = {"==", "!=", "<=", ">=", "<", ">", "in"};
    struct value left = sum(cel);
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (!take(cel, signs[i]))
            continue;
        struct value right = sum(cel);
        if (i == 6)
            return value_is_in(&left, &right);
        if (i < 2) {
            struct value value = value_equal(&left, &right);
            value.truth = value.truth == (i == 0);
            return value;
        }
        if (left.kind != VALUE_NUMBER || right.kind != VALUE_NUMBER)
            return no_value;
        double a = left.number, b = right.number;
        return value_of_bool(i == 2 ? a <= b : i == 3 ? a >= b : i == 4 ? a < b : a > b);
    }
    return left;
}

/* && where `decides` is false, || where it is true: the value that decides alone. */
static struct value chain(struct cel *cel, const char *sign, bool decides, struct value (*operand)(struct cel *cel))
{
    struct value value = operand(cel);
    while (cel->pool.why == NULL && take(cel, sign)) {
        bool decided = value.kind == VALUE_BOOL && value.truth == decides;
        cel->off += decided;
        struct value right = operand(cel);
        cel->off -= decided;
        if (decided)
            continue;
        bool right_decides = right.kind == VALUE_BOOL && right.truth == decides;
        value = right_decides || (value.kind == VALUE_BOOL && right.kind == VALUE_BOOL) ? right : no_value;
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
        return value_fault(&cel->pool, "it is nested too deeply");
    cel->depth++;
    struct value value = disjunction(cel);
    if (cel->pool.why == NULL && take(cel, "?")) {
        bool first = value.kind == VALUE_BOOL && value.truth, second = value.kind == VALUE_BOOL && !value.truth;
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
    struct cel cel = {.at = rule, .pool.made = made, .variables = &variable, .off = self == NULL};
    if (made == NULL)
        return error_set(err, "out of memory");
    if (self != NULL)
        variable.value = value_of_json(self);
    *out = expression(&cel);
    skip_space(&cel);
    if (cel.pool.why == NULL && *cel.at != '\0')
        value_fault(&cel.pool, "something follows its end");
    if (cel.pool.why != NULL)
        return error_set(err, "the rule '%s' is not understood at '%.20s': %s", rule, cel.at, cel.pool.why);
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
    if (value.kind != VALUE_BOOL)
        return error_set(err, "the rule '%s' cannot be evaluated", rule);
    *holds = value.truth;
    return 0;
}
