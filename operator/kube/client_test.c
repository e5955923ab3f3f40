#include "kube/apply.h"
#include "kube/fake_server.h"
#include "kube/fake_tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static const struct kube_resource pods = {"", "v1", "pods", "Pod", true};

#define STATUS(reason, rest) "{\"kind\":\"Status\",\"reason\":\"" reason "\",\"message\":\"so it is.\"" rest "}"

/* One request, what the server answers, and what its sender hears. */
static const struct story {
    const char *name;
    enum kube_method method;
    struct exchange script[5];
    int status;
    const char *reason, *error; /* NULL: no error */
    int64_t retry_after;
    bool conflict;
} stories[] = {
    {"an object",
     KUBE_GET,
     {{"GET /api/v1/namespaces/n/pods/a ", 200, NULL, "{\"kind\":\"Pod\"}", false, false}},
     200,
     "",
     NULL,
     0,
     false},
    {"an empty answer",
     KUBE_DELETE,
     {{"DELETE /api/v1/namespaces/n/pods/a ", 200, NULL, "", false, false}},
     200,
     "",
     NULL,
     0,
     false},
    {"a write says who writes",
     KUBE_PATCH,
     {{"Content-Type: application/json", 200, NULL, "{}", false, false}},
     200,
     "",
     NULL,
     0,
     false},
    {"a creation goes to the collection",
     KUBE_POST,
     {{"POST /api/v1/namespaces/n/pods ", 201, NULL, "{}", false, false}},
     201,
     "",
     NULL,
     0,
     false},
    {"a replacement",
     KUBE_PUT,
     {{"PUT /api/v1/namespaces/n/pods/a ", 200, NULL, "{}", false, false}},
     200,
     "",
     NULL,
     0,
     false},
    {"the server's own words",
     KUBE_POST,
     {{"POST", 403, NULL, STATUS("Forbidden", ""), false, false}},
     403,
     "Forbidden",
     "create Pod n/a: the API server answered 403 Forbidden: so it is",
     0,
     false},
    {"a name that is taken",
     KUBE_POST,
     {{"POST", 409, NULL, STATUS("AlreadyExists", ""), false, false}},
     409,
     "AlreadyExists",
     "create Pod n/a: the API server answered 409 AlreadyExists: so it is",
     0,
     false},
    {"a violated resourceVersion",
     KUBE_PUT,
     {{"PUT", 409, NULL, STATUS("Conflict", ""), false, false}},
     409,
     "Conflict",
     "replace Pod n/a: the API server answered 409 Conflict: so it is",
     0,
     true},
    {"a violated UID",
     KUBE_PATCH,
     {{"PATCH", 422, NULL,
       STATUS("Invalid", ",\"details\":{\"causes\":[{\"field\":\"a\"},{\"field\":\"metadata.uid\"}]}"), false, false}},
     422,
     "Invalid",
     "patch Pod n/a: the API server answered 422 Invalid: so it is",
     0,
     true},
    {"what is no Status",
     KUBE_DELETE,
     {{"DELETE", 502, NULL, "Bad\nGateway\n", false, false}},
     502,
     "",
     "delete Pod n/a: the API server answered 502: Bad Gateway",
     0,
     false},
    {"nothing at all",
     KUBE_DELETE,
     {{"DELETE", 500, NULL, "", false, false}},
     500,
     "",
     "delete Pod n/a: the API server answered 500",
     0,
     false},
    {"success that is not JSON",
     KUBE_GET,
     {{"GET", 200, NULL, "<html>", false, false}},
     200,
     "",
     "get Pod n/a: the API server answered something that is not JSON",
     0,
     false},
    {"a read is sent again while the server is busy",
     KUBE_GET,
     {{"GET", 503, NULL, "", false, false},
      {"GET", 429, NULL, STATUS("TooManyRequests", ""), false, false},
      {"GET", 200, NULL, "{}", false, false}},
     200,
     "",
     NULL,
     0,
     false},
    {"a write is not",
     KUBE_POST,
     {{"POST", 429, "Retry-After: 7\r\n", STATUS("TooManyRequests", ""), false, false}},
     429,
     "TooManyRequests",
     "create Pod n/a: the API server answered 429 TooManyRequests: so it is",
     7 * SECONDS,
     false},
    {"the wait is in the Status",
     KUBE_POST,
     {{"POST", 503, NULL, STATUS("Busy", ",\"details\":{\"retryAfterSeconds\":3}"), false, false}},
     503,
     "Busy",
     "create Pod n/a: the API server answered 503 Busy: so it is",
     3 * SECONDS,
     false},
    {"no wait is endless",
     KUBE_POST,
     {{"POST", 503, "Retry-After: 999999999\r\n", "", false, false}},
     503,
     "",
     "create Pod n/a: the API server answered 503",
     60 * SECONDS,
     false},
    {"without credentials to read again, 401 is final",
     KUBE_GET,
     {{"GET", 401, NULL, STATUS("Unauthorized", ""), false, false}},
     401,
     "Unauthorized",
     "get Pod n/a: the API server answered 401 Unauthorized: so it is",
     0,
     false},
    {"a broken connection",
     KUBE_POST,
     {{"POST", 0, NULL, NULL, true, false}},
     0,
     "",
     "create Pod n/a: no answer from http://127.0.0.1",
     0,
     false},
    {"an answer that is cut off",
     KUBE_POST,
     {{"POST", 200, NULL, "{}", true, false}},
     0,
     "",
     "create Pod n/a: no answer from http://127.0.0.1",
     0,
     false},
};

