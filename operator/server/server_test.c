/* The server over real sockets: its loop runs in a thread, the other side plays a script here, as a libwebsockets
 * client or with plain bytes. */
#include "server/server.h"

#include "common/crypto.h"
#include "loop/mailbox.h"
#include "server/internal.h"

#include <arpa/inet.h>
#include <libwebsockets.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static const char key[] = "the operator's key";

/* ---- the operator's side ---- */

struct scene {
    struct loop *loop;
    struct server *server;
    struct mailbox *done; /* the script tells its end */
    /* Of the loop's thread, until the script has ended. */
    unsigned hellos, progress, epochs, finished;
    bool refuses, in_order, debugs;
    pthread_mutex_t gate; /* whoever holds it keeps reports from being handled */
};

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

static struct server_options usual(void)
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

static void play(void (*script)(struct scene *scene), struct scene *scene, struct server_options options)
{
    scene_open(scene, options);
    scene_play(scene, script);
    scene_close(scene);
}

/* ---- the coordinator's side ---- */

enum { HEARD_MOST = 64 };

struct client {
    struct lws_context *context;
    struct lws *wsi;
    bool established, closed;
    struct report_message heard[HEARD_MOST];
    unsigned heard_first, heard_count;
    /* What is being sent: whole, or in pieces. */
    const char *outgoing;
    size_t outgoing_length, piece, sent;
    bool binary;
};

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

static void client_open_at(struct client *client, struct scene *scene, const char *path, const char *protocol)
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

static void client_open(struct client *client, struct scene *scene)
{
    client_open_at(client, scene, REPORT_PATH, REPORT_SUBPROTOCOL);
    assert_true(client->established);
}

static void client_close(struct client *client)
{
    lws_context_destroy(client->context);
}

static void say_in_pieces(struct client *client, const char *text, size_t length, size_t piece)
{
    client->outgoing = text;
    client->outgoing_length = length;
    client->piece = piece;
    client->sent = 0;
    lws_callback_on_writable(client->wsi);
    while (client->outgoing != NULL && !client->closed)
        lws_service(client->context, 0);
}

static void say_text(struct client *client, const char *text)
{
    say_in_pieces(client, text, strlen(text), 4096);
}

static void say(struct client *client, const struct report_message *message)
{
    cleanup_free char *text = report_encode(message);
    say_text(client, text);
}

static struct report_message hear(struct client *client, enum report_type type)
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

static void hear_the_end(struct client *client, const char *sentence)
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

static struct report_message hello_of(const char *uid, const char *boot, const struct report_message *challenge)
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

#define BOOT_A "000000000000000a"
#define BOOT_B "000000000000000b"

static void join(struct client *client, struct scene *scene, const char *uid, const char *boot)
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

/* ---- the dialogue ---- */

static void the_whole_dialogue(struct scene *scene)
{
    struct client client;
    join(&client, scene, "u-1", BOOT_A);
    struct report_message message = {.type = REPORT_PROGRESS};
    message.progress = (struct report_progress){.term = 1, .epoch = 1, .step = 0, .steps = 2, .workers = 1};
    say(&client, &message);
    message = (struct report_message){.type = REPORT_EPOCH};
    message.epoch = (struct report_epoch){.term = 1, .epoch = 1, .parallelism = 1};
    say(&client, &message);
    struct report_message ack = hear(&client, REPORT_ACK);
    assert_int_equal(ack.ack.status, 1);
    assert_int_equal(ack.ack.history, 0);
    message = (struct report_message){.type = REPORT_FINISHED};
    message.finished = (struct report_finished){.term = 1, .succeeded = true, .reason = "Trained"};
    say(&client, &message);
    hear(&client, REPORT_ACK_FINISHED);
    client_close(&client);
}

static void a_coordinator_reports_and_is_acknowledged(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(the_whole_dialogue, &scene, usual());
    assert_int_equal(scene.hellos, 1);
    assert_int_equal(scene.progress, 1);
    assert_int_equal(scene.epochs, 1);
    assert_int_equal(scene.finished, 1);
}

static void with_another_key(struct scene *scene)
{
    struct client client;
    client_open(&client, scene);
    struct report_message challenge = hear(&client, REPORT_CHALLENGE);
    struct report_message hello = hello_of("u-1", BOOT_A, &challenge);
    hello.hello.mac[0] ^= 1;
    say(&client, &hello);
    hear_the_end(&client, "the token is not this job's: it belongs to another operator's key");
    client_close(&client);

    /* A mac of another job's token. */
    client_open(&client, scene);
    challenge = hear(&client, REPORT_CHALLENGE);
    hello = hello_of("u-1", BOOT_A, &challenge);
    snprintf(hello.hello.job_uid, sizeof hello.hello.job_uid, "u-2");
    say(&client, &hello);
    hear_the_end(&client, "the token is not this job's: it belongs to another operator's key");
    client_close(&client);
}

