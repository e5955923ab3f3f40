#include "coordinator/server.h"

#include "coordinator/coordinator.h"
#include "coordinator/norms.h"
#include "coordinator/reporter.h"
#include "coordinator/saver.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const int64_t TICK = 100 * MILLISECONDS;
static const int64_t REPORT_EVERY = 1 * SECONDS;

enum {
    FIRST_TERM = COORDINATOR_FIRST_TERM,
    JOIN_MOST = 4096,
    ADDRESS_MOST = 300,
    WELCOME_MOST = 64 + PLAN_SHARDS_MOST * (ADDRESS_MOST + 64),
    NAME_SIZE = 64,
};

/* One connection, of a worker or of another shard. */
struct peer {
    struct coordinator_server *server;
    struct conn *conn;
    enum dialogue dialogue;
    uint64_t boot;
    bool known;    /* a worker has joined, a shard has registered */
    uint32_t rank; /* of a worker that has joined */
    uint32_t shard;
    char name[NAME_SIZE];
    struct peer *next, **place;
};

struct shard_place {
    struct peer *peer; /* NULL: shard 0, or not registered */
    uint64_t boot;
    char address[ADDRESS_MOST + 1];
};

struct coordinator_server {
    struct coordinator_server_options options;
    struct coordinator *coordinator;
    struct norms *norms;
    struct reporter *reporter; /* NULL: nobody to report to */
    struct saver *saver;
    struct timer *tick;
    struct instant reported;
    struct peer *peers;
    struct peer *ranks[COORDINATOR_MEMBERS_MOST];
    struct shard_place shards[PLAN_SHARDS_MOST];
    const char *addresses[PLAN_SHARDS_MOST];
    bool over_told;
    bool silence_logged[COORDINATOR_MEMBERS_MOST];
};

static struct instant now(void)
{
    return clock_now();
}

/* ---- frames out ---- */

static void send_empty(struct peer *peer, enum frame_type type)
{
    conn_send(peer->conn, &(struct frame){.type = (uint8_t)type, .term = FIRST_TERM}, NULL);
}

static void send_blocks(struct coordinator_server *server, enum frame_type type,
                        const struct coordinator_action *action)
{
    const struct peer *peer = server->ranks[action->rank];
    if (peer == NULL)
        return;
    conn_send(peer->conn,
              &(struct frame){.type = (uint8_t)type,
                              .term = FIRST_TERM,
                              .step = action->step,
                              .node = action->first,
                              .count = action->count},
              NULL);
}

static void send_share(struct coordinator_server *server, const struct coordinator_action *action)
{
    if (server->ranks[action->rank] == NULL)
        return;
    conn_send(server->ranks[action->rank]->conn,
              &(struct frame){.type = FRAME_SHARE,
                              .term = FIRST_TERM,
                              .step = action->step,
                              .node = action->first,
                              .offset = action->begin,
                              .value.counter = action->shares,
                              .count = action->count},
              NULL);
}

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

/* ---- actions ---- */

static void act(struct coordinator_server *server);

static void tell_over(struct coordinator_server *server)
{
    const struct report_finished *result = coordinator_result(server->coordinator);
    if (server->over_told || result == NULL || (server->reporter != NULL && !reporter_is_done(server->reporter)))
        return;
    server->over_told = true;
    server->options.over(server->options.arg, result->succeeded);
}

static void on_acknowledged(void *arg)
{
    tell_over(arg);
}

static void on_saved(void *arg, const struct report_model *model, const char *failure)
{
    struct coordinator_server *server = arg;
    coordinator_saved(server->coordinator, model, failure);
    act(server);
}

static void save(struct coordinator_server *server, uint64_t version)
{
    const struct coordinator_server_options *options = &server->options;
    if (options->model_path == NULL) {
        coordinator_saved(server->coordinator, NULL, NULL);
        return;
    }
    struct saver_options saver = {
        .net = options->net,
        .log = options->log,
        .plan = options->plan,
        .model = options->model,
        .shard = options->shard,
        .addresses = server->addresses,
        .term = FIRST_TERM,
        .version = version,
        .kernel = options->kernel,
        .path = options->model_path,
        .name = options->model_name,
        .done = on_saved,
        .arg = server,
    };
    struct error err = {0};
    if (saver_start(&server->saver, &saver, &err) < 0)
        coordinator_saved(server->coordinator, NULL, error_message(&err));
}

