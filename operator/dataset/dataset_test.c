#include "dataset/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void host_paths_are_compared_part_by_part(void **state)
{
    (void)state;
    static const struct {
        const char *allowed, *path;
        bool fits;
    } cases[] = {
        {"/data", "/data", true},         {"/data", "/data/x", true},    {"/data/", "/data/x/y", true},
        {"/data", "/data//x/./y/", true}, {"/a,/data", "/data/x", true}, {"/", "/anything", true},
        {"/data", "/database", false},    {"/data", "/dat", false},      {"/data/x", "/data", false},
        {"/data", "/data/../etc", false}, {"/data", "/data/..", false},  {"/data", "/data/..x", true},
        {"/data", "data", false},         {"/data", "", false},          {"", "/data", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        struct host_paths paths;
        assert_int_equal(host_paths_parse(&paths, cases[i].allowed, &err), 0);
        bool fits = host_paths_check(&paths, cases[i].path, "field", &err) == 0;
        if (fits != cases[i].fits)
            fail_msg("'%s' below '%s': %d", cases[i].path, cases[i].allowed, fits);
        assert_true(fits == (error_message(&err)[0] == '\0'));
        host_paths_free(&paths);
    }
}

static void the_flag_takes_absolute_paths_only(void **state)
{
    (void)state;
    static const char *const cases[] = {"data", "/data,x", "/data/../etc", ",/data"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        struct host_paths paths;
        assert_int_equal(host_paths_parse(&paths, cases[i], &err), -1);
        assert_non_null(strstr(error_message(&err), "--allowed-host-paths: '"));
        assert_int_equal(paths.count, 0);
    }
}

static cJSON *dataset(const char *source, const char *status)
{
    char text[1024];
    snprintf(text, sizeof text, "{\"metadata\":{\"name\":\"d\",\"generation\":3},\"spec\":{\"source\":%s}%s}", source,
             status);
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    return json;
}

static void what_is_allowed_is_ready(void **state)
{
    (void)state;
    static const struct {
        const char *source, *phase, *message;
    } cases[] = {
        {"{\"hostPath\":{\"path\":\"/data/x\"}}", "Ready",
         "the source is acceptable; its files are read when a job trains with them"},
        {"{\"persistentVolumeClaim\":{\"claimName\":\"c\"}}", "Ready",
         "the source is acceptable; its files are read when a job trains with them"},
        {"{\"hostPath\":{\"path\":\"/etc\"}}", "Failed",
         "spec.source.hostPath.path: '/etc' is not below one of the operator's --allowed-host-paths (/data, /srv); "
         "move the files there, or have the path added to that flag"},
        {"{\"hostPath\":{\"path\":\"/data/../etc\"}}", "Failed",
         "spec.source.hostPath.path: '/data/../etc' must be an absolute path without '..'"},
    };
    struct host_paths paths;
    assert_int_equal(host_paths_parse(&paths, "/data,/srv", NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cleanup_json cJSON *object = dataset(cases[i].source, "");
        cleanup_json cJSON *status = dataset_status(object, &paths, 1769860800);
        assert_string_equal(json_string(status, "phase", ""), cases[i].phase);
        assert_string_equal(json_string(status, "message", ""), cases[i].message);
        assert_int_equal(json_int(status, "observedGeneration", 0), 3);

        /* Later nothing changes, and the times of the conditions stay. */
        cJSON_AddItemToObject(object, "status", cJSON_Duplicate(status, true));
        cleanup_json cJSON *later = dataset_status(object, &paths, 1769860900);
        assert_true(json_equal(status, later));
        char sentence[500] = "";
        bool ready = dataset_is_ready(object, sentence, sizeof sentence);
        assert_true(ready == (strcmp(cases[i].phase, "Ready") == 0));
    }
    host_paths_free(&paths);

    cleanup_json cJSON *object = dataset("{\"hostPath\":{\"path\":\"/data\"}}", "");
    struct host_paths none = {0};
    cleanup_json cJSON *status = dataset_status(object, &none, 1769860800);
    assert_string_equal(json_string(status, "message", ""),
                        "spec.source.hostPath.path: '/data' is not allowed, because the operator allows no host paths; "
                        "use a persistentVolumeClaim, or have the operator started with --allowed-host-paths=/data");
}

static void a_condition_that_turns_gets_a_new_time(void **state)
{
    (void)state;
    struct host_paths paths;
    assert_int_equal(host_paths_parse(&paths, "/data", NULL), 0);
    cleanup_json cJSON *object = dataset("{\"hostPath\":{\"path\":\"/etc\"}}", "");
    cJSON_AddItemToObject(object, "status", dataset_status(object, &paths, 1769860800));
    host_paths_free(&paths);
    assert_int_equal(host_paths_parse(&paths, "/etc", NULL), 0);
    cleanup_json cJSON *status = dataset_status(object, &paths, 1769860900);
    const cJSON *ready = cJSON_GetArrayItem(json_at(status, "conditions"), 0);
    assert_string_equal(json_string(ready, "status", ""), "True");
    assert_string_equal(json_string(ready, "lastTransitionTime", ""), "2026-01-31T12:01:40Z");
    host_paths_free(&paths);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_paths_are_compared_part_by_part),
        cmocka_unit_test(the_flag_takes_absolute_paths_only),
        cmocka_unit_test(what_is_allowed_is_ready),
        cmocka_unit_test(a_condition_that_turns_gets_a_new_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
