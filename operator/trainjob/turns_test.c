#include "trainjob/turns.h"

#include "common/buffer.h"
#include "dataset/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- reasons ---- */

static bool is_camel_case(const char *text)
{
    if (*text < 'A' || *text > 'Z')
        return false;
    for (; *text != '\0'; text++)
        if ((*text < 'A' || *text > 'Z') && (*text < 'a' || *text > 'z'))
            return false;
    return true;
}

static void every_reason_is_a_word_with_a_meaning(void **state)
{
    (void)state;
    assert_string_equal(reason_name(REASON_NONE), "");
    for (int i = REASON_NONE + 1; i < REASONS; i++) {
        enum reason reason = (enum reason)i;
        if (reason_name(reason) == NULL || reason_meaning(reason) == NULL)
            fail_msg("reason %d is not in the table", i);
        assert_true(is_camel_case(reason_name(reason)));
        assert_true(strlen(reason_meaning(reason)) > 10);
        assert_int_equal(reason_parse(reason_name(reason), REASON_NONE), reason); /* so no two have one name */
    }
    assert_int_equal(reason_parse("Whatever", REASON_ERROR), REASON_ERROR);
    assert_int_equal(reason_parse("", REASON_COMPLETED), REASON_COMPLETED);
}

static void every_reason_is_documented(void **state)
{
    (void)state;
    cleanup_buffer struct buffer page;
    buffer_init(&page, 1 << 20);
    struct error err = {0};
    assert_int_equal(buffer_read_file(&page, "../../config/reasons.md", &err), 0);
    int rows = 0;
    for (const char *at = buffer_text(&page); (at = strstr(at, "\n| `")) != NULL; at++)
        rows++;
    for (int i = REASON_NONE + 1; i < REASONS; i++) {
        enum reason reason = (enum reason)i;
        char row[512];
        snprintf(row, sizeof row, "\n| `%s` | %s | %s |\n", reason_name(reason), reason_is_warning(reason) ? "yes" : "",
                 reason_meaning(reason));
        if (strstr(buffer_text(&page), row) == NULL)
            fail_msg("config/reasons.md lacks the row%s", row);
    }
    assert_int_equal(rows, REASONS - 1);
}

static void datasets_use_the_table_too(void **state)
{
    (void)state;
    static const char *const paths[] = {"/data/x", "/etc"};
    for (size_t i = 0; i < 2; i++) {
        cleanup_json cJSON *dataset = cJSON_CreateObject();
        json_put(dataset, "spec.source.hostPath.path", cJSON_CreateString(paths[i]), NULL);
        struct host_paths allowed;
        assert_int_equal(host_paths_parse(&allowed, "/data", NULL), 0);
        cleanup_json cJSON *status = dataset_status(dataset, &allowed, 0);
        const cJSON *ready = json_find(json_at(status, "conditions"), "type", "Ready");
        assert_int_equal(reason_parse(json_string(ready, "reason", ""), REASON_NONE),
                         i == 0 ? REASON_SOURCE_ACCEPTED : REASON_SOURCE_NOT_ALLOWED);
        host_paths_free(&allowed);
    }
}

/* ---- turns ---- */

#define STALLED(reason) "\"conditions\":[{\"type\":\"Stalled\",\"status\":\"True\",\"reason\":\"" reason "\"}]"
#define NOT_STALLED     "\"conditions\":[{\"type\":\"Stalled\",\"status\":\"False\",\"reason\":\"Planned\"}]"
#define ENDED(code)     "\"lastFailure\":{\"pod\":\"p\",\"node\":\"n\",\"exitCode\":" code ",\"message\":\"no memory\"}"

static const struct {
    const char *name, *before, *now, *told;
} cases[] = {
    {"nothing happened", "{\"phase\":\"Running\",\"step\":1}", "{\"phase\":\"Running\",\"step\":2}", ""},
    {"a new job that waits tells nothing", NULL, "{\"phase\":\"Pending\"," NOT_STALLED "}", ""},
    {"a new job that cannot start says why", NULL,
     "{\"phase\":\"Pending\",\"message\":\"m\"," STALLED("InvalidSpec") "}", "InvalidSpec: m\n"},
    {"it is told once", "{\"phase\":\"Pending\"," STALLED("InvalidSpec") "}",
     "{\"phase\":\"Pending\",\"message\":\"other words\"," STALLED("InvalidSpec") "}", ""},
    {"but another obstacle is told", "{\"phase\":\"Starting\"," STALLED("NameConflict") "}",
     "{\"phase\":\"Starting\",\"message\":\"m\"," STALLED("DatasetReplaced") "}", "DatasetReplaced: m\n"},
    {"training begins", "{\"phase\":\"Starting\"}", "{\"phase\":\"Running\",\"message\":\"m\"}", "Running: m\n"},
    {"its end", "{\"phase\":\"Running\"}", "{\"phase\":\"Succeeded\",\"message\":\"m\"}", "Succeeded: m\n"},
    {"a failed job is stalled too, but that is one thing", "{\"phase\":\"Running\"}",
     "{\"phase\":\"Failed\",\"message\":\"m\"," STALLED("Diverged") "}", "Failed: m\n"},
    {"a process ended", "{\"phase\":\"Running\"}", "{\"phase\":\"Running\"," ENDED("137") "}",
     "ProcessEnded: pod 'p' on node 'n' ended with exit code 137: no memory\n"},
    {"the same one", "{\"phase\":\"Running\"," ENDED("137") "}", "{\"phase\":\"Running\"," ENDED("137") "}", ""},
    {"and with it the job", "{\"phase\":\"Running\"," ENDED("137") "}",
     "{\"phase\":\"Failed\",\"message\":\"m\"," ENDED("1") "}",
     "ProcessEnded: pod 'p' on node 'n' ended with exit code 1: no memory\nFailed: m\n"},
    {"a phase of a later operator", "{\"phase\":\"Running\"}", "{\"phase\":\"Hibernating\"}", ""},
};

static void a_turn_is_told_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cleanup_json cJSON *before = cases[i].before == NULL ? NULL : cJSON_Parse(cases[i].before);
        cleanup_json cJSON *now = cJSON_Parse(cases[i].now);
        assert_non_null(now);
        struct turn turns[TURNS_MOST];
        size_t count = trainjob_turns(before, now, turns);
        cleanup_buffer struct buffer told;
        buffer_init(&told, 8192);
        for (size_t j = 0; j < count; j++)
            buffer_printf(&told, NULL, "%s: %s\n", reason_name(turns[j].reason), turns[j].note);
        if (strcmp(buffer_text(&told), cases[i].told) != 0)
            fail_msg("%s: told '%s' instead of '%s'", cases[i].name, buffer_text(&told), cases[i].told);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reason_is_a_word_with_a_meaning),
        cmocka_unit_test(every_reason_is_documented),
        cmocka_unit_test(datasets_use_the_table_too),
        cmocka_unit_test(a_turn_is_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
