/* One connection: frames in, frames out, and its end. */
#include "wire/net_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>

/* ---- Life ---- */

static void timer_due(void *arg);

/* In front of the list, so that its end is the oldest. */
static struct conn *conn_new(struct net *net, const char *peer, const struct conn_handlers *handlers, void *arg)
{
    struct conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->source.kind = SOURCE_CONN;
    conn->net = net;
    conn->fd = -1;
    conn->handlers = handlers;
    conn->arg = arg;
    snprintf(conn->peer, sizeof conn->peer, "%s", peer);
    conn->timer = net_timer_new(net, timer_due, conn);
    if (conn->timer == NULL) {
        free(conn);
        return NULL;
    }
    conn->next = net->conns;
    if (net->conns != NULL)
        net->conns->previous = conn;
    net->conns = conn;
    return conn;
}

struct conn *conn_accept(struct net *net, int fd, const char *peer, const struct conn_handlers *handlers, void *arg)
{
    cleanup_fd int taken = fd;
    struct conn *conn = conn_new(net, peer, handlers, arg);
    if (conn == NULL)
        return NULL;
    conn->fd = move_fd(&taken);
    conn->told = true; /* nobody knows it before `ready` */
    conn->state = CONN_WAIT_HELLO;
    net->accepted++;
    net->unproven++;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    if (epoll_ctl(net->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        conn_fail(conn, "set up the connection: %s", strerror(errno));
        return conn;
    }
    net_timer_set(conn->timer, HANDSHAKE_MOST);
    return conn;
}

struct conn *conn_new_dialled(struct net *net, const char *address, enum dialogue dialogue,
                              const struct conn_handlers *handlers, void *arg)
{
    struct conn *conn = conn_new(net, address, handlers, arg);
    if (conn == NULL)
        return NULL;
    conn->dialled = true;
    conn->dialogue = dialogue;
    conn->state = CONN_RESOLVING;
    conn->handshake_until = clock_now().nanoseconds + HANDSHAKE_MOST;
    net_timer_set(conn->timer, HANDSHAKE_MOST);
    return conn;
}

static void drop_queue(struct conn *conn)
{
    for (; conn->queue_count > 0; conn->queue_count--) {
        payload_unref(conn->net, conn->queue[conn->queue_first].payload);
        conn->queue_first = (conn->queue_first + 1) & (conn->queue_capacity - 1);
    }
    conn->sent = conn->queued = 0;
}

void conn_proven(struct conn *conn)
{
    conn->proven = true;
    if (!conn->dialled)
        conn->net->unproven--;
}

/* No descriptor, nothing queued; memory and the owner's word come later. */
static void conn_end(struct conn *conn)
{
    if (conn->state == CONN_GONE)
        return;
    conn->state = CONN_GONE;
    if (!conn->dialled && !conn->proven)
        conn->net->unproven--;
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
    resolve_cancel(conn->resolve);
    conn->resolve = NULL;
    net_timer_set(conn->timer, -1);
    drop_queue(conn);
    conn->place = NULL;
    conn_doom(conn);
}

void conn_free(struct conn *conn)
{
    struct net *net = conn->net;
    conn_end(conn);
    for (struct conn **place = &net->dirty; conn->on_dirty; place = &(*place)->next_dirty) {
        if (*place == conn) {
            *place = conn->next_dirty;
            conn->on_dirty = false;
            break;
        }
    }
    if (conn->previous != NULL)
        conn->previous->next = conn->next;
    else
        net->conns = conn->next;
    if (conn->next != NULL)
        conn->next->previous = conn->previous;
    if (!conn->dialled)
        net->accepted--;
    net_timer_free(conn->timer);
    free(conn->addresses);
    free(conn->queue);
    free(conn->scratch);
    explicit_bzero(conn->hello, sizeof conn->hello);
    free(conn);
}

void conn_doom(struct conn *conn)
{
    if (conn->on_doomed)
        return;
    conn->on_doomed = true;
    if (conn->net->doomed_last != NULL)
        conn->net->doomed_last->next_doomed = conn;
    else
        conn->net->doomed = conn;
    conn->net->doomed_last = conn;
}

/* The first reason counts; one that nobody's owner hears is logged. */
static void keep_reason(struct conn *conn, const char *reason)
{
    if (conn->reason[0] != '\0')
        return;
    snprintf(conn->reason, sizeof conn->reason, "%s", reason);
    if (!conn->dialled && !conn->proven)
        net_log_refusal(conn->net, conn->peer, conn->reason);
}

void conn_fail(struct conn *conn, const char *format, ...)
{
    if (conn->state == CONN_GONE)
        return;
    char reason[WIRE_TEXT_MOST];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    keep_reason(conn, reason);
    conn_end(conn);
}

void conn_close(struct conn *conn, const char *sentence)
{
    if (conn->state >= CONN_CLOSING)
        return;
    if (conn->state < CONN_WAIT_HELLO) {
        conn_fail(conn, "%s", sentence != NULL ? sentence : "closed by this process");
        return;
    }
    keep_reason(conn, sentence != NULL ? sentence : "closed by this process");
    if (sentence != NULL) {
        /* Before its proof, a listener takes nothing longer than a handshake's payload. */
        size_t most = conn->state == CONN_OPEN || !conn->dialled ? WIRE_TEXT_MOST : HANDSHAKE_PAYLOAD_MOST;
        size_t length = strnlen(sentence, most);
        conn_enqueue_bytes(conn, &(struct frame){.type = FRAME_REFUSED}, sentence, length);
        if (conn->state == CONN_GONE) /* too much was queued, or no memory */
            return;
    }
    conn->state = CONN_CLOSING;
    conn->place = NULL;
    conn->input_start = conn->input_end = 0;
    net_timer_set(conn->timer, LINGER_MOST);
    conn_flush(conn);
    conn_doom(conn);
}

bool conn_refused(const struct conn *conn)
{
    return conn->refused;
}

static void timer_due(void *arg)
{
    struct conn *conn = arg;
    if (conn->state == CONN_CLOSING)
        conn_end(conn);
    else if (conn->state == CONN_CONNECTING && clock_now().nanoseconds < conn->handshake_until)
        conn_connect_next(conn, "no answer");
    else if (conn->state == CONN_RESOLVING)
        conn_fail(conn, "look up '%s': no answer within 10 s", conn->peer);
    else
        conn_fail(conn, "the handshake with '%s' was not completed within 10 s", conn->peer);
}

/* ---- Sending ---- */

static void mark_dirty(struct conn *conn)
{
    if (conn->on_dirty)
        return;
    conn->on_dirty = true;
    conn->next_dirty = conn->net->dirty;
    conn->net->dirty = conn;
}

static int queue_reserve(struct conn *conn)
{
    if (conn->queue_count < conn->queue_capacity)
        return 0;
    size_t capacity = conn->queue_capacity == 0 ? 8 : 2 * conn->queue_capacity;
    struct outgoing *queue = capacity > QUEUE_FRAMES_MOST ? NULL : malloc(capacity * sizeof *queue);
    if (queue == NULL)
        return -1;
    for (size_t i = 0; i < conn->queue_count; i++)
        queue[i] = conn->queue[(conn->queue_first + i) & (conn->queue_capacity - 1)];
    free(conn->queue);
    conn->queue = queue;
    conn->queue_first = 0;
    conn->queue_capacity = capacity;
    return 0;
}

void conn_enqueue(struct conn *conn, const struct frame *frame, struct payload *payload)
{
    size_t length = payload == NULL ? 0 : payload->length;
    size_t most = conn->dialogue == DIALOGUE_DATA ? (size_t)WIRE_DATA_QUEUE_MOST : (size_t)WIRE_CONTROL_QUEUE_MOST;
    if (conn->queued + WIRE_HEADER_SIZE + length > most || queue_reserve(conn) < 0) {
        conn_fail(conn, "%zu bytes wait for a peer that does not take them", conn->queued);
        return;
    }
    struct frame header = *frame;
    header.length = (uint32_t)length;
    uint32_t crc = 0;
    if (payload != NULL) {
        if (!payload->crc_known) {
            payload->crc = crc32c(0, payload->data, length);
            payload->crc_known = true;
        }
        crc = payload->crc;
        payload_ref(payload);
    }
    struct outgoing *slot = &conn->queue[(conn->queue_first + conn->queue_count) & (conn->queue_capacity - 1)];
    slot->payload = payload;
    frame_encode(&header, crc, slot->header);
    conn->queue_count++;
    conn->queued += WIRE_HEADER_SIZE + length;
    conn->was_queued = true;
    mark_dirty(conn);
    if (conn->queued >= SEND_AT_ONCE && !conn->blocked)
        conn_flush(conn);
}

void conn_enqueue_bytes(struct conn *conn, const struct frame *frame, const void *bytes, size_t length)
{
    struct payload *payload = NULL;
    if (length > 0) {
        payload = payload_new(conn->net, length);
        if (payload == NULL) {
            conn_fail(conn, "no memory for a frame of %zu bytes", length);
            return;
        }
        memcpy(payload->data, bytes, length);
    }
    conn_enqueue(conn, frame, payload);
    payload_unref(conn->net, payload);
}

void conn_send(struct conn *conn, const struct frame *frame, struct payload *payload)
{
    if (conn->state == CONN_OPEN)
        conn_enqueue(conn, frame, payload);
}

void conn_send_bytes(struct conn *conn, const struct frame *frame, const void *bytes, size_t length)
{
    if (conn->state == CONN_OPEN)
        conn_enqueue_bytes(conn, frame, bytes, length);
}

size_t conn_queued(const struct conn *conn)
{
    return conn->queued;
}

/* Fills `parts` from the front of the queue; returns how many. */
static int gather(const struct conn *conn, struct iovec parts[2 * SEND_FRAMES_MOST])
{
    int count = 0;
    size_t skip = conn->sent;
    for (size_t i = 0; i < conn->queue_count && i < SEND_FRAMES_MOST; i++) {
        struct outgoing *slot = &conn->queue[(conn->queue_first + i) & (conn->queue_capacity - 1)];
        if (skip < WIRE_HEADER_SIZE) {
            parts[count++] = (struct iovec){slot->header + skip, WIRE_HEADER_SIZE - skip};
            skip = 0;
        } else {
            skip -= WIRE_HEADER_SIZE;
        }
        if (slot->payload != NULL)
            parts[count++] = (struct iovec){slot->payload->data + skip, slot->payload->length - skip};
        skip = 0;
    }
    return count;
}

static void advance(struct conn *conn, size_t bytes)
{
    conn->queued -= bytes;
    conn->sent += bytes;
    while (conn->queue_count > 0) {
        struct outgoing *slot = &conn->queue[conn->queue_first];
        size_t size = WIRE_HEADER_SIZE + (slot->payload == NULL ? 0 : (size_t)slot->payload->length);
        if (conn->sent < size)
            return;
        conn->sent -= size;
        payload_unref(conn->net, slot->payload);
        conn->queue_first = (conn->queue_first + 1) & (conn->queue_capacity - 1);
        conn->queue_count--;
    }
}

void conn_watch_events(struct conn *conn, bool out)
{
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0U), .data.ptr = conn};
    epoll_ctl(conn->net->epoll, EPOLL_CTL_MOD, conn->fd, &event);
}

