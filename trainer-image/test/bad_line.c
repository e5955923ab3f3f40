#include "test/bad_line.h"

#include "wire/wire.h"

#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void line_accept(struct bad_line *line)
{
    int fd = accept4(line->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(line->to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(to, (struct sockaddr *)&address, sizeof address), 0);
    line->random = line->random * 1664525 + 1013904223;
    assert_true(line->count < PAIRS_MOST);
    line->pairs[line->count].fds[0] = fd;
    line->pairs[line->count].fds[1] = to;
    line->pairs[line->count].left = 100000 + (line->random >> 8) % 2000000;
    line->count++;
}

static void line_close(struct bad_line *line, uint32_t index)
{
    close(line->pairs[index].fds[0]);
    close(line->pairs[index].fds[1]);
    line->pairs[index] = line->pairs[--line->count];
}

/* False where the pair is to go. */
static bool line_pass(struct bad_line *line, uint32_t index, int from)
{
    char bytes[65536];
    ssize_t count = recv(line->pairs[index].fds[from], bytes, sizeof bytes, 0);
    if (count <= 0)
        return false;
    if ((size_t)count >= line->pairs[index].left && atomic_load(&line->cuts) > 0) {
        atomic_fetch_sub(&line->cuts, 1);
        atomic_fetch_add(&line->made, 1);
        count = (ssize_t)line->pairs[index].left; /* in the middle of a frame */
        (void)send(line->pairs[index].fds[1 - from], bytes, (size_t)count, MSG_NOSIGNAL);
        return false;
    }
    if ((size_t)count < line->pairs[index].left)
        line->pairs[index].left -= (size_t)count;
    return send(line->pairs[index].fds[1 - from], bytes, (size_t)count, MSG_NOSIGNAL) == count;
}

static void *line_main(void *arg)
{
    struct bad_line *line = arg;
    while (!atomic_load(&line->stop)) {
        struct pollfd ready[1 + 2 * PAIRS_MOST] = {{.fd = line->listener, .events = POLLIN}};
        uint32_t count = line->count;
        for (uint32_t i = 0; i < 2 * count; i++)
            ready[1 + i] = (struct pollfd){.fd = line->pairs[i / 2].fds[i % 2], .events = POLLIN};
        if (poll(ready, 1 + 2 * count, 20) <= 0)
            continue;
        for (uint32_t i = count; i-- > 0;)
            for (int from = 0; from < 2; from++)
                if (ready[1 + 2 * i + (uint32_t)from].revents != 0 && !line_pass(line, i, from)) {
                    line_close(line, i);
                    break;
                }
        if (ready[0].revents != 0)
            line_accept(line);
    }
    while (line->count > 0)
        line_close(line, 0);
    return NULL;
}

void line_start(struct bad_line *line, uint16_t to, uint32_t cuts)
{
    struct error err = {0};
    memset(line, 0, sizeof *line);
    line->to = to;
    line->random = 3;
    atomic_store(&line->cuts, cuts);
    line->listener = wire_listen_socket("127.0.0.1:0", &line->port, &err);
    assert_true(line->listener >= 0);
    assert_int_equal(pthread_create(&line->thread, NULL, line_main, line), 0);
}

void line_stop(struct bad_line *line)
{
    atomic_store(&line->stop, true);
    pthread_join(line->thread, NULL);
    close(line->listener);
}
