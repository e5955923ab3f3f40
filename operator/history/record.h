/* record — what MongoDB is to hold about one job, and how that meets what it holds already. Pure; no I/O.
 *
 *   {_id: <job UID>, namespace, name,
 *    task: {model_type, batch_size, epochs, dataset, lr, function_name,
 *           options: {default_parallelism, static_parallelism, validate_every, k, goal_accuracy}},
 *    data: {validation_loss: […], accuracy: […], train_loss: […], parallelism: […], epoch_duration: […]},
 *    state, reason, message, term, final, created, started, completed, deleted, model: {path, sha256, bytes, step},
 *    epochs: [{epoch, term, train_loss, validation_loss, accuracy, parallelism, duration_seconds}, …],
 *    updated, revision}
 *
 * `task` and `data` are KubeML's History: lists of doubles, `data.validation_loss` and `data.accuracy` with one entry a
 * validated epoch, the others one an epoch. A loss that is not finite is null. `epochs` says which is which.
 * `state` is the job's phase, or "Deleted" where it was deleted before its end. Times are BSON dates.
 * `revision` grows with every write, so that of two operators (one just losing its lease) neither overwrites what it
 * has not read.
 */
#ifndef THOLE_OPERATOR_HISTORY_RECORD_H
#define THOLE_OPERATOR_HISTORY_RECORD_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/json.h"
#include "common/report/report.h"

#include <mongoc/mongoc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct record {
    char *job_uid, *job; /* `job` is "namespace/name", for people */
    cJSON *about;        /* the document's members but _id, data, epochs, updated and revision */
    uint32_t term;
    bool final;
    struct report_epoch *epochs; /* by epoch, each once */
    size_t count;
};

/* From the whole TrainJob and epochs in any order. NULL with *err where it has no UID, epochs are too many, or
 * memory is lacking. */
struct record *record_new(const cJSON *trainjob, const struct report_epoch *epochs, size_t count, bool final,
                          struct error *err);
struct record *record_copy(const struct record *record, struct error *err);
void record_free(struct record *record); /* NULL is fine */
CLEANUP_DEFINE(cleanup_record_pointer, struct record, record_free)
#define cleanup_record CLEANUP(cleanup_record_pointer)

/* Takes over what `older` (of the same job) knows and `record` does not: epochs it lacks or has from a lower term;
 * about the job itself, everything where only `older` is final, or both or neither is and `older` is from a higher
 * term.
 */
int record_merge(struct record *record, const struct record *older, struct error *err);

uint32_t record_newest_epoch(const struct record *record); /* 0: none */

/* `*revision` of a stored document. -1 where it is none of ours. */
int record_from_bson(struct record **out, int64_t *revision, const bson_t *document, struct error *err);

/* The whole document; `out` is initialised here. */
void record_to_bson(const struct record *record, int64_t revision, int64_t updated_seconds, bson_t *out);

/* Whether writing it would change anything. */
bool record_equal(const struct record *a, const struct record *b);

#endif
