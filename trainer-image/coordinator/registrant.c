#include "coordinator/registrant.h"

#include "common/json.h"

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

static char *register_text(const struct registrant_options *options)
{
    char canary[SHA256_HEX_SIZE];
    hex_encode(options->canary, sizeof options->canary, canary);
    bool whole = true;
    cleanup_json cJSON *json = cJSON_CreateObject();
    json_add_text(json, "address", options->address, &whole);
    json_add_text(json, "canary", canary, &whole);
    return whole && json != NULL ? json_print(json) : NULL;
}

static void registrant_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    struct registrant *registrant = arg;
    (void)dialogue;
    (void)peer_boot;
    cleanup_free char *text = register_text(&registrant->options);
    if (text == NULL)
        conn_close(conn, "register with the coordinator: no memory"); /* and again, later */
    else
        conn_send_bytes(conn, &(struct frame){.type = FRAME_REGISTER, .node = registrant->options.shard}, text,
                        strlen(text));
}

static void *registrant_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    const struct registrant *registrant = arg;
    if (frame->type != FRAME_COMMIT || registrant->term == 0) {
        error_set(err, "the coordinator cannot send a frame of type %u with a payload now", frame->type);
        return NULL;
    }
    void *place = conn_scratch(conn, frame->length);
    if (place == NULL)
        error_set(err, "receive COMMIT: no memory");
    return place;
}

static int receive_commit(struct registrant *registrant, const struct frame *frame, const void *payload,
                          struct error *err)
{
    double scalars[WIRE_NORMS_MOST];
    if (frame->term != registrant->term || frame->length % sizeof scalars[0] != 0)
        return error_set(err, "COMMIT of term %u with %u bytes came to a shard of term %u", frame->term, frame->length,
                         registrant->term);
    memcpy(scalars, payload, frame->length);
    return registrant->options.committed(registrant->options.arg, frame->step, frame->count, scalars,
                                         frame->length / (uint32_t)sizeof scalars[0], err);
}

static int registrant_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                               struct error *err)
{
    struct registrant *registrant = arg;
    (void)conn;
    if (frame->type == FRAME_COMMIT && frame->length > 0)
        return receive_commit(registrant, frame, payload, err);
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

static void send_done(struct registrant *registrant, enum frame_type type, uint64_t step)
{
    if (registrant->conn != NULL && registrant->term != 0)
        conn_send(registrant->conn,
                  &(struct frame){
                      .type = (uint8_t)type, .term = registrant->term, .node = registrant->options.shard, .step = step},
                  NULL);
}

void registrant_done(struct registrant *registrant, uint64_t step)
{
    send_done(registrant, FRAME_DONE, step);
}

void registrant_task_done(struct registrant *registrant, uint64_t task)
{
    send_done(registrant, FRAME_TASK_DONE, task);
}

void registrant_measured(struct registrant *registrant, uint64_t step, uint32_t round, const double *measures,
                         uint32_t count)
{
    if (registrant->conn == NULL || registrant->term == 0)
        return;
    for (uint32_t first = 0; first < count; first += WIRE_NORMS_MOST) {
        uint32_t piece = count - first < WIRE_NORMS_MOST ? count - first : WIRE_NORMS_MOST;
        conn_send_bytes(registrant->conn,
                        &(struct frame){.type = FRAME_NORMS,
                                        .term = registrant->term,
                                        .node = registrant->options.shard,
                                        .step = step,
                                        .offset = first,
                                        .count = round},
                        measures + first, piece * sizeof *measures);
    }
}

void registrant_fail(struct registrant *registrant, const char *sentence)
{
    registrant->over = true;
    if (registrant->conn != NULL)
        conn_close(registrant->conn, sentence);
}
