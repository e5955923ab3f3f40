/* One connection: its life and its end; send.c and receive.c are what it does between. */
#include "wire/net_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

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

void conn_proven(struct conn *conn)
{
    conn->proven = true;
    if (!conn->dialled)
        conn->net->unproven--;
}

/* Its end is told, or it is freed, at the end of the round. */
static void conn_doom(struct conn *conn)
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

/* No descriptor, nothing queued; memory and the owner's word come later. */
void conn_end(struct conn *conn)
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
    conn_drop_queue(conn);
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
            conn_mark_dirty(conn);
    }
    if (conn->state != CONN_GONE && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        conn_read(conn);
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
