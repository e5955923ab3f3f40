/* state — what the coordinator's decisions stand on; private to this folder. */
#ifndef THOLE_COORDINATOR_STATE_H
#define THOLE_COORDINATOR_STATE_H

#include "common/plan/schedule.h"
#include "common/plan/tasks.h"
#include "coordinator/coordinator.h"

enum {
    OPEN_STEPS = 2,
    STEP_TIMES = 31, /* the median of so many says what is slow */
    /* Validation blocks in a member's hands: one that it computes and one that waits, so that it never does. */
    VALIDATION_HAND = 2,
    TASK_HAND = 2, /* the same of tasks */
    /* One event causes at most: two steps dealt block by block, a hand for every member, their welcomes, and the few
     * actions of an epoch's end. */
    ACTIONS_MOST = OPEN_STEPS * PLAN_BLOCKS_MOST + (VALIDATION_HAND + 1) * COORDINATOR_MEMBERS_MOST + 8,
};

struct member {
    bool present, silent;
    char name[64];
    struct instant heard;       /* its last sign of life */
    struct instant progress;    /* when it last got on, or last had nothing to do */
    uint64_t dealt, settled;    /* blocks in its whole life here */
    uint64_t holds[OPEN_STEPS]; /* blocks of open step t: bits of holds[t % OPEN_STEPS] */
    uint32_t hand;              /* validation blocks */
    uint64_t tasks[TASK_HAND];  /* leased to it and open */
    uint32_t task_count;
    bool took_part; /* has been leased tasks of this epoch */
};

struct open_step {
    struct instant opened;
    uint32_t parallelism; /* members that were dealt blocks of it */

    /* KAverage: it is a round of so many shares, of steps [first, first + steps) of the job's. */
    uint32_t shares;
    uint64_t first, steps;
};

struct open_task {
    struct instant leased; /* the last time */
    uint32_t shards;       /* bits of those that have applied it */
    bool over;             /* all have */
};

enum validation_block_state { VALIDATION_FREE, VALIDATION_DEALT, VALIDATION_DONE };

struct validation_block {
    enum validation_block_state state;
    uint32_t holder, correct;
    double loss;
};

struct validation {
    struct validation_block *blocks;
    uint32_t count, done;
    uint32_t free_from; /* no free block before this one */
};

struct coordinator {
    const struct plan *plan;
    struct schedule schedule;
    uint64_t test_samples;
    uint32_t term;
    enum coordinator_phase phase;

    struct member members[COORDINATOR_MEMBERS_MOST];
    uint32_t ranks; /* all members' ranks are below */
    struct instant ticked;
    struct instant joined; /* the newest member */

    bool registered[PLAN_SHARDS_MOST];
    uint64_t shard_done[PLAN_SHARDS_MOST]; /* steps applied: the next DONE is of this step */

    /* Steps [oldest, next) are open; what is before `oldest` is done everywhere. */
    uint64_t oldest, next;
    struct open_step open[OPEN_STEPS];
    int64_t step_times[STEP_TIMES]; /* a ring of nanoseconds */
    uint64_t steps_timed;

    /* Tasks [tasks_oldest, tasks_next) are open, or over with one before them that is not. */
    struct tasks tasks;
    uint64_t tasks_oldest, tasks_next;
    struct open_task open_tasks[TASKS_OPEN_MOST]; /* of task % TASKS_OPEN_MOST */
    uint64_t steps_done;                          /* of tasks and rounds that are applied on shard 0 */
    uint64_t epoch_dealt;                         /* steps of this epoch that are in rounds */

    struct instant epoch_began;
    double epoch_loss;    /* sum over the steps that shard 0 has done, in the order that it has done them */
    uint32_t parallelism; /* of the newest step that is done everywhere */
    struct validation validation;

    struct report_epoch *history; /* room for all epochs */
    uint32_t epochs_done;
    struct report_finished result;
    struct report_sync sync;

    struct coordinator_action actions[ACTIONS_MOST];
    uint32_t actions_begin, actions_end;
};

void state_act(struct coordinator *coordinator, struct coordinator_action action);
void state_note_time(struct coordinator *coordinator, int64_t step); /* nanoseconds that one took */

/* deal.c */
void deal_open_next(struct coordinator *coordinator, struct instant now);
/* Deals what no audible member holds: blocks of open steps, tasks, and blocks of the validation that runs. */
void deal_missing(struct coordinator *coordinator, struct instant now);
/* Closes the steps that all shards have done. */
void deal_close_done(struct coordinator *coordinator);
uint32_t deal_members(const struct coordinator *coordinator, bool silent_too);
void deal_note(struct member *member, uint32_t count, struct instant now);
void deal_hear(struct coordinator *coordinator, struct member *member, struct instant now);
void deal_look_for_silence(struct coordinator *coordinator, struct instant now);

/* The blocks of an open step, or the shares of a round. */
uint32_t deal_blocks(const struct coordinator *coordinator, uint64_t step);

/* rounds.c */
bool rounds_are_dealt(const struct coordinator *coordinator);
bool rounds_may_start(const struct coordinator *coordinator, struct instant now);
void rounds_open(struct coordinator *coordinator, struct open_step *round);
void rounds_deal(struct coordinator *coordinator, uint32_t rank, uint64_t number, uint32_t share, struct instant now);
bool rounds_epoch_is_dealt(const struct coordinator *coordinator);

/* tasks.c */
void tasks_begin_epoch(struct coordinator *coordinator, struct instant now);
/* Leases tasks to whom has room for one. */
void tasks_lease(struct coordinator *coordinator, struct instant now);
int tasks_take_done(struct coordinator *coordinator, uint32_t shard, uint64_t task, double loss, struct instant now,
                    struct error *err);
bool tasks_epoch_is_over(struct coordinator *coordinator);

/* validation.c */
void validation_begin(struct coordinator *coordinator);
void validation_deal(struct coordinator *coordinator, struct instant now);
void validation_release(struct coordinator *coordinator, uint32_t rank);
int validation_take(struct coordinator *coordinator, uint32_t index, uint32_t correct, double loss, struct error *err);
void validation_sum(const struct coordinator *coordinator, double *loss, double *accuracy);

/* progress.c */
struct report_sync progress_sync(const struct coordinator *coordinator);
int64_t progress_median_step(const struct coordinator *coordinator); /* nanoseconds; 0: none yet */

#endif
