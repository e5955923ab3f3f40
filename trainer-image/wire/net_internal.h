/* What wire's own files share; nobody outside includes it. */
#ifndef THOLE_WIRE_NET_INTERNAL_H
#define THOLE_WIRE_NET_INTERNAL_H

#include "wire/wire.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
    NONCE_SIZE = 32,
    HELLO_SIZE = 80,
    CHALLENGE_SIZE = 104,
    PROOF_SIZE = SHA256_SIZE,
    HANDSHAKE_PAYLOAD_MOST = CHALLENGE_SIZE,

    INPUT_SIZE = 4096,         /* what is read ahead of a payload's place: headers, short frames */
    READ_AHEAD_LEAST = 16384,  /* with this much of a payload missing, only one header is read ahead */
    READ_BUDGET = 1024 * 1024, /* bytes of one connection in one round, so that none starves */
    SEND_AT_ONCE = 64 * 1024,  /* queues from here on are handed to the kernel inside conn_send */
    SEND_FRAMES_MOST = 32,     /* frames in one sendmsg */
    QUEUE_FRAMES_MOST = 65536, /* frames queued on one connection */
    RESOLVES_MOST = 16,        /* look-ups of names at a time */
    ADDRESSES_MOST = 16,       /* tried of one name */
    EVENTS_MOST = 64,
    ADDRESS_HOST_SIZE = 254, /* with the NUL */
    ADDRESS_PORT_SIZE = 6,
    PEER_TEXT_SIZE = 300,       /* "host:port" */
    POOL_FREE_MOST = 256 << 20, /* bytes that the free lists keep */
};

#define HANDSHAKE_MOST (10 * SECONDS)
/* For each address of a name. Shorter than the second after which the kernel would try again: a service's address leads
 * an attempt to one pod for good, and only a new attempt to the pod that has come in its place. */
#define CONNECT_MOST (500 * MILLISECONDS)
#define LINGER_MOST  (1 * SECONDS)
#define ACCEPT_PAUSE (100 * MILLISECONDS)
#define USER_TIMEOUT 2000 /* milliseconds */

/* First member of everything that epoll hands back. */
enum source_kind { SOURCE_LISTENER, SOURCE_CONN, SOURCE_WATCH };
struct source {
    enum source_kind kind;
};

struct listener {
    struct source source;
    int fd;
    struct net *net;
    const struct conn_handlers *handlers;
    void *arg;
    struct timer *pause; /* runs while the process is out of descriptors */
    struct listener *next;
};

struct watch {
    struct source source;
    int fd; /* -1: no longer watched; freed at the end of the round */
    void (*ready)(void *arg);
    void *arg;
    struct watch *next;
};

struct timer {
    struct net *net;
    void (*due)(void *arg);
    void *arg;
    int64_t when;
    size_t place; /* in the heap; TIMER_DISARMED where it is not */
    struct timer *previous, *next;
};
#define TIMER_DISARMED SIZE_MAX

enum { POOL_TIERS = 4 };

struct pool {
    struct payload *free[POOL_TIERS];
    size_t free_bytes;
};

struct net {
    struct net_options options;
    int epoll;
    struct listener *listeners;
    struct watch *watches;
    bool watches_dead; /* some have fd -1 */
    struct conn *conns;
    size_t accepted, unproven; /* connections by listeners: all; those not proven, also while they are closed */
    struct conn *dirty;        /* have something for net_wait's end: bytes to send, `drained` to call */
    struct conn *doomed, *doomed_last;
    struct timer *timers; /* all that exist */
    struct timer **heap;  /* those that are armed */
    size_t heap_count, heap_capacity, timer_count;
    struct pool pool;
    struct resolver *resolver;
    int64_t refusals_since; /* of the running second */
    uint32_t refusals, refusals_unsaid;
};

enum conn_state {
    CONN_RESOLVING,      /* dialler: its name is looked up */
    CONN_CONNECTING,     /* dialler */
    CONN_WAIT_HELLO,     /* listener */
    CONN_WAIT_CHALLENGE, /* dialler */
    CONN_WAIT_PROOF,     /* listener */
    CONN_WAIT_READY,     /* dialler */
    CONN_OPEN,
    CONN_CLOSING, /* what is queued goes out, what comes is thrown away; the owner has heard, or is about to */
    CONN_GONE,    /* no descriptor any more */
};

struct outgoing {
    uint8_t header[WIRE_HEADER_SIZE];
    struct payload *payload; /* may be NULL */
};

struct conn {
    struct source source;
    struct net *net;
    int fd;
    enum conn_state state;
    bool dialled; /* by us */
    bool proven;  /* the handshake was completed; for a dialled one the owner hears of its end in any case */
    bool told;    /* `closed` was called, or nobody is to be told */
    bool refused; /* the peer sent REFUSED */
    bool on_dirty, on_doomed;
    bool was_queued; /* `drained` is owed */
    bool blocked;    /* the kernel took no more: EPOLLOUT is on */
    enum dialogue dialogue;
    uint64_t peer_boot;
    const struct conn_handlers *handlers;
    void *arg;
    struct timer *timer; /* handshake, one address's connect, linger */
    int64_t handshake_until;
    struct conn *previous, *next, *next_dirty, *next_doomed;

    /* Dialling. */
    struct resolve *resolve;
    struct sockaddr_storage *addresses;
    size_t address_count, address_next;

