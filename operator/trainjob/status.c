#include "trainjob/status.h"

#include "common/clock.h"
#include "trainjob/objects.h"
#include "trainjob/reasons.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

enum { MESSAGE_SIZE = 2000 };

/* What the job is found to be. */
struct verdict {
    enum trainjob_phase phase;
    const char *reason; /* of the table, or as it stands in the status */
    bool stalled;       /* it will not go on by itself */
    char message[MESSAGE_SIZE];
};

static void say(struct verdict *verdict, enum reason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void say(struct verdict *verdict, enum reason reason, const char *format, ...)
{
    verdict->reason = reason_name(reason);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(verdict->message, sizeof verdict->message, format, arguments);
    va_end(arguments);
}

void status_spoil(cJSON *status)
{
    status->type = cJSON_Invalid;
}

void status_put(cJSON *status, const char *path, cJSON *value)
{
    if (json_put(status, path, value, NULL) < 0)
        status_spoil(status);
}

static cJSON *status_unless_spoilt(cJSON *status)
{
    if (cJSON_IsObject(status))
        return status;
    cJSON_Delete(status);
    return NULL;
}

static void set_number(cJSON *status, const char *path, double value)
{
    status_put(status, path, cJSON_CreateNumber(value));
}

static void set_text(cJSON *status, const char *path, const char *value)
{
    status_put(status, path, cJSON_CreateString(value));
}

static void set_time(cJSON *status, const char *path, int64_t seconds)
{
    char text[RFC3339_SIZE];
    time_format_rfc3339(seconds, text);
    set_text(status, path, text);
}

/* ---- the start ---- */

static const char *image_of(const struct trainjob_view *view)
{
    return view->job->image != NULL ? view->job->image : view->trainer_image;
}

/* The digest of the plan as its processes will have it: by what the model to start from is, where that is known. */
static int plan_digest(const struct trainjob_view *view, const cJSON *start, char out[SHA256_HEX_SIZE])
{
    cleanup_free char *text = plan_compile(view->job->object, view->dataset, NULL);
    cleanup_plan struct plan *plan = NULL;
    uint8_t file[SHA256_SIZE];
    if (text == NULL || plan_parse(&plan, text, strlen(text), NULL) < 0)
        return -1;
    if (start != NULL &&
        (hex_decode(json_string(start, "sha256", ""), file, sizeof file) < 0 || plan_begin_from(plan, file, NULL) < 0))
        return -1;
    hex_encode(plan->digest, SHA256_SIZE, out);
    return 0;
}

cJSON *trainjob_start_status(const struct trainjob_view *view)
{
    char digest[SHA256_HEX_SIZE];
    cleanup_json cJSON *start = view->job->start_job == NULL ? NULL : trainjob_start_of(view);
    cleanup_json cJSON *status = cJSON_CreateObject();
    if (status == NULL || (view->job->start_job != NULL && start == NULL) || plan_digest(view, start, digest) < 0)
        return NULL;
    set_text(status, "phase", trainjob_phase_name(TRAINJOB_STARTING));
    set_time(status, "startTime", view->now);
    set_text(status, "trainerImage", image_of(view));
    set_text(status, "dataset.name", view->job->dataset);
    set_text(status, "dataset.uid", json_string(view->dataset, "metadata.uid", ""));
    set_text(status, "plan.digest", digest);
    if (start != NULL)
        status_put(status, "start", move(start));
    return status_unless_spoilt(move(status));
}

/* ---- judging ---- */

static void judge_waiting(const struct trainjob_view *view, struct verdict *out)
{
    char sentence[1500];
    enum reason reason = REASON_PLANNED;
    out->phase = TRAINJOB_PENDING;
    if (trainjob_start_is_blocked(view, &reason, &out->stalled, sentence, sizeof sentence))
        say(out, reason, "%s", sentence);
    else
        say(out, reason, "about to start");
}

static void judge_finished(const struct trainjob_view *view, struct verdict *out)
{
    const struct report_finished *finished = &view->reports->finished;
    out->phase = finished->succeeded ? TRAINJOB_SUCCEEDED : TRAINJOB_FAILED;
    enum reason reason = reason_parse(finished->reason, finished->succeeded ? REASON_COMPLETED : REASON_ERROR);
    const char *message = finished->message[0] != '\0' ? finished->message
                          : finished->succeeded        ? "Training is complete"
                                                       : "Training failed";
    say(out, reason, "%s", message);
}

/* Fails the job where something happened that it cannot go on from. */
static bool judge_failure(const struct trainjob_view *view, const cJSON *status, struct verdict *out)
{
    char sentence[1500];
    out->phase = TRAINJOB_FAILED;
    if (view->attempts->is_refused) {
        say(out, REASON_CHILD_REFUSED, "the API server refuses a part of the job: %s", view->attempts->sentence);
        return true;
    }
    if (view->job->phase == TRAINJOB_RUNNING && trainjob_ps_is_lost(view, sentence, sizeof sentence)) {
        say(out, REASON_PARAMETER_SERVER_LOST, "%s", sentence);
        return true;
    }
    static const enum trainjob_role roles[] = {ROLE_PS, ROLE_WORKER};
    for (size_t i = 0; i < 2; i++) {
        if (!trainjob_is_beyond_limit(view, status, roles[i]))
            continue;
        const char *message = json_string(status, "lastFailure.message", "");
        say(out, REASON_BACKOFF_LIMIT_EXCEEDED,
            "%s processes ended %" PRId64 " times without progress; the last was pod '%s' on node '%s' with exit "
            "code %" PRId64 "%s%s",
            roles[i] == ROLE_PS ? "parameter server" : "worker",
            json_int(status,
                     roles[i] == ROLE_PS ? "restarts.parameterServersSinceProgress" : "restarts.workersSinceProgress",
                     0),
            json_string(status, "lastFailure.pod", ""), json_string(status, "lastFailure.node", ""),
            json_int(status, "lastFailure.exitCode", 0), message[0] == '\0' ? "" : ": ", message);
        return true;
    }
    return false;
}

/* Something keeps us from making or changing the children. */
static bool judge_attempts(const struct trainjob_view *view, struct verdict *out)
{
    const struct trainjob_attempts *attempts = view->attempts;
    if (attempts->is_conflict) {
        out->stalled = true;
        say(out, REASON_NAME_CONFLICT, "%s", attempts->sentence);
    } else if (!attempts->secret_made && !trainjob_has_its_dataset(view)) {
        out->stalled = true;
        say(out, REASON_DATASET_REPLACED,
            "Dataset '%s' was deleted or replaced after the job had been planned with it; make the job again",
            view->job->dataset);
    } else if (attempts->sentence[0] != '\0') {
        say(out, REASON_CANNOT_WRITE, "%s; trying again", attempts->sentence);
    } else {
        return false;
    }
    return true;
}

static bool is_training(const struct trainjob_view *view, const cJSON *status)
{
    const struct trainjob_reports *reports = view->reports;
    return view->job->phase == TRAINJOB_RUNNING || json_int(status, "epoch", 0) > 0 ||
           (reports->has_progress && (reports->progress.step > 0 || reports->progress.workers > 0));
}

static const char idle[] = "; spec.workers.replicas is 0";

/* What the status said so far, without what is added anew at every look. */
static size_t length_without_addition(const char *before)
{
    size_t length = strlen(before);
    size_t added = sizeof idle - 1;
    return length >= added && strcmp(before + length - added, idle) == 0 ? length - added : length;
}

static void judge_training(const struct trainjob_view *view, const char *problem, struct verdict *out)
{
    const struct report_progress *progress = &view->reports->progress;
    const char *before = json_string(view->job->status, "message", "");
    size_t length = problem[0] == '\0' ? length_without_addition(before) : 0;
    char doing[600];
    if (!view->reports->has_progress && length > 0) /* this operator has just begun to listen */
        snprintf(doing, sizeof doing, "%.*s", (int)length, before);
    else if (!view->reports->has_progress)
        snprintf(doing, sizeof doing, "trains");
    else if (progress->message[0] != '\0')
        snprintf(doing, sizeof doing, "%s", progress->message);
    else if (progress->workers == 0)
        snprintf(doing, sizeof doing, "waits for a worker");
    else
        snprintf(doing, sizeof doing, "trains epoch %" PRIu32 " of %" PRIu32, progress->epoch, view->job->epochs);

    bool waits = view->reports->has_progress && progress->workers == 0;
    enum reason reason = waits ? REASON_WAITING_FOR_WORKERS : REASON_TRAINING;
    if (problem[0] != '\0')
        say(out, reason, "%s; %s", doing, problem);
    else
        say(out, reason, "%s%s", doing, view->job->replicas == 0 ? idle : "");
}

static void judge_starting(const struct trainjob_view *view, const char *problem, struct verdict *out)
{
    if (problem[0] != '\0')
        say(out, REASON_PODS_NOT_RUNNING, "%s", problem);
    else if (view->reports->has_progress && view->reports->progress.message[0] != '\0')
        say(out, REASON_STARTING, "%s", view->reports->progress.message);
    else if (view->reports->connected)
        say(out, REASON_STARTING, "the coordinator runs and waits for workers");
    else
        say(out, REASON_STARTING, "waits for the pods to start");
}

static void judge(const struct trainjob_view *view, const cJSON *status, struct verdict *out)
{
    const struct trainjob *job = view->job;
    *out = (struct verdict){.phase = job->phase};
    if (!job->started) {
        judge_waiting(view, out);
        return;
    }
    if (view->reports->has_finished) {
        judge_finished(view, out);
        return;
    }
    if (judge_failure(view, status, out))
        return;
    bool training = is_training(view, status);
    out->phase = training ? TRAINJOB_RUNNING : TRAINJOB_STARTING;
    char problem[1500];
    trainjob_problem(view, json_string(job->status, "message", ""), problem, sizeof problem);
    if (judge_attempts(view, out))
        return;
    if (training)
        judge_training(view, problem, out);
    else
        judge_starting(view, problem, out);
}

/* Sentences begin with a capital letter, names of fields do not. */
static void begin_sentence(char *text)
{
    if (strncmp(text, "spec.", 5) != 0 && strncmp(text, "metadata.", 9) != 0 && text[0] >= 'a' && text[0] <= 'z')
        text[0] = (char)(text[0] - 'a' + 'A');
}

/* ---- conditions ---- */

struct condition {
    const char *type;
    bool holds;
    const char *reason, *message;
};

static void add_condition(cJSON *list, const struct trainjob_view *view, const struct condition *condition, bool *whole)
{
    const char *value = condition->holds ? "True" : "False";
    const cJSON *old = json_find(json_at(view->job->status, "conditions"), "type", condition->type);
    char time[RFC3339_SIZE];
    time_format_rfc3339(view->now, time);
    bool same = old != NULL && strcmp(json_string(old, "status", ""), value) == 0;
    cJSON *json = json_add_object(list, NULL, whole);
    json_add_text(json, "type", condition->type, whole);
    json_add_text(json, "status", value, whole);
    json_add_text(json, "reason", condition->reason, whole);
    json_add_text(json, "message", condition->message, whole);
    json_add_text(json, "lastTransitionTime", same ? json_string(old, "lastTransitionTime", time) : time, whole);
}

static struct condition history_condition(const struct trainjob_view *view, bool over)
{
    const struct trainjob_history *history = view->history;
    struct condition condition = {.type = "HistorySynced", .message = ""};
    const cJSON *old = json_find(json_at(view->job->status, "conditions"), "type", "HistorySynced");
    if (!history->configured) {
        condition.reason = reason_name(REASON_NOT_CONFIGURED);
        condition.message = "no MongoDB is configured; the history is in the status";
    } else if (history->failure[0] != '\0') {
        condition.reason = reason_name(REASON_CANNOT_WRITE);
        condition.message = history->failure;
    } else if (over && !history->final && strcmp(json_string(old, "reason", ""), reason_name(REASON_COMPLETE)) != 0) {
        condition.reason = reason_name(REASON_PENDING);
        condition.message = "the job's end is being written";
    } else {
        condition.holds = true;
        condition.reason = reason_name(over ? REASON_COMPLETE : REASON_UP_TO_DATE);
    }
    return condition;
}

static void set_conditions(const struct trainjob_view *view, const struct verdict *verdict, cJSON *status)
{
    bool succeeded = verdict->phase == TRAINJOB_SUCCEEDED;
    bool failed = verdict->phase == TRAINJOB_FAILED;
    bool over = succeeded || failed;
    bool ready = succeeded || (verdict->phase == TRAINJOB_RUNNING && !verdict->stalled &&
                               strcmp(verdict->reason, reason_name(REASON_WAITING_FOR_WORKERS)) != 0);
    bool stalled = failed || verdict->stalled;
    const char *reason = verdict->reason;
    const char *message = verdict->message;
    const struct condition all[] = {
        {"Ready", ready, reason, message},
        {"Reconciling", !ready && !stalled, reason, message},
        {"Stalled", stalled, reason, stalled ? message : ""},
        {"Succeeded", succeeded, reason, succeeded ? message : ""},
        {"Failed", failed, reason, failed ? message : ""},
        history_condition(view, over),
    };
    bool whole = true;
    cleanup_json cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        add_condition(list, view, &all[i], &whole);
    status_put(status, "conditions", whole ? move(list) : NULL);
}

/* ---- members and progress ---- */

static void count_pods(const struct trainjob_view *view, enum trainjob_role role, uint32_t *replicas, uint32_t *ready)
{
    *replicas = 0;
    *ready = 0;
    for (size_t i = 0; i < view->children->pod_count; i++) {
        const struct trainjob_pod *pod = &view->children->pods[i];
        if (pod->role != role || pod->deleting || pod->over)
            continue;
        ++*replicas;
        *ready += pod->ready;
    }
}

static void set_summary(cJSON *status, const char *path, uint32_t ready, uint32_t desired)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu32 "/%" PRIu32, ready, desired);
    set_text(status, path, text);
}