void conn_flush(struct conn *conn)
{
    if (conn->state < CONN_WAIT_HELLO || conn->state == CONN_GONE)
        return;
    bool full = false;
    while (conn->queue_count > 0 && !full) {
        struct iovec parts[2 * SEND_FRAMES_MOST];
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)gather(conn, parts)};
        ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            /* What the peer said last may still be unread: then that is the reason, and reading finds it. */
            if (errno == EPIPE || errno == ECONNRESET) {
                drop_queue(conn);
                break;
            }
            conn_fail(conn, "send to %s: %s", conn->peer, strerror(errno));
            return;
        }
        full = sent < 0;
        if (sent > 0)
            advance(conn, (size_t)sent);
    }
    if (full != conn->blocked) {
        conn->blocked = full;
        conn_watch_events(conn, full);
    }
    if (conn->state == CONN_CLOSING && conn->queue_count == 0)
        shutdown(conn->fd, SHUT_WR);
}

void conn_finish_dirty(struct conn *conn)
{
    if (!conn->blocked)
        conn_flush(conn);
    if (conn->queue_count > 0 || !conn->was_queued)
        return;
    conn->was_queued = false;
    if (conn->state == CONN_OPEN && conn->handlers->drained != NULL)
        conn->handlers->drained(conn->arg, conn);
}

