#include "wire/net_test_support.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

uint64_t test_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ---- Handlers that write down ---- */

static void side_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    struct side *side = arg;
    assert_false(side->ready);
    side->ready = true;
    side->conn = conn;
    side->dialogue = dialogue;
    side->peer_boot = peer_boot;
    if (side->close_in_ready != NULL)
        conn_close(conn, side->close_in_ready);
}

static void *side_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    struct side *side = arg;
    assert_ptr_equal(side->conn, conn);
    assert_true(frame->length > 0);
    if (side->fail_place != NULL) {
        error_set(err, "%s", side->fail_place);
        return NULL;
    }
    if (side->close_in_place != NULL)
        conn_close(conn, side->close_in_place);
    return conn_scratch(conn, frame->length);
}

static int side_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                         struct error *err)
{
    struct side *side = arg;
    assert_ptr_equal(side->conn, conn);
    assert_false(side->closed);
    side->heard[side->heard_count++ % HEARD_MOST] = *frame;
    if (frame->length > 0) {
        assert_int_equal(conn_payload_crc(conn), crc32c(0, payload, frame->length));
        side->heard_bytes += frame->length;
        side->heard_crc = crc32c(side->heard_crc, payload, frame->length);
        text_clean(side->text, sizeof side->text, payload, frame->length);
    }
    if (side->close_in_received != NULL)
        conn_close(conn, side->close_in_received);
    return side->fail_received == NULL ? 0 : error_set(err, "%s", side->fail_received);
}

static void side_drained(void *arg, struct conn *conn)
{
    struct side *side = arg;
    assert_int_equal(conn_queued(conn), 0);
    side->drained++;
}

static void side_closed(void *arg, struct conn *conn, const char *reason)
{
    struct side *side = arg;
    assert_false(side->closed);
    assert_string_not_equal(reason, "");
    side->closed = true;
    side->refused = conn_refused(conn);
    snprintf(side->reason, sizeof side->reason, "%s", reason);
    side->conn = NULL;
    if (side->dial_again_in_closed)
        end_dial(side->end, conn_peer(conn), side->dialogue);
}

static const struct conn_handlers side_handlers = {side_ready, side_place, side_received, side_drained, side_closed};

static struct side *new_side(struct end *end)
{
    assert_true(end->side_count < PEERS_MOST);
    struct side *side = &end->sides[end->side_count++];
    *side = (struct side){.end = end};
    return side;
}

static void end_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    struct end *end = arg;
    struct side *side = new_side(end);
    side->close_in_ready = end->refuse_all ? "not today" : NULL;
    side->fail_place = end->deaf ? "deaf" : NULL;
    conn_set_handlers(conn, &side_handlers, side);
    side_ready(side, conn, dialogue, peer_boot);
}

/* Only `ready` can be called before the side has taken the connection over. */
static const struct conn_handlers end_handlers = {.ready = end_ready};

/* ---- Ends ---- */

struct net_options usual_options(uint64_t boot)
{
    struct net_options options = {.boot_id = boot};
    memset(options.token, 0x5a, sizeof options.token);
    memset(options.plan_digest, 0xd1, sizeof options.plan_digest);
    return options;
}

void end_start(struct end *end, uint64_t boot, const struct net_options *options)
{
    memset(end, 0, sizeof *end);
    end->log = (struct log){.fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_INFO, .format = LOG_TEXT};
    struct net_options made = options == NULL ? usual_options(boot) : *options;
    made.log = &end->log;
    struct error err = {0};
    if (net_new(&end->net, &made, &err) < 0)
        fail_msg("%s", error_message(&err));
    int fd = wire_listen_socket("127.0.0.1:0", &end->port, &err);
    if (fd < 0 || net_listen(end->net, fd, &end_handlers, end, &err) < 0)
        fail_msg("%s", error_message(&err));
    snprintf(end->address, sizeof end->address, "127.0.0.1:%u", end->port);
}

void end_stop(struct end *end)
{
    net_free(end->net);
    end->net = NULL;
    close(end->log.fd);
}

