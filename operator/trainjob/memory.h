/* memory — what the controller keeps of each job between two looks: the coordinator's reports, how its own attempts
 * went, what was acknowledged. None of it is needed after a restart: coordinators say everything again that was not
 * acknowledged, and attempts are made anew. Of a job that has ended, and of which nobody is owed anything, only the
 * phase is kept: there may be ten thousand of them.
 */
#ifndef THOLE_OPERATOR_TRAINJOB_MEMORY_H
#define THOLE_OPERATOR_TRAINJOB_MEMORY_H

#include "common/clock.h"
#include "trainjob/budget.h"
#include "trainjob/job.h"

struct job_memory {
    const char *uid, *key;
    enum trainjob_phase phase; /* as last seen, for metrics */

    struct trainjob_reports *reports; /* NULL: none; its `epochs` is the list below */
    struct report_epoch *epochs;
    size_t epoch_count, epoch_room;

    bool secret_made;                   /* one of the attempts' */
    struct trainjob_attempts *attempts; /* NULL: there is nothing else to say of them */
    bool frozen_here;                   /* by this process: no operator before can have made its Secret … */
    bool secret_uncertain;              /* … unless a POST went unanswered */
    bool secret_lost;                   /* a pod says that it is not there */

    struct trainjob_history history;
    uint32_t put_epoch, put_term;
    bool put_final;

    struct report_ack acked;
    bool ack_is_due, finished_is_acked;

    struct budget_share share; /* of status writes */
    cJSON *events;             /* newest warning by pod UID */
    struct instant events_read;

    char *awaits; /* key of the job whose end this one waits for; NULL: of none */
};

struct memory; /* opaque */
struct memory *memory_new(bool history_configured, struct error *err);
void memory_free(struct memory *memory); /* NULL is fine */
CLEANUP_DEFINE(cleanup_memory_pointer, struct memory, memory_free)
#define cleanup_memory CLEANUP(cleanup_memory_pointer)

/* Of the job with this key and UID, made where there is none; what was kept of an earlier job of that key is dropped.
 * NULL without memory. */
struct job_memory *memory_of(struct memory *memory, const char *key, const char *uid);
struct job_memory *memory_find(const struct memory *memory, const char *uid); /* NULL: none, or settled */
void memory_drop(struct memory *memory, const char *key);
/* Forgets all but the phase; `memory_of` begins anew. */
void memory_settle(struct memory *memory, const char *key);
/* What `job` waits for, from now on; NULL: nothing. -1 without memory. */
int memory_await(struct memory *memory, struct job_memory *job, const char *key);
/* Visits the jobs that wait for the one with this key. */
void memory_waiting_for(const struct memory *memory, const char *key, void (*visit)(void *arg, const char *waiter),
                        void *arg);
void memory_count(const struct memory *memory, uint64_t out[TRAINJOB_PHASES]);

/* Never NULL. */
const struct trainjob_reports *job_memory_reports(const struct job_memory *job);
const struct trainjob_attempts *job_memory_attempts(const struct job_memory *job);

/* Room for what a coordinator says; NULL without memory. */
struct trainjob_reports *job_memory_listen(struct job_memory *job);
void job_memory_set_secret_made(struct job_memory *job, bool made);
/* Without memory for its sentence only `secret_made` is kept: all is attempted again. */
void job_memory_attempted(struct job_memory *job, const struct trainjob_attempts *attempts);

/* Keeps an epoch, the one with the highest term of each number, sorted. -1 where there are too many. */
int job_memory_add_epoch(struct job_memory *job, const struct report_epoch *epoch);
/* Drops epochs that need not be told again: those up to `epoch`, unless their term is above `term`. */
void job_memory_drop_epochs(struct job_memory *job, uint32_t epoch, uint32_t term);

#endif
