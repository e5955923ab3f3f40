#include "wire/net_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

enum { REFUSALS_SAID_A_SECOND = 20 };

int net_new(struct net **out, const struct net_options *options, struct error *err)
{
    cleanup_net struct net *net = calloc(1, sizeof *net);
    if (net == NULL)
        return error_errno(err, "make a network loop");
    net->options = *options;
    net->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (net->epoll < 0)
        return error_errno(err, "make a network loop");
    if (resolver_new(&net->resolver, err) < 0)
        return -1;
    *out = move(net);
    return 0;
}

void net_free(struct net *net)
{
    if (net == NULL)
        return;
    while (net->conns != NULL) {
        net->doomed = net->doomed_last = NULL; /* nobody is told any more */
        conn_free(net->conns);
    }
    while (net->listeners != NULL) {
        struct listener *listener = net->listeners;
        net->listeners = listener->next;
        close(listener->fd);
        free(listener);
    }
    while (net->watches != NULL) {
        struct watch *watch = net->watches;
        net->watches = watch->next;
        free(watch);
    }
    while (net->timers != NULL)
        net_timer_free(net->timers);
    free(net->heap);
    resolver_free(net->resolver);
    pool_free(&net->pool);
    if (net->epoll >= 0)
        close(net->epoll);
    explicit_bzero(&net->options.token, sizeof net->options.token);
    free(net);
}

static int add_to_epoll(struct net *net, int fd, uint32_t events, void *source, struct error *err)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(net->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return error_errno(err, "watch a descriptor");
    return 0;
}

int net_watch_fd(struct net *net, int fd, void (*ready)(void *arg), void *arg, struct error *err)
{
    cleanup_free struct watch *watch = malloc(sizeof *watch);
    if (watch == NULL)
        return error_errno(err, "watch a descriptor");
    *watch = (struct watch){.source.kind = SOURCE_WATCH, .fd = fd, .ready = ready, .arg = arg, .next = net->watches};
    if (add_to_epoll(net, fd, EPOLLIN, watch, err) < 0)
        return -1;
    net->watches = move(watch);
    return 0;
}

void net_unwatch_fd(struct net *net, int fd)
{
    for (struct watch *watch = net->watches; watch != NULL; watch = watch->next) {
        if (watch->fd != fd)
            continue;
        epoll_ctl(net->epoll, EPOLL_CTL_DEL, fd, NULL);
        watch->fd = -1;
        net->watches_dead = true;
        return;
    }
}

static void free_dead_watches(struct net *net)
{
    if (!net->watches_dead)
        return;
    net->watches_dead = false;
    for (struct watch **place = &net->watches; *place != NULL;) {
        struct watch *watch = *place;
        if (watch->fd >= 0) {
            place = &watch->next;
            continue;
        }
        *place = watch->next;
        free(watch);
    }
}

static void listener_resume(void *arg)
{
    struct listener *listener = arg;
    if (add_to_epoll(listener->net, listener->fd, EPOLLIN, listener, NULL) < 0)
        net_timer_set(listener->pause, ACCEPT_PAUSE);
}

int net_listen(struct net *net, int fd, const struct conn_handlers *handlers, void *arg, struct error *err)
{
    cleanup_fd int taken = fd;
    cleanup_free struct listener *listener = malloc(sizeof *listener);
    if (listener == NULL)
        return error_errno(err, "listen");
    *listener = (struct listener){
        .source.kind = SOURCE_LISTENER, .fd = fd, .net = net, .handlers = handlers, .arg = arg, .next = net->listeners};
    listener->pause = net_timer_new(net, listener_resume, listener);
    if (listener->pause == NULL)
        return error_errno(err, "listen");
    if (add_to_epoll(net, fd, EPOLLIN, listener, err) < 0) {
        net_timer_free(listener->pause);
        return -1;
    }
    listener->fd = move_fd(&taken);
    net->listeners = move(listener);
    return 0;
}

/* The unproven connection that has waited longest makes room: who only connects must not keep members out. */
static void drop_oldest_unproven(struct net *net)
{
    struct conn *oldest = NULL;
    for (struct conn *conn = net->conns; conn != NULL; conn = conn->next)
        if (!conn->dialled && !conn->proven && conn->state != CONN_GONE)
            oldest = conn; /* new ones are put in front */
    if (oldest != NULL)
        conn_fail(oldest, "made room for a newer connection: %d were waiting for their handshake", WIRE_UNPROVEN_MOST);
}