static void replayed(struct scene *scene)
{
    struct client first, second;
    client_open(&first, scene);
    struct report_message challenge = hear(&first, REPORT_CHALLENGE);
    struct report_message hello = hello_of("u-1", BOOT_A, &challenge);
    client_open(&second, scene);
    hear(&second, REPORT_CHALLENGE);
    say(&second, &hello);
    hear_the_end(&second, "the token is not this job's: it belongs to another operator's key");
    client_close(&second);
    client_close(&first);
}

static void without_the_token_nobody_gets_through(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(with_another_key, &scene, usual());
    assert_int_equal(scene.hellos, 0);
    play(replayed, &scene, usual());
    assert_int_equal(scene.hellos, 0);
}

static void refused_by_the_loop(struct scene *scene)
{
    struct client client;
    client_open(&client, scene);
    struct report_message challenge = hear(&client, REPORT_CHALLENGE);
    struct report_message hello = hello_of("u-1", BOOT_A, &challenge);
    say(&client, &hello);
    hear_the_end(&client, "a newer pod is the coordinator");
    client_close(&client);
}

static void the_loop_decides_who_may_report(void **state)
{
    (void)state;
    struct scene scene = {.refuses = true};
    play(refused_by_the_loop, &scene, usual());
    assert_int_equal(scene.hellos, 1);
}

static void out_of_turn(struct scene *scene)
{
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"{\"type\":\"ack-finished\"}", "the first message must be a hello"},
        {"{\"type\":\"epoch\",\"term\":1,\"epoch\":1,\"parallelism\":1,\"durationSeconds\":1}",
         "the first message must be a hello"},
        {"hello", "the message is not JSON: mistake at byte 0"},
        {"{\"type\":\"hello\"}", "'namespace' must be a string"},
    };
    struct client client;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        client_open(&client, scene);
        hear(&client, REPORT_CHALLENGE);
        say_text(&client, cases[i].text);
        hear_the_end(&client, cases[i].sentence);
        client_close(&client);
    }
    join(&client, scene, "u-1", BOOT_A);
    say_text(&client, "{\"type\":\"ack\",\"status\":1,\"history\":1}");
    hear_the_end(&client, "this message may not be sent now");
    client_close(&client);

    client_open(&client, scene);
    hear(&client, REPORT_CHALLENGE);
    client.binary = true;
    say_text(&client, "{}");
    hear_the_end(&client, "messages must be text");
    client_close(&client);
}

static void what_may_not_be_said_ends_the_connection(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(out_of_turn, &scene, usual());
    assert_int_equal(scene.hellos, 1);
    assert_int_equal(scene.epochs, 0);
}

static void in_pieces(struct scene *scene)
{
    static char text[REPORT_MESSAGE_MOST + 1];
    struct client client;
    join(&client, scene, "u-1", BOOT_A);
    static const char epoch[] = "{\"type\":\"epoch\",\"term\":1,\"epoch\":1,\"parallelism\":1,\"durationSeconds\":1}";
    memcpy(text, epoch, sizeof epoch);
    memset(text + sizeof epoch - 1, ' ', sizeof text - sizeof epoch + 1);
    say_in_pieces(&client, epoch, strlen(epoch), 1);
    hear(&client, REPORT_ACK);
    say_in_pieces(&client, text, sizeof text - 1, 1000);
    hear(&client, REPORT_ACK);
    say_in_pieces(&client, text, sizeof text, 1000);
    hear_the_end(&client, "a message is longer than 16384 bytes");
    client_close(&client);
}

static void messages_in_pieces_are_joined_up_to_the_cap(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(in_pieces, &scene, usual());
    assert_int_equal(scene.epochs, 2);
}

static void one_after_the_other(struct scene *scene)
{
    struct client old, new, other;
    join(&old, scene, "u-1", BOOT_A);
    join(&other, scene, "u-2", BOOT_A);
    join(&new, scene, "u-1", BOOT_B);
    hear_the_end(&old, "a newer connection of this job took its place");
    struct report_message message = {.type = REPORT_EPOCH};
    message.epoch = (struct report_epoch){.term = 1, .epoch = 1};
    say(&new, &message);
    hear(&new, REPORT_ACK);
    say(&other, &message);
    hear(&other, REPORT_ACK);
    client_close(&old);
    client_close(&new);
    client_close(&other);
}

static void a_newer_connection_takes_the_place_of_the_older(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(one_after_the_other, &scene, usual());
    assert_int_equal(scene.epochs, 2);
}

/* ---- limits ---- */