static void log_epoch(const struct coordinator_server *server, const struct report_epoch *epoch)
{
    char number[16], loss[32], validation[32], accuracy[32], seconds[32], parallelism[16];
    snprintf(number, sizeof number, "%u", epoch->epoch);
    snprintf(loss, sizeof loss, "%.4f", epoch->train_loss);
    snprintf(validation, sizeof validation, "%.4f", epoch->validation_loss);
    snprintf(accuracy, sizeof accuracy, "%.2f", epoch->accuracy);
    snprintf(seconds, sizeof seconds, "%.2f", epoch->duration_seconds);
    snprintf(parallelism, sizeof parallelism, "%u", epoch->parallelism);
    if (epoch->validated)
        log_info(server->options.log, "epoch done", "epoch", number, "trainLoss", loss, "validationLoss", validation,
                 "accuracy", accuracy, "parallelism", parallelism, "seconds", seconds, NULL);
    else
        log_info(server->options.log, "epoch done", "epoch", number, "trainLoss", loss, "parallelism", parallelism,
                 "seconds", seconds, NULL);
}

static void log_sync(const struct coordinator_server *server, const struct report_sync *sync)
{
    if (!sync->known)
        return;
    char steps[24], samples[24], duplicates[24], stale[24];
    snprintf(steps, sizeof steps, "%" PRIu64, sync->steps);
    snprintf(samples, sizeof samples, "%" PRIu64, sync->samples);
    snprintf(duplicates, sizeof duplicates, "%" PRIu64, sync->duplicates);
    snprintf(stale, sizeof stale, "%" PRIu64, sync->stale);
    log_info(server->options.log, "applied", "steps", steps, "samples", samples, "duplicates", duplicates, "stale",
             stale, NULL);
}

static void finish(struct coordinator_server *server)
{
    const struct report_finished *result = coordinator_result(server->coordinator);
    log_sync(server, &result->sync);
    if (result->succeeded)
        log_info(server->options.log, result->message, "model", result->has_model ? result->model.path : "not kept",
                 NULL);
    else
        log_error(server->options.log, result->message, "reason", result->reason, NULL);
    for (struct peer *peer = server->peers; peer != NULL; peer = peer->next)
        send_empty(peer, FRAME_FINISHED);
    if (server->reporter != NULL)
        reporter_flush(server->reporter);
    tell_over(server);
}

static void take_action(struct coordinator_server *server, const struct coordinator_action *action)
{
    switch (action->type) {
    case COORDINATOR_WELCOME:
        if (server->ranks[action->rank] != NULL)
            send_welcome(server->ranks[action->rank], action->rank);
        return;
    case COORDINATOR_DEAL:
        send_blocks(server, FRAME_DEAL, action);
        return;
    case COORDINATOR_SHARE:
        send_share(server, action);
        return;
    case COORDINATOR_LEASE:
        send_blocks(server, FRAME_LEASE, action);
        return;
    case COORDINATOR_VALIDATE:
        send_blocks(server, FRAME_VALIDATE, action);
        return;
    case COORDINATOR_EPOCH:
        log_epoch(server, coordinator_history(server->coordinator, action->first));
        if (server->reporter != NULL)
            reporter_flush(server->reporter);
        return;
    case COORDINATOR_SAVE:
        save(server, action->step);
        return;
    case COORDINATOR_FINISHED:
        finish(server);
        return;
    }
}

static void act(struct coordinator_server *server)
{
    struct coordinator_action action;
    while (coordinator_take(server->coordinator, &action))
        take_action(server, &action);
}

/* ---- workers ---- */

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

