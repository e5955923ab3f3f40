#include "coordinator/peers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- to a worker ---- */

/* WIRE_NO_RANK: it is to start again with the job's kernels. */
static void send_welcome(struct peer *peer, uint32_t rank)
{
    struct coordinator_server *server = peer->server;
    cleanup_json cJSON *welcome = cJSON_CreateObject();
    cJSON_AddStringToObject(welcome, "kernel", server->options.kernel);
    cJSON *shards = cJSON_AddArrayToObject(welcome, "shards");
    for (uint32_t shard = 0; shard < server->options.plan->shards && rank != WIRE_NO_RANK; shard++) {
        char boot[17];
        snprintf(boot, sizeof boot, "%016" PRIx64, server->shards[shard].boot);
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "address", server->shards[shard].address);
        cJSON_AddStringToObject(item, "boot", boot);
        cJSON_AddItemToArray(shards, item);
    }
    cleanup_free char *text = json_print(welcome);
    if (text == NULL) {
        conn_close(peer->conn, "the coordinator has no memory");
        return;
    }
    conn_send_bytes(peer->conn, &(struct frame){.type = FRAME_WELCOME, .term = FIRST_TERM, .node = rank}, text,
                    strlen(text));
}

void workers_send(struct coordinator_server *server, const struct coordinator_action *action)
{
    static const enum frame_type types[] = {
        [COORDINATOR_DEAL] = FRAME_DEAL,
        [COORDINATOR_SHARE] = FRAME_SHARE,
        [COORDINATOR_LEASE] = FRAME_LEASE,
        [COORDINATOR_VALIDATE] = FRAME_VALIDATE,
    };
    struct peer *peer = server->ranks[action->rank];
    if (peer == NULL)
        return;
    if (action->type == COORDINATOR_WELCOME) {
        send_welcome(peer, action->rank);
        return;
    }
    struct frame frame = {.type = (uint8_t)types[action->type],
                          .term = FIRST_TERM,
                          .step = action->step,
                          .node = action->first,
                          .count = action->count};
    if (action->type == COORDINATOR_SHARE) {
        frame.offset = action->begin;
        frame.value.counter = action->shares;
    }
    conn_send(peer->conn, &frame, NULL);
}

/* ---- from a worker ---- */

struct join {
    const char *pod, *kernel, *canary;
    int64_t train_samples, test_samples;
};

static struct peer *same_boot(const struct coordinator_server *server, const struct peer *peer)
{
    for (struct peer *other = server->peers; other != NULL; other = other->next)
        if (other != peer && other->dialogue == peer->dialogue && other->boot == peer->boot && other->known)
            return other;
    return NULL;
}

void workers_lose(struct peer *peer, const char *why)
{
    struct coordinator_server *server = peer->server;
    if (!peer->known)
        return;
    peer->known = false;
    server->ranks[peer->rank] = NULL;
    server->silence_logged[peer->rank] = false;
    if (coordinator_result(server->coordinator) == NULL)
        log_info(server->options.log, "worker gone", "worker", peer->name, "reason", why, NULL);
    coordinator_lost(server->coordinator, peer->rank, clock_now());
    coordinator_server_act(server);
}

/* Would this worker train the same model? */
static int judge(const struct coordinator_server *server, const struct join *join, struct error *err)
{
    const struct coordinator_server_options *options = &server->options;
    if (join->train_samples != (int64_t)options->train_samples || join->test_samples != (int64_t)options->test_samples)
        return error_set(err,
                         "worker %s found %" PRId64 " training and %" PRId64 " test samples in the data set, and the "
                         "coordinator %" PRIu64 " and %" PRIu64 ": give every node the same files",
                         join->pod, join->train_samples, join->test_samples, options->train_samples,
                         options->test_samples);
    if (!peer_computes(join->canary, options->canary))
        return error_set(err,
                         "worker %s computes other bits than the coordinator, though both use OpenBLAS's %s kernels: "
                         "run one trainer image everywhere, and choose nodes with like CPUs "
                         "(spec.template.spec.nodeSelector)",
                         join->pod, options->kernel);
    return 0;
}

static int receive_join(struct peer *peer, const void *payload, size_t length, struct error *err)
{
    struct coordinator_server *server = peer->server;
    cleanup_json cJSON *json = json_parse(payload, length, "JOIN", err);
    if (json == NULL)
        return -1;
    struct join join = {
        .pod = json_string(json, "pod", ""),
        .kernel = json_string(json, "kernel", ""),
        .canary = json_string(json, "canary", ""),
        .train_samples = json_int(json, "trainSamples", -1),
        .test_samples = json_int(json, "testSamples", -1),
    };
    snprintf(peer->name, sizeof peer->name, "%s", join.pod);
    if (coordinator_result(server->coordinator) != NULL) {
        peer_send_empty(peer, FRAME_FINISHED);
        return 0;
    }
    if (strcmp(join.kernel, server->options.kernel) != 0) {
        log_info(server->options.log, "worker has other kernels and is to start again with the job's", "worker",
                 peer->name, "its", join.kernel, "job's", server->options.kernel, NULL);
        send_welcome(peer, WIRE_NO_RANK);
        return 0;
    }
    if (judge(server, &join, err) < 0)
        return -1;
    struct peer *before = same_boot(server, peer);
    if (before != NULL) {
        conn_close(before->conn, "the same process has joined again");
        workers_lose(before, "it has joined again over another connection");
    }
    uint32_t rank = 0;
    if (coordinator_join(server->coordinator, peer->name, &rank, clock_now(), err) < 0)
        return -1;
    peer->known = true;
    peer->rank = rank;
    server->ranks[rank] = peer;
    char text[16];
    snprintf(text, sizeof text, "%u", rank);
    log_info(server->options.log, "worker joined", "worker", peer->name, "rank", text, "address", conn_peer(peer->conn),
             NULL);
    coordinator_server_act(server);
    return 0;
}

int workers_receive(struct peer *peer, const struct frame *frame, const void *payload, struct error *err)
{
    struct coordinator_server *server = peer->server;
    if (frame->type == FRAME_JOIN && !peer->known)
        return receive_join(peer, payload, frame->length, err);
    if (!peer->known)
        return error_set(err, "a worker sent a frame of type %u before it joined", frame->type);
    switch (frame->type) {
    case FRAME_HEARTBEAT:
        coordinator_heartbeat(server->coordinator, peer->rank, frame->value.counter, clock_now());
        break;
    case FRAME_VALIDATED:
        if (coordinator_validated(server->coordinator, peer->rank, frame->step, frame->node, frame->count,
                                  frame->value.loss, clock_now(), err) < 0)
            return -1;
        break;
    case FRAME_LEAVE:
        workers_lose(peer, "it leaves");
        conn_close(peer->conn, NULL);
        return 0;
    default:
        return error_set(err, "a worker cannot send a frame of type %u", frame->type);
    }
    coordinator_server_act(server);
    return 0;
}

/* ---- about workers ---- */

void workers_log_silence(struct coordinator_server *server)
{
    for (uint32_t rank = 0; rank < COORDINATOR_MEMBERS_MOST; rank++) {
        const struct peer *peer = server->ranks[rank];
        bool silent = peer != NULL && coordinator_is_silent(server->coordinator, rank);
        if (silent && !server->silence_logged[rank])
            log_warn(server->options.log, "worker is silent, others do its work", "worker", peer->name, NULL);
        else if (peer != NULL && !silent && server->silence_logged[rank])
            log_info(server->options.log, "worker is heard again", "worker", peer->name, NULL);
        server->silence_logged[rank] = silent;
    }
}
