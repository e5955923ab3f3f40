#include "worker/shares.h"

#include "numerics/numerics.h"
#include "optimizer/optimizer.h"
#include "worker/batch.h"
#include "worker/state.h"

#include <stdlib.h>
#include <string.h>

struct shares {
    struct schedule schedule;
    struct batch *batch;
    struct optimizer *optimizer;
    uint64_t parameters;
    float *theta;                         /* [parameters] */
    float *states[OPTIMIZER_STATES_MOST]; /* the same, or NULL */
    uint32_t done;                        /* steps of the share that is being computed */

    /* Of the same: */
    struct worker *worker;
    uint64_t generation, round;
};

int shares_new(struct shares **out, struct worker *worker, struct error *err)
{
    const struct worker_options *options = &worker->options;
    const struct plan_optimizer *plan = &options->plan->training.optimizer;
    const struct network *network = model_network(options->model);
    struct shares *shares = calloc(1, sizeof *shares);
    if (shares == NULL)
        return error_set(err, "make room for local steps: no memory");
    *out = shares; /* worker_free() frees what there is */
    shares->worker = worker;
    shares->schedule = schedule_of(options->plan, dataset_samples(options->train));
    shares->parameters = network->parameters;
    if (batch_new(&shares->batch, options->plan, options->model, options->train, err) < 0 ||
        optimizer_new(&shares->optimizer, plan, network->tensors, network->tensor_count, network_chunk(network), err) <
            0)
        return -1;
    shares->theta = vector_new(shares->parameters);
    bool failed = shares->theta == NULL;
    for (uint32_t i = 0; i < optimizer_states(plan); i++) {
        shares->states[i] = vector_new(shares->parameters);
        failed = failed || shares->states[i] == NULL;
    }
    if (failed)
        return error_set(err, "make room for %llu parameters and what their optimizer keeps: no memory",
                         (unsigned long long)shares->parameters);
    return 0;
}

void shares_free(struct shares *shares)
{
    if (shares == NULL)
        return;
    for (uint32_t i = 0; i < OPTIMIZER_STATES_MOST; i++)
        free(shares->states[i]);
    free(shares->theta);
    optimizer_free(shares->optimizer);
    batch_free(shares->batch);
    free(shares);
}

int shares_add(struct worker *worker, const struct frame *frame, struct error *err)
{
    const struct shares *shares = worker->shares;
    const uint64_t most = PLAN_BLOCKS_MOST;
    if (shares == NULL || frame->value.counter == 0 || frame->value.counter > most ||
        frame->node >= frame->value.counter || frame->count == 0 || frame->offset >= shares->schedule.steps ||
        frame->count > shares->schedule.steps - frame->offset || frame->step > frame->offset)
        return error_set(err,
                         "the coordinator dealt share %u of round %llu, %u steps from %llu on, which the plan "
                         "does not have",
                         frame->node, (unsigned long long)frame->step, frame->count, (unsigned long long)frame->offset);
    const struct deal deal = {.step = frame->step,
                              .first = frame->node,
                              .count = frame->count,
                              .begin = frame->offset,
                              .shares = (uint32_t)frame->value.counter};
    if (work_add(&worker->work, &deal, err) < 0)
        return -1;
    work_drop_over(&worker->work, worker->parameters);
    return 0;
}

static bool go_on(void *arg)
{
    const struct shares *shares = arg;
    return worker_is_wanted(shares->worker, shares->generation) &&
           !parameters_over(shares->worker->parameters, shares->round);
}

static bool local_steps(struct shares *shares, const struct deal *deal, uint32_t *samples, double *loss)
{
    const struct plan_optimizer *plan = &shares->worker->options.plan->training.optimizer;
    const struct batch_hooks hooks = {.go_on = go_on, .arg = shares};
    for (shares->done = 0; shares->done < deal->count; shares->done++) {
        const uint64_t number = deal->begin + shares->done;
        const uint32_t count = schedule_step(&shares->schedule, number).count;
        double losses = 0;
        const float *sum = batch_compute(shares->batch, number, shares->theta, &hooks, &losses);
        if (sum == NULL)
            return false;
        struct optimizer_step step = optimizer_step(plan, &shares->schedule, number, shares->done + 1, count, 1);
        optimizer_update(shares->optimizer, &step, shares->theta, shares->theta, shares->states, sum);
        *samples += count;
        *loss += losses;
    }
    return true;
}

static void push(struct worker *worker, const struct deal *deal, const struct chunk *chunk, uint32_t samples,
                 double loss)
{
    const struct link *link = &worker->links[chunk->shard];
    if (!link->ready)
        return; /* computed and pushed again when the connection is back */
    const uint32_t bytes = parameters_bytes(worker->parameters, chunk);
    struct payload *payload = payload_new(worker->options.net, bytes);
    if (payload == NULL) {
        worker_fail(worker, "push parameters: no memory");
        return;
    }
    const float *theta = worker->shares->theta + chunk->offset;
    if (worker->options.plan->wire == PLAN_BFLOAT16)
        vector_bfloat16_pack((uint16_t *)(void *)payload->data, theta, chunk->count);
    else
        memcpy(payload->data, theta, bytes);
    const struct frame frame = {.type = FRAME_PUSH_SHARE,
                                .term = worker->term,
                                .step = deal->step,
                                .node = deal->shares << 16 | deal->first,
                                .count = samples,
                                .offset = chunk->offset,
                                .value.loss = loss};
    conn_send(link->conn, &frame, payload);
    payload_unref(worker->options.net, payload);
}

bool shares_compute(struct worker *worker, const struct deal *deal, const float *params)
{
    struct shares *shares = worker->shares;
    shares->generation = worker->generation;
    shares->round = deal->step;
    memcpy(shares->theta, params, shares->parameters * sizeof(float));
    for (uint32_t i = 0; i < OPTIMIZER_STATES_MOST && shares->states[i] != NULL; i++)
        memset(shares->states[i], 0, shares->parameters * sizeof(float));
    uint32_t samples = 0;
    double loss = 0;
    const bool whole = local_steps(shares, deal, &samples, &loss);
    shares->done = 0;
    if (!whole)
        return false;
    for (uint32_t i = 0; i < parameters_chunks(worker->parameters); i++)
        push(worker, deal, parameters_chunk(worker->parameters, i), samples, loss);
    return true;
}

uint64_t shares_progress(const struct shares *shares)
{
    return shares->done;
}