struct heard {
    struct loop *loop;
    int count, cancelled, status;
    bool conflict;
    int64_t retry_after;
    char reason[64], error[1000];
};

static void on_answer(void *arg, struct kube_response *response)
{
    struct heard *heard = arg;
    heard->count++;
    heard->cancelled += response->cancelled;
    heard->status = response->status;
    heard->conflict = response->conflict;
    heard->retry_after = response->retry_after;
    snprintf(heard->reason, sizeof heard->reason, "%s", response->reason);
    snprintf(heard->error, sizeof heard->error, "%s", response->error == NULL ? "" : error_message(response->error));
    loop_stop(heard->loop);
}

static struct kube_request request_of(enum kube_method method)
{
    const char *body = method == KUBE_GET || method == KUBE_DELETE ? NULL : "{\"a\":1}";
    return (struct kube_request){.method = method,
                                 .resource = &pods,
                                 .namespace = "n",
                                 .name = "a",
                                 .body = body,
                                 .body_length = body == NULL ? 0 : strlen(body)};
}

/* Sends it and waits for the answer. */
static void ask(struct kube_client *client, const struct kube_request *request, struct heard *heard)
{
    int before = heard->count;
    assert_int_equal(kube_request(client, request, on_answer, heard, NULL, NULL), 0);
    assert_int_equal(heard->count, before);
    while (heard->count == before)
        assert_int_equal(loop_run(heard->loop, NULL), 0);
    assert_int_equal(heard->count, before + 1);
}

static void answers_are_told_as_they_are(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof stories / sizeof stories[0]; i++) {
        const struct story *story = &stories[i];
        cleanup_loop struct loop *loop = loop_new(NULL);
        struct fake_server *server = fake_server_start(loop, story->script);
        struct kube_client *client = fake_server_client(server, NULL);
        struct heard heard = {.loop = loop};
        const struct kube_request request = request_of(story->method);
        ask(client, &request, &heard);
        int played = fake_server_played(server);
        bool same = story->error == NULL ? heard.error[0] == '\0'
                                         : strncmp(heard.error, story->error, strlen(story->error)) == 0;
        if (!same || heard.status != story->status || strcmp(heard.reason, story->reason) != 0 ||
            heard.conflict != story->conflict || heard.retry_after != story->retry_after ||
            story->script[played].request != NULL)
            fail_msg("%s: %d %s '%s'", story->name, heard.status, heard.reason, heard.error);
        kube_client_free(client);
        fake_server_stop(server);
    }
}