static void set_members(const struct trainjob_view *view, bool over, cJSON *status)
{
    uint32_t replicas = 0;
    uint32_t ready = 0;
    uint32_t desired = over ? 0 : view->job->replicas;
    count_pods(view, ROLE_WORKER, &replicas, &ready);
    if (view->reports->has_progress)
        ready = view->reports->progress.workers < replicas ? view->reports->progress.workers : replicas;
    if (over)
        ready = 0;
    char selector[256];
    object_worker_selector(view->job, selector, sizeof selector);
    set_number(status, "workers.desired", desired);
    set_number(status, "workers.replicas", replicas);
    set_number(status, "workers.ready", ready);
    set_summary(status, "workers.summary", ready, desired);
    set_text(status, "workers.selector", selector);

    count_pods(view, ROLE_PS, &replicas, &ready);
    desired = over ? 0 : view->job->shards;
    ready = ready < desired ? ready : desired;
    set_number(status, "parameterServers.desired", desired);
    set_number(status, "parameterServers.ready", ready);
    set_summary(status, "parameterServers.summary", ready, desired);
}

static void set_progress(const struct trainjob_view *view, cJSON *status)
{
    const struct report_progress *progress = &view->reports->progress;
    if (!view->reports->has_progress)
        return;
    set_number(status, "step", (double)progress->step);
    if (progress->steps > 0)
        set_number(status, "progressPercent", floor(100.0 * (double)progress->step / (double)progress->steps));
    /* An epoch that has just begun has no mean worth showing: keep the last one's. */
    if (isfinite(progress->train_loss))
        set_number(status, "trainLoss", round(progress->train_loss * 1e4) / 1e4);
    trainjob_show_sync(&progress->sync, status);
}

