/* Both ways to the operator, against real sockets: a WebSocket server on a thread of its own, and a socket pair. */
#include "coordinator/transport.h"

#include "common/report/report.h"

#include <libwebsockets.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cmocka.h>

/* ---- an operator that greets, and sends back what it hears ---- */

enum { ECHOES_MOST = 16 };

struct server {
    struct lws_context *context;
    pthread_t thread;
    uint16_t port;
    atomic_bool stop;
    atomic_bool hang_up; /* the next message that comes ends the connection */
    char *echoes[ECHOES_MOST];
    size_t first, count;
    char *message;
    size_t length;
};

static int serve(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t length)
{
    (void)user;
    struct server *server = lws_context_user(lws_get_context(wsi));
    switch (reason) {
    case LWS_CALLBACK_ESTABLISHED:
        server->echoes[server->count++] = strdup("hello");
        lws_callback_on_writable(wsi);
        return 0;
    case LWS_CALLBACK_RECEIVE:
        server->message = realloc(server->message, server->length + length + 1);
        memcpy(server->message + server->length, in, length);
        server->length += length;
        if (lws_remaining_packet_payload(wsi) > 0 || !lws_is_final_fragment(wsi))
            return 0;
        server->message[server->length] = '\0';
        server->length = 0;
        if (atomic_exchange(&server->hang_up, false))
            return -1;
        server->echoes[(server->first + server->count++) % ECHOES_MOST] = server->message;
        server->message = NULL;
        lws_callback_on_writable(wsi);
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE: {
        if (server->count == 0)
            return 0;
        char *echo = server->echoes[server->first];
        server->first = (server->first + 1) % ECHOES_MOST;
        server->count--;
        size_t size = strlen(echo);
        unsigned char *bytes = malloc(LWS_PRE + size + 1);
        snprintf((char *)bytes + LWS_PRE, size + 1, "%s", echo);
        int written = lws_write(wsi, bytes + LWS_PRE, size, LWS_WRITE_TEXT);
        free(bytes);
        free(echo);
        if (server->count > 0)
            lws_callback_on_writable(wsi);
        return written < (int)size ? -1 : 0;
    }
    case LWS_CALLBACK_CLOSED:
        for (; server->count > 0; server->count--) {
            free(server->echoes[server->first]);
            server->first = (server->first + 1) % ECHOES_MOST;
        }
        server->first = 0;
        return 0;
    default:
        return 0;
    }
}

static const struct lws_protocols server_protocols[] = {
    {.name = REPORT_SUBPROTOCOL, .callback = serve, .rx_buffer_size = 1024},
    {.name = NULL},
};

static void *server_main(void *arg)
{
    struct server *server = arg;
    while (!atomic_load(&server->stop))
        lws_service(server->context, 0);
    return NULL;
}

static void server_start(struct server *server)
{
    memset(server, 0, sizeof *server);
    lws_set_log_level(0, NULL);
    struct lws_context_creation_info info = {
        .port = 0, .iface = "127.0.0.1", .protocols = server_protocols, .user = server, .gid = -1, .uid = -1};
    server->context = lws_create_context(&info);
    assert_non_null(server->context);
    struct lws_vhost *vhost = lws_get_vhost_by_name(server->context, "default");
    server->port = (uint16_t)lws_get_vhost_listen_port(vhost);
    assert_int_equal(pthread_create(&server->thread, NULL, server_main, server), 0);
}

static void server_stop(struct server *server)
{
    atomic_store(&server->stop, true);
    lws_cancel_service(server->context);
    pthread_join(server->thread, NULL);
    lws_context_destroy(server->context);
    free(server->message);
}

/* ---- the coordinator's side ---- */

struct client {
    struct net *net;
    struct transport *transport;
    uint32_t connected, disconnected, received;
    char last[REPORT_MESSAGE_MOST + 1];
};

static void on_connected(void *arg)
{
    ((struct client *)arg)->connected++;
}

static void on_disconnected(void *arg, const char *reason)
{
    (void)reason;
    ((struct client *)arg)->disconnected++;
}

static void on_received(void *arg, const char *text, size_t length)
{
    struct client *client = arg;
    client->received++;
    memcpy(client->last, text, length);
    client->last[length] = '\0';
}

static const struct transport_handlers handlers = {on_connected, on_disconnected, on_received};
static const struct log quiet = {.fd = STDERR_FILENO, .level = LOG_ERROR};

static void client_make(struct client *client)
{
    memset(client, 0, sizeof *client);
    struct error err = {0};
    struct net_options options = {.boot_id = 1, .log = &quiet};
    assert_int_equal(net_new(&client->net, &options, &err), 0);
}

static void client_free(struct client *client)
{
    transport_free(client->transport);
    net_free(client->net);
}

/* The other end of what it then sends and receives by. */
static int open_pipe(struct client *client)
{
    struct error err = {0};
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(transport_new_pipe(&client->transport, client->net, ends[0], &handlers, client, &err), 0);
    return ends[1];
}

static void dial(struct client *client, uint16_t port)
{
    struct error err = {0};
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    assert_int_equal(transport_new_websocket(&client->transport, client->net, address, &quiet, &handlers, client, &err),
                     0);
}

static void client_turn(struct client *client, int64_t timeout)
{
    struct error err = {0};
    assert_int_not_equal(net_wait(client->net, timeout, &err), -1);
}

