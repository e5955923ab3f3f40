#include "kube/fake_server.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { CONNECTIONS = 64, REQUEST_MOST = 64 * 1024 };

struct connection {
    struct fake_server *server;
    struct loop_fd watch;
    struct buffer in, out;
    bool reset_after; /* what is in `out` */
    bool used;
};

struct fake_server {
    struct loop *loop;
    const struct exchange *script;
    int played, accepted;
    char surprise[512]; /* the first request that the script did not expect */
    int listener;
    int port;
    struct loop_fd watch;
    struct connection connections[CONNECTIONS];
};

static void hang_up(struct connection *connection, bool reset)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    loop_fd_remove(&connection->watch);
    if (reset)
        setsockopt(connection->watch.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(connection->watch.fd);
    buffer_free(&connection->in);
    buffer_free(&connection->out);
    connection->used = false;
}

/* Sends what the socket takes; says whether the connection is still there. */
static bool flush(struct connection *connection)
{
    while (connection->out.length > 0) {
        ssize_t sent = send(connection->watch.fd, connection->out.data, connection->out.length, MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        buffer_consume(&connection->out, (size_t)sent);
    }
    bool more = connection->out.length > 0;
    if (!more && connection->reset_after) {
        hang_up(connection, true);
        return false;
    }
    loop_fd_set(&connection->watch, EPOLLIN | (more ? (uint32_t)EPOLLOUT : 0), NULL);
    return true;
}

static void reply(struct connection *connection, const struct exchange *exchange)
{
    struct buffer *out = &connection->out;
    const char *body = exchange->body == NULL ? "" : exchange->body;
    size_t length = strlen(body);
    buffer_printf(out, NULL, "HTTP/1.1 %d Scripted\r\nContent-Type: application/json\r\n%s", exchange->status,
                  exchange->headers == NULL ? "" : exchange->headers);
    buffer_printf(out, NULL, "Transfer-Encoding: chunked\r\n\r\n");
    if (length > 0) {
        buffer_printf(out, NULL, "%zx\r\n", length);
        buffer_append(out, body, length, NULL);
        buffer_append_text(out, "\r\n", NULL);
    }
    connection->reset_after = exchange->cut;
    if (!exchange->cut && !exchange->open)
        buffer_append_text(out, "0\r\n\r\n", NULL);
    flush(connection);
}

static void play(struct connection *connection, const char *request)
{
    struct fake_server *server = connection->server;
    const struct exchange *exchange = &server->script[server->played];
    size_t line = strcspn(request, "\r\n");
    bool expected = exchange->request != NULL && strstr(request, exchange->request) != NULL;
    if (!expected) {
        if (server->surprise[0] == '\0')
            snprintf(server->surprise, sizeof server->surprise, "'%.*s' instead of '%s'", (int)line, request,
                     exchange->request == NULL ? "nothing more" : exchange->request);
        loop_stop(server->loop);
        return;
    }
    server->played++;
    if (server->script[server->played].request == NULL)
        loop_stop(server->loop);
    if (exchange->status != 0)
        reply(connection, exchange);
    else if (exchange->cut)
        hang_up(connection, true);
}

/* One request at a time: HTTP/1.1 clients wait for the answer. */
static void take_request(struct connection *connection)
{
    const char *text = buffer_text(&connection->in);
    const char *end = strstr(text, "\r\n\r\n");
    if (end == NULL)
        return;
    size_t body = 0;
    const char *length = strcasestr(text, "\r\nContent-Length:");
    if (length != NULL && length < end)
        body = strtoul(length + strlen("\r\nContent-Length:"), NULL, 10);
    size_t whole = (size_t)(end - text) + 4 + body;
    if (connection->in.length < whole)
        return;
    cleanup_free char *request = strndup(text, whole);
    buffer_consume(&connection->in, whole);
    play(connection, request);
}

static void on_readable(void *arg, uint32_t events)
{
    struct connection *connection = arg;
    if ((events & EPOLLOUT) && !flush(connection))
        return;
    char chunk[4096];
    ssize_t got = recv(connection->watch.fd, chunk, sizeof chunk, MSG_DONTWAIT);
    if (got < 0 && (events & (EPOLLERR | EPOLLHUP)) == 0)
        return;
    if (got <= 0 || buffer_append(&connection->in, chunk, (size_t)got, NULL) < 0) {
        hang_up(connection, false);
        return;
    }
    take_request(connection);
}

static void on_connection(void *arg, uint32_t events)
{
    (void)events;
    struct fake_server *server = arg;
    int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    server->accepted++;
    for (int i = 0; i < CONNECTIONS; i++) {
        struct connection *connection = &server->connections[i];
        if (connection->used)
            continue;
        *connection = (struct connection){.server = server, .used = true};
        buffer_init(&connection->in, REQUEST_MOST);
        buffer_init(&connection->out, SIZE_MAX / 2);
        loop_fd_init(&connection->watch, server->loop, fd, on_readable, connection);
        loop_fd_set(&connection->watch, EPOLLIN, NULL);
        return;
    }
    close(fd);
}

struct fake_server *fake_server_start(struct loop *loop, const struct exchange *script)
{
    struct fake_server *server = calloc(1, sizeof *server);
    assert_non_null(server);
    server->loop = loop;
    server->script = script;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    assert_int_equal(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(server->listener, CONNECTIONS), 0);
    assert_int_equal(getsockname(server->listener, (struct sockaddr *)&address, &length), 0);
    server->port = ntohs(address.sin_port);
    loop_fd_init(&server->watch, loop, server->listener, on_connection, server);
    assert_int_equal(loop_fd_set(&server->watch, EPOLLIN, NULL), 0);
    return server;
}

void fake_server_stop(struct fake_server *server)
{
    loop_fd_remove(&server->watch);
    close(server->listener);
    for (int i = 0; i < CONNECTIONS; i++)
        if (server->connections[i].used)
            hang_up(&server->connections[i], false);
    free(server);
}

struct kube_client *fake_server_client(struct fake_server *server, const char *token_file)
{
    struct kube_config *config = calloc(1, sizeof *config);
    assert_non_null(config);
    assert_true(asprintf(&config->server, "http://127.0.0.1:%d", server->port) > 0);
    if (token_file != NULL) {
        config->token_file = strdup(token_file);
        config->token = strdup("old");
    }
    struct kube_client *client = kube_client_new(server->loop, config, NULL, NULL);
    assert_non_null(client);
    return client;
}

int fake_server_played(const struct fake_server *server)
{
    if (server->surprise[0] != '\0')
        fail_msg("unexpected request: %s", server->surprise);
    return server->played;
}

int fake_server_accepted(const struct fake_server *server)
{
    return server->accepted;
}
