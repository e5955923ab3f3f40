/* processes — the job's processes as children of this one; private to this folder. */
#ifndef THOLE_LOCAL_PROCESSES_H
#define THOLE_LOCAL_PROCESSES_H

#include "common/clock.h"
#include "local/job.h"

#include <sys/types.h>

enum process_role { PROCESS_PS, PROCESS_WORKER };

struct process {
    enum process_role role;
    uint32_t index;
    int words; /* a file in memory where it leaves its last sentence */
    pid_t pid; /* 0: does not run */
    struct instant started, start_at;
    uint32_t quick_ends;       /* in a row: each makes the pause before the next start longer */
    uint32_t same_ends;        /* in a row, each quick and with the same last words */
    uint8_t same[SHA256_SIZE]; /* digest of those */
};

struct processes {
    const struct job *job;
    const char *model_file, *log_level;
    int plan, token; /* files in memory that the children inherit */
    int listeners[PLAN_SHARDS_MOST];
    uint16_t ports[PLAN_SHARDS_MOST];
    int report[2]; /* ours, and shard 0's end */
    int log_fd;    /* where the children's standard error goes; -1: where ours does */
    struct process *list;
    uint32_t count;
    uint32_t restarts, ended_without_progress; /* of workers */
};

struct ended {
    struct process *process;
    bool well;           /* by itself, with status 0 */
    bool in_vain;        /* starting it again will not help: it cannot read the data, or said the same three times */
    char sentence[1200]; /* who, how, and its last words */
};

/* Prepares everything; starts nothing. */
int processes_init(struct processes *processes, const struct job *job, const char *model_file, const char *log_level,
                   int log_fd, struct error *err);
/* Starts what is to run and does not, and is due. */
int processes_start(struct processes *processes, struct instant now, struct error *err);
/* When processes_start() has something to do next; -1: nothing is waiting. */
int64_t processes_wait(const struct processes *processes, struct instant now);
/* The next child that has ended; false where none has. */
bool processes_reap(struct processes *processes, struct ended *ended, struct instant now);
bool processes_run(const struct processes *processes);   /* does any? */
bool processes_serve(const struct processes *processes); /* does any parameter server? */
/* Asks all to end, or, with `kill`, ends them. */
void processes_stop(const struct processes *processes, bool kill);
/* Ends and removes whatever is left. */
void processes_free(struct processes *processes);

#endif
