/* Whatever breaks, and wherever: in the end the cache holds what the API server holds, and nobody was told more than
 * once that an object vanished, or an older state behind a newer one. */
#include "kube/fake_server.h"
#include "kube/informer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static const struct kube_resource nodes = {"", "v1", "nodes", "Node", false};

/* ---- an API server with a little history ------------------------------------------------------------------------ */

#define OBJECT(name, version) "{\"metadata\":{\"name\":\"" name "\",\"resourceVersion\":\"" version "\"}}"
#define EVENT(type, object)   "{\"type\":\"" type "\",\"object\":" object "}\n"
#define BOOKMARK(version, annotations)                                                                                 \
    EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"" version "\"" annotations "}}")
#define LIST_END(version) BOOKMARK(version, ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}")

#define AFTER_6 EVENT("DELETED", OBJECT("b", "7"))
#define AFTER_5 BOOKMARK("6", "") AFTER_6
#define AFTER_4 EVENT("ADDED", OBJECT("c", "5")) AFTER_5
#define AFTER_3 EVENT("MODIFIED", OBJECT("a", "4")) AFTER_4

#define PAGE(items, metadata) "{\"kind\":\"NodeList\",\"metadata\":{" metadata "},\"items\":[" items "]}\n"

/* What each request is answered: the first list, which may fail, sees an older state than those behind it. */
static const struct exchange first_stream = {"sendInitialEvents=true",
                                             200,
                                             NULL,
                                             EVENT("ADDED", OBJECT("a", "1")) EVENT("ADDED", OBJECT("b", "2"))
                                                 LIST_END("3") AFTER_3,
                                             false,
                                             false};
static const struct exchange later_stream = {"sendInitialEvents=true",
                                             200,
                                             NULL,
                                             EVENT("ADDED", OBJECT("a", "4")) EVENT("ADDED", OBJECT("c", "5"))
                                                 LIST_END("7"),
                                             false,
                                             false};
static const struct exchange first_page = {
    "limit=1 ", 200,
    NULL,       PAGE(OBJECT("a", "1") "," OBJECT("b", "2"), "\"resourceVersion\":\"3\",\"continue\":\"next\""),
    false,      false};
static const struct exchange second_page = {"continue=next", 200,  NULL, PAGE("", "\"resourceVersion\":\"3\""),
                                            false,           false};
static const struct exchange later_page = {
    "limit=1 ", 200, NULL, PAGE(OBJECT("a", "4") "," OBJECT("c", "5"), "\"resourceVersion\":\"7\""), false, false};
static const struct exchange watches[] = {
    {"&resourceVersion=3 ", 200, NULL, AFTER_3, false, false},
    {"&resourceVersion=4 ", 200, NULL, AFTER_4, false, false},
    {"&resourceVersion=5 ", 200, NULL, AFTER_5, false, false},
    {"&resourceVersion=6 ", 200, NULL, AFTER_6, false, false},
};
static const struct exchange at_the_end = {"&resourceVersion=7 ", 0, NULL, NULL, false, false};

struct world {
    struct loop *loop;
    struct fake_server *server;
    struct kube_client *client;
    struct kube_informer *informer;
    int requests, lists;
    int faulty; /* the request that fails, counted from 1 */
    enum fault fault;
    size_t offset;
    char versions[3]; /* of a, b and c, as last told; 0: not there */
    int vanished;
};

static const struct exchange *answer(struct world *world, const char *request)
{
    if (strstr(request, first_stream.request) != NULL)
        return ++world->lists == 1 ? &first_stream : &later_stream;
    if (strstr(request, second_page.request) != NULL)
        return &second_page;
    if (strstr(request, first_page.request) != NULL)
        return ++world->lists == 1 ? &first_page : &later_page;
    for (size_t i = 0; i < sizeof watches / sizeof watches[0]; i++)
        if (strstr(request, watches[i].request) != NULL)
            return &watches[i];
    if (strstr(request, at_the_end.request) == NULL)
        fail_msg("unexpected request: %s", request);
    loop_stop(world->loop);
    return &at_the_end;
}

