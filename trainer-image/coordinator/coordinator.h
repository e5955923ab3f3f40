/* coordinator — the part of shard 0 that knows the members, deals out work, decides epochs and the end.
 *
 * `struct coordinator` decides and nothing else: what happened comes in by calls, with the time; what is to be done
 * goes out as actions, to be taken after every call. It has no sockets, no clock and no numbers of the model.
 * `struct coordinator_server` (server.h) puts it behind CONTROL and REGISTER dialogues.
 * May call wire, ps, model, optimizer, numerics and common; workers never include it.
 *
 * HOW WORK IS DEALT
 * A step is open from its first deal until every shard has reported it done; at most two are open: the newest, and
 * the one before while some shard still lags. An open step's blocks are all held by some member that can be heard;
 * where a loss or a silence leaves blocks without such a holder they are dealt to the others at once. Nothing is ever
 * taken back: two members that compute one block push equal bits, and the shards drop the second.
 * With KAverage a step is a round, and its blocks are shares: see rounds.c.
 * The types Asynchronous and Hogwild lease tasks instead: see tasks.c. An epoch's samples are then all applied once,
 * and so its end is a version of the parameters as with steps.
 */
#ifndef THOLE_COORDINATOR_COORDINATOR_H
#define THOLE_COORDINATOR_COORDINATOR_H

#include "common/clock.h"
#include "common/plan/plan.h"
#include "common/report/report.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    COORDINATOR_MEMBERS_MOST = 256,
};

enum coordinator_action_type {
    COORDINATOR_WELCOME, /* to rank: it is in; before anything else it is sent */
    COORDINATOR_DEAL,    /* to rank: blocks [first, first+count) of `step` */
    COORDINATOR_SHARE,   /* to rank: share `first` of round `step`, which has `shares`: `count` steps from `begin` on */
    COORDINATOR_LEASE,   /* to rank: task `step`; all are over that lie `count` and more before it */
    COORDINATOR_VALIDATE, /* to rank: validation blocks [first, first+count) with parameters of version `step` */
    COORDINATOR_EPOCH,    /* history entry `first` (index from 0) has been added */
    COORDINATOR_SAVE,     /* fetch parameters of version `step` and write the model, then call coordinator_saved() */
    COORDINATOR_FINISHED, /* coordinator_result() says how */
};

struct coordinator_action {
    enum coordinator_action_type type;
    uint32_t rank, first, count, shares;
    uint64_t step, begin;
};

enum coordinator_phase {
    COORDINATOR_WAITING, /* for shards to register, then for the first worker */
    COORDINATOR_TRAINING,
    COORDINATOR_VALIDATING,
    COORDINATOR_SAVING,
    COORDINATOR_OVER,
};

struct coordinator;

/* The plan is borrowed. `test_samples` 0: nothing is ever validated. NULL without memory. */
struct coordinator *coordinator_new(const struct plan *plan, uint64_t train_samples, uint64_t test_samples,
                                    uint32_t term, struct instant now);
void coordinator_free(struct coordinator *coordinator);
CLEANUP_DEFINE(cleanup_coordinator_pointer, struct coordinator, coordinator_free)
#define cleanup_coordinator CLEANUP(cleanup_coordinator_pointer)

/* ---- what happened ----
 * Those that return int answer -1 with one sentence where the sender broke the protocol; nothing has changed then. */

/* Shard 0 too. A shard may register again only as long as the job has not started. */
int coordinator_shard_registered(struct coordinator *coordinator, uint32_t shard, struct instant now,
                                 struct error *err);
/* Before the start it is waited for again; afterwards the job has failed. */
void coordinator_shard_lost(struct coordinator *coordinator, uint32_t shard, const char *why);
int coordinator_shard_done(struct coordinator *coordinator, uint32_t shard, uint64_t step, double loss,
                           struct instant now, struct error *err);

/* Asynchronous, Hogwild: all steps of `task` are applied there; shard 0's `loss` is the sum of theirs. */
int coordinator_task_done(struct coordinator *coordinator, uint32_t shard, uint64_t task, double loss,
                          struct instant now, struct error *err);

/* What progress and result are to say of an asynchronous training. */
void coordinator_note_sync(struct coordinator *coordinator, const struct report_sync *sync);

/* `name` is the pod's, for people. *rank is the smallest that is free. */
int coordinator_join(struct coordinator *coordinator, const char *name, uint32_t *rank, struct instant now,
                     struct error *err);
/* Gone: closed connection or LEAVE. Its rank may be given again. */
void coordinator_lost(struct coordinator *coordinator, uint32_t rank, struct instant now);
/* `settled`: how many of the blocks dealt to it, and of the leased tasks' steps, are done with: computed, or dropped
 * because they were over. */
void coordinator_heartbeat(struct coordinator *coordinator, uint32_t rank, uint64_t settled, struct instant now);
int coordinator_validated(struct coordinator *coordinator, uint32_t rank, uint64_t version, uint32_t block,
                          uint32_t correct, double loss, struct instant now, struct error *err);

/* The model is written (NULL: there is no place for it), or `failure` says why not. */
void coordinator_saved(struct coordinator *coordinator, const struct report_model *model, const char *failure);
/* The end, for a reason from outside: CamelCase and a sentence. */
void coordinator_fail(struct coordinator *coordinator, const char *reason, const char *sentence);

/* Looks for silence; to be called about every 100 ms, after all sockets have been read. */
void coordinator_tick(struct coordinator *coordinator, struct instant now);

/* ---- what is to be done ---- */

/* The next action, in order; false where there is none. To be called until then after each of the above. */
bool coordinator_take(struct coordinator *coordinator, struct coordinator_action *out);

/* ---- what is known ---- */

enum coordinator_phase coordinator_phase(const struct coordinator *coordinator);
void coordinator_progress(const struct coordinator *coordinator, struct instant now, struct report_progress *out);
/* Entry `index` of the history, borrowed; NULL past the end. */
const struct report_epoch *coordinator_history(const struct coordinator *coordinator, size_t index);
/* NULL before COORDINATOR_FINISHED. */
const struct report_finished *coordinator_result(const struct coordinator *coordinator);
/* Is the rank's member dealt to others because it cannot be heard or does not get on? */
bool coordinator_is_silent(const struct coordinator *coordinator, uint32_t rank);

#endif
