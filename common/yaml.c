#include "common/yaml.h"

#include "common/buffer.h"
#include "common/json.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <yaml.h>

/* An open sequence or mapping. */
struct frame {
    cJSON *node;  /* owned by the frame below, or by `documents` once closed */
    char *key;    /* of the value that comes next; NULL where a key comes next, and in sequences */
    size_t count; /* members so far */
};

struct builder {
    const char *what;
    cJSON *documents;
    cJSON *root; /* of the open document */
    struct frame frames[YAML_DEPTH_MOST];
    size_t depth;
    size_t nodes;
};

static int mistake(const struct builder *builder, yaml_mark_t at, struct error *err, const char *text)
{
    return error_set(err, "%s, line %zu, column %zu: %s", builder->what, at.line + 1, at.column + 1, text);
}

static int no_memory(const struct builder *builder, struct error *err)
{
    return error_set(err, "%s: out of memory", builder->what);
}

static void builder_free(struct builder *builder)
{
    for (size_t i = 0; i < builder->depth; i++)
        free(builder->frames[i].key);
    cJSON_Delete(builder->root);
    cJSON_Delete(builder->documents);
}

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

static size_t span_digits(const char *text)
{
    return strspn(text, "0123456789");
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool is_decimal(const char *text, bool *whole)
{
    *whole = true;
    text += *text == '-' || *text == '+';
    size_t digits = span_digits(text);
    text += digits;
    if (*text == '.') {
        *whole = false;
        size_t fraction = span_digits(text + 1);
        if (digits + fraction == 0)
            return false;
        text += 1 + fraction;
    } else if (digits == 0) {
        return false;
    }
    if (*text == 'e' || *text == 'E') {
        *whole = false;
        text++;
        text += *text == '-' || *text == '+';
        size_t exponent = span_digits(text);
        if (exponent == 0)
            return false;
        text += exponent;
    }
    return *text == '\0';
}

/* 0o17 and 0x1F. The base, or 0. */
static int prefixed_base(const char *text)
{
    static const struct {
        const char *prefix, *digits;
        int base;
    } forms[] = {{"0o", "01234567", 8}, {"0x", "0123456789abcdefABCDEF", 16}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strncmp(text, forms[i].prefix, 2) != 0 || text[2] == '\0')
            continue;
        if (text[2 + strspn(text + 2, forms[i].digits)] == '\0')
            return forms[i].base;
    }
    return 0;
}

/* The core schema's meaning of a plain scalar. */
static cJSON *plain_scalar(const struct builder *builder, const char *text, yaml_mark_t at, struct error *err)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    static const char *const beyond[] = {".inf",  ".Inf",  ".INF", "+.inf", "+.Inf", "+.INF", "-.inf",
                                         "-.Inf", "-.INF", ".nan", ".NaN",  ".NAN",  NULL};
    static const double exact = 9007199254740992.0; /* 2^53 */

    if (is_one_of(text, nulls))
        return cJSON_CreateNull();
    if (is_one_of(text, trues))
        return cJSON_CreateTrue();
    if (is_one_of(text, falses))
        return cJSON_CreateFalse();
    if (is_one_of(text, beyond)) {
        mistake(builder, at, err, "infinity and not-a-number cannot be used here; write a finite number");
        return NULL;
    }

    int base = prefixed_base(text);
    bool whole = base != 0;
    if (base == 0 && !is_decimal(text, &whole))
        return cJSON_CreateString(text);
    errno = 0;
    double value = base == 0 ? strtod(text, NULL) : (double)strtoull(text + 2, NULL, base);
    if (!isfinite(value) || (base != 0 && errno == ERANGE)) {
        mistake(builder, at, err, "the number is too large");
        return NULL;
    }
    if (whole && fabs(value) >= exact) {
        mistake(builder, at, err, "whole numbers from 2^53 on are not kept exactly; quote it if it is text");
        return NULL;
    }
    return cJSON_CreateNumber(value == 0 ? 0.0 : value);
}

static int check_decoration(const struct builder *builder, const yaml_event_t *event, const yaml_char_t *anchor,
                            const yaml_char_t *tag, struct error *err)
{
    if (anchor != NULL)
        return mistake(builder, event->start_mark, err, "anchors (&name) are not supported; write the value out");
    if (tag != NULL)
        return mistake(builder, event->start_mark, err, "tags (!name) are not supported; leave it out");
    return 0;
}

/* Where a value belongs: the key's mapping, the sequence, or the document itself. Takes `value` over. */
static int place(struct builder *builder, cJSON *value, yaml_mark_t at, struct error *err)
{
    cleanup_json cJSON *owned = value;
    if (owned == NULL)
        return no_memory(builder, err);
    if (++builder->nodes > YAML_NODES_MOST)
        return mistake(builder, at, err, "the text holds too many values");
    if (builder->depth == 0) {
        builder->root = move(owned);
        return 0;
    }
    struct frame *frame = &builder->frames[builder->depth - 1];
    if (++frame->count > YAML_MEMBERS_MOST && cJSON_IsObject(frame->node))
        return mistake(builder, at, err, "the mapping has too many members");
    bool added = frame->key == NULL ? cJSON_AddItemToArray(frame->node, owned)
                                    : cJSON_AddItemToObject(frame->node, frame->key, owned);
    if (!added)
        return no_memory(builder, err);
    owned = NULL;
    free(move(frame->key));
    return 0;
}

