/* Each document of testdata/cases.yaml is an observed situation and what should follow from it: the intents of
 * plan.c, and members of the status of status.c. Objects are written as changes to testdata/job.json and dataset.json,
 * children in a short form that is expanded here to what the API server shows. */

#include "common/buffer.h"
#include "common/clock.h"
#include "common/test/merge.h"
#include "common/yaml.h"
#include "trainjob/objects.h"
#include "trainjob/plan.h"
#include "trainjob/status.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define JOB_UID "11111111-2222-3333-4444-555555555555"

static const int64_t noon = 1769860800; /* 2026-01-31T12:00:00Z, when the job was made */

/* ---- building what was observed ---- */

static cJSON *read_base(const char *path, const cJSON *change)
{
    struct error err = {0};
    cJSON *object = json_read_file(path, 1 << 20, &err);
    assert_string_equal(error_message(&err), "");
    merge_into(object, change);
    return object;
}

static cJSON *child_metadata(const cJSON *brief, const char *name, const char *uid)
{
    cJSON *object = cJSON_CreateObject();
    json_put(object, "metadata.name", cJSON_CreateString(name), NULL);
    json_put(object, "metadata.uid", cJSON_CreateString(uid), NULL);
    json_put(object, "metadata.creationTimestamp", cJSON_CreateString("2026-01-31T12:00:01Z"), NULL);
    if (json_bool(brief, "deleting", false))
        json_put(object, "metadata.deletionTimestamp", cJSON_CreateString("2026-01-31T12:01:00Z"), NULL);
    cJSON *owners = cJSON_CreateArray();
    cJSON *owner = cJSON_CreateObject();
    cJSON_AddStringToObject(owner, "uid", json_string(brief, "owner", JOB_UID));
    cJSON_AddTrueToObject(owner, "controller");
    cJSON_AddItemToArray(owners, owner);
    json_put(object, "metadata.ownerReferences", owners, NULL);

    cJSON *labels = cJSON_CreateObject();
    const char *shard = json_string(brief, "shard", NULL);
    cJSON_AddStringToObject(labels, TRAINJOB_LABEL_UID, json_string(brief, "job", JOB_UID));
    cJSON_AddStringToObject(labels, TRAINJOB_LABEL_ROLE, shard == NULL ? "worker" : "ps");
    if (shard != NULL)
        cJSON_AddStringToObject(labels, TRAINJOB_LABEL_SHARD, shard);
    json_put(object, "metadata.labels", labels, NULL);
    return object;
}

/* {name: lenet-worker, replicas: 2, failure: "…"}; {name: lenet-ps-0, shard: "0"} */
static cJSON *expand_deployment(const cJSON *brief)
{
    const char *name = json_string(brief, "name", "?");
    char uid[64];
    snprintf(uid, sizeof uid, "%.50s-uid", name);
    cJSON *object = child_metadata(brief, name, uid);
    json_put(object, "spec.replicas", cJSON_CreateNumber((double)json_int(brief, "replicas", 1)), NULL);
    const char *failure = json_string(brief, "failure", NULL);
    if (failure != NULL) {
        cJSON *condition = cJSON_CreateObject();
        cJSON_AddStringToObject(condition, "type", "ReplicaFailure");
        cJSON_AddStringToObject(condition, "status", "True");
        cJSON_AddStringToObject(condition, "message", failure);
        cJSON *list = cJSON_CreateArray();
        cJSON_AddItemToArray(list, condition);
        json_put(object, "status.conditions", list, NULL);
    }
    return object;
}

