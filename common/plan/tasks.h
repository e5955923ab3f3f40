/* tasks — what workers of the types Asynchronous and Hogwild are leased: one definition for every role.
 *
 * A task is a run of steps of one epoch (schedule.h: here a step's batch is one worker's), named by its number over the
 * whole job; a step of it by its sequence, from 0. Tasks are a 64th of an epoch, so that many workers have some until
 * its end, and at most TASK_STEPS_MOST steps, so that little is done again where a worker is lost.
 */
#ifndef THOLE_COMMON_PLAN_TASKS_H
#define THOLE_COMMON_PLAN_TASKS_H

#include "common/plan/schedule.h"

enum {
    TASKS_OF_AN_EPOCH = 64, /* at least, if it has so many steps */
    TASK_STEPS_MOST = 16,
    TASKS_OPEN_MOST = 512, /* leased tasks lie in a window of so many, so that who counts them knows its memory */
};

struct tasks {
    struct schedule schedule;
    uint64_t steps; /* of a task; an epoch's last may have fewer */
    uint64_t per_epoch;
    uint64_t count; /* in the whole job */
};

static inline bool tasks_are_leased(const struct plan *plan)
{
    return plan->sync == PLAN_ASYNCHRONOUS || plan->sync == PLAN_HOGWILD;
}

static inline struct tasks tasks_of(const struct plan *plan, uint64_t train_samples)
{
    struct schedule schedule = schedule_of(plan, train_samples);
    uint64_t steps = schedule.steps_per_epoch / TASKS_OF_AN_EPOCH;
    steps = steps < 1 ? 1 : steps > TASK_STEPS_MOST ? TASK_STEPS_MOST : steps;
    uint64_t per_epoch = (schedule.steps_per_epoch + steps - 1) / steps;
    return (struct tasks){schedule, steps, per_epoch, per_epoch * plan->training.epochs};
}

/* Step `sequence` of a task, among the job's. */
static inline uint64_t tasks_step(const struct tasks *tasks, uint64_t task, uint32_t sequence)
{
    return task / tasks->per_epoch * tasks->schedule.steps_per_epoch + task % tasks->per_epoch * tasks->steps +
           sequence;
}

/* How many steps a task has. */
static inline uint32_t tasks_steps(const struct tasks *tasks, uint64_t task)
{
    uint64_t left = tasks->schedule.steps_per_epoch - task % tasks->per_epoch * tasks->steps;
    return (uint32_t)(left < tasks->steps ? left : tasks->steps);
}

#endif
