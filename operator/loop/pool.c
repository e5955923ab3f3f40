#include "loop/pool.h"

#include <stdlib.h>
#include <sys/epoll.h>

struct pool {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer timer;
    pool_guard *guard; /* NULL: runs always */
    void *guard_arg;
};

/* One of libcurl's sockets; libcurl keeps the pointer (curl_multi_assign). */
struct pool_socket {
    struct pool *pool;
    struct loop_fd watch;
};

static void finish_transfers(struct pool *pool)
{
    int left = 0;
    for (CURLMsg *message; (message = curl_multi_info_read(pool->multi, &left)) != NULL;) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURL *easy = message->easy_handle;
        CURLcode result = message->data.result;
        struct transfer *transfer = NULL;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&transfer);
        curl_multi_remove_handle(pool->multi, easy);
        transfer->done(transfer->arg, easy, result);
    }
}

static void act(struct pool *pool, curl_socket_t socket, int events)
{
    if (pool->guard != NULL && !pool->guard(pool->guard_arg))
        return;
    int running = 0;
    curl_multi_socket_action(pool->multi, socket, events, &running);
    finish_transfers(pool);
}

static void on_socket(void *arg, uint32_t events)
{
    struct pool_socket *socket = arg;
    int action = 0;
    if (events & EPOLLIN)
        action |= CURL_CSELECT_IN;
    if (events & EPOLLOUT)
        action |= CURL_CSELECT_OUT;
    if (events & (EPOLLERR | EPOLLHUP))
        action |= CURL_CSELECT_ERR;
    act(socket->pool, socket->watch.fd, action);
}

static void on_timer(void *arg)
{
    act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
    (void)easy;
    struct pool *pool = arg;
    struct pool_socket *socket = assigned;
    if (what == CURL_POLL_REMOVE) {
        if (socket != NULL)
            loop_fd_remove(&socket->watch);
        free(socket);
        curl_multi_assign(pool->multi, fd, NULL);
        return 0;
    }
    if (socket == NULL) {
        socket = calloc(1, sizeof *socket);
        if (socket == NULL)
            return -1;
        socket->pool = pool;
        loop_fd_init(&socket->watch, pool->loop, fd, on_socket, socket);
        curl_multi_assign(pool->multi, fd, socket);
    }
    uint32_t events = 0;
    if (what & CURL_POLL_IN)
        events |= EPOLLIN;
    if (what & CURL_POLL_OUT)
        events |= EPOLLOUT;
    return loop_fd_set(&socket->watch, events, NULL);
}

static int want_timer(CURLM *multi, long milliseconds, void *arg)
{
    (void)multi;
    struct pool *pool = arg;
    if (milliseconds < 0)
        loop_timer_cancel(&pool->timer);
    else
        loop_timer_set(&pool->timer, milliseconds * MILLISECONDS);
    return 0;
}

struct pool *pool_new(struct loop *loop, long most_connections, struct error *err)
{
    struct pool *pool = calloc(1, sizeof *pool);
    CURLM *multi = curl_multi_init();
    if (pool == NULL || multi == NULL) {
        free(pool);
        curl_multi_cleanup(multi);
        error_set(err, "out of memory for a pool of connections");
        return NULL;
    }
    pool->loop = loop;
    pool->multi = multi;
    loop_timer_init(&pool->timer, loop, on_timer, pool);
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, want_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, pool);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, want_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, pool);
    curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, most_connections);
    return pool;
}

void pool_free(struct pool *pool)
{
    if (pool == NULL)
        return;
    curl_multi_cleanup(pool->multi);
    loop_timer_cancel(&pool->timer);
    free(pool);
}

void pool_set_guard(struct pool *pool, pool_guard *guard, void *arg)
{
    pool->guard = guard;
    pool->guard_arg = arg;
}

int pool_start(struct pool *pool, CURL *easy, struct transfer *transfer, struct error *err)
{
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    CURLMcode result = curl_multi_add_handle(pool->multi, easy);
    if (result != CURLM_OK)
        return error_set(err, "start a transfer: %s", curl_multi_strerror(result));
    return 0;
}

void pool_remove(struct pool *pool, CURL *easy)
{
    curl_multi_remove_handle(pool->multi, easy);
}