/* ---- Receiving ---- */

void *conn_scratch(struct conn *conn, size_t length)
{
    if (length > WIRE_PAYLOAD_MOST)
        return NULL;
    if (length > conn->scratch_capacity) {
        size_t capacity = length < 1024 ? 1024 : length;
        void *scratch = malloc(capacity);
        if (scratch == NULL)
            return NULL;
        free(conn->scratch);
        conn->scratch = scratch;
        conn->scratch_capacity = capacity;
    }
    return conn->scratch;
}

/* A frame's header is here: is it allowed, and where does its payload go? -1 closes. */
static int take_header(struct conn *conn, struct error *err)
{
    uint32_t crc;
    if (frame_decode(&conn->frame, &crc, conn->input + conn->input_start, err) < 0)
        return -1;
    conn->input_start += WIRE_HEADER_SIZE;
    conn->frame_crc = crc;
    bool open = conn->state == CONN_OPEN;
    if (open && dialogue_check(conn->dialogue, !conn->dialled, &conn->frame, err) < 0)
        return -1;
    if (!open && handshake_check_header(conn, &conn->frame, err) < 0)
        return -1;
    if (conn->frame.length == 0)
        return 0;

    conn->crc = 0;
    conn->placed = 0;
    if (open && conn->frame.type != FRAME_REFUSED)
        conn->place = conn->handlers->place(conn->arg, conn, &conn->frame, err);
    else
        conn->place = conn_scratch(conn, conn->frame.length);
    if (conn->place == NULL && err->message[0] == '\0')
        return error_set(err, "no memory for a payload of %u bytes", conn->frame.length);
    return conn->place == NULL ? -1 : 0;
}

