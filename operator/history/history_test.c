/* The history against the real protocol. The parts that need a server run where THOLE_TEST_MONGODB_URI names one:
 *
 *   dir=$(mktemp -d); (cd hack/tools/mongo && go build -o "$dir/mongo" .)
 *   mkdir "$dir/data"; "$dir/mongo" --listen 127.0.0.1:27717 --dir "$dir/data" &
 *   THOLE_TEST_MONGODB_URI=mongodb://127.0.0.1:27717 ctest --preset asan -R history_test
 */
#include "history/history.h"

#include "common/crypto.h"

#include <mongoc/mongoc.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

/* What the hooks heard; the loop stops when `expected` answers are there. */
struct listener {
    struct loop *loop;
    struct history *history;
    unsigned synced, failed, expected;
    uint32_t epoch;
    bool final;
    char job_uid[64], sentence[1000];
};

static void count_down(struct listener *listener)
{
    if (--listener->expected == 0)
        loop_stop(listener->loop);
}

static void heard_synced(void *arg, const char *job_uid, uint32_t epoch, bool final)
{
    struct listener *listener = arg;
    listener->synced++;
    listener->epoch = epoch;
    listener->final = final;
    snprintf(listener->job_uid, sizeof listener->job_uid, "%s", job_uid);
    count_down(listener);
}

static void heard_failed(void *arg, const char *job_uid, const char *sentence)
{
    struct listener *listener = arg;
    listener->failed++;
    snprintf(listener->job_uid, sizeof listener->job_uid, "%s", job_uid);
    snprintf(listener->sentence, sizeof listener->sentence, "%s", sentence);
    count_down(listener);
}

static void listener_start(struct listener *listener, const char *uri)
{
    struct error err = {0};
    memset(listener, 0, sizeof *listener);
    listener->loop = loop_new(&err);
    assert_non_null(listener->loop);
    const struct history_options options = {
        .uri = uri,
        .loop = listener->loop,
        .hooks = {.arg = listener, .synced = heard_synced, .failed = heard_failed},
        .retry_least = 10 * MILLISECONDS,
        .retry_most = 20 * MILLISECONDS,
    };
    int result = history_start(&listener->history, &options, &err);
    assert_string_equal(error_message(&err), "");
    assert_int_equal(result, 0);
}

static size_t listener_stop(struct listener *listener, int64_t flush)
{
    size_t left = history_stop(listener->history, flush);
    loop_free(listener->loop);
    return left;
}

static void listen_for(struct listener *listener, unsigned answers)
{
    struct error err = {0};
    listener->expected = answers;
    assert_int_equal(loop_run(listener->loop, &err), 0);
}

static cJSON *job(const char *uid, const char *phase)
{
    char text[512];
    int length = snprintf(text, sizeof text,
                          "{\"metadata\":{\"namespace\":\"default\",\"name\":\"lenet\",\"uid\":\"%s\"},"
                          "\"spec\":{\"model\":{\"zoo\":\"lenet\"}},\"status\":{\"phase\":\"%s\"}}",
                          uid, phase);
    struct error err = {0};
    cJSON *json = json_parse(text, (size_t)length, "the job", &err);
    assert_non_null(json);
    return json;
}

static void put(struct listener *listener, const char *uid, const char *phase, const struct report_epoch *epochs,
                size_t count, bool final)
{
    cleanup_json cJSON *trainjob = job(uid, phase);
    history_put(listener->history, trainjob, epochs, count, final);
}

/* A port that nobody listens on: bound, so that nobody else takes it. */
static int closed_port(char *uri, size_t size)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    snprintf(uri, size, "mongodb://127.0.0.1:%u", ntohs(address.sin_port));
    return fd;
}

static void a_malformed_uri_is_one_sentence_without_the_password(void **state)
{
    (void)state;
    struct error err = {0};
    struct history *history = NULL;
    cleanup_loop struct loop *loop = loop_new(&err);
    const struct history_options options = {.uri = "http://user:secret@host", .loop = loop};
    assert_int_equal(history_start(&history, &options, &err), -1);
    assert_non_null(strstr(error_message(&err), "the MongoDB URI is malformed"));
    assert_null(strstr(error_message(&err), "secret"));
}

