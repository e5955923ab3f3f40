/* What wire's live tests share: ends that write down what happens to them, and a peer made of a plain blocking socket
 * that says what the test wants it to say. */
#ifndef THOLE_WIRE_NET_TEST_SUPPORT_H
#define THOLE_WIRE_NET_TEST_SUPPORT_H

#include "wire/net_internal.h"

enum { HEARD_MOST = 64, PEERS_MOST = 160 };

struct end;

/* A connection as its owner sees it. */
struct side {
    struct end *end;
    struct conn *conn; /* NULL once it is closed */
    enum dialogue dialogue;
    uint64_t peer_boot;
    bool ready, closed, refused;
    int drained;
    char reason[WIRE_TEXT_MOST];
    struct frame heard[HEARD_MOST]; /* the newest */
    size_t heard_count;
    size_t heard_bytes;
    uint32_t heard_crc; /* over all payloads */
    char text[256];     /* the newest payload, cut */
    /* What it is to do. */
    const char *close_in_ready, *close_in_place, *fail_place, *close_in_received, *fail_received;
    bool dial_again_in_closed;
};

/* A net, a listener and all of its connections. */
struct end {
    struct net *net;
    struct log log;
    uint16_t port;
    char address[32]; /* "127.0.0.1:port" */
    struct side sides[PEERS_MOST];
    size_t side_count;
    bool refuse_all; /* new connections are closed in `ready` with a sentence */
    bool deaf;       /* new connections are given no place */
};

/* Both the same token and plan unless `options` (NULL: the usual ones) says otherwise. Listens on loopback. */
void end_start(struct end *end, uint64_t boot, const struct net_options *options);
void end_stop(struct end *end);
struct net_options usual_options(uint64_t boot);

/* Dials `to`; the side is `from`'s. */
struct side *end_dial(struct end *from, const char *address, enum dialogue dialogue);
/* The listener's side of what was dialled; NULL while it is not ready. */
struct side *end_newest(struct end *end);

/* Runs both loops (b may be NULL) until done(arg); fails the test after 10 s. */
void pump_until(struct end *a, struct end *b, bool (*done)(const void *arg), const void *arg);
void pump_ready(struct end *a, struct end *b, struct side *side);
void pump_closed(struct end *a, struct end *b, struct side *side);
void pump_heard(struct end *a, struct end *b, struct side *side, size_t count);
void pump_idle(struct end *a, struct end *b); /* until nothing happens any more */

/* Dials and waits until both sides are ready. */
void connect_ends(struct end *from, struct end *to, enum dialogue dialogue, struct side **dialled,
                  struct side **accepted);
/* Frames still pass both ways. */
void check_alive(struct end *from, struct end *to, struct side *dialled, struct side *accepted);

/* Lines logged since the last call, in `text`; returns how many. */
int end_logged(struct end *end, char *text, size_t size);

/* ---- A peer of plain sockets ---- */

struct raw {
    int fd;
    struct end *end; /* whose loop must run for it to be answered */
    uint8_t hello[HELLO_SIZE], challenge[CHALLENGE_SIZE];
};

void raw_open(struct raw *raw, struct end *end);
void raw_close(struct raw *raw);
void raw_send(struct raw *raw, const void *bytes, size_t length);
/* All that comes within what the loop has to say now, at most `size`; -1: closed with nothing left. */
ssize_t raw_read(struct raw *raw, void *out, size_t size);
/* A whole frame: header and payload; false where the connection ended before. */
bool raw_read_frame(struct raw *raw, struct frame *frame, uint8_t *payload, size_t size);

size_t frame_bytes(uint8_t *out, const struct frame *frame, const void *payload, size_t length);
size_t raw_hello(struct raw *raw, uint8_t *out, enum dialogue dialogue, const struct net_options *options);
size_t raw_proof(struct raw *raw, uint8_t *out, const struct net_options *options);
/* HELLO … READY */
void raw_handshake(struct raw *raw, enum dialogue dialogue);

uint64_t test_random(uint64_t *state);

#endif
