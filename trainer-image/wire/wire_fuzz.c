/* Anything that a peer may send, in every state of a connection: its owner is told what the dialogue allows, in its
 * order, and nothing after the end.
 *
 * The first byte says in which state the connection is, the second how its bytes arrive: their pieces, and whether
 * headers and checksums are made right, so that what lies behind them is reached. The rest is what the peer sends. */
#include "common/test/fuzz.h"
#include "wire/net_internal.h"

#include <string.h>
#include <sys/epoll.h>

enum { INPUT_MOST = 1 << 16 };

struct owner {
    bool may_open; /* only READY is missing */
    bool dialler;  /* the fuzzed end is the one that dialled */
    enum dialogue dialogue;
    bool ended;
    void *place; /* exactly as large as the payload */
};

static void owner_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    (void)conn;
    (void)dialogue;
    (void)peer_boot;
    const struct owner *owner = arg;
    require(!owner->ended && owner->may_open); /* nobody guesses a proof */
}

static void *owner_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    struct owner *owner = arg;
    require(!owner->ended && frame->length > 0 && frame->length <= WIRE_PAYLOAD_MOST);
    require(dialogue_check(owner->dialogue, !owner->dialler, frame, err) == 0);
    if (frame->node == 0xfa11) {
        error_set(err, "told to fail");
        return NULL;
    }
    if (frame->node == 0xc105e)
        conn_close(conn, "told to close");
    free(owner->place);
    owner->place = malloc(frame->length);
    return owner->place;
}

static int owner_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                          struct error *err)
{
    struct owner *owner = arg;
    require(!owner->ended);
    require(dialogue_check(owner->dialogue, !owner->dialler, frame, err) == 0);
    require((frame->length > 0) == (payload != NULL) && (payload == NULL || payload == owner->place));
    if (payload != NULL)
        require(crc32c(0, payload, frame->length) == conn_payload_crc(conn));
    if (frame->step == 0xfa11)
        return error_set(err, "told to fail");
    if (frame->step == 0xc105e)
        conn_close(conn, NULL);
    else
        conn_send_bytes(conn, frame, frame, sizeof *frame); /* something to answer */
    return 0;
}

static void owner_closed(void *arg, struct conn *conn, const char *reason)
{
    (void)conn;
    struct owner *owner = arg;
    require(!owner->ended && reason[0] != '\0');
    owner->ended = true;
}

static const struct conn_handlers handlers = {
    .ready = owner_ready, .place = owner_place, .received = owner_received, .closed = owner_closed};

/* States 0 to 3: the handshake's. 4 to 9: open, in each dialogue and role. */
static struct conn *make_conn(struct net *net, int fd, unsigned which, struct owner *owner)
{
    static const enum conn_state states[4] = {CONN_WAIT_HELLO, CONN_WAIT_CHALLENGE, CONN_WAIT_PROOF, CONN_WAIT_READY};
    which %= 10;
    owner->dialler = which % 2 == 1;
    owner->dialogue = which < 4 ? DIALOGUE_DATA : (enum dialogue)(DIALOGUE_CONTROL + (which - 4) / 2);
    if (!owner->dialler) {
        struct conn *conn = conn_accept(net, fd, "fuzz:1", &handlers, owner);
        require(conn != NULL);
        conn->state = which < 4 ? states[which] : CONN_OPEN;
        conn->dialogue = owner->dialogue;
        if (which >= 4) {
            conn_proven(conn);
            conn->told = false;
        }
        return conn;
    }
    struct conn *conn = conn_new_dialled(net, "fuzz:1", owner->dialogue, &handlers, owner);
    require(conn != NULL);
    conn->fd = fd;
    conn->state = which < 4 ? states[which] : CONN_OPEN;
    conn->proven = which >= 4;
    owner->may_open = which == 3;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    require(epoll_ctl(net->epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    return conn;
}

/* Makes what stands where frames would begin into frames with right magic, version and checksums. */
static void make_honest(uint8_t *bytes, size_t size)
{
    for (size_t at = 0; at + WIRE_HEADER_SIZE <= size;) {
        uint8_t *header = bytes + at;
        struct frame frame = {.type = header[5]};
        memcpy(&frame.term, header + 8, 4);
        memcpy(&frame.node, header + 12, 4);
        memcpy(&frame.step, header + 16, 8);
        memcpy(&frame.offset, header + 24, 8);
        memcpy(&frame.value.counter, header + 32, 8);
        memcpy(&frame.length, header + 44, 4);
        size_t left = size - at - WIRE_HEADER_SIZE;
        if (frame.length > left && frame.length % 4 != 0) /* some stay too long */
            frame.length = (uint32_t)(left == 0 ? 0 : frame.length % left);
        size_t here = frame.length < left ? frame.length : left;
        frame_encode(&frame, frame.length == 0 ? 0 : crc32c(0, header + WIRE_HEADER_SIZE, here), header);
        at += WIRE_HEADER_SIZE + here;
    }
}

static void feed(struct net *net, int fd, const uint8_t *bytes, size_t size, size_t piece)
{
    struct error err = {0};
    for (size_t at = 0; at < size;) {
        size_t length = piece < size - at ? piece : size - at;
        ssize_t sent = send(fd, bytes + at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            at += (size_t)sent;
        require(net_wait(net, 0, &err) >= 0);
        if (net->conns == NULL)
            return;
        uint8_t answer[4096];
        while (recv(fd, answer, sizeof answer, MSG_DONTWAIT) > 0)
            ;
    }
    shutdown(fd, SHUT_WR);
    /* It reads the end of what came, at the latest. */
    for (int i = 0; i < 1000 && net->conns != NULL; i++)
        require(net_wait(net, 0, &err) >= 0);
    require(net->conns == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t pieces[4] = {INPUT_MOST, 4096, 97, 13};
    if (size < 2 || size > INPUT_MOST)
        return 0;
    uint8_t *bytes = malloc(size);
    require(bytes != NULL);
    memcpy(bytes, data, size);
    if (data[1] % 2 == 1)
        make_honest(bytes + 2, size - 2);

    int fds[2];
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    struct net *net = NULL;
    struct error err = {0};
    struct net_options options = {.boot_id = 1, .token = {1}};
    require(net_new(&net, &options, &err) == 0);
    struct owner owner = {0};
    make_conn(net, fds[0], data[0], &owner);
    bool tells = data[0] % 10 >= 4 || data[0] % 2 == 1;
    feed(net, fds[1], bytes + 2, size - 2, pieces[data[1] / 2 % 4]);
    require(owner.ended == tells);
    net_free(net);
    close(fds[1]);
    free(owner.place);
    free(bytes);
    return 0;
}
