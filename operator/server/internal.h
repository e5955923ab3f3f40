/* internal — what the files of server share: the server itself, and the messages between its thread and the loop's. */
#ifndef THOLE_OPERATOR_SERVER_INTERNAL_H
#define THOLE_OPERATOR_SERVER_INTERNAL_H

#include "loop/mailbox.h"
#include "server/server.h"

#include <libwebsockets.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    BUCKETS = 1024,             /* of the table of coordinators */
    TO_LOOP_PAUSE = 4096,       /* messages waiting for the loop: above, connections are not read … */
    TO_LOOP_RESUME = 1024,      /* … until there are only so many */
    TO_SERVER_MOST = 64 * 1024, /* messages waiting for the server */
    PENDING_MOST = 4096,        /* connections that have not said hello, in all */
    METRICS_MOST = 64 * 1024 * 1024,
    DEBUG_MOST = 4 * 1024 * 1024,
    QUESTION_SIZE = 512,
    REFUSALS_REMEMBERED = 64,
    JOB_UID_SIZE = sizeof((struct report_hello *)NULL)->job_uid,
    BOOT_SIZE = sizeof((struct report_hello *)NULL)->boot,
};

/* To the loop. */
enum to_loop_kind { TO_LOOP_HELLO, TO_LOOP_REPORT, TO_LOOP_METRICS, TO_LOOP_DEBUG };
struct to_loop {
    enum to_loop_kind kind;
    char job_uid[JOB_UID_SIZE], boot[BOOT_SIZE];
    union {
        struct report_message message; /* HELLO, REPORT */
        struct {                       /* DEBUG */
            uint64_t question;
            char what[QUESTION_SIZE], key[QUESTION_SIZE];
        };
    };
};

/* From the loop. */
enum to_server_kind {
    TO_SERVER_WELCOME,
    TO_SERVER_REFUSE,
    TO_SERVER_ACK,
    TO_SERVER_ACK_FINISHED,
    TO_SERVER_METRICS,
    TO_SERVER_DEBUG
};
struct to_server {
    enum to_server_kind kind;
    char job_uid[JOB_UID_SIZE], boot[BOOT_SIZE];
    struct report_ack ack;
    char sentence[512];
    uint64_t question; /* DEBUG */
    unsigned status;
    struct buffer body; /* METRICS, DEBUG */
};

enum coordinator_state {
    COORDINATOR_NEW,      /* the challenge is sent, the hello is waited for */
    COORDINATOR_KNOWN,    /* the hello proved the token; the loop decides */
    COORDINATOR_WELCOMED, /* may report */
    COORDINATOR_CLOSING,  /* the refusal is on its way */
};

/* One WebSocket; memory is libwebsockets', from established to closed. */
struct coordinator {
    struct server *server;
    struct lws *wsi;
    enum coordinator_state state;
    struct in6_addr address;
    struct report_hello hello;
    uint8_t nonce[REPORT_NONCE_SIZE], token[REPORT_TOKEN_SIZE];
    struct buffer received; /* of a message that comes in pieces */
    bool paused;
    /* What is to be sent; nothing needs a queue, the newest says it all. */
    bool send_challenge, send_welcome, send_ack, send_ack_finished, send_refusal;
    struct report_ack ack;
    char sentence[512];
    struct coordinator *next, *previous;        /* all */
    struct coordinator *next_known, **known_at; /* those past the hello, by job UID; newest first */
};

/* One HTTP connection; memory is libwebsockets'. */
struct exchange {
    struct lws *wsi;
    bool waiting;      /* for the loop's answer … */
    uint64_t question; /* … to this question; 0: the metrics, which are the same for all */
    unsigned status;   /* 0: nothing to answer */
    const char *type;
    bool headers_sent, closes;
    struct buffer body;
    size_t sent;
    struct exchange *next, **at; /* those that wait */
};

/* A refusal that was logged: said again within a minute, by whoever dials again and again, it is not. */
struct refusal {
    uint32_t hash;
    struct instant logged;
};

struct server {
    const struct log *log;
    struct loop *loop;
    struct server_hooks hooks;
    uint8_t *key;
    size_t key_length;
    unsigned most_connections, most_pending;
    int64_t hello_timeout, stuck_after;

    struct lws_context *context;
    struct lws_protocols protocols[3];
    pthread_t thread;
    bool thread_runs;
    unsigned port;
    struct mailbox *to_loop, *to_server;
    atomic_uint in_loop; /* messages that the loop has not yet handled */
    atomic_bool stopping, any_paused, lost_command, ready;

    pthread_mutex_t mutex; /* of: */
    char waiting_for[256];

    /* The server's thread only. */
    struct coordinator *coordinators, *known[BUCKETS];
    struct exchange *waiting;
    bool metrics_asked;
    uint64_t questions;
    unsigned connections, pending, welcomed;
    uint64_t hellos, refusals, messages, pauses;
    struct refusal logged[REFUSALS_REMEMBERED];
    unsigned next_logged;
};

/* The server of a libwebsockets callback. */
static inline struct server *server_of(struct lws *wsi)
{
    return lws_context_user(lws_get_context(wsi));
}

/* Takes `message` over; -1 where the loop's mailbox is full. Sets *full where the sender should not be read on. */
int server_tell_loop(struct server *server, struct to_loop *message, bool *full);

/* http.c */
int http_callback(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t length);
void http_metrics_ready(struct server *server, const struct buffer *metrics);
void http_debug_ready(struct server *server, uint64_t question, unsigned status, const struct buffer *body);

/* coordinator.c */
int coordinator_callback(struct lws *wsi, enum lws_callback_reasons reason, void *session, void *in, size_t length);
void coordinator_command(struct server *server, const struct to_server *command);
void coordinator_resume_all(struct server *server);
void coordinator_close_all(struct server *server, const char *sentence);

#endif
