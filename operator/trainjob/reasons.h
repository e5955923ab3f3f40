/* reasons — the one-word reasons of conditions and Events, all in one table.
 *
 * People search for these words and scripts wait for them: what is not in the table cannot be said, and each has its
 * meaning in config/reasons.md.
 */
#ifndef THOLE_OPERATOR_TRAINJOB_REASONS_H
#define THOLE_OPERATOR_TRAINJOB_REASONS_H

#include <stdbool.h>

enum reason {
    REASON_NONE,

    /* before the start */
    REASON_DATASET_MISSING,
    REASON_DATASET_NOT_READY,
    REASON_START_MISSING,
    REASON_START_NOT_READY,
    REASON_START_UNUSABLE,
    REASON_INVALID_SPEC,
    REASON_PLANNED,

    /* under way */
    REASON_STARTING,
    REASON_PODS_NOT_RUNNING,
    REASON_TRAINING,
    REASON_WAITING_FOR_WORKERS,
    REASON_NAME_CONFLICT,
    REASON_DATASET_REPLACED,
    REASON_CANNOT_WRITE,

    /* the end, found by the operator */
    REASON_CHILD_REFUSED,
    REASON_PARAMETER_SERVER_LOST,
    REASON_BACKOFF_LIMIT_EXCEEDED,

    /* the end, told by the coordinator */
    REASON_COMPLETED,
    REASON_GOAL_REACHED,
    REASON_DIVERGED,
    REASON_OUTPUT_FAILED,
    REASON_WORKERS_DISAGREE,
    REASON_INTERNAL_ERROR,
    REASON_ERROR,

    /* of the condition HistorySynced */
    REASON_NOT_CONFIGURED,
    REASON_UP_TO_DATE,
    REASON_PENDING,
    REASON_COMPLETE,

    /* of Events alone */
    REASON_RUNNING,
    REASON_SUCCEEDED,
    REASON_FAILED,
    REASON_PROCESS_ENDED,
    REASON_HISTORY_LOST,

    /* of Datasets */
    REASON_SOURCE_ACCEPTED,
    REASON_SOURCE_NOT_ALLOWED,
};
enum { REASONS = REASON_SOURCE_NOT_ALLOWED + 1 };

const char *reason_name(enum reason reason);    /* CamelCase; "" for REASON_NONE */
const char *reason_meaning(enum reason reason); /* half a sentence, as in config/reasons.md */
bool reason_is_warning(enum reason reason);     /* an Event of it is a warning */

/* The reason of that name, or `preset`: words from outside are not passed on. */
enum reason reason_parse(const char *name, enum reason preset);

#endif
