/* Frames in: what has come is checked before it is anybody's, and large payloads go straight to their place. */
#include "wire/net_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

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

void conn_read(struct conn *conn)
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
