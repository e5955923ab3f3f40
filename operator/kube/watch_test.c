#include "kube/fake_server.h"
#include "kube/watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct kube_resource pods = {"", "v1", "pods", "Pod", true};

#define OBJECT(name, version)   "{\"metadata\":{\"name\":\"" name "\",\"resourceVersion\":\"" version "\"}}"
#define ADDED(name, version)    "{\"type\":\"ADDED\",\"object\":" OBJECT(name, version) "}\n"
#define MODIFIED(name, version) "{\"type\":\"MODIFIED\",\"object\":" OBJECT(name, version) "}\n"
#define DELETED(name, version)  "{\"type\":\"DELETED\",\"object\":" OBJECT(name, version) "}\n"
#define BOOKMARK(version)       "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"" version "\"}}}\n"
#define LIST_END(version)                                                                                              \
    "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"" version                                  \
    "\",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n"
#define ERROR_EVENT(code, reason)                                                                                      \
    "{\"type\":\"ERROR\",\"object\":{\"code\":" code ",\"reason\":\"" reason "\",\"message\":\"so it is\"}}\n"
#define STATUS(reason)        "{\"kind\":\"Status\",\"reason\":\"" reason "\",\"message\":\"so it is\"}"
#define PAGE(items, metadata) "{\"kind\":\"PodList\",\"metadata\":{" metadata "},\"items\":[" items "]}\n"

#define TEN(text) text text text text text text text text text text
#define LONG      TEN(TEN(TEN(TEN("xx"))))

#define STREAM_LIST "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
#define FIRST_PAGE  "/api/v1/pods?limit=500 "

