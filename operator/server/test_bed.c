#include "server/test_bed.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static const char key[] = "the operator's key";

/* ---- the operator's side ---- */

static void heard_hello(void *arg, const struct report_hello *hello)
{
    struct scene *scene = arg;
    scene->hellos++;
    if (scene->refuses)
        server_refuse(scene->server, hello->job_uid, hello->boot, "a newer pod is the coordinator");
    else
        server_welcome(scene->server, hello->job_uid, hello->boot, (struct report_ack){.status = 2, .history = 1});
}

static void heard_report(void *arg, const char *job_uid, const char *boot, const struct report_message *message)
{
    struct scene *scene = arg;
    pthread_mutex_lock(&scene->gate);
    pthread_mutex_unlock(&scene->gate);
    if (message->type == REPORT_PROGRESS) {
        scene->in_order = scene->in_order && message->progress.step == scene->progress;
        scene->progress++;
    } else if (message->type == REPORT_EPOCH) {
        scene->epochs++;
        server_ack(scene->server, job_uid, boot,
                   (struct report_ack){.status = message->epoch.epoch, .history = message->epoch.epoch - 1});
    } else {
        scene->finished++;
        server_ack_finished(scene->server, job_uid, boot);
    }
}

static void asked_for_metrics(void *arg, struct buffer *out)
{
    struct scene *scene = arg;
    buffer_printf(out, NULL, "test_hellos %u\n", scene->hellos);
}

static unsigned asked_for_debug(void *arg, const char *what, const char *name, struct buffer *out)
{
    (void)arg;
    buffer_printf(out, NULL, "{\"what\":\"%s\",\"key\":\"%s\"}", what, name);
    return strcmp(what, "thing") == 0 ? 200 : 404;
}

static void script_ended(void *arg, void *message)
{
    (void)message;
    loop_stop(((struct scene *)arg)->loop);
}

static void *run_loop(void *arg)
{
    struct scene *scene = arg;
    struct error err = {0};
    return loop_run(scene->loop, &err) < 0 ? scene : NULL;
}

struct server_options usual(void)
{
    return (struct server_options){.listen = "127.0.0.1:0", .key = key, .key_length = strlen(key)};
}

static void scene_open(struct scene *scene, struct server_options options)
{
    struct error err = {0};
    scene->in_order = true;
    pthread_mutex_init(&scene->gate, NULL);
    scene->loop = loop_new(&err);
    assert_non_null(scene->loop);
    scene->done = mailbox_new(1, NULL, &err);
    assert_int_equal(mailbox_attach(scene->done, scene->loop, script_ended, scene, &err), 0);
    options.loop = scene->loop;
    options.hooks = (struct server_hooks){.arg = scene,
                                          .hello = heard_hello,
                                          .report = heard_report,
                                          .metrics = asked_for_metrics,
                                          .debug = scene->debugs ? asked_for_debug : NULL};
    int result = server_start(&scene->server, &options, &err);
    assert_string_equal(error_message(&err), "");
    assert_int_equal(result, 0);
}

static void scene_play(struct scene *scene, void (*script)(struct scene *scene))
{
    pthread_t thread;
    void *failed = NULL;
    assert_int_equal(pthread_create(&thread, NULL, run_loop, scene), 0);
    script(scene);
    assert_int_equal(mailbox_push(scene->done, scene), 0);
    pthread_join(thread, &failed);
    assert_null(failed);
}

static void scene_close(struct scene *scene)
{
    server_stop(scene->server);
    mailbox_free(scene->done);
    loop_free(scene->loop);
}

void play(void (*script)(struct scene *scene), struct scene *scene, struct server_options options)
{
    scene_open(scene, options);
    scene_play(scene, script);
    scene_close(scene);
}

/* ---- the coordinator's side ---- */

static int client_write(struct client *client)
{
    unsigned char frame[LWS_PRE + 4096];
    size_t left = client->outgoing_length - client->sent;
    size_t length = left < client->piece ? left : client->piece;
    if (client->outgoing == NULL)
        return 0;
    memcpy(frame + LWS_PRE, client->outgoing + client->sent, length);
    enum lws_write_protocol how = client->binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT;
    int flags = lws_write_ws_flags((int)how, client->sent == 0, length == left);
    if (lws_write(client->wsi, frame + LWS_PRE, length, (enum lws_write_protocol)flags) < (int)length)
        return -1;
    client->sent += length;
    if (client->sent == client->outgoing_length)
        client->outgoing = NULL;
    else
        lws_callback_on_writable(client->wsi);
    return 0;
}

static int client_callback(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t length)
{
    (void)session;
    struct client *client = lws_context_user(lws_get_context(wsi));
    struct error err = {0};
    switch (reason) {
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        client->established = true;
        break;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        if (client->heard_count == HEARD_MOST) { /* the oldest goes */
            client->heard_first = (client->heard_first + 1) % HEARD_MOST;
            client->heard_count--;
        }
        assert_int_equal(
            report_decode(&client->heard[(client->heard_first + client->heard_count) % HEARD_MOST], in, length, &err),
            0);
        client->heard_count++;
        break;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return client_write(client);
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
    case LWS_CALLBACK_CLIENT_CLOSED:
        client->closed = true;
        break;
    default:
        break;
    }
    return 0;
}

