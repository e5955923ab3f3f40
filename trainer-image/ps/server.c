/* DATA dialogues: who subscribes, asks and pushes. */
#include "ps/average.h"
#include "ps/batches.h"
#include "ps/rows_client.h"
#include "ps/shard.h"

#include <stdlib.h>
#include <string.h>

struct client {
    struct shard_server *server;
    struct conn *conn;
    struct client *previous, *next;
    struct payload *incoming; /* of the PUSH that is under way */
    struct rows_client rows;
    bool subscribed;
    uint32_t owed_count; /* chunks whose newest version it has not been sent, as its queue was full */
    bool owed[];         /* [chunks] */
};

struct shard_server {
    struct net *net;
    struct shard *shard;
    struct batches *batches; /* Asynchronous, Hogwild … */
    struct average *average; /* … KAverage; both NULL: gradients are PUSHes of tree nodes */
    const struct log *log;
    struct client *clients;
    uint32_t term;
    size_t queue_most; /* nothing more is queued to a subscriber from here on */
};

int shard_server_new(struct shard_server **out, struct net *net, struct shard *shard, const struct log *log,
                     struct error *err)
{
    struct shard_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return error_errno(err, "make a shard's server");
    size_t version_size = (size_t)shard_chunks(shard) * (WIRE_HEADER_SIZE + WIRE_PAYLOAD_MOST);
    *server = (struct shard_server){.net = net,
                                    .shard = shard,
                                    .log = log,
                                    .queue_most = version_size < SHARD_QUEUE_MOST ? version_size : SHARD_QUEUE_MOST};
    *out = server;
    return 0;
}

static void client_free(struct client *client)
{
    struct shard_server *server = client->server;
    if (client->previous != NULL)
        client->previous->next = client->next;
    else
        server->clients = client->next;
    if (client->next != NULL)
        client->next->previous = client->previous;
    payload_unref(server->net, client->incoming);
    rows_client_end(&client->rows);
    free(client);
}

/* ---- Parameters out ---- */

static void send_params(struct client *client, uint64_t version, uint64_t offset, struct payload *params)
{
    struct frame frame = {.type = FRAME_PARAMS, .term = client->server->term, .step = version, .offset = offset};
    conn_send(client->conn, &frame, params);
}

static void send_owed(struct client *client)
{
    const struct shard_server *server = client->server;
    for (uint32_t i = 0; client->owed_count > 0 && i < shard_chunks(server->shard); i++) {
        if (!client->owed[i])
            continue;
        if (conn_queued(client->conn) >= server->queue_most)
            return;
        client->owed[i] = false;
        client->owed_count--;
        struct shard_chunk chunk = shard_chunk(server->shard, i);
        send_params(client, chunk.version, chunk.offset, chunk.params);
    }
}

static void owe(struct client *client, uint32_t chunk)
{
    client->owed_count += !client->owed[chunk];
    client->owed[chunk] = true;
}

void shard_server_chunk_ready(struct shard_server *server, uint64_t version, uint64_t offset)
{
    (void)version; /* the newest is what is sent */
    uint32_t chunk = shard_chunk_at(server->shard, offset);
    for (struct client *client = server->clients; client != NULL; client = client->next) {
        if (!client->subscribed)
            continue;
        owe(client, chunk);
        send_owed(client);
    }
}

void shard_server_rows_ready(struct shard_server *server, uint32_t table, uint64_t version)
{
    for (struct client *client = server->clients; client != NULL; client = client->next)
        rows_client_ready(&client->rows, table, version);
}

static void subscribe(struct client *client)
{
    if (client->subscribed)
        return;
    client->subscribed = true;
    for (uint32_t i = 0; i < shard_chunks(client->server->shard); i++)
        owe(client, i);
    send_owed(client);
}

static void client_drained(void *arg, struct conn *conn)
{
    (void)conn;
    send_owed(arg);
}

static int get(struct client *client, const struct frame *frame, struct error *err)
{
    const struct shard *shard = client->server->shard;
    if (shard_chunk_at(shard, frame->offset) == SHARD_NO_CHUNK)
        return error_set(err, "GET names parameters from %llu on, where no chunk of this shard begins",
                         (unsigned long long)frame->offset);
    struct payload *params = shard_params(shard, frame->step, frame->offset);
    if (params != NULL)
        send_params(client, frame->step, frame->offset, params);
    return 0;
}

/* ---- Gradients in ---- */

/* Of another term than this shard serves? */
static int check_term(const struct shard_server *server, const struct frame *frame, struct error *err)
{
    if (server->term != 0 && frame->term != server->term)
        return error_set(err, "PUSH is of term %u, this shard serves term %u", frame->term, server->term);
    return 0;
}

/* PUSH, PUSH_BATCH or PUSH_SHARE, as the plan's type has it. */
static int check_gradient(const struct shard_server *server, const struct frame *frame, struct error *err)
{
    if (frame->type == FRAME_PUSH_BATCH && server->batches != NULL)
        return batches_check(server->batches, frame, err);
    if (frame->type == FRAME_PUSH_SHARE && server->average != NULL)
        return average_check(server->average, frame, err);
    if (frame->type == FRAME_PUSH && server->batches == NULL && server->average == NULL)
        return shard_check_push(server->shard, frame, err);
    return error_set(err, "a frame of type %u came to a shard whose plan has none (spec.sync.type)", frame->type);
}