static void too_late(struct scene *scene)
{
    struct client client;
    client_open(&client, scene);
    hear(&client, REPORT_CHALLENGE);
    hear_the_end(&client, "no hello came in time");
    client_close(&client);
}

static void a_hello_must_come_in_time(void **state)
{
    (void)state;
    struct scene scene = {0};
    struct server_options options = usual();
    options.hello_timeout = 20 * MILLISECONDS;
    play(too_late, &scene, options);
    assert_int_equal(scene.hellos, 0);
}

static void crowd(struct scene *scene)
{
    struct client clients[3], welcomed;
    client_open(&clients[0], scene);
    hear(&clients[0], REPORT_CHALLENGE);
    client_open(&clients[1], scene);
    hear(&clients[1], REPORT_CHALLENGE);
    client_open(&clients[2], scene);
    hear_the_end(&clients[2], "too many connections wait to say hello: come back later");
    client_close(&clients[2]);
    /* Room again when one has said hello. */
    struct report_message challenge;
    client_close(&clients[0]);
    do {
        client_open(&welcomed, scene);
        while (welcomed.heard_count == 0)
            lws_service(welcomed.context, 0);
        challenge = welcomed.heard[0];
        if (challenge.type != REPORT_CHALLENGE)
            client_close(&welcomed);
    } while (challenge.type != REPORT_CHALLENGE);
    client_close(&welcomed);
    client_close(&clients[1]);
}

static void few_may_wait_to_say_hello(void **state)
{
    (void)state;
    struct scene scene = {0};
    struct server_options options = usual();
    options.most_pending = 2;
    play(crowd, &scene, options);
}

/* ---- plain HTTP ---- */

static int connect_to(struct scene *scene)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                        .sin_port = htons((uint16_t)server_port(scene->server))};
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Everything up to the end of the connection. */
static void exchange_bytes(struct scene *scene, const void *request, size_t length, char *answer, size_t size)
{
    cleanup_fd int fd = connect_to(scene);
    (void)!send(fd, request, length, MSG_NOSIGNAL);
    size_t got = 0;
    for (ssize_t more; got < size - 1 && (more = recv(fd, answer + got, size - 1 - got, 0)) > 0;)
        got += (size_t)more;
    answer[got] = '\0';
}

static void ask(struct scene *scene, const char *method, const char *path, const char *status, const char *part)
{
    char request[256], answer[8192];
    int length =
        snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, path);
    exchange_bytes(scene, request, (size_t)length, answer, sizeof answer);
    if (strncmp(answer, status, strlen(status)) != 0 || strstr(answer, part) == NULL)
        fail_msg("%s %s: wanted '%s' and '%s', got: %s", method, path, status, part, answer);
}

/* More than may wait for the loop, and little enough for the rest to find room in the sockets. */
enum { FLOOD = 5000 };

static void flood(struct scene *scene)
{
    struct client client;
    join(&client, scene, "u-1", BOOT_A);
    pthread_mutex_lock(&scene->gate);
    struct report_message message = {.type = REPORT_PROGRESS};
    for (uint32_t i = 0; i < FLOOD; i++) {
        message.progress = (struct report_progress){.term = 1, .epoch = 1, .step = i, .steps = FLOOD};
        say(&client, &message);
    }
    while (!atomic_load(&scene->server->any_paused))
        sched_yield();
    pthread_mutex_unlock(&scene->gate);
    message = (struct report_message){.type = REPORT_EPOCH, .epoch = {.term = 1, .epoch = 1}};
    say(&client, &message);
    hear(&client, REPORT_ACK);
    client_close(&client);
}

static void a_flood_is_slowed_down_and_nothing_is_lost(void **state)
{
    (void)state;
    struct scene scene = {0};
    struct server_options options = usual();
    options.most_connections = 8; /* beyond the pause there is room for one message of each */
    play(flood, &scene, options);
    assert_int_equal(scene.progress, FLOOD);
    assert_int_equal(scene.epochs, 1);
    assert_true(scene.in_order);
}

static void ask_around(struct scene *scene)
{
    ask(scene, "GET", "/healthz", "HTTP/1.1 200", "ok");
    ask(scene, "GET", "/readyz", "HTTP/1.1 503", "waiting for the start");
    server_set_ready(scene->server, false, "pods");
    ask(scene, "GET", "/readyz", "HTTP/1.1 503", "waiting for pods");
    server_set_ready(scene->server, true, NULL);
    ask(scene, "GET", "/readyz", "HTTP/1.1 200", "ok");
    ask(scene, "GET", "/metrics", "HTTP/1.1 200", "test_hellos 0\n# HELP thole_server_connections");
    ask(scene, "GET", "/metrics", "HTTP/1.1 200", "\nthole_server_connections 1\n");
    ask(scene, "GET", "/metrics", "HTTP/1.1 200", "\nthole_coordinator_connections 0\n");
    ask(scene, "GET", "/", "HTTP/1.1 404", "there is /healthz");
    ask(scene, "GET", "/v1/coordinator", "HTTP/1.1 400", "this is a WebSocket");
    ask(scene, "POST", "/metrics", "HTTP/1.1 405", "only GET");
}

