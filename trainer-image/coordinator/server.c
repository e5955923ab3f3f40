#include "coordinator/peers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const int64_t TICK = 100 * MILLISECONDS;
static const int64_t REPORT_EVERY = 1 * SECONDS;

/* ---- actions ---- */

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
    coordinator_server_act(server);
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
    char staleness[REPORT_STALENESS_BUCKETS * 22] = "";
    for (size_t i = 0, length = 0; i < REPORT_STALENESS_BUCKETS; i++)
        length += (size_t)snprintf(staleness + length, sizeof staleness - length, "%s%" PRIu64, i == 0 ? "" : ",",
                                   sync->staleness[i]);
    log_info(server->options.log, "applied", "steps", steps, "samples", samples, "duplicates", duplicates, "stale",
             stale, "staleness", staleness, NULL);
}

static void finish(struct coordinator_server *server)
{
    const struct report_finished *result = coordinator_result(server->coordinator);
    log_sync(server, &result->sync);
    if (result->succeeded)
        log_info(server->options.log, result->message, "model", result->has_model ? result->model.path : "not kept",
                 NULL);
    else if (server->options.report_fd >= 0) /* who listens there says it beside this log */
        log_info(server->options.log, result->message, "reason", result->reason, NULL);
    else
        log_error(server->options.log, result->message, "reason", result->reason, NULL);
    for (struct peer *peer = server->peers; peer != NULL; peer = peer->next)
        peer_send_empty(peer, FRAME_FINISHED);
    if (server->reporter != NULL)
        reporter_flush(server->reporter);
    tell_over(server);
}

static void take_action(struct coordinator_server *server, const struct coordinator_action *action)
{
    switch (action->type) {
    case COORDINATOR_WELCOME:
    case COORDINATOR_DEAL:
    case COORDINATOR_SHARE:
    case COORDINATOR_LEASE:
    case COORDINATOR_VALIDATE:
        workers_send(server, action);
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

void coordinator_server_act(struct coordinator_server *server)
{
    struct coordinator_action action;
    while (coordinator_take(server->coordinator, &action))
        take_action(server, &action);
}

/* ---- connections ---- */

bool peer_computes(const char *canary, const uint8_t expected[SHA256_SIZE])
{
    char hex[SHA256_HEX_SIZE];
    hex_encode(expected, SHA256_SIZE, hex);
    return strcmp(canary, hex) == 0;
}

void peer_send_empty(struct peer *peer, enum frame_type type)
{
    conn_send(peer->conn, &(struct frame){.type = (uint8_t)type, .term = FIRST_TERM}, NULL);
}

static void *peer_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    const struct peer *peer = arg;
    bool join = peer->dialogue == DIALOGUE_CONTROL && frame->type == FRAME_JOIN && frame->length <= JOIN_MOST;
    bool reg = peer->dialogue == DIALOGUE_REGISTER && frame->type == FRAME_REGISTER;
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
    int result = peer->dialogue == DIALOGUE_CONTROL ? workers_receive(peer, frame, payload, err)
                                                    : shards_receive(peer, frame, payload, err);
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
        workers_lose(peer, reason);
    else
        shards_lose(peer, reason);
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
    if (coordinator_shard_done(server->coordinator, 0, step, loss, clock_now(), &err) < 0)
        coordinator_fail(server->coordinator, "InternalError", error_message(&err));
    coordinator_server_act(server);
}

void coordinator_server_task_done(struct coordinator_server *server, uint64_t task, double loss)
{
    struct error err = {0};
    note_sync(server);
    if (coordinator_task_done(server->coordinator, 0, task, loss, clock_now(), &err) < 0)
        coordinator_fail(server->coordinator, "InternalError", error_message(&err));
    coordinator_server_act(server);
}

void coordinator_server_measured(struct coordinator_server *server, uint64_t step, uint32_t round,
                                 const double *measures, uint32_t count)
{
    struct error err = {0};
    int added = norms_add(server->norms, 0, step, round, 0, measures, count * sizeof *measures, &err);
    if (added < 0 || (added == 1 && shards_commit(server, step, round, &err) < 0))
        coordinator_server_fail(server, "InternalError", error_message(&err));
}

bool coordinator_server_has_peers(const struct coordinator_server *server)
{
    return server->peers != NULL;
}

void coordinator_server_fail(struct coordinator_server *server, const char *reason, const char *sentence)
{
    coordinator_fail(server->coordinator, reason, sentence);
    coordinator_server_act(server);
}

/* ---- time ---- */

static void on_tick(void *arg)
{
    struct coordinator_server *server = arg;
    net_timer_set(server->tick, TICK);
    note_sync(server);
    coordinator_tick(server->coordinator, clock_now());
    workers_log_silence(server);
    coordinator_server_act(server);
    if (server->reporter == NULL)
        return;
    reporter_flush(server->reporter);
    if (instant_since(clock_now(), server->reported) < REPORT_EVERY)
        return;
    server->reported = clock_now();
    struct report_progress progress;
    coordinator_progress(server->coordinator, clock_now(), &progress);
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
        coordinator_new(options->plan, options->train_samples, options->test_samples, FIRST_TERM, clock_now());
    server->tick = net_timer_new(options->net, on_tick, server);
    if (server->coordinator == NULL || server->tick == NULL)
        return error_set(err, "start the coordinator: no memory");
    if (norms_new(&server->norms, options->plan, model_network(options->model), err) < 0)
        return -1;
    for (uint32_t shard = 0; shard < PLAN_SHARDS_MOST; shard++)
        server->addresses[shard] = server->shards[shard].address;
    server->shards[0].boot = options->boot_id;
    snprintf(server->shards[0].address, sizeof server->shards[0].address, "%s", options->address);
    if (coordinator_shard_registered(server->coordinator, 0, clock_now(), err) < 0 || start_reporter(server, err) < 0)
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
