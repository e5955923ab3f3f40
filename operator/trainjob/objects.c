#include "trainjob/objects.h"

#include "common/crypto.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <string.h>

enum { TRAINER_USER = 65532 };

/* A tree from a format string: the shapes of Kubernetes objects read best as the JSON they are. Values put in by %s
 * are names and UIDs, which hold nothing that JSON would escape; all else is added to the tree. */
static cJSON *tree(const char *format, ...) __attribute__((format(printf, 1, 2)));
static cJSON *tree(const char *format, ...)
{
    cleanup_free char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0) {
        text = NULL;
        return NULL;
    }
    return cJSON_Parse(text);
}

void object_secret_name(const struct trainjob *job, char out[OBJECT_NAME_SIZE])
{
    snprintf(out, OBJECT_NAME_SIZE, "%.48s-job-%.8s", job->name, job->uid);
}

void object_deployment_name(const struct trainjob *job, enum trainjob_role role, uint32_t shard,
                            char out[OBJECT_NAME_SIZE])
{
    if (role == ROLE_PS)
        snprintf(out, OBJECT_NAME_SIZE, "%.48s-ps-%" PRIu32, job->name, shard);
    else
        snprintf(out, OBJECT_NAME_SIZE, "%.48s-worker", job->name);
}

void object_worker_selector(const struct trainjob *job, char *out, size_t size)
{
    snprintf(out, size, TRAINJOB_LABEL_UID "=%s," TRAINJOB_LABEL_ROLE "=worker", job->uid);
}

/* ---- what all have ---- */

static void add_labels(cJSON *labels, const struct trainjob *job, const char *component, bool *whole)
{
    json_add_text(labels, "app.kubernetes.io/name", "thole", whole);
    json_add_text(labels, "app.kubernetes.io/instance", job->name, whole);
    json_add_text(labels, "app.kubernetes.io/component", component, whole);
    json_add_text(labels, "app.kubernetes.io/managed-by", "thole-operator", whole);
    json_add_text(labels, TRAINJOB_LABEL_JOB, job->name, whole);
    json_add_text(labels, TRAINJOB_LABEL_UID, job->uid, whole);
}

/* apiVersion and kind are filled in by whoever posts it. */
static cJSON *object(const struct trainjob *job, const char *name, const char *component, bool *whole)
{
    cJSON *json = tree("{\"metadata\":{\"name\":\"%s\",\"namespace\":\"%s\",\"labels\":{},\"ownerReferences\":["
                       "{\"apiVersion\":\"thole.dev/v1alpha1\",\"kind\":\"TrainJob\",\"name\":\"%s\",\"uid\":\"%s\","
                       "\"controller\":true,\"blockOwnerDeletion\":true}]}}",
                       name, job->namespace, job->name, job->uid);
    add_labels((cJSON *)json_at(json, "metadata.labels"), job, component, whole);
    return json;
}

static cJSON *place_labels(const struct trainjob *job, enum trainjob_role role, uint32_t shard, bool *whole)
{
    cJSON *labels = tree("{\"" TRAINJOB_LABEL_UID "\":\"%s\",\"" TRAINJOB_LABEL_ROLE "\":\"%s\"}", job->uid,
                         trainjob_role_name(role));
    char number[16];
    snprintf(number, sizeof number, "%" PRIu32, shard);
    if (role == ROLE_PS)
        json_add_text(labels, TRAINJOB_LABEL_SHARD, number, whole);
    *whole = *whole && labels != NULL;
    return labels;
}

static void copy_members(cJSON *to, const cJSON *from, bool *whole)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, from)
    {
        cJSON_DeleteItemFromObjectCaseSensitive(to, item->string);
        json_add(to, item->string, cJSON_Duplicate(item, true), whole);
    }
}

/* ---- Secret, Service, NetworkPolicy ---- */

static char *base64(const void *data, size_t length)
{
    char *text = malloc(4 * ((length + 2) / 3) + 1);
    if (text != NULL)
        EVP_EncodeBlock((unsigned char *)text, data, (int)length);
    return text;
}