static void *client_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    (void)conn;
    struct client *client = arg;
    struct shard_server *server = client->server;
    if (frame->type != FRAME_GET_ROWS && check_term(server, frame, err) < 0)
        return NULL;
    if (rows_client_takes(frame))
        return rows_client_place(&client->rows, frame, err);
    if (check_gradient(server, frame, err) < 0)
        return NULL;
    client->incoming = payload_new(server->net, frame->length);
    return client->incoming == NULL ? NULL : client->incoming->data;
}

static int push(struct client *client, const struct frame *frame, struct error *err)
{
    struct shard_server *server = client->server;
    struct payload *gradient = move(client->incoming);
    gradient->crc = conn_payload_crc(client->conn);
    gradient->crc_known = true;
    enum push_result result;
    int pushed = shard_push(server->shard, frame, gradient, &result, err);
    payload_unref(server->net, gradient);
    if (pushed < 0)
        return -1;
    if (result == PUSH_TOO_EARLY)
        return error_set(err, "PUSH is of step %llu, for which this shard has no parameters yet: it is at step %llu",
                         (unsigned long long)frame->step, (unsigned long long)shard_version(server->shard));
    return 0;
}

static int push_share(struct client *client, const struct frame *frame, struct error *err)
{
    struct shard_server *server = client->server;
    struct payload *params = move(client->incoming);
    int pushed = average_push(server->average, frame, params, err);
    payload_unref(server->net, params);
    return pushed;
}

static int push_batch(struct client *client, const struct frame *frame, struct error *err)
{
    struct shard_server *server = client->server;
    struct payload *sum = move(client->incoming);
    enum taken taken = TAKEN_DUPLICATE;
    int pushed = batches_push(server->batches, frame, sum, &taken, err);
    payload_unref(server->net, sum);
    if (pushed < 0)
        return -1;
    struct shard_chunk chunk = shard_chunk(server->shard, shard_chunk_at(server->shard, frame->offset));
    const struct frame answer = {.type = FRAME_TAKEN,
                                 .term = server->term,
                                 .step = frame->step,
                                 .node = frame->node,
                                 .offset = frame->offset,
                                 .count = taken,
                                 .value.counter = chunk.version};
    conn_send(client->conn, &answer, chunk.params);
    return 0;
}

static int take_rows(struct client *client, const struct frame *frame, struct error *err)
{
    bool pushes = frame->type == FRAME_PUSH_ROWS || frame->type == FRAME_PUSH_BATCH_ROWS;
    if (pushes && check_term(client->server, frame, err) < 0)
        return -1;
    return rows_client_received(&client->rows, frame, err);
}

static int client_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                           struct error *err)
{
    (void)conn;
    (void)payload;
    struct client *client = arg;
    if (rows_client_takes(frame))
        return take_rows(client, frame, err);
    switch (frame->type) {
    case FRAME_SUBSCRIBE:
        subscribe(client);
        return 0;
    case FRAME_GET:
        return get(client, frame, err);
    case FRAME_PUSH:
        return push(client, frame, err);
    case FRAME_PUSH_BATCH:
        return push_batch(client, frame, err);
    case FRAME_PUSH_SHARE:
        return push_share(client, frame, err);
    default:
        return error_set(err, "a frame of type %u came to a shard", frame->type);
    }
}

static void client_closed(void *arg, struct conn *conn, const char *reason)
{
    struct client *client = arg;
    log_info(client->server->log, "a data connection ended", "peer", conn_peer(conn), "reason", reason, NULL);
    client_free(client);
}

static const struct conn_handlers client_handlers = {
    .place = client_place, .received = client_received, .drained = client_drained, .closed = client_closed};

void shard_server_accept(struct shard_server *server, struct conn *conn)
{
    struct client *client = calloc(1, sizeof *client + shard_chunks(server->shard) * sizeof client->owed[0]);
    if (client == NULL) {
        conn_close(conn, "no memory for another connection");
        return;
    }
    client->server = server;
    client->conn = conn;
    rows_client_init(&client->rows, server->net, conn, server->shard);
    client->rows.term = server->term;
    client->rows.batches = server->batches;
    client->next = server->clients;
    if (server->clients != NULL)
        server->clients->previous = client;
    server->clients = client;
    conn_set_handlers(conn, &client_handlers, client);
}

bool shard_server_has_clients(const struct shard_server *server)
{
    return server->clients != NULL;
}

size_t shard_server_queued_most(const struct shard_server *server)
{
    size_t most = 0;
    for (const struct client *client = server->clients; client != NULL; client = client->next)
        most = conn_queued(client->conn) > most ? conn_queued(client->conn) : most;
    return most;
}

void shard_server_set_average(struct shard_server *server, struct average *average)
{
    server->average = average;
}

void shard_server_set_batches(struct shard_server *server, struct batches *batches)
{
    server->batches = batches;
    for (struct client *client = server->clients; client != NULL; client = client->next)
        client->rows.batches = batches;
}

void shard_server_set_term(struct shard_server *server, uint32_t term)
{
    server->term = term;
    for (struct client *client = server->clients; client != NULL; client = client->next)
        client->rows.term = term;
}

/* ---- The end: connections outlive their server, but not by much ---- */

static void orphan_closed(void *arg, struct conn *conn, const char *reason)
{
    (void)arg;
    (void)conn;
    (void)reason;
}

static const struct conn_handlers orphan_handlers = {.closed = orphan_closed};

void shard_server_free(struct shard_server *server)
{
    if (server == NULL)
        return;
    while (server->clients != NULL) {
        struct client *client = server->clients;
        conn_set_handlers(client->conn, &orphan_handlers, NULL);
        conn_close(client->conn, NULL);
        client_free(client);
    }
    free(server);
}