static void wait_until(struct client *client, const uint32_t *counter, uint32_t value)
{
    while (*counter < value)
        client_turn(client, -1);
}

static void test_messages_go_both_ways(void **state)
{
    (void)state;
    struct server server;
    struct client client;
    server_start(&server);
    client_make(&client);
    dial(&client, server.port);
    assert_false(transport_send(client.transport, "early", 5));
    wait_until(&client, &client.received, 1);
    assert_int_equal(client.connected, 1);
    assert_string_equal(client.last, "hello");
    char big[REPORT_MESSAGE_MOST];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    static const char *const short_ones[] = {"one", "two", "three"};
    for (size_t i = 0; i < 3; i++)
        assert_true(transport_send(client.transport, short_ones[i], strlen(short_ones[i])));
    wait_until(&client, &client.received, 4);
    assert_string_equal(client.last, "three");
    assert_true(transport_send(client.transport, big, strlen(big)));
    wait_until(&client, &client.received, 5);
    assert_string_equal(client.last, big);
    client_free(&client);
    server_stop(&server);
}

static void test_a_lost_connection_is_dialled_again(void **state)
{
    (void)state;
    struct server server;
    struct client client;
    server_start(&server);
    client_make(&client);
    dial(&client, server.port);
    wait_until(&client, &client.received, 1);
    atomic_store(&server.hang_up, true);
    assert_true(transport_send(client.transport, "bye", 3));
    wait_until(&client, &client.disconnected, 1);
    wait_until(&client, &client.received, 2);
    assert_int_equal(client.connected, 2);
    assert_true(transport_send(client.transport, "again", 5));
    wait_until(&client, &client.received, 3);
    assert_string_equal(client.last, "again");
    /* And where this side hangs up, what it still had to say is not said to the next. */
    assert_true(transport_send(client.transport, "lost", 4));
    transport_disconnect(client.transport);
    assert_false(transport_send(client.transport, "too late", 8));
    wait_until(&client, &client.connected, 3);
    while (strcmp(client.last, "hello") != 0)
        client_turn(&client, -1);
    client_free(&client);
    server_stop(&server);
}

static void test_nobody_there_is_no_trouble(void **state)
{
    (void)state;
    struct client client;
    struct server server;
    server_start(&server);
    uint16_t port = server.port;
    server_stop(&server);
    client_make(&client);
    dial(&client, port);
    wait_until(&client, &client.disconnected, 1);
    assert_int_equal(client.connected, 0);
    client_free(&client);
    client_make(&client);
    struct error err = {0};
    static const char *const bad[] = {"", "host", "host:", ":80", "host:0", "host:70000", "host:8x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(
            transport_new_websocket(&client.transport, client.net, bad[i], &quiet, &handlers, &client, &err), -1);
    client_free(&client);
}

static void test_lines_go_both_ways(void **state)
{
    (void)state;
    struct client client;
    client_make(&client);
    int end = open_pipe(&client);
    assert_true(transport_send(client.transport, "one", 3));
    assert_true(transport_send(client.transport, "two", 3));
    char text[16] = "";
    assert_int_equal(recv(end, text, 8, MSG_WAITALL), 8);
    assert_string_equal(text, "one\ntwo\n");
    assert_int_equal(send(end, "half", 4, 0), 4);
    client_turn(&client, -1);
    assert_int_equal(client.received, 0);
    assert_int_equal(send(end, " and half\nmore\nrest", 19, 0), 19);
    wait_until(&client, &client.received, 2);
    assert_string_equal(client.last, "more");
    close(end);
    wait_until(&client, &client.disconnected, 1);
    assert_false(transport_send(client.transport, "late", 4));
    client_free(&client);
}

static void test_a_pipe_that_is_not_read_has_a_cap(void **state)
{
    (void)state;
    struct client client;
    client_make(&client);
    int end = open_pipe(&client);
    char line[1000];
    memset(line, 'y', sizeof line);
    uint32_t sent = 0;
    while (transport_send(client.transport, line, sizeof line) && sent < 1000000)
        sent++;
    assert_true(sent > 100 && sent < 1000000);
    /* All that was taken comes, once somebody reads. */
    size_t left = (size_t)sent * (sizeof line + 1);
    while (left > 0) {
        char bytes[65536];
        ssize_t count = recv(end, bytes, left < sizeof bytes ? left : sizeof bytes, MSG_DONTWAIT);
        if (count > 0)
            left -= (size_t)count;
        else
            client_turn(&client, -1);
    }
    client_free(&client);
    close(end);
}

static void test_a_line_that_never_ends_is_cut_off(void **state)
{
    (void)state;
    struct client client;
    client_make(&client);
    int end = open_pipe(&client);
    char bytes[4096];
    memset(bytes, 'z', sizeof bytes);
    while (client.disconnected == 0) {
        (void)send(end, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        client_turn(&client, 0);
    }
    assert_int_equal(client.received, 0);
    client_free(&client);
    close(end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_go_both_ways),
        cmocka_unit_test(test_a_lost_connection_is_dialled_again),
        cmocka_unit_test(test_nobody_there_is_no_trouble),
        cmocka_unit_test(test_lines_go_both_ways),
        cmocka_unit_test(test_a_pipe_that_is_not_read_has_a_cap),
        cmocka_unit_test(test_a_line_that_never_ends_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
