#include "server/server.h"

#include "common/crypto.h"
#include "server/internal.h"

#include <arpa/inet.h>
#include <string.h>

enum { HEADERS_AT_ONCE = 64, REQUEST_SECONDS = 10, KEEPALIVE_SECONDS = 75 };

/* ---- between the threads ---- */

static void free_to_server(void *message)
{
    struct to_server *command = message;
    buffer_free(&command->body);
    free(command);
}

int server_tell_loop(struct server *server, struct to_loop *message, bool *full)
{
    /* Counted before it is there: the loop may handle it at once. */
    unsigned waiting = atomic_fetch_add(&server->in_loop, 1) + 1;
    *full = waiting >= TO_LOOP_PAUSE;
    if (mailbox_push(server->to_loop, message) == 0)
        return 0;
    atomic_fetch_sub(&server->in_loop, 1);
    free(message);
    return -1;
}

/* From the loop. What does not fit is lost, and with it what the coordinators believe to be owed: they all shall come
 * back and begin anew. */
static void tell_server(struct server *server, const struct to_server *command)
{
    struct to_server *copy = malloc(sizeof *copy);
    if (copy != NULL) {
        *copy = *command;
        if (mailbox_push(server->to_server, copy) == 0)
            return;
        free_to_server(copy);
    }
    atomic_store(&server->lost_command, true);
    lws_cancel_service(server->context);
}

static void wake_server(void *arg)
{
    struct server *server = arg;
    lws_cancel_service(server->context);
}

static void answer_metrics(struct server *server)
{
    struct to_server answer = {.kind = TO_SERVER_METRICS};
    buffer_init(&answer.body, METRICS_MOST);
    if (server->hooks.metrics != NULL)
        server->hooks.metrics(server->hooks.arg, &answer.body);
    tell_server(server, &answer);
}

static void answer_debug(struct server *server, const struct to_loop *asked)
{
    struct to_server answer = {.kind = TO_SERVER_DEBUG, .question = asked->question};
    buffer_init(&answer.body, DEBUG_MOST);
    answer.status = server->hooks.debug(server->hooks.arg, asked->what, asked->key, &answer.body);
    tell_server(server, &answer);
}

static void receive_on_loop(void *arg, void *message)
{
    struct server *server = arg;
    cleanup_free struct to_loop *received = message;
    switch (received->kind) {
    case TO_LOOP_HELLO:
        server->hooks.hello(server->hooks.arg, &received->message.hello);
        break;
    case TO_LOOP_REPORT:
        server->hooks.report(server->hooks.arg, received->job_uid, received->boot, &received->message);
        break;
    case TO_LOOP_METRICS:
        answer_metrics(server);
        break;
    case TO_LOOP_DEBUG:
        answer_debug(server, received);
        break;
    }
    unsigned waiting = atomic_fetch_sub(&server->in_loop, 1) - 1;
    if (waiting == TO_LOOP_RESUME && atomic_load(&server->any_paused))
        lws_cancel_service(server->context);
}

/* On the server's thread, whenever somebody woke it. */
static void receive_on_server(struct server *server)
{
    for (struct to_server *command; (command = mailbox_pop(server->to_server)) != NULL;) {
        if (command->kind == TO_SERVER_METRICS)
            http_metrics_ready(server, &command->body);
        else if (command->kind == TO_SERVER_DEBUG)
            http_debug_ready(server, command->question, command->status, &command->body);
        else
            coordinator_command(server, command);
        free_to_server(command);
    }
    if (atomic_exchange(&server->lost_command, false)) {
        log_warn(server->log, "the event loop sent more than the server could take: all coordinators reconnect", NULL);
        coordinator_close_all(server, "the operator is overloaded: come back and say again what is owed");
    }
    if (atomic_load(&server->any_paused) && atomic_load(&server->in_loop) <= TO_LOOP_RESUME)
        coordinator_resume_all(server);
}

