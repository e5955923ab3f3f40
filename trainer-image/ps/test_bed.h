/* test_bed — loops, and users of a shard's port over loopback: what the tests of ps share. What goes wrong in it fails
 * the test. */
#ifndef THOLE_PS_TEST_BED_H
#define THOLE_PS_TEST_BED_H

#include "ps/plain_shard.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

#include <string.h>

struct net *new_net(uint64_t boot);
/* One turn of its loop: has anything happened? */
bool turn(struct net *net, int64_t timeout);
/* Until nothing happens any more; the first is the server's. */
void settle_nets(struct net *const *nets, size_t count);

/* DATA connections to `address`, where it listens, are *server's, which is made later. */
void listen_for(struct net *net, struct shard_server **server, char address[32]);

/* One end of a DATA dialogue. */
struct user {
    struct conn *conn; /* NULL once it is closed */
    bool ready, closed;
    char reason[WIRE_TEXT_MOST];
    void (*heard)(struct user *user, const struct frame *frame, const void *payload);
};

/* Dials; it is ready when the loops have run. */
void user_dial(struct user *user, struct net *net, const char *address);

#endif
