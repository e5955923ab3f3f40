#include "common/buffer.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/json.h"
#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void buffer_refuses_to_grow_past_its_cap(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_buffer struct buffer buffer;
    buffer_init(&buffer, 5);
    assert_int_equal(buffer_append_text(&buffer, "12345", &err), 0);
    assert_int_equal(buffer_append_text(&buffer, "6", &err), -1);
    assert_string_equal(error_message(&err), "more than 5 bytes");
    assert_string_equal(buffer_text(&buffer), "12345");
    buffer_consume(&buffer, 2);
    assert_string_equal(buffer_text(&buffer), "345");
    assert_int_equal(buffer_printf(&buffer, &err, "%d", 67), 0);
    assert_string_equal(buffer_text(&buffer), "34567");
}

static void file_is_written_whole_and_read_back(void **state)
{
    (void)state;
    struct error err = {0};
    char path[] = "/tmp/thole-common-test-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(file_write_atomically(path, "hello", 5, &err), 0);
    cleanup_buffer struct buffer buffer;
    buffer_init(&buffer, 5);
    assert_int_equal(buffer_read_file(&buffer, path, &err), 0);
    assert_string_equal(buffer_text(&buffer), "hello");

    buffer_free(&buffer);
    buffer.cap = 4;
    assert_int_equal(buffer_read_file(&buffer, path, &err), -1);
    assert_non_null(strstr(error_message(&err), "more than 4 bytes"));
    unlink(path);
    assert_int_equal(buffer_read_file(&buffer, path, &err), -1);
    assert_non_null(strstr(error_message(&err), "No such file"));
}

static void times_survive_the_round_trip(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
        int64_t seconds;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0, 0},
        {"2026-01-31T12:00:00Z", 0, 1769860800},
        {"2026-01-31T12:00:00.123456Z", 0, 1769860800},
        {"2026-01-31T13:30:00+01:30", 0, 1769860800},
        {"2026-01-31T12:00:00", -1, 0},
        {"2026-01-31T12:00:00.Z", -1, 0},
        {"2026-01-31T12:00:00+1:30", -1, 0},
        {"yesterday", -1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t seconds = 0;
        assert_int_equal(time_parse_rfc3339(cases[i].text, &seconds), cases[i].result);
        assert_int_equal(seconds, cases[i].seconds);
    }
    char text[RFC3339_SIZE];
    time_format_rfc3339(1769860800, text);
    assert_string_equal(text, "2026-01-31T12:00:00Z");
}

static void digests_match_published_vectors(void **state)
{
    (void)state;
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE];
    sha256("abc", 3, digest);
    hex_encode(digest, sizeof digest, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"); /* FIPS 180-2, B.1 */
    hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, digest);
    hex_encode(digest, sizeof digest, hex);
    assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"); /* RFC 4231, case 2 */
}

static void hexadecimal_takes_exactly_its_length(void **state)
{
    (void)state;
    uint8_t bytes[2];
    assert_int_equal(hex_decode("0fA0", bytes, 2), 0);
    assert_int_equal(bytes[0], 0x0f);
    assert_int_equal(bytes[1], 0xa0);
    assert_int_equal(hex_decode("0fA", bytes, 2), -1);
    assert_int_equal(hex_decode("0fA00", bytes, 2), -1);
    assert_int_equal(hex_decode("0fG0", bytes, 2), -1);
}

static void json_reads_by_path_with_defaults(void **state)
{
    (void)state;
    struct error err = {0};
    const char *text = "{\"a\":{\"b\":{\"n\":3,\"s\":\"x\",\"t\":true,\"f\":1.5}}}";
    cleanup_json cJSON *json = json_parse(text, strlen(text), "test", &err);
    assert_non_null(json);
    assert_int_equal(json_int(json, "a.b.n", -1), 3);
    assert_int_equal(json_int(json, "a.b.f", -1), -1);
    assert_int_equal(json_int(json, "a.c.n", -1), -1);
    assert_string_equal(json_string(json, "a.b.s", "?"), "x");
    assert_string_equal(json_string(json, "a.b.n", "?"), "?");
    assert_true(json_bool(json, "a.b.t", false));
    assert_int_equal(json_put(json, "a.d.e", cJSON_CreateNumber(7), &err), 0);
    assert_int_equal(json_int(json, "a.d.e", -1), 7);
    assert_int_equal(json_put(json, "a.d.e", cJSON_CreateNumber(8), &err), 0);
    assert_int_equal(json_int(json, "a.d.e", -1), 8);
    assert_int_equal(json_put(json, "a.D", cJSON_CreateNumber(9), &err), 0);
    assert_int_equal(json_int(json, "a.D", -1), 9);
    assert_int_equal(json_int(json, "a.d.e", -1), 8);
    assert_int_equal(json_put(json, "a.d.e.f", cJSON_CreateNumber(8), &err), -1);
}

