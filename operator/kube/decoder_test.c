#include "common/json.h"
#include "kube/decoder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* What came out: objects joined by '|', "#N" for one of N bytes that was skipped. */
struct seen {
    struct buffer text;
    int fail_at; /* the number of the object that is refused; 0: none */
    int count;
};

static int on_object(void *arg, const char *text, size_t length, struct error *err)
{
    struct seen *seen = arg;
    if (++seen->count == seen->fail_at)
        return error_set(err, "refused");
    buffer_append(&seen->text, text, length, NULL);
    return buffer_append(&seen->text, "|", 1, err);
}

static void on_skipped(void *arg, size_t length)
{
    buffer_printf(&((struct seen *)arg)->text, NULL, "#%zu|", length);
}

static const struct decoder_case {
    const char *name;
    enum kube_decoder_mode mode;
    size_t most;
    const char *input, *output;
    const char *skeleton; /* of a list */
    const char *error;    /* of feed or end; NULL: none */
} cases[] = {
    {"nothing", KUBE_DECODE_STREAM, 100, "", "", "", NULL},
    {"white space", KUBE_DECODE_STREAM, 100, " \r\n\t", "", "", NULL},
    {"two events", KUBE_DECODE_STREAM, 100, "{\"a\":1}\n{\"b\":[{}]}\n", "{\"a\":1}|{\"b\":[{}]}|", "", NULL},
    {"no space between", KUBE_DECODE_STREAM, 100, "{}{}{}", "{}|{}|{}|", "", NULL},
    {"brackets in strings", KUBE_DECODE_STREAM, 100, "{\"}]\":\"{[\\\"}\"}{}", "{\"}]\":\"{[\\\"}\"}|{}|", "", NULL},
    {"a backslash at the end of a string", KUBE_DECODE_STREAM, 100, "{\"a\":\"\\\\\"}{}", "{\"a\":\"\\\\\"}|{}|", "",
     NULL},
    {"a large one is skipped", KUBE_DECODE_STREAM, 9, "{\"a\":1}{\"long\":\"}{\"}{\"b\":2}", "{\"a\":1}|#13|{\"b\":2}|",
     "", NULL},
    {"exactly the most", KUBE_DECODE_STREAM, 7, "{\"a\":1}", "{\"a\":1}|", "", NULL},
    {"one more", KUBE_DECODE_STREAM, 6, "{\"a\":1}", "#7|", "", NULL},
    {"cut off", KUBE_DECODE_STREAM, 100, "{}{\"a\":", "{}|", "", "middle of an object"},
    {"cut off in a string", KUBE_DECODE_STREAM, 100, "{\"a", "", "", "middle of an object"},
    {"text", KUBE_DECODE_STREAM, 100, "{}Bad Gateway", "{}|", "", "no JSON object"},
    {"a string", KUBE_DECODE_STREAM, 100, "\"a\"", "", "", "no JSON object"},
    {"an array", KUBE_DECODE_STREAM, 100, "[1]", "", "", "array stands where"},
    {"closed too often", KUBE_DECODE_STREAM, 100, "{}}", "{}|", "", "no opening one"},
    {"a list", KUBE_DECODE_LIST, 100,
     "{\"kind\":\"L\",\"items\":[{\"a\":1},\n {\"b\":{}}],\"metadata\":{\"continue\":\"x\"}}\n",
     "{\"a\":1}|{\"b\":{}}|", "{\"kind\":\"L\",\"items\":[],\"metadata\":{\"continue\":\"x\"}}\n", NULL},
    {"an empty list", KUBE_DECODE_LIST, 100, "{\"items\":[],\"metadata\":{}}", "", "{\"items\":[],\"metadata\":{}}",
     NULL},
    {"a list of null", KUBE_DECODE_LIST, 100, "{\"items\":null}", "", "{\"items\":null}", NULL},
    {"items elsewhere", KUBE_DECODE_LIST, 100, "{\"x\":{\"items\":[{}]},\"y\":\"items\",\"z\":[{}]}", "",
     "{\"x\":{\"items\":[{}]},\"y\":\"items\",\"z\":[{}]}", NULL},
    {"a name like items", KUBE_DECODE_LIST, 100, "{\"itemsfoobar\":[{}],\"\\u0069tems\":[{}]}", "",
     "{\"itemsfoobar\":[{}],\"\\u0069tems\":[{}]}", NULL},
    {"items inside an item", KUBE_DECODE_LIST, 100, "{\"items\":[{\"items\":[{}]}]}", "{\"items\":[{}]}|",
     "{\"items\":[]}", NULL},
    {"a large item", KUBE_DECODE_LIST, 8, "{\"items\":[{\"a\":1},{\"a\":12345},{\"b\":2}]}", "{\"a\":1}|#11|{\"b\":2}|",
     "{\"items\":[]}", NULL},
    {"a number as item", KUBE_DECODE_LIST, 100, "{\"items\":[1]}", "", NULL, "holds something that is no object"},
    {"an array as item", KUBE_DECODE_LIST, 100, "{\"items\":[[]]}", "", NULL, "array stands where"},
    {"a list cut off", KUBE_DECODE_LIST, 100, "{\"items\":[{\"a\":1},{", "{\"a\":1}|", NULL, "middle of an object"},
};

