/* Any objects as a TrainJob, its Dataset, its children and what its coordinator said, through all that decides:
 * decoding, plan, status. Nothing they hold is to be believed, and what was decided holds: a status that is written
 * needs no writing again, and what is posted has a name and a body.
 *
 * The input is an object with the members below; those that are missing or of a wrong type are as when nothing was
 * observed. */
#include "common/manifest/embedded.h"
#include "common/manifest/schema.h"
#include "common/test/fuzz.h"
#include "common/test/merge.h"
#include "common/yaml.h"
#include "trainjob/objects.h"
#include "trainjob/plan.h"
#include "trainjob/status.h"

#include <inttypes.h>
#include <string.h>

enum { EPOCHS_MOST = 32 };

struct situation {
    struct trainjob job;
    struct trainjob_children children;
    struct trainjob_reports reports;
    struct trainjob_attempts attempts;
    struct trainjob_history history;
    struct report_epoch epochs[EPOCHS_MOST];
    struct host_paths paths;
    struct trainjob_view view;
};

/* Sorted, each number once, as the controller's memory has them. */
static void take_epoch(struct situation *situation, const struct report_epoch *epoch)
{
    size_t count = situation->reports.epoch_count;
    size_t at = count;
    while (at > 0 && situation->epochs[at - 1].epoch >= epoch->epoch)
        at--;
    if (at < count && situation->epochs[at].epoch == epoch->epoch) {
        situation->epochs[at] = *epoch;
        return;
    }
    if (count == EPOCHS_MOST)
        return;
    memmove(&situation->epochs[at + 1], &situation->epochs[at], (count - at) * sizeof *epoch);
    situation->epochs[at] = *epoch;
    situation->reports.epoch_count++;
}

/* Messages as they come from a coordinator; those that no decoder lets pass are passed over here too. */
static void take_reports(struct situation *situation, const cJSON *messages)
{
    struct trainjob_reports *reports = &situation->reports;
    reports->epochs = situation->epochs;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, messages)
    {
        struct report_message message;
        cleanup_free char *text = json_print(item);
        if (text == NULL || report_decode(&message, text, strlen(text), NULL) < 0)
            continue;
        if (message.type == REPORT_HELLO) {
            reports->connected = true;
            reports->term = message.hello.term;
            memcpy(reports->pod, message.hello.pod, sizeof reports->pod);
            memcpy(reports->pod_uid, message.hello.pod_uid, sizeof reports->pod_uid);
            memcpy(reports->boot, message.hello.boot, sizeof reports->boot);
            memcpy(reports->kernel, message.hello.kernel, sizeof reports->kernel);
        } else if (message.type == REPORT_PROGRESS) {
            reports->has_progress = true;
            reports->progress = message.progress;
        } else if (message.type == REPORT_EPOCH) {
            take_epoch(situation, &message.epoch);
        } else if (message.type == REPORT_FINISHED) {
            reports->has_finished = true;
            reports->finished = message.finished;
        }
    }
}

/* As the controller gathers them: a list of names. */
static const cJSON *names_at(const cJSON *input, const char *path)
{
    const cJSON *names = json_at(input, path);
    bool fits = cJSON_IsArray(names);
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, names) fits = fits && cJSON_IsString(item);
    return fits ? names : NULL;
}

