/* loop — one thread's events: descriptors, timers, signals and libcurl transfers.
 *
 * Everything about Kubernetes runs on one loop, so nothing there needs a lock. Callbacks run on the loop's thread,
 * one at a time, never inside the call that arranged them, and must not block. The one way in from another thread is
 * a mailbox (loop/mailbox.h). May call common; knows nothing of Kubernetes.
 */
#ifndef THOLE_OPERATOR_LOOP_H
#define THOLE_OPERATOR_LOOP_H

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "loop/heap.h"

#include <stdbool.h>
#include <stdint.h>

struct loop; /* opaque */

/* Also ignores SIGPIPE for the whole process: OpenSSL writes to closed connections without asking. */
struct loop *loop_new(struct error *err);
/* All timers, descriptors and pools must be gone by then. NULL is fine. */
void loop_free(struct loop *loop);
CLEANUP_DEFINE(cleanup_loop_pointer, struct loop, loop_free)
#define cleanup_loop CLEANUP(cleanup_loop_pointer)

/* Serves events until loop_stop(). 0, or -1 where the kernel refuses to wait. May be called again afterwards. */
int loop_run(struct loop *loop, struct error *err);
void loop_stop(struct loop *loop); /* from a callback */

/* The time at which this turn of the loop began: one value for everything decided in the turn. */
struct instant loop_now(const struct loop *loop);

/* When the loop last began a turn; it turns at least once a second. From any thread: /healthz tells a stuck loop. */
struct instant loop_last_turn(const struct loop *loop);

/* Blocks SIGTERM and SIGINT in this thread (call before other threads start, they inherit it) and calls `handler`
 * with the signal's number from the loop instead. Once per loop. */
typedef void loop_signal_handler(void *arg, int signal);
int loop_handle_signals(struct loop *loop, loop_signal_handler *handler, void *arg, struct error *err);

/* A one-shot timer, embedded in what it belongs to. Setting and cancelling cannot fail. The owner may free itself
 * (and so the timer) inside the callback. */
typedef void loop_callback(void *arg);
struct loop_timer {
    struct loop *loop;
    loop_callback *callback;
    void *arg;
    struct heap_node node; /* private */
    bool armed;
};

void loop_timer_init(struct loop_timer *timer, struct loop *loop, loop_callback *callback, void *arg);
void loop_timer_set(struct loop_timer *timer, int64_t delay); /* nanoseconds from now on; moves an armed one */
void loop_timer_set_at(struct loop_timer *timer, struct instant due);
void loop_timer_cancel(struct loop_timer *timer); /* fine when not armed */

/* A descriptor in the loop, level-triggered; embedded like a timer. `events` are epoll's bits (EPOLLIN, EPOLLOUT). */
typedef void loop_fd_callback(void *arg, uint32_t events);
struct loop_fd {
    struct loop *loop;
    loop_fd_callback *callback;
    void *arg;
    int fd; /* borrowed */
    bool watched;
};

void loop_fd_init(struct loop_fd *watch, struct loop *loop, int fd, loop_fd_callback *callback, void *arg);
int loop_fd_set(struct loop_fd *watch, uint32_t events, struct error *err); /* 0 events: waits for errors only */
void loop_fd_remove(struct loop_fd *watch); /* before the descriptor is closed; no callback comes afterwards */

#endif