/* {uid: w1, node: n1, ready: true, container: {…the containerStatus…}, unschedulable: "…", phase: Failed} */
static cJSON *expand_pod(const cJSON *brief)
{
    const char *uid = json_string(brief, "uid", "?");
    char name[64];
    snprintf(name, sizeof name, "pod-%.50s", uid);
    cJSON *object = child_metadata(brief, name, uid);
    json_put(object, "spec.nodeName", cJSON_CreateString(json_string(brief, "node", "n1")), NULL);
    json_put(object, "status.phase", cJSON_CreateString(json_string(brief, "phase", "Running")), NULL);
    cJSON *conditions = cJSON_CreateArray();
    json_put(object, "status.conditions", conditions, NULL);
    cJSON *ready = cJSON_CreateObject();
    cJSON_AddStringToObject(ready, "type", "Ready");
    cJSON_AddStringToObject(ready, "status", json_bool(brief, "ready", false) ? "True" : "False");
    cJSON_AddItemToArray(conditions, ready);
    const char *unschedulable = json_string(brief, "unschedulable", NULL);
    if (unschedulable != NULL) {
        cJSON *scheduled = cJSON_CreateObject();
        cJSON_AddStringToObject(scheduled, "type", "PodScheduled");
        cJSON_AddStringToObject(scheduled, "status", "False");
        cJSON_AddStringToObject(scheduled, "reason", "Unschedulable");
        cJSON_AddStringToObject(scheduled, "message", unschedulable);
        cJSON_AddItemToArray(conditions, scheduled);
    }
    const cJSON *container = json_at(brief, "container");
    if (container != NULL) {
        cJSON *list = cJSON_CreateArray();
        cJSON_AddItemToArray(list, cJSON_Duplicate(container, true));
        json_put(object, "status.containerStatuses", list, NULL);
    }
    const char *reason = json_string(brief, "reason", NULL);
    if (reason != NULL) {
        json_put(object, "status.reason", cJSON_CreateString(reason), NULL);
        json_put(object, "status.message", cJSON_CreateString(json_string(brief, "message", "")), NULL);
    }
    return object;
}

static cJSON *expand_part(const cJSON *brief)
{
    cJSON *object = child_metadata(brief, "lenet", json_string(brief, "uid", "part-uid"));
    return object;
}

static cJSON *expand(const cJSON *briefs, cJSON *(*one)(const cJSON *brief))
{
    cJSON *list = cJSON_CreateArray();
    const cJSON *brief = NULL;
    cJSON_ArrayForEach(brief, briefs) cJSON_AddItemToArray(list, one(brief));
    return list;
}

enum { EPOCHS_MOST = 600 };

struct situation {
    cJSON *object, *dataset, *start_job, *deployments, *pods, *services, *policies;
    struct trainjob job;
    struct trainjob_children children;
    struct trainjob_reports reports;
    struct trainjob_attempts attempts;
    struct trainjob_history history;
    struct report_epoch epochs[EPOCHS_MOST];
    struct host_paths paths;
    struct trainjob_view view;
};

/* {steps: 100, duplicates: 1, stale: 2, staleness: [90, 10]} */
static struct report_sync read_sync(const cJSON *json)
{
    struct report_sync sync = {
        .known = json != NULL,
        .steps = (uint64_t)json_int(json, "steps", 0),
        .duplicates = (uint64_t)json_int(json, "duplicates", 0),
        .stale = (uint64_t)json_int(json, "stale", 0),
    };
    const cJSON *staleness = json_at(json, "staleness");
    for (int i = 0; i < cJSON_GetArraySize(staleness); i++)
        sync.staleness[i] = (uint64_t)cJSON_GetArrayItem(staleness, i)->valuedouble;
    return sync;
}