static int serve_coordinators(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t length)
{
    if (reason == LWS_CALLBACK_EVENT_WAIT_CANCELLED) {
        receive_on_server(server_of(wsi));
        return 0;
    }
    return coordinator_callback(wsi, reason, session, in, length);
}

static void *serve(void *arg)
{
    struct server *server = arg;
    while (!atomic_load(&server->stopping))
        if (lws_service(server->context, 0) < 0)
            break;
    return NULL;
}

/* ---- listening ---- */

struct address {
    char host[INET6_ADDRSTRLEN]; /* "" : all */
    bool ipv6;
    int port;
};

static bool kernel_has_ipv6(void)
{
    cleanup_fd int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0;
}

static int parse_listen(const char *text, struct address *out, struct error *err)
{
    const char *colon = strrchr(text, ':');
    const char *from = text, *end = colon;
    char *rest = NULL;
    long port = colon == NULL || colon[1] < '0' || colon[1] > '9' ? -1 : strtol(colon + 1, &rest, 10);
    bool good = port >= 0 && port <= 65535 && *rest == '\0';
    bool brackets = good && *from == '[' && end[-1] == ']';
    if (brackets)
        from++, end--;
    good = good && (size_t)(end - from) < sizeof out->host;
    if (good) {
        struct in6_addr ignored;
        memcpy(out->host, from, (size_t)(end - from));
        out->host[end - from] = '\0';
        out->ipv6 = brackets || (from == end && kernel_has_ipv6());
        out->port = (int)port;
        good = (from == end && !brackets) || inet_pton(brackets ? AF_INET6 : AF_INET, out->host, &ignored) == 1;
    }
    if (!good)
        return error_set(
            err, "'%s' is no address to listen on: write it like ':8080', '127.0.0.1:8080' or '[::1]:8080'", text);
    return 0;
}

/* A connection is asked for a sign of life after this, and closed when none comes. */
static const lws_retry_bo_t idle_policy = {.secs_since_valid_ping = 15, .secs_since_valid_hangup = 30};

static int open_context(struct server *server, const struct address *address, const char *listen, struct error *err)
{
    server->protocols[0] = (struct lws_protocols){
        .name = "http", .callback = http_callback, .per_session_data_size = sizeof(struct exchange)};
    server->protocols[1] = (struct lws_protocols){.name = REPORT_SUBPROTOCOL,
                                                  .callback = serve_coordinators,
                                                  .per_session_data_size = sizeof(struct coordinator)};
    const struct lws_context_creation_info info = {
        .port = address->port,
        .iface = address->host[0] == '\0' ? NULL : address->host,
        .protocols = server->protocols,
        .user = server,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND |
                   (address->ipv6 ? LWS_SERVER_OPTION_IPV6_V6ONLY_MODIFY : LWS_SERVER_OPTION_DISABLE_IPV6),
        .max_http_header_pool = HEADERS_AT_ONCE,
        .timeout_secs = REQUEST_SECONDS,
        .keepalive_timeout = KEEPALIVE_SECONDS,
        .retry_and_idle_policy = &idle_policy,
        .gid = -1,
        .uid = -1,
    };
    lws_set_log_level(0, NULL);
    server->context = lws_create_context(&info);
    struct lws_vhost *vhost = server->context == NULL ? NULL : lws_create_vhost(server->context, &info);
    if (vhost == NULL)
        return error_set(err, "cannot listen on '%s': is something else using the port?", listen);
    server->port = (unsigned)lws_get_vhost_listen_port(vhost);
    return 0;
}

/* ---- beginning and end ---- */

static unsigned or_default(unsigned value, unsigned preset)
{
    return value == 0 ? preset : value;
}