static void a_refused_token_is_read_again_and_sent_once_more(void **state)
{
    (void)state;
    char path[] = "/tmp/thole-client-test-XXXXXX";
    cleanup_fd int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(file_write_atomically(path, "new", 3, NULL), 0);
    static const struct exchange script[] = {
        {"Authorization: Bearer old", 401, NULL, STATUS("Unauthorized", ""), false, false},
        {"Authorization: Bearer new", 200, NULL, "{}", false, false},
        {"Authorization: Bearer new", 401, NULL, STATUS("Unauthorized", ""), false, false},
        {0},
    };
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct fake_server *server = fake_server_start(loop, script);
    struct kube_client *client = fake_server_client(server, path);
    struct heard heard = {.loop = loop};
    const struct kube_request request = request_of(KUBE_POST);
    ask(client, &request, &heard);
    assert_int_equal(heard.status, 200);
    ask(client, &request, &heard);
    assert_int_equal(heard.status, 401);
    assert_int_equal(fake_server_played(server), 3);
    kube_client_free(client);
    fake_server_stop(server);
    unlink(path);
}

static void a_connection_that_timed_out_is_not_used_again(void **state)
{
    (void)state;
    static const struct exchange script[] = {{"GET", 200, NULL, "{}", false, false},
                                             {"GET", 200, NULL, "{}", false, false},
                                             {"GET", 0, NULL, NULL, false, false},
                                             {"GET", 200, NULL, "{}", false, false},
                                             {0}};
    for (int protocol = 0; protocol < FAKE_PROTOCOLS; protocol++) {
        cleanup_loop struct loop *loop = loop_new(NULL);
        struct fake_server *server = fake_server_start_as(loop, (enum fake_protocol)protocol, script);
        struct kube_client *client = fake_server_client(server, NULL);
        struct heard heard = {.loop = loop};
        struct kube_request request = request_of(KUBE_GET);
        ask(client, &request, &heard);
        ask(client, &request, &heard);
        assert_int_equal(fake_server_accepted(server), 1);
        request.timeout = 20 * MILLISECONDS;
        ask(client, &request, &heard);
        assert_int_equal(heard.status, 0);
        assert_non_null(strstr(heard.error, "imed out"));
        request.timeout = 0;
        ask(client, &request, &heard);
        assert_int_equal(heard.status, 200);
        assert_int_equal(fake_server_accepted(server), 2);
        kube_client_free(client);
        fake_server_stop(server);
    }
}