static void set_coordinator(const struct trainjob_view *view, const struct verdict *verdict, cJSON *status)
{
    const struct trainjob_reports *reports = view->reports;
    if (!reports->connected)
        return;
    if (reports->kernel[0] != '\0')
        set_text(status, "kernel", reports->kernel);
    if (reports->term > json_number(status, "term", 0))
        set_number(status, "term", reports->term);
    if (verdict->phase != TRAINJOB_RUNNING)
        return;
    set_text(status, "coordinator.pod", reports->pod);
    set_text(status, "coordinator.podUID", reports->pod_uid);
    set_text(status, "coordinator.boot", reports->boot);
}

static void set_duration(const struct trainjob_view *view, cJSON *status)
{
    if (!view->job->started)
        return;
    int64_t end = view->now;
    time_parse_rfc3339(json_string(status, "completionTime", ""), &end);
    int64_t seconds = end > view->job->start_time ? end - view->job->start_time : 0;
    char text[64];
    if (seconds >= 3600)
        snprintf(text, sizeof text, "%" PRId64 "h%" PRId64 "m%" PRId64 "s", seconds / 3600, seconds / 60 % 60,
                 seconds % 60);
    else if (seconds >= 60)
        snprintf(text, sizeof text, "%" PRId64 "m%" PRId64 "s", seconds / 60, seconds % 60);
    else
        snprintf(text, sizeof text, "%" PRId64 "s", seconds);
    set_number(status, "durationSeconds", (double)seconds);
    set_text(status, "duration", text);
}

