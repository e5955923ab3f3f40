/* What the controller knows of one job, for GET /debug/trainjob. */
#include "trainjob/controller.h"

#include <math.h>
#include <string.h>

/* Values of environment variables are the one place of a job where people put secrets. */
static void hide_values(cJSON *json)
{
    cJSON *item = NULL;
    cJSON_ArrayForEach(item, json)
    {
        if (item->string != NULL && strcmp(item->string, "env") == 0) {
            cJSON *variable = NULL;
            cJSON_ArrayForEach(variable, item)
            {
                if (cJSON_GetObjectItemCaseSensitive(variable, "value") != NULL)
                    cJSON_ReplaceItemInObjectCaseSensitive(variable, "value", cJSON_CreateString("(hidden)"));
            }
        } else {
            hide_values(item);
        }
    }
}

static void add_finite(cJSON *json, const char *name, double value)
{
    if (isfinite(value))
        cJSON_AddNumberToObject(json, name, value);
}

static double seconds_between(struct instant later, struct instant earlier)
{
    return (double)instant_since(later, earlier) / (double)SECONDS;
}

static void add_reports(cJSON *memory, const struct trainjob_reports *reports)
{
    cJSON *json = cJSON_AddObjectToObject(memory, "reports");
    cJSON_AddBoolToObject(json, "connected", reports->connected);
    if (!reports->connected)
        return;
    cJSON_AddStringToObject(json, "pod", reports->pod);
    cJSON_AddStringToObject(json, "podUID", reports->pod_uid);
    cJSON_AddStringToObject(json, "boot", reports->boot);
    cJSON_AddStringToObject(json, "kernel", reports->kernel);
    cJSON_AddNumberToObject(json, "term", reports->term);
    cJSON_AddNumberToObject(json, "epochsHeld", (double)reports->epoch_count);
    if (reports->has_progress) {
        const struct report_progress *progress = &reports->progress;
        cJSON *now = cJSON_AddObjectToObject(json, "progress");
        cJSON_AddNumberToObject(now, "epoch", progress->epoch);
        cJSON_AddNumberToObject(now, "step", (double)progress->step);
        cJSON_AddNumberToObject(now, "workers", progress->workers);
        add_finite(now, "trainLoss", progress->train_loss);
        cJSON_AddStringToObject(now, "message", progress->message);
    }
    if (reports->has_finished) {
        cJSON *end = cJSON_AddObjectToObject(json, "finished");
        cJSON_AddBoolToObject(end, "succeeded", reports->finished.succeeded);
        cJSON_AddStringToObject(end, "reason", reports->finished.reason);
        cJSON_AddStringToObject(end, "message", reports->finished.message);
    }
}

static cJSON *memory_json(const struct job_memory *memory, struct instant now)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "uid", memory->uid);
    cJSON_AddStringToObject(json, "phase", trainjob_phase_name(memory->phase));
    if (memory->awaits != NULL)
        cJSON_AddStringToObject(json, "awaits", memory->awaits);
    add_reports(json, job_memory_reports(memory));

    const struct trainjob_attempts *made = job_memory_attempts(memory);
    cJSON *attempts = cJSON_AddObjectToObject(json, "attempts");
    cJSON_AddBoolToObject(attempts, "secretMade", made->secret_made);
    cJSON_AddBoolToObject(attempts, "nameConflict", made->is_conflict);
    cJSON_AddBoolToObject(attempts, "refused", made->is_refused);
    cJSON_AddStringToObject(attempts, "sentence", made->sentence);

    cJSON *history = cJSON_AddObjectToObject(json, "history");
    cJSON_AddBoolToObject(history, "configured", memory->history.configured);
    cJSON_AddNumberToObject(history, "synced", memory->history.synced);
    cJSON_AddBoolToObject(history, "final", memory->history.final);
    cJSON_AddStringToObject(history, "failure", memory->history.failure);

    cJSON *acked = cJSON_AddObjectToObject(json, "acknowledged");
    cJSON_AddNumberToObject(acked, "status", memory->acked.status);
    cJSON_AddNumberToObject(acked, "history", memory->acked.history);
    cJSON_AddBoolToObject(acked, "finished", memory->finished_is_acked);

    cJSON *writes = cJSON_AddObjectToObject(json, "statusWrites");
    if (memory->share.written.nanoseconds != 0)
        cJSON_AddNumberToObject(writes, "lastSecondsAgo", seconds_between(now, memory->share.written));
    if (memory->share.turn.nanoseconds != 0)
        cJSON_AddNumberToObject(writes, "turnInSeconds", seconds_between(memory->share.turn, now));
    return json;
}

/* Each child by its key: how it is kept. */
static void add_children(cJSON *json, const struct kube_informer *informer, cJSON *objects, struct instant now)
{
    cleanup_json cJSON *owned = objects;
    cJSON *list = cJSON_AddObjectToObject(json, kube_informer_resource(informer)->plural);
    const cJSON *object = NULL;
    cJSON_ArrayForEach(object, owned)
    {
        struct kube_key key;
        if (kube_key_of(&key, object) == 0)
            cJSON_AddItemToObject(list, key.text, kube_cache_debug(kube_informer_cache(informer), key.text, now));
    }
}

/* Nothing is changed by looking: of a job that is settled, no memory is made. */
cJSON *trainjob_debug(const struct trainjob_controller *controller, const char *key)
{
    struct instant now = clock_now();
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "key", key);
    cJSON_AddItemToObject(json, "queue", controller_debug(controller->runtime, key));
    cJSON *cached = kube_cache_debug(kube_informer_cache(controller->jobs), key, now);
    hide_values(cached);
    cJSON_AddItemToObject(json, "cache", cached);
    cleanup_json cJSON *job = kube_cache_get(kube_informer_cache(controller->jobs), key);
    if (job == NULL)
        return json; /* there is none, but its key may be queued, and an own write remembered */
    const char *uid = json_string(job, "metadata.uid", "");
    const struct kube_informer *const by_owner[] = {controller->deployments, controller->services,
                                                    controller->policies};
    for (size_t i = 0; i < sizeof by_owner / sizeof by_owner[0]; i++)
        add_children(json, by_owner[i], kube_cache_owned(kube_informer_cache(by_owner[i]), uid), now);
    add_children(
        json, controller->pods,
        kube_cache_labelled(kube_informer_cache(controller->pods), json_string(job, "metadata.namespace", ""), uid),
        now);
    const struct job_memory *memory = memory_find(controller->memory, uid);
    cJSON_AddItemToObject(json, "memory", memory == NULL ? cJSON_CreateNull() : memory_json(memory, now));
    return json;
}
