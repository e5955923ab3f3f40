/* session — the coordinator's side of one dialogue with the operator, as common/report/report.h tells it; private to
 * this folder. No sockets: texts come in and go out. Epochs and the end are sent until they are acknowledged, over as
 * many connections as it takes.
 */
#ifndef THOLE_COORDINATOR_SESSION_H
#define THOLE_COORDINATOR_SESSION_H

#include "common/log.h"
#include "coordinator/coordinator.h"

struct session_options {
    uint8_t token[REPORT_TOKEN_SIZE];
    struct report_hello hello; /* without nonce and mac */
    bool trusted;              /* a socket pair between relatives: no challenge, no hello */
    /* Sends one message; false where there is no room: it is tried again at the next session_flush(). */
    bool (*send)(void *arg, const char *text);
    void *arg;
};

enum session_state { SESSION_CLOSED, SESSION_WAITS_CHALLENGE, SESSION_WAITS_WELCOME, SESSION_OPEN };

struct session {
    struct session_options options;
    enum session_state state;
    uint8_t operator_nonce[REPORT_NONCE_SIZE], nonce[REPORT_NONCE_SIZE];
    struct report_ack ack;
    uint32_t epochs_sent; /* over this connection */
    bool finished_sent;   /* over this connection */
    bool finished_acked;
};

void session_init(struct session *session, const struct session_options *options);
void session_connected(struct session *session);
void session_disconnected(struct session *session);

/* -1: the connection is to be closed, for the reason in *err. */
int session_received(struct session *session, const char *text, size_t length, struct error *err);

/* Sends what the operator has not got yet. */
void session_flush(struct session *session, const struct coordinator *coordinator);
void session_progress(struct session *session, const struct report_progress *progress);

#endif
