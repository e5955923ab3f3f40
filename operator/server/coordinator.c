/* The coordinators' side of the server: one WebSocket each, through the dialogue of common/report/report.h.
 * Everything here runs on the server's thread. */
#include "common/crypto.h"
#include "server/internal.h"

#include <arpa/inet.h>
#include <string.h>

enum { VERDICT_SECONDS = 30, CLOSE_REASON_MOST = 123 };

static const int64_t LOG_AGAIN = 60 * SECONDS;

/* ---- the lists ---- */

static const uint32_t HASH_START = 2166136261u; /* FNV-1a's */

static uint32_t hash_text(uint32_t hash, const char *text)
{
    for (const char *c = text; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    return hash;
}

static struct coordinator **bucket_of(struct server *server, const char *job_uid)
{
    return &server->known[hash_text(HASH_START, job_uid) % BUCKETS];
}

static void list(struct server *server, struct coordinator *coordinator)
{
    coordinator->next = server->coordinators;
    if (coordinator->next != NULL)
        coordinator->next->previous = coordinator;
    server->coordinators = coordinator;
}

static void unlist(struct server *server, struct coordinator *coordinator)
{
    if (coordinator->next != NULL)
        coordinator->next->previous = coordinator->previous;
    if (coordinator->previous != NULL)
        coordinator->previous->next = coordinator->next;
    else
        server->coordinators = coordinator->next;
}

static void make_known(struct server *server, struct coordinator *coordinator)
{
    struct coordinator **bucket = bucket_of(server, coordinator->hello.job_uid);
    coordinator->next_known = *bucket;
    if (*bucket != NULL)
        (*bucket)->known_at = &coordinator->next_known;
    *bucket = coordinator;
    coordinator->known_at = bucket;
}

static void make_unknown(struct coordinator *coordinator)
{
    if (coordinator->known_at == NULL)
        return;
    *coordinator->known_at = coordinator->next_known;
    if (coordinator->next_known != NULL)
        coordinator->next_known->known_at = coordinator->known_at;
    coordinator->known_at = NULL;
}

static void set_state(struct coordinator *coordinator, enum coordinator_state state)
{
    struct server *server = coordinator->server;
    server->pending -= coordinator->state == COORDINATOR_NEW;
    server->welcomed -= coordinator->state == COORDINATOR_WELCOMED;
    coordinator->state = state;
    server->pending += state == COORDINATOR_NEW;
    server->welcomed += state == COORDINATOR_WELCOMED;
}

/* ---- sending ---- */

static bool was_logged(struct server *server, uint32_t hash)
{
    struct instant now = clock_now();
    for (size_t i = 0; i < REFUSALS_REMEMBERED; i++)
        if (server->logged[i].hash == hash && instant_since(now, server->logged[i].logged) < LOG_AGAIN)
            return true;
    server->logged[server->next_logged++ % REFUSALS_REMEMBERED] = (struct refusal){hash, now};
    return false;
}

static void log_refusal(struct coordinator *coordinator, const char *sentence)
{
    struct server *server = coordinator->server;
    char address[INET6_ADDRSTRLEN] = "";
    inet_ntop(AF_INET6, &coordinator->address, address, sizeof address);
    uint32_t hash = hash_text(hash_text(hash_text(HASH_START, sentence), coordinator->hello.job_uid), address);
    enum log_level level = was_logged(server, hash) ? LOG_DEBUG : LOG_WARN;
    log_write(server->log, level, "refused a coordinator", "reason", sentence, "address", address, "namespace",
              coordinator->hello.job_namespace, "job", coordinator->hello.job_name, "pod", coordinator->hello.pod,
              "boot", coordinator->hello.boot, NULL);
}

static void refuse(struct coordinator *coordinator, const char *sentence)
{
    if (coordinator->state == COORDINATOR_CLOSING)
        return;
    struct server *server = coordinator->server;
    log_refusal(coordinator, sentence);
    server->refusals++;
    set_state(coordinator, COORDINATOR_CLOSING);
    make_unknown(coordinator);
    snprintf(coordinator->sentence, sizeof coordinator->sentence, "%s", sentence);
    coordinator->send_refusal = true;
    lws_set_timer_usecs(coordinator->wsi, VERDICT_SECONDS * LWS_USEC_PER_SEC);
    lws_callback_on_writable(coordinator->wsi);
}

/* True once for each time that it was set. */
static bool take(bool *flag)
{
    bool was = *flag;
    *flag = false;
    return was;
}

static bool next_to_welcomed(struct coordinator *coordinator, struct report_message *out)
{
    if (take(&coordinator->send_welcome)) {
        out->type = REPORT_WELCOME;
        report_welcome_mac(coordinator->token, coordinator->hello.nonce, coordinator->nonce, out->welcome.mac);
        out->welcome.ack = coordinator->ack;
        coordinator->send_ack = false;
        return true;
    }
    if (take(&coordinator->send_ack)) {
        out->type = REPORT_ACK;
        out->ack = coordinator->ack;
        return true;
    }
    out->type = REPORT_ACK_FINISHED;
    return take(&coordinator->send_ack_finished);
}

/* What goes next: at most one message each time the socket takes some. False: nothing. */
static bool next_message(struct coordinator *coordinator, struct report_message *out)
{
    memset(out, 0, sizeof *out);
    if (take(&coordinator->send_challenge)) {
        out->type = REPORT_CHALLENGE;
        memcpy(out->challenge.nonce, coordinator->nonce, sizeof out->challenge.nonce);
        return true;
    }
    if (take(&coordinator->send_refusal)) {
        out->type = REPORT_REFUSED;
        snprintf(out->refused.message, sizeof out->refused.message, "%s", coordinator->sentence);
        return true;
    }
    return coordinator->state == COORDINATOR_WELCOMED && next_to_welcomed(coordinator, out);
}

/* -1 closes the connection. */
static int write_message(struct coordinator *coordinator, const struct report_message *message)
{
    cleanup_free char *text = report_encode(message);
    if (text == NULL)
        return -1;
    size_t length = strlen(text);
    cleanup_free unsigned char *frame = malloc(LWS_PRE + length + 1);
    if (frame == NULL)
        return -1;
    memcpy(frame + LWS_PRE, text, length + 1);
    return lws_write(coordinator->wsi, frame + LWS_PRE, length, LWS_WRITE_TEXT) < (int)length ? -1 : 0;
}

static int on_writable(struct coordinator *coordinator)
{
    struct report_message message;
    if (next_message(coordinator, &message)) {
        lws_callback_on_writable(coordinator->wsi);
        return write_message(coordinator, &message);
    }
    if (coordinator->state != COORDINATOR_CLOSING)
        return 0;
    size_t length = strnlen(coordinator->sentence, CLOSE_REASON_MOST);
    /* A UTF-8 sequence cut in the middle would be a protocol error of ours. */
    while (length > 0 && (coordinator->sentence[length] & 0xc0) == 0x80)
        length--;
    lws_close_reason(coordinator->wsi, LWS_CLOSE_STATUS_POLICY_VIOLATION, (unsigned char *)coordinator->sentence,
                     length);
    return -1;
}

/* ---- receiving ---- */

static void tell_loop(struct coordinator *coordinator, enum to_loop_kind kind, const struct report_message *message)
{
    struct server *server = coordinator->server;
    struct to_loop *copy = calloc(1, sizeof *copy);
    bool full = false;
    if (copy == NULL) {
        refuse(coordinator, "the operator is out of memory: come back later");
        return;
    }
    copy->kind = kind;
    memcpy(copy->job_uid, coordinator->hello.job_uid, sizeof copy->job_uid);
    memcpy(copy->boot, coordinator->hello.boot, sizeof copy->boot);
    copy->message = *message;
    if (server_tell_loop(server, copy, &full) < 0) {
        refuse(coordinator, "the operator is overloaded: come back later");
        return;
    }
    if (!full || coordinator->paused)
        return;
    coordinator->paused = true;
    server->pauses++;
    lws_rx_flow_control(coordinator->wsi, 0);
    /* Whoever sees this set also sees that the loop may have caught up meanwhile. */
    atomic_store(&server->any_paused, true);
    if (atomic_load(&server->in_loop) <= TO_LOOP_RESUME)
        coordinator_resume_all(server);
}

static void on_hello(struct coordinator *coordinator, const struct report_message *message)
{
    struct server *server = coordinator->server;
    const struct report_hello *hello = &message->hello;
    uint8_t expected[SHA256_SIZE];
    hmac_sha256(server->key, server->key_length, hello->job_uid, strlen(hello->job_uid), coordinator->token);
    report_hello_mac(hello, coordinator->token, coordinator->nonce, expected);
    server->hellos++;
    coordinator->hello = *hello;
    if (!bytes_equal_constant_time(expected, hello->mac, sizeof expected)) {
        refuse(coordinator, "the token is not this job's: it belongs to another operator's key");
        return;
    }
    set_state(coordinator, COORDINATOR_KNOWN);
    make_known(server, coordinator);
    lws_set_timer_usecs(coordinator->wsi, VERDICT_SECONDS * LWS_USEC_PER_SEC);
    tell_loop(coordinator, TO_LOOP_HELLO, message);
}

static void on_report(struct coordinator *coordinator, const struct report_message *message)
{
    coordinator->server->messages++;
    tell_loop(coordinator, TO_LOOP_REPORT, message);
}

/* Who may say what when. */
static const struct rule {
    enum report_type type;
    enum coordinator_state state;
    void (*handle)(struct coordinator *coordinator, const struct report_message *message);
} rules[] = {
    {REPORT_HELLO, COORDINATOR_NEW, on_hello},
    {REPORT_PROGRESS, COORDINATOR_WELCOMED, on_report},
    {REPORT_EPOCH, COORDINATOR_WELCOMED, on_report},
    {REPORT_FINISHED, COORDINATOR_WELCOMED, on_report},
};

static const struct rule *rule_for(enum report_type type, enum coordinator_state state)
{
    for (const struct rule *rule = rules; rule < rules + sizeof rules / sizeof rules[0]; rule++)
        if (rule->type == type && rule->state == state)
            return rule;
    return NULL;
}

static void on_message(struct coordinator *coordinator, const char *text, size_t length)
{
    struct error err = {0};
    struct report_message message;
    lws_validity_confirmed(coordinator->wsi);
    if (report_decode(&message, text, length, &err) < 0) {
        refuse(coordinator, error_message(&err));
        return;
    }
    const struct rule *rule = rule_for(message.type, coordinator->state);
    if (rule != NULL)
        rule->handle(coordinator, &message);
    else if (coordinator->state == COORDINATOR_NEW)
        refuse(coordinator, "the first message must be a hello");
    else
        refuse(coordinator, "this message may not be sent now");
}

/* Messages come in pieces; -1 closes the connection. */
static int on_receive(struct coordinator *coordinator, const char *data, size_t length)
{
    if (coordinator->state == COORDINATOR_CLOSING)
        return 0;
    if (lws_frame_is_binary(coordinator->wsi)) {
        refuse(coordinator, "messages must be text");
        return 0;
    }
    struct error err = {0};
    struct buffer *received = &coordinator->received;
    bool last = lws_is_final_fragment(coordinator->wsi) && lws_remaining_packet_payload(coordinator->wsi) == 0;
    if (last && received->length == 0) {
        on_message(coordinator, data, length);
        return 0;
    }
    if (buffer_append(received, data, length, &err) < 0) {
        refuse(coordinator, "a message is longer than 16384 bytes");
        return 0;
    }
    if (last) {
        on_message(coordinator, received->data, received->length);
        buffer_free(received);
    }
    return 0;
}

/* ---- coming and going ---- */

static int peer_address(struct lws *wsi, struct in6_addr *out)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    memset(out, 0, sizeof *out);
    if (getpeername(lws_get_socket_fd(wsi), (struct sockaddr *)&address, &length) < 0)
        return -1;
    if (address.ss_family == AF_INET6) {
        *out = ((struct sockaddr_in6 *)&address)->sin6_addr;
    } else {
        out->s6_addr[10] = out->s6_addr[11] = 0xff; /* ::ffff:a.b.c.d */
        memcpy(out->s6_addr + 12, &((struct sockaddr_in *)&address)->sin_addr, 4);
    }
    return 0;
}

