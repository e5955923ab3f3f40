/* Any bytes as a stream or list of the API server: in pieces they give the same objects, the same skeleton and the same
 * end as in one; and what is JSON gives what a parser finds in it.
 *
 * The first byte says which of the two it is, the second how large an object may be, the third how the rest is cut. */
#include "common/json.h"
#include "common/test/dice.h"
#include "common/test/fuzz.h"
#include "kube/decoder.h"

#include <ctype.h>
#include <string.h>

enum { HEAD = 3, SEEN_MOST = 1 << 20 };

/* Objects, each followed by a NUL; "#N" for one of N bytes that was skipped. */
struct seen {
    struct buffer objects, skeleton;
    size_t most;
    unsigned skipped;
    int result;
    struct error err;
};

static int on_object(void *arg, const char *text, size_t length, struct error *err)
{
    struct seen *seen = arg;
    /* Which bracket it is that ends it is left to the parser. */
    require(length >= 2 && length <= seen->most && text[0] == '{' && strchr("]}", text[length - 1]) != NULL);
    if (buffer_append(&seen->objects, text, length, err) < 0)
        return -1;
    return buffer_append(&seen->objects, "", 1, err);
}

static void on_skipped(void *arg, size_t length)
{
    struct seen *seen = arg;
    seen->skipped++;
    require_with_memory(length > seen->most);
    require_with_memory(buffer_printf(&seen->objects, NULL, "#%zu%c", length, '\0') == 0);
}

/* `piece` 0: in one. Larger ones vary around it. */
static void decode(struct seen *seen, enum kube_decoder_mode mode, size_t most, const char *text, size_t length,
                   size_t piece)
{
    *seen = (struct seen){.most = most};
    buffer_init(&seen->objects, SEEN_MOST);
    struct kube_decoder decoder;
    kube_decoder_init(&decoder, mode, most, on_object, on_skipped, seen);
    uint64_t random = piece;
    for (size_t at = 0, next = 0; at < length && seen->result == 0; at += next) {
        next = piece == 0 ? length : 1 + random_next(&random) % piece;
        if (next > length - at)
            next = length - at;
        cleanup_free char *copy = malloc(next); /* reading behind its end is noticed */
        if (copy == NULL)
            break;
        memcpy(copy, text + at, next);
        seen->result = kube_decoder_feed(&decoder, copy, next, &seen->err);
    }
    if (seen->result == 0)
        seen->result = kube_decoder_end(&decoder, &seen->err);
    require((seen->result < 0) == (error_message(&seen->err)[0] != '\0'));
    seen->skeleton = decoder.skeleton;
    buffer_init(&decoder.skeleton, 0);
    kube_decoder_free(&decoder);
}

static void seen_free(struct seen *seen)
{
    buffer_free(&seen->objects);
    buffer_free(&seen->skeleton);
}

static bool same(const struct buffer *a, const struct buffer *b)
{
    return a->length == b->length && (a->length == 0 || memcmp(a->data, b->data, a->length) == 0);
}

/* How many members of that name: with two, which one counts is anybody's guess. */
static int count_members(const cJSON *object, const char *name)
{
    int count = 0;
    const cJSON *member = NULL;
    cJSON_ArrayForEach(member, object) count += strcmp(member->string, name) == 0;
    return count;
}

static void check_object(const char **object, const cJSON *expected)
{
    cleanup_json cJSON *got = cJSON_Parse(*object);
    cleanup_free char *text = json_print(got);
    cleanup_free char *expected_text = json_print(expected);
    require_with_memory(text != NULL && expected_text != NULL && strcmp(text, expected_text) == 0);
    *object += strlen(*object) + 1;
}

/* Against cJSON, which has the whole text. Escapes are left out: the decoder does not read names with them. */
static void check_with_parser(const struct seen *seen, enum kube_decoder_mode mode, const char *text, size_t length)
{
    if (seen->result < 0 || seen->skipped > 0 || memchr(text, '\\', length) != NULL ||
        memchr(text, '\0', length) != NULL)
        return;
    cleanup_json cJSON *json = json_parse(text, length, "it", NULL);
    if (!cJSON_IsObject(json) || count_members(json, "items") > 1)
        return;
    const char *object = buffer_text(&seen->objects);
    if (mode == KUBE_DECODE_STREAM) {
        check_object(&object, json);
    } else {
        const cJSON *items = cJSON_GetObjectItemCaseSensitive(json, "items");
        const cJSON *item = NULL;
        if (cJSON_IsArray(items))
            cJSON_ArrayForEach(item, items) check_object(&object, item);
        /* What remains is the list without its items. */
        cleanup_json cJSON *rest = json_parse(buffer_text(&seen->skeleton), seen->skeleton.length, "skeleton", NULL);
        if (cJSON_IsArray(items))
            cJSON_ReplaceItemInObjectCaseSensitive(json, "items", cJSON_CreateArray());
        cleanup_free char *expected = json_print(json);
        cleanup_free char *got = json_print(rest);
        require_with_memory(expected != NULL && got != NULL && strcmp(expected, got) == 0);
    }
    require_with_memory(object == buffer_text(&seen->objects) + seen->objects.length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t most_bytes[] = {2, 3, 10, 40, 200, 4096, 65536, 65537};
    if (size < HEAD)
        return 0;
    enum kube_decoder_mode mode = data[0] % 2 == 0 ? KUBE_DECODE_LIST : KUBE_DECODE_STREAM;
    size_t most = most_bytes[data[1] % 8];
    const char *text = (const char *)data + HEAD;
    size_t length = size - HEAD;
    struct seen whole;
    struct seen pieces;
    decode(&whole, mode, most, text, length, 0);
    decode(&pieces, mode, most, text, length, 1 + data[2]);
    if (!scarce_refused()) {
        require(whole.result == pieces.result && strcmp(whole.err.message, pieces.err.message) == 0);
        require(same(&whole.objects, &pieces.objects));
        require(whole.result < 0 || same(&whole.skeleton, &pieces.skeleton));
        check_with_parser(&whole, mode, text, length);
    }
    seen_free(&whole);
    seen_free(&pieces);
    return 0;
}
