/* wire — how the processes of one job talk: frames over TCP, authenticated, checked, never blocking.
 *
 * May call common. Knows frames, not what they mean to a shard or a worker; who may send what when is written here
 * because a protocol is read in one place.
 *
 * THE DIALOGUE
 *
 * Every listener is a parameter server's one port. Shard 0's also serves the coordinator. A dialler says in its HELLO
 * which dialogue it wants:
 *
 *   CONTROL  worker → coordinator (shard 0). Light; never waits behind parameters.
 *            w: JOIN                     c: WELCOME | REFUSED
 *            c: DEAL …                   blocks of a step to compute; may come again for others' blocks
 *            c: LEASE …                  with the types Asynchronous and Hogwild, instead of DEAL: a task
 *            c: SHARE …                  with the type KAverage, instead of DEAL: a share of a round
 *            c: VALIDATE …               blocks of the validation set       w: VALIDATED … one a block
 *            w: HEARTBEAT …              every 500 ms, with how many dealt blocks and steps of tasks and shares are
 *                                        settled by now: computed, or dropped because they were over
 *            w: LEAVE                    it goes of its own will (SIGTERM); its blocks go to others at once
 *            c: FINISHED                 the job is over: idle until told to go
 *   REGISTER shard i > 0 → coordinator.
 *            s: REGISTER                 c: ACCEPTED | REFUSED
 *            s: NORMS …                  where the optimizer has rounds (optimizer/): what it measured in round r of
 *                                        step t, in as many frames as it takes: of its chunks and, where it clips a
 *                                        model with embedding tables, of its rows
 *            c: COMMIT                   once all shards have: the round's scalars. The next round, or DONE, follows
 *            s: DONE …                   its parameters of step t are all applied
 *            s: TASK_DONE …              each of a task's steps is applied to all its parameters
 *            c: FINISHED
 *   DATA     worker or coordinator → any shard.
 *            w: SUBSCRIBE                s: PARAMS of its newest version, then of every version as its chunks get
 *                                           ready; one that lags is sent the newest and misses some between
 *            w: GET (version, chunk)     s: PARAMS of just that, if it is the newest or the one before; else nothing
 *            w: PUSH …                   gradient of one tree node for one chunk
 *            w: PUSH_BATCH …             s: TAKEN, one a PUSH_BATCH: what came of it, and the newest parameters of its
 *                                           chunk. With the types Asynchronous and Hogwild, instead of PUSH: the
 *                                           gradient of one step of a task for one chunk. A SUBSCRIBE is answered by
 *                                           the newest PARAMS then, and by nothing later
 *            w: PUSH_SHARE …             with the type KAverage, instead of PUSH: what a share of a round has made of
 *                                           one chunk's parameters. With the last share of a round they are averaged,
 *                                           and that is the chunk's next version
 *            w: GET_ROWS …               s: ROWS of an embedding table, of a version as with GET; of the next one when
 *                                           it is there; of the newest where WIRE_NEWEST is asked for.
 *                                           One without ids asks for that alone: no step begins before all tables of
 *                                           all shards are at its version
 *            w: PUSH_ROWS …              gradient of one tree node for the shard's rows of one table, in as many frames
 *                                           as it takes, one after the other; one without payload where it has none
 *            w: PUSH_BATCH_ROWS …        s: TAKEN_ROWS, when all of a step's frames for a table are there: as
 *                                           PUSH_BATCH is to PUSH
 *            w: LIST_ROWS                s: LISTED, the rows that exist from an id on, as many as a frame holds
 *
 * HANDSHAKE, before any of these (d: who dialled, l: who listens; ‖ joins bytes; nonces are 32 random bytes):
 *   d: HELLO      payload: dialogue u8, 7 zero bytes, boot id u64, plan digest[32], d's nonce[32]
 *   l: CHALLENGE  payload: boot id u64, plan digest[32], l's nonce[32],
 *                          HMAC(token, "listener" ‖ HELLO payload ‖ l's boot id ‖ l's nonce)
 *   d: PROOF      payload: HMAC(token, "dialler" ‖ HELLO payload ‖ CHALLENGE payload)
 *   l: READY      empty
 * A wrong MAC, another plan or another protocol version closes the connection with REFUSED and its reason. Before the
 * proof nothing longer than a handshake payload is read, and at most 10 s are given. What does not begin with the magic
 * gets no answer. A listener keeps at most WIRE_UNPROVEN_MOST such connections: the oldest makes room for a new one.
 *
 * A frame that the dialogue above does not give to its sender, or whose payload is longer than that type can have,
 * closes the connection before a byte of its payload is read (dialogue.c has the table), so handlers see only frames
 * that fit the dialogue. Numbers in them are the handlers' to check.
 *
 * Both ends must be read all the time: what a peer has sent and its kernel could not hand over for 2 s
 * (TCP_USER_TIMEOUT) ends the connection. Call net_wait at least every second, or compute on another thread.
 *
 * FRAMES: a header of 64 bytes, little-endian, then `length` bytes of payload.
 *
 *   offset size
 *        0    4 magic        "THLE"
 *        4    1 version      WIRE_VERSION
 *        5    1 type         enum frame_type
 *        6    2 flags        0
 *        8    4 term         the coordinator's generation as the sender knows it; 0 before WELCOME or ACCEPTED
 *       12    4 node         tree node, first block, rank or shard: see enum frame_type
 *       16    8 step         step of a gradient, version of parameters
 *       24    8 offset       first parameter of the chunk in the flat vector
 *       32    8 value        double: a loss; or u64: a counter
 *       40    4 count        blocks, samples: see enum frame_type
 *       44    4 length       of the payload, in bytes
 *       48    4 payload CRC  CRC32C (Castagnoli) of the payload
 *       52    4 reserved     0
 *       56    4 reserved     0
 *       60    4 header CRC   CRC32C of bytes 0 to 59
 *
 * Parameters and gradients travel in chunks of at most WIRE_CHUNK_FLOATS (ps/layout.h says where they begin), and a
 * chunk is reduced, applied and returned independently of the others. With the plan's wire BFloat16 their values are of
 * 2 bytes instead of 4.
 */
