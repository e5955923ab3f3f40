#include "coordinator/registrant.h"

#include <stdlib.h>
#include <string.h>

static const int64_t RETRY = 300 * MILLISECONDS;

struct registrant {
    struct registrant_options options;
    struct conn *conn;
    struct timer *retry;
    uint32_t term; /* 0: not accepted yet */
    bool over;     /* the job is, or this has been told to be lost */
};

static void registrant_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    struct registrant *registrant = arg;
    (void)dialogue;
    (void)peer_boot;
    conn_send_bytes(conn, &(struct frame){.type = FRAME_REGISTER, .node = registrant->options.shard},
                    registrant->options.address, strlen(registrant->options.address));
}

static void *registrant_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    (void)arg;
    (void)conn;
    error_set(err, "the coordinator cannot send a frame of type %u with a payload here", frame->type);
    return NULL;
}

static int registrant_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                               struct error *err)
{
    struct registrant *registrant = arg;
    (void)conn;
    (void)payload;
    if (frame->type == FRAME_FINISHED) {
        registrant->over = true;
        registrant->options.finished(registrant->options.arg);
        return 0;
    }
    if (frame->type != FRAME_ACCEPTED || registrant->term != 0 || frame->term == 0)
        return error_set(err, "the coordinator cannot send a frame of type %u now", frame->type);
    registrant->term = frame->term;
    registrant->options.accepted(registrant->options.arg, frame->term);
    return 0;
}

static void registrant_closed(void *arg, struct conn *conn, const char *reason)
{
    struct registrant *registrant = arg;
    bool refused = conn_refused(conn);
    registrant->conn = NULL;
    if (registrant->over)
        return;
    if (registrant->term == 0 && !refused) {
        log_debug(registrant->options.log, "cannot reach the coordinator", "reason", reason, NULL);
        net_timer_set(registrant->retry, RETRY);
        return;
    }
    registrant->over = true;
    registrant->options.lost(registrant->options.arg, reason);
}

static const struct conn_handlers handlers = {
    .ready = registrant_ready,
    .place = registrant_place,
    .received = registrant_received,
    .closed = registrant_closed,
};

static void dial(void *arg)
{
    struct registrant *registrant = arg;
    registrant->conn =
        conn_dial(registrant->options.net, registrant->options.coordinator, DIALOGUE_REGISTER, &handlers, registrant);
    if (registrant->conn == NULL)
        net_timer_set(registrant->retry, RETRY);
}

int registrant_new(struct registrant **out, const struct registrant_options *options, struct error *err)
{
    cleanup_registrant struct registrant *registrant = calloc(1, sizeof *registrant);
    if (registrant == NULL)
        return error_set(err, "register with the coordinator: no memory");
    registrant->options = *options;
    registrant->retry = net_timer_new(options->net, dial, registrant);
    if (registrant->retry == NULL)
        return error_set(err, "register with the coordinator: no memory");
    net_timer_set(registrant->retry, 0);
    *out = move(registrant);
    return 0;
}

void registrant_free(struct registrant *registrant)
{
    if (registrant == NULL)
        return;
    net_timer_free(registrant->retry);
    free(registrant);
}

void registrant_done(struct registrant *registrant, uint64_t step)
{
    if (registrant->conn != NULL && registrant->term != 0)
        conn_send(registrant->conn,
                  &(struct frame){
                      .type = FRAME_DONE, .term = registrant->term, .node = registrant->options.shard, .step = step},
                  NULL);
}

void registrant_fail(struct registrant *registrant, const char *sentence)
{
    registrant->over = true;
    if (registrant->conn != NULL)
        conn_close(registrant->conn, sentence);
}
