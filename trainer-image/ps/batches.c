#include "ps/batches.h"

#include "ps/shard.h"
#include "ps/updates.h"

#include <stdlib.h>

struct batches {
    struct shard *shard;
    const struct plan *plan;
    struct tasks tasks;
    struct updates *updates;
    struct batches_hooks hooks;
    struct report_sync sync;
};

int batches_new(struct batches **out, struct shard *shard, const struct plan *plan, uint64_t train_samples,
                const struct batches_hooks *hooks, struct error *err)
{
    cleanup_batches struct batches *batches = calloc(1, sizeof *batches);
    if (batches == NULL)
        return error_set(err, "make room for the gradients of tasks: no memory");
    batches->shard = shard;
    batches->plan = plan;
    batches->tasks = tasks_of(plan, train_samples);
    batches->hooks = *hooks;
    batches->sync.known = true;
    if (updates_new(&batches->updates, &batches->tasks, shard_chunks(shard) + tables_count(shard_tables(shard)), err) <
        0)
        return -1;
    *out = move(batches);
    return 0;
}

void batches_free(struct batches *batches)
{
    if (batches == NULL)
        return;
    updates_free(batches->updates);
    free(batches);
}

const struct report_sync *batches_sync(const struct batches *batches)
{
    return &batches->sync;
}

static uint32_t staleness_of(const struct shard_chunk *chunk, const struct frame *frame)
{
    return (uint32_t)chunk->version - frame->count;
}

int batches_check(const struct batches *batches, const struct frame *frame, struct error *err)
{
    uint32_t index = shard_check_chunk(batches->shard, frame, "PUSH_BATCH", err);
    if (index == SHARD_NO_CHUNK)
        return -1;
    struct shard_chunk chunk = shard_chunk(batches->shard, index);
    if (staleness_of(&chunk, frame) > chunk.version)
        return error_set(err, "PUSH_BATCH is of version %u of parameters from %llu on, and the newest is %llu",
                         frame->count, (unsigned long long)frame->offset, (unsigned long long)chunk.version);
    if (updates_find(batches->updates, frame->step, frame->node, index) == UPDATE_IMPOSSIBLE)
        return error_set(err, "PUSH_BATCH names step %u of task %llu, which cannot have been leased", frame->node,
                         (unsigned long long)frame->step);
    return 0;
}

static uint32_t samples_of(const struct batches *batches, const struct frame *frame)
{
    return schedule_step(&batches->tasks.schedule, tasks_step(&batches->tasks, frame->step, frame->node)).count;
}

static struct optimizer_step optimizer_step_of(const struct batches *batches, const struct frame *frame,
                                               uint64_t version, uint64_t staleness)
{
    const struct schedule *schedule = &batches->tasks.schedule;
    double factor = batches->plan->sync == PLAN_ASYNCHRONOUS ? 1.0 / (1.0 + (double)staleness) : 1.0;
    return optimizer_step(&batches->plan->training.optimizer, schedule, version, version + 1,
                          samples_of(batches, frame), factor);
}

/* What was missing is applied: was it the last of its task? */
static void note(struct batches *batches, const struct frame *frame, uint32_t index, double loss)
{
    double task_loss = 0;
    if (updates_note(batches->updates, frame->step, frame->node, index, loss, &task_loss))
        batches->hooks.task_done(batches->hooks.arg, frame->step, task_loss);
}

static bool is_too_stale(const struct batches *batches, uint64_t staleness)
{
    return batches->plan->sync == PLAN_ASYNCHRONOUS && staleness > batches->plan->max_staleness;
}

static int apply(struct batches *batches, const struct frame *frame, uint32_t index, const struct payload *sum,
                 enum taken *taken, struct error *err)
{
    struct shard_chunk chunk = shard_chunk(batches->shard, index);
    uint64_t staleness = staleness_of(&chunk, frame);
    if (is_too_stale(batches, staleness)) {
        batches->sync.stale += index == 0;
        *taken = TAKEN_STALE;
        return 0;
    }
    struct optimizer_step step = optimizer_step_of(batches, frame, chunk.version, staleness);
    if (shard_update(batches->shard, index, &step, sum, err) < 0)
        return -1;
    *taken = TAKEN_APPLIED;
    if (index == 0) {
        batches->sync.steps++;
        batches->sync.samples += samples_of(batches, frame);
        batches->sync.staleness[report_staleness_bucket(staleness)]++;
    }
    note(batches, frame, index, frame->value.loss);
    return 0;
}

