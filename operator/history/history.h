/* history — writes the jobs' records into MongoDB, on a thread of its own.
 *
 * Database "thole", collection "history", one document a job: `_id` is the job's UID, `task` and `data` carry KubeML's
 * names, `epochs` holds every epoch with its term. What is put is kept, newest value per job, until MongoDB has it:
 * while MongoDB is away, records grow only by their epochs and writing goes on by itself when it is back. Writing is
 * idempotent: what is there already, or is there from a higher term, stays as it is.
 * May call common and loop. Knows TrainJobs only as the objects that the API server shows; talks by mongo-c-driver.
 */
#ifndef THOLE_OPERATOR_HISTORY_H
#define THOLE_OPERATOR_HISTORY_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/json.h"
#include "common/log.h"
#include "common/report/report.h"
#include "loop/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HISTORY_JOBS_MOST = 100 * 1000,  /* waiting to be written */
    HISTORY_EPOCHS_MOST = 10 * 1000, /* of one job */
};

/* Called on the loop's thread. */
struct history_hooks {
    void *arg;
    /* MongoDB holds every epoch of this job that was put, the newest being `epoch` (0: none), and with `final` its
     * end. */
    void (*synced)(void *arg, const char *job_uid, uint32_t epoch, bool final);
    /* It could not be written; told once until it succeeds or fails in another way. It is tried again by itself,
     * except that a record which did not find room must be put again. */
    void (*failed)(void *arg, const char *job_uid, const char *sentence);
};

struct history_options {
    const char *uri;       /* mongodb://[user:password@]host[:port]/… ; copied */
    const struct log *log; /* borrowed until history_stop */
    struct loop *loop;     /* likewise */
    struct history_hooks hooks;
    int64_t retry_least, retry_most; /* nanoseconds between attempts; 0: 500 ms, 30 s */
};

struct history; /* opaque */

/* -1 with one sentence where the URI is malformed. MongoDB itself need not be there yet. */
int history_start(struct history **out, const struct history_options *options, struct error *err);

/* Writes what still waits for up to `flush` nanoseconds, then ends the thread; no hook is called any longer. Returns
 * how many jobs' records were left unwritten. NULL is fine. */
size_t history_stop(struct history *history, int64_t flush);

/* Makes MongoDB hold these epochs, and the job as `trainjob` (the whole object) shows it. `final`: it has ended or is
 * being deleted. All is copied. From the loop's thread; never blocks. */
void history_put(struct history *history, const cJSON *trainjob, const struct report_epoch *epochs, size_t count,
                 bool final);

/* From any thread. */
struct history_metrics {
    uint64_t waiting;  /* jobs whose record is not yet written */
    uint64_t written;  /* documents inserted or changed */
    uint64_t settled;  /* records that MongoDB held already */
    uint64_t failures; /* attempts */
};
void history_metrics(struct history *history, struct history_metrics *out);

#endif