static void read_reports(struct situation *situation, const cJSON *json)
{
    struct trainjob_reports *reports = &situation->reports;
    const cJSON *progress = json_at(json, "progress");
    const cJSON *finished = json_at(json, "finished");
    reports->connected = json_at(json, "boot") != NULL;
    snprintf(reports->boot, sizeof reports->boot, "%s", json_string(json, "boot", ""));
    snprintf(reports->pod, sizeof reports->pod, "%s", json_string(json, "pod", "pod-p0"));
    snprintf(reports->pod_uid, sizeof reports->pod_uid, "%s", json_string(json, "podUID", "p0"));
    snprintf(reports->kernel, sizeof reports->kernel, "%s", json_string(json, "kernel", "Haswell"));
    reports->term = (uint32_t)json_int(json, "term", 1);
    reports->has_progress = progress != NULL;
    reports->progress = (struct report_progress){
        .term = reports->term,
        .epoch = (uint32_t)json_int(progress, "epoch", 1),
        .step = (uint64_t)json_int(progress, "step", 0),
        .steps = (uint64_t)json_int(progress, "steps", 2345),
        .train_loss = json_number(progress, "trainLoss", NAN),
        .workers = (uint32_t)json_int(progress, "workers", 0),
        .sync = read_sync(json_at(progress, "sync")),
    };
    snprintf(reports->progress.message, sizeof reports->progress.message, "%s", json_string(progress, "message", ""));
    const cJSON *epoch = NULL;
    cJSON_ArrayForEach(epoch, json_at(json, "epochs"))
    {
        situation->epochs[reports->epoch_count++] = (struct report_epoch){
            .term = (uint32_t)json_int(epoch, "term", 1),
            .epoch = (uint32_t)json_int(epoch, "epoch", 0),
            .train_loss = json_number(epoch, "trainLoss", NAN),
            .validated = json_at(epoch, "accuracy") != NULL || json_at(epoch, "validationLoss") != NULL,
            .validation_loss = json_number(epoch, "validationLoss", 0.5),
            .accuracy = json_number(epoch, "accuracy", NAN),
            .parallelism = 2,
            .duration_seconds = 2.5,
        };
    }
    reports->epochs = situation->epochs;
    reports->has_finished = finished != NULL;
    reports->finished.succeeded = json_bool(finished, "succeeded", false);
    snprintf(reports->finished.reason, sizeof reports->finished.reason, "%s", json_string(finished, "reason", ""));
    snprintf(reports->finished.message, sizeof reports->finished.message, "%s", json_string(finished, "message", ""));
    reports->finished.sync = read_sync(json_at(finished, "sync"));
    const char *path = json_string(finished, "model", NULL);
    if (path != NULL) {
        reports->finished.has_model = true;
        reports->finished.model.bytes = 1000;
        reports->finished.model.step = 2345;
        snprintf(reports->finished.model.path, sizeof reports->finished.model.path, "%s", path);
        snprintf(reports->finished.model.sha256, sizeof reports->finished.model.sha256, "%064d", 7);
    }
}

/* A change to testdata/job.json under another name: succeeded, with its model kept. */
static cJSON *start_job(const cJSON *change)
{
    static const char text[] =
        "{\"metadata\":{\"name\":\"teacher\",\"uid\":\"teacher-uid\"},\"status\":{\"phase\":\"Succeeded\",\"model\":{"
        "\"sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}}}";
    cleanup_json cJSON *teacher = cJSON_Parse(text);
    cJSON *object = read_base("testdata/job.json", teacher);
    merge_into(object, change);
    return object;
}

/* Too large for the stack under the sanitizers. */
static struct situation *situation_new(const cJSON *test)
{
    struct situation *situation = calloc(1, sizeof *situation);
    assert_non_null(situation);
    const cJSON *dataset = json_at(test, "dataset");
    situation->object = read_base("testdata/job.json", json_at(test, "job"));
    situation->dataset = cJSON_IsFalse(dataset) ? NULL : read_base("testdata/dataset.json", dataset);
    situation->start_job = json_at(test, "startJob") == NULL ? NULL : start_job(json_at(test, "startJob"));
    situation->deployments = expand(json_at(test, "deployments"), expand_deployment);
    situation->pods = expand(json_at(test, "pods"), expand_pod);
    situation->services = expand(json_at(test, "services"), expand_part);
    situation->policies = expand(json_at(test, "policies"), expand_part);
    trainjob_decode(&situation->job, situation->object);
    trainjob_children_decode(&situation->children, &situation->job, situation->deployments, situation->pods,
                             situation->services, situation->policies, json_at(test, "events"));
    read_reports(situation, json_at(test, "reports"));
    situation->attempts.secret_made = json_bool(test, "attempts.secretMade", situation->children.deployment_count > 0);
    situation->attempts.is_conflict = json_bool(test, "attempts.conflict", false);
    situation->attempts.is_refused = json_bool(test, "attempts.refused", false);
    snprintf(situation->attempts.sentence, sizeof situation->attempts.sentence, "%s",
             json_string(test, "attempts.sentence", ""));
    situation->history.configured = json_bool(test, "history.configured", false);
    situation->history.synced = (uint32_t)json_int(test, "history.synced", 0);
    situation->history.final = json_bool(test, "history.final", false);
    snprintf(situation->history.failure, sizeof situation->history.failure, "%s",
             json_string(test, "history.failure", ""));
    assert_int_equal(host_paths_parse(&situation->paths, json_string(test, "allowed", "/var/lib/thole"), NULL), 0);
    situation->view = (struct trainjob_view){
        .job = &situation->job,
        .dataset = situation->dataset,
        .start_job = situation->start_job,
        .start_chain = json_at(test, "startChain"),
        .children = &situation->children,
        .reports = &situation->reports,
        .attempts = &situation->attempts,
        .history = &situation->history,
        .allowed_host_paths = &situation->paths,
        .trainer_image = "thole-trainer:test",
        .advertise_address = "thole-operator.thole-system.svc:8080",
        .key = "key",
        .key_length = 3,
        .now = noon + json_int(test, "now", 60),
    };
    return situation;
}