static unsigned pending_from(const struct server *server, const struct in6_addr *address)
{
    unsigned count = 0;
    for (const struct coordinator *other = server->coordinators; other != NULL; other = other->next)
        count += other->state == COORDINATOR_NEW && memcmp(&other->address, address, sizeof *address) == 0;
    return count;
}

static int on_established(struct server *server, struct lws *wsi, struct coordinator *coordinator)
{
    memset(coordinator, 0, sizeof *coordinator);
    coordinator->server = server;
    coordinator->wsi = wsi;
    coordinator->state = COORDINATOR_CLOSING; /* until it is counted below */
    buffer_init(&coordinator->received, REPORT_MESSAGE_MOST);
    bool full = peer_address(wsi, &coordinator->address) < 0 || server->pending >= PENDING_MOST ||
                pending_from(server, &coordinator->address) >= server->most_pending;
    list(server, coordinator);
    set_state(coordinator, COORDINATOR_NEW);
    random_bytes(coordinator->nonce, sizeof coordinator->nonce);
    coordinator->send_challenge = !full;
    if (full)
        refuse(coordinator, "too many connections wait to say hello: come back later");
    else
        lws_set_timer_usecs(wsi, server->hello_timeout / 1000);
    lws_callback_on_writable(wsi);
    return 0;
}