static const struct exchange *respond(void *arg, const char *request)
{
    struct world *world = arg;
    bool fails = ++world->requests == world->faulty;
    fake_server_fault(world->server, fails ? world->fault : NO_FAULT, fails ? world->offset : SIZE_MAX);
    return answer(world, request);
}

static void on_change(void *arg, enum kube_change change, const char *key, const cJSON *object)
{
    struct world *world = arg;
    char *version = &world->versions[*key - 'a'];
    if (change == KUBE_VANISHED) {
        assert_int_not_equal(*version, 0);
        world->vanished++;
        *version = 0;
        return;
    }
    char now = *json_string(object, "metadata.resourceVersion", "");
    assert_int_equal(change, *version == 0 ? KUBE_APPEARED : KUBE_CHANGED);
    assert_true(now > *version);
    *version = now;
}

static void begin(struct world *world, enum fake_protocol protocol, bool paged, int64_t silence)
{
    *world = (struct world){.loop = loop_new(NULL)};
    world->server = fake_server_start_as(world->loop, protocol, NULL);
    fake_server_respond(world->server, respond, world);
    world->client = fake_server_client(world->server, NULL);
    const struct kube_informer_options options = {
        .watch = {.resource = &nodes,
                  .no_streaming_list = paged,
                  .page_size = 1,
                  .first_backoff = 2, /* nanoseconds: all in one test's time */
                  .silence = silence}};
    assert_int_equal(
        kube_informer_start(&world->informer, world->loop, world->client, NULL, &options, on_change, NULL, world, NULL),
        0);
}

static void end(struct world *world)
{
    kube_informer_stop(world->informer);
    kube_client_free(world->client);
    fake_server_stop(world->server);
    loop_free(world->loop);
}

static void run(struct world *world, const char *what, enum fake_protocol protocol)
{
    assert_int_equal(loop_run(world->loop, NULL), 0);
    cleanup_json cJSON *b = kube_cache_get(kube_informer_cache(world->informer), "b");
    /* b may have come and gone without having been seen. */
    if (world->versions[0] != '4' || b != NULL || world->versions[1] != 0 || world->versions[2] != '5' ||
        world->vanished > 1 || kube_cache_count(kube_informer_cache(world->informer)) != 2)
        fail_msg("%s at %zu of request %d (protocol %d): a %d, b %d, c %d", what, world->offset, world->faulty,
                 (int)protocol, world->versions[0], world->versions[1], world->versions[2]);
}

/* ---- faults ----------------------------------------------------------------------------------------------------- */

/* At every byte where it costs little; with TLS, whose handshake is dear, every few, which differ from fault to fault.
 * (decoder_test.c splits at all pairs of bytes.) */
static const struct fault_case {
    const char *name;
    enum fault fault;
    enum fake_protocol protocol;
    size_t step;
} faults[] = {
    {"a TCP reset", RESET, FAKE_HTTP1, 1},
    {"a TCP end", TRUNCATION, FAKE_HTTP1, 11},
    {"a TCP end under TLS", TRUNCATION, FAKE_HTTP1_TLS, 29},
    {"a TCP reset under HTTP/2", RESET, FAKE_HTTP2, 31},
    {"a TCP end under HTTP/2", TRUNCATION, FAKE_HTTP2, 23},
    {"RST_STREAM", STREAM_RESET, FAKE_HTTP2, 5},
    {"GOAWAY", GOAWAY, FAKE_HTTP2, 13},
    {"GOAWAY before an answer", DRAIN, FAKE_HTTP2, 97},
    {"GOAWAY instead of an answer", REFUSAL, FAKE_HTTP2, 1000},
    {"silence", SILENCE, FAKE_HTTP1, 241},
    {"silence under HTTP/2", SILENCE, FAKE_HTTP2, 163},
};

