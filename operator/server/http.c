/* The server's plain HTTP: health, readiness, metrics. Everything here runs on the server's thread. */
#include "server/internal.h"

#include <string.h>

enum { LOOP_WAIT_SECONDS = 3, CHUNK = 16 * 1024, BODY_MOST = METRICS_MOST + 64 * 1024 };

/* ---- answering ---- */

static void stop_waiting(struct exchange *exchange)
{
    if (!exchange->waiting)
        return;
    exchange->waiting = false;
    *exchange->at = exchange->next;
    if (exchange->next != NULL)
        exchange->next->at = exchange->at;
}

/* Headers and body follow when the socket takes them. */
static void answer(struct exchange *exchange, unsigned status, const char *type)
{
    exchange->status = status;
    exchange->type = type;
    exchange->headers_sent = false;
    exchange->sent = 0;
    lws_callback_on_writable(exchange->wsi);
}

static void answer_text(struct exchange *exchange, unsigned status, const char *text)
{
    buffer_clear(&exchange->body);
    /* Without memory the body stays empty; the status says enough. */
    (void)buffer_append_text(&exchange->body, text, NULL);
    answer(exchange, status, "text/plain; charset=utf-8");
}

/* -1 closes the connection. */
static int write_headers(struct exchange *exchange)
{
    unsigned char headers[LWS_PRE + 512], *start = headers + LWS_PRE, *at = start, *end = headers + sizeof headers - 1;
    if (lws_add_http_common_headers(exchange->wsi, exchange->status, exchange->type, exchange->body.length, &at, end) ||
        lws_finalize_write_http_header(exchange->wsi, start, &at, end))
        return -1;
    exchange->headers_sent = true;
    lws_callback_on_writable(exchange->wsi);
    return 0;
}

static int write_body(struct exchange *exchange)
{
    unsigned char chunk[LWS_PRE + CHUNK];
    size_t left = exchange->body.length - exchange->sent;
    size_t length = left < CHUNK ? left : CHUNK;
    memcpy(chunk + LWS_PRE, exchange->body.data + exchange->sent, length);
    enum lws_write_protocol how = length == left ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP;
    if (lws_write(exchange->wsi, chunk + LWS_PRE, length, how) < (int)length)
        return -1;
    exchange->sent += length;
    lws_callback_on_writable(exchange->wsi);
    return 0;
}

static int on_writable(struct exchange *exchange)
{
    if (exchange->status == 0)
        return 0;
    if (!exchange->headers_sent)
        return write_headers(exchange);
    if (exchange->sent < exchange->body.length)
        return write_body(exchange);
    buffer_free(&exchange->body);
    exchange->status = 0;
    return exchange->closes || lws_http_transaction_completed(exchange->wsi) ? -1 : 0;
}

/* ---- what is asked for ---- */

static void health(struct server *server, struct exchange *exchange)
{
    int64_t since = instant_since(clock_now(), loop_last_turn(server->loop));
    if (since < server->stuck_after) {
        answer_text(exchange, HTTP_STATUS_OK, "ok\n");
        return;
    }
    char text[128];
    snprintf(text, sizeof text, "the event loop has been stuck for %lld seconds\n", (long long)(since / SECONDS));
    answer_text(exchange, HTTP_STATUS_SERVICE_UNAVAILABLE, text);
}

static void readiness(struct server *server, struct exchange *exchange)
{
    if (atomic_load(&server->ready)) {
        answer_text(exchange, HTTP_STATUS_OK, "ok\n");
        return;
    }
    char text[sizeof server->waiting_for + 32];
    pthread_mutex_lock(&server->mutex);
    snprintf(text, sizeof text, "waiting for %s\n", server->waiting_for);
    pthread_mutex_unlock(&server->mutex);
    answer_text(exchange, HTTP_STATUS_SERVICE_UNAVAILABLE, text);
}

static void wait_for_loop(struct server *server, struct exchange *exchange, uint64_t question)
{
    exchange->waiting = true;
    exchange->question = question;
    exchange->next = server->waiting;
    exchange->at = &server->waiting;
    if (exchange->next != NULL)
        exchange->next->at = &exchange->next;
    server->waiting = exchange;
    lws_set_timer_usecs(exchange->wsi, LOOP_WAIT_SECONDS * LWS_USEC_PER_SEC);
}

static void metrics(struct server *server, struct exchange *exchange)
{
    wait_for_loop(server, exchange, 0);
    struct to_loop *message = server->metrics_asked ? NULL : calloc(1, sizeof *message);
    bool full = false;
    if (message == NULL)
        return;
    message->kind = TO_LOOP_METRICS;
    /* Where the loop is too busy even for this, the timer answers. */
    server->metrics_asked = server_tell_loop(server, message, &full) == 0;
}

static void debug(struct server *server, struct exchange *exchange, const char *what)
{
    struct to_loop *message = calloc(1, sizeof *message);
    bool full = false;
    if (message == NULL)
        return;
    message->kind = TO_LOOP_DEBUG;
    message->question = ++server->questions;
    snprintf(message->what, sizeof message->what, "%s", what);
    char argument[QUESTION_SIZE];
    const char *key = lws_get_urlarg_by_name(exchange->wsi, "key=", argument, sizeof argument);
    snprintf(message->key, sizeof message->key, "%s", key == NULL ? "" : key);
    wait_for_loop(server, exchange, message->question);
    (void)server_tell_loop(server, message, &full);
}