static void on_closed(struct server *server, struct coordinator *coordinator)
{
    if (coordinator->server == NULL)
        return;
    if (coordinator->state == COORDINATOR_WELCOMED)
        log_info(server->log, "a coordinator's connection ended", "namespace", coordinator->hello.job_namespace, "job",
                 coordinator->hello.job_name, "pod", coordinator->hello.pod, NULL);
    set_state(coordinator, COORDINATOR_CLOSING);
    make_unknown(coordinator);
    unlist(server, coordinator);
    buffer_free(&coordinator->received);
    coordinator->server = NULL;
}

static int on_timer(struct coordinator *coordinator)
{
    if (coordinator->state == COORDINATOR_NEW)
        refuse(coordinator, "no hello came in time");
    else if (coordinator->state == COORDINATOR_KNOWN)
        refuse(coordinator, "the operator did not decide in time: come back later");
    else if (coordinator->state == COORDINATOR_CLOSING)
        return -1; /* it does not even read its refusal */
    return 0;
}

static int check_request(struct lws *wsi)
{
    char path[sizeof REPORT_PATH + 1];
    if (lws_hdr_copy(wsi, path, sizeof path, WSI_TOKEN_GET_URI) < 0 || strcmp(path, REPORT_PATH) != 0)
        return -1;
    return 0;
}