static void observe(struct situation *situation, const cJSON *input)
{
    trainjob_decode(&situation->job, json_at(input, "job"));
    trainjob_children_decode(&situation->children, &situation->job, json_at(input, "deployments"),
                             json_at(input, "pods"), json_at(input, "services"), json_at(input, "policies"),
                             json_at(input, "events"));
    take_reports(situation, json_at(input, "reports"));
    struct trainjob_attempts *attempts = &situation->attempts;
    attempts->secret_made = json_bool(input, "attempts.secretMade", false);
    attempts->is_conflict = json_bool(input, "attempts.conflict", false);
    attempts->is_refused = json_bool(input, "attempts.refused", false);
    snprintf(attempts->sentence, sizeof attempts->sentence, "%s", json_string(input, "attempts.sentence", ""));
    situation->history.configured = json_bool(input, "history.configured", false);
    situation->history.synced = (uint32_t)json_int(input, "history.synced", 0);
    situation->history.final = json_bool(input, "history.final", false);
    snprintf(situation->history.failure, sizeof situation->history.failure, "%s",
             json_string(input, "history.failure", ""));
    (void)host_paths_parse(&situation->paths, json_string(input, "allowed", "/var/lib/thole"), NULL);
    situation->view = (struct trainjob_view){
        .job = &situation->job,
        .dataset = json_at(input, "dataset"),
        .start_job = json_at(input, "startJob"),
        .start_chain = names_at(input, "startChain"),
        .children = &situation->children,
        .reports = &situation->reports,
        .attempts = attempts,
        .history = &situation->history,
        .allowed_host_paths = &situation->paths,
        .trainer_image = "thole-trainer:test",
        .advertise_address = "thole-operator.thole-system.svc:8080",
        .key = "key",
        .key_length = 3,
        .now = 1769860800 + json_int(input, "now", 60),
    };
}

/* Made again once memory is back, it is the same: it was whole. Both are taken over. A status may say instead that
 * there was no memory to look at the spec. */
static void require_whole(cJSON *made, cJSON *again)
{
    bool says_so = strcmp(json_string(made, "message", ""), "Out of memory") == 0 ||
                   strcmp(json_string(again, "message", ""), "Out of memory") == 0;
    require(made == NULL || again == NULL || says_so || json_equal(made, again));
    cJSON_Delete(made);
    cJSON_Delete(again);
}

static void check_wholeness(const struct trainjob_view *view)
{
    require_whole(trainjob_status(view), trainjob_status(view));
    require_whole(trainjob_start_status(view), trainjob_start_status(view));
    require_whole(object_secret(view, NULL), object_secret(view, NULL));
    require_whole(object_service(view), object_service(view));
    require_whole(object_policy(view), object_policy(view));
    for (uint32_t shard = 0; shard < 2; shard++)
        require_whole(object_deployment(view, ROLE_PS, shard), object_deployment(view, ROLE_PS, shard));
    require_whole(object_deployment(view, ROLE_WORKER, 0), object_deployment(view, ROLE_WORKER, 0));
}

static void check_plan(const struct trainjob_view *view)
{
    cleanup_intents struct intents intents;
    trainjob_plan(view, &intents);
    require(intents.count <= INTENTS_MOST && intents.after >= 0);
    for (size_t i = 0; i < intents.count; i++) {
        const struct intent *intent = &intents.items[i];
        require(intent->resource != NULL);
        require(intent->type == INTENT_DELETE || intent->body != NULL);
        if (intent->type == INTENT_CREATE)
            require(intent->name[0] != '\0');
        else if (intent->type == INTENT_DELETE || intent->type == INTENT_SCALE)
            require(intent->uid[0] != '\0'); /* of a child that was seen, and of no other */
    }
    cleanup_json cJSON *text = intents_json(&intents);
    require_with_memory(cJSON_GetArraySize(text) == (int)intents.count);
}

/* ---- what the API server would let pass ---- */

static const cJSON *read_schema(void)
{
    static cJSON *crds;
    for (const struct embedded_file *file = embedded_crds; crds == NULL && file->name != NULL; file++)
        if (strstr(file->name, "trainjob") != NULL)
            crds = yaml_parse((const char *)file->bytes, file->length, file->name, NULL);
    const cJSON *version = cJSON_GetArrayItem(json_at(cJSON_GetArrayItem(crds, 0), "spec.versions"), 0);
    return json_at(version, "schema.openAPIV3Schema");
}

/* Has the CRD's shape. Of a shape that cannot be, it is only asked that nothing falls over. */
static bool is_valid(const cJSON *job, struct error *err)
{
    const cJSON *schema = read_schema();
    cleanup_json cJSON *copy = cJSON_Duplicate(job, true);
    return schema != NULL && copy != NULL && schema_apply(copy, schema, "", err) == 0;
}

