#include "kube/fake_server.h"
#include "kube/fake_http2.h"
#include "kube/fake_tls.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { CONNECTIONS = 64, REQUEST_MOST = 4 * 1024 * 1024 };

struct connection {
    struct fake_server *server;
    struct loop_fd watch;
    SSL *tls; /* NULL: none */
    struct fake_http2 *http2;
    struct buffer in;  /* what the client said, without TLS */
    struct buffer out; /* for the wire */
    enum fault after;  /* RESET or TRUNCATION: happens when all of `out` is gone */
    bool used;
};

struct fake_server {
    struct loop *loop;
    enum fake_protocol protocol;
    char *certificate, *key;
    SSL_CTX *tls;
    const struct exchange *script;
    fake_responder *responder;
    void *arg;
    enum fault fault; /* of every answer, behind `split` bytes */
    size_t split;
    enum fault cut; /* once, when `wire_left` is 0 */
    size_t wire_left;
    int played, accepted;
    char surprise[512]; /* the first request that the script did not expect */
    int listener;
    int port;
    struct loop_fd watch;
    struct connection connections[CONNECTIONS];
};

/* ---- the wire --------------------------------------------------------------------------------------------------- */

static void hang_up(struct connection *connection, bool reset)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    loop_fd_remove(&connection->watch);
    if (reset)
        setsockopt(connection->watch.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(connection->watch.fd);
    buffer_free(&connection->in);
    buffer_free(&connection->out);
    fake_http2_free(connection->http2);
    SSL_free(connection->tls);
    connection->used = false;
}

/* Sends what the socket takes, and ends the connection where that is due. */
static void flush(struct connection *connection)
{
    struct fake_server *server = connection->server;
    if (connection->tls != NULL)
        fake_tls_flush(connection->tls, &connection->out);
    while (connection->out.length > 0 && server->wire_left > 0) {
        size_t most = connection->out.length < server->wire_left ? connection->out.length : server->wire_left;
        ssize_t sent = send(connection->watch.fd, connection->out.data, most, MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        buffer_consume(&connection->out, (size_t)sent);
        server->wire_left -= server->wire_left == SIZE_MAX ? 0 : (size_t)sent;
    }
    if (server->wire_left == 0) {
        server->wire_left = SIZE_MAX;
        hang_up(connection, server->cut == RESET);
        return;
    }
    bool more = connection->out.length > 0;
    if (!more && connection->after != NO_FAULT)
        hang_up(connection, connection->after == RESET);
    else
        loop_fd_set(&connection->watch, EPOLLIN | (more ? (uint32_t)EPOLLOUT : 0), NULL);
}

static void write_plain(struct connection *connection, const void *data, size_t length)
{
    if (connection->tls != NULL)
        fake_tls_send(connection->tls, data, length);
    else
        buffer_append(&connection->out, data, length, NULL);
}

/* ---- the script ------------------------------------------------------------------------------------------------- */

/* NULL where the request is not expected. */
static const struct exchange *expected(struct fake_server *server, const char *request)
{
    if (server->responder != NULL) {
        server->played++;
        return server->responder(server->arg, request);
    }
    const struct exchange *exchange = &server->script[server->played];
    /* HTTP/2 writes the names of headers small. */
    if (exchange->request == NULL || strcasestr(request, exchange->request) == NULL) {
        if (server->surprise[0] == '\0')
            snprintf(server->surprise, sizeof server->surprise, "'%.*s' instead of '%s'", (int)strcspn(request, "\r\n"),
                     request, exchange->request == NULL ? "nothing more" : exchange->request);
        loop_stop(server->loop);
        return NULL;
    }
    server->played++;
    if (server->script[server->played].request == NULL)
        loop_stop(server->loop);
    return exchange;
}

/* What becomes of the connection behind an answer: nothing, RESET or TRUNCATION. */
static enum fault fate(enum fault fault, bool cut, bool http2)
{
    if (cut)
        return http2 ? TRUNCATION : RESET;
    if (fault == RESET)
        return RESET;
    if (fault == TRUNCATION)
        return TRUNCATION;
    if (fault == STREAM_RESET)
        return http2 ? NO_FAULT : RESET;
    if (fault == GOAWAY || fault == REFUSAL)
        return http2 ? TRUNCATION : RESET;
    return NO_FAULT;
}

static void write_chunk(struct connection *connection, const char *data, size_t length)
{
    char size[32];
    if (length == 0)
        return;
    snprintf(size, sizeof size, "%zx\r\n", length);
    write_plain(connection, size, strlen(size));
    write_plain(connection, data, length);
    write_plain(connection, "\r\n", 2);
}

static void answer_http1(struct connection *connection, const struct exchange *exchange)
{
    const char *body = exchange->body == NULL ? "" : exchange->body;
    const enum fault fault = connection->server->fault;
    bool whole = fault != SILENCE && fate(fault, exchange->cut, false) == NO_FAULT;
    size_t length = strlen(body);
    size_t split = connection->server->split < length ? connection->server->split : length;
    cleanup_free char *head = NULL;
    int head_length = asprintf(&head,
                               "HTTP/1.1 %d Scripted\r\nContent-Type: application/json\r\n%s"
                               "Transfer-Encoding: chunked\r\n\r\n",
                               exchange->status, exchange->headers == NULL ? "" : exchange->headers);
    assert_true(head_length > 0);
    write_plain(connection, head, (size_t)head_length);
    write_chunk(connection, body, exchange->cut ? length : split);
    if (whole)
        write_chunk(connection, body + split, length - split);
    if (whole && !exchange->open)
        write_plain(connection, "0\r\n\r\n", 5);
}

static void play(struct connection *connection, int32_t stream, const char *request)
{
    struct fake_server *server = connection->server;
    const struct exchange *exchange = expected(server, request);
    if (exchange == NULL)
        return;
    connection->after = fate(server->fault, exchange->cut, connection->http2 != NULL);
    if (exchange->status == 0)
        return;
    if (connection->http2 != NULL)
        fake_http2_answer(connection->http2, stream, exchange, server->fault, server->split);
    else
        answer_http1(connection, exchange);
}

static void on_http2_request(void *arg, int32_t stream, const char *request)
{
    struct connection *connection = arg;
    char name[64];
    fake_tls_client(connection->tls, name, sizeof name);
    cleanup_free char *text = NULL;
    assert_true(asprintf(&text, "%s\r\nClient-Certificate: %s", request, name) > 0);
    play(connection, stream, *name == '\0' ? request : text);
}

static void on_http2_frame(void *arg, const void *data, size_t length)
{
    write_plain(arg, data, length);
}

/* One request at a time: HTTP/1.1 clients wait for the answer. */
static void take_http1_request(struct connection *connection)
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
    play(connection, 0, request);
}

