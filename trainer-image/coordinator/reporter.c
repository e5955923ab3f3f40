#include "coordinator/reporter.h"

#include "coordinator/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reporter {
    struct reporter_options options;
    struct session session;
    struct transport *transport;
    bool acknowledged; /* and told so */
};

static bool send_text(void *arg, const char *text)
{
    struct reporter *reporter = arg;
    return transport_send(reporter->transport, text, strlen(text));
}

static void on_connected(void *arg)
{
    struct reporter *reporter = arg;
    session_connected(&reporter->session);
    reporter_flush(reporter);
}

static void on_disconnected(void *arg, const char *reason)
{
    struct reporter *reporter = arg;
    bool was_open = reporter->session.state == SESSION_OPEN;
    session_disconnected(&reporter->session);
    if (reporter->session.finished_acked)
        return;
    if (was_open)
        log_warn(reporter->options.log, "lost the operator", "reason", reason, NULL);
    else
        log_debug(reporter->options.log, "cannot reach the operator", "reason", reason, NULL);
}

static void on_text(void *arg, const char *text, size_t length)
{
    struct reporter *reporter = arg;
    bool was_open = reporter->session.state == SESSION_OPEN;
    struct error err = {0};
    if (session_received(&reporter->session, text, length, &err) < 0) {
        log_warn(reporter->options.log, "report broken off", "reason", error_message(&err), NULL);
        session_disconnected(&reporter->session);
        transport_disconnect(reporter->transport);
        return;
    }
    if (!was_open && reporter->session.state == SESSION_OPEN)
        log_info(reporter->options.log, "reports to the operator", NULL);
    reporter_flush(reporter);
    if (!reporter->session.finished_acked || reporter->acknowledged)
        return;
    reporter->acknowledged = true;
    reporter->options.acknowledged(reporter->options.arg);
}

static const struct transport_handlers handlers = {
    .connected = on_connected,
    .disconnected = on_disconnected,
    .received = on_text,
};

static struct reporter *new_reporter(const struct reporter_options *options, bool trusted)
{
    struct reporter *reporter = calloc(1, sizeof *reporter);
    if (reporter == NULL)
        return NULL;
    reporter->options = *options;
    struct session_options session = {.hello = options->hello, .trusted = trusted, .send = send_text, .arg = reporter};
    memcpy(session.token, options->token, sizeof session.token);
    session_init(&reporter->session, &session);
    return reporter;
}

int reporter_new_pipe(struct reporter **out, const struct reporter_options *options, int fd, struct error *err)
{
    cleanup_fd int taken = fd;
    cleanup_reporter struct reporter *reporter = new_reporter(options, true);
    if (reporter == NULL)
        return error_set(err, "start the report: no memory");
    if (transport_new_pipe(&reporter->transport, options->net, move_fd(&taken), &handlers, reporter, err) < 0)
        return -1;
    *out = move(reporter);
    session_connected(&(*out)->session);
    return 0;
}

int reporter_new_operator(struct reporter **out, const struct reporter_options *options, const char *address,
                          struct error *err)
{
    cleanup_reporter struct reporter *reporter = new_reporter(options, false);
    if (reporter == NULL)
        return error_set(err, "start the report: no memory");
    if (transport_new_websocket(&reporter->transport, options->net, address, options->log, &handlers, reporter, err) <
        0)
        return -1;
    *out = move(reporter);
    return 0;
}

void reporter_free(struct reporter *reporter)
{
    if (reporter == NULL)
        return;
    transport_free(reporter->transport);
    explicit_bzero(&reporter->session.options.token, sizeof reporter->session.options.token);
    free(reporter);
}

void reporter_flush(struct reporter *reporter)
{
    session_flush(&reporter->session, reporter->options.coordinator);
}

void reporter_progress(struct reporter *reporter, const struct report_progress *progress)
{
    session_progress(&reporter->session, progress);
}

bool reporter_is_done(const struct reporter *reporter)
{
    return reporter->session.finished_acked;
}
