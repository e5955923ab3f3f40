/* Names are looked up on threads of their own, as the C library only knows how to block. A look-up that nobody waits
 * for any more cannot be stopped: it is left to end by itself, with its own reference of all it touches. */
#include "wire/net_internal.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

struct resolver {
    atomic_int references; /* the net's, and each thread's */
    atomic_int running;
};

struct resolve {
    atomic_int references; /* the asker's and the thread's */
    struct resolver *resolver;
    struct net *net;
    pthread_t thread;
    int finished; /* eventfd, written by the thread */
    resolve_done *done;
    void *arg;
    char host[ADDRESS_HOST_SIZE], port[ADDRESS_PORT_SIZE];
    struct sockaddr_storage addresses[ADDRESSES_MOST];
    int count;
    struct error failure;
};

int resolver_new(struct resolver **out, struct error *err)
{
    struct resolver *resolver = malloc(sizeof *resolver);
    if (resolver == NULL)
        return error_errno(err, "make a network loop");
    atomic_init(&resolver->references, 1);
    atomic_init(&resolver->running, 0);
    *out = resolver;
    return 0;
}

void resolver_free(struct resolver *resolver)
{
    if (resolver != NULL && atomic_fetch_sub(&resolver->references, 1) == 1)
        free(resolver);
}

static void resolve_unref(struct resolve *resolve)
{
    if (atomic_fetch_sub(&resolve->references, 1) > 1)
        return;
    close(resolve->finished);
    resolver_free(resolve->resolver);
    free(resolve);
}

static void *look_up(void *arg)
{
    struct resolve *resolve = arg;
    resolve->count =
        address_look_up(resolve->host, resolve->port, 0, resolve->addresses, ADDRESSES_MOST, &resolve->failure);
    atomic_fetch_sub(&resolve->resolver->running, 1);
    eventfd_write(resolve->finished, 1);
    resolve_unref(resolve);
    return NULL;
}

static void finished(void *arg)
{
    struct resolve *resolve = arg;
    net_unwatch_fd(resolve->net, resolve->finished);
    pthread_join(resolve->thread, NULL); /* it is at its end */
    const char *failure = resolve->count > 0   ? NULL
                          : resolve->count < 0 ? error_message(&resolve->failure)
                                               : "the name has no address";
    resolve->done(resolve->arg, resolve->addresses, resolve->count > 0 ? (size_t)resolve->count : 0, failure);
    resolve_unref(resolve);
}

/* The thread takes no signals: they are the loop's. */
static int start_thread(struct resolve *resolve)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&resolve->thread, NULL, look_up, resolve);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

int resolve_start(struct resolve **out, struct net *net, const char *host, const char *port, resolve_done *done,
                  void *arg, struct error *err)
{
    struct resolver *resolver = net->resolver;
    if (atomic_load(&resolver->running) >= RESOLVES_MOST)
        return error_set(err, "look up '%s': %d other look-ups have not been answered yet", host, RESOLVES_MOST);
    struct resolve *resolve = calloc(1, sizeof *resolve);
    if (resolve == NULL)
        return error_errno(err, "look up '%s'", host);
    atomic_init(&resolve->references, 2);
    resolve->resolver = resolver;
    resolve->net = net;
    resolve->done = done;
    resolve->arg = arg;
    snprintf(resolve->host, sizeof resolve->host, "%s", host);
    snprintf(resolve->port, sizeof resolve->port, "%s", port);
    resolve->finished = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (resolve->finished < 0 || net_watch_fd(net, resolve->finished, finished, resolve, NULL) < 0) {
        error_errno(err, "look up '%s'", host);
        if (resolve->finished >= 0)
            close(resolve->finished);
        free(resolve);
        return -1;
    }
    atomic_fetch_add(&resolver->references, 1);
    atomic_fetch_add(&resolver->running, 1);
    int failure = start_thread(resolve);
    if (failure != 0) {
        atomic_fetch_sub(&resolver->running, 1);
        net_unwatch_fd(net, resolve->finished);
        resolve_unref(resolve);
        resolve_unref(resolve);
        return error_set(err, "look up '%s': cannot start a thread: %s", host, strerror(failure));
    }
    *out = resolve;
    return 0;
}

void resolve_cancel(struct resolve *resolve)
{
    if (resolve == NULL)
        return;
    net_unwatch_fd(resolve->net, resolve->finished);
    pthread_detach(resolve->thread);
    resolve_unref(resolve);
}