/* A wait may be said as a date, too. */
static void a_date_to_wait_for_is_understood(void **state)
{
    (void)state;
    static const struct {
        int64_t from_now, least, most; /* seconds; the test may take 20 */
    } cases[] = {{30, 10, 30}, {3600, 60, 60}, {-30, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        time_t when = time(NULL) + cases[i].from_now;
        struct tm parts;
        char header[100];
        strftime(header, sizeof header, "Retry-After: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime_r(&when, &parts));
        const struct exchange script[] = {{"POST", 503, header, "", false, false}, {0}};
        cleanup_loop struct loop *loop = loop_new(NULL);
        struct fake_server *server = fake_server_start_as(loop, FAKE_HTTP2, script);
        struct kube_client *client = fake_server_client(server, NULL);
        struct heard heard = {.loop = loop};
        const struct kube_request request = request_of(KUBE_POST);
        ask(client, &request, &heard);
        assert_int_equal(heard.status, 503);
        assert_true(heard.retry_after >= cases[i].least * SECONDS && heard.retry_after <= cases[i].most * SECONDS);
        kube_client_free(client);
        fake_server_stop(server);
    }
}

struct folder {
    char path[64], ca[96], certificate[96], key[96];
};

static void make_folder(struct folder *folder)
{
    snprintf(folder->path, sizeof folder->path, "/tmp/thole-client-test-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
    snprintf(folder->ca, sizeof folder->ca, "%s/ca.crt", folder->path);
    snprintf(folder->certificate, sizeof folder->certificate, "%s/me.crt", folder->path);
    snprintf(folder->key, sizeof folder->key, "%s/me.key", folder->path);
}

static void remove_folder(const struct folder *folder)
{
    unlink(folder->ca);
    unlink(folder->certificate);
    unlink(folder->key);
    rmdir(folder->path);
}

static void put_file(const char *path, const char *text)
{
    assert_int_equal(file_write_atomically(path, text, strlen(text), NULL), 0);
}

/* Certificates of the client, from the files that were there in the beginning. */
static struct kube_client *client_of(struct fake_server *server, struct loop *loop, const struct folder *folder,
                                     const char *certificate, const char *key)
{
    struct kube_config *config = fake_server_config(server);
    config->ca_file = strdup(folder->ca);
    config->certificate_file = strdup(folder->certificate);
    config->key_file = strdup(folder->key);
    config->certificate_pem = strdup(certificate);
    config->key_pem = strdup(key);
    put_file(folder->ca, config->ca_pem);
    put_file(folder->certificate, certificate);
    put_file(folder->key, key);
    struct kube_client *client = kube_client_new(loop, config, NULL, NULL);
    assert_non_null(client);
    return client;
}

/* The server's authority and our own certificate are renewed while we run: first what is new is refused, then it is
 * there as a file, and used at once. */
static void renewed_certificates_are_read_again(void **state)
{
    (void)state;
    static const struct exchange script[] = {
        {"Client-Certificate: old", 200, NULL, "{}", false, false},
        {"Client-Certificate: old", 401, NULL, "", false, false},
        {"Client-Certificate: old", 401, NULL, "", false, false},
        {"Client-Certificate: new", 200, NULL, "{}", false, false},
        {"Client-Certificate: new", 200, NULL, "{}", false, false},
        {0},
    };
    char *certificates[2] = {NULL, NULL};
    char *keys[2] = {NULL, NULL};
    fake_certificate("old", &certificates[0], &keys[0]);
    fake_certificate("new", &certificates[1], &keys[1]);
    struct folder folder;
    make_folder(&folder);
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct fake_server *server = fake_server_start_as(loop, FAKE_HTTP2, script);
    struct kube_client *client = client_of(server, loop, &folder, certificates[0], keys[0]);
    struct heard heard = {.loop = loop};
    const struct kube_request request = request_of(KUBE_POST);
    ask(client, &request, &heard);
    assert_int_equal(heard.status, 200);
    ask(client, &request, &heard);
    assert_int_equal(heard.status, 401);
    put_file(folder.certificate, certificates[1]);
    put_file(folder.key, keys[1]);
    ask(client, &request, &heard);
    assert_int_equal(heard.status, 200);

    kube_client_free(client);
    client = client_of(server, loop, &folder, certificates[1], keys[1]);
    const char *authority = fake_server_renew(server);
    ask(client, &request, &heard);
    assert_int_equal(heard.status, 0);
    assert_non_null(strstr(heard.error, "certificate"));
    put_file(folder.ca, authority);
    ask(client, &request, &heard);
    assert_int_equal(heard.status, 200);

    kube_client_free(client);
    fake_server_stop(server);
    remove_folder(&folder);
    for (int i = 0; i < 2; i++) {
        free(certificates[i]);
        free(keys[i]);
    }
}

/* Waiting, under way and backing off: cancelled ones are silent, the others hear of the end exactly once. */
static void requests_end_with_the_client_or_before(void **state)
{
    (void)state;
    static const struct exchange script[] = {
        {"GET", 503, NULL, "", false, false}, {"GET", 0, NULL, NULL, false, false}, {0}};
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct fake_server *server = fake_server_start(loop, script);
    struct kube_client *client = fake_server_client(server, NULL);
    struct heard heard = {.loop = loop};
    struct kube_call *calls[6];
    const struct kube_request request = request_of(KUBE_GET);
    assert_int_equal(kube_request(client, &request, on_answer, &heard, &calls[0], NULL), 0);
    assert_int_equal(kube_request(client, &request, on_answer, &heard, &calls[1], NULL), 0);
    assert_int_equal(loop_run(loop, NULL), 0);
    for (int i = 2; i < 6; i++)
        assert_int_equal(kube_request(client, &request, on_answer, &heard, &calls[i], NULL), 0);
    kube_call_cancel(calls[0]);
    kube_call_cancel(calls[3]);
    assert_int_equal(heard.count, 0);
    kube_client_free(client);
    assert_int_equal(heard.count, 4);
    assert_int_equal(heard.cancelled, 4);
    assert_string_equal(heard.error, "the connection to the API server was closed");
    fake_server_stop(server);
}

static void answers_are_capped(void **state)
{
    (void)state;
    static const struct exchange script[] = {{"GET", 200, NULL, "{\"a\":\"123456789\"}", false, false}, {0}};
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct fake_server *server = fake_server_start(loop, script);
    struct kube_client *client = fake_server_client(server, NULL);
    struct heard heard = {.loop = loop};
    struct kube_request request = request_of(KUBE_GET);
    request.most_bytes = 16;
    ask(client, &request, &heard);
    assert_string_equal(heard.error, "get Pod n/a: the answer is larger than 16 bytes");
    kube_client_free(client);
    fake_server_stop(server);
}

static void an_absent_server_is_said_clearly(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct fake_server *server = fake_server_start(loop, NULL);
    struct kube_client *client = fake_server_client(server, NULL);
    fake_server_stop(server);
    struct heard heard = {.loop = loop};
    const struct kube_request request = request_of(KUBE_DELETE);
    ask(client, &request, &heard);
    assert_int_equal(heard.status, 0);
    assert_non_null(strstr(heard.error, "delete Pod n/a: no answer from http://127.0.0.1:"));
    assert_non_null(strstr(heard.error, "Couldn't connect"));
    kube_client_free(client);
}

static void names_that_cannot_be_are_refused_at_once(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct fake_server *server = fake_server_start(loop, NULL);
    struct kube_client *client = fake_server_client(server, NULL);
    struct heard heard = {.loop = loop};
    struct kube_request request = request_of(KUBE_GET);
    request.name = "..";
    struct error err = {0};
    assert_int_equal(kube_request(client, &request, on_answer, &heard, NULL, &err), -1);
    assert_string_equal(error_message(&err), "'..' cannot name anything in a request's path");
    kube_client_free(client);
    assert_int_equal(heard.count, 0);
    fake_server_stop(server);
}

/* The bodies of the writes, as the server sees them. */
static void writes_carry_what_they_should(void **state)
{
    (void)state;
    static const struct exchange script[] = {
        {"\"metadata\":{\"namespace\":\"n\",\"name\":\"a\"},\"apiVersion\":\"v1\",\"kind\":\"Pod\"}", 201, NULL, "{}",
         false, false},
        {"{\"status\":{\"x\":1},\"metadata\":{\"uid\":\"u\",\"resourceVersion\":\"7\"}}", 200, NULL, "{}", false,
         false},
        {"PATCH /api/v1/namespaces/n/pods/a?fieldManager=thole-operator&force=true ", 200, NULL, "{}", false, false},
        {"\"propagationPolicy\":\"Orphan\",\"preconditions\":{\"uid\":\"u\",\"resourceVersion\":\"7\"}}", 200, NULL,
         "{}", false, false},
        {0},
    };
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct fake_server *server = fake_server_start(loop, script);
    struct kube_client *client = fake_server_client(server, NULL);
    struct heard heard = {.loop = loop};
    cleanup_json cJSON *object = cJSON_Parse("{\"metadata\":{\"namespace\":\"n\",\"name\":\"a\"}}");
    cleanup_json cJSON *patch = cJSON_Parse("{\"status\":{\"x\":1}}");
    const struct kube_precondition same = {.uid = "u", .resource_version = "7"};
    assert_int_equal(kube_create(client, &pods, object, on_answer, &heard, NULL), 0);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(kube_merge_patch(client, &pods, "n", "a", "status", patch, same, on_answer, &heard, NULL), 0);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(kube_apply(client, &pods, object, same, on_answer, &heard, NULL), 0);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(kube_delete(client, &pods, "n", "a", same, "Orphan", on_answer, &heard, NULL), 0);
    while (heard.count < 4)
        assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(fake_server_played(server), 4);
    assert_int_equal(heard.status, 200);
    kube_client_free(client);
    fake_server_stop(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_told_as_they_are),
        cmocka_unit_test(a_refused_token_is_read_again_and_sent_once_more),
        cmocka_unit_test(a_connection_that_timed_out_is_not_used_again),
        cmocka_unit_test(a_date_to_wait_for_is_understood),
        cmocka_unit_test(renewed_certificates_are_read_again),
        cmocka_unit_test(requests_end_with_the_client_or_before),
        cmocka_unit_test(answers_are_capped),
        cmocka_unit_test(an_absent_server_is_said_clearly),
        cmocka_unit_test(names_that_cannot_be_are_refused_at_once),
        cmocka_unit_test(writes_carry_what_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