static void take_plain(struct connection *connection)
{
    const unsigned char *protocol = NULL;
    unsigned length = 0;
    if (connection->tls != NULL)
        SSL_get0_alpn_selected(connection->tls, &protocol, &length);
    if (connection->http2 == NULL && length == 2)
        connection->http2 = fake_http2_new(on_http2_request, on_http2_frame, connection);
    if (connection->http2 == NULL) {
        take_http1_request(connection);
        return;
    }
    fake_http2_receive(connection->http2, connection->in.data, connection->in.length);
    buffer_clear(&connection->in);
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static void on_socket(void *arg, uint32_t events)
{
    struct connection *connection = arg;
    char chunk[4096];
    ssize_t got = recv(connection->watch.fd, chunk, sizeof chunk, MSG_DONTWAIT);
    bool nothing = got < 0 && (events & (EPOLLERR | EPOLLHUP)) == 0;
    if (got > 0 && connection->tls != NULL) {
        if (fake_tls_receive(connection->tls, chunk, (size_t)got, &connection->in) < 0)
            got = 0;
    } else if (got > 0) {
        buffer_append(&connection->in, chunk, (size_t)got, NULL);
    }
    if (got <= 0 && !nothing) {
        hang_up(connection, false);
        return;
    }
    if (connection->in.length > 0 && connection->after == NO_FAULT)
        take_plain(connection);
    flush(connection);
}

static void on_connection(void *arg, uint32_t events)
{
    (void)events;
    struct fake_server *server = arg;
    int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    const int at_once = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
    server->accepted++;
    for (int i = 0; i < CONNECTIONS; i++) {
        struct connection *connection = &server->connections[i];
        if (connection->used)
            continue;
        *connection = (struct connection){.server = server, .used = true, .after = NO_FAULT};
        buffer_init(&connection->in, REQUEST_MOST);
        buffer_init(&connection->out, SIZE_MAX / 2);
        connection->tls = server->tls == NULL ? NULL : fake_tls_new(server->tls);
        loop_fd_init(&connection->watch, server->loop, fd, on_socket, connection);
        loop_fd_set(&connection->watch, EPOLLIN, NULL);
        return;
    }
    close(fd);
}

const char *fake_server_renew(struct fake_server *server)
{
    free(server->certificate);
    free(server->key);
    SSL_CTX_free(server->tls);
    fake_certificate("server", &server->certificate, &server->key);
    server->tls = fake_tls_context(server->certificate, server->key, server->protocol == FAKE_HTTP2);
    return server->certificate;
}

struct fake_server *fake_server_start(struct loop *loop, const struct exchange *script)
{
    return fake_server_start_as(loop, FAKE_HTTP1, script);
}

struct fake_server *fake_server_start_as(struct loop *loop, enum fake_protocol protocol, const struct exchange *script)
{
    struct fake_server *server = calloc(1, sizeof *server);
    assert_non_null(server);
    server->loop = loop;
    server->protocol = protocol;
    server->script = script;
    server->split = SIZE_MAX;
    server->wire_left = SIZE_MAX;
    if (protocol != FAKE_HTTP1)
        fake_server_renew(server);
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
    SSL_CTX_free(server->tls);
    free(server->certificate);
    free(server->key);
    free(server);
}

void fake_server_respond(struct fake_server *server, fake_responder *responder, void *arg)
{
    server->responder = responder;
    server->arg = arg;
}

void fake_server_fault(struct fake_server *server, enum fault fault, size_t bytes)
{
    server->fault = fault;
    server->split = bytes;
}

void fake_server_cut(struct fake_server *server, enum fault fault, size_t bytes)
{
    server->cut = fault;
    server->wire_left = bytes;
}

struct kube_config *fake_server_config(const struct fake_server *server)
{
    struct kube_config *config = calloc(1, sizeof *config);
    assert_non_null(config);
    const char *scheme = server->protocol == FAKE_HTTP1 ? "http" : "https";
    assert_true(asprintf(&config->server, "%s://127.0.0.1:%d", scheme, server->port) > 0);
    if (server->certificate != NULL)
        config->ca_pem = strdup(server->certificate);
    return config;
}

struct kube_client *fake_server_client(struct fake_server *server, const char *token_file)
{
    struct kube_config *config = fake_server_config(server);
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
