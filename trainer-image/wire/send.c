/* Frames out: a ring of them, as many at a time to the kernel as it takes, payloads by reference. */
#include "wire/net_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>

void conn_drop_queue(struct conn *conn)
{
    for (; conn->queue_count > 0; conn->queue_count--) {
        payload_unref(conn->net, conn->queue[conn->queue_first].payload);
        conn->queue_first = (conn->queue_first + 1) & (conn->queue_capacity - 1);
    }
    conn->sent = conn->queued = 0;
}

void conn_mark_dirty(struct conn *conn)
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
    size_t most = conn->dialogue == DIALOGUE_DATA       ? (size_t)WIRE_DATA_QUEUE_MOST
                  : conn->dialogue == DIALOGUE_REGISTER ? (size_t)WIRE_REGISTER_QUEUE_MOST
                                                        : (size_t)WIRE_CONTROL_QUEUE_MOST;
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
    conn_mark_dirty(conn);
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
                conn_drop_queue(conn);
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