cJSON *object_secret(const struct trainjob_view *view, struct error *err)
{
    const struct trainjob *job = view->job;
    cleanup_free char *plan = plan_compile(job->object, view->dataset, err);
    if (plan == NULL)
        return NULL;
    uint8_t token[REPORT_TOKEN_SIZE]; /* what a coordinator must know to report for this job */
    hmac_sha256(view->key, view->key_length, job->uid, strlen(job->uid), token);
    cleanup_free char *plan_data = base64(plan, strlen(plan));
    cleanup_free char *token_data = base64(token, sizeof token);
    char name[OBJECT_NAME_SIZE];
    object_secret_name(job, name);
    bool whole = plan_data != NULL && token_data != NULL;
    cleanup_json cJSON *secret = object(job, name, "job", &whole);
    cJSON *data = json_add_object(secret, "data", &whole);
    json_add_text(data, "plan.json", plan_data, &whole);
    json_add_text(data, "token", token_data, &whole);
    json_add_text(secret, "type", "Opaque", &whole);
    json_add(secret, "immutable", cJSON_CreateTrue(), &whole);
    if (!whole) {
        error_set(err, "out of memory");
        return NULL;
    }
    return move(secret);
}

cJSON *object_service(const struct trainjob_view *view)
{
    bool whole = true;
    cleanup_json cJSON *service = object(view->job, view->job->name, "coordinator", &whole);
    /* Without waiting for readiness: a probe would only delay what reconnects by itself. */
    cJSON *spec = tree("{\"publishNotReadyAddresses\":true,\"ports\":[{\"name\":\"thole\",\"port\":%d,"
                       "\"targetPort\":%d,\"protocol\":\"TCP\"}]}",
                       TRAINJOB_PORT, TRAINJOB_PORT);
    json_add(spec, "selector", place_labels(view->job, ROLE_PS, 0, &whole), &whole);
    json_add(service, "spec", spec, &whole);
    return whole ? move(service) : NULL;
}

cJSON *object_policy(const struct trainjob_view *view)
{
    bool whole = true;
    cleanup_json cJSON *policy = object(view->job, view->job->name, "coordinator", &whole);
    cJSON *spec = tree("{\"podSelector\":{\"matchLabels\":{\"" TRAINJOB_LABEL_UID "\":\"%s\",\"" TRAINJOB_LABEL_ROLE
                       "\":\"ps\"}},\"policyTypes\":[\"Ingress\"],\"ingress\":[{\"from\":[{\"podSelector\":"
                       "{\"matchLabels\":{\"" TRAINJOB_LABEL_UID "\":\"%s\"}}}],"
                       "\"ports\":[{\"port\":%d,\"protocol\":\"TCP\"}]}]}",
                       view->job->uid, view->job->uid, TRAINJOB_PORT);
    json_add(policy, "spec", spec, &whole);
    return whole ? move(policy) : NULL;
}

/* ---- volumes ---- */

struct use {
    const char *name, *path;               /* of the volume, and where it is mounted */
    const cJSON *source;                   /* with hostPath or persistentVolumeClaim */
    char sub_path[TRAINJOB_SUB_PATH_SIZE]; /* "": all of it */
    bool writes;
};

struct uses {
    struct use items[3];
    size_t count;
};

static void list_uses(struct uses *out, const struct trainjob_view *view, bool is_coordinator)
{
    const struct trainjob *job = view->job;
    *out = (struct uses){.count = 1};
    struct use *data = &out->items[0];
    *data = (struct use){.name = "data", .path = TRAINER_DATA_DIR, .source = json_at(view->dataset, "spec.source")};
    snprintf(data->sub_path, sizeof data->sub_path, "%s",
             json_string(data->source, "persistentVolumeClaim.subPath", ""));
    struct use start = {.name = "start", .path = TRAINER_START_DIR};
    start.source = trainjob_start_volume(job, start.sub_path);
    if (start.source != NULL)
        out->items[out->count++] = start;
    if (is_coordinator && job->has_output)
        out->items[out->count++] = (struct use){.name = "output",
                                                .path = TRAINER_OUTPUT_DIR,
                                                .source = json_at(job->object, "spec.output.volume"),
                                                .writes = true};
}

