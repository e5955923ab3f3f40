#include "trainjob/status.h"

#include <math.h>
#include <string.h>

static void add_finite(cJSON *json, const char *name, double value, bool *whole)
{
    if (isfinite(value))
        json_add_number(json, name, value, whole);
}

static void add_epoch(cJSON *history, const struct report_epoch *epoch, bool *whole)
{
    cJSON *json = json_add_object(history, NULL, whole);
    json_add_number(json, "epoch", epoch->epoch, whole);
    json_add_number(json, "term", epoch->term, whole);
    add_finite(json, "trainLoss", epoch->train_loss, whole); /* JSON has no word for a loss that diverged */
    if (epoch->validated) {
        add_finite(json, "validationLoss", epoch->validation_loss, whole);
        add_finite(json, "accuracy", epoch->accuracy, whole);
    }
    json_add_number(json, "parallelism", epoch->parallelism, whole);
    json_add_number(json, "durationSeconds", isfinite(epoch->duration_seconds) ? epoch->duration_seconds : 0, whole);
}

static struct report_epoch epoch_of(const cJSON *json)
{
    return (struct report_epoch){
        .term = (uint32_t)json_int(json, "term", 0),
        .epoch = (uint32_t)json_int(json, "epoch", 0),
        .train_loss = json_number(json, "trainLoss", NAN),
        .validated = json_at(json, "accuracy") != NULL || json_at(json, "validationLoss") != NULL,
        .validation_loss = json_number(json, "validationLoss", NAN),
        .accuracy = json_number(json, "accuracy", NAN),
        .parallelism = (uint32_t)json_int(json, "parallelism", 0),
        .duration_seconds = json_number(json, "durationSeconds", 0),
    };
}

size_t trainjob_read_epochs(const cJSON *status, struct report_epoch *out, size_t most)
{
    size_t count = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, json_at(status, "history"))
    {
        if (count == most)
            break;
        out[count++] = epoch_of(item);
    }
    return count;
}

uint32_t trainjob_durable_epoch(const cJSON *status)
{
    uint32_t newest = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, json_at(status, "history"))
    {
        uint32_t epoch = (uint32_t)json_int(item, "epoch", 0);
        if (newest != 0 && epoch != newest + 1)
            break;
        newest = epoch;
    }
    return newest;
}

static cJSON *last(const cJSON *list)
{
    return list == NULL || list->child == NULL ? NULL : list->child->prev;
}

static int64_t last_epoch(const cJSON *history)
{
    return json_int(last(history), "epoch", 0);
}

/* An epoch from a higher term replaces what was there, and what came after it in the lower term: the job went back.
 * An epoch that is there already changes nothing. One that leaves a gap waits for those before it. */
static bool merge(cJSON *history, const struct report_epoch *epoch, bool *whole)
{
    int64_t newest = last_epoch(history);
    if (epoch->epoch > newest + 1)
        return false;
    if (epoch->epoch <= newest) {
        int index = 0;
        for (const cJSON *item = history->child; item != NULL; item = item->next, index++)
            if (json_int(item, "epoch", 0) == epoch->epoch)
                break;
        const cJSON *there = cJSON_GetArrayItem(history, index);
        if (there == NULL || json_int(there, "term", 0) >= epoch->term)
            return false;
        while (cJSON_GetArrayItem(history, index) != NULL)
            cJSON_DeleteItemFromArray(history, index);
    }
    add_epoch(history, epoch, whole);
    return true;
}

void trainjob_show_last_epoch(cJSON *status)
{
    const cJSON *history = json_at(status, "history");
    const cJSON *newest = last(history);
    const cJSON *loss = json_at(newest, "trainLoss");
    if (newest == NULL)
        return;
    cJSON_DeleteItemFromObjectCaseSensitive(status, "trainLoss");
    if (loss != NULL)
        status_put(status, "trainLoss", cJSON_CreateNumber(round(loss->valuedouble * 1e4) / 1e4));
    for (const cJSON *item = newest;; item = item->prev) {
        const cJSON *accuracy = json_at(item, "accuracy");
        if (accuracy != NULL) {
            status_put(status, "accuracy", cJSON_CreateNumber(round(accuracy->valuedouble * 1e4) / 1e4));
            break;
        }
        if (item == history->child)
            break;
    }
}

void trainjob_merge_epochs(const struct trainjob_view *view, cJSON *status)
{
    bool whole = true;
    cJSON *history = cJSON_GetObjectItemCaseSensitive(status, "history");
    if (!cJSON_IsArray(history)) {
        cJSON_DeleteItemFromObjectCaseSensitive(status, "history");
        history = json_add_list(status, "history", &whole);
    }
    bool changed = false;
    for (size_t i = 0; i < view->reports->epoch_count; i++)
        if (whole && merge(history, &view->reports->epochs[i], &whole))
            changed = true;
    while (cJSON_GetArraySize(history) > TRAINJOB_HISTORY_MOST)
        cJSON_DeleteItemFromArray(history, 0);
    status_put(status, "epoch", cJSON_CreateNumber((double)last_epoch(history)));
    if (changed)
        trainjob_show_last_epoch(status);
    if (!whole)
        status_spoil(status);
}
