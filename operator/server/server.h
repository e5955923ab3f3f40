/* server — what the operator serves: the coordinators' WebSockets, health and metrics, on a thread of its own.
 *
 *   GET /v1/coordinator   WebSocket, the dialogue of common/report/report.h
 *   GET /healthz          200 while the loop turns, 503 when it has been stuck for 15 s
 *   GET /readyz           200 once server_set_ready() said so, else 503 with what is waited for
 *   GET /metrics          Prometheus' text format, made on the loop when it is asked for
 *   GET /debug/WHAT?key=  what the loop knows of one key, as JSON; 404 unless there is a hook for it
 *
 * The server knows the operator's key and lets nobody through who does not know a job's token; which of those is the
 * job's one coordinator is decided on the loop. Everything that comes in is bounded: connections, those that have not
 * said hello yet (in all and from one address), the time they may take for it, bytes of a message, messages waiting
 * for the loop (a connection is not read then). What cannot be delivered to the loop or to a connection closes the
 * connection: the coordinator comes back and says again what was not acknowledged.
 * May call common and loop. Knows nothing of Kubernetes; runs libwebsockets.
 */
#ifndef THOLE_OPERATOR_SERVER_H
#define THOLE_OPERATOR_SERVER_H

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"
#include "common/report/report.h"
#include "loop/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Called on the loop's thread. What is pointed at is borrowed during the call. */
struct server_hooks {
    void *arg;

    /* A coordinator knows its job's token. Answer with server_welcome or server_refuse, now or later. */
    void (*hello)(void *arg, const struct report_hello *hello);

    /* PROGRESS, EPOCH or FINISHED from a coordinator that was welcomed. */
    void (*report)(void *arg, const char *job_uid, const char *boot, const struct report_message *message);

    /* Appends the metrics of everything outside the server; its own come after them. */
    void (*metrics)(void *arg, struct buffer *out);

    /* Appends JSON on `key` ("" where none was given), of the kind `what` ("trainjob"); returns the status of HTTP. May
     * be NULL. */
    unsigned (*debug)(void *arg, const char *what, const char *key, struct buffer *out);
};

struct server_options {
    const char *listen; /* ":8080" (every address), "127.0.0.1:8080", "[::1]:8080"; port 0: any free one */
    const void *key;    /* the operator's; copied */
    size_t key_length;
    const struct log *log; /* borrowed until server_stop */
    struct loop *loop;     /* likewise */
    struct server_hooks hooks;

    /* 0: the defaults, which are for production. */
    unsigned most_connections; /* 16384, or what the process' limit of descriptors allows */
    unsigned most_pending;     /* of one address, before the welcome: 256 */
    int64_t hello_timeout;     /* nanoseconds: 10 s */
    int64_t stuck_after;       /* 15 s */
};

struct server; /* opaque */

/* Listens and serves when it returns. -1 with one sentence where `listen` is malformed or the port is taken. */
int server_start(struct server **out, const struct server_options *options, struct error *err);

/* Closes all connections and ends the thread; no hook is called any longer. NULL is fine. */
void server_stop(struct server *server);
CLEANUP_DEFINE(cleanup_server_pointer, struct server, server_stop)
#define cleanup_server CLEANUP(cleanup_server_pointer)

unsigned server_port(const struct server *server);

/* The rest from the loop's thread. `waiting_for` is shown by /readyz while not ready. */
void server_set_ready(struct server *server, bool ready, const char *waiting_for);

/* To the connection of the coordinator with this job UID and boot id, nothing where it is gone. A welcome closes
 * older connections of the same job. */
void server_welcome(struct server *server, const char *job_uid, const char *boot, struct report_ack ack);
void server_refuse(struct server *server, const char *job_uid, const char *boot, const char *sentence);
void server_ack(struct server *server, const char *job_uid, const char *boot, struct report_ack ack);
void server_ack_finished(struct server *server, const char *job_uid, const char *boot);

#endif