static const char *claim_of(const struct use *use)
{
    return json_string(use->source, "persistentVolumeClaim.claimName", NULL);
}

/* Which volume a use is of: a pod with two of one claim would wait for ever (kubernetes/kubernetes#127004). */
static size_t volume_of(const struct uses *uses, size_t index)
{
    const char *claim = claim_of(&uses->items[index]);
    for (size_t i = 0; claim != NULL && i < index; i++)
        if (claim_of(&uses->items[i]) != NULL && strcmp(claim_of(&uses->items[i]), claim) == 0)
            return i;
    return index;
}

static cJSON *mount(const struct uses *uses, size_t index, bool *whole)
{
    const struct use *use = &uses->items[index];
    cJSON *json = tree("{\"name\":\"%s\",\"mountPath\":\"%s\"}", uses->items[volume_of(uses, index)].name, use->path);
    if (!use->writes)
        json_add(json, "readOnly", cJSON_CreateTrue(), whole);
    if (use->sub_path[0] != '\0')
        json_add_text(json, "subPath", use->sub_path, whole);
    return json;
}

/* `source`: with hostPath or persistentVolumeClaim. A directory that is missing on the node is said, not made. */
static cJSON *volume(const char *name, const cJSON *source, bool read_only, bool *whole)
{
    cJSON *json = cJSON_CreateObject();
    json_add_text(json, "name", name, whole);
    const char *path = json_string(source, "hostPath.path", NULL);
    if (path != NULL) {
        cJSON *host_path = json_add_object(json, "hostPath", whole);
        json_add_text(host_path, "path", path, whole);
        json_add_text(host_path, "type", "Directory", whole);
    } else {
        cJSON *claim = json_add_object(json, "persistentVolumeClaim", whole);
        json_add_text(claim, "claimName", json_string(source, "persistentVolumeClaim.claimName", ""), whole);
        if (read_only)
            json_add(claim, "readOnly", cJSON_CreateTrue(), whole);
    }
    return json;
}

static cJSON *volumes(const struct trainjob_view *view, bool is_coordinator, bool *whole)
{
    char secret[OBJECT_NAME_SIZE];
    object_secret_name(view->job, secret);
    cJSON *list = tree("[{\"name\":\"job\",\"secret\":{\"secretName\":\"%s\",\"defaultMode\":%d}}]", secret, 0440);
    struct uses uses;
    list_uses(&uses, view, is_coordinator);
    for (size_t i = 0; i < uses.count; i++) {
        if (volume_of(&uses, i) != i)
            continue;
        bool writes = false;
        for (size_t j = i; j < uses.count; j++)
            writes = writes || (volume_of(&uses, j) == i && uses.items[j].writes);
        json_add(list, NULL, volume(uses.items[i].name, uses.items[i].source, !writes, whole), whole);
    }
    return list;
}

/* ---- Deployments ---- */

static cJSON *field_env(const char *name, const char *path)
{
    return tree("{\"name\":\"%s\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"%s\"}}}", name, path);
}

static cJSON *text_env(const char *name, const char *value, bool *whole)
{
    cJSON *env = cJSON_CreateObject();
    json_add_text(env, "name", name, whole);
    json_add_text(env, "value", value, whole);
    return env;
}