static const struct story {
    const char *name;
    struct exchange script[8];
    const char *told;  /* "L" a list begins, "E" it ends, "+name" applied, "-name" deleted */
    const char *error; /* the last error at the end; NULL: none */
    bool paged;
} stories[] = {
    {"a streaming list that goes on as a watch",
     {{STREAM_LIST, 200, NULL, ADDED("a", "1") ADDED("b", "2") LIST_END("3") MODIFIED("a", "4") DELETED("b", "5"),
       false, false},
      {"&resourceVersion=5 ", 0, NULL, NULL, false, false}},
     "L +a +b E +a -b",
     NULL,
     false},
    {"a clean end: from the same version again",
     {{STREAM_LIST, 200, NULL, LIST_END("3"), false, false},
      {"&resourceVersion=3 ", 200, NULL, ADDED("a", "7"), false, false},
      {"&resourceVersion=7 ", 200, NULL, BOOKMARK("9"), false, false},
      {"&resourceVersion=9 ", 0, NULL, NULL, false, false}},
     "L E +a",
     NULL,
     false},
    {"an unclean end: from the last whole event",
     {{STREAM_LIST, 200, NULL, LIST_END("3") ADDED("a", "4") "{\"type\":\"ADDED\",\"obj", true, false},
      {"&resourceVersion=4 ", 0, NULL, NULL, false, false}},
     "L E +a",
     "watch pods: no answer from http",
     false},
    {"a clean end within an event",
     {{STREAM_LIST, 200, NULL, LIST_END("3") ADDED("a", "4") "{\"type\":\"ADDED\",\"obj", false, false},
      {"&resourceVersion=4 ", 0, NULL, NULL, false, false}},
     "L E +a",
     "the stream ended in the middle of an object",
     false},
    {"the watched version is too old, as a status",
     {{STREAM_LIST, 200, NULL, ADDED("a", "1") LIST_END("3"), false, false},
      {"&resourceVersion=3 ", 410, NULL, STATUS("Expired"), false, false},
      {STREAM_LIST, 200, NULL, ADDED("b", "8") LIST_END("9"), false, false},
      {"&resourceVersion=9 ", 0, NULL, NULL, false, false}},
     "L +a E L +b E",
     NULL,
     false},
    {"the watched version is too old, inside the stream",
     {{STREAM_LIST, 200, NULL, ADDED("a", "1") LIST_END("3"), false, false},
      {"&resourceVersion=3 ", 200, NULL, ERROR_EVENT("410", "Expired"), false, false},
      {STREAM_LIST, 200, NULL, LIST_END("9"), false, false},
      {"&resourceVersion=9 ", 0, NULL, NULL, false, false}},
     "L +a E L E",
     NULL,
     false},
    {"the same without a reason",
     {{STREAM_LIST, 200, NULL, LIST_END("3") ERROR_EVENT("410", ""), false, false},
      {STREAM_LIST, 0, NULL, NULL, false, false}},
     "L E L",
     NULL,
     false},
    {"another error inside the stream",
     {{STREAM_LIST, 200, NULL, LIST_END("3") ERROR_EVENT("500", "InternalError"), false, false},
      {"&resourceVersion=3 ", 0, NULL, NULL, false, false}},
     "L E",
     "watch pods: the API server ended the stream with 500 InternalError: so it is",
     false},
    {"a streaming list that is cut off begins anew",
     {{STREAM_LIST, 200, NULL, ADDED("a", "1"), true, false},
      {STREAM_LIST, 200, NULL, ADDED("a", "1") LIST_END("3"), false, false},
      {"&resourceVersion=3 ", 0, NULL, NULL, false, false}},
     "L +a L +a E",
     NULL,
     false},
    {"streaming lists that never end are given up",
     {{STREAM_LIST, 200, NULL, ADDED("a", "1"), false, false},
      {STREAM_LIST, 200, NULL, ADDED("a", "1"), false, false},
      {STREAM_LIST, 200, NULL, ADDED("a", "1"), false, false},
      {FIRST_PAGE, 200, NULL, PAGE(OBJECT("a", "1"), "\"resourceVersion\":\"4\""), false, false},
      {"&resourceVersion=4 ", 0, NULL, NULL, false, false}},
     "L +a L +a L +a L +a E",
     NULL,
     false},
    {"a proxy that does not let streaming lists pass",
     {{STREAM_LIST, 504, NULL, "", false, false},
      {STREAM_LIST, 504, NULL, "", false, false},
      {STREAM_LIST, 504, NULL, "", false, false},
      {FIRST_PAGE, 200, NULL, PAGE("", "\"resourceVersion\":\"4\""), false, false},
      {"&resourceVersion=4 ", 0, NULL, NULL, false, false}},
     "L L L L E",
     NULL,
     false},
    {"a server that has no streaming lists (422)",
     {{STREAM_LIST, 422, NULL, STATUS("Invalid"), false, false},
      {FIRST_PAGE, 200, NULL,
       PAGE(OBJECT("a", "1") "," OBJECT("b", "2"), "\"resourceVersion\":\"4\",\"continue\":\"t/1=\""), false, false},
      {"/api/v1/pods?limit=500&continue=t%2F1%3D ", 200, NULL,
       PAGE(OBJECT("c", "3"), "\"resourceVersion\":\"4\",\"continue\":\"\""), false, false},
      {"&resourceVersion=4 ", 410, NULL, STATUS("Expired"), false, false},
      {FIRST_PAGE, 0, NULL, NULL, false, false}},
     "L L +a +b +c E L",
     NULL,
     false},
    {"a server that has no streaming lists (400)",
     {{STREAM_LIST, 400, NULL, STATUS("BadRequest"), false, false},
      {FIRST_PAGE, 200, NULL, PAGE("", "\"resourceVersion\":\"4\""), false, false},
      {"&resourceVersion=4 ", 0, NULL, NULL, false, false}},
     "L L E",
     NULL,
     false},
    {"an expired continue token: the whole list at once, and pages again when a later one is due",
     {{FIRST_PAGE, 200, NULL, PAGE(OBJECT("a", "1"), "\"resourceVersion\":\"4\",\"continue\":\"t\""), false, false},
      {"&continue=t ", 410, NULL, "{\"reason\":\"Expired\",\"metadata\":{\"continue\":\"inconsistent\"}}", false,
       false},
      {"/api/v1/pods ", 200, NULL, PAGE(OBJECT("a", "1"), "\"resourceVersion\":\"5\""), false, false},
      {"&resourceVersion=5 ", 410, NULL, STATUS("Expired"), false, false},
      {FIRST_PAGE, 0, NULL, NULL, false, false}},
     "L +a L +a E L",
     "410 Expired",
     true},
    {"a page that fails is asked for again, and not those before it",
     {{FIRST_PAGE, 200, NULL, PAGE(OBJECT("a", "1"), "\"resourceVersion\":\"4\",\"continue\":\"t\""), false, false},
      {"&continue=t ", 503, NULL, "", false, false},
      {"&continue=t ", 200, NULL, "{\"items\":[" OBJECT("b", "2") ",{", true, false},
      {"&continue=t ", 200, NULL, PAGE(OBJECT("b", "2"), "\"resourceVersion\":\"4\""), false, false},
      {"&resourceVersion=4 ", 0, NULL, NULL, false, false}},
     "L +a +b +b E",
     NULL,
     true},
    {"a page that names itself as the next",
     {{FIRST_PAGE, 200, NULL, PAGE("", "\"resourceVersion\":\"4\",\"continue\":\"t\""), false, false},
      {"&continue=t ", 200, NULL, PAGE("", "\"resourceVersion\":\"4\",\"continue\":\"t\""), false, false},
      {FIRST_PAGE, 0, NULL, NULL, false, false}},
     "L L",
     "does not go on",
     true},
    {"a token that no request can hold",
     {{FIRST_PAGE, 200, NULL, PAGE("", "\"continue\":\"" LONG "\""), false, false},
      {FIRST_PAGE, 0, NULL, NULL, false, false}},
     "L L",
     "16384 bytes",
     true},
    {"a page that is cut off",
     {{FIRST_PAGE, 200, NULL, "{\"kind\":\"PodList\",\"items\":[" OBJECT("a", "1") ",{\"met", false, false},
      {FIRST_PAGE, 0, NULL, NULL, false, false}},
     "L +a L",
     "middle of an object",
     true},
    {"a page without a version",
     {{FIRST_PAGE, 200, NULL, PAGE(OBJECT("a", "1"), ""), false, false}, {FIRST_PAGE, 0, NULL, NULL, false, false}},
     "L +a L",
     "without a resourceVersion",
     true},
    {"the API server is busy: a list is sent again",
     {{STREAM_LIST, 503, NULL, "no healthy upstream", false, false},
      {STREAM_LIST, 429, NULL, STATUS("TooManyRequests"), false, false},
      {STREAM_LIST, 200, NULL, LIST_END("3"), false, false},
      {"&resourceVersion=3 ", 0, NULL, NULL, false, false}},
     "L L L E",
     NULL,
     false},
    {"forbidden",
     {{STREAM_LIST, 403, NULL, STATUS("Forbidden"), false, false}, {STREAM_LIST, 0, NULL, NULL, false, false}},
     "L L",
     "watch pods: the API server answered 403 Forbidden: so it is",
     false},
    {"not even HTTP's body is JSON",
     {{STREAM_LIST, 200, NULL, "<html>", false, false}, {STREAM_LIST, 0, NULL, NULL, false, false}},
     "L L",
     "no JSON object",
     false},
    {"an event of an unknown type",
     {{STREAM_LIST, 200, NULL, LIST_END("3") "{\"type\":\"HELLO\",\"object\":" OBJECT("a", "4") "}", false, false},
      {"&resourceVersion=3 ", 0, NULL, NULL, false, false}},
     "L E",
     "unknown type 'HELLO'",
     false},
    {"an object without a version",
     {{STREAM_LIST, 200, NULL, LIST_END("3") "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}", false,
       false},
      {"&resourceVersion=3 ", 0, NULL, NULL, false, false}},
     "L E",
     "without a resourceVersion",
     false},
    {"watches that end at once are not begun again in a frenzy",
     {{STREAM_LIST, 200, NULL, LIST_END("3"), false, false},
      {"&resourceVersion=3 ", 200, NULL, "", false, false},
      {"&resourceVersion=3 ", 0, NULL, NULL, false, false}},
     "L E",
     "ends watches at once",
     false},
};