#ifndef THOLE_WIRE_WIRE_H
#define THOLE_WIRE_WIRE_H

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/error.h"
#include "common/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_VERSION = 1,
    WIRE_HEADER_SIZE = 64,
    WIRE_CHUNK_FLOATS = 65536, /* 256 KiB */
    WIRE_PAYLOAD_MOST = WIRE_CHUNK_FLOATS * 4,
    WIRE_TEXT_MOST = 1024,      /* REFUSED's sentence, addresses */
    WIRE_JSON_MOST = 64 * 1024, /* JOIN, WELCOME */
    WIRE_CONNECTIONS_MOST = 1024,
    WIRE_UNPROVEN_MOST = 64,
    WIRE_NORMS_MOST = 8192,                     /* doubles in a frame of NORMS or COMMIT */
    WIRE_CONTROL_QUEUE_MOST = 1024 * 1024,      /* bytes queued to a CONTROL peer; more closes it */
    WIRE_REGISTER_QUEUE_MOST = 8 * 1024 * 1024, /* the same of REGISTER: NORMS of the largest model are 4 MiB */
    WIRE_DATA_QUEUE_MOST = 1024 * 1024 * 1024,  /* the same of DATA; referenced, not copied */
    WIRE_DEFAULT_PORT = 7077,
};

enum dialogue { DIALOGUE_CONTROL = 1, DIALOGUE_REGISTER = 2, DIALOGUE_DATA = 3 };