static void situation_free(struct situation *situation)
{
    cJSON_Delete(situation->object);
    cJSON_Delete(situation->dataset);
    cJSON_Delete(situation->start_job);
    cJSON_Delete(situation->deployments);
    cJSON_Delete(situation->pods);
    cJSON_Delete(situation->services);
    cJSON_Delete(situation->policies);
    host_paths_free(&situation->paths);
    free(situation);
}

/* ---- comparing ---- */

/* "create Secret lenet-job", "scale Deployment lenet-worker to 3", … one a line. */
static void describe(const struct intents *intents, struct buffer *out)
{
    struct error err = {0};
    cleanup_json cJSON *list = intents_json(intents);
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list)
    {
        const char *what = json_string(item, "do", "");
        buffer_printf(out, &err, "%s %s %s", what, json_string(item, "kind", ""), json_string(item, "name", ""));
        if (strcmp(what, "scale") == 0)
            buffer_printf(out, &err, " to %" PRId64, json_int(item, "body.spec.replicas", -1));
        if (strcmp(what, "delete") == 0)
            buffer_printf(out, &err, " %s", json_string(item, "uid", ""));
        if (strcmp(what, "finalizers") == 0) {
            cleanup_free char *text = json_print(json_at(item, "body.metadata.finalizers"));
            buffer_printf(out, &err, " %s", text);
        }
        buffer_append_text(out, "\n", &err);
    }
    if (intents->after > 0)
        buffer_printf(out, &err, "after %" PRId64 "\n", intents->after);
}

/* Every member of `want` is in `got`; null in `want`: it is not there. */
static bool contains(const cJSON *got, const cJSON *want, char *where, size_t size)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, want)
    {
        const cJSON *other = cJSON_GetObjectItemCaseSensitive(got, item->string);
        snprintf(where, size, "%s", item->string);
        if (cJSON_IsNull(item) ? other != NULL : other == NULL)
            return false;
        if (cJSON_IsObject(item) ? !contains(other, item, where, size)
                                 : !cJSON_IsNull(item) && !json_equal(other, item))
            return false;
    }
    return true;
}

static const cJSON *condition_of(const cJSON *status, const char *type)
{
    const cJSON *condition = NULL;
    cJSON_ArrayForEach(condition, json_at(status, "conditions"))
    {
        if (strcmp(json_string(condition, "type", ""), type) == 0)
            return condition;
    }
    return NULL;
}

static void check_conditions(const char *name, const cJSON *status, const cJSON *want)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, want)
    {
        const cJSON *condition = condition_of(status, item->string);
        char got[128];
        snprintf(got, sizeof got, "%s %s", json_string(condition, "status", "?"),
                 json_string(condition, "reason", "?"));
        if (strcmp(got, item->valuestring) != 0)
            fail_msg("%s: condition %s is '%s', not '%s'", name, item->string, got, item->valuestring);
    }
}

static void check_status(const char *name, const struct situation *situation, const cJSON *test)
{
    static const char *const changes[] = {
        [STATUS_SAME] = "same", [STATUS_LATER] = "later", [STATUS_SOON] = "soon", [STATUS_AT_ONCE] = "at once"};
    char where[128] = "";
    cleanup_json cJSON *status = trainjob_status(&situation->view);
    assert_non_null(status);
    if (!contains(status, json_at(test, "status"), where, sizeof where)) {
        cleanup_free char *text = cJSON_Print(status);
        fail_msg("%s: '%s' of the status is not as it should be:\n%s", name, where, text);
    }
    check_conditions(name, status, json_at(test, "conditions"));

    const char *change = json_string(test, "change", NULL);
    enum status_change got = trainjob_status_change(situation->job.status, status);
    if (change != NULL && strcmp(change, changes[got]) != 0)
        fail_msg("%s: the change is '%s', not '%s'", name, changes[got], change);

    /* Applied, the patch gives the status; and once it is written, there is nothing more to write. */
    cleanup_json cJSON *patch = trainjob_status_patch(situation->job.status, status);
    merge_into(situation->object, patch);
    assert_true(json_equal(json_at(situation->object, "status"), status));
    struct trainjob again;
    struct trainjob_view view = situation->view;
    trainjob_decode(&again, situation->object);
    view.job = &again;
    cleanup_json cJSON *settled = trainjob_status(&view);
    if (trainjob_status_change(status, settled) != STATUS_SAME && json_at(test, "unsettled") == NULL) {
        cleanup_free char *before = cJSON_Print(status);
        cleanup_free char *after = cJSON_Print(settled);
        fail_msg("%s: the status does not settle:\n%s\n%s", name, before, after);
    }
}