/* The whole frame is here. */
static int take_frame(struct conn *conn, const void *payload, struct error *err)
{
    struct frame frame = conn->frame;
    if (frame.length > 0 && conn->crc != conn->frame_crc)
        return error_set(err, "a frame of type %u has a payload with a wrong checksum", frame.type);
    if (frame.type == FRAME_REFUSED) {
        char sentence[WIRE_TEXT_MOST];
        text_clean(sentence, sizeof sentence, payload, frame.length);
        conn->refused = true;
        /* An owner reads the peer's own sentence; the log of strangers says whose it is. */
        conn_fail(conn, "%s%s", conn->dialled || conn->proven ? "" : "the peer refused: ",
                  frame.length > 0 ? sentence : "refused without a reason");
        return 0;
    }
    if (conn->state == CONN_OPEN)
        return conn->handlers->received(conn->arg, conn, &frame, payload, err);
    return handshake_received(conn, payload, err);
}

/* `length` more bytes of the payload are in their place. */
static void add_placed(struct conn *conn, size_t length)
{
    conn->crc = crc32c(conn->crc, conn->place + conn->placed, length);
    conn->placed += (uint32_t)length;
}

/* Takes what can be taken from the input; stops where bytes are missing or the connection is no longer read. */
static int take_input(struct conn *conn, struct error *err)
{
    while (conn->state < CONN_CLOSING) {
        size_t here = conn->input_end - conn->input_start;
        if (conn->place == NULL) {
            if (here < WIRE_HEADER_SIZE)
                break;
            if (take_header(conn, err) < 0)
                return -1;
            if (conn->state >= CONN_CLOSING) /* by a handler */
                break;
            if (conn->place == NULL && take_frame(conn, NULL, err) < 0)
                return -1;
            continue;
        }
        size_t missing = conn->frame.length - conn->placed;
        size_t taken = here < missing ? here : missing;
        if (taken > 0) {
            memcpy(conn->place + conn->placed, conn->input + conn->input_start, taken);
            conn->input_start += taken;
            add_placed(conn, taken);
        }
        if (taken < missing)
            break;
        const void *payload = conn->place;
        conn->place = NULL;
        if (take_frame(conn, payload, err) < 0)
            return -1;
    }
    if (conn->state >= CONN_CLOSING || conn->input_start == conn->input_end) {
        conn->input_start = conn->input_end = 0;
    } else if (conn->input_start > 0) {
        memmove(conn->input, conn->input + conn->input_start, conn->input_end - conn->input_start);
        conn->input_end -= conn->input_start;
        conn->input_start = 0;
    }
    return 0;
}

