/* schedule — which samples a step takes: one definition for every role.
 *
 * Step t (from 0, over the whole job) belongs to epoch t / steps_per_epoch (from 0) and takes the next `batch` samples
 * of that epoch's order; an epoch's last step may be short.
 */
#ifndef THOLE_COMMON_PLAN_SCHEDULE_H
#define THOLE_COMMON_PLAN_SCHEDULE_H

#include "common/plan/plan.h"

struct schedule {
    uint64_t samples, batch, steps_per_epoch, steps;
};

struct schedule_step {
    uint64_t epoch; /* from 0 */
    uint64_t first; /* position in the epoch's order */
    uint32_t count;
};

static inline struct schedule schedule_of(const struct plan *plan, uint64_t train_samples)
{
    uint64_t batch = plan->training.batch_size;
    uint64_t steps_per_epoch = (train_samples + batch - 1) / batch;
    return (struct schedule){train_samples, batch, steps_per_epoch, steps_per_epoch * plan->training.epochs};
}

static inline struct schedule_step schedule_step(const struct schedule *schedule, uint64_t step)
{
    uint64_t first = step % schedule->steps_per_epoch * schedule->batch;
    uint64_t left = schedule->samples - first;
    return (struct schedule_step){step / schedule->steps_per_epoch, first,
                                  (uint32_t)(left < schedule->batch ? left : schedule->batch)};
}

#endif