static void strike(const struct fault_case *c, int faulty, size_t offset, bool paged)
{
    struct world world;
    begin(&world, c->protocol, paged, c->fault == SILENCE ? 150 * MILLISECONDS : 0);
    world.fault = c->fault;
    world.faulty = faulty;
    world.offset = offset;
    run(&world, c->name, c->protocol);
    int connections = fake_server_accepted(world.server);
    /* A stream's own end costs no connection. One that fell silent is never used again, and on a busy machine more than
     * one may seem so. */
    if (c->fault == SILENCE ? connections < 2 : connections != (c->fault == STREAM_RESET ? 1 : 2))
        fail_msg("%s at %zu of request %d: %d connections", c->name, offset, faulty, connections);
    end(&world);
}

static void a_fault_at_every_byte_of_a_streaming_list_and_its_watch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        for (size_t offset = 0; offset < strlen(first_stream.body); offset += faults[i].step)
            strike(&faults[i], 1, offset, false);
}

static void a_fault_at_every_byte_of_two_pages_and_the_watch_behind(void **state)
{
    (void)state;
    const size_t lengths[] = {strlen(first_page.body), strlen(second_page.body), strlen(watches[0].body)};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        for (int faulty = 1; faulty <= 3; faulty++)
            for (size_t offset = 0; offset < lengths[faulty - 1]; offset += faults[i].step * 3)
                strike(&faults[i], faulty, offset, true);
}

/* In the middle of handshakes, frames and records. */
static void a_connection_cut_at_every_byte_on_the_wire(void **state)
{
    (void)state;
    static const enum fault cuts[] = {RESET, TRUNCATION};
    for (int protocol = 0; protocol < FAKE_PROTOCOLS; protocol++) {
        for (size_t i = 0; i < 2; i++) {
            int connections = 2;
            for (size_t bytes = 1; connections > 1; bytes += protocol == FAKE_HTTP1 ? 5 : 37) {
                struct world world;
                begin(&world, (enum fake_protocol)protocol, false, 0);
                world.offset = bytes;
                fake_server_cut(world.server, cuts[i], bytes);
                run(&world, "a cut on the wire", (enum fake_protocol)protocol);
                connections = fake_server_accepted(world.server);
                end(&world);
            }
        }
    }
}

static void answers_split_at_every_byte_are_one(void **state)
{
    (void)state;
    for (int protocol = 0; protocol < FAKE_PROTOCOLS; protocol++) {
        for (size_t offset = 0; offset < strlen(first_stream.body); offset += protocol == FAKE_HTTP1 ? 1 : 13) {
            struct world world;
            begin(&world, (enum fake_protocol)protocol, false, 0);
            world.faulty = 1;
            world.offset = offset;
            run(&world, "a split", (enum fake_protocol)protocol);
            assert_int_equal(world.requests, 2);
            assert_int_equal(world.vanished, 1);
            assert_int_equal(fake_server_accepted(world.server), 1);
            end(&world);
        }
    }
}

/* ---- how often, and for how long --------------------------------------------------------------------------------- */

struct frenzy {
    struct loop *loop;
    const struct exchange *list, *watch;
    int requests, most;
    long least, longest; /* of timeoutSeconds */
    struct instant began;
};

static const struct exchange *keep_failing(void *arg, const char *request)
{
    struct frenzy *frenzy = arg;
    if (++frenzy->requests == frenzy->most)
        loop_stop(frenzy->loop);
    const char *seconds = strstr(request, "timeoutSeconds=");
    if (seconds != NULL) {
        long value = strtol(seconds + strlen("timeoutSeconds="), NULL, 10);
        frenzy->least = frenzy->least == 0 || value < frenzy->least ? value : frenzy->least;
        frenzy->longest = value > frenzy->longest ? value : frenzy->longest;
    }
    bool page = strstr(request, "limit=") != NULL && strstr(request, "continue=") == NULL;
    bool list = page || strstr(request, "sendInitialEvents") != NULL;
    return list ? frenzy->list : frenzy->watch;
}