/* True in a mapping that waits for a key. */
static bool wants_key(const struct builder *builder)
{
    if (builder->depth == 0)
        return false;
    const struct frame *frame = &builder->frames[builder->depth - 1];
    return cJSON_IsObject(frame->node) && frame->key == NULL;
}

static int on_key(struct builder *builder, const char *text, yaml_mark_t at, struct error *err)
{
    struct frame *frame = &builder->frames[builder->depth - 1];
    if (cJSON_GetObjectItemCaseSensitive(frame->node, text) != NULL) {
        char sentence[160];
        snprintf(sentence, sizeof sentence, "the key '%.100s' is already in this mapping", text);
        return mistake(builder, at, err, sentence);
    }
    frame->key = strdup(text);
    return frame->key == NULL ? no_memory(builder, err) : 0;
}

static int on_scalar(struct builder *builder, const yaml_event_t *event, struct error *err)
{
    const char *text = (const char *)event->data.scalar.value;
    if (check_decoration(builder, event, event->data.scalar.anchor, event->data.scalar.tag, err) < 0)
        return -1;
    if (strlen(text) != event->data.scalar.length)
        return mistake(builder, event->start_mark, err, "text cannot hold the character \\0");
    if (wants_key(builder))
        return on_key(builder, text, event->start_mark, err);
    if (event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return place(builder, cJSON_CreateString(text), event->start_mark, err);
    struct error why = {0};
    cJSON *value = plain_scalar(builder, text, event->start_mark, &why);
    if (value == NULL && why.message[0] != '\0') {
        if (err != NULL)
            *err = why;
        return -1;
    }
    return place(builder, value, event->start_mark, err);
}

static int on_open(struct builder *builder, cJSON *node, yaml_mark_t at, struct error *err)
{
    if (wants_key(builder) || builder->depth == YAML_DEPTH_MOST) {
        bool deep = builder->depth == YAML_DEPTH_MOST;
        cJSON_Delete(node);
        return mistake(builder, at, err, deep ? "nested too deeply" : "a key must be plain text");
    }
    if (place(builder, node, at, err) < 0)
        return -1;
    builder->frames[builder->depth++] = (struct frame){.node = node};
    return 0;
}

static int on_document_end(struct builder *builder, struct error *err)
{
    cleanup_json cJSON *root = move(builder->root);
    if (root == NULL || cJSON_IsNull(root))
        return 0;
    if (!cJSON_AddItemToArray(builder->documents, root))
        return no_memory(builder, err);
    root = NULL;
    return 0;
}

static int on_event(struct builder *builder, const yaml_event_t *event, struct error *err)
{
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return mistake(builder, event->start_mark, err, "aliases (*name) are not supported; write the value out");
    case YAML_SCALAR_EVENT:
        return on_scalar(builder, event, err);
    case YAML_SEQUENCE_START_EVENT:
        if (check_decoration(builder, event, event->data.sequence_start.anchor, event->data.sequence_start.tag, err) <
            0)
            return -1;
        return on_open(builder, cJSON_CreateArray(), event->start_mark, err);
    case YAML_MAPPING_START_EVENT:
        if (check_decoration(builder, event, event->data.mapping_start.anchor, event->data.mapping_start.tag, err) < 0)
            return -1;
        return on_open(builder, cJSON_CreateObject(), event->start_mark, err);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        builder->depth--;
        return 0;
    case YAML_DOCUMENT_END_EVENT:
        return on_document_end(builder, err);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_START_EVENT:
        return 0;
    }
    return 0;
}

static int parser_mistake(const struct builder *builder, const yaml_parser_t *parser, struct error *err)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return no_memory(builder, err);
    if (parser->error == YAML_READER_ERROR)
        return error_set(err, "%s, byte %zu: %s", builder->what, parser->problem_offset,
                         parser->problem == NULL ? "not text in UTF-8" : parser->problem);
    return mistake(builder, parser->problem_mark, err, parser->problem == NULL ? "not YAML" : parser->problem);
}

static int build(struct builder *builder, yaml_parser_t *parser, struct error *err)
{
    for (bool more = true; more;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event))
            return parser_mistake(builder, parser, err);
        more = event.type != YAML_STREAM_END_EVENT;
        int result = on_event(builder, &event, err);
        yaml_event_delete(&event);
        if (result < 0)
            return -1;
    }
    return 0;
}

cJSON *yaml_parse(const char *text, size_t length, const char *what, struct error *err)
{
    if (length > YAML_BYTES_MOST) {
        error_set(err, "%s: %zu bytes are more than the %d allowed", what, length, YAML_BYTES_MOST);
        return NULL;
    }
    struct builder builder = {.what = what, .documents = cJSON_CreateArray()};
    yaml_parser_t parser;
    if (builder.documents == NULL || !yaml_parser_initialize(&parser)) {
        cJSON_Delete(builder.documents);
        no_memory(&builder, err);
        return NULL;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);

    cJSON *documents = build(&builder, &parser, err) < 0 ? NULL : move(builder.documents);
    yaml_parser_delete(&parser);
    builder_free(&builder);
    return documents;
}

cJSON *yaml_read_file(const char *path, struct error *err)
{
    cleanup_buffer struct buffer buffer;
    buffer_init(&buffer, YAML_BYTES_MOST);
    if (buffer_read_file(&buffer, path, err) < 0)
        return NULL;
    return yaml_parse(buffer_text(&buffer), buffer.length, path, err);
}
