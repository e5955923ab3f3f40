#include "history/record.h"

#include "common/clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char running_job[] =
    "{\"metadata\":{\"namespace\":\"default\",\"name\":\"lenet\",\"uid\":\"u-1\","
    "\"creationTimestamp\":\"2026-01-31T12:00:00Z\"},"
    "\"spec\":{\"model\":{\"zoo\":\"lenet\"},\"datasetRef\":{\"name\":\"fashion-mnist\"},"
    "\"training\":{\"epochs\":5,\"batchSize\":128,\"optimizer\":{\"type\":\"SGD\",\"learningRate\":0.0625},"
    "\"validateEveryEpochs\":1,\"goalAccuracy\":92.5},\"sync\":{\"type\":\"Synchronous\"},\"workers\":{\"replicas\":2}}"
    ","
    "\"status\":{\"phase\":\"Running\",\"term\":1,\"startTime\":\"2026-01-31T12:00:01Z\",\"message\":\"epoch 2 of "
    "5\"}}";

static const struct report_epoch first = {.term = 1,
                                          .epoch = 1,
                                          .train_loss = 0.5,
                                          .validated = true,
                                          .validation_loss = 0.25,
                                          .accuracy = 80,
                                          .parallelism = 2,
                                          .duration_seconds = 2.5};
static const struct report_epoch second = {
    .term = 1, .epoch = 2, .train_loss = 0.25, .parallelism = 1, .duration_seconds = 3};

static cJSON *parse(const char *text)
{
    struct error err = {0};
    cJSON *json = json_parse(text, strlen(text), "the job", &err);
    assert_string_equal(error_message(&err), "");
    return json;
}

static struct record *record_of(const char *job, const struct report_epoch *epochs, size_t count, bool final)
{
    struct error err = {0};
    cleanup_json cJSON *trainjob = parse(job);
    struct record *record = record_new(trainjob, epochs, count, final, &err);
    assert_string_equal(error_message(&err), "");
    return record;
}

static void assert_document(const struct record *record, const char *expected)
{
    bson_t document;
    record_to_bson(record, 1, 0, &document);
    char *text = bson_as_relaxed_extended_json(&document, NULL);
    assert_string_equal(text, expected);
    bson_free(text);
    bson_destroy(&document);
}

#define TASK                                                                                                           \
    "\"task\" : { \"model_type\" : \"lenet\", \"batch_size\" : 128, \"epochs\" : 5, \"dataset\" : \"fashion-mnist\", " \
    "\"lr\" : 0.0625, \"function_name\" : \"lenet\", \"options\" : { \"default_parallelism\" : 2, "                    \
    "\"static_parallelism\" : true, \"validate_every\" : 1, \"k\" : 1, \"goal_accuracy\" : 92.5 } }"

static void a_running_job_becomes_a_document_with_kubemls_names(void **state)
{
    (void)state;
    const struct report_epoch epochs[] = {second, first};
    cleanup_record struct record *record = record_of(running_job, epochs, 2, false);
    assert_document(
        record,
        "{ \"_id\" : \"u-1\", \"namespace\" : \"default\", \"name\" : \"lenet\", "
        "\"created\" : { \"$date\" : \"2026-01-31T12:00:00Z\" }, \"started\" : { \"$date\" : \"2026-01-31T12:00:01Z\" "
        "}, " TASK ", \"state\" : \"Running\", \"term\" : 1, \"final\" : false, "
        "\"data\" : { \"validation_loss\" : [ 0.25 ], \"accuracy\" : [ 80.0 ], \"train_loss\" : [ 0.5, 0.25 ], "
        "\"parallelism\" : [ 2.0, 1.0 ], \"epoch_duration\" : [ 2.5, 3.0 ] }, "
        "\"epochs\" : [ { \"epoch\" : 1, \"term\" : 1, \"train_loss\" : 0.5, \"validation_loss\" : 0.25, \"accuracy\" "
        ": 80.0, "
        "\"parallelism\" : 2, \"duration_seconds\" : 2.5 }, { \"epoch\" : 2, \"term\" : 1, \"train_loss\" : 0.25, "
        "\"parallelism\" : 1, \"duration_seconds\" : 3.0 } ], "
        "\"updated\" : { \"$date\" : \"1970-01-01T00:00:00Z\" }, \"revision\" : 1 }");
    assert_int_equal(record_newest_epoch(record), 2);
}