static const struct lws_protocols client_protocols[] = {{.name = REPORT_SUBPROTOCOL, .callback = client_callback}, {0}};

void client_open_at(struct client *client, struct scene *scene, const char *path, const char *protocol)
{
    memset(client, 0, sizeof *client);
    const struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN, .protocols = client_protocols, .user = client, .gid = -1, .uid = -1};
    client->context = lws_create_context(&info);
    assert_non_null(client->context);
    const struct lws_client_connect_info connect = {.context = client->context,
                                                    .address = "127.0.0.1",
                                                    .host = "127.0.0.1",
                                                    .port = (int)server_port(scene->server),
                                                    .path = path,
                                                    .protocol = protocol,
                                                    .local_protocol_name = REPORT_SUBPROTOCOL,
                                                    .pwsi = &client->wsi};
    (void)lws_client_connect_via_info(&connect);
    while (!client->established && !client->closed)
        lws_service(client->context, 0);
}

void client_open(struct client *client, struct scene *scene)
{
    client_open_at(client, scene, REPORT_PATH, REPORT_SUBPROTOCOL);
    assert_true(client->established);
}

void client_close(struct client *client)
{
    lws_context_destroy(client->context);
}

void say_in_pieces(struct client *client, const char *text, size_t length, size_t piece)
{
    client->outgoing = text;
    client->outgoing_length = length;
    client->piece = piece;
    client->sent = 0;
    lws_callback_on_writable(client->wsi);
    while (client->outgoing != NULL && !client->closed)
        lws_service(client->context, 0);
}

void say_text(struct client *client, const char *text)
{
    say_in_pieces(client, text, strlen(text), 4096);
}

void say(struct client *client, const struct report_message *message)
{
    cleanup_free char *text = report_encode(message);
    say_text(client, text);
}

struct report_message hear(struct client *client, enum report_type type)
{
    while (client->heard_count == 0 && !client->closed)
        lws_service(client->context, 0);
    assert_true(client->heard_count > 0);
    struct report_message message = client->heard[client->heard_first];
    client->heard_first = (client->heard_first + 1) % HEARD_MOST;
    client->heard_count--;
    assert_int_equal(message.type, type);
    return message;
}

void hear_the_end(struct client *client, const char *sentence)
{
    struct report_message message = hear(client, REPORT_REFUSED);
    assert_string_equal(message.refused.message, sentence);
    while (!client->closed)
        lws_service(client->context, 0);
}

static void make_token(const char *uid, uint8_t token[REPORT_TOKEN_SIZE])
{
    hmac_sha256(key, strlen(key), uid, strlen(uid), token);
}

struct report_message hello_of(const char *uid, const char *boot, const struct report_message *challenge)
{
    struct report_message message = {.type = REPORT_HELLO};
    struct report_hello *hello = &message.hello;
    snprintf(hello->job_namespace, sizeof hello->job_namespace, "default");
    snprintf(hello->job_name, sizeof hello->job_name, "lenet");
    snprintf(hello->job_uid, sizeof hello->job_uid, "%s", uid);
    snprintf(hello->pod, sizeof hello->pod, "lenet-ps-0");
    snprintf(hello->pod_uid, sizeof hello->pod_uid, "p-1");
    snprintf(hello->boot, sizeof hello->boot, "%s", boot);
    snprintf(hello->kernel, sizeof hello->kernel, "Haswell");
    hello->term = 1;
    uint8_t token[REPORT_TOKEN_SIZE];
    make_token(uid, token);
    report_hello_mac(hello, token, challenge->challenge.nonce, hello->mac);
    return message;
}

void join(struct client *client, struct scene *scene, const char *uid, const char *boot)
{
    client_open(client, scene);
    struct report_message challenge = hear(client, REPORT_CHALLENGE);
    struct report_message hello = hello_of(uid, boot, &challenge);
    say(client, &hello);
    struct report_message welcome = hear(client, REPORT_WELCOME);
    uint8_t token[REPORT_TOKEN_SIZE], expected[SHA256_SIZE];
    make_token(uid, token);
    report_welcome_mac(token, hello.hello.nonce, challenge.challenge.nonce, expected);
    assert_memory_equal(welcome.welcome.mac, expected, sizeof expected);
    assert_int_equal(welcome.welcome.ack.status, 2);
    assert_int_equal(welcome.welcome.ack.history, 1);
}

/* ---- plain HTTP ---- */

int connect_to(struct scene *scene)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                        .sin_port = htons((uint16_t)server_port(scene->server))};
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

void exchange_bytes(struct scene *scene, const void *request, size_t length, char *answer, size_t size)
{
    cleanup_fd int fd = connect_to(scene);
    (void)!send(fd, request, length, MSG_NOSIGNAL);
    size_t got = 0;
    for (ssize_t more; got < size - 1 && (more = recv(fd, answer + got, size - 1 - got, 0)) > 0;)
        got += (size_t)more;
    answer[got] = '\0';
}

void ask(struct scene *scene, const char *method, const char *path, const char *status, const char *part)
{
    char request[256], answer[8192];
    int length =
        snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, path);
    exchange_bytes(scene, request, (size_t)length, answer, sizeof answer);
    if (strncmp(answer, status, strlen(status)) != 0 || strstr(answer, part) == NULL)
        fail_msg("%s %s: wanted '%s' and '%s', got: %s", method, path, status, part, answer);
}
