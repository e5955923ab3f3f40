/* A worker's life: between looks at its sockets it computes what has been dealt and what there are parameters for. */
#include "common/plan/tasks.h"
#include "worker/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void worker_fail(struct worker *worker, const char *format, ...)
{
    worker->ended = true;
    if (worker->failed)
        return;
    worker->failed = true;
    char sentence[sizeof worker->failure.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    error_set(&worker->failure, "%s", sentence);
}

/* Asks for a chunk of what is to be computed next, if only a newer version of it has come. */
static void ask_if_overtaken(struct worker *worker, const struct deal *next, uint32_t index)
{
    if (!parameters_must_ask(worker->parameters, index, next->step))
        return;
    const struct chunk *chunk = parameters_chunk(worker->parameters, index);
    link_ask(&worker->links[chunk->shard], chunk, next->step);
}

static void ask_for_all_overtaken(struct worker *worker, const struct deal *next)
{
    if (worker->asked_step == next->step)
        return;
    worker->asked_step = next->step;
    for (uint32_t i = 0; i < parameters_chunks(worker->parameters); i++)
        ask_if_overtaken(worker, next, i);
}

void worker_parameters_came(struct worker *worker, const struct chunk *chunk)
{
    work_drop_over(&worker->work, worker->parameters);
    const struct deal *next = work_next(&worker->work);
    if (next != NULL)
        ask_if_overtaken(worker, next, (uint32_t)(chunk - parameters_chunk(worker->parameters, 0)));
}

/* ---- computing ---- */

/* One node of one step on its way out. */
struct push {
    struct worker *worker;
    uint64_t generation, step;
    uint32_t node;
};

/* Sockets are looked at between blocks; what they bring may end what is being computed. */
bool worker_is_wanted(struct worker *worker, uint64_t generation)
{
    struct error err = {0};
    if (net_wait(worker->options.net, 0, &err) < 0)
        worker_fail(worker, "%s", error_message(&err));
    return !worker->ended && worker->generation == generation;
}

static bool push_go_on(void *arg)
{
    const struct push *push = arg;
    return worker_is_wanted(push->worker, push->generation) && !parameters_over(push->worker->parameters, push->step);
}

static void *push_place(void *arg, const struct chunk *chunk)
{
    const struct push *push = arg;
    struct worker *worker = push->worker;
    if (!worker->links[chunk->shard].ready)
        return NULL; /* computed and pushed again when the connection is back */
    struct payload *payload = payload_new(worker->options.net, parameters_bytes(worker->parameters, chunk));
    if (payload == NULL) {
        worker_fail(worker, "push a gradient: no memory");
        return NULL;
    }
    return payload->data;
}

static void push_filled(void *arg, const struct chunk *chunk, void *place, double loss)
{
    const struct push *push = arg;
    struct worker *worker = push->worker;
    struct payload *payload = payload_of(place);
    conn_send(worker->links[chunk->shard].conn,
              &(struct frame){.type = FRAME_PUSH,
                              .term = worker->term,
                              .step = push->step,
                              .node = push->node,
                              .offset = chunk->offset,
                              .value.loss = loss,
                              .length = payload->length},
              payload);
    payload_unref(worker->options.net, payload);
}

static const struct model_rows *push_block_rows(void *arg, uint32_t block, const float *x, uint32_t n)
{
    const struct push *push = arg;
    return deal_rows_block(push->worker, block, x, n);
}

static void compute_step(struct worker *worker, const struct deal *deal, const float *params)
{
    if (worker->shares != NULL) {
        if (shares_compute(worker, deal, params))
            work_computed(&worker->work, deal);
        return;
    }
    struct push push = {.worker = worker, .generation = worker->generation, .step = deal->step};
    struct gradient_hooks hooks = {.go_on = push_go_on, .place = push_place, .filled = push_filled, .arg = &push};
    if (worker->rows != NULL)
        hooks.rows = push_block_rows;
    uint32_t nodes[TREE_COVER_MOST];
    uint32_t count = gradient_cover(worker->gradient, deal->step, deal->first, deal->count, nodes);
    for (uint32_t i = 0; i < count; i++) {
        push.node = nodes[i];
        if (worker->rows != NULL)
            rows_begin(worker->rows);
        if (!gradient_compute(worker->gradient, deal->step, nodes[i], params, worker->parameters, &hooks))
            return;
        if (worker->rows != NULL)
            deal_rows_push(worker, deal->step, nodes[i]);
    }
    worker->likely.step = deal->step + 1;
    worker->likely.first = deal->first;
    work_computed(&worker->work, deal);
}

void worker_validate(struct worker *worker, const struct deal *deal, const float *params)
{
    uint64_t generation = worker->generation;
    const struct model_rows *rows = worker->rows == NULL ? NULL : rows_all(worker->rows);
    for (uint32_t block = deal->first; block < deal->first + deal->count; block++) {
        if (!worker_is_wanted(worker, generation) || worker->work.next_step > deal->step)
            return;
        struct evaluation evaluation = validator_run(worker->validator, params, block, rows);
        conn_send(worker->control,
                  &(struct frame){.type = FRAME_VALIDATED,
                                  .term = worker->term,
                                  .step = deal->step,
                                  .node = block,
                                  .count = (uint32_t)evaluation.correct,
                                  .value.loss = evaluation.loss_sum},
                  NULL);
    }
    work_computed(&worker->work, deal);
    work_drop_over(&worker->work, worker->parameters);
}

/* There is nothing to do but wait: for parameters, or for a deal, which is mostly that of the step before. */
static void prepare(struct worker *worker, const struct deal *next)
{
    if (worker->gradient != NULL && (next == NULL || !next->validate))
        gradient_prepare(worker->gradient, next != NULL ? next->step : worker->likely.step,
                         next != NULL ? next->first : worker->likely.first);
}

/* Computes what can be; false where there is nothing to do but wait. */
static bool compute(struct worker *worker)
{
    if (worker->leases != NULL)
        return leases_compute(worker);
    work_drop_over(&worker->work, worker->parameters);
    const struct deal *next = work_next(&worker->work);
    if (next == NULL) {
        prepare(worker, NULL);
        return false;
    }
    const bool rows_here = deal_rows_here(worker, next); /* asked for ahead of the parameters */
    const float *params = parameters_at(worker->parameters, next->step);
    if (params == NULL) {
        ask_for_all_overtaken(worker, next);
        prepare(worker, next);
        return false;
    }
    if (!rows_here)
        return false;
    struct deal deal = *next;
    if (deal.validate)
        worker_validate(worker, &deal, params);
    else
        compute_step(worker, &deal, params);
    net_flush(worker->options.net);
    return true;
}

/* ---- life ---- */

static int start_computing(struct worker *worker, struct error *err)
{
    const struct worker_options *options = &worker->options;
    if (tasks_are_leased(options->plan))
        return leases_new(&worker->leases, worker, err) < 0 ? -1 : deal_rows_init(worker, err);
    if (parameters_new(&worker->parameters, model_network(options->model), options->plan->shards, options->plan->wire,
                       err) < 0)
        return -1;
    if (options->plan->sync == PLAN_KAVERAGE)
        return shares_new(&worker->shares, worker, err);
    if (gradient_new(&worker->gradient, options->plan, options->model, options->train, err) < 0)
        return -1;
    return deal_rows_init(worker, err);
}

int worker_new(struct worker **out, const struct worker_options *options, struct error *err)
{
    cleanup_worker struct worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return error_set(err, "start the worker: no memory");
    worker->options = *options;
    worker->asked_step = UINT64_MAX;
    if (start_computing(worker, err) < 0)
        return -1;
    if (options->test != NULL && validator_new(&worker->validator, options->model, options->test, err) < 0)
        return -1;
    if (control_init(worker, err) < 0)
        return -1;
    for (uint32_t shard = 0; shard < options->plan->shards; shard++)
        if (link_init(&worker->links[shard], worker, shard, err) < 0)
            return -1;
    *out = move(worker);
    return 0;
}

void worker_free(struct worker *worker)
{
    if (worker == NULL)
        return;
    for (uint32_t shard = 0; shard < PLAN_SHARDS_MOST; shard++)
        net_timer_free(worker->links[shard].retry);
    net_timer_free(worker->dial);
    net_timer_free(worker->heartbeat);
    validator_free(worker->validator);
    rows_free(worker->rows);
    gradient_free(worker->gradient);
    parameters_free(worker->parameters);
    leases_free(worker->leases);
    shares_free(worker->shares);
    free(worker);
}

int worker_run(struct worker *worker, struct error *err)
{
    control_dial(worker);
    while (!worker->ended) {
        bool busy = compute(worker);
        if (net_wait(worker->options.net, busy ? 0 : -1, err) < 0)
            return -1;
    }
    if (worker->failed)
        return error_set(err, "%s", error_message(&worker->failure));
    return 0;
}

void worker_leave(struct worker *worker)
{
    if (worker->joined && worker->control != NULL && !worker->finished) {
        conn_send(worker->control, &(struct frame){.type = FRAME_LEAVE, .term = worker->term}, NULL);
        conn_close(worker->control, NULL);
    }
    worker->ended = true;
}
