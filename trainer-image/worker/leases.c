#include "worker/leases.h"

#include "common/plan/tasks.h"
#include "numerics/numerics.h"
#include "optimizer/optimizer.h"
#include "worker/batch.h"
#include "worker/state.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t NONE = UINT64_MAX;

enum part { PART_DONE, PART_TODO, PART_AWAITED };

/* A step between its beginning and the last chunk's answer. */
struct flight {
    bool busy;
    uint64_t task;
    uint32_t sequence;
    uint32_t attempt;       /* grows with every computation of it */
    uint32_t todo, awaited; /* parts */
    uint32_t over;          /* parts whose shard says that all of the task is applied */
    uint8_t *parts;         /* [parts]: enum part */
};

struct leases {
    struct tasks tasks;
    struct layout *layout;
    uint32_t chunks;
    uint32_t tables;
    uint32_t parts; /* what is pushed and answered: chunks, then the tables of each shard */
    enum plan_wire wire;
    struct batch *batch;
    struct optimizer *optimizer; /* that clips by norm; NULL: none does */

    float *values;              /* [parameters] */
    uint64_t *versions, *began; /* [chunks]: of the values, and when the step began that is being computed */
    uint32_t known;             /* chunks that have a version */

    uint64_t queue[TASKS_OPEN_MOST];
    uint32_t queued;
    uint32_t sequence; /* of queue[0], the next that begins */
    struct flight flight;
};

int leases_new(struct leases **out, struct worker *worker, struct error *err)
{
    const struct worker_options *options = &worker->options;
    const struct plan_optimizer *plan = &options->plan->training.optimizer;
    const struct network *network = model_network(options->model);
    struct leases *leases = calloc(1, sizeof *leases);
    if (leases == NULL)
        return error_set(err, "make room for leased tasks: no memory");
    *out = leases; /* worker_free() frees what there is */
    leases->tasks = tasks_of(options->plan, dataset_samples(options->train));
    leases->wire = options->plan->wire;
    if (layout_new(&leases->layout, network, options->plan->shards, err) < 0 ||
        batch_new(&leases->batch, options->plan, options->model, options->train, err) < 0)
        return -1;
    if (plan->clip_norm > 0 && optimizer_new(&leases->optimizer, plan, network->tensors, network->tensor_count,
                                             network_chunk(network), err) < 0)
        return -1;
    leases->chunks = layout_chunks(leases->layout);
    leases->tables = network->table_count;
    leases->parts = leases->chunks + leases->tables * options->plan->shards;
    leases->values = vector_new(model_parameters(options->model));
    leases->versions = calloc(leases->chunks, sizeof *leases->versions);
    leases->began = calloc(leases->chunks, sizeof *leases->began);
    leases->flight.parts = calloc(leases->parts, 1);
    if (leases->values == NULL || leases->versions == NULL || leases->began == NULL || leases->flight.parts == NULL)
        return error_set(err, "make room for %llu parameters: no memory",
                         (unsigned long long)model_parameters(options->model));
    for (uint32_t i = 0; i < leases->chunks; i++)
        leases->versions[i] = NONE;
    return 0;
}

void leases_free(struct leases *leases)
{
    if (leases == NULL)
        return;
    free(leases->flight.parts);
    layout_free(leases->layout);
    batch_free(leases->batch);
    optimizer_free(leases->optimizer);
    free(leases->values);
    free(leases->versions);
    free(leases->began);
    free(leases);
}

/* ---- tasks ---- */

/* Tells the heartbeat of the steps that will not be computed any more. */
static void drop(struct worker *worker, uint32_t place)
{
    struct leases *leases = worker->leases;
    worker->work.settled += tasks_steps(&leases->tasks, leases->queue[place]) - (place == 0 ? leases->sequence : 0);
    leases->sequence = place == 0 ? 0 : leases->sequence;
    leases->queued--;
    memmove(leases->queue + place, leases->queue + place + 1, (leases->queued - place) * sizeof leases->queue[0]);
}