/* The write that starts a job leaves nothing to write until something happens. */
static void check_freeze(const char *name, const struct situation *situation, const struct intents *intents)
{
    if (intents->count != 1 || intents->items[0].type != INTENT_FREEZE)
        return;
    cleanup_json cJSON *object = cJSON_Duplicate(situation->object, true);
    merge_into(object, intents->items[0].body);
    struct trainjob started;
    struct trainjob_view view = situation->view;
    trainjob_decode(&started, object);
    view.job = &started;
    cleanup_json cJSON *status = trainjob_status(&view);
    if (!started.started || trainjob_status_change(started.status, status) != STATUS_SAME) {
        cleanup_free char *before = cJSON_Print(started.status);
        cleanup_free char *after = cJSON_Print(status);
        fail_msg("%s: the status of the start does not settle:\n%s\n%s", name, before, after);
    }
}

static void check_plan(const char *name, const struct situation *situation, const cJSON *want)
{
    struct error err = {0};
    cleanup_buffer struct buffer got;
    cleanup_buffer struct buffer expected;
    buffer_init(&got, 1 << 20);
    buffer_init(&expected, 1 << 20);
    cleanup_intents struct intents intents;
    trainjob_plan(&situation->view, &intents);
    describe(&intents, &got);
    check_freeze(name, situation, &intents);
    const cJSON *line = NULL;
    cJSON_ArrayForEach(line, want) buffer_printf(&expected, &err, "%s\n", line->valuestring);
    if (strcmp(buffer_text(&got), buffer_text(&expected)) != 0)
        fail_msg("%s: the plan is\n%snot\n%s", name, buffer_text(&got), buffer_text(&expected));
}

static void situations_lead_to_plans_and_status(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_json cJSON *tests = yaml_read_file("testdata/cases.yaml", &err);
    assert_string_equal(error_message(&err), "");
    assert_true(cJSON_GetArraySize(tests) > 20);
    const cJSON *test = NULL;
    cJSON_ArrayForEach(test, tests)
    {
        const char *name = json_string(test, "name", "?");
        struct situation *situation = situation_new(test);
        check_plan(name, situation, json_at(test, "plan"));
        check_status(name, situation, test);
        situation_free(situation);
    }
}

/* THOLE_GOLDEN=write makes the file anew. */
static void check_golden(const char *path, const cJSON *got)
{
    struct error err = {0};
    cleanup_free char *text = cJSON_Print(got);
    const char *mode = getenv("THOLE_GOLDEN");
    if (mode != NULL && strcmp(mode, "write") == 0)
        assert_int_equal(file_write_atomically(path, text, strlen(text), &err), 0);
    cleanup_json cJSON *want = json_read_file(path, 1 << 20, &err);
    if (!json_equal(got, want))
        fail_msg("the objects differ from %s:\n%s", path, text);
}

#define FROZEN                                                                                                         \
    "phase: Starting, startTime: '2026-01-31T12:00:30Z', trainerImage: 'thole-trainer:frozen', "                       \
    "dataset: {name: fashion, uid: dataset-uid}"

/* The whole objects of a job with two shards, as posted. */
static void children_are_as_written_down(void **state)
{
    (void)state;
    struct error err = {0};
    static const char yaml[] = "job: {spec: {parameterServers: {shards: 2}}, status: {" FROZEN "}}\n";
    cleanup_json cJSON *tests = yaml_parse(yaml, strlen(yaml), "test", &err);
    struct situation *situation = situation_new(tests->child);
    cleanup_json cJSON *got = cJSON_CreateObject();
    cJSON_AddItemToObject(got, "secret", object_secret(&situation->view, &err));
    cJSON_AddItemToObject(got, "service", object_service(&situation->view));
    cJSON_AddItemToObject(got, "policy", object_policy(&situation->view));
    cJSON_AddItemToObject(got, "ps0", object_deployment(&situation->view, ROLE_PS, 0));
    cJSON_AddItemToObject(got, "ps1", object_deployment(&situation->view, ROLE_PS, 1));
    cJSON_AddItemToObject(got, "worker", object_deployment(&situation->view, ROLE_WORKER, 0));
    check_golden("testdata/objects.json", got);
    situation_free(situation);
}

