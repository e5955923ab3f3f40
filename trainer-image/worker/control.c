/* The dialogue with the coordinator: joining, deals in, heartbeats out. */
#include "worker/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t HEARTBEAT = 500 * MILLISECONDS;
enum { WELCOME_MOST = 64 * 1024 };

static void forget_coordinator(struct worker *worker)
{
    worker->joined = false;
    worker->generation++;
    work_clear(&worker->work);
    if (worker->leases != NULL)
        leases_forget(worker, false);
    net_timer_set(worker->heartbeat, -1);
}

static void send_join(struct worker *worker)
{
    const struct worker_options *options = &worker->options;
    char canary[SHA256_HEX_SIZE];
    hex_encode(options->canary, sizeof options->canary, canary);
    cleanup_json cJSON *join = cJSON_CreateObject();
    cJSON_AddStringToObject(join, "pod", options->pod);
    cJSON_AddStringToObject(join, "kernel", options->kernel);
    cJSON_AddStringToObject(join, "canary", canary);
    cJSON_AddNumberToObject(join, "trainSamples", (double)dataset_samples(options->train));
    cJSON_AddNumberToObject(join, "testSamples", options->test != NULL ? (double)dataset_samples(options->test) : 0);
    cleanup_free char *text = json_print(join);
    if (text == NULL) {
        worker_fail(worker, "join the job: no memory");
        return;
    }
    conn_send_bytes(worker->control, &(struct frame){.type = FRAME_JOIN}, text, strlen(text));
}

static void control_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    struct worker *worker = arg;
    (void)conn;
    (void)dialogue;
    if (peer_boot != worker->coordinator_boot && worker->coordinator_boot != 0) {
        for (uint32_t shard = 0; shard < worker->options.plan->shards; shard++)
            link_drop(&worker->links[shard]);
        if (worker->leases != NULL)
            leases_forget(worker, true);
        else
            parameters_forget(worker->parameters);
        if (worker->rows != NULL)
            rows_forget(worker->rows);
    }
    worker->coordinator_boot = peer_boot;
    send_join(worker);
}

static int take_shard(struct worker *worker, uint32_t shard, const cJSON *item, struct error *err)
{
    const char *address = json_string(item, "address", "");
    const char *boot = json_string(item, "boot", "");
    char *end = NULL;
    uint64_t boot_id = strtoull(boot, &end, 16);
    if (address[0] == '\0' || strlen(address) > ADDRESS_MOST || strlen(boot) != 16 || *end != '\0')
        return error_set(err, "the coordinator's WELCOME does not say where shard %u is", shard);
    link_set(&worker->links[shard], address, boot_id);
    return 0;
}

/* The job computes with other kernels than this process: it starts again with the right ones, or cannot take part. */
static int change_kernel(struct worker *worker, const char *kernel, struct error *err)
{
    log_info(worker->options.log, "starting again with the job's kernels", "kernel", kernel, NULL);
    struct error failure = {0};
    if (numerics_pin_kernel(kernel, worker->options.argv, &failure) < 0)
        worker_fail(worker, "%s", error_message(&failure));
    else
        worker_fail(worker, "this process computes with kernel %s and joined as %s", kernel, worker->options.kernel);
    return error_set(err, "%s", error_message(&worker->failure));
}

static int receive_welcome(struct worker *worker, const struct frame *frame, const void *payload, struct error *err)
{
    cleanup_json cJSON *welcome = json_parse(payload, frame->length, "WELCOME", err);
    if (welcome == NULL)
        return -1;
    const char *kernel = json_string(welcome, "kernel", "");
    if (frame->node == WIRE_NO_RANK)
        return change_kernel(worker, kernel, err);
    const cJSON *shards = json_at(welcome, "shards");
    if (cJSON_GetArraySize(shards) != (int)worker->options.plan->shards)
        return error_set(err, "the coordinator's WELCOME names %d shards instead of %u", cJSON_GetArraySize(shards),
                         worker->options.plan->shards);
    worker->term = frame->term;
    for (uint32_t shard = 0; shard < worker->options.plan->shards; shard++)
        if (take_shard(worker, shard, cJSON_GetArrayItem(shards, (int)shard), err) < 0)
            return -1;
    worker->joined = true;
    net_timer_set(worker->heartbeat, HEARTBEAT);
    char rank[16];
    snprintf(rank, sizeof rank, "%u", frame->node);
    log_info(worker->options.log, "joined", "rank", rank, "coordinator", worker->options.coordinator, NULL);
    return 0;
}