int leases_add(struct worker *worker, const struct frame *frame, struct error *err)
{
    struct leases *leases = worker->leases;
    if (leases == NULL || frame->step >= leases->tasks.count || frame->count > frame->step)
        return error_set(err, "the coordinator leased task %llu, which the plan does not have",
                         (unsigned long long)frame->step);
    for (uint32_t i = leases->queued; i-- > 0;)
        if (leases->queue[i] < frame->step - frame->count)
            drop(worker, i);
    if (leases->queued == TASKS_OPEN_MOST)
        return error_set(err, "the coordinator has leased more than %d tasks that are not over", TASKS_OPEN_MOST);
    leases->queue[leases->queued++] = frame->step;
    /* A validation with the parameters that this task begins with, or older ones, is over. */
    uint64_t first = tasks_step(&leases->tasks, frame->step, 0);
    if (worker->work.next_step <= first)
        worker->work.next_step = first + 1;
    return 0;
}

void leases_forget(struct worker *worker, bool parameters_too)
{
    struct leases *leases = worker->leases;
    leases->queued = 0;
    leases->sequence = 0;
    leases->flight.busy = false;
    if (!parameters_too)
        return;
    leases->known = 0;
    for (uint32_t i = 0; i < leases->chunks; i++)
        leases->versions[i] = NONE;
}

/* ---- parameters in, and what came of pushes ---- */

static void end_if_answered(struct worker *worker)
{
    struct leases *leases = worker->leases;
    struct flight *flight = &leases->flight;
    if (flight->awaited > 0 || flight->todo > 0)
        return;
    flight->busy = false;
    worker->work.settled++;
    if (flight->over == leases->parts && leases->queued > 0 && leases->queue[0] == flight->task)
        drop(worker, 0);
}

static void take_answer(struct worker *worker, const struct frame *frame, uint32_t part)
{
    struct flight *flight = &worker->leases->flight;
    /* Of a step that was given up, or pushed again: the next answer will do. */
    if (!flight->busy || flight->task != frame->step || flight->sequence != frame->node ||
        flight->parts[part] != PART_AWAITED)
        return;
    const bool stale = frame->count == TAKEN_STALE;
    flight->parts[part] = stale ? PART_TODO : PART_DONE;
    flight->awaited--;
    flight->todo += stale;
    flight->over += frame->count == TAKEN_TASK_OVER;
    end_if_answered(worker);
}

static uint32_t shard_of(const struct leases *leases, uint32_t part)
{
    return part < leases->chunks ? leases->layout->chunks[part].shard : (part - leases->chunks) / leases->tables;
}

void leases_link_ready(struct link *link)
{
    struct leases *leases = link->worker->leases;
    struct flight *flight = &leases->flight;
    for (uint32_t part = 0; flight->busy && part < leases->parts; part++) {
        if (flight->parts[part] != PART_AWAITED || shard_of(leases, part) != link->shard)
            continue;
        flight->parts[part] = PART_TODO;
        flight->awaited--;
        flight->todo++;
    }
}

void *leases_place(struct link *link, struct conn *conn, const struct frame *frame, struct error *err)
{
    const struct leases *leases = link->worker->leases;
    const struct chunk *chunk = layout_find(leases->layout, frame->offset);
    bool known = frame->type == FRAME_PARAMS || (frame->type == FRAME_TAKEN && frame->count <= TAKEN_STALE);
    if (!known || chunk == NULL || chunk->shard != link->shard ||
        frame->length != chunk->count * layout_value_bytes(leases->wire)) {
        error_set(err, "shard %u sent a frame of type %u for offset %llu that is none of its chunks", link->shard,
                  frame->type, (unsigned long long)frame->offset);
        return NULL;
    }
    /* Never straight into place: a step may be under way, and half a number is none. */
    void *scratch = conn_scratch(conn, frame->length);
    if (scratch == NULL)
        error_set(err, "receive parameters: no memory");
    return scratch;
}