static void while_mongodb_is_away_records_wait(void **state)
{
    (void)state;
    char uri[64];
    int fd = closed_port(uri, sizeof uri);
    struct listener listener;
    listener_start(&listener, uri);
    const struct report_epoch epochs[] = {{.term = 1, .epoch = 1}, {.term = 1, .epoch = 2}};
    put(&listener, "a", "Running", &epochs[0], 1, false);
    put(&listener, "b", "Running", NULL, 0, false);
    put(&listener, "a", "Running", &epochs[1], 1, false);
    listen_for(&listener, 2);
    assert_int_equal(listener.failed, 2);
    assert_int_equal(listener.synced, 0);
    assert_non_null(strstr(listener.sentence, "MongoDB: No suitable servers found"));
    struct history_metrics metrics;
    history_metrics(listener.history, &metrics);
    assert_int_equal(metrics.waiting, 2);
    assert_int_equal(metrics.written, 0);
    assert_true(metrics.failures >= 1);
    assert_int_equal(listener_stop(&listener, 0), 2);
    close(fd);
}

/* ---- with a server ---- */

static const char *server_uri(void)
{
    const char *uri = getenv("THOLE_TEST_MONGODB_URI");
    if (uri == NULL)
        skip();
    return uri;
}

static void unique_uid(char out[33])
{
    uint8_t bytes[16];
    random_bytes(bytes, sizeof bytes);
    hex_encode(bytes, sizeof bytes, out);
}

/* The stored document as JSON, to be freed with bson_free; checks that there is exactly one. */
static char *stored(const char *uri, const char *uid)
{
    mongoc_client_t *client = mongoc_client_new(uri);
    assert_non_null(client);
    mongoc_collection_t *collection = mongoc_client_get_collection(client, "thole", "history");
    bson_t filter = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&filter, "_id", uid);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection, &filter, NULL, NULL);
    const bson_t *document = NULL;
    assert_true(mongoc_cursor_next(cursor, &document));
    char *text = bson_as_relaxed_extended_json(document, NULL);
    assert_false(mongoc_cursor_next(cursor, &document));
    mongoc_cursor_destroy(cursor);
    bson_destroy(&filter);
    mongoc_collection_destroy(collection);
    mongoc_client_destroy(client);
    return text;
}

static void assert_stored(const char *uri, const char *uid, const char *part)
{
    char *text = stored(uri, uid);
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in %s", part, text);
    bson_free(text);
}

static void a_jobs_life_is_written_as_it_goes_on(void **state)
{
    (void)state;
    const char *uri = server_uri();
    struct listener listener;
    listener_start(&listener, uri);
    char uid[33];
    unique_uid(uid);
    struct report_epoch epoch = {.term = 1,
                                 .epoch = 1,
                                 .train_loss = 0.5,
                                 .validated = true,
                                 .validation_loss = 0.25,
                                 .accuracy = 80,
                                 .parallelism = 2,
                                 .duration_seconds = 2.5};
    put(&listener, uid, "Running", &epoch, 1, false);
    listen_for(&listener, 1);
    assert_string_equal(listener.job_uid, uid);
    assert_int_equal(listener.epoch, 1);
    assert_false(listener.final);
    assert_stored(uri, uid, "\"train_loss\" : [ 0.5 ]");
    assert_stored(uri, uid, "\"revision\" : 1");

    /* Again the same: nothing changes. */
    put(&listener, uid, "Running", &epoch, 1, false);
    listen_for(&listener, 1);
    assert_stored(uri, uid, "\"revision\" : 1");

    epoch.epoch = 2;
    epoch.train_loss = 0.25;
    put(&listener, uid, "Running", &epoch, 1, false);
    listen_for(&listener, 1);
    assert_int_equal(listener.epoch, 2);
    assert_stored(uri, uid, "\"train_loss\" : [ 0.5, 0.25 ]");

    /* Rewound: the higher term replaces, the lower one comes too late. */
    epoch.term = 2;
    epoch.train_loss = 0.125;
    put(&listener, uid, "Running", &epoch, 1, false);
    epoch.term = 1;
    epoch.train_loss = 9;
    listen_for(&listener, 1);
    put(&listener, uid, "Running", &epoch, 1, false);
    listen_for(&listener, 1);
    assert_stored(uri, uid, "\"train_loss\" : [ 0.5, 0.125 ]");

    put(&listener, uid, "Succeeded", NULL, 0, true);
    listen_for(&listener, 1);
    assert_true(listener.final);
    assert_stored(uri, uid, "\"state\" : \"Succeeded\"");
    assert_stored(uri, uid, "\"train_loss\" : [ 0.5, 0.125 ]");
    assert_int_equal(listener.failed, 0);
    assert_int_equal(listener_stop(&listener, SECONDS), 0);
}