static void health_readiness_and_metrics_are_served(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(ask_around, &scene, usual());
}

static void ask_for_debug(struct scene *scene)
{
    ask(scene, "GET", "/debug/thing?key=team/lenet", "HTTP/1.1 200", "{\"what\":\"thing\",\"key\":\"team/lenet\"}");
    ask(scene, "GET", "/debug/thing?other=1&key=team%2Flenet", "HTTP/1.1 200", "\"key\":\"team/lenet\"}");
    ask(scene, "GET", "/debug/thing", "HTTP/1.1 200", "\"key\":\"\"}");
    ask(scene, "GET", "/debug/", "HTTP/1.1 404", "{\"what\":\"\",");
    ask(scene, "GET", "/debug/other?key=x", "HTTP/1.1 404", "{\"what\":\"other\",\"key\":\"x\"}");
    ask(scene, "GET", "/debug", "HTTP/1.1 404", "there is /healthz");
}

static void the_loop_answers_questions(void **state)
{
    (void)state;
    struct scene scene = {.debugs = true};
    play(ask_for_debug, &scene, usual());
}

static void ask_for_debug_in_vain(struct scene *scene)
{
    ask(scene, "GET", "/debug/thing?key=team/lenet", "HTTP/1.1 404", "there is /healthz");
}

static void nothing_is_told_without_a_hook(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(ask_for_debug_in_vain, &scene, usual());
}

static void wait_for_health(struct scene *scene, const char *status, const char *part)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    char answer[1024];
    do
        exchange_bytes(scene, request, sizeof request - 1, answer, sizeof answer);
    while (strncmp(answer, status, strlen(status)) != 0);
    assert_non_null(strstr(answer, part));
}

/* The loop stands still in the handling of a report; the server's thread goes on and says so. */
static void stick(struct scene *scene)
{
    struct client client;
    join(&client, scene, "u-1", BOOT_A);
    wait_for_health(scene, "HTTP/1.1 200", "ok");
    pthread_mutex_lock(&scene->gate);
    const struct report_message message = {.type = REPORT_PROGRESS, .progress = {.term = 1, .epoch = 1, .steps = 1}};
    say(&client, &message);
    wait_for_health(scene, "HTTP/1.1 503", "the event loop has been stuck for");
    ask(scene, "GET", "/metrics", "HTTP/1.1 503", "the event loop does not answer");
    ask(scene, "GET", "/debug/thing?key=x", "HTTP/1.1 503", "the event loop does not answer");
    ask(scene, "GET", "/readyz", "HTTP/1.1 503", "waiting for the start");
    pthread_mutex_unlock(&scene->gate);
    wait_for_health(scene, "HTTP/1.1 200", "ok");
    ask(scene, "GET", "/metrics", "HTTP/1.1 200", "test_hellos 1\n");
    client_close(&client);
}

static void a_stuck_loop_is_not_healthy(void **state)
{
    (void)state;
    struct scene scene = {.debugs = true};
    struct server_options options = usual();
    options.stuck_after = 1500 * MILLISECONDS; /* it turns once a second at least */
    play(stick, &scene, options);
}

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

/* ---- starting ---- */

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
        cmocka_unit_test(a_coordinator_reports_and_is_acknowledged),
        cmocka_unit_test(without_the_token_nobody_gets_through),
        cmocka_unit_test(the_loop_decides_who_may_report),
        cmocka_unit_test(what_may_not_be_said_ends_the_connection),
        cmocka_unit_test(messages_in_pieces_are_joined_up_to_the_cap),
        cmocka_unit_test(a_newer_connection_takes_the_place_of_the_older),
        cmocka_unit_test(a_hello_must_come_in_time),
        cmocka_unit_test(few_may_wait_to_say_hello),
        cmocka_unit_test(a_flood_is_slowed_down_and_nothing_is_lost),
        cmocka_unit_test(health_readiness_and_metrics_are_served),
        cmocka_unit_test(a_stuck_loop_is_not_healthy),
        cmocka_unit_test(the_loop_answers_questions),
        cmocka_unit_test(nothing_is_told_without_a_hook),
        cmocka_unit_test(garbage_closes_its_connection_and_nothing_else),
        cmocka_unit_test(connections_are_limited),
        cmocka_unit_test(what_cannot_be_listened_on_is_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
