/* work — what the coordinator has dealt to this worker, and how far it is; private to this folder.
 *
 * A deal stays here until its step is over, though it is computed: should the connection to a shard break, its pushes
 * may be lost, and it is computed and pushed again.
 */
#ifndef THOLE_WORKER_WORK_H
#define THOLE_WORKER_WORK_H

#include "worker/parameters.h"

enum { WORK_MOST = 1024 };

struct deal {
    bool validate;
    uint64_t step;         /* or the version to validate */
    uint32_t first, count; /* blocks; of a share of a round: its number, and its steps … */
    uint64_t begin;        /* … from this one on, among the job's … */
    uint32_t shares;       /* … with so many in the round */
    bool computed, settled;
};

struct work {
    struct deal deals[WORK_MOST]; /* as they came */
    uint32_t count;
    uint64_t next_step; /* no step from here on has been dealt */
    uint64_t settled;   /* blocks done with, since this worker joined: what its heartbeats say */
};

void work_clear(struct work *work);
/* -1 where more is dealt than any coordinator would. */
int work_add(struct work *work, const struct deal *deal, struct error *err);
/* Settles and drops what is over: steps by newer parameters, validations by a newer step. */
void work_drop_over(struct work *work, const struct parameters *parameters);
/* What to compute next, if its parameters were here: of the oldest step, and of that the first that came. */
const struct deal *work_next(const struct work *work);
/* `deal` is a copy of what work_next() gave; its original may be gone by now. */
void work_computed(struct work *work, const struct deal *deal);
/* All that is not over is to be computed once more. */
void work_again(struct work *work);

#endif