int coordinator_callback(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t length)
{
    struct coordinator *coordinator = session;
    switch (reason) {
    case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
        return check_request(wsi);
    case LWS_CALLBACK_ESTABLISHED:
        return on_established(server_of(wsi), wsi, coordinator);
    case LWS_CALLBACK_RECEIVE:
        return on_receive(coordinator, in, length);
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return on_writable(coordinator);
    case LWS_CALLBACK_TIMER:
        return on_timer(coordinator);
    case LWS_CALLBACK_CLOSED:
        on_closed(server_of(wsi), coordinator);
        return 0;
    default:
        return 0;
    }
}

/* ---- commands of the loop ---- */

static struct coordinator *find(struct server *server, const struct to_server *command, enum coordinator_state state)
{
    for (struct coordinator *known = *bucket_of(server, command->job_uid); known != NULL; known = known->next_known)
        if (known->state == state && strcmp(known->hello.job_uid, command->job_uid) == 0 &&
            strcmp(known->hello.boot, command->boot) == 0)
            return known;
    return NULL;
}

static void retire_others(struct server *server, const struct coordinator *welcomed)
{
    struct coordinator *next = NULL;
    for (struct coordinator *known = *bucket_of(server, welcomed->hello.job_uid); known != NULL; known = next) {
        next = known->next_known;
        if (known != welcomed && known->state == COORDINATOR_WELCOMED &&
            strcmp(known->hello.job_uid, welcomed->hello.job_uid) == 0)
            refuse(known, "a newer connection of this job took its place");
    }
}

static void welcome(struct server *server, const struct to_server *command)
{
    struct coordinator *coordinator = find(server, command, COORDINATOR_KNOWN);
    if (coordinator == NULL)
        return;
    set_state(coordinator, COORDINATOR_WELCOMED);
    coordinator->ack = command->ack;
    coordinator->send_welcome = true;
    lws_set_timer_usecs(coordinator->wsi, LWS_SET_TIMER_USEC_CANCEL);
    lws_callback_on_writable(coordinator->wsi);
    retire_others(server, coordinator);
    log_debug(server->log, "welcomed a coordinator", "namespace", coordinator->hello.job_namespace, "job",
              coordinator->hello.job_name, "pod", coordinator->hello.pod, NULL);
}

void coordinator_command(struct server *server, const struct to_server *command)
{
    if (command->kind == TO_SERVER_WELCOME) {
        welcome(server, command);
        return;
    }
    struct coordinator *coordinator = find(server, command, COORDINATOR_WELCOMED);
    if (command->kind == TO_SERVER_REFUSE) {
        struct coordinator *waiting = find(server, command, COORDINATOR_KNOWN);
        if (waiting != NULL || coordinator != NULL)
            refuse(waiting != NULL ? waiting : coordinator, command->sentence);
        return;
    }
    if (coordinator == NULL)
        return;
    if (command->kind == TO_SERVER_ACK) {
        coordinator->ack = command->ack;
        coordinator->send_ack = true;
    } else {
        coordinator->send_ack_finished = true;
    }
    lws_callback_on_writable(coordinator->wsi);
}

void coordinator_resume_all(struct server *server)
{
    atomic_store(&server->any_paused, false);
    for (struct coordinator *coordinator = server->coordinators; coordinator != NULL; coordinator = coordinator->next) {
        if (!coordinator->paused)
            continue;
        coordinator->paused = false;
        lws_rx_flow_control(coordinator->wsi, 1);
    }
}

void coordinator_close_all(struct server *server, const char *sentence)
{
    struct coordinator *next = NULL;
    for (struct coordinator *coordinator = server->coordinators; coordinator != NULL; coordinator = next) {
        next = coordinator->next;
        if (coordinator->state == COORDINATOR_WELCOMED || coordinator->state == COORDINATOR_KNOWN)
            refuse(coordinator, sentence);
    }
}