static void an_ended_job_says_why(void **state)
{
    (void)state;
    cleanup_json cJSON *job = parse(running_job);
    struct error err = {0};
    assert_int_equal(json_put(job, "status.phase", cJSON_CreateString("Failed"), &err), 0);
    assert_int_equal(json_put(job, "status.message", cJSON_CreateString("pod x was killed"), &err), 0);
    assert_int_equal(json_put(job, "status.conditions",
                              parse("[{\"type\":\"Ready\",\"status\":\"False\",\"reason\":\"No\"},"
                                    "{\"type\":\"Failed\",\"status\":\"True\",\"reason\":\"ParameterServerLost\"}]"),
                              &err),
                     0);
    cleanup_record struct record *record = record_new(job, NULL, 0, true, &err);
    assert_non_null(record);
    assert_string_equal(json_string(record->about, "state", ""), "Failed");
    assert_string_equal(json_string(record->about, "reason", ""), "ParameterServerLost");
    assert_string_equal(json_string(record->about, "message", ""), "pod x was killed");
    assert_int_equal(record_newest_epoch(record), 0);
}

static void a_job_deleted_before_its_end_is_called_deleted(void **state)
{
    (void)state;
    static const struct {
        const char *phase, *state;
    } cases[] = {{"Running", "Deleted"}, {"Pending", "Deleted"}, {"Succeeded", "Succeeded"}, {"Failed", "Failed"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cleanup_json cJSON *job = parse(running_job);
        struct error err = {0};
        assert_int_equal(json_put(job, "status.phase", cJSON_CreateString(cases[i].phase), &err), 0);
        assert_int_equal(json_put(job, "metadata.deletionTimestamp", cJSON_CreateString("2026-01-31T13:00:00Z"), &err),
                         0);
        cleanup_record struct record *record = record_new(job, &first, 1, true, &err);
        assert_string_equal(json_string(record->about, "state", ""), cases[i].state);
        assert_string_equal(json_string(record->about, "deleted", ""), "2026-01-31T13:00:00Z");
    }
}

static void a_job_without_uid_or_with_too_many_epochs_is_refused(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_json cJSON *nobody = parse("{\"metadata\":{\"namespace\":\"a\",\"name\":\"b\"}}");
    assert_null(record_new(nobody, NULL, 0, false, &err));
    assert_string_equal(error_message(&err), "TrainJob 'a/b' has no UID, or more than 10000 epochs");
}

/* What is stored comes back as it was, losses that are not finite included. */
static void a_document_survives_the_round_trip(void **state)
{
    (void)state;
    struct report_epoch epochs[] = {first,
                                    second,
                                    {.term = 2,
                                     .epoch = 3,
                                     .train_loss = (double)INFINITY,
                                     .validated = true,
                                     .validation_loss = (double)NAN,
                                     .accuracy = 10,
                                     .parallelism = 0,
                                     .duration_seconds = 1},
                                    {.term = 2,
                                     .epoch = 4,
                                     .train_loss = 1,
                                     .validated = true, /* of values: there is no accuracy */
                                     .validation_loss = 0.5,
                                     .accuracy = (double)NAN,
                                     .parallelism = 1,
                                     .duration_seconds = 1}};
    cleanup_record struct record *record = record_of(running_job, epochs, 4, true);
    bson_t document;
    record_to_bson(record, 7, 1000, &document);
    struct error err = {0};
    int64_t revision = 0;
    cleanup_record struct record *read = NULL;
    assert_int_equal(record_from_bson(&read, &revision, &document, &err), 0);
    assert_int_equal(revision, 7);
    assert_int_equal(read->term, 2);
    assert_true(read->final);
    assert_int_equal(read->count, 4);
    assert_true(isnan(read->epochs[2].train_loss));
    /* An infinity becomes null: only in this are the two different. */
    record->epochs[2].train_loss = (double)NAN;
    assert_true(record_equal(record, read));
    bson_destroy(&document);
}

static void epochs_merge_by_term(void **state)
{
    (void)state;
    const struct report_epoch stored[] = {{.term = 1, .epoch = 1, .train_loss = 1},
                                          {.term = 1, .epoch = 2, .train_loss = 2},
                                          {.term = 3, .epoch = 3, .train_loss = 3}};
    const struct report_epoch put[] = {{.term = 2, .epoch = 4, .train_loss = 40},
                                       {.term = 2, .epoch = 3, .train_loss = 30},
                                       {.term = 2, .epoch = 2, .train_loss = 20},
                                       {.term = 1, .epoch = 1, .train_loss = 10},
                                       {.term = 1, .epoch = 2, .train_loss = 11}};
    cleanup_record struct record *older = record_of(running_job, stored, 3, false);
    cleanup_record struct record *record = record_of(running_job, put, 5, false);
    struct error err = {0};
    assert_int_equal(record_merge(record, older, &err), 0);
    assert_int_equal(record->count, 4);
    /* The same term: a resend changes nothing. A higher one replaces, a lower one does not. */
    static const double losses[] = {1, 20, 3, 40};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(record->epochs[i].epoch, i + 1);
        assert_true(record->epochs[i].train_loss == losses[i]);
    }
}

