/* Parameters in, gradients out: one connection to each shard. */
#include "worker/state.h"

#include <stdio.h>
#include <string.h>

static void link_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    struct link *link = arg;
    struct worker *worker = link->worker;
    (void)dialogue;
    if (peer_boot != link->boot) {
        /* Its address is somebody else's now; the coordinator will say what that means. */
        conn_close(conn, "this is not the process that the coordinator named");
        return;
    }
    link->ready = true;
    /* What was pushed or asked for over a former connection may have been lost with it. */
    if (worker->leases != NULL)
        leases_link_ready(link);
    else
        parameters_ask_again(worker->parameters, link->shard);
    work_again(&worker->work);
    worker->generation++;
    worker->asked_step = UINT64_MAX;
    if (worker->rows != NULL)
        rows_ask_again(worker->rows, link->shard);
    conn_send(conn, &(struct frame){.type = FRAME_SUBSCRIBE, .term = worker->term}, NULL);
}

static void *link_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    struct link *link = arg;
    /* 0: the shard has not heard yet that it is accepted. */
    if (frame->term != 0 && frame->term < link->worker->term) {
        error_set(err, "parameters of term %u, and term %u is known", frame->term, link->worker->term);
        return NULL;
    }
    if (frame->type == FRAME_ROWS)
        return deal_rows_place(link, conn, frame, err);
    if (link->worker->leases != NULL)
        return leases_place(link, conn, frame, err);
    const struct chunk *chunk = parameters_find(link->worker->parameters, frame->offset);
    if (frame->type != FRAME_PARAMS || chunk == NULL || chunk->shard != link->shard ||
        frame->length != parameters_bytes(link->worker->parameters, chunk)) {
        error_set(err, "shard %u sent a frame of type %u for offset %llu that is none of its chunks", link->shard,
                  frame->type, (unsigned long long)frame->offset);
        return NULL;
    }
    void *place = parameters_place(link->worker->parameters, chunk, frame->step);
    link->receiving = place != NULL ? chunk : NULL;
    if (place != NULL)
        return place;
    void *scratch = conn_scratch(conn, frame->length);
    if (scratch == NULL)
        error_set(err, "receive parameters: no memory");
    return scratch;
}

static int link_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                         struct error *err)
{
    struct link *link = arg;
    (void)conn;
    if (frame->type == FRAME_TAKEN_ROWS)
        return leases_rows_taken(link, frame, err);
    if (frame->type == FRAME_ROWS)
        return deal_rows_received(link, frame, payload, err);
    if (frame->length == 0)
        return error_set(err, "shard %u sent a frame of type %u without a payload", link->shard, frame->type);
    if (link->worker->leases != NULL) {
        leases_received(link, frame, payload);
        return 0;
    }
    if (link->receiving == NULL)
        return 0;
    parameters_placed(link->worker->parameters, link->receiving, frame->step);
    worker_parameters_came(link->worker, link->receiving);
    return 0;
}

static void link_closed(void *arg, struct conn *conn, const char *reason)
{
    struct link *link = arg;
    if (conn != link->conn)
        return; /* given up before */
    link->conn = NULL;
    bool was_ready = link->ready;
    link->ready = false;
    if (link->worker->finished || link->worker->ended)
        return;
    if (was_ready && conn_refused(conn)) {
        worker_fail(link->worker, "parameter server %u refused this worker: %s", link->shard, reason);
        return;
    }
    if (was_ready)
        log_warn(link->worker->options.log, "lost a parameter server", "address", link->address, "reason", reason,
                 NULL);
    else
        log_debug(link->worker->options.log, "cannot reach a parameter server", "address", link->address, "reason",
                  reason, NULL);
    net_timer_set(link->retry, WORKER_RETRY);
}

static const struct conn_handlers link_handlers = {
    .ready = link_ready,
    .place = link_place,
    .received = link_received,
    .closed = link_closed,
};

static void link_dial(void *arg)
{
    struct link *link = arg;
    if (link->conn != NULL || link->address[0] == '\0' || link->worker->finished)
        return;
    link->conn = conn_dial(link->worker->options.net, link->address, DIALOGUE_DATA, &link_handlers, link);
    if (link->conn == NULL)
        net_timer_set(link->retry, WORKER_RETRY);
}

int link_init(struct link *link, struct worker *worker, uint32_t shard, struct error *err)
{
    *link = (struct link){.worker = worker, .shard = shard};
    link->retry = net_timer_new(worker->options.net, link_dial, link);
    return link->retry == NULL ? error_set(err, "start the worker: no memory") : 0;
}

void link_drop(struct link *link)
{
    if (link->conn != NULL)
        conn_close(link->conn, NULL);
    link->conn = NULL;
    link->ready = false;
    link->address[0] = '\0';
}

void link_set(struct link *link, const char *address, uint64_t boot)
{
    if (link->conn != NULL && link->boot == boot && strcmp(link->address, address) == 0)
        return;
    link_drop(link);
    link->boot = boot;
    snprintf(link->address, sizeof link->address, "%s", address);
    net_timer_set(link->retry, 0);
}

void link_ask(struct link *link, const struct chunk *chunk, uint64_t version)
{
    if (link->ready)
        conn_send(
            link->conn,
            &(struct frame){.type = FRAME_GET, .term = link->worker->term, .step = version, .offset = chunk->offset},
            NULL);
}