struct side *end_dial(struct end *from, const char *address, enum dialogue dialogue)
{
    struct side *side = new_side(from);
    side->dialogue = dialogue;
    side->conn = conn_dial(from->net, address, dialogue, &side_handlers, side);
    assert_non_null(side->conn);
    return side;
}

struct side *end_newest(struct end *end)
{
    return end->side_count == 0 ? NULL : &end->sides[end->side_count - 1];
}

static bool turn(struct end *end, int64_t timeout)
{
    struct error err = {0};
    int result = end == NULL ? 0 : net_wait(end->net, timeout, &err);
    if (result < 0)
        fail_msg("%s", error_message(&err));
    return result == 1;
}

void pump_until(struct end *a, struct end *b, bool (*done)(const void *arg), const void *arg)
{
    int64_t until = clock_now().nanoseconds + 10 * SECONDS;
    while (!done(arg)) {
        bool any = turn(a, 0);
        any = turn(b, 0) || any;
        if (!any && !done(arg))
            turn(a, MILLISECONDS);
        if (clock_now().nanoseconds > until)
            fail_msg("what was waited for did not happen within 10 s");
    }
}

void pump_idle(struct end *a, struct end *b)
{
    for (int quiet = 0; quiet < 3;) {
        bool any = turn(a, 0);
        any = turn(b, MILLISECONDS) || any;
        quiet = any ? 0 : quiet + 1;
    }
}

static bool is_ready(const void *arg)
{
    return ((const struct side *)arg)->ready;
}

static bool is_closed(const void *arg)
{
    return ((const struct side *)arg)->closed;
}

struct count {
    const struct side *side;
    size_t heard;
};

static bool has_heard(const void *arg)
{
    const struct count *count = arg;
    return count->side->heard_count >= count->heard;
}

void pump_ready(struct end *a, struct end *b, struct side *side)
{
    pump_until(a, b, is_ready, side);
}

void pump_closed(struct end *a, struct end *b, struct side *side)
{
    pump_until(a, b, is_closed, side);
}

void pump_heard(struct end *a, struct end *b, struct side *side, size_t count)
{
    pump_until(a, b, has_heard, &(struct count){side, count});
}

void connect_ends(struct end *from, struct end *to, enum dialogue dialogue, struct side **dialled,
                  struct side **accepted)
{
    *dialled = end_dial(from, to->address, dialogue);
    pump_ready(from, to, *dialled);
    *accepted = end_newest(to);
    assert_true((*accepted)->ready);
}

void check_alive(struct end *from, struct end *to, struct side *dialled, struct side *accepted)
{
    size_t heard = accepted->heard_count;
    conn_send(dialled->conn, &(struct frame){.type = FRAME_HEARTBEAT, .value.counter = 7}, NULL);
    pump_heard(to, from, accepted, heard + 1);
    heard = dialled->heard_count;
    conn_send(accepted->conn, &(struct frame){.type = FRAME_DEAL, .step = 9}, NULL);
    pump_heard(from, to, dialled, heard + 1);
}

int end_logged(struct end *end, char *text, size_t size)
{
    off_t length = lseek(end->log.fd, 0, SEEK_CUR);
    ssize_t got = pread(end->log.fd, text, (size_t)length < size ? (size_t)length : size - 1, 0);
    assert_true(got >= 0);
    text[got] = '\0';
    assert_int_equal(ftruncate(end->log.fd, 0), 0);
    lseek(end->log.fd, 0, SEEK_SET);
    int lines = 0;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    return lines;
}

/* ---- Plain sockets ---- */

void raw_open(struct raw *raw, struct end *end)
{
    struct sockaddr_storage address = {0};
    char port[ADDRESS_PORT_SIZE];
    snprintf(port, sizeof port, "%u", end->port);
    assert_int_equal(address_look_up("127.0.0.1", port, AI_NUMERICHOST, &address, 1, NULL), 1);
    memset(raw, 0, sizeof *raw);
    raw->end = end;
    raw->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(raw->fd, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
}

void raw_close(struct raw *raw)
{
    if (raw->fd >= 0)
        close(raw->fd);
    raw->fd = -1;
}

void raw_send(struct raw *raw, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t sent = send(raw->fd, at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN)
            return; /* the other end has closed already, as it may */
        if (sent < 0) {
            turn(raw->end, 0);
            continue;
        }
        at += sent;
        length -= (size_t)sent;
    }
}

