#include "coordinator/peers.h"

#include <stdio.h>
#include <string.h>

static int receive_register(struct peer *peer, const struct frame *frame, const void *payload, struct error *err)
{
    struct coordinator_server *server = peer->server;
    if (coordinator_result(server->coordinator) != NULL) {
        peer_send_empty(peer, FRAME_FINISHED);
        return 0;
    }
    if (frame->node == 0 || frame->node >= server->options.plan->shards)
        return error_set(err, "shard %u cannot register: those of this job are 1 to %u", frame->node,
                         server->options.plan->shards - 1);
    struct shard_place *place = &server->shards[frame->node];
    cleanup_json cJSON *json = json_parse(payload, frame->length, "REGISTER", err);
    if (json == NULL)
        return -1;
    const char *address = json_string(json, "address", "");
    if (!peer_computes(json_string(json, "canary", ""), server->options.shard_canary))
        return error_set(
            err,
            "shard %u at %.200s computes other bits than the coordinator: run one trainer image everywhere, "
            "and choose nodes with like CPUs (spec.template.spec.nodeSelector)",
            frame->node, address);
    if (address[0] == '\0' || strlen(address) >= sizeof place->address)
        return error_set(err, "shard %u registers with an address that is none", frame->node);
    if (coordinator_shard_registered(server->coordinator, frame->node, clock_now(), err) < 0)
        return -1;
    /* Of two processes of one shard the one that came last is it; the job has not started. */
    if (place->peer != NULL) {
        place->peer->known = false;
        conn_close(place->peer->conn, "another process of this shard has registered");
    }
    peer->known = true;
    peer->shard = frame->node;
    place->peer = peer;
    place->boot = peer->boot;
    snprintf(place->address, sizeof place->address, "%s", address);
    peer_send_empty(peer, FRAME_ACCEPTED);
    char text[16];
    snprintf(text, sizeof text, "%u", frame->node);
    log_info(server->options.log, "parameter server registered", "shard", text, "address", place->address, NULL);
    coordinator_server_act(server);
    return 0;
}

int shards_commit(struct coordinator_server *server, uint64_t step, uint32_t round, struct error *err)
{
    uint32_t count = 0;
    const double *scalars = norms_scalars(server->norms, &count);
    const struct frame frame = {.type = FRAME_COMMIT, .term = FIRST_TERM, .step = step, .count = round};
    for (uint32_t shard = 1; shard < server->options.plan->shards; shard++)
        if (server->shards[shard].peer != NULL)
            conn_send_bytes(server->shards[shard].peer->conn, &frame, scalars, count * sizeof *scalars);
    return server->options.committed(server->options.arg, step, round, scalars, count, err);
}

static int receive_norms(struct peer *peer, const struct frame *frame, const void *payload, struct error *err)
{
    struct coordinator_server *server = peer->server;
    if (!peer->known || frame->node != peer->shard || frame->length == 0)
        return error_set(err, "NORMS of shard %u cannot come from this parameter server now", frame->node);
    int added =
        norms_add(server->norms, peer->shard, frame->step, frame->count, frame->offset, payload, frame->length, err);
    return added == 1 ? shards_commit(server, frame->step, frame->count, err) : added;
}

int shards_receive(struct peer *peer, const struct frame *frame, const void *payload, struct error *err)
{
    struct coordinator_server *server = peer->server;
    if (frame->type == FRAME_REGISTER && !peer->known)
        return receive_register(peer, frame, payload, err);
    if (frame->type == FRAME_NORMS)
        return receive_norms(peer, frame, payload, err);
    bool is_done = frame->type == FRAME_DONE || frame->type == FRAME_TASK_DONE;
    if (!is_done || !peer->known)
        return error_set(err, "a parameter server cannot send a frame of type %u now", frame->type);
    if (frame->node != peer->shard)
        return error_set(err, "shard %u cannot speak for shard %u", peer->shard, frame->node);
    int taken = frame->type == FRAME_DONE
                    ? coordinator_shard_done(server->coordinator, peer->shard, frame->step, 0, clock_now(), err)
                    : coordinator_task_done(server->coordinator, peer->shard, frame->step, 0, clock_now(), err);
    if (taken < 0)
        return -1;
    coordinator_server_act(server);
    return 0;
}

void shards_lose(struct peer *peer, const char *why)
{
    struct coordinator_server *server = peer->server;
    if (!peer->known)
        return;
    peer->known = false;
    server->shards[peer->shard].peer = NULL;
    coordinator_shard_lost(server->coordinator, peer->shard, why);
    coordinator_server_act(server);
}
