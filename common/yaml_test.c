#include "common/yaml.h"

#include "common/buffer.h"
#include "common/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char sample[] = "# a kubeconfig's shape\n"
                             "apiVersion: v1\n"
                             "clusters:\n"
                             "- name: one\n"
                             "  cluster: {server: \"https://10.0.0.1:6443\", insecure: false}\n"
                             "- name: 'two'\n"
                             "  cluster:\n"
                             "    server: >-\n"
                             "      https://10.0.0.2\n"
                             "numbers: [0, -1, +2, 0x1F, 0o17, 1.5, .5, 1., 1e3, -2.5E-1, 00012]\n"
                             "words: [1.2.3, 1e, '1', \"true\", yes, 0x, 0b1, -, .]\n"
                             "truths: [true, False, TRUE]\n"
                             "nothing: [~, null, ]\n"
                             "empty:\n"
                             "---\n"
                             "---\n"
                             "second: |\n"
                             "  line\n"
                             "  line\n"
                             "...\n";

static void documents_become_trees(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_json cJSON *documents = yaml_parse(sample, strlen(sample), "sample", &err);
    assert_string_equal(error_message(&err), "");
    assert_non_null(documents);
    cleanup_free char *text = json_print(documents);
    assert_string_equal(text,
                        "[{\"apiVersion\":\"v1\",\"clusters\":["
                        "{\"name\":\"one\",\"cluster\":{\"server\":\"https://10.0.0.1:6443\",\"insecure\":false}},"
                        "{\"name\":\"two\",\"cluster\":{\"server\":\"https://10.0.0.2\"}}],"
                        "\"numbers\":[0,-1,2,31,15,1.5,0.5,1,1000,-0.25,12],"
                        "\"words\":[\"1.2.3\",\"1e\",\"1\",\"true\",\"yes\",\"0x\",\"0b1\",\"-\",\".\"],"
                        "\"truths\":[true,false,true],\"nothing\":[null,null],\"empty\":null},"
                        "{\"second\":\"line\\nline\\n\"}]");
}

static void mistakes_name_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"a: &x 1\nb: *x\n", "test, line 1, column 4: anchors (&name) are not supported; write the value out"},
        {"a: 1\nb: *x\n", "test, line 2, column 4: aliases (*name) are not supported; write the value out"},
        {"a: !!str 1\n", "test, line 1, column 4: tags (!name) are not supported; leave it out"},
        {"a: !x {b: 1}\n", "test, line 1, column 4: tags (!name) are not supported; leave it out"},
        {"a: 1\nb: 2\na: 3\n", "test, line 3, column 1: the key 'a' is already in this mapping"},
        {"a: {b: 1, b: 2}\n", "test, line 1, column 11: the key 'b' is already in this mapping"},
        {"? [a]\n: 1\n", "test, line 1, column 3: a key must be plain text"},
        {"a: .inf\n", "test, line 1, column 4: infinity and not-a-number cannot be used here; write a finite number"},
        {"a: 1e999\n", "test, line 1, column 4: the number is too large"},
        {"a: 0xfffffffffffffffffff\n", "test, line 1, column 4: the number is too large"},
        {"a: 9007199254740993\n",
         "test, line 1, column 4: whole numbers from 2^53 on are not kept exactly; quote it if it is text"},
        {"a: \"x\\0y\"\n", "test, line 1, column 4: text cannot hold the character \\0"},
        {"a: [1, 2\nb: 3\n", "test, line 2, column 2: did not find expected ',' or ']'"},
        {"a:\n\t- 1\n", "test, line 2, column 1: found character that cannot start any token"},
        {"a: \"x\n", "test, line 2, column 1: found unexpected end of stream"},
        {"a: \xff\n", "test, byte 3: invalid leading UTF-8 octet"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        assert_null(yaml_parse(cases[i].text, strlen(cases[i].text), "test", &err));
        assert_string_equal(error_message(&err), cases[i].sentence);
    }
}

static void size_is_capped(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_buffer struct buffer text;
    buffer_init(&text, YAML_BYTES_MOST + 16);

    for (int i = 0; i < YAML_DEPTH_MOST + 1; i++)
        assert_int_equal(buffer_append_text(&text, "[", &err), 0);
    assert_null(yaml_parse(buffer_text(&text), text.length, "test", &err));
    assert_string_equal(error_message(&err), "test, line 1, column 65: nested too deeply");

    buffer_clear(&text);
    for (int i = 0; i < YAML_NODES_MOST; i++)
        assert_int_equal(buffer_append_text(&text, "- 1\n", &err), 0);
    assert_null(yaml_parse(buffer_text(&text), text.length, "test", &err));
    assert_string_equal(error_message(&err), "test, line 65536, column 3: the text holds too many values");

    buffer_clear(&text);
    for (int i = 0; i < YAML_MEMBERS_MOST + 1; i++)
        assert_int_equal(buffer_printf(&text, &err, "k%d: 1\n", i), 0);
    assert_null(yaml_parse(buffer_text(&text), text.length, "test", &err));
    assert_string_equal(error_message(&err), "test, line 2049, column 8: the mapping has too many members");

    assert_null(yaml_parse("", YAML_BYTES_MOST + 1, "test", &err));
    assert_string_equal(error_message(&err), "test: 4194305 bytes are more than the 4194304 allowed");
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Whatever the bytes, the answer is a tree or a sentence. */
static void mutated_text_never_breaks_it(void **state)
{
    (void)state;
    static const char spice[] = "{}[]:,-?&*!|>'\"%@`#~\n\t \\0x.e\xff\xc3";
    uint64_t random = 0x9E3779B97F4A7C15u;
    for (int round = 0; round < 20000; round++) {
        char text[sizeof sample];
        memcpy(text, sample, sizeof sample);
        size_t length = 1 + next_random(&random) % (sizeof sample - 1);
        for (uint64_t changes = 1 + next_random(&random) % 6; changes > 0; changes--)
            text[next_random(&random) % length] = spice[next_random(&random) % (sizeof spice - 1)];
        struct error err = {0};
        cleanup_json cJSON *documents = yaml_parse(text, length, "test", &err);
        assert_true((documents == NULL) == (error_message(&err)[0] != '\0'));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_become_trees),
        cmocka_unit_test(mistakes_name_line_and_column),
        cmocka_unit_test(size_is_capped),
        cmocka_unit_test(mutated_text_never_breaks_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
