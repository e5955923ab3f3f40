/* The server as a whole: where it listens, how many it takes, and what does not disturb it. */
#include "server/test_bed.h"

#include <stdio.h>
#include <sys/socket.h>

static void garbage(struct scene *scene)
{
    static const char end_of_headers[] = {'\r', '\n', '\r', '\n'};
    char answer[8192], request[4096];
    uint64_t random = 1;
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof request; i++) {
            random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
            request[i] = (char)(random >> 56);
        }
        memcpy(request + sizeof request - sizeof end_of_headers, end_of_headers, sizeof end_of_headers);
        exchange_bytes(scene, request, sizeof request, answer, sizeof answer);
    }
    struct client client;
    client_open_at(&client, scene, "/v1/other", REPORT_SUBPROTOCOL);
    assert_false(client.established);
    client_close(&client);
    client_open_at(&client, scene, REPORT_PATH, "something-else");
    assert_false(client.established);
    client_close(&client);
    client_open_at(&client, scene, REPORT_PATH, NULL);
    assert_false(client.established);
    client_close(&client);
    join(&client, scene, "u-1", BOOT_A);
    client_close(&client);
}

static void garbage_closes_its_connection_and_nothing_else(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(garbage, &scene, usual());
    assert_int_equal(scene.hellos, 1);
}

static void fill_up(struct scene *scene)
{
    struct client client;
    char answer[256];
    join(&client, scene, "u-1", BOOT_A);
    {
        cleanup_fd int idle = connect_to(scene);
        (void)!send(idle, "G", 1, MSG_NOSIGNAL);
        /* The server takes connections in their order: when this one is closed, the idle one is counted. */
        static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        exchange_bytes(scene, request, strlen(request), answer, sizeof answer);
        assert_string_equal(answer, "");
    }
    struct report_message message = {.type = REPORT_EPOCH};
    message.epoch = (struct report_epoch){.term = 1, .epoch = 1};
    say(&client, &message);
    hear(&client, REPORT_ACK);
    client_close(&client);
}

static void connections_are_limited(void **state)
{
    (void)state;
    struct scene scene = {0};
    struct server_options options = usual();
    options.most_connections = 2;
    play(fill_up, &scene, options);
    assert_int_equal(scene.epochs, 1);
}

static void what_cannot_be_listened_on_is_one_sentence(void **state)
{
    (void)state;
    static const char *const malformed[] = {"",     "8080",   "localhost:80", ":",        ":99999",       ":80x",
                                            ":-1",  "::1:80", "[::1:80",      "1.2.3:80", "[1.2.3.4]:80", "]:80",
                                            "[]:80"};
    struct error err = {0};
    cleanup_loop struct loop *loop = loop_new(&err);
    struct server_options options = usual();
    options.loop = loop;
    struct server *server = NULL;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        options.listen = malformed[i];
        assert_int_equal(server_start(&server, &options, &err), -1);
        assert_non_null(strstr(error_message(&err), "is no address to listen on: write it like ':8080'"));
    }
    options.listen = "127.0.0.1:0";
    assert_int_equal(server_start(&server, &options, &err), 0);
    char taken[32];
    snprintf(taken, sizeof taken, "127.0.0.1:%u", server_port(server));
    options.listen = taken;
    struct server *second = NULL;
    assert_int_equal(server_start(&second, &options, &err), -1);
    assert_non_null(strstr(error_message(&err), "is something else using the port?"));
    server_stop(server);
    options.listen = ":0";
    assert_int_equal(server_start(&server, &options, &err), 0);
    server_stop(server);
}

int main(void)
{
    lws_set_log_level(0, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(garbage_closes_its_connection_and_nothing_else),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(what_cannot_be_listened_on_is_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
