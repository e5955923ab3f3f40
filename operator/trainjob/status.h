/* status — what a job's status should say. Pure: everything observed comes in, the whole status comes out. */
#ifndef THOLE_OPERATOR_TRAINJOB_STATUS_H
#define THOLE_OPERATOR_TRAINJOB_STATUS_H

#include "trainjob/job.h"

/* The status the job should have, to be freed; NULL without memory. */
cJSON *trainjob_status(const struct trainjob_view *view);

/* What is frozen when the job starts, as members of the status: to be written, for the very version of the object
 * that was planned, before the first child. NULL where the job cannot be planned. */
cJSON *trainjob_start_status(const struct trainjob_view *view);

/* How soon `now` should be written over `before` (either may be NULL).
 * LATER: only numbers differ that change all the time; SOON: only the words of a sentence. */
enum status_change { STATUS_SAME, STATUS_LATER, STATUS_SOON, STATUS_AT_ONCE };
enum status_change trainjob_status_change(const cJSON *before, const cJSON *now);

/* A merge patch that makes `before` into `now`, {"status": …}; to be freed; NULL without memory. */
cJSON *trainjob_status_patch(const cJSON *before, const cJSON *now);

/* ---- parts, each with a file of its own ---- */

/* status.c: puts `value` (taken over) at a path. Where memory is out, also in making the value, the status is spoilt:
 * it is no object any longer, reads as if it were empty, and is given up at the end. What is written over an object in
 * part would take away the rest. */
void status_put(cJSON *status, const char *path, cJSON *value);
void status_spoil(cJSON *status);

/* failures.c: what has ended unasked. */

/* How many ends of this pod's container the status has counted. */
int32_t trainjob_counted_ends(const cJSON *status, const char *pod_uid);
/* Counts new ends into `status`.restarts and .lastFailure, which hold the old values. */
void trainjob_count_ends(const struct trainjob_view *view, cJSON *status);
/* Has a process of this role ended too often without progress? */
bool trainjob_is_beyond_limit(const struct trainjob_view *view, const cJSON *status, enum trainjob_role role);
/* Why the job's pods are not all running, the first reason found; "" : they are. `before` is the message so far. */
void trainjob_problem(const struct trainjob_view *view, const char *before, char *out, size_t size);
/* A parameter server that held a shard of the running job is not what it was. */
bool trainjob_ps_is_lost(const struct trainjob_view *view, char *sentence, size_t size);
/* Writes down which pods hold the shards. */
void trainjob_record_shards(const struct trainjob_view *view, cJSON *status);

/* epochs.c: the history. */

/* Merges reported epochs into `status`.history, and sets epoch, accuracy and, with a new epoch, trainLoss. */
void trainjob_merge_epochs(const struct trainjob_view *view, cJSON *status);
/* trainLoss and accuracy from the history's newest entries that have them. */
void trainjob_show_last_epoch(cJSON *status);
/* The newest epoch of the status' history, with all before it: what may be acknowledged. */
uint32_t trainjob_durable_epoch(const cJSON *status);
/* The history's entries as reports: up to `most` into `out`, returns how many. */
size_t trainjob_read_epochs(const cJSON *status, struct report_epoch *out, size_t most);

/* sync.c: what asynchronous trainings do. */

/* Sets `status`.sync, where there is anything to say. */
void trainjob_show_sync(const struct report_sync *sync, cJSON *status);
/* Adds to `totals` what `now` has more than was `counted` of its process, and has counted it. */
void trainjob_add_sync(struct report_sync *totals, struct report_sync *counted, const struct report_sync *now);

#endif
