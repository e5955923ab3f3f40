#include "ps/test_bed.h"

#include <stdio.h>

struct net *new_net(uint64_t boot)
{
    struct net *net = NULL;
    struct error err = {0};
    struct net_options options = {.boot_id = boot};
    if (net_new(&net, &options, &err) < 0)
        fail_msg("%s", error_message(&err));
    return net;
}

bool turn(struct net *net, int64_t timeout)
{
    struct error err = {0};
    int result = net_wait(net, timeout, &err);
    if (result < 0)
        fail_msg("%s", error_message(&err));
    return result == 1;
}

void settle_nets(struct net *const *nets, size_t count)
{
    for (int quiet = 0; quiet < 3;) {
        bool any = false;
        for (size_t i = 0; i < count; i++)
            any = turn(nets[i], 0) || any;
        quiet = any ? 0 : quiet + 1;
        if (!any)
            turn(nets[0], MILLISECONDS);
    }
}

static void dispatch(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    (void)peer_boot;
    assert_int_equal(dialogue, DIALOGUE_DATA);
    shard_server_accept(*(struct shard_server **)arg, conn);
}

static const struct conn_handlers dispatcher = {.ready = dispatch};

void listen_for(struct net *net, struct shard_server **server, char address[32])
{
    struct error err = {0};
    uint16_t port;
    int fd = wire_listen_socket("127.0.0.1:0", &port, &err);
    if (fd < 0 || net_listen(net, fd, &dispatcher, (void *)server, &err) < 0)
        fail_msg("%s", error_message(&err));
    snprintf(address, 32, "127.0.0.1:%u", port);
}

static void user_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    (void)conn;
    (void)dialogue;
    (void)peer_boot;
    ((struct user *)arg)->ready = true;
}

static void *user_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    (void)arg;
    (void)err;
    return conn_scratch(conn, frame->length);
}

static int user_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                         struct error *err)
{
    (void)conn;
    (void)err;
    struct user *user = arg;
    user->heard(user, frame, payload);
    return 0;
}

static void user_closed(void *arg, struct conn *conn, const char *reason)
{
    (void)conn;
    struct user *user = arg;
    user->closed = true;
    user->conn = NULL;
    snprintf(user->reason, sizeof user->reason, "%s", reason);
}

static const struct conn_handlers user_handlers = {
    .ready = user_ready, .place = user_place, .received = user_received, .closed = user_closed};

void user_dial(struct user *user, struct net *net, const char *address)
{
    user->conn = conn_dial(net, address, DIALOGUE_DATA, &user_handlers, user);
}