void leases_received(struct link *link, const struct frame *frame, const void *payload)
{
    struct leases *leases = link->worker->leases;
    const struct chunk *chunk = layout_find(leases->layout, frame->offset);
    uint32_t index = (uint32_t)(chunk - leases->layout->chunks);
    uint64_t version = frame->type == FRAME_TAKEN ? frame->value.counter : frame->step;
    if (leases->versions[index] == NONE)
        leases->known++;
    leases->versions[index] = version;
    if (leases->wire == PLAN_BFLOAT16)
        vector_bfloat16_unpack(leases->values + chunk->offset, payload, chunk->count);
    else
        memcpy(leases->values + chunk->offset, payload, chunk->count * sizeof(float));
    if (frame->type == FRAME_TAKEN)
        take_answer(link->worker, frame, index);
}

int leases_rows_taken(struct link *link, const struct frame *frame, struct error *err)
{
    const struct leases *leases = link->worker->leases;
    if (leases == NULL || frame->offset >= leases->tables || frame->count > TAKEN_STALE)
        return error_set(err, "shard %u answers for table %llu, of which it was sent nothing", link->shard,
                         (unsigned long long)frame->offset);
    take_answer(link->worker, frame, leases->chunks + link->shard * leases->tables + (uint32_t)frame->offset);
    return 0;
}

/* ---- gradients out ---- */

struct run {
    struct worker *worker;
    uint64_t generation;
};

static bool run_go_on(void *arg)
{
    const struct run *run = arg;
    return worker_is_wanted(run->worker, run->generation);
}

static const struct model_rows *run_rows(void *arg, const float *x, uint32_t n)
{
    const struct run *run = arg;
    return deal_rows_next_block(run->worker, x, n);
}

static bool push_rows(struct worker *worker, uint32_t part)
{
    struct flight *flight = &worker->leases->flight;
    const uint32_t table = (part - worker->leases->chunks) % worker->leases->tables;
    const struct frame frame = {.step = flight->task, .node = flight->sequence};
    flight->parts[part] = PART_AWAITED;
    flight->todo--;
    flight->awaited++;
    return deal_rows_push_part(worker, &frame, table, shard_of(worker->leases, part));
}

static bool push_chunk(struct worker *worker, uint32_t index, const float *sum, double loss)
{
    struct leases *leases = worker->leases;
    struct flight *flight = &leases->flight;
    const struct chunk *chunk = &leases->layout->chunks[index];
    size_t bytes = (size_t)chunk->count * layout_value_bytes(leases->wire);
    struct payload *payload = payload_new(worker->options.net, bytes);
    if (payload == NULL) {
        worker_fail(worker, "push a gradient: no memory");
        return false;
    }
    if (leases->wire == PLAN_BFLOAT16)
        vector_bfloat16_pack((uint16_t *)(void *)payload->data, sum + chunk->offset, chunk->count);
    else
        memcpy(payload->data, sum + chunk->offset, bytes);
    const struct frame frame = {.type = FRAME_PUSH_BATCH,
                                .term = worker->term,
                                .step = flight->task,
                                .node = flight->sequence,
                                .count = (uint32_t)leases->began[index],
                                .offset = chunk->offset,
                                .value.loss = loss};
    flight->parts[index] = PART_AWAITED;
    flight->todo--;
    flight->awaited++;
    conn_send(worker->links[chunk->shard].conn, &frame, payload);
    payload_unref(worker->options.net, payload);
    return true;
}

static void clip(struct worker *worker, uint64_t number, float *sum)
{
    struct leases *leases = worker->leases;
    if (leases->optimizer == NULL)
        return;
    const struct schedule *schedule = &leases->tasks.schedule;
    struct optimizer_step step = optimizer_step(&worker->options.plan->training.optimizer, schedule, number, 1,
                                                schedule_step(schedule, number).count, 1);
    const double rows = worker->rows == NULL ? 0 : rows_squares(worker->rows, &step);
    optimizer_find_clip(leases->optimizer, &step, rows, sum);
    if (step.clip == 1)
        return; /* what its values are clipped to the shards see */
    optimizer_clip(leases->optimizer, &step, sum);
    if (worker->rows != NULL)
        rows_clip(worker->rows, &step);
}