static struct server *server_new(const struct server_options *options, struct error *err)
{
    struct server *server = calloc(1, sizeof *server);
    uint8_t *key = malloc(options->key_length + 1);
    if (server == NULL || key == NULL) {
        free(server);
        free(key);
        error_set(err, "out of memory for the server");
        return NULL;
    }
    memcpy(key, options->key, options->key_length);
    server->key = key;
    server->key_length = options->key_length;
    server->log = options->log;
    server->loop = options->loop;
    server->hooks = options->hooks;
    server->most_connections = or_default(options->most_connections, 16384);
    server->most_pending = or_default(options->most_pending, 256);
    server->hello_timeout = options->hello_timeout > 0 ? options->hello_timeout : 10 * SECONDS;
    server->stuck_after = options->stuck_after > 0 ? options->stuck_after : 15 * SECONDS;
    snprintf(server->waiting_for, sizeof server->waiting_for, "the start");
    pthread_mutex_init(&server->mutex, NULL);
    return server;
}

int server_start(struct server **out, const struct server_options *options, struct error *err)
{
    struct address address = {0};
    if (parse_listen(options->listen, &address, err) < 0)
        return -1;
    cleanup_server struct server *server = server_new(options, err);
    if (server == NULL)
        return -1;
    /* Beyond the pause each connection may still have one message read. */
    server->to_loop = mailbox_new(TO_LOOP_PAUSE + server->most_connections + 1, free, err);
    server->to_server = mailbox_new(TO_SERVER_MOST, free_to_server, err);
    if (server->to_loop == NULL || server->to_server == NULL ||
        mailbox_attach(server->to_loop, server->loop, receive_on_loop, server, err) < 0 ||
        open_context(server, &address, options->listen, err) < 0)
        return -1;
    mailbox_on_push(server->to_server, wake_server, server);
    if (pthread_create(&server->thread, NULL, serve, server) != 0)
        return error_set(err, "cannot start the server's thread");
    pthread_setname_np(server->thread, "server");
    server->thread_runs = true;
    *out = move(server);
    return 0;
}

void server_stop(struct server *server)
{
    if (server == NULL)
        return;
    atomic_store(&server->stopping, true);
    if (server->thread_runs) {
        lws_cancel_service(server->context);
        pthread_join(server->thread, NULL);
    }
    if (server->context != NULL)
        lws_context_destroy(server->context);
    mailbox_free(server->to_loop);
    mailbox_free(server->to_server);
    pthread_mutex_destroy(&server->mutex);
    explicit_bzero(server->key, server->key_length);
    free(server->key);
    free(server);
}

unsigned server_port(const struct server *server)
{
    return server->port;
}

/* ---- from the loop ---- */

void server_set_ready(struct server *server, bool ready, const char *waiting_for)
{
    pthread_mutex_lock(&server->mutex);
    snprintf(server->waiting_for, sizeof server->waiting_for, "%s", waiting_for == NULL ? "" : waiting_for);
    pthread_mutex_unlock(&server->mutex);
    atomic_store(&server->ready, ready);
}

static struct to_server command_for(enum to_server_kind kind, const char *job_uid, const char *boot)
{
    struct to_server command = {.kind = kind};
    snprintf(command.job_uid, sizeof command.job_uid, "%s", job_uid);
    snprintf(command.boot, sizeof command.boot, "%s", boot);
    return command;
}

void server_welcome(struct server *server, const char *job_uid, const char *boot, struct report_ack ack)
{
    struct to_server command = command_for(TO_SERVER_WELCOME, job_uid, boot);
    command.ack = ack;
    tell_server(server, &command);
}

void server_refuse(struct server *server, const char *job_uid, const char *boot, const char *sentence)
{
    struct to_server command = command_for(TO_SERVER_REFUSE, job_uid, boot);
    snprintf(command.sentence, sizeof command.sentence, "%s", sentence);
    tell_server(server, &command);
}

void server_ack(struct server *server, const char *job_uid, const char *boot, struct report_ack ack)
{
    struct to_server command = command_for(TO_SERVER_ACK, job_uid, boot);
    command.ack = ack;
    tell_server(server, &command);
}

void server_ack_finished(struct server *server, const char *job_uid, const char *boot)
{
    struct to_server command = command_for(TO_SERVER_ACK_FINISHED, job_uid, boot);
    tell_server(server, &command);
}