#define WIRE_NO_RANK UINT32_MAX

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_CHALLENGE = 2,
    FRAME_PROOF = 3,
    FRAME_READY = 4,
    FRAME_REFUSED = 5, /* payload: one sentence */

    /* Payload: compact JSON {"pod":…,"kernel":…,"canary":"<64 hex>","trainSamples":n,"testSamples":n}. */
    FRAME_JOIN = 16,
    /* Node: rank; payload: compact JSON {"kernel":…,"shards":[{"address":"host:port","boot":"<16 hex>"},…]}. With the
     * rank WIRE_NO_RANK the worker is no member: it is to start again with `kernel`, and to join then. */
    FRAME_WELCOME = 17,
    FRAME_DEAL = 18,      /* step; node: first block; count: blocks */
    FRAME_VALIDATE = 19,  /* step: version of the parameters; node: first validation block; count: blocks */
    FRAME_VALIDATED = 20, /* step: version; node: validation block; count: correct ones; value: sum of losses */
    FRAME_HEARTBEAT = 21, /* value: settled blocks (u64) */
    FRAME_LEAVE = 22,
    FRAME_FINISHED = 23,
    FRAME_LEASE = 24, /* step: task (common/plan/tasks.h); count: tasks before it that may not be over yet */
    /* step: round, and version of the parameters it begins with; node: share; value: shares of the round (u64);
     * offset: the share's first step, among the job's (common/plan/schedule.h); count: how many */
    FRAME_SHARE = 25,

    /* Node: shard; payload: compact JSON {"address":"host:port","canary":"<64 hex>"}. */
    FRAME_REGISTER = 32,
    FRAME_ACCEPTED = 33,
    FRAME_DONE = 34, /* node: shard; step */
    /* step; count: round; payload: doubles. NORMS: node: shard; offset: place of the first among the shard's own, which
     * are those of its canonical chunks in order, then the EXACT_SUM_DOUBLES of its rows (numerics/exact_sum.h). */
    FRAME_NORMS = 35,
    FRAME_COMMIT = 36,
    FRAME_TASK_DONE = 40, /* node: shard; step: task */

    FRAME_SUBSCRIBE = 48,
    FRAME_GET = 49, /* step: version; offset: chunk */
    /* step; node: tree node; offset: chunk; value: in the vector's first chunk the node's sum of losses; payload:
       values */
    FRAME_PUSH = 50,
    FRAME_PARAMS = 51, /* step: version; offset: chunk; payload: values */

    /* step: task; node: sequence; count: version of the parameters that it is of, modulo 2^32; offset: chunk;
     * value: the sum of losses; payload: floats, sums over the step's samples */
    FRAME_PUSH_BATCH = 60,
    FRAME_TAKEN = 61, /* step, node, offset: as pushed; count: enum taken; value: version of the payload (u64) */
    /* step: round; node: share in the lower 16 bits, shares of the round in the upper; count: samples; offset: chunk;
     * value: the sum of losses; payload: floats */
    FRAME_PUSH_SHARE = 62,

    /* Rows of embedding tables. Ids are u32, ascending, each once, and all of this shard (id mod shards). */
    FRAME_GET_ROWS = 52,  /* step: version; node: a number that the answer repeats, and that
                             drops what still waits under another; offset: table; count: ids;
                             payload: ids, at most wire_rows_most() */
    FRAME_ROWS = 53,      /* step: version; node, offset, count: as asked; payload: rows of values */
    FRAME_PUSH_ROWS = 54, /* step; node: tree node; offset: table; count: rows of all its frames; value: rows of the
                             frames before (u64); payload: ids, then rows of values */
    FRAME_LIST_ROWS = 55, /* step: version; offset: table; value: the least id (u64) */
    FRAME_LISTED = 56,    /* step, offset, value: as asked; count: rows, 0 where there are no more; payload: ids, then
                             rows of values */
    /* step: task; node: sequence; offset: table; count, payload: as PUSH_ROWS; value: its lower half the rows of the
     * frames before, its upper half the version of the rows that it is of, modulo 2^32 */
    FRAME_PUSH_BATCH_ROWS = 57,
    FRAME_TAKEN_ROWS = 58, /* step, node, offset: as pushed; count: enum taken; value: version of the table (u64) */
};

#define WIRE_NEWEST UINT64_MAX /* as a version: whichever it is */

/* What came of a PUSH_BATCH. */
enum taken {
    TAKEN_APPLIED,
    TAKEN_DUPLICATE, /* somebody has brought it before */
    TAKEN_TASK_OVER, /* the same of all of its task, on this shard */
    TAKEN_STALE,     /* not applied: to be computed again from newer parameters */
};

/* Rows of `dim` floats, with their ids, that one frame holds. */
static inline uint32_t wire_rows_most(uint32_t dim)
{
    return WIRE_PAYLOAD_MOST / ((1 + dim) * 4);
}

struct frame {
    uint8_t type;
    uint32_t term, node;
    uint64_t step, offset;
    union {
        double loss;
        uint64_t counter;
    } value;
    uint32_t count;
    uint32_t length; /* bytes of payload */
};

/* Counted bytes that several connections may be sending at once. The CRC is computed at most once. */
struct payload {
    uint32_t references;
    uint32_t crc;
    bool crc_known;
    uint32_t length;   /* bytes */
    uint32_t capacity; /* bytes */
    struct payload *next_free;
    _Alignas(64) unsigned char data[];
};

struct net;  /* one thread's event loop: listeners, connections, timers */
struct conn; /* one authenticated connection, or one on its way to be */
struct timer;

struct net_options {
    uint64_t boot_id;
    uint8_t token[SHA256_SIZE];
    uint8_t plan_digest[SHA256_SIZE];
    const struct log *log; /* borrowed */
};

/* What a connection's owner does. All run on the net's thread, inside net_wait(). */
struct conn_handlers {
    /* The handshake is done; `dialogue` and `peer_boot` are proven. Here, and not before, sending may begin; here a
     * listener's dispatcher may give the connection to somebody else by conn_set_handlers. */
    void (*ready)(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot);
    /* A header has come. Check it (type allowed now, step, node, length against the plan) and return where its payload
     * is to be written (at least frame->length bytes, valid until `received` or `closed`), or NULL with *err set to
     * close the connection with that sentence. Not called for frames without payload; those go to `received` at once.
     * For short payloads conn_scratch() will do. */
    void *(*place)(void *arg, struct conn *conn, const struct frame *frame, struct error *err);
    /* The frame is whole and its CRCs are right. -1 with *err set closes the connection with that sentence. */
    int (*received)(void *arg, struct conn *conn, const struct frame *frame, const void *payload, struct error *err);
    /* What was queued has been handed to the kernel; may be NULL. */
    void (*drained)(void *arg, struct conn *conn);
    /* The connection is gone, `reason` says why; it must not be used after this returns. Called exactly once, also
     * after conn_close() and where conn_dial() never got through a handshake; not for what a listener accepted and
     * never got `ready` (that is logged by net). conn_refused() tells the peer's own word from a broken line. */
    void (*closed)(void *arg, struct conn *conn, const char *reason);
};

