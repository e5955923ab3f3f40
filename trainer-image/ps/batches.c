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
    if (updates_new(&batches->updates, &batches->tasks, shard_chunks(shard), err) < 0)
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
    uint32_t index = shard_chunk_at(batches->shard, frame->offset);
    if (index == SHARD_NO_CHUNK)
        return error_set(err, "PUSH_BATCH names parameters from %llu on, where no chunk of this shard begins",
                         (unsigned long long)frame->offset);
    struct shard_chunk chunk = shard_chunk(batches->shard, index);
    if (frame->length != chunk.params->length)
        return error_set(err, "PUSH_BATCH has %u bytes for parameters from %llu on; they are %u", frame->length,
                         (unsigned long long)frame->offset, chunk.params->length);
    if (staleness_of(&chunk, frame) > chunk.version)
        return error_set(err, "PUSH_BATCH is of version %u of parameters from %llu on, and the newest is %llu",
                         frame->count, (unsigned long long)frame->offset, (unsigned long long)chunk.version);
    if (updates_find(batches->updates, frame->step, frame->node, index) == UPDATE_IMPOSSIBLE)
        return error_set(err, "PUSH_BATCH names step %u of task %llu, which cannot have been leased", frame->node,
                         (unsigned long long)frame->step);
    return 0;
}

static struct optimizer_step optimizer_step_of(const struct batches *batches, const struct frame *frame,
                                               uint64_t version, uint64_t staleness)
{
    const struct schedule *schedule = &batches->tasks.schedule;
    uint64_t samples = schedule_step(schedule, tasks_step(&batches->tasks, frame->step, frame->node)).count;
    double factor = batches->plan->sync == PLAN_ASYNCHRONOUS ? 1.0 / (1.0 + (double)staleness) : 1.0;
    return optimizer_step(&batches->plan->training.optimizer, schedule, version, version + 1, samples, factor);
}

static int apply(struct batches *batches, const struct frame *frame, uint32_t index, const struct payload *sum,
                 enum taken *taken, struct error *err)
{
    struct shard_chunk chunk = shard_chunk(batches->shard, index);
    uint64_t staleness = staleness_of(&chunk, frame);
    if (batches->plan->sync == PLAN_ASYNCHRONOUS && staleness > batches->plan->max_staleness) {
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
        batches->sync.staleness[report_staleness_bucket(staleness)]++;
    }
    double loss = 0;
    if (updates_note(batches->updates, frame->step, frame->node, index, frame->value.loss, &loss))
        batches->hooks.task_done(batches->hooks.arg, frame->step, loss);
    return 0;
}

int batches_push(struct batches *batches, const struct frame *frame, const struct payload *sum, enum taken *taken,
                 struct error *err)
{
    uint32_t index = shard_chunk_at(batches->shard, frame->offset);
    switch (updates_find(batches->updates, frame->step, frame->node, index)) {
    case UPDATE_MISSING:
        return apply(batches, frame, index, sum, taken, err);
    case UPDATE_APPLIED:
        *taken = TAKEN_DUPLICATE;
        break;
    case UPDATE_TASK_APPLIED:
        *taken = TAKEN_TASK_OVER;
        break;
    case UPDATE_IMPOSSIBLE: /* batches_check() */
        return error_set(err, "PUSH_BATCH names a step that cannot have been leased");
    }
    batches->sync.duplicates += index == 0;
    return 0;
}