static int receive_deal(struct worker *worker, const struct frame *frame, struct error *err)
{
    const struct plan *plan = worker->options.plan;
    struct deal deal = {
        .validate = frame->type == FRAME_VALIDATE, .step = frame->step, .first = frame->node, .count = frame->count};
    uint32_t blocks = worker->gradient == NULL ? 0 : plan->blocks;
    if (deal.validate)
        blocks = worker->validator != NULL ? validator_blocks(worker->validator) : 0;
    uint64_t steps = schedule_of(plan, dataset_samples(worker->options.train)).steps;
    if (deal.count == 0 || deal.count > blocks || deal.first > blocks - deal.count ||
        deal.step >= steps + (deal.validate ? 1 : 0))
        return error_set(err, "the coordinator dealt blocks %u to %u of step %llu, which the plan does not have",
                         deal.first, deal.first + deal.count, (unsigned long long)deal.step);
    if (work_add(&worker->work, &deal, err) < 0)
        return -1;
    work_drop_over(&worker->work, worker->parameters);
    return 0;
}

static int receive_finished(struct worker *worker)
{
    log_info(worker->options.log, "the job is over", NULL);
    worker->finished = true;
    worker->generation++;
    work_clear(&worker->work);
    if (worker->leases != NULL)
        leases_forget(worker, false);
    net_timer_set(worker->heartbeat, -1);
    if (worker->options.exit_when_done)
        worker->ended = true;
    return 0;
}

static void *control_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    const struct worker *worker = arg;
    if (frame->type != FRAME_WELCOME || worker->joined || frame->length > WELCOME_MOST) {
        error_set(err, "the coordinator cannot send a frame of type %u with %u bytes now", frame->type, frame->length);
        return NULL;
    }
    void *place = conn_scratch(conn, frame->length);
    if (place == NULL)
        error_set(err, "receive WELCOME: no memory");
    return place;
}

static int control_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                            struct error *err)
{
    struct worker *worker = arg;
    (void)conn;
    if (frame->term < worker->term)
        return error_set(err, "a frame of term %u, and term %u is known", frame->term, worker->term);
    if (frame->type == FRAME_FINISHED)
        return receive_finished(worker);
    if (frame->type == FRAME_WELCOME && frame->length > 0)
        return receive_welcome(worker, frame, payload, err);
    if (worker->joined && frame->term == worker->term && (frame->type == FRAME_DEAL || frame->type == FRAME_VALIDATE))
        return receive_deal(worker, frame, err);
    if (worker->joined && frame->term == worker->term && frame->type == FRAME_SHARE)
        return shares_add(worker, frame, err);
    if (worker->joined && frame->term == worker->term && frame->type == FRAME_LEASE)
        return leases_add(worker, frame, err);
    return error_set(err, "the coordinator cannot send a frame of type %u now", frame->type);
}

/* Every 300 ms would be too often, and never too seldom. */
static void log_waiting(struct worker *worker, const char *reason)
{
    if (strcmp(worker->waiting_for, reason) == 0)
        return;
    snprintf(worker->waiting_for, sizeof worker->waiting_for, "%s", reason);
    log_info(worker->options.log, "cannot reach the coordinator yet", "coordinator", worker->options.coordinator,
             "reason", reason, NULL);
}

static void control_closed(void *arg, struct conn *conn, const char *reason)
{
    struct worker *worker = arg;
    worker->control = NULL;
    if (worker->finished || worker->ended)
        return;
    if (conn_refused(conn)) {
        worker_fail(worker, "the coordinator refused this worker: %s", reason);
        return;
    }
    if (worker->joined)
        log_warn(worker->options.log, "lost the coordinator", "reason", reason, NULL);
    else
        log_waiting(worker, reason);
    forget_coordinator(worker);
    net_timer_set(worker->dial, WORKER_RETRY);
}

static const struct conn_handlers control_handlers = {
    .ready = control_ready,
    .place = control_place,
    .received = control_received,
    .closed = control_closed,
};

void control_dial(void *arg)
{
    struct worker *worker = arg;
    worker->control =
        conn_dial(worker->options.net, worker->options.coordinator, DIALOGUE_CONTROL, &control_handlers, worker);
    if (worker->control == NULL)
        net_timer_set(worker->dial, WORKER_RETRY);
}

static void beat(void *arg)
{
    struct worker *worker = arg;
    if (!worker->joined || worker->control == NULL)
        return;
    const uint64_t settled = worker->work.settled + (worker->shares != NULL ? shares_progress(worker->shares) : 0);
    conn_send(worker->control, &(struct frame){.type = FRAME_HEARTBEAT, .term = worker->term, .value.counter = settled},
              NULL);
    net_timer_set(worker->heartbeat, HEARTBEAT);
}

int control_init(struct worker *worker, struct error *err)
{
    worker->dial = net_timer_new(worker->options.net, control_dial, worker);
    worker->heartbeat = net_timer_new(worker->options.net, beat, worker);
    if (worker->dial == NULL || worker->heartbeat == NULL)
        return error_set(err, "start the worker: no memory");
    return 0;
}