int net_new(struct net **out, const struct net_options *options, struct error *err);
/* Closes everything, without calling handlers. Timers left are freed too; payloads must have been given back. */
void net_free(struct net *net);
CLEANUP_DEFINE(cleanup_net_pointer, struct net, net_free)
#define cleanup_net CLEANUP(cleanup_net_pointer)

/* Handles what is ready and what is due; waits for at most `timeout` nanoseconds (0: does not wait; -1: until
 * something happens). Returns 1 where something was handled, 0 otherwise, -1 on failure of the loop itself. */
int net_wait(struct net *net, int64_t timeout, struct error *err);

/* Hands queued frames to the kernel as far as it takes them; net_wait does so too. For who computes long in between. */
void net_flush(struct net *net);

/* Accepts connections on a listening socket (taken over); every one uses `handlers` with `arg`. */
int net_listen(struct net *net, int fd, const struct conn_handlers *handlers, void *arg, struct error *err);

/* A listening TCP socket on "host:port" or ":port" (port 0: any); *port says which. */
int wire_listen_socket(const char *address, uint16_t *port, struct error *err);

/* Watches another descriptor (a signalfd, a socket pair); `ready` runs when it can be read. */
int net_watch_fd(struct net *net, int fd, void (*ready)(void *arg), void *arg, struct error *err);
void net_unwatch_fd(struct net *net, int fd);

/* One-shot; `due` runs once unless cancelled. Re-arm by net_timer_set. */
struct timer *net_timer_new(struct net *net, void (*due)(void *arg), void *arg);
void net_timer_set(struct timer *timer, int64_t nanoseconds_from_now); /* -1: disarm */
void net_timer_free(struct timer *timer);

/* Dials "host:port" and does the handshake; names are resolved without blocking the loop's thread, and every address
 * is tried. Failure comes by `closed`; dial again from a timer (300 ms). Never NULL unless without memory. */
struct conn *conn_dial(struct net *net, const char *address, enum dialogue dialogue,
                       const struct conn_handlers *handlers, void *arg);

/* Queues a frame. `payload` (NULL: none) is referenced, not copied, and must not change any more; its length goes into
 * the header whatever frame->length says. Never blocks; large queues start to move at once, small ones in net_wait; a
 * connection that failed drops it silently (its `closed` is on the way). */
void conn_send(struct conn *conn, const struct frame *frame, struct payload *payload);
/* The same with a short payload that is copied (at most WIRE_TEXT_MOST bytes, or 64 KiB of JSON or doubles). */
void conn_send_bytes(struct conn *conn, const struct frame *frame, const void *bytes, size_t length);
size_t conn_queued(const struct conn *conn); /* bytes not yet handed to the kernel */

/* Sends REFUSED with the sentence (may be NULL), then closes once it is out, in at most a second. Nothing is received
 * any more; `closed` is called at the end of this or the next net_wait, without waiting for the peer. */
void conn_close(struct conn *conn, const char *sentence);
/* In `closed`: was it the peer's REFUSED, whose sentence `reason` then is? Dialling again will hardly help. */
bool conn_refused(const struct conn *conn);
void *conn_scratch(struct conn *conn, size_t length); /* owned by the connection, for one frame's payload */
void conn_set_handlers(struct conn *conn, const struct conn_handlers *handlers,
                       void *arg);                  /* `ready` is not repeated */
uint32_t conn_payload_crc(const struct conn *conn); /* in `received`: the payload's CRC32C, already checked */
const char *conn_peer(const struct conn *conn);     /* "10.244.1.7:41234", for logs */

/* Payloads come from the net's free list; `capacity` at most WIRE_PAYLOAD_MOST. NULL without memory. */
struct payload *payload_new(struct net *net, size_t capacity);
struct payload *payload_of(void *data); /* the payload whose `data` this is */
struct payload *payload_ref(struct payload *payload);
void payload_unref(struct net *net, struct payload *payload); /* NULL is fine */

/* Header codec, for tests and fuzzing. */
void frame_encode(const struct frame *frame, uint32_t payload_crc, uint8_t out[WIRE_HEADER_SIZE]);
int frame_decode(struct frame *out, uint32_t *payload_crc, const uint8_t in[WIRE_HEADER_SIZE], struct error *err);

uint32_t crc32c(uint32_t crc, const void *data, size_t length); /* start with 0; hardware where there is some */

#endif