static cJSON *environment(const struct trainjob_view *view, bool is_coordinator, const cJSON *user, bool *whole)
{
    const struct trainjob *job = view->job;
    char coordinator[192];
    snprintf(coordinator, sizeof coordinator, "%s.%s.svc:%d", job->name, job->namespace, TRAINJOB_PORT);
    cJSON *list = cJSON_CreateArray();
    json_add(list, NULL, field_env("POD_NAME", "metadata.name"), whole);
    json_add(list, NULL, field_env("POD_UID", "metadata.uid"), whole);
    json_add(list, NULL, field_env("POD_IP", "status.podIP"), whole);
    json_add(list, NULL, field_env("NODE_NAME", "spec.nodeName"), whole);
    json_add(list, NULL, text_env("THOLE_COORDINATOR", coordinator, whole), whole);
    if (is_coordinator)
        json_add(list, NULL, text_env("THOLE_OPERATOR", view->advertise_address, whole), whole);
    json_add(list, NULL, text_env("OPENBLAS_NUM_THREADS", "1", whole), whole);
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, user) json_add(list, NULL, cJSON_Duplicate(item, true), whole);
    return list;
}

/* A file may have another name, or be deeper in its volume, than those that jobs keep; of these it is known what they
 * hold. */
static void add_start_arguments(cJSON *arguments, const struct trainjob *job, bool *whole)
{
    const char *path = json_string(job->object, "spec.model.file.path", NULL);
    const char *sha256 = json_string(job->start, "sha256", NULL);
    if (path != NULL) {
        char file[sizeof TRAINER_START_DIR + 512];
        snprintf(file, sizeof file, TRAINER_START_DIR "/%s", path);
        json_add_text(arguments, NULL, "--start", whole);
        json_add_text(arguments, NULL, file, whole);
    }
    if (sha256 != NULL) {
        json_add_text(arguments, NULL, "--start-sha256", whole);
        json_add_text(arguments, NULL, sha256, whole);
    }
}

static cJSON *container(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard, bool is_coordinator,
                        bool *whole)
{
    const cJSON *user = cJSON_GetArrayItem(json_at(view->job->object, "spec.template.spec.containers"), 0);
    cJSON *json =
        tree("{\"name\":\"trainer\",\"command\":[\"thole-trainer\"],"
             "\"terminationMessagePolicy\":\"FallbackToLogsOnError\","
             "\"securityContext\":{\"allowPrivilegeEscalation\":false,\"readOnlyRootFilesystem\":true,"
             "\"capabilities\":{\"drop\":[\"ALL\"]}},"
             "\"volumeMounts\":[{\"name\":\"job\",\"mountPath\":\"" TRAINER_JOB_DIR "\",\"readOnly\":true}]}");
    json_add_text(json, "image", view->job->trainer_image, whole);
    cJSON *arguments = role == ROLE_PS ? tree("[\"ps\",\"--shard\",\"%" PRIu32 "\"]", shard) : tree("[\"worker\"]");
    json_add(json, "args", arguments, whole);
    add_start_arguments(arguments, view->job, whole);
    json_add(json, "env", environment(view, is_coordinator, json_at(user, "env"), whole), whole);
    if (role == ROLE_PS)
        json_add(json, "ports", tree("[{\"name\":\"thole\",\"containerPort\":%d}]", TRAINJOB_PORT), whole);
    const cJSON *resources = json_at(user, "resources");
    if (resources != NULL)
        json_add(json, "resources", cJSON_Duplicate(resources, true), whole);

    struct uses uses;
    list_uses(&uses, view, is_coordinator);
    for (size_t i = 0; i < uses.count; i++)
        json_add((cJSON *)json_at(json, "volumeMounts"), NULL, mount(&uses, i, whole), whole);
    return json;
}

/* So that a replacement of a shard avoids the node of the one it replaces: the scheduler counts pods that are still
 * going away, as those of a dead node are. */