static void ignore(void *arg, enum kube_watch_event_type type, cJSON *object)
{
    (void)arg;
    (void)type;
    (void)object;
}

/* Plays until so many requests have come; returns how long that took. */
static int64_t play(struct frenzy *frenzy, const struct kube_watch_options *options)
{
    frenzy->loop = loop_new(NULL);
    struct fake_server *server = fake_server_start(frenzy->loop, NULL);
    struct kube_client *client = fake_server_client(server, NULL);
    fake_server_respond(server, keep_failing, frenzy);
    frenzy->began = clock_now();
    struct kube_watch *watch = NULL;
    assert_int_equal(kube_watch_start(&watch, frenzy->loop, client, NULL, options, ignore, NULL, NULL), 0);
    assert_int_equal(loop_run(frenzy->loop, NULL), 0);
    int64_t took = instant_since(clock_now(), frenzy->began);
    kube_watch_stop(watch);
    kube_client_free(client);
    fake_server_stop(server);
    loop_free(frenzy->loop);
    return took;
}

static const struct exchange good_list = {"", 200, NULL, LIST_END("3"), false, false};
static const struct exchange open_list = {"", 200, NULL, LIST_END("3"), false, true};
static const struct exchange good_page = {"", 200, NULL, PAGE("", "\"resourceVersion\":\"3\""), false, false};
static const struct exchange next_page = {"",    200,  NULL, PAGE("", "\"resourceVersion\":\"3\",\"continue\":\"t\""),
                                          false, false};
static const struct exchange gone = {"", 410, NULL, "{\"reason\":\"Expired\"}", false, false};
static const struct exchange gone_inside = {"", 200, NULL, EVENT("ERROR", "{\"code\":410}"), false, false};
static const struct exchange gone_in_list = {"",    200,  NULL, LIST_END("3") EVENT("ERROR", "{\"code\":410}"),
                                             false, false};
static const struct exchange one_bookmark = {"", 200, NULL, BOOKMARK("3", ""), false, false};
static const struct exchange nothing = {"", 200, NULL, "", false, false};
static const struct exchange broken = {"", 200, NULL, "<", false, false};
static const struct exchange busy = {"", 503, NULL, "", false, false};

/* Whatever fails again and again is tried again after pauses that double. */
static void no_failure_is_answered_with_a_frenzy(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const struct exchange *list, *watch;
        int requests; /* in which there are eight pauses */
        bool paged;
    } cases[] = {
        {"the version is always too old", &good_list, &gone, 9, false},
        {"the same inside the stream", &good_list, &gone_inside, 9, false},
        {"the same in the list's own stream", &gone_in_list, &gone, 9, false},
        {"the same behind pages", &good_page, &gone, 18, true},
        {"the continue token is always too old", &next_page, &gone, 14, true},
        {"a page that names itself as the next", &next_page, &next_page, 18, true},
        {"watches with one bookmark", &good_list, &one_bookmark, 9, false},
        {"watches with nothing", &good_list, &nothing, 9, false},
        {"lists that do not end", &nothing, &nothing, 9, false},
        {"no JSON", &good_list, &broken, 9, false},
        {"no service", &busy, &busy, 9, false},
        {"pages without end", &nothing, &nothing, 9, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        /* 0.5, 1, 2, … 64 ms at least; one of the eight may be left out. */
        struct frenzy frenzy = {.list = cases[i].list, .watch = cases[i].watch, .most = cases[i].requests};
        const struct kube_watch_options options = {
            .resource = &nodes, .no_streaming_list = cases[i].paged, .first_backoff = 1 * MILLISECONDS};
        int64_t took = play(&frenzy, &options);
        if (took < 63 * MILLISECONDS)
            fail_msg("%s: %d requests in %lld ms", cases[i].name, frenzy.requests, (long long)(took / MILLISECONDS));
    }
}