static void run_flight(struct worker *worker)
{
    struct leases *leases = worker->leases;
    struct flight *flight = &leases->flight;
    struct run run = {worker, worker->generation};
    const struct batch_hooks hooks = {.go_on = run_go_on, .rows = worker->rows == NULL ? NULL : run_rows, .arg = &run};
    const uint64_t number = tasks_step(&leases->tasks, flight->task, flight->sequence);
    double loss = 0;
    flight->attempt++;
    if (worker->rows != NULL)
        rows_begin(worker->rows);
    memcpy(leases->began, leases->versions, leases->chunks * sizeof *leases->began);
    float *sum = batch_compute(leases->batch, number, leases->values, &hooks, &loss);
    /* What the last look at the sockets ended is computed again when there is somebody to push it to. */
    if (sum == NULL)
        return;
    if (worker->rows != NULL && rows_end(worker->rows) < 0) {
        worker_fail(worker, "add gradients of rows: no memory");
        return;
    }
    clip(worker, number, sum);
    for (uint32_t i = 0; i < leases->parts; i++) {
        if (flight->parts[i] != PART_TODO || !worker->links[shard_of(leases, i)].ready)
            continue;
        if (!(i < leases->chunks ? push_chunk(worker, i, sum, loss) : push_rows(worker, i)))
            return;
    }
    net_flush(worker->options.net);
}

static void begin_flight(struct leases *leases)
{
    struct flight *flight = &leases->flight;
    *flight = (struct flight){.busy = true,
                              .task = leases->queue[0],
                              .sequence = leases->sequence,
                              .todo = leases->parts,
                              .parts = flight->parts};
    memset(flight->parts, PART_TODO, leases->parts);
    if (++leases->sequence < tasks_steps(&leases->tasks, flight->task))
        return;
    leases->sequence = 0;
    leases->queued--;
    memmove(leases->queue, leases->queue + 1, leases->queued * sizeof leases->queue[0]);
}

/* Is there something to be pushed, again or for the first time? */
static bool must_run(struct leases *leases)
{
    const struct flight *flight = &leases->flight;
    if (!flight->busy && leases->queued > 0)
        begin_flight(leases);
    return flight->busy && flight->awaited == 0; /* else newer parameters are on their way */
}

static bool can_push(const struct worker *worker)
{
    for (uint32_t shard = 0; shard < worker->options.plan->shards; shard++)
        if (!worker->links[shard].ready)
            return false;
    return worker->leases->known == worker->leases->chunks;
}

/* While a validation runs nothing is applied: what is newest stays so. */
static bool validate(struct worker *worker, const struct deal *deal)
{
    const struct leases *leases = worker->leases;
    bool here = true;
    for (uint32_t i = 0; i < leases->chunks; i++) {
        if (leases->versions[i] == deal->step)
            continue;
        here = false;
        if (worker->asked_step != deal->step)
            link_ask(&worker->links[leases->layout->chunks[i].shard], &leases->layout->chunks[i], deal->step);
    }
    worker->asked_step = deal->step;
    here = deal_rows_here(worker, deal) && here;
    if (here)
        worker_validate(worker, deal, leases->values);
    return here;
}

bool leases_compute(struct worker *worker)
{
    if (!worker->joined || !can_push(worker))
        return false;
    if (must_run(worker->leases)) {
        const struct flight *flight = &worker->leases->flight;
        uint64_t step = tasks_step(&worker->leases->tasks, flight->task, flight->sequence);
        if (!deal_rows_step_here(worker, step, flight->attempt))
            return false;
        run_flight(worker);
        return true;
    }
    work_drop_over(&worker->work, NULL);
    const struct deal *next = work_next(&worker->work);
    if (next == NULL)
        return false;
    struct deal deal = *next;
    return validate(worker, &deal);
}