static cJSON *away_from_itself(const struct trainjob *job, enum trainjob_role role, uint32_t shard, bool *whole)
{
    cJSON *affinity = tree("{\"podAntiAffinity\":{\"requiredDuringSchedulingIgnoredDuringExecution\":["
                           "{\"topologyKey\":\"kubernetes.io/hostname\",\"labelSelector\":{}}]}}");
    cJSON *terms = (cJSON *)json_at(affinity, "podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    cJSON *selector = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(terms, 0), "labelSelector");
    json_add(selector, "matchLabels", place_labels(job, role, shard, whole), whole);
    return affinity;
}

static cJSON *pod_spec(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard, bool *whole)
{
    static const char *const taken_over[] = {"nodeSelector", "tolerations", "imagePullSecrets", "priorityClassName"};
    bool is_coordinator = role == ROLE_PS && shard == 0;
    cJSON *spec = tree("{\"automountServiceAccountToken\":false,\"enableServiceLinks\":false,"
                       "\"terminationGracePeriodSeconds\":10,\"securityContext\":{\"runAsNonRoot\":true,"
                       "\"runAsUser\":%d,\"runAsGroup\":%d,\"fsGroup\":%d,"
                       "\"fsGroupChangePolicy\":\"OnRootMismatch\",\"seccompProfile\":{\"type\":\"RuntimeDefault\"}}}",
                       TRAINER_USER, TRAINER_USER, TRAINER_USER);
    cJSON *containers = json_add_list(spec, "containers", whole);
    json_add(containers, NULL, container(view, role, shard, is_coordinator, whole), whole);
    json_add(spec, "volumes", volumes(view, is_coordinator, whole), whole);
    if (role == ROLE_PS)
        json_add(spec, "affinity", away_from_itself(view->job, role, shard, whole), whole);
    const cJSON *user = json_at(view->job->object, "spec.template.spec");
    for (size_t i = 0; i < sizeof taken_over / sizeof taken_over[0]; i++) {
        const cJSON *value = json_at(user, taken_over[i]);
        if (value != NULL)
            json_add(spec, taken_over[i], cJSON_Duplicate(value, true), whole);
    }
    return spec;
}

static cJSON *pod_template(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard, bool *whole)
{
    const cJSON *user = json_at(view->job->object, "spec.template.metadata");
    cJSON *template = cJSON_CreateObject();
    cJSON *metadata = json_add_object(template, "metadata", whole);
    cJSON *labels = json_add_object(metadata, "labels", whole);
    copy_members(labels, json_at(user, "labels"), whole);
    add_labels(labels, view->job, trainjob_role_name(role), whole);
    cleanup_json cJSON *place = place_labels(view->job, role, shard, whole);
    copy_members(labels, place, whole);
    const cJSON *annotations = json_at(user, "annotations");
    if (annotations != NULL)
        json_add(metadata, "annotations", cJSON_Duplicate(annotations, true), whole);
    json_add(template, "spec", pod_spec(view, role, shard, whole), whole);
    return template;
}

cJSON *object_deployment(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard)
{
    const struct trainjob *job = view->job;
    char name[OBJECT_NAME_SIZE];
    object_deployment_name(job, role, shard, name);
    bool whole = true;
    cleanup_json cJSON *deployment = object(job, name, trainjob_role_name(role), &whole);
    cleanup_json cJSON *place = place_labels(job, role, shard, &whole);
    copy_members((cJSON *)json_at(deployment, "metadata.labels"), place, &whole);

    cJSON *spec = json_add_object(deployment, "spec", &whole);
    json_add_number(spec, "replicas", role == ROLE_PS ? 1 : job->replicas, &whole);
    json_add_number(spec, "revisionHistoryLimit", 0, &whole);
    /* A full cluster must not deadlock: no pod is made before one has gone. */
    json_add(spec, "strategy",
             role == ROLE_PS ? tree("{\"type\":\"Recreate\"}")
                             : tree("{\"type\":\"RollingUpdate\",\"rollingUpdate\":{\"maxSurge\":0,"
                                    "\"maxUnavailable\":1}}"),
             &whole);
    cJSON *selector = json_add_object(spec, "selector", &whole);
    json_add(selector, "matchLabels", move(place), &whole);
    json_add(spec, "template", pod_template(view, role, shard, &whole), &whole);
    return whole ? move(deployment) : NULL;
}
