/* schedule — which samples a step takes: one definition for every role.
 *
 * Step t (from 0, over the whole job) belongs to epoch t / steps_per_epoch (from 0) and takes the next `batch` samples
 * of that epoch's order; an epoch's last step may be short.
 *
 * Where a data set has no test files, "test samples" are what is held back of its training files, and "training
 * samples" the rest (trainer-image/data).
 *
 * Validation block b holds the test set's samples [b·VALIDATION_BLOCK, (b+1)·VALIDATION_BLOCK), the last one what is
 * left; their losses add up in the order of blocks, whoever computed them.
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

enum { VALIDATION_BLOCK = 500 };

static inline uint32_t validation_blocks(uint64_t test_samples)
{
    return (uint32_t)((test_samples + VALIDATION_BLOCK - 1) / VALIDATION_BLOCK);
}

static inline uint32_t validation_block_samples(uint64_t test_samples, uint32_t block)
{
    uint64_t left = test_samples - (uint64_t)block * VALIDATION_BLOCK;
    return (uint32_t)(left < VALIDATION_BLOCK ? left : VALIDATION_BLOCK);
}

/* Is the model validated after this epoch (from 0)? Always after the last. */
static inline bool validation_due(const struct plan *plan, uint64_t epoch)
{
    uint32_t every = plan->training.validate_every_epochs;
    return epoch + 1 == plan->training.epochs || (every != 0 && (epoch + 1) % every == 0);
}

#endif