/* Two of one UID: that cannot be either. */
static bool has_twins(const struct trainjob_children *children)
{
    for (size_t i = 0; i < children->pod_count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(children->pods[i].uid, children->pods[j].uid) == 0)
                return true;
    return false;
}

/* Once written, nothing is to be written again. */
static void require_same(const cJSON *before, const cJSON *now)
{
    if (scarce_refused() || trainjob_status_change(before, now) == STATUS_SAME)
        return;
    cleanup_free char *left = json_print(before);
    cleanup_free char *right = json_print(now);
    fprintf(stderr, "the status\n%s\ndoes not settle:\n%s\n", left, right);
    abort();
}

/* The status as it is after `patch`, by another look at the same moment. */
static void check_settled(const struct trainjob_view *view, const cJSON *status)
{
    cleanup_json cJSON *object = cJSON_Duplicate(view->job->object, true);
    cleanup_json cJSON *patch = trainjob_status_patch(view->job->status, status);
    require_with_memory(patch != NULL);
    if (patch == NULL || !cJSON_IsObject(object) || scarce_refused())
        return;
    merge_into(object, patch);
    require_with_memory(json_equal(json_at(object, "status"), status));
    require(cJSON_GetArraySize(json_at(status, "conditions")) >= 5);
    struct error err = {0};
    bool valid = is_valid(object, &err);
    if (!valid && !scarce_refused())
        fprintf(stderr, "%s\n", error_message(&err));
    require_with_memory(valid);
    struct trainjob again;
    struct trainjob_view later = *view;
    trainjob_decode(&again, object);
    later.job = &again;
    cleanup_json cJSON *settled = trainjob_status(&later);
    for (int i = 0; i < 3 && trainjob_status_change(json_at(object, "status"), settled) != STATUS_SAME; i++) {
        cJSON_DeleteItemFromObjectCaseSensitive(object, "status");
        cJSON_AddItemToObject(object, "status", move(settled));
        trainjob_decode(&again, object);
        settled = trainjob_status(&later);
    }
    require_same(json_at(object, "status"), settled);
}

static void check_status(const struct trainjob_view *view)
{
    cleanup_json cJSON *status = trainjob_status(view);
    bool valid = is_valid(view->job->object, NULL) && !has_twins(view->children);
    require_with_memory(status != NULL || !valid);
    if (status == NULL)
        return;
    require(json_string(status, "phase", NULL) != NULL); /* whole, or not at all */
    if (valid)
        check_settled(view, status);
    cleanup_json cJSON *start = trainjob_start_status(view);
    (void)start;
}

static void check_objects(const struct trainjob_view *view)
{
    struct error err = {0};
    cleanup_json cJSON *secret = object_secret(view, &err);
    require_with_memory((secret == NULL) == (error_message(&err)[0] != '\0'));
    cleanup_json cJSON *service = object_service(view);
    cleanup_json cJSON *policy = object_policy(view);
    cleanup_json cJSON *worker = object_deployment(view, ROLE_WORKER, 0);
    cleanup_json cJSON *server = object_deployment(view, ROLE_PS, PLAN_SHARDS_MOST - 1);
    const cJSON *const objects[] = {service, policy, worker, server};
    for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++) {
        require_with_memory(objects[i] != NULL);
        const cJSON *owner = cJSON_GetArrayItem(json_at(objects[i], "metadata.ownerReferences"), 0);
        require(objects[i] == NULL || strcmp(json_string(owner, "uid", "?"), view->job->uid) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_json cJSON *input = cJSON_ParseWithLength((const char *)data, size);
    if (input != NULL)
        fuzz_make_unique(input);
    struct kube_key key; /* the cache keeps nothing without */
    bool may_be = kube_key_of(&key, json_at(input, "job")) == 0 && *json_string(input, "job.metadata.uid", "") != '\0';
    struct situation *situation = may_be ? calloc(1, sizeof *situation) : NULL;
    if (situation == NULL)
        return 0;
    observe(situation, input);
    check_wholeness(&situation->view);
    check_plan(&situation->view);
    check_status(&situation->view);
    check_objects(&situation->view);
    host_paths_free(&situation->paths);
    free(situation);
    return 0;
}