static void own_metrics(const struct server *server, struct buffer *out)
{
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } rows[] = {
        {"thole_server_connections", "gauge", "Open connections of any kind.", server->connections},
        {"thole_coordinator_connections", "gauge", "Coordinators that report.", server->welcomed},
        {"thole_coordinator_pending", "gauge", "Connections that have not said hello yet.", server->pending},
        {"thole_coordinator_hellos_total", "counter", "Hellos received.", server->hellos},
        {"thole_coordinator_refused_total", "counter", "Connections refused or ended by the operator.",
         server->refusals},
        {"thole_coordinator_messages_total", "counter", "Reports received.", server->messages},
        {"thole_coordinator_paused_total", "counter", "Times a connection was not read, for the loop to catch up.",
         server->pauses},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        buffer_printf(out, NULL, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", rows[i].name, rows[i].help, rows[i].name,
                      rows[i].type, rows[i].name, (unsigned long long)rows[i].value);
}

static void answer_waiting(struct exchange *exchange, const struct buffer *body, unsigned status, const char *type)
{
    stop_waiting(exchange);
    lws_set_timer_usecs(exchange->wsi, LWS_SET_TIMER_USEC_CANCEL);
    (void)buffer_append(&exchange->body, body->data, body->length, NULL);
    answer(exchange, status, type);
}

void http_metrics_ready(struct server *server, const struct buffer *text)
{
    server->metrics_asked = false;
    for (struct exchange *exchange = server->waiting, *next; exchange != NULL; exchange = next) {
        next = exchange->next;
        if (exchange->question != 0)
            continue;
        answer_waiting(exchange, text, HTTP_STATUS_OK, "text/plain; version=0.0.4; charset=utf-8");
        own_metrics(server, &exchange->body);
    }
}

void http_debug_ready(struct server *server, uint64_t question, unsigned status, const struct buffer *body)
{
    struct exchange *exchange = server->waiting;
    while (exchange != NULL && exchange->question != question)
        exchange = exchange->next;
    if (exchange != NULL) /* else nobody waits for it any more */
        answer_waiting(exchange, body, status, "application/json");
}

static void on_request(struct server *server, struct lws *wsi, struct exchange *exchange, const char *path)
{
    static const struct {
        const char *path;
        void (*serve)(struct server *server, struct exchange *exchange);
    } routes[] = {{"/healthz", health}, {"/readyz", readiness}, {"/metrics", metrics}};
    stop_waiting(exchange);
    buffer_free(&exchange->body);
    buffer_init(&exchange->body, BODY_MOST);
    exchange->wsi = wsi;
    /* What is not a GET may bring a body, and nobody is going to read it. */
    exchange->closes = lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) <= 0;
    if (exchange->closes) {
        answer_text(exchange, HTTP_STATUS_METHOD_NOT_ALLOWED, "only GET is served here\n");
        return;
    }
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (strcmp(path, routes[i].path) == 0) {
            routes[i].serve(server, exchange);
            return;
        }
    }
    static const char debug_path[] = "/debug/";
    if (server->hooks.debug != NULL && strncmp(path, debug_path, sizeof debug_path - 1) == 0)
        debug(server, exchange, path + sizeof debug_path - 1);
    else if (strcmp(path, REPORT_PATH) == 0)
        answer_text(exchange, HTTP_STATUS_BAD_REQUEST, "this is a WebSocket of " REPORT_SUBPROTOCOL "\n");
    else
        answer_text(exchange, HTTP_STATUS_NOT_FOUND, "there is /healthz, /readyz and /metrics\n");
}

static void on_timer(struct server *server, struct exchange *exchange)
{
    if (exchange == NULL || !exchange->waiting)
        return;
    stop_waiting(exchange);
    if (exchange->question == 0)
        server->metrics_asked = false;
    answer_text(exchange, HTTP_STATUS_SERVICE_UNAVAILABLE, "the event loop does not answer\n");
}

int http_callback(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t length)
{
    (void)length;
    struct server *server = server_of(wsi);
    struct exchange *exchange = session;
    switch (reason) {
    case LWS_CALLBACK_FILTER_NETWORK_CONNECTION:
        return server->connections >= server->most_connections ? -1 : 0;
    case LWS_CALLBACK_WSI_CREATE:
        server->connections++;
        return 0;
    case LWS_CALLBACK_WSI_DESTROY:
        server->connections--;
        return 0;
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return -1; /* a WebSocket that names no protocol of ours */
    case LWS_CALLBACK_HTTP:
        on_request(server, wsi, exchange, in);
        return 0;
    case LWS_CALLBACK_HTTP_WRITEABLE:
        return on_writable(exchange);
    case LWS_CALLBACK_TIMER:
        on_timer(server, exchange);
        return 0;
    case LWS_CALLBACK_CLOSED_HTTP:
    case LWS_CALLBACK_HTTP_DROP_PROTOCOL:
        if (exchange != NULL) {
            stop_waiting(exchange);
            buffer_free(&exchange->body);
        }
        return 0;
    default:
        return 0;
    }
}