static void set_end(const struct trainjob_view *view, const struct verdict *verdict, cJSON *status)
{
    const struct report_finished *finished = &view->reports->finished;
    set_time(status, "completionTime", view->now);
    trainjob_show_last_epoch(status);
    if (verdict->phase == TRAINJOB_SUCCEEDED)
        set_number(status, "progressPercent", 100);
    if (!view->reports->has_finished)
        return;
    trainjob_show_sync(&finished->sync, status);
    if (!finished->has_model)
        return;
    set_text(status, "model.path", finished->model.path);
    set_text(status, "model.sha256", finished->model.sha256);
    set_number(status, "model.bytes", (double)finished->model.bytes);
    set_number(status, "model.step", (double)finished->model.step);
    set_number(status, "step", (double)finished->model.step);
}

/* A job that is over keeps its verdict. */
static void recall_verdict(const struct trainjob *job, struct verdict *out)
{
    *out = (struct verdict){.phase = job->phase};
    say(out, REASON_NONE, "%s", json_string(job->status, "message", ""));
    out->reason = json_string(json_find(json_at(job->status, "conditions"), "type", "Ready"), "reason",
                              reason_name(job->phase == TRAINJOB_SUCCEEDED ? REASON_COMPLETED : REASON_ERROR));
}

cJSON *trainjob_status(const struct trainjob_view *view)
{
    const struct trainjob *job = view->job;
    cleanup_json cJSON *status = job->status == NULL ? cJSON_CreateObject() : cJSON_Duplicate(job->status, true);
    if (status == NULL)
        return NULL;
    struct verdict verdict;
    set_number(status, "observedGeneration", (double)job->generation);
    if (job->started) /* also once it is over: what was resent may be newer than what was written */
        trainjob_merge_epochs(view, status);
    if (trainjob_is_over(job)) {
        recall_verdict(job, &verdict);
    } else {
        if (job->started) {
            set_progress(view, status);
            trainjob_count_ends(view, status);
        }
        judge(view, status, &verdict);
        if (!view->reports->has_finished) /* what a process says is left as it is */
            begin_sentence(verdict.message);
        set_coordinator(view, &verdict, status);
    }
    bool over = verdict.phase == TRAINJOB_SUCCEEDED || verdict.phase == TRAINJOB_FAILED;
    if (over && !trainjob_is_over(job))
        set_end(view, &verdict, status);
    set_text(status, "phase", trainjob_phase_name(verdict.phase));
    set_text(status, "message", verdict.message);
    set_members(view, over, status);
    if (verdict.phase == TRAINJOB_RUNNING && json_at(status, "parameterServers.pods") == NULL)
        trainjob_record_shards(view, status);
    set_duration(view, status);
    set_conditions(view, &verdict, status);
    return status_unless_spoilt(move(status));
}