static void records_of_one_job_are_joined_while_they_wait(void **state)
{
    (void)state;
    const char *uri = server_uri();
    struct listener listener;
    listener_start(&listener, uri);
    char uid[33];
    unique_uid(uid);
    /* Faster than anybody writes: most of them wait together. */
    enum { PUTS = 200 };
    for (uint32_t i = 1; i <= PUTS; i++) {
        struct report_epoch epoch = {.term = 1, .epoch = i, .parallelism = 1};
        put(&listener, uid, i == PUTS ? "Succeeded" : "Running", &epoch, 1, i == PUTS);
    }
    assert_int_equal(history_stop(listener.history, 60 * SECONDS), 0);
    loop_free(listener.loop);
    assert_stored(uri, uid, "{ \"epoch\" : 200, \"term\" : 1,");
    assert_stored(uri, uid, "{ \"epoch\" : 1, \"term\" : 1,");
    assert_stored(uri, uid, "\"final\" : true");
    char *text = stored(uri, uid);
    const char *revision = strstr(text, "\"revision\" : ");
    assert_non_null(revision);
    assert_true(strtol(revision + strlen("\"revision\" : "), NULL, 10) < PUTS / 2);
    bson_free(text);
}

/* FerretDB 1.24 reads and writes in an update one after the other, so its conditions do not hold against others. */
static bool updates_are_atomic(const char *uri)
{
    mongoc_client_t *client = mongoc_client_new(uri);
    bson_t command = BSON_INITIALIZER, reply;
    bson_iter_t at;
    BSON_APPEND_INT32(&command, "buildInfo", 1);
    assert_true(mongoc_client_command_simple(client, "admin", &command, NULL, &reply, NULL));
    bool ferretdb = bson_iter_init_find(&at, &reply, "ferretdbVersion") || bson_iter_init_find(&at, &reply, "ferretdb");
    bson_destroy(&reply);
    bson_destroy(&command);
    mongoc_client_destroy(client);
    return !ferretdb;
}

static void two_operators_lose_nothing(void **state)
{
    (void)state;
    const char *uri = server_uri();
    bool at_once = updates_are_atomic(uri);
    struct listener operators[2];
    listener_start(&operators[0], uri);
    listener_start(&operators[1], uri);
    char uid[33];
    unique_uid(uid);
    enum { EPOCHS = 12 };
    for (uint32_t i = 1; i <= EPOCHS; i++) {
        struct report_epoch epoch = {.term = 1, .epoch = i};
        put(&operators[i % 2], uid, "Running", &epoch, 1, false);
        if (!at_once)
            listen_for(&operators[i % 2], 1);
    }
    assert_int_equal(listener_stop(&operators[0], 60 * SECONDS), 0);
    assert_int_equal(listener_stop(&operators[1], 60 * SECONDS), 0);
    char *text = stored(uri, uid);
    for (uint32_t i = 1; i <= EPOCHS; i++) {
        char part[64];
        snprintf(part, sizeof part, "{ \"epoch\" : %u, \"term\" : 1,", i);
        assert_non_null(strstr(text, part));
    }
    bson_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_malformed_uri_is_one_sentence_without_the_password),
        cmocka_unit_test(while_mongodb_is_away_records_wait),
        cmocka_unit_test(a_jobs_life_is_written_as_it_goes_on),
        cmocka_unit_test(records_of_one_job_are_joined_while_they_wait),
        cmocka_unit_test(two_operators_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
