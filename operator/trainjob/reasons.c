#include "trainjob/reasons.h"

#include <string.h>

static const struct {
    const char *name, *meaning;
    bool warning;
} table[REASONS] = {
    [REASON_NONE] = {"", "", false},

    [REASON_DATASET_MISSING] = {"DatasetMissing", "there is no Dataset of the name in `spec.datasetRef`", true},
    [REASON_DATASET_NOT_READY] = {"DatasetNotReady", "the Dataset cannot be used, or not yet; it says why", true},
    [REASON_START_MISSING] = {"StartMissing", "there is no TrainJob of the name in `spec.model.trainJobRef`", true},
    [REASON_START_NOT_READY] = {"StartNotReady", "the TrainJob in `spec.model.trainJobRef` has not succeeded yet",
                                false},
    [REASON_START_UNUSABLE] = {"StartUnusable",
                               "the TrainJob in `spec.model.trainJobRef` failed, kept no model, or waits for this one",
                               true},
    [REASON_INVALID_SPEC] = {"InvalidSpec", "the job cannot be planned as it is written", true},
    [REASON_PLANNED] = {"Planned", "nothing is missing: the job is about to start", false},

    [REASON_STARTING] = {"Starting", "the pods are being made, or wait for each other", false},
    [REASON_PODS_NOT_RUNNING] = {"PodsNotRunning", "a pod does not run: no node, no image, a volume, a quota", true},
    [REASON_TRAINING] = {"Training", "the job trains", false},
    [REASON_WAITING_FOR_WORKERS] = {"WaitingForWorkers", "the parameter servers run, but no worker", false},
    [REASON_NAME_CONFLICT] = {"NameConflict", "an object that is not this job's has the name of one it needs", true},
    [REASON_DATASET_REPLACED] = {"DatasetReplaced", "the Dataset was replaced between planning and starting", true},
    [REASON_CANNOT_WRITE] = {"CannotWrite", "the API server or MongoDB takes no writes; they are tried again", true},

    [REASON_CHILD_REFUSED] = {"ChildRefused", "the API server will never take one of the job's objects", true},
    [REASON_PARAMETER_SERVER_LOST] = {"ParameterServerLost", "a parameter server ended, and the model with it", true},
    [REASON_BACKOFF_LIMIT_EXCEEDED] = {"BackoffLimitExceeded",
                                       "processes ended again and again without progress, beyond "
                                       "`spec.runPolicy.backoffLimit`",
                                       true},

    [REASON_COMPLETED] = {"Completed", "all epochs are trained", false},
    [REASON_GOAL_REACHED] = {"GoalReached", "`spec.training.goalAccuracy` was reached before the last epoch", false},
    [REASON_DIVERGED] = {"Diverged", "the loss is no number any more", true},
    [REASON_OUTPUT_FAILED] = {"OutputFailed", "the model is trained but could not be kept", true},
    [REASON_WORKERS_DISAGREE] = {"WorkersDisagree", "two workers computed different bits for the same block", true},
    [REASON_INTERNAL_ERROR] = {"InternalError", "the coordinator met what should not happen", true},
    [REASON_ERROR] = {"Error", "the coordinator ended the job with a reason that this operator does not know", true},

    [REASON_NOT_CONFIGURED] = {"NotConfigured", "no MongoDB: the history is in the status alone", false},
    [REASON_UP_TO_DATE] = {"UpToDate", "MongoDB has all epochs so far", false},
    [REASON_PENDING] = {"Pending", "the job is over, and MongoDB does not have its end yet", false},
    [REASON_COMPLETE] = {"Complete", "MongoDB has the whole record", false},

    [REASON_RUNNING] = {"Running", "the job began to train", false},
    [REASON_SUCCEEDED] = {"Succeeded", "the job is over, the model is where it should be", false},
    [REASON_FAILED] = {"Failed", "the job is over without a model", true},
    [REASON_PROCESS_ENDED] = {"ProcessEnded", "a trainer process ended unasked", true},
    [REASON_HISTORY_LOST] = {"HistoryLost", "the job was deleted before MongoDB had its record, for ten minutes", true},

    [REASON_SOURCE_ACCEPTED] = {"SourceAccepted", "of a Dataset: its source may be used", false},
    [REASON_SOURCE_NOT_ALLOWED] = {"SourceNotAllowed", "of a Dataset: its path is not below an allowed one", true},
};

const char *reason_name(enum reason reason)
{
    return table[reason].name;
}

const char *reason_meaning(enum reason reason)
{
    return table[reason].meaning;
}

bool reason_is_warning(enum reason reason)
{
    return table[reason].warning;
}

enum reason reason_parse(const char *name, enum reason preset)
{
    for (int i = REASON_NONE + 1; i < REASONS; i++)
        if (strcmp(name, table[i].name) == 0)
            return (enum reason)i;
    return preset;
}
