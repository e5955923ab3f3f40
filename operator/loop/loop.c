#include "loop/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

enum { BATCH = 64 };

static const int64_t longest_turn = 1 * SECONDS;

struct loop {
    int epoll;
    int signals; /* signalfd, or -1 */
    struct loop_fd signal_watch;
    loop_signal_handler *signal_handler;
    void *signal_arg;

    struct heap timers;
    struct instant now;
    _Atomic int64_t last_turn;
    bool stopping;

    /* The events of this turn that are still to be served: removing a descriptor takes its own out. */
    struct epoll_event batch[BATCH];
    int batch_next, batch_end;
};

struct loop *loop_new(struct error *err)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL) {
        error_set(err, "out of memory for an event loop");
        return NULL;
    }
    loop->signals = -1;
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll < 0) {
        error_errno(err, "make an epoll descriptor");
        free(loop);
        return NULL;
    }
    signal(SIGPIPE, SIG_IGN);
    loop->now = clock_now();
    atomic_store(&loop->last_turn, loop->now.nanoseconds);
    return loop;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL)
        return;
    if (loop->signals >= 0)
        close(loop->signals);
    close(loop->epoll);
    free(loop);
}

struct instant loop_now(const struct loop *loop)
{
    return loop->now;
}

struct instant loop_last_turn(const struct loop *loop)
{
    return (struct instant){atomic_load(&loop->last_turn)};
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
}

/* Milliseconds to wait, rounded up: a timer never comes early. */
static int turn_timeout(const struct loop *loop)
{
    int64_t wait = longest_turn;
    if (loop->timers.root != NULL) {
        int64_t until = loop->timers.root->due - clock_now().nanoseconds;
        if (until < wait)
            wait = until < 0 ? 0 : until;
    }
    return (int)((wait + MILLISECONDS - 1) / MILLISECONDS);
}

static void serve_descriptors(struct loop *loop)
{
    while (loop->batch_next < loop->batch_end) {
        const struct epoll_event *event = &loop->batch[loop->batch_next++];
        struct loop_fd *watch = event->data.ptr;
        if (watch != NULL)
            watch->callback(watch->arg, event->events);
    }
}

/* Timers that callbacks set for "now" are due after this turn's time, so that descriptors get their turn. */
static void serve_timers(struct loop *loop)
{
    while (loop->timers.root != NULL && loop->timers.root->due <= loop->now.nanoseconds) {
        struct loop_timer *timer = heap_owner(loop->timers.root, struct loop_timer, node);
        loop_timer_cancel(timer);
        timer->callback(timer->arg);
    }
}

int loop_run(struct loop *loop, struct error *err)
{
    loop->stopping = false;
    while (!loop->stopping) {
        int count = epoll_wait(loop->epoll, loop->batch, BATCH, turn_timeout(loop));
        if (count < 0 && errno != EINTR)
            return error_errno(err, "wait for events");
        loop->now = clock_now();
        atomic_store(&loop->last_turn, loop->now.nanoseconds);
        loop->batch_next = 0;
        loop->batch_end = count < 0 ? 0 : count;
        serve_descriptors(loop);
        serve_timers(loop);
    }
    return 0;
}

void loop_timer_init(struct loop_timer *timer, struct loop *loop, loop_callback *callback, void *arg)
{
    *timer = (struct loop_timer){.loop = loop, .callback = callback, .arg = arg};
}

void loop_timer_set_at(struct loop_timer *timer, struct instant due)
{
    loop_timer_cancel(timer);
    timer->node.due = due.nanoseconds;
    timer->armed = true;
    heap_insert(&timer->loop->timers, &timer->node);
}

void loop_timer_set(struct loop_timer *timer, int64_t delay)
{
    loop_timer_set_at(timer, (struct instant){clock_now().nanoseconds + (delay < 0 ? 0 : delay)});
}

void loop_timer_cancel(struct loop_timer *timer)
{
    if (!timer->armed)
        return;
    heap_remove(&timer->loop->timers, &timer->node);
    timer->armed = false;
}

void loop_fd_init(struct loop_fd *watch, struct loop *loop, int fd, loop_fd_callback *callback, void *arg)
{
    *watch = (struct loop_fd){.loop = loop, .callback = callback, .arg = arg, .fd = fd};
}

int loop_fd_set(struct loop_fd *watch, uint32_t events, struct error *err)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    int operation = watch->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(watch->loop->epoll, operation, watch->fd, &event) < 0)
        return error_errno(err, "watch descriptor %d", watch->fd);
    watch->watched = true;
    return 0;
}

void loop_fd_remove(struct loop_fd *watch)
{
    if (!watch->watched)
        return;
    struct loop *loop = watch->loop;
    epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->watched = false;
    for (int i = loop->batch_next; i < loop->batch_end; i++)
        if (loop->batch[i].data.ptr == watch)
            loop->batch[i].data.ptr = NULL;
}

static void receive_signal(void *arg, uint32_t events)
{
    (void)events;
    struct loop *loop = arg;
    struct signalfd_siginfo info;
    if (read(loop->signals, &info, sizeof info) == (ssize_t)sizeof info)
        loop->signal_handler(loop->signal_arg, (int)info.ssi_signo);
}

int loop_handle_signals(struct loop *loop, loop_signal_handler *handler, void *arg, struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    int result = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (result != 0) {
        errno = result;
        return error_errno(err, "block SIGTERM and SIGINT");
    }
    loop->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (loop->signals < 0)
        return error_errno(err, "make a descriptor for signals");
    loop->signal_handler = handler;
    loop->signal_arg = arg;
    loop_fd_init(&loop->signal_watch, loop, loop->signals, receive_signal, loop);
    return loop_fd_set(&loop->signal_watch, EPOLLIN, err);
}