/* ---- writing ---- */

static bool differs(const cJSON *a, const cJSON *b, const char *member)
{
    const cJSON *left = cJSON_GetObjectItemCaseSensitive(a, member);
    const cJSON *right = cJSON_GetObjectItemCaseSensitive(b, member);
    return left == NULL || right == NULL ? left != right : !json_equal(left, right);
}

/* Do the lists differ in more than what they say? */
static bool conditions_turn(const cJSON *before, const cJSON *now)
{
    static const char *const members[] = {"type", "status", "reason"};
    const cJSON *a = before == NULL ? NULL : before->child;
    const cJSON *b = now == NULL ? NULL : now->child;
    for (; a != NULL && b != NULL; a = a->next, b = b->next)
        for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
            if (differs(a, b, members[i]))
                return true;
    return a != b;
}

static enum status_change change_of(const cJSON *before, const cJSON *now, const char *member)
{
    static const char *const numbers[] = {"step", "progressPercent", "trainLoss", "sync"};
    if (!differs(before, now, member))
        return STATUS_SAME;
    if (strcmp(member, "duration") == 0 || strcmp(member, "durationSeconds") == 0)
        return STATUS_SAME; /* time alone is no news */
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(member, numbers[i]) == 0)
            return STATUS_LATER;
    if (strcmp(member, "message") == 0)
        return STATUS_SOON;
    if (strcmp(member, "conditions") == 0 && !conditions_turn(json_at(before, member), json_at(now, member)))
        return STATUS_SOON;
    return STATUS_AT_ONCE;
}