static void json_finds_an_object_of_a_list(void **state)
{
    (void)state;
    struct error err = {0};
    const char *text = "[1,{\"type\":2},{\"type\":\"Ready\",\"n\":3},{\"type\":\"Ready\",\"n\":4}]";
    cleanup_json cJSON *list = json_parse(text, strlen(text), "test", &err);
    assert_int_equal(json_int(json_find(list, "type", "Ready"), "n", -1), 3);
    assert_null(json_find(list, "type", "Failed"));
    assert_null(json_find(NULL, "type", "Ready"));
}

static void json_mistakes_are_placed(void **state)
{
    (void)state;
    struct error err = {0};
    assert_null(json_parse("{\"a\":}", 6, "the plan", &err));
    assert_non_null(strstr(error_message(&err), "the plan is not JSON"));
    assert_null(json_parse("{} x", 4, "the plan", &err));
    assert_non_null(strstr(error_message(&err), "behind its end at byte 3"));
}

static void a_log_may_have_fields_of_its_own(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    cleanup_fd int in = ends[0];
    cleanup_fd int out = ends[1];
    const struct log log = {.fd = out, .level = LOG_INFO, .format = LOG_TEXT};
    struct log bound = log_with(&log, "job", "a b");
    for (int i = 0; i < 2 * LOG_FIELDS_MOST; i++)
        bound = log_with(&bound, "more", "m");
    log_info(&bound, "x", "y", "z", NULL);
    char line[256];
    ssize_t length = read(in, line, sizeof line - 1);
    assert_true(length > 0);
    line[length] = '\0';
    assert_non_null(strstr(line, " x job=\"a b\" more=m more=m more=m y=z\n"));
    assert_false(log_enabled(NULL, LOG_ERROR));
    assert_false(log_enabled(&bound, LOG_DEBUG));
    assert_true(log_enabled(&bound, LOG_INFO));
}

static void log_lines_hold_no_control_characters(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct log log = {.fd = ends[1], .level = LOG_INFO, .format = LOG_TEXT, .component = "test"};
    log_debug(&log, "unseen", NULL);
    log_info(&log, "two\nlines", "plain", "1", "odd", "a \"b\"\n", NULL);
    char line[256];
    ssize_t length = read(ends[0], line, sizeof line - 1);
    assert_true(length > 0);
    line[length] = '\0';
    assert_non_null(strstr(line, " info  test: two lines plain=1 odd=\"a \\\"b\\\"\\n\"\n"));

    log.format = LOG_JSON;
    log_warn(&log, "hm", "k", "v", NULL);
    length = read(ends[0], line, sizeof line - 1);
    struct error err = {0};
    cleanup_json cJSON *json = json_parse(line, (size_t)length, "the line", &err);
    assert_non_null(json);
    assert_string_equal(json_string(json, "k", ""), "v");
    assert_string_equal(json_string(json, "level", ""), "warn");
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_refuses_to_grow_past_its_cap),
        cmocka_unit_test(file_is_written_whole_and_read_back),
        cmocka_unit_test(times_survive_the_round_trip),
        cmocka_unit_test(digests_match_published_vectors),
        cmocka_unit_test(hexadecimal_takes_exactly_its_length),
        cmocka_unit_test(json_reads_by_path_with_defaults),
        cmocka_unit_test(json_finds_an_object_of_a_list),
        cmocka_unit_test(json_mistakes_are_placed),
        cmocka_unit_test(log_lines_hold_no_control_characters),
        cmocka_unit_test(a_log_may_have_fields_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