static void accept_all(struct listener *listener)
{
    struct net *net = listener->net;
    for (int i = 0; i < WIRE_UNPROVEN_MOST; i++) {
        struct sockaddr_storage address = {0};
        socklen_t length = sizeof address;
        int fd = accept4(listener->fd, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                return;
            /* Out of descriptors or memory: the connections wait in the kernel, and this loop must not spin. */
            log_warn(net->options.log, "cannot accept connections for the moment", "reason", strerror(errno), NULL);
            epoll_ctl(net->epoll, EPOLL_CTL_DEL, listener->fd, NULL);
            net_timer_set(listener->pause, ACCEPT_PAUSE);
            return;
        }
        char peer[PEER_TEXT_SIZE];
        address_format(&address, peer);
        if (net->accepted >= WIRE_CONNECTIONS_MOST) {
            net_log_refusal(net, peer, "there are as many connections as one process takes");
            close(fd);
            continue;
        }
        if (net->unproven >= WIRE_UNPROVEN_MOST)
            drop_oldest_unproven(net);
        if (socket_tune(fd, &address) < 0) {
            close(fd); /* it is gone already */
            continue;
        }
        if (conn_accept(net, fd, peer, listener->handlers, listener->arg) == NULL)
            net_log_refusal(net, peer, "no memory");
    }
}

void net_log_refusal(struct net *net, const char *peer, const char *reason)
{
    int64_t now = clock_now().nanoseconds;
    if (now - net->refusals_since >= SECONDS) {
        char count[16];
        snprintf(count, sizeof count, "%u", net->refusals_unsaid);
        if (net->refusals_unsaid > 0)
            log_warn(net->options.log, "refused more connections", "count", count, NULL);
        net->refusals_since = now;
        net->refusals = net->refusals_unsaid = 0;
    }
    if (net->refusals++ < REFUSALS_SAID_A_SECOND)
        log_warn(net->options.log, "refused a connection", "peer", peer, "reason", reason, NULL);
    else
        net->refusals_unsaid++;
}

void text_clean(char *out, size_t size, const void *bytes, size_t length)
{
    const unsigned char *in = bytes;
    size_t n = length < size - 1 ? length : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = in[i] >= ' ' && in[i] < 0x7f ? (char)in[i] : '?';
    out[n] = '\0';
}

void net_flush(struct net *net)
{
    for (struct conn *conn = net->dirty; conn != NULL; conn = conn->next_dirty)
        if (!conn->blocked)
            conn_flush(conn);
}

static bool finish_dirty(struct net *net)
{
    /* Handlers may queue more meanwhile; that makes a new list, and the next round takes it. */
    struct conn *conn = net->dirty;
    net->dirty = NULL;
    bool any = conn != NULL;
    while (conn != NULL) {
        struct conn *next = conn->next_dirty;
        conn->next_dirty = NULL;
        conn->on_dirty = false;
        conn_finish_dirty(conn);
        conn = next;
    }
    return any;
}

static bool bury_doomed(struct net *net)
{
    struct conn *conn = net->doomed;
    net->doomed = net->doomed_last = NULL;
    bool any = conn != NULL;
    while (conn != NULL) {
        struct conn *next = conn->next_doomed;
        conn->next_doomed = NULL;
        conn->on_doomed = false;
        if (!conn->told) {
            conn->told = true;
            conn->handlers->closed(conn->arg, conn, conn->reason);
        }
        if (conn->state == CONN_GONE && !conn->on_doomed)
            conn_free(conn);
        conn = next;
    }
    return any;
}

static bool finish_round(struct net *net)
{
    bool any = finish_dirty(net);
    any = bury_doomed(net) || any;
    free_dead_watches(net);
    return any;
}

static void handle(struct source *source, uint32_t events)
{
    switch (source->kind) {
    case SOURCE_LISTENER:
        accept_all((struct listener *)source);
        break;
    case SOURCE_CONN:
        conn_event((struct conn *)source, events);
        break;
    case SOURCE_WATCH: {
        struct watch *watch = (struct watch *)source;
        if (watch->fd >= 0)
            watch->ready(watch->arg);
        break;
    }
    }
}

/* Milliseconds for epoll, rounded up so that a timer is due when it returns. */
static int epoll_timeout(const struct net *net, int64_t timeout)
{
    if (net->dirty != NULL || net->doomed != NULL)
        return 0;
    int64_t timer = timeout == 0 || net->heap_count == 0 ? -1 : timers_next(net, clock_now().nanoseconds);
    if (timer >= 0 && (timeout < 0 || timer < timeout))
        timeout = timer;
    if (timeout < 0)
        return -1;
    int64_t milliseconds = timeout / MILLISECONDS + (timeout % MILLISECONDS > 0);
    return milliseconds > INT32_MAX ? INT32_MAX : (int)milliseconds;
}

int net_wait(struct net *net, int64_t timeout, struct error *err)
{
    bool any = finish_round(net);
    if (any)
        timeout = 0;

    struct epoll_event events[EVENTS_MOST];
    int count = epoll_wait(net->epoll, events, EVENTS_MOST, epoll_timeout(net, timeout));
    if (count < 0 && errno != EINTR)
        return error_errno(err, "wait for the network");
    for (int i = 0; i < count; i++)
        handle(events[i].data.ptr, events[i].events);
    any = count > 0 || any;

    if (net->heap_count > 0)
        any = timers_run(net, clock_now().nanoseconds) || any;
    any = finish_round(net) || any;
    return any ? 1 : 0;
}