    /* Handshake. */
    uint8_t hello[HELLO_SIZE], challenge[CHALLENGE_SIZE];

    /* Receiving: `input` holds bytes [input_start, input_end) that no frame has taken. */
    struct frame frame; /* whose payload is coming, where place is not NULL */
    uint32_t frame_crc; /* announced */
    uint32_t crc;       /* of what has come */
    unsigned char *place;
    uint32_t placed;
    size_t input_start, input_end;
    void *scratch;
    size_t scratch_capacity;

    /* Sending: a ring of frames. */
    struct outgoing *queue;
    size_t queue_first, queue_count, queue_capacity; /* capacity is a power of two */
    size_t sent;                                     /* bytes of the first frame */
    size_t queued;                                   /* bytes of all, without `sent` */

    char peer[PEER_TEXT_SIZE];
    char reason[WIRE_TEXT_MOST];
    unsigned char input[INPUT_SIZE];
};

/* ---- conn.c ---- */

/* Takes `fd` over (closed on failure). NULL without memory. */
struct conn *conn_accept(struct net *net, int fd, const char *peer, const struct conn_handlers *handlers, void *arg);
struct conn *conn_new_dialled(struct net *net, const char *address, enum dialogue dialogue,
                              const struct conn_handlers *handlers, void *arg);
void conn_event(struct conn *conn, uint32_t events);
/* The end without a word to the peer. */
void conn_fail(struct conn *conn, const char *format, ...) __attribute__((format(printf, 2, 3)));
void conn_end(struct conn *conn);    /* the same, its reason being known */
void conn_free(struct conn *conn);   /* no handlers */
void conn_proven(struct conn *conn); /* it counts no longer among those that any stranger can make */

/* ---- send.c ---- */

void conn_flush(struct conn *conn);
void conn_finish_dirty(struct conn *conn); /* flush and `drained`, at the end of a round */
void conn_mark_dirty(struct conn *conn);   /* so that the round's end comes to it */
void conn_enqueue(struct conn *conn, const struct frame *frame, struct payload *payload);
void conn_enqueue_bytes(struct conn *conn, const struct frame *frame, const void *bytes, size_t length);
void conn_drop_queue(struct conn *conn);
void conn_watch_events(struct conn *conn, bool out); /* input, and room for output? */

/* ---- receive.c ---- */

void conn_read(struct conn *conn);

/* ---- dial.c ---- */

void conn_connect_next(struct conn *conn, const char *why_not_last); /* tries the next address */
void conn_connected(struct conn *conn);                              /* a connect has come to an end */
int socket_tune(int fd, const struct sockaddr_storage *peer);

/* Splits "host:port", "[::1]:port", ":port". */
int address_split(const char *address, char host[ADDRESS_HOST_SIZE], char port[ADDRESS_PORT_SIZE], struct error *err);
void address_format(const struct sockaddr_storage *address, char out[PEER_TEXT_SIZE]);
/* The addresses of a host, at most `most`, by getaddrinfo with `flags`; blocks without AI_NUMERICHOST. Returns how
 * many, or -1. */
int address_look_up(const char *host, const char *port, int flags, struct sockaddr_storage *out, size_t most,
                    struct error *err);

/* ---- handshake.c ---- */

void handshake_begin(struct conn *conn); /* the dialler's */
int handshake_check_header(const struct conn *conn, const struct frame *frame, struct error *err);
int handshake_received(struct conn *conn, const uint8_t *payload, struct error *err);
/* True where the first bytes of a connection cannot become a frame of ours; *err says so. */
bool handshake_is_garbage(const unsigned char *bytes, size_t length, struct error *err);

/* ---- dialogue.c ---- */

/* May the peer send this frame in this dialogue, and may its payload be this long? */
int dialogue_check(enum dialogue dialogue, bool from_dialler, const struct frame *frame, struct error *err);

/* ---- resolve.c ---- */

struct resolver;
int resolver_new(struct resolver **out, struct error *err);
void resolver_free(struct resolver *resolver); /* does not wait for look-ups that still run */

/* One look-up on a thread of its own; `done` runs on the net's thread in net_wait, unless cancelled. */
struct resolve;
typedef void resolve_done(void *arg, const struct sockaddr_storage *addresses, size_t count, const char *failure);
int resolve_start(struct resolve **out, struct net *net, const char *host, const char *port, resolve_done *done,
                  void *arg, struct error *err);
void resolve_cancel(struct resolve *resolve);

/* ---- timer.c ---- */

int64_t timers_next(const struct net *net, int64_t now); /* nanoseconds to wait, -1: none is armed */
bool timers_run(struct net *net, int64_t now);

/* ---- payload.c ---- */

void pool_free(struct pool *pool);

/* ---- crc.c ---- */

/* For tests: the ways that crc32c() does not take where it has better ones. */
enum crc_way { CRC_BEST, CRC_SSE42, CRC_PLAIN };
uint32_t crc32c_by(enum crc_way way, uint32_t crc, const void *data, size_t length);

/* ---- net.c ---- */

/* One line about a connection that never got through its handshake; a flood of them is summed up. */
void net_log_refusal(struct net *net, const char *peer, const char *reason);

/* Text from outside, for logs and sentences: what is not printable ASCII becomes '?'. */
void text_clean(char *out, size_t size, const void *bytes, size_t length);

#endif