static void lose_worker(struct peer *peer, const char *why)
{
    struct coordinator_server *server = peer->server;
    if (!peer->known)
        return;
    peer->known = false;
    server->ranks[peer->rank] = NULL;
    server->silence_logged[peer->rank] = false;
    if (coordinator_result(server->coordinator) == NULL)
        log_info(server->options.log, "worker gone", "worker", peer->name, "reason", why, NULL);
    coordinator_lost(server->coordinator, peer->rank, now());
    act(server);
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
    char canary[SHA256_HEX_SIZE];
    hex_encode(options->canary, sizeof options->canary, canary);
    if (strcmp(join->canary, canary) != 0)
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
        send_empty(peer, FRAME_FINISHED);
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
        lose_worker(before, "it has joined again over another connection");
    }
    uint32_t rank = 0;
    if (coordinator_join(server->coordinator, peer->name, &rank, now(), err) < 0)
        return -1;
    peer->known = true;
    peer->rank = rank;
    server->ranks[rank] = peer;
    char text[16];
    snprintf(text, sizeof text, "%u", rank);
    log_info(server->options.log, "worker joined", "worker", peer->name, "rank", text, "address", conn_peer(peer->conn),
             NULL);
    act(server);
    return 0;
}

static int receive_from_worker(struct peer *peer, const struct frame *frame, const void *payload, struct error *err)
{
    struct coordinator_server *server = peer->server;
    if (frame->type == FRAME_JOIN && !peer->known)
        return receive_join(peer, payload, frame->length, err);
    if (!peer->known)
        return error_set(err, "a worker sent a frame of type %u before it joined", frame->type);
    switch (frame->type) {
    case FRAME_HEARTBEAT:
        coordinator_heartbeat(server->coordinator, peer->rank, frame->value.counter, now());
        break;
    case FRAME_VALIDATED:
        if (coordinator_validated(server->coordinator, peer->rank, frame->step, frame->node, frame->count,
                                  frame->value.loss, now(), err) < 0)
            return -1;
        break;
    case FRAME_LEAVE:
        lose_worker(peer, "it leaves");
        conn_close(peer->conn, NULL);
        return 0;
    default:
        return error_set(err, "a worker cannot send a frame of type %u", frame->type);
    }
    act(server);
    return 0;
}

/* ---- other shards ---- */

static int receive_register(struct peer *peer, const struct frame *frame, const void *payload, struct error *err)
{
    struct coordinator_server *server = peer->server;
    if (coordinator_result(server->coordinator) != NULL) {
        send_empty(peer, FRAME_FINISHED);
        return 0;
    }
    if (frame->node == 0 || frame->node >= server->options.plan->shards)
        return error_set(err, "shard %u cannot register: those of this job are 1 to %u", frame->node,
                         server->options.plan->shards - 1);
    struct shard_place *place = &server->shards[frame->node];
    if (coordinator_shard_registered(server->coordinator, frame->node, now(), err) < 0)
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
    memcpy(place->address, payload, frame->length);
    place->address[frame->length] = '\0';
    send_empty(peer, FRAME_ACCEPTED);
    char text[16];
    snprintf(text, sizeof text, "%u", frame->node);
    log_info(server->options.log, "parameter server registered", "shard", text, "address", place->address, NULL);
    act(server);
    return 0;
}

/* All shards have measured a round: what it came to goes to all of them. */
static int send_commit(struct coordinator_server *server, uint64_t step, uint32_t round, struct error *err)
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
    return added == 1 ? send_commit(server, frame->step, frame->count, err) : added;
}

static int receive_from_shard(struct peer *peer, const struct frame *frame, const void *payload, struct error *err)
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
                    ? coordinator_shard_done(server->coordinator, peer->shard, frame->step, 0, now(), err)
                    : coordinator_task_done(server->coordinator, peer->shard, frame->step, 0, now(), err);
    if (taken < 0)
        return -1;
    act(server);
    return 0;
}

static void lose_shard(struct peer *peer, const char *why)
{
    struct coordinator_server *server = peer->server;
    if (!peer->known)
        return;
    peer->known = false;
    server->shards[peer->shard].peer = NULL;
    coordinator_shard_lost(server->coordinator, peer->shard, why);
    act(server);
}

