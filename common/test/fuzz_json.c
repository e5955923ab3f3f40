/* A mutator for targets whose input is JSON: it mostly changes the tree, so that what comes out is JSON again and what
 * lies behind the parser is reached. */
#include "common/json.h"
#include "common/test/dice.h"
#include "common/test/fuzz.h"

#include <string.h>

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

enum { NODES_MOST = 4096 };

void fuzz_make_unique(cJSON *json)
{
    for (cJSON *child = json->child, *next; child != NULL; child = next) {
        next = child->next;
        if (child->string != NULL && cJSON_GetObjectItemCaseSensitive(json, child->string) != child)
            cJSON_Delete(cJSON_DetachItemViaPointer(json, child));
        else
            fuzz_make_unique(child);
    }
}

struct nodes {
    cJSON *items[NODES_MOST];
    size_t count;
};

static void collect(struct nodes *nodes, cJSON *json)
{
    if (nodes->count == NODES_MOST)
        return;
    nodes->items[nodes->count++] = json;
    for (cJSON *child = json->child; child != NULL; child = child->next)
        collect(nodes, child);
}

static cJSON *pick(const struct nodes *nodes, uint64_t *random)
{
    return nodes->items[random_next(random) % nodes->count];
}

static cJSON *make_value(uint64_t *random)
{
    static const char *const values[] = {
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1",
        "2",
        "0.5",
        "1e300",
        "2147483648",
        "1e-9",
        "64",
        "4294967296",
        "9007199254740993",
        "\"\"",
        "\"0\"",
        "\"True\"",
        "\"False\"",
        "\"a.b\"",
        "\"../x\"",
        "\"/\"",
        "\"2026-01-31T12:00:00Z\"",
        "\"9999-99-99T99:99:99Z\"",
        "\"\xc3\xa4\\u0001\\n\"",
        "[]",
        "{}",
        "[[]]",
        "[null]",
        "[{}]",
        "{\"a\":{\"b\":[1]}}",
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
    };
    return cJSON_Parse(values[random_next(random) % (sizeof values / sizeof values[0])]);
}

/* Puts a value in another's place: nodes are values in lists, so their contents are exchanged, names stay. */
static void become(cJSON *node, cJSON *value)
{
    if (value == NULL)
        return;
    cJSON old = *node;
    node->type = value->type;
    node->child = value->child;
    node->valuestring = value->valuestring;
    node->valueint = value->valueint;
    node->valuedouble = value->valuedouble;
    value->type = old.type & ~cJSON_StringIsConst;
    value->child = old.child;
    value->valuestring = old.valuestring;
    cJSON_Delete(value);
}

static void change(const struct nodes *nodes, uint64_t *random)
{
    cJSON *node = pick(nodes, random);
    cJSON *other = pick(nodes, random);
    switch (random_next(random) % 6) {
    case 0: /* a member or item goes */
        if (node->child != NULL)
            cJSON_Delete(cJSON_DetachItemViaPointer(node, node->child));
        break;
    case 1: /* it becomes another part of the tree */
        become(node, cJSON_Duplicate(other, true));
        break;
    case 2: /* another part comes in, under its name or another's */
        if (cJSON_IsArray(node))
            cJSON_AddItemToArray(node, cJSON_Duplicate(other, true));
        else if (cJSON_IsObject(node) && other->string != NULL)
            cJSON_AddItemToObject(node, other->string, cJSON_Duplicate(pick(nodes, random), true));
        break;
    case 3:
        if (cJSON_IsNumber(node))
            cJSON_SetNumberHelper(node, node->valuedouble + (double)(random_next(random) % 5) - 2);
        else if (cJSON_IsString(node) && other->string != NULL)
            cJSON_SetValuestring(node, other->string);
        break;
    default:
        become(node, make_value(random));
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    uint64_t random = seed;
    cleanup_json cJSON *tree = cJSON_ParseWithLength((const char *)data, size);
    if (tree == NULL || random_next(&random) % 8 == 0)
        return LLVMFuzzerMutate(data, size, most);
    for (uint64_t rounds = 1 + random_next(&random) % 3; rounds > 0; rounds--) {
        struct nodes *nodes = calloc(1, sizeof *nodes);
        require(nodes != NULL);
        collect(nodes, tree);
        change(nodes, &random);
        free(nodes);
    }
    cleanup_free char *text = json_print(tree);
    size_t length = text == NULL ? 0 : strlen(text);
    if (length == 0 || length > most)
        return LLVMFuzzerMutate(data, size, most);
    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)text[i];
    return length;
}