struct trace {
    struct buffer text;
    struct kube_watch *watch;
    int count, stop_at; /* the number of the event in which the watch is stopped; 0: never */
    struct loop_timer afterwards;
    bool ended;
};

static void end(void *arg)
{
    struct trace *trace = arg;
    trace->ended = true;
    loop_stop(trace->afterwards.loop);
}

static void on_event(void *arg, enum kube_watch_event_type type, cJSON *object)
{
    struct trace *trace = arg;
    const char *separator = trace->text.length > 0 ? " " : "";
    if (type == KUBE_WATCH_LISTING || type == KUBE_WATCH_LISTED)
        buffer_printf(&trace->text, NULL, "%s%s", separator, type == KUBE_WATCH_LISTING ? "L" : "E");
    else
        buffer_printf(&trace->text, NULL, "%s%c%s", separator, type == KUBE_WATCH_DELETED ? '-' : '+',
                      json_string(object, "metadata.name", "?"));
    if (++trace->count == trace->stop_at) {
        kube_watch_stop(trace->watch);
        trace->watch = NULL;
        loop_timer_set(&trace->afterwards, 5 * MILLISECONDS); /* what should not come may come until then */
    }
}

static void start(struct trace *trace, struct loop *loop, struct kube_client *client, bool paged)
{
    buffer_init(&trace->text, 10000);
    const struct kube_watch_options options = {
        .resource = &pods, .no_streaming_list = paged, .first_backoff = 2 * MILLISECONDS};
    assert_int_equal(kube_watch_start(&trace->watch, loop, client, NULL, &options, on_event, trace, NULL), 0);
    assert_int_equal(trace->count, 0);
}