/* ---- connections ---- */

static void *peer_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    const struct peer *peer = arg;
    bool join = peer->dialogue == DIALOGUE_CONTROL && frame->type == FRAME_JOIN && frame->length <= JOIN_MOST;
    bool reg = peer->dialogue == DIALOGUE_REGISTER && frame->type == FRAME_REGISTER && frame->length <= ADDRESS_MOST;
    bool norms = peer->dialogue == DIALOGUE_REGISTER && frame->type == FRAME_NORMS && peer->known;
    if (!join && !reg && !norms) {
        error_set(err, "a frame of type %u cannot have a payload of %u bytes here", frame->type, frame->length);
        return NULL;
    }
    void *place = conn_scratch(conn, frame->length);
    if (place == NULL)
        error_set(err, "receive a frame: no memory");
    return place;
}

static int peer_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                         struct error *err)
{
    struct peer *peer = arg;
    (void)conn;
    bool first = frame->type == FRAME_JOIN || frame->type == FRAME_REGISTER;
    if (frame->term != FIRST_TERM && !(first && frame->term == 0))
        return error_set(err, "a frame of term %u, and this coordinator's is %u", frame->term, FIRST_TERM);
    if (first && frame->length == 0)
        return error_set(err, "a frame of type %u needs a payload", frame->type);
    int result = peer->dialogue == DIALOGUE_CONTROL ? receive_from_worker(peer, frame, payload, err)
                                                    : receive_from_shard(peer, frame, payload, err);
    if (result < 0)
        log_warn(peer->server->options.log, "refused", "peer", conn_peer(peer->conn), "reason", error_message(err),
                 NULL);
    return result;
}

static void peer_closed(void *arg, struct conn *conn, const char *reason)
{
    struct peer *peer = arg;
    (void)conn;
    if (peer->dialogue == DIALOGUE_CONTROL)
        lose_worker(peer, reason);
    else
        lose_shard(peer, reason);
    *peer->place = peer->next;
    if (peer->next != NULL)
        peer->next->place = peer->place;
    free(peer);
}

static const struct conn_handlers peer_handlers = {
    .place = peer_place,
    .received = peer_received,
    .closed = peer_closed,
};

void coordinator_server_accept(struct coordinator_server *server, struct conn *conn, enum dialogue dialogue,
                               uint64_t peer_boot)
{
    struct peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL) {
        conn_close(conn, "the coordinator has no memory");
        return;
    }
    *peer = (struct peer){.server = server, .conn = conn, .dialogue = dialogue, .boot = peer_boot};
    peer->next = server->peers;
    peer->place = &server->peers;
    if (peer->next != NULL)
        peer->next->place = &peer->next;
    server->peers = peer;
    conn_set_handlers(conn, &peer_handlers, peer);
}

static void note_sync(struct coordinator_server *server)
{
    if (server->options.sync != NULL)
        coordinator_note_sync(server->coordinator, server->options.sync);
}

void coordinator_server_step_done(struct coordinator_server *server, uint64_t step, double loss)
{
    struct error err = {0};
    note_sync(server);
    if (coordinator_shard_done(server->coordinator, 0, step, loss, now(), &err) < 0)
        coordinator_fail(server->coordinator, "InternalError", error_message(&err));
    act(server);
}

void coordinator_server_task_done(struct coordinator_server *server, uint64_t task, double loss)
{
    struct error err = {0};
    note_sync(server);
    if (coordinator_task_done(server->coordinator, 0, task, loss, now(), &err) < 0)
        coordinator_fail(server->coordinator, "InternalError", error_message(&err));
    act(server);
}

void coordinator_server_measured(struct coordinator_server *server, uint64_t step, uint32_t round,
                                 const double *measures, uint32_t count)
{
    struct error err = {0};
    int added = norms_add(server->norms, 0, step, round, 0, measures, count * sizeof *measures, &err);
    if (added < 0 || (added == 1 && send_commit(server, step, round, &err) < 0))
        coordinator_server_fail(server, "InternalError", error_message(&err));
}