/* Feeds the input in pieces: cut at `first` and `second`; a step of 1 feeds single bytes. */
static void check(const struct decoder_case *c, size_t first, size_t second, size_t step)
{
    struct seen seen = {.fail_at = 0};
    buffer_init(&seen.text, 10000);
    struct kube_decoder decoder;
    kube_decoder_init(&decoder, c->mode, c->most, on_object, on_skipped, &seen);
    struct error err = {0};
    int result = 0;
    size_t length = strlen(c->input);
    for (size_t at = 0; at < length && result == 0;) {
        size_t until = step > 0 ? at + step : at < first ? first : at < second ? second : length;
        /* In memory of its own, so that reading behind its end is noticed. */
        cleanup_free char *piece = malloc(until - at);
        assert_non_null(piece);
        memcpy(piece, c->input + at, until - at);
        result = kube_decoder_feed(&decoder, piece, until - at, &err);
        at = until;
    }
    if (result == 0)
        result = kube_decoder_end(&decoder, &err);
    if (c->error == NULL && result < 0)
        fail_msg("%s (cut at %zu and %zu): %s", c->name, first, second, error_message(&err));
    if (c->error != NULL && (result == 0 || strstr(error_message(&err), c->error) == NULL))
        fail_msg("%s (cut at %zu and %zu): '%s'", c->name, first, second, error_message(&err));
    assert_string_equal(buffer_text(&seen.text), c->output);
    if (c->mode == KUBE_DECODE_LIST && c->skeleton != NULL)
        assert_string_equal(buffer_text(&decoder.skeleton), c->skeleton);
    kube_decoder_free(&decoder);
    buffer_free(&seen.text);
}

static void objects_come_out_wherever_the_bytes_are_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t length = strlen(cases[i].input);
        check(&cases[i], length, length, 0);
        check(&cases[i], 0, 0, 1);
        for (size_t first = 1; first < length; first++)
            for (size_t second = first; second < length; second++)
                check(&cases[i], first, second, 0);
    }
}

static void a_refused_object_ends_the_stream(void **state)
{
    (void)state;
    struct seen seen = {.fail_at = 2};
    buffer_init(&seen.text, 1000);
    struct kube_decoder decoder;
    kube_decoder_init(&decoder, KUBE_DECODE_STREAM, 100, on_object, on_skipped, &seen);
    struct error err = {0};
    assert_int_equal(kube_decoder_feed(&decoder, "{}{}{}", 6, &err), -1);
    assert_string_equal(error_message(&err), "refused");
    assert_int_equal(kube_decoder_feed(&decoder, "{}", 2, &err), -1);
    assert_string_equal(buffer_text(&seen.text), "{}|");
    kube_decoder_reset(&decoder);
    assert_int_equal(kube_decoder_feed(&decoder, "{}", 2, &err), 0);
    assert_string_equal(buffer_text(&seen.text), "{}|{}|");
    kube_decoder_free(&decoder);
    buffer_free(&seen.text);
}

static void nesting_and_skeleton_are_capped(void **state)
{
    (void)state;
    struct seen seen = {.fail_at = 0};
    buffer_init(&seen.text, 1000);
    struct kube_decoder decoder;
    struct error err = {0};
    kube_decoder_init(&decoder, KUBE_DECODE_STREAM, 100, on_object, on_skipped, &seen);
    int result = kube_decoder_feed(&decoder, "{\"a\":", 5, &err);
    for (int i = 0; i < 10000 && result == 0; i++)
        result = kube_decoder_feed(&decoder, "[", 1, &err);
    assert_int_equal(result, -1);
    assert_non_null(strstr(error_message(&err), "nested deeper"));
    kube_decoder_free(&decoder);

    kube_decoder_init(&decoder, KUBE_DECODE_LIST, 100, on_object, on_skipped, &seen);
    result = kube_decoder_feed(&decoder, "{\"a\":\"", 6, &err);
    for (int i = 0; i < 100000 && result == 0; i++)
        result = kube_decoder_feed(&decoder, "xxxxxxxx", 8, &err);
    assert_int_equal(result, -1);
    assert_non_null(strstr(error_message(&err), "own members"));
    kube_decoder_free(&decoder);
    buffer_free(&seen.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_come_out_wherever_the_bytes_are_split),
        cmocka_unit_test(a_refused_object_ends_the_stream),
        cmocka_unit_test(nesting_and_skeleton_are_capped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
