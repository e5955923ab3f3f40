/* What must be there before a job can start, and the model that it starts from where that is one of before. */

#include "trainjob/job.h"

#include "common/crypto.h"
#include "trainjob/reasons.h"

#include <stdarg.h>
#include <string.h>

/* What is in the way. */
struct obstacle {
    enum reason *reason;
    bool *stalled;
    char *sentence;
    size_t size;
};

static bool blocked(const struct obstacle *out, enum reason reason, bool stalled, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static bool blocked(const struct obstacle *out, enum reason reason, bool stalled, const char *format, ...)
{
    *out->reason = reason;
    *out->stalled = stalled;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out->sentence, out->size, format, arguments);
    va_end(arguments);
    return true;
}

/* ---- another job's model ---- */

static const char *kept_sha256(const cJSON *trainjob)
{
    const char *sha256 = json_string(trainjob, "status.model.sha256", "");
    bool whole = strlen(sha256) == SHA256_HEX_SIZE - 1 && strspn(sha256, "0123456789abcdef") == SHA256_HEX_SIZE - 1;
    return whole && json_at(trainjob, "spec.output.volume") != NULL ? sha256 : NULL;
}

enum { NAME_SHOWN = 48, NAMES_SHOWN = 8, NAMES_SIZE = (NAMES_SHOWN + 2) * (NAME_SHOWN + 8) };

/* "a → b → c → a", of a circle that begins behind `first`. */
static void circle_text(const char *first, const cJSON *others, char out[NAMES_SIZE])
{
    size_t length = (size_t)snprintf(out, NAMES_SIZE, "%.*s", NAME_SHOWN, first);
    size_t shown = 0;
    for (const cJSON *item = others; item != NULL; item = item->next, shown++) {
        const char *name = shown < NAMES_SHOWN || item->next == NULL ? item->valuestring : "…";
        if (shown <= NAMES_SHOWN || item->next == NULL)
            length += (size_t)snprintf(out + length, NAMES_SIZE - length, " → %.*s", NAME_SHOWN, name);
    }
}

/* Jobs that wait for each other wait for ever, and so does whoever waits for them. */
static bool start_goes_in_a_circle(const struct trainjob_view *view, const struct obstacle *out)
{
    const cJSON *chain = view->start_chain;
    const cJSON *last = cJSON_GetArrayItem(chain, cJSON_GetArraySize(chain) - 1);
    if (last == NULL)
        return false;
    const bool with_this = strcmp(last->valuestring, view->job->name) == 0;
    const cJSON *first = chain->child;
    while (strcmp(first->valuestring, last->valuestring) != 0)
        first = first->next;
    if (!with_this && first == last)
        return false;
    char names[NAMES_SIZE];
    circle_text(last->valuestring, with_this ? chain->child : first->next, names);
    return blocked(out, REASON_START_UNUSABLE, true,
                   "waits for TrainJob '%s', whose model is the start, but %s for ever (%s); name another in "
                   "spec.model.trainJobRef of one of them",
                   view->job->start_job, with_this ? "they wait for each other" : "that one waits in a circle", names);
}

static bool start_job_is_in_the_way(const struct trainjob_view *view, const struct obstacle *out)
{
    const char *name = view->job->start_job;
    const cJSON *other = view->start_job;
    if (name == NULL)
        return false;
    if (other == NULL || json_at(other, "metadata.deletionTimestamp") != NULL)
        return blocked(
            out, REASON_START_MISSING, false,
            "waits for TrainJob '%s' in namespace '%s', whose model is the start: there is none; apply it, or "
            "correct spec.model.trainJobRef.name",
            name, view->job->namespace);
    if (start_goes_in_a_circle(view, out))
        return true;
    const char *phase = json_string(other, "status.phase", "Pending");
    if (strcmp(phase, "Failed") == 0)
        return blocked(out, REASON_START_UNUSABLE, true,
                       "waits for TrainJob '%s', whose model is the start, but it has failed; make it again, or name "
                       "another in spec.model.trainJobRef",
                       name);
    if (strcmp(phase, "Succeeded") != 0)
        return blocked(out, REASON_START_NOT_READY, false,
                       "waits for TrainJob '%s', whose model is the start: it is %s", name, phase);
    if (kept_sha256(other) == NULL)
        return blocked(
            out, REASON_START_UNUSABLE, true,
            "waits for the model of TrainJob '%s', but it was not kept, for want of spec.output; make that job "
            "again with an output, or name another in spec.model.trainJobRef",
            name);
    return false;
}