static void a_server_is_given_the_time_it_asks_for(void **state)
{
    (void)state;
    static const struct exchange later[] = {
        {"", 429, "Retry-After: 1\r\n", "", false, false},
        {"", 503, NULL, "{\"details\":{\"retryAfterSeconds\":1}}", false, false},
        {"", 200, NULL, EVENT("ERROR", "{\"code\":500,\"details\":{\"retryAfterSeconds\":1}}"), false, false},
    };
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        struct frenzy frenzy = {.list = &later[i], .most = 2};
        const struct kube_watch_options options = {.resource = &nodes, .first_backoff = 2};
        assert_true(play(&frenzy, &options) >= SECONDS);
    }
}

static void watches_end_at_different_times(void **state)
{
    (void)state;
    struct frenzy frenzy = {.list = &good_list, .watch = &broken, .most = 20};
    const struct kube_watch_options options = {.resource = &nodes, .first_backoff = 2};
    play(&frenzy, &options);
    assert_in_range(frenzy.least, 300, 599);
    assert_in_range(frenzy.longest, 300, 599);
    assert_true(frenzy.longest - frenzy.least > 30); /* else once in 10^18 runs */
}

/* ---- dead connections -------------------------------------------------------------------------------------------- */

/* Looks at our own descriptors: each TCP connection that we opened to the server. */
static int count_hardened(const struct kube_config *config)
{
    const unsigned port = (unsigned)strtoul(strrchr(config->server, ':') + 1, NULL, 10);
    int hardened = 0;
    for (int fd = 0; fd < 1024; fd++) {
        struct sockaddr_in peer = {.sin_family = AF_UNSPEC};
        socklen_t length = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &length) < 0 || peer.sin_family != AF_INET ||
            ntohs(peer.sin_port) != port)
            continue;
        unsigned milliseconds = 0;
        int keepalive = 0;
        length = sizeof milliseconds;
        assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, &length), 0);
        length = sizeof keepalive;
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &keepalive, &length), 0);
        assert_int_equal(milliseconds, 15000);
        assert_int_equal(keepalive, 1);
        hardened++;
    }
    return hardened;
}

static void a_peer_that_vanishes_is_noticed_by_the_kernel(void **state)
{
    (void)state;
    for (int protocol = 0; protocol < FAKE_PROTOCOLS; protocol++) {
        struct world world;
        begin(&world, (enum fake_protocol)protocol, false, 0);
        assert_int_equal(loop_run(world.loop, NULL), 0);
        assert_int_equal(count_hardened(kube_client_config(world.client)), 1);
        end(&world);
    }
}

/* A server that is stopped, or a proxy that lost it: TCP is well, and nothing comes. */
static void a_watch_that_falls_silent_is_begun_anew(void **state)
{
    (void)state;
    struct frenzy frenzy = {.list = &open_list, .watch = &open_list, .most = 3};
    const struct kube_watch_options options = {.resource = &nodes, .first_backoff = 2, .silence = 100 * MILLISECONDS};
    assert_true(play(&frenzy, &options) >= 200 * MILLISECONDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fault_at_every_byte_of_a_streaming_list_and_its_watch),
        cmocka_unit_test(a_fault_at_every_byte_of_two_pages_and_the_watch_behind),
        cmocka_unit_test(a_connection_cut_at_every_byte_on_the_wire),
        cmocka_unit_test(answers_split_at_every_byte_are_one),
        cmocka_unit_test(no_failure_is_answered_with_a_frenzy),
        cmocka_unit_test(a_server_is_given_the_time_it_asks_for),
        cmocka_unit_test(watches_end_at_different_times),
        cmocka_unit_test(a_peer_that_vanishes_is_noticed_by_the_kernel),
        cmocka_unit_test(a_watch_that_falls_silent_is_begun_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
