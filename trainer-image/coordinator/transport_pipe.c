#include "coordinator/transport.h"

#include "common/buffer.h"
#include "common/report/report.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static const int64_t RETRY = 20 * MILLISECONDS;
enum { OUTPUT_MOST = 256 * 1024 };

struct pipe {
    struct transport transport;
    struct net *net;
    int fd; /* -1: closed */
    const struct transport_handlers *handlers;
    void *arg;
    struct buffer input, output;
    struct timer *retry; /* for what the socket had no room for */
};

static void pipe_close(struct pipe *pipe)
{
    if (pipe->fd < 0)
        return;
    net_unwatch_fd(pipe->net, pipe->fd);
    close(pipe->fd);
    pipe->fd = -1;
    net_timer_set(pipe->retry, -1);
    buffer_clear(&pipe->output);
}

static void pipe_fail(struct pipe *pipe, const char *reason)
{
    pipe_close(pipe);
    pipe->handlers->disconnected(pipe->arg, reason);
}

static void hand_lines_over(struct pipe *pipe)
{
    size_t begin = 0;
    const char *end;
    while (pipe->fd >= 0 && begin < pipe->input.length &&
           (end = memchr(pipe->input.data + begin, '\n', pipe->input.length - begin)) != NULL) {
        pipe->handlers->received(pipe->arg, pipe->input.data + begin, (size_t)(end - (pipe->input.data + begin)));
        begin = (size_t)(end - pipe->input.data) + 1;
    }
    buffer_consume(&pipe->input, begin);
}

static void pipe_readable(void *arg)
{
    struct pipe *pipe = arg;
    char bytes[4096];
    ssize_t count = recv(pipe->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    struct error err = {0};
    if (count <= 0)
        pipe_fail(pipe, count == 0 ? "it closed the line" : strerror(errno));
    else if (buffer_append(&pipe->input, bytes, (size_t)count, &err) < 0)
        pipe_fail(pipe, "it sent a line that is too long");
    else
        hand_lines_over(pipe);
}

static void pipe_write(void *arg)
{
    struct pipe *pipe = arg;
    while (pipe->fd >= 0 && pipe->output.length > 0) {
        ssize_t count = send(pipe->fd, pipe->output.data, pipe->output.length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count >= 0)
            buffer_consume(&pipe->output, (size_t)count);
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            pipe_close(pipe); /* reading says why */
    }
    if (pipe->fd >= 0 && pipe->output.length > 0)
        net_timer_set(pipe->retry, RETRY);
}

static bool pipe_send(struct transport *transport, const char *text, size_t length)
{
    struct pipe *pipe = (struct pipe *)transport;
    struct error err = {0};
    if (pipe->fd < 0 || buffer_reserve(&pipe->output, length + 1, &err) < 0)
        return false;
    (void)buffer_append(&pipe->output, text, length, &err);
    (void)buffer_append(&pipe->output, "\n", 1, &err);
    pipe_write(pipe);
    return true;
}

static void pipe_disconnect(struct transport *transport)
{
    pipe_close((struct pipe *)transport);
}

static void pipe_free(struct transport *transport)
{
    struct pipe *pipe = (struct pipe *)transport;
    if (pipe->fd >= 0)
        pipe_close(pipe);
    net_timer_free(pipe->retry);
    buffer_free(&pipe->input);
    buffer_free(&pipe->output);
    free(pipe);
}

int transport_new_pipe(struct transport **out, struct net *net, int fd, const struct transport_handlers *handlers,
                       void *arg, struct error *err)
{
    cleanup_fd int taken = fd;
    struct pipe *pipe = calloc(1, sizeof *pipe);
    if (pipe == NULL)
        return error_set(err, "start the report: no memory");
    *pipe = (struct pipe){
        .transport = {.send = pipe_send, .disconnect = pipe_disconnect, .free = pipe_free},
        .net = net,
        .fd = -1,
        .handlers = handlers,
        .arg = arg,
    };
    buffer_init(&pipe->input, REPORT_MESSAGE_MOST + sizeof(char[4096]));
    buffer_init(&pipe->output, OUTPUT_MOST);
    pipe->retry = net_timer_new(net, pipe_write, pipe);
    int result = pipe->retry == NULL ? error_set(err, "start the report: no memory")
                                     : net_watch_fd(net, taken, pipe_readable, pipe, err);
    if (result < 0) {
        pipe_free(&pipe->transport);
        return -1;
    }
    pipe->fd = move_fd(&taken);
    *out = &pipe->transport;
    return 0;
}