cJSON *trainjob_start_of(const struct trainjob_view *view)
{
    const char *sha256 = kept_sha256(view->start_job);
    bool whole = sha256 != NULL;
    cleanup_json cJSON *start = cJSON_CreateObject();
    json_add_text(start, "trainJob", view->job->start_job, &whole);
    json_add_text(start, "uid", json_string(view->start_job, "metadata.uid", ""), &whole);
    json_add_text(start, "sha256", sha256, &whole);
    json_add(start, "volume", cJSON_Duplicate(json_at(view->start_job, "spec.output.volume"), true), &whole);
    return whole ? move(start) : NULL;
}

/* Jobs keep their models where nothing but their own name and UID decides: what a job's process says of the place need
 * not be believed. */
const cJSON *trainjob_start_volume(const struct trainjob *job, char sub_path[TRAINJOB_SUB_PATH_SIZE])
{
    sub_path[0] = '\0';
    if (job->start_job == NULL)
        return json_at(job->object, "spec.model.file.volume");
    snprintf(sub_path, TRAINJOB_SUB_PATH_SIZE, "%s/%s/%s", job->namespace, json_string(job->start, "trainJob", ""),
             json_string(job->start, "uid", ""));
    return json_at(job->start, "volume");
}

/* ---- the start ---- */

static int check_directories(const struct trainjob_view *view, struct error *err)
{
    const struct {
        const char *path, *field;
    } all[] = {
        {view->job->output_host_path, "spec.output.volume.hostPath.path"},
        {view->job->start_file_path, "spec.model.file.volume.hostPath.path"},
        {json_string(view->start_job, "spec.output.volume.hostPath.path", NULL),
         "spec.output.volume.hostPath.path of the TrainJob in spec.model.trainJobRef"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].path != NULL && host_paths_check(view->allowed_host_paths, all[i].path, all[i].field, err) < 0)
            return -1;
    return 0;
}

/* The plan as it would be frozen now; NULL with a sentence. */
static char *try_plan(const struct trainjob_view *view, struct error *err)
{
    return check_directories(view, err) < 0 ? NULL : plan_compile(view->job->object, view->dataset, err);
}

static bool dataset_is_in_the_way(const struct trainjob_view *view, const struct obstacle *out)
{
    if (view->dataset == NULL)
        return blocked(out, REASON_DATASET_MISSING, false,
                       "waits for Dataset '%s' in namespace '%s': there is none; apply it, or correct "
                       "spec.datasetRef.name",
                       view->job->dataset, view->job->namespace);
    char why[1000];
    if (dataset_is_ready(view->dataset, why, sizeof why))
        return false;
    bool failed = strcmp(json_string(view->dataset, "status.phase", ""), "Failed") == 0;
    return blocked(out, REASON_DATASET_NOT_READY, failed, "waits: %s", why);
}

bool trainjob_start_is_blocked(const struct trainjob_view *view, enum reason *reason, bool *stalled, char *sentence,
                               size_t size)
{
    const struct obstacle out = {reason, stalled, sentence, size};
    *stalled = false;
    if (dataset_is_in_the_way(view, &out) || start_job_is_in_the_way(view, &out))
        return true;
    struct error err = {0};
    cleanup_free char *text = try_plan(view, &err);
    return text == NULL && blocked(&out, REASON_INVALID_SPEC, true, "%s", error_message(&err));
}