/* Reads once: the payload that is under way goes straight to its place, what follows it into the input. */
static ssize_t read_some(struct conn *conn, size_t *asked)
{
    size_t missing = conn->place == NULL ? 0 : conn->frame.length - conn->placed;
    /* While chunks flow, only the next header is read ahead, so that the payload behind it is not copied twice. */
    size_t ahead = missing >= READ_AHEAD_LEAST ? (size_t)WIRE_HEADER_SIZE : INPUT_SIZE - conn->input_end;
    struct iovec parts[2] = {{conn->place == NULL ? NULL : conn->place + conn->placed, missing},
                             {conn->input + conn->input_end, ahead}};
    *asked = missing + ahead;
    ssize_t length = missing > 0 ? readv(conn->fd, parts, 2) : read(conn->fd, parts[1].iov_base, ahead);
    if (length <= 0)
        return length;
    size_t placed = (size_t)length < missing ? (size_t)length : missing;
    if (placed > 0)
        add_placed(conn, placed);
    conn->input_end += (size_t)length - placed;
    return length;
}

static void ended_by_peer(struct conn *conn)
{
    if (conn->state == CONN_CLOSING)
        conn_end(conn);
    else if (conn->state == CONN_WAIT_HELLO && conn->place == NULL && conn->input_end == 0) {
        /* Something looked whether the port is open; that is nobody's mistake. */
        log_debug(conn->net->options.log, "a connection closed before it said anything", "peer", conn->peer, NULL);
        snprintf(conn->reason, sizeof conn->reason, "closed before it said anything");
        conn_end(conn);
    } else if (conn->state < CONN_OPEN)
        conn_fail(conn, "closed by %s during the handshake", conn->peer);
    else
        conn_fail(conn, "closed by %s", conn->peer);
}

static void conn_read(struct conn *conn)
{
    for (size_t budget = READ_BUDGET; conn->state < CONN_GONE;) {
        size_t asked;
        ssize_t length = read_some(conn, &asked);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (length == 0) {
            ended_by_peer(conn);
            return;
        }
        if (length < 0) {
            conn_fail(conn, "receive from %s: %s", conn->peer, strerror(errno));
            return;
        }
        if (conn->state == CONN_CLOSING) {
            conn->input_start = conn->input_end = 0;
        } else {
            struct error err = {0};
            if (conn->state == CONN_WAIT_HELLO && handshake_is_garbage(conn->input, conn->input_end, &err)) {
                conn_fail(conn, "%s", error_message(&err));
                return;
            }
            if (take_input(conn, &err) < 0) {
                conn_close(conn, error_message(&err));
                return;
            }
        }
        if ((size_t)length < asked || (size_t)length >= budget)
            return;
        budget -= (size_t)length;
    }
}

void conn_event(struct conn *conn, uint32_t events)
{
    if (conn->state == CONN_GONE)
        return;
    if (conn->state == CONN_CONNECTING) {
        conn_connected(conn);
        return;
    }
    if ((events & EPOLLOUT) != 0) {
        conn_flush(conn);
        if (conn->state != CONN_GONE && conn->queue_count == 0)
            mark_dirty(conn);
    }
    if (conn->state != CONN_GONE && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        conn_read(conn);
}

/* ---- Small things ---- */

void conn_set_arg(struct conn *conn, void *arg)
{
    conn->arg = arg;
}

void conn_set_handlers(struct conn *conn, const struct conn_handlers *handlers, void *arg)
{
    conn->handlers = handlers;
    conn->arg = arg;
}

const char *conn_peer(const struct conn *conn)
{
    return conn->peer;
}

uint32_t conn_payload_crc(const struct conn *conn)
{
    return conn->frame_crc;
}
