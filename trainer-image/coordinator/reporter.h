/* reporter — carries a session's messages; private to this folder.
 *
 * To an operator: a WebSocket client on a thread of its own, because libwebsockets brings its own loop; it moves whole
 * messages through two bounded queues and knows nothing else. Locally: lines over an inherited socket pair. All
 * functions and callbacks here run on the net's thread.
 */
#ifndef THOLE_COORDINATOR_REPORTER_H
#define THOLE_COORDINATOR_REPORTER_H

#include "coordinator/session.h"
#include "wire/wire.h"

struct reporter;

struct reporter_options {
    struct net *net;
    const struct coordinator *coordinator; /* what is reported */
    const struct log *log;
    uint8_t token[REPORT_TOKEN_SIZE];
    struct report_hello hello;
    void (*acknowledged)(void *arg); /* the end is known where it should be */
    void *arg;
};

/* Takes `fd`, a connected stream socket, over. */
int reporter_new_pipe(struct reporter **out, const struct reporter_options *options, int fd, struct error *err);
/* `address` is "host:port"; dials again, for ever, with growing pauses. */
int reporter_new_operator(struct reporter **out, const struct reporter_options *options, const char *address,
                          struct error *err);
void reporter_free(struct reporter *reporter);
CLEANUP_DEFINE(cleanup_reporter_pointer, struct reporter, reporter_free)
#define cleanup_reporter CLEANUP(cleanup_reporter_pointer)

/* An epoch or the end has come. */
void reporter_flush(struct reporter *reporter);
/* To be called about once a second. */
void reporter_progress(struct reporter *reporter, const struct report_progress *progress);
bool reporter_is_done(const struct reporter *reporter);

#endif