bool coordinator_server_has_peers(const struct coordinator_server *server)
{
    return server->peers != NULL;
}

void coordinator_server_fail(struct coordinator_server *server, const char *reason, const char *sentence)
{
    coordinator_fail(server->coordinator, reason, sentence);
    act(server);
}

/* ---- time ---- */

static void log_silence(struct coordinator_server *server)
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

static void on_tick(void *arg)
{
    struct coordinator_server *server = arg;
    net_timer_set(server->tick, TICK);
    note_sync(server);
    coordinator_tick(server->coordinator, now());
    log_silence(server);
    act(server);
    if (server->reporter == NULL)
        return;
    reporter_flush(server->reporter);
    if (instant_since(now(), server->reported) < REPORT_EVERY)
        return;
    server->reported = now();
    struct report_progress progress;
    coordinator_progress(server->coordinator, now(), &progress);
    reporter_progress(server->reporter, &progress);
}

/* ---- life ---- */

static int start_reporter(struct coordinator_server *server, struct error *err)
{
    const struct coordinator_server_options *options = &server->options;
    if (options->report_fd < 0 && options->operator_address == NULL)
        return 0;
    struct reporter_options reporter = {
        .net = options->net,
        .coordinator = server->coordinator,
        .log = options->log,
        .acknowledged = on_acknowledged,
        .arg = server,
        .hello.term = FIRST_TERM,
    };
    memcpy(reporter.token, options->token, sizeof reporter.token);
    struct report_hello *hello = &reporter.hello;
    snprintf(hello->job_namespace, sizeof hello->job_namespace, "%s", options->plan->job_namespace);
    snprintf(hello->job_name, sizeof hello->job_name, "%s", options->plan->job_name);
    snprintf(hello->job_uid, sizeof hello->job_uid, "%s", options->plan->job_uid);
    snprintf(hello->pod, sizeof hello->pod, "%s", options->pod);
    snprintf(hello->pod_uid, sizeof hello->pod_uid, "%s", options->pod_uid);
    snprintf(hello->boot, sizeof hello->boot, "%016" PRIx64, options->boot_id);
    snprintf(hello->kernel, sizeof hello->kernel, "%s", options->kernel);
    if (options->report_fd >= 0)
        return reporter_new_pipe(&server->reporter, &reporter, options->report_fd, err);
    return reporter_new_operator(&server->reporter, &reporter, options->operator_address, err);
}

int coordinator_server_new(struct coordinator_server **out, const struct coordinator_server_options *options,
                           struct error *err)
{
    cleanup_coordinator_server struct coordinator_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return error_set(err, "start the coordinator: no memory");
    server->options = *options;
    if (options->model_path != NULL && saver_try(options->model_path, err) < 0)
        return -1;
    server->coordinator =
        coordinator_new(options->plan, options->train_samples, options->test_samples, FIRST_TERM, now());
    server->tick = net_timer_new(options->net, on_tick, server);
    if (server->coordinator == NULL || server->tick == NULL)
        return error_set(err, "start the coordinator: no memory");
    if (norms_new(&server->norms, options->plan, model_network(options->model), err) < 0)
        return -1;
    for (uint32_t shard = 0; shard < PLAN_SHARDS_MOST; shard++)
        server->addresses[shard] = server->shards[shard].address;
    server->shards[0].boot = options->boot_id;
    snprintf(server->shards[0].address, sizeof server->shards[0].address, "%s", options->address);
    if (coordinator_shard_registered(server->coordinator, 0, now(), err) < 0 || start_reporter(server, err) < 0)
        return -1;
    net_timer_set(server->tick, TICK);
    *out = move(server);
    return 0;
}

void coordinator_server_free(struct coordinator_server *server)
{
    if (server == NULL)
        return;
    while (server->peers != NULL) {
        struct peer *peer = server->peers;
        server->peers = peer->next;
        free(peer);
    }
    reporter_free(server->reporter);
    saver_free(server->saver);
    net_timer_free(server->tick);
    coordinator_free(server->coordinator);
    norms_free(server->norms);
    free(server);
}
