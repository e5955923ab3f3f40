/* updates — which steps of which tasks a shard has applied, so that each is applied once to each of its chunks, whoever
 * sends it and how often. Pure; private to ps and its tests.
 *
 * Every chunk has a set of its own: what half arrived from a worker that died is completed by whoever repeats the task.
 * What lies before the oldest task that is not whole is known to be applied and not stored; what lies TASKS_OPEN_MOST
 * behind it no coordinator has leased. So the memory is bounded.
 */
#ifndef THOLE_PS_UPDATES_H
#define THOLE_PS_UPDATES_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/plan/tasks.h"

struct updates;

int updates_new(struct updates **out, const struct tasks *tasks, uint32_t chunks, struct error *err);
void updates_free(struct updates *updates);
CLEANUP_DEFINE(cleanup_updates_pointer, struct updates, updates_free)
#define cleanup_updates CLEANUP(cleanup_updates_pointer)

enum update_state {
    UPDATE_MISSING,
    UPDATE_APPLIED,
    UPDATE_TASK_APPLIED, /* and all others of its task, too */
    UPDATE_IMPOSSIBLE,   /* the job has no such task or step, or it cannot have been leased yet */
};

/* `chunk` is below the number of chunks. */
enum update_state updates_find(const struct updates *updates, uint64_t task, uint32_t sequence, uint32_t chunk);

/* What was missing is applied; `loss` counts with chunk 0 only. True where that was the last of its task: *task_loss
 * has the sum over its steps, in their order. */
bool updates_note(struct updates *updates, uint64_t task, uint32_t sequence, uint32_t chunk, double loss,
                  double *task_loss);

#endif