static void play(const struct story *story, enum fake_protocol protocol)
{
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct fake_server *server = fake_server_start_as(loop, protocol, story->script);
    struct kube_client *client = fake_server_client(server, NULL);
    struct trace trace = {.stop_at = 0};
    start(&trace, loop, client, story->paged);
    assert_int_equal(loop_run(loop, NULL), 0);
    fake_server_played(server);
    if (strcmp(buffer_text(&trace.text), story->told) != 0)
        fail_msg("%s: '%s' instead of '%s'", story->name, buffer_text(&trace.text), story->told);
    const char *error = kube_watch_last_error(trace.watch);
    if (story->error == NULL ? *error != '\0' : strstr(error, story->error) == NULL)
        fail_msg("%s: last error '%s'", story->name, error);
    assert_int_equal(kube_watch_synced(trace.watch), strchr(story->told, 'E') != NULL);
    kube_watch_stop(trace.watch);
    kube_client_free(client);
    fake_server_stop(server);
    buffer_free(&trace.text);
}

static void stories_go_as_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof stories / sizeof stories[0]; i++)
        for (int protocol = 0; protocol < FAKE_PROTOCOLS; protocol++)
            play(&stories[i], (enum fake_protocol)protocol);
}

/* The handler may stop the watch at any event: nothing comes afterwards. The memory checker is the judge. */
static void a_watch_is_stopped_in_the_middle(void **state)
{
    (void)state;
    static const struct exchange streaming[] = {
        {STREAM_LIST, 200, NULL, ADDED("a", "1") ADDED("b", "2") LIST_END("3") MODIFIED("a", "4"), false, true}, {0}};
    static const struct exchange paged[] = {
        {FIRST_PAGE, 200, NULL, PAGE(OBJECT("a", "1") "," OBJECT("b", "2"), "\"resourceVersion\":\"4\""), false, false},
        {0}};
    static const char *const told[] = {"L", "L +a", "L +a +b", "L +a +b E"};
    for (int mode = 0; mode < 2; mode++) {
        for (int at = 1; at <= 4; at++) {
            cleanup_loop struct loop *loop = loop_new(NULL);
            struct fake_server *server = fake_server_start(loop, mode == 0 ? streaming : paged);
            struct kube_client *client = fake_server_client(server, NULL);
            struct trace trace = {.stop_at = at};
            loop_timer_init(&trace.afterwards, loop, end, &trace);
            start(&trace, loop, client, mode == 1);
            while (!trace.ended)
                assert_int_equal(loop_run(loop, NULL), 0);
            assert_string_equal(buffer_text(&trace.text), told[at - 1]);
            kube_client_free(client);
            fake_server_stop(server);
            buffer_free(&trace.text);
        }
    }
}