/* Where the pods of jobs that begin from a model find it: of another job, by a claim and by a directory, and of files.
 */
static void models_to_begin_from_are_mounted(void **state)
{
    (void)state;
    struct error err = {0};
    static const char yaml[] =
        "name: of a job with a claim\n"
        "job: {spec: {model: {zoo: null, trainJobRef: {name: teacher}}}, status: {" FROZEN
        ", start: {trainJob: teacher, uid: teacher-uid, sha256: abcd, volume: {persistentVolumeClaim: {claimName: "
        "models}}}}}\n"
        "---\n"
        "name: of a job with the same claim, which has the data too\n"
        "dataset: {spec: {source: {hostPath: null, persistentVolumeClaim: {claimName: models, subPath: data}}}}\n"
        "job: {spec: {model: {zoo: null, trainJobRef: {name: teacher}}, output: {volume: {hostPath: null, "
        "persistentVolumeClaim: {claimName: models}}}}, status: {" FROZEN
        ", start: {trainJob: teacher, uid: teacher-uid, sha256: abcd, volume: {persistentVolumeClaim: {claimName: "
        "models}}}}}\n"
        "---\n"
        "name: of a job with a directory\n"
        "job: {spec: {model: {zoo: null, trainJobRef: {name: teacher}}}, status: {" FROZEN
        ", start: {trainJob: teacher, uid: teacher-uid, sha256: abcd, volume: {hostPath: {path: "
        "/var/lib/thole/models}}}}}\n"
        "---\n"
        "name: of a file in a claim\n"
        "job: {spec: {model: {zoo: null, file: {path: a/b, volume: {persistentVolumeClaim: {claimName: old}}}}}, "
        "status: {" FROZEN "}}\n"
        "---\n"
        "name: of a file in a directory\n"
        "job: {spec: {model: {zoo: null, file: {path: a/b, volume: {hostPath: {path: /var/lib/thole}}}}}, "
        "status: {" FROZEN "}}\n";
    cleanup_json cJSON *tests = yaml_parse(yaml, strlen(yaml), "test", &err);
    assert_string_equal(error_message(&err), "");
    cleanup_json cJSON *got = cJSON_CreateObject();
    const cJSON *test = NULL;
    cJSON_ArrayForEach(test, tests)
    {
        struct situation *situation = situation_new(test);
        cJSON *roles = cJSON_AddObjectToObject(got, json_string(test, "name", "?"));
        for (int role = ROLE_WORKER; role <= ROLE_PS; role++) {
            cleanup_json cJSON *deployment = object_deployment(&situation->view, (enum trainjob_role)role, 0);
            const cJSON *spec = json_at(deployment, "spec.template.spec");
            const cJSON *trainer = cJSON_GetArrayItem(json_at(spec, "containers"), 0);
            cJSON *json = cJSON_AddObjectToObject(roles, trainjob_role_name((enum trainjob_role)role));
            cJSON_AddItemToObject(json, "args", cJSON_Duplicate(json_at(trainer, "args"), true));
            cJSON_AddItemToObject(json, "mounts", cJSON_Duplicate(json_at(trainer, "volumeMounts"), true));
            cJSON_AddItemToObject(json, "volumes", cJSON_Duplicate(json_at(spec, "volumes"), true));
        }
        situation_free(situation);
    }
    check_golden("testdata/starts.json", got);
}

/* status.plan.digest of a new job that begins from another's model. */
static void digest_of_start(const char *change, char out[SHA256_HEX_SIZE])
{
    cleanup_json cJSON *test = cJSON_Parse("{\"job\":{\"spec\":{\"model\":{\"zoo\":null,\"trainJobRef\":{\"name\":"
                                           "\"teacher\"}}}},\"startJob\":{}}");
    cleanup_json cJSON *other = cJSON_Parse(change);
    assert_non_null(other);
    merge_into(test, other);
    struct situation *situation = situation_new(test);
    cleanup_json cJSON *status = trainjob_start_status(&situation->view);
    snprintf(out, SHA256_HEX_SIZE, "%s", json_string(status, "plan.digest", "none"));
    assert_int_equal(strlen(out), SHA256_HEX_SIZE - 1);
    situation_free(situation);
}