enum status_change trainjob_status_change(const cJSON *before, const cJSON *now)
{
    enum status_change most = STATUS_SAME;
    const cJSON *trees[] = {before, now};
    for (size_t i = 0; i < 2; i++) {
        const cJSON *item = NULL;
        cJSON_ArrayForEach(item, trees[i])
        {
            enum status_change change = change_of(before, now, item->string);
            most = change > most ? change : most;
        }
    }
    return most;
}

/* RFC 7396, with a null for every member that is gone. */
static cJSON *merge_patch(const cJSON *before, const cJSON *now, bool *whole)
{
    cJSON *patch = cJSON_CreateObject();
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, now)
    {
        const cJSON *old = cJSON_GetObjectItemCaseSensitive(before, item->string);
        if (cJSON_IsObject(old) && cJSON_IsObject(item) && !json_equal(old, item))
            json_add(patch, item->string, merge_patch(old, item, whole), whole);
        else if (differs(before, now, item->string))
            json_add(patch, item->string, cJSON_Duplicate(item, true), whole);
    }
    cJSON_ArrayForEach(item, before)
    {
        if (cJSON_GetObjectItemCaseSensitive(now, item->string) == NULL)
            json_add(patch, item->string, cJSON_CreateNull(), whole);
    }
    return patch;
}

cJSON *trainjob_status_patch(const cJSON *before, const cJSON *now)
{
    bool whole = true;
    cleanup_json cJSON *patch = cJSON_CreateObject();
    json_add(patch, "status", merge_patch(before, now, &whole), &whole);
    return whole ? move(patch) : NULL;
}