static struct trace play_body(const char *body, bool paged, enum fake_protocol protocol)
{
    const struct exchange script[] = {{paged ? FIRST_PAGE : STREAM_LIST, 200, NULL, body, false, false},
                                      {"&resourceVersion=3 ", 0, NULL, NULL, false, false},
                                      {0}};
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct fake_server *server = fake_server_start_as(loop, protocol, script);
    struct kube_client *client = fake_server_client(server, NULL);
    struct trace trace = {.stop_at = 0};
    start(&trace, loop, client, paged);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(fake_server_played(server), 2);
    kube_watch_stop(trace.watch);
    kube_client_free(client);
    fake_server_stop(server);
    return trace;
}

enum { LARGE_EVENT = 1536 * 1024, HUGE_EVENT = 5 * 1024 * 1024 };

/* A large object is told whole; one huge object must not hide those behind it. */
static void an_object_beyond_the_cap_is_skipped(void **state)
{
    (void)state;
    cleanup_buffer struct buffer body;
    buffer_init(&body, (size_t)HUGE_EVENT + LARGE_EVENT + 1000);
    const int sizes[] = {HUGE_EVENT, LARGE_EVENT};
    for (int i = 0; i < 2; i++) {
        buffer_printf(
            &body, NULL,
            "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"%d\",\"resourceVersion\":\"1\"},\"x\":\"",
            sizes[i]);
        for (int length = 0; length < sizes[i]; length += 16)
            buffer_append_text(&body, "}{}{}{}{}{}{}{}{", NULL);
        buffer_append_text(&body, "\"}}\n", NULL);
    }
    buffer_append_text(&body, ADDED("b", "2") LIST_END("3"), NULL);
    for (int protocol = 0; protocol < FAKE_PROTOCOLS; protocol++) {
        struct trace trace = play_body(body.data, false, (enum fake_protocol)protocol);
        assert_string_equal(buffer_text(&trace.text), "L +1572864 +b E");
        buffer_free(&trace.text);
    }
}

static size_t trees, most_trees; /* pieces of memory that cJSON holds, and held at most */

static void *count_malloc(size_t size)
{
    if (++trees > most_trees)
        most_trees = trees;
    return malloc(size);
}

static void count_free(void *memory)
{
    trees -= memory != NULL;
    free(memory);
}

/* However long a list is, only one of its items is a tree at a time. */
static void lists_are_never_a_tree(void **state)
{
    (void)state;
    cJSON_Hooks counting = {count_malloc, count_free};
    for (int paged = 0; paged < 2; paged++) {
        cleanup_buffer struct buffer body;
        buffer_init(&body, 1024UL * 1024);
        buffer_append_text(&body, paged ? "{\"metadata\":{\"resourceVersion\":\"3\"},\"items\":[" OBJECT("a", "1") : "",
                           NULL);
        for (int i = 0; i < 2000; i++)
            buffer_append_text(&body, paged ? "," OBJECT("a", "1") : ADDED("a", "1"), NULL);
        buffer_append_text(&body, paged ? "]}" : LIST_END("3"), NULL);
        cJSON_InitHooks(&counting);
        most_trees = 0;
        struct trace trace = play_body(body.data, paged, FAKE_HTTP1);
        cJSON_InitHooks(NULL);
        assert_int_equal(trees, 0);
        assert_in_range(most_trees, 1, 40);
        assert_true(trace.count >= 2000);
        buffer_free(&trace.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_go_as_told),
        cmocka_unit_test(a_watch_is_stopped_in_the_middle),
        cmocka_unit_test(an_object_beyond_the_cap_is_skipped),
        cmocka_unit_test(lists_are_never_a_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