static void the_digest_has_what_the_job_begins_from(void **state)
{
    (void)state;
    char digest[SHA256_HEX_SIZE], renamed[SHA256_HEX_SIZE], other[SHA256_HEX_SIZE];
    digest_of_start("{}", digest);
    digest_of_start("{\"job\":{\"spec\":{\"model\":{\"trainJobRef\":{\"name\":\"again\"}}}}}", renamed);
    digest_of_start("{\"startJob\":{\"status\":{\"model\":{\"sha256\":"
                    "\"1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}}}}",
                    other);
    assert_string_equal(digest, renamed);
    assert_string_not_equal(digest, other);
}

static void the_newest_500_epochs_stay(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_json cJSON *test = cJSON_Parse("{\"job\":{\"status\":{\"startTime\":\"2026-01-31T12:00:30Z\"}}}");
    struct situation *situation = situation_new(test);
    for (uint32_t i = 0; i < EPOCHS_MOST; i++)
        situation->epochs[i] = (struct report_epoch){.term = 1, .epoch = i + 1, .train_loss = 1, .duration_seconds = 1};
    situation->reports.epoch_count = EPOCHS_MOST;
    cleanup_json cJSON *status = trainjob_status(&situation->view);
    const cJSON *history = json_at(status, "history");
    assert_int_equal(cJSON_GetArraySize(history), TRAINJOB_HISTORY_MOST);
    assert_int_equal(json_int(history->child, "epoch", 0), EPOCHS_MOST - TRAINJOB_HISTORY_MOST + 1);
    assert_int_equal(json_int(status, "epoch", 0), EPOCHS_MOST);
    assert_int_equal(trainjob_durable_epoch(status), EPOCHS_MOST);
    assert_string_equal(error_message(&err), "");
    situation_free(situation);
}

/* What an asynchronous training does changes with every step, and is written no more often. */
static void statistics_are_no_news(void **state)
{
    (void)state;
    cleanup_json cJSON *before = cJSON_Parse("{\"phase\":\"Running\",\"sync\":{\"steps\":10,\"staleness\":[10]}}");
    cleanup_json cJSON *now = cJSON_Parse("{\"phase\":\"Running\",\"sync\":{\"steps\":11,\"staleness\":[10,1]}}");
    assert_int_equal(trainjob_status_change(before, now), STATUS_LATER);
}

static void statistics_add_up_over_jobs_and_processes(void **state)
{
    (void)state;
    static const struct {
        bool later_life; /* of the process: it begins at 0, and may be ahead before it is heard */
        struct report_sync sync;
    } reports[] = {
        {false, {.known = true, .steps = 10, .duplicates = 1, .staleness = {8, 2}}},
        {false, {.known = true, .steps = 25, .duplicates = 1, .stale = 3, .staleness = {20, 5}}},
        {false, {.known = false}}, /* nothing is said of them */
        {false, {.known = true, .steps = 25, .duplicates = 1, .stale = 3, .staleness = {20, 5}}}, /* said again */
        {true, {.known = true, .steps = 30, .duplicates = 4, .stale = 3, .staleness = {30}}},
        {true, {.known = true, .steps = 5, .staleness = {5}}},
    };
    struct report_sync totals = {0}, counted = {0};
    for (size_t i = 0; i < sizeof reports / sizeof reports[0]; i++) {
        if (reports[i].later_life)
            counted = (struct report_sync){0};
        trainjob_add_sync(&totals, &counted, &reports[i].sync);
    }
    assert_int_equal(totals.steps, 60);
    assert_int_equal(totals.duplicates, 5);
    assert_int_equal(totals.stale, 6);
    assert_int_equal(totals.staleness[0], 55);
    assert_int_equal(totals.staleness[1], 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(situations_lead_to_plans_and_status),       cmocka_unit_test(children_are_as_written_down),
        cmocka_unit_test(models_to_begin_from_are_mounted),          cmocka_unit_test(statistics_are_no_news),
        cmocka_unit_test(statistics_add_up_over_jobs_and_processes), cmocka_unit_test(the_newest_500_epochs_stay),
        cmocka_unit_test(the_digest_has_what_the_job_begins_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
