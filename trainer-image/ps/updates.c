#include "ps/updates.h"

#include <stdlib.h>
#include <string.h>

struct slot {
    uint64_t task;    /* UINT64_MAX: none yet */
    uint64_t missing; /* steps of chunks */
    double losses[TASK_STEPS_MOST];
};

struct updates {
    struct tasks tasks;
    uint32_t chunks;
    uint64_t oldest; /* every task before it is applied */
    struct slot slots[TASKS_OPEN_MOST];
    uint16_t *applied; /* [slots][chunks]: a bit for each step of the slot's task */
};

_Static_assert(TASK_STEPS_MOST <= 16, "a task's steps are bits of a uint16_t");

int updates_new(struct updates **out, const struct tasks *tasks, uint32_t chunks, struct error *err)
{
    cleanup_updates struct updates *updates = calloc(1, sizeof *updates);
    if (updates == NULL)
        return error_set(err, "make room for what tasks have brought: no memory");
    updates->tasks = *tasks;
    updates->chunks = chunks;
    updates->applied = calloc((size_t)TASKS_OPEN_MOST * chunks, sizeof *updates->applied);
    if (updates->applied == NULL)
        return error_set(err, "make room for what tasks have brought to %u chunks: no memory", chunks);
    for (uint32_t i = 0; i < TASKS_OPEN_MOST; i++)
        updates->slots[i].task = UINT64_MAX;
    *out = move(updates);
    return 0;
}

void updates_free(struct updates *updates)
{
    if (updates == NULL)
        return;
    free(updates->applied);
    free(updates);
}

static uint16_t *applied(const struct updates *updates, uint64_t task, uint32_t chunk)
{
    return &updates->applied[(task % TASKS_OPEN_MOST) * updates->chunks + chunk];
}

enum update_state updates_find(const struct updates *updates, uint64_t task, uint32_t sequence, uint32_t chunk)
{
    if (task >= updates->tasks.count || sequence >= tasks_steps(&updates->tasks, task))
        return UPDATE_IMPOSSIBLE;
    if (task < updates->oldest)
        return UPDATE_TASK_APPLIED;
    if (task - updates->oldest >= TASKS_OPEN_MOST)
        return UPDATE_IMPOSSIBLE;
    const struct slot *slot = &updates->slots[task % TASKS_OPEN_MOST];
    if (slot->task != task)
        return UPDATE_MISSING;
    if (slot->missing == 0)
        return UPDATE_TASK_APPLIED;
    return (*applied(updates, task, chunk) >> sequence & 1) != 0 ? UPDATE_APPLIED : UPDATE_MISSING;
}

static struct slot *slot_of(struct updates *updates, uint64_t task)
{
    struct slot *slot = &updates->slots[task % TASKS_OPEN_MOST];
    if (slot->task == task)
        return slot;
    *slot = (struct slot){.task = task, .missing = (uint64_t)tasks_steps(&updates->tasks, task) * updates->chunks};
    memset(applied(updates, task, 0), 0, updates->chunks * sizeof *updates->applied);
    return slot;
}

bool updates_note(struct updates *updates, uint64_t task, uint32_t sequence, uint32_t chunk, double loss,
                  double *task_loss)
{
    struct slot *slot = slot_of(updates, task);
    uint16_t *bits = applied(updates, task, chunk);
    *bits = (uint16_t)(*bits | 1U << sequence);
    if (chunk == 0)
        slot->losses[sequence] = loss;
    if (--slot->missing > 0)
        return false;
    *task_loss = 0;
    for (uint32_t i = 0; i < tasks_steps(&updates->tasks, task); i++)
        *task_loss += slot->losses[i];
    for (slot = &updates->slots[updates->oldest % TASKS_OPEN_MOST]; slot->task == updates->oldest && slot->missing == 0;
         slot = &updates->slots[updates->oldest % TASKS_OPEN_MOST])
        updates->oldest++;
    return true;
}