static void the_end_and_a_higher_term_stay(void **state)
{
    (void)state;
    static const struct {
        bool stored_final, put_final;
        uint32_t stored_term, put_term;
        bool stored_stays;
    } cases[] = {
        {false, false, 1, 1, false}, {true, false, 1, 1, true},  {true, true, 1, 1, false},
        {false, false, 2, 1, true},  {false, true, 2, 1, false}, {true, false, 1, 2, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct report_epoch old = {.term = cases[i].stored_term, .epoch = 1};
        struct report_epoch new = {.term = cases[i].put_term, .epoch = 1};
        cleanup_record struct record *older = record_of(running_job, &old, 1, cases[i].stored_final);
        cleanup_record struct record *record = record_of(running_job, &new, 1, cases[i].put_final);
        struct error err = {0};
        assert_int_equal(json_put(older->about, "state", cJSON_CreateString("Stored"), &err), 0);
        assert_int_equal(record_merge(record, older, &err), 0);
        bool stayed = strcmp(json_string(record->about, "state", ""), "Stored") == 0;
        assert_int_equal(stayed, cases[i].stored_stays);
        assert_int_equal(record->final, cases[i].stored_final || cases[i].put_final);
    }
}

static void assert_unreadable(const char *json)
{
    bson_error_t mistake;
    bson_t *document = bson_new_from_json((const uint8_t *)json, -1, &mistake);
    assert_non_null(document);
    struct error err = {0};
    int64_t revision = 0;
    struct record *record = NULL;
    assert_int_equal(record_from_bson(&record, &revision, document, &err), -1);
    assert_true(error_message(&err)[0] != '\0');
    bson_destroy(document);
}

static void documents_of_others_are_refused(void **state)
{
    (void)state;
    assert_unreadable("{}");
    assert_unreadable("{\"_id\":1}");
    assert_unreadable("{\"_id\":\"a\"}");
    assert_unreadable("{\"_id\":\"a\",\"epochs\":[]}");
    assert_unreadable("{\"_id\":\"a\",\"epochs\":[1],\"revision\":1}");
    assert_unreadable("{\"_id\":\"a\",\"epochs\":[{\"epoch\":0,\"term\":1,\"parallelism\":1}],\"revision\":1}");
    assert_unreadable("{\"_id\":\"a\",\"epochs\":[{\"epoch\":1e300,\"term\":1,\"parallelism\":1}],\"revision\":1}");
    assert_unreadable("{\"_id\":\"a\",\"x\":[1],\"epochs\":[],\"revision\":1}");
    assert_unreadable("{\"_id\":\"a\",\"x\":{\"x\":{\"x\":{\"x\":{\"x\":{}}}}},\"epochs\":[],\"revision\":1}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_running_job_becomes_a_document_with_kubemls_names),
        cmocka_unit_test(an_ended_job_says_why),
        cmocka_unit_test(a_job_deleted_before_its_end_is_called_deleted),
        cmocka_unit_test(a_job_without_uid_or_with_too_many_epochs_is_refused),
        cmocka_unit_test(a_document_survives_the_round_trip),
        cmocka_unit_test(epochs_merge_by_term),
        cmocka_unit_test(the_end_and_a_higher_term_stay),
        cmocka_unit_test(documents_of_others_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