/* Whether it is missing; else what it is. */
static bool is_missing(const struct batches *batches, const struct frame *frame, uint32_t index, enum taken *taken)
{
    enum update_state state = updates_find(batches->updates, frame->step, frame->node, index);
    *taken = state == UPDATE_APPLIED ? TAKEN_DUPLICATE : TAKEN_TASK_OVER;
    return state == UPDATE_MISSING; /* what is impossible has been refused before */
}

int batches_push(struct batches *batches, const struct frame *frame, const struct payload *sum, enum taken *taken,
                 struct error *err)
{
    uint32_t index = shard_chunk_at(batches->shard, frame->offset);
    if (is_missing(batches, frame, index, taken))
        return apply(batches, frame, index, sum, taken, err);
    batches->sync.duplicates += index == 0;
    return 0;
}

/* ---- rows of embedding tables ---- */

/* A table's place among what the updates count. */
static uint32_t index_of_table(const struct batches *batches, const struct frame *frame)
{
    return shard_chunks(batches->shard) + (uint32_t)frame->offset;
}

static uint32_t rows_staleness(const struct table *table, const struct frame *frame)
{
    return (uint32_t)table_version(table) - (uint32_t)(frame->value.counter >> 32);
}

int batches_check_rows(const struct batches *batches, const struct frame *frame, struct error *err)
{
    const struct tables *tables = shard_tables(batches->shard);
    const uint32_t number = (uint32_t)frame->offset;
    if (frame->offset >= tables_count(tables))
        return error_set(err, "PUSH_BATCH_ROWS names table %llu; the model has %u, from 0",
                         (unsigned long long)frame->offset, tables_count(tables));
    if (rows_staleness(tables_at(tables, number), frame) > table_version(tables_at(tables, number)))
        return error_set(err, "PUSH_BATCH_ROWS is of version %u of table %u, and the newest is %llu",
                         (uint32_t)(frame->value.counter >> 32), number,
                         (unsigned long long)table_version(tables_at(tables, number)));
    if (frame->count > tables_rows_most(tables, number))
        return error_set(err, "PUSH_BATCH_ROWS brings %u rows of table %u; a step can have %u here", frame->count,
                         number, tables_rows_most(tables, number));
    if (updates_find(batches->updates, frame->step, frame->node, index_of_table(batches, frame)) == UPDATE_IMPOSSIBLE)
        return error_set(err, "PUSH_BATCH_ROWS names step %u of task %llu, which cannot have been leased", frame->node,
                         (unsigned long long)frame->step);
    return 0;
}

static int apply_rows(struct batches *batches, const struct frame *frame, const struct sparse *rows, enum taken *taken,
                      struct error *err)
{
    struct tables *tables = shard_tables(batches->shard);
    const uint32_t number = (uint32_t)frame->offset;
    const struct table *table = tables_at(tables, number);
    uint64_t staleness = rows_staleness(table, frame);
    /* A step without a row here was computed from no version of the table. */
    if (rows->count > 0 && is_too_stale(batches, staleness)) {
        *taken = TAKEN_STALE;
        return 0;
    }
    struct optimizer_step step = optimizer_step_of(batches, frame, table_version(table), staleness);
    if (tables_update(tables, number, rows, &step, err) < 0)
        return -1;
    *taken = TAKEN_APPLIED;
    note(batches, frame, index_of_table(batches, frame), 0);
    return 0;
}

int batches_push_rows(struct batches *batches, const struct frame *frame, struct sparse *rows, enum taken *taken,
                      struct error *err)
{
    int result = 0;
    if (is_missing(batches, frame, index_of_table(batches, frame), taken))
        result = apply_rows(batches, frame, rows, taken, err);
    tables_give(shard_tables(batches->shard), rows);
    return result;
}