ssize_t raw_read(struct raw *raw, void *out, size_t size)
{
    int64_t until = clock_now().nanoseconds + 10 * SECONDS;
    for (;;) {
        bool any = turn(raw->end, 0);
        ssize_t length = recv(raw->fd, out, size, MSG_DONTWAIT);
        if (length > 0)
            return length;
        if (length == 0 || errno != EAGAIN)
            return -1;
        if (!any)
            turn(raw->end, MILLISECONDS);
        if (clock_now().nanoseconds > until)
            fail_msg("neither an answer nor an end came within 10 s");
    }
}

static bool read_whole(struct raw *raw, uint8_t *out, size_t length)
{
    for (size_t have = 0; have < length;) {
        ssize_t more = raw_read(raw, out + have, length - have);
        if (more < 0)
            return false;
        have += (size_t)more;
    }
    return true;
}

bool raw_read_frame(struct raw *raw, struct frame *frame, uint8_t *payload, size_t size)
{
    uint8_t header[WIRE_HEADER_SIZE];
    uint32_t crc;
    struct error err = {0};
    if (!read_whole(raw, header, sizeof header))
        return false;
    if (frame_decode(frame, &crc, header, &err) < 0)
        fail_msg("%s", error_message(&err));
    assert_true(frame->length <= size);
    if (!read_whole(raw, payload, frame->length))
        return false;
    assert_int_equal(crc32c(0, payload, frame->length), crc);
    return true;
}

size_t frame_bytes(uint8_t *out, const struct frame *frame, const void *payload, size_t length)
{
    struct frame header = *frame;
    header.length = (uint32_t)length;
    frame_encode(&header, length > 0 ? crc32c(0, payload, length) : 0, out);
    if (length > 0)
        memcpy(out + WIRE_HEADER_SIZE, payload, length);
    return WIRE_HEADER_SIZE + length;
}

/* Written from the header's words, not with handshake.c's functions. */
size_t raw_hello(struct raw *raw, uint8_t *out, enum dialogue dialogue, const struct net_options *options)
{
    memset(raw->hello, 0, sizeof raw->hello);
    raw->hello[0] = (uint8_t)dialogue;
    for (int i = 0; i < 8; i++)
        raw->hello[8 + i] = (uint8_t)(options->boot_id >> (8 * i));
    memcpy(raw->hello + 16, options->plan_digest, 32);
    random_bytes(raw->hello + 48, 32);
    return frame_bytes(out, &(struct frame){.type = FRAME_HELLO}, raw->hello, sizeof raw->hello);
}

size_t raw_proof(struct raw *raw, uint8_t *out, const struct net_options *options)
{
    static const char label[] = "dialler";
    uint8_t text[7 + HELLO_SIZE + CHALLENGE_SIZE], mac[32];
    memcpy(text, label, sizeof label - 1);
    memcpy(text + 7, raw->hello, HELLO_SIZE);
    memcpy(text + 7 + HELLO_SIZE, raw->challenge, CHALLENGE_SIZE);
    hmac_sha256(options->token, 32, text, sizeof text, mac);
    return frame_bytes(out, &(struct frame){.type = FRAME_PROOF}, mac, sizeof mac);
}

void raw_handshake(struct raw *raw, enum dialogue dialogue)
{
    struct net_options options = usual_options(99);
    uint8_t bytes[256];
    struct frame frame = {0};
    raw_send(raw, bytes, raw_hello(raw, bytes, dialogue, &options));
    assert_true(raw_read_frame(raw, &frame, raw->challenge, sizeof raw->challenge));
    assert_int_equal(frame.type, FRAME_CHALLENGE);
    raw_send(raw, bytes, raw_proof(raw, bytes, &options));
    assert_true(raw_read_frame(raw, &frame, bytes, sizeof bytes));
    assert_int_equal(frame.type, FRAME_READY);
}
