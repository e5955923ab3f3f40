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

static void add_labels(cJSON *labels, const struct trainjob *job, const char *component)
{
    cJSON_AddStringToObject(labels, "app.kubernetes.io/name", "thole");
    cJSON_AddStringToObject(labels, "app.kubernetes.io/instance", job->name);
    cJSON_AddStringToObject(labels, "app.kubernetes.io/component", component);
    cJSON_AddStringToObject(labels, "app.kubernetes.io/managed-by", "thole-operator");
    cJSON_AddStringToObject(labels, TRAINJOB_LABEL_JOB, job->name);
    cJSON_AddStringToObject(labels, TRAINJOB_LABEL_UID, job->uid);
}

/* apiVersion and kind are filled in by whoever posts it. */
static cJSON *object(const struct trainjob *job, const char *name, const char *component)
{
    cJSON *json = tree("{\"metadata\":{\"name\":\"%s\",\"namespace\":\"%s\",\"labels\":{},\"ownerReferences\":["
                       "{\"apiVersion\":\"thole.dev/v1alpha1\",\"kind\":\"TrainJob\",\"name\":\"%s\",\"uid\":\"%s\","
                       "\"controller\":true,\"blockOwnerDeletion\":true}]}}",
                       name, job->namespace, job->name, job->uid);
    add_labels((cJSON *)json_at(json, "metadata.labels"), job, component);
    return json;
}

static cJSON *place_labels(const struct trainjob *job, enum trainjob_role role, uint32_t shard)
{
    cJSON *labels = tree("{\"" TRAINJOB_LABEL_UID "\":\"%s\",\"" TRAINJOB_LABEL_ROLE "\":\"%s\"}", job->uid,
                         trainjob_role_name(role));
    char number[16];
    snprintf(number, sizeof number, "%" PRIu32, shard);
    if (role == ROLE_PS)
        cJSON_AddStringToObject(labels, TRAINJOB_LABEL_SHARD, number);
    return labels;
}

static void copy_members(cJSON *to, const cJSON *from)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, from)
    {
        cJSON_DeleteItemFromObjectCaseSensitive(to, item->string);
        cJSON_AddItemToObject(to, item->string, cJSON_Duplicate(item, true));
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

void trainjob_token(const void *key, size_t key_length, const char *job_uid, uint8_t out[REPORT_TOKEN_SIZE])
{
    hmac_sha256(key, key_length, job_uid, strlen(job_uid), out);
}

cJSON *object_secret(const struct trainjob_view *view, struct error *err)
{
    const struct trainjob *job = view->job;
    cleanup_free char *plan = plan_compile(job->object, view->dataset, err);
    if (plan == NULL)
        return NULL;
    uint8_t token[REPORT_TOKEN_SIZE];
    trainjob_token(view->key, view->key_length, job->uid, token);
    cleanup_free char *plan_data = base64(plan, strlen(plan));
    cleanup_free char *token_data = base64(token, sizeof token);
    char name[OBJECT_NAME_SIZE];
    object_secret_name(job, name);
    cleanup_json cJSON *secret = object(job, name, "job");
    cJSON *data = cJSON_AddObjectToObject(secret, "data");
    if (plan_data == NULL || token_data == NULL || !cJSON_AddStringToObject(data, "plan.json", plan_data) ||
        !cJSON_AddStringToObject(data, "token", token_data)) {
        error_set(err, "out of memory");
        return NULL;
    }
    cJSON_AddStringToObject(secret, "type", "Opaque");
    cJSON_AddTrueToObject(secret, "immutable");
    return move(secret);
}

cJSON *object_service(const struct trainjob_view *view)
{
    cJSON *service = object(view->job, view->job->name, "coordinator");
    /* Without waiting for readiness: a probe would only delay what reconnects by itself. */
    cJSON *spec = tree("{\"publishNotReadyAddresses\":true,\"ports\":[{\"name\":\"thole\",\"port\":%d,"
                       "\"targetPort\":%d,\"protocol\":\"TCP\"}]}",
                       TRAINJOB_PORT, TRAINJOB_PORT);
    cJSON_AddItemToObject(spec, "selector", place_labels(view->job, ROLE_PS, 0));
    cJSON_AddItemToObject(service, "spec", spec);
    return service;
}

cJSON *object_policy(const struct trainjob_view *view)
{
    cJSON *policy = object(view->job, view->job->name, "coordinator");
    cJSON *spec = tree("{\"podSelector\":{\"matchLabels\":{\"" TRAINJOB_LABEL_UID "\":\"%s\",\"" TRAINJOB_LABEL_ROLE
                       "\":\"ps\"}},\"policyTypes\":[\"Ingress\"],\"ingress\":[{\"from\":[{\"podSelector\":"
                       "{\"matchLabels\":{\"" TRAINJOB_LABEL_UID "\":\"%s\"}}}],"
                       "\"ports\":[{\"port\":%d,\"protocol\":\"TCP\"}]}]}",
                       view->job->uid, view->job->uid, TRAINJOB_PORT);
    cJSON_AddItemToObject(policy, "spec", spec);
    return policy;
}

/* ---- Deployments ---- */

static cJSON *field_env(const char *name, const char *path)
{
    return tree("{\"name\":\"%s\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"%s\"}}}", name, path);
}

static cJSON *text_env(const char *name, const char *value)
{
    cJSON *env = cJSON_CreateObject();
    cJSON_AddStringToObject(env, "name", name);
    cJSON_AddStringToObject(env, "value", value);
    return env;
}

static cJSON *environment(const struct trainjob_view *view, bool is_coordinator, const cJSON *user)
{
    const struct trainjob *job = view->job;
    char coordinator[192];
    snprintf(coordinator, sizeof coordinator, "%s.%s.svc:%d", job->name, job->namespace, TRAINJOB_PORT);
    cJSON *list = cJSON_CreateArray();
    cJSON_AddItemToArray(list, field_env("POD_NAME", "metadata.name"));
    cJSON_AddItemToArray(list, field_env("POD_UID", "metadata.uid"));
    cJSON_AddItemToArray(list, field_env("POD_IP", "status.podIP"));
    cJSON_AddItemToArray(list, field_env("NODE_NAME", "spec.nodeName"));
    cJSON_AddItemToArray(list, text_env("THOLE_COORDINATOR", coordinator));
    if (is_coordinator)
        cJSON_AddItemToArray(list, text_env("THOLE_OPERATOR", view->advertise_address));
    cJSON_AddItemToArray(list, text_env("OPENBLAS_NUM_THREADS", "1"));
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, user) cJSON_AddItemToArray(list, cJSON_Duplicate(item, true));
    return list;
}

static cJSON *container(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard, bool is_coordinator)
{
    const cJSON *user = cJSON_GetArrayItem(json_at(view->job->object, "spec.template.spec.containers"), 0);
    cJSON *json =
        tree("{\"name\":\"trainer\",\"command\":[\"thole-trainer\"],"
             "\"terminationMessagePolicy\":\"FallbackToLogsOnError\","
             "\"securityContext\":{\"allowPrivilegeEscalation\":false,\"readOnlyRootFilesystem\":true,"
             "\"capabilities\":{\"drop\":[\"ALL\"]}},"
             "\"volumeMounts\":[{\"name\":\"job\",\"mountPath\":\"" TRAINER_JOB_DIR "\",\"readOnly\":true}]}");
    cJSON_AddStringToObject(json, "image", view->job->trainer_image);
    cJSON *arguments = role == ROLE_PS ? tree("[\"ps\",\"--shard\",\"%" PRIu32 "\"]", shard) : tree("[\"worker\"]");
    cJSON_AddItemToObject(json, "args", arguments);
    cJSON_AddItemToObject(json, "env", environment(view, is_coordinator, json_at(user, "env")));
    if (role == ROLE_PS)
        cJSON_AddItemToObject(json, "ports", tree("[{\"name\":\"thole\",\"containerPort\":%d}]", TRAINJOB_PORT));
    const cJSON *resources = json_at(user, "resources");
    if (resources != NULL)
        cJSON_AddItemToObject(json, "resources", cJSON_Duplicate(resources, true));

    cJSON *mounts = (cJSON *)json_at(json, "volumeMounts");
    cJSON *data = tree("{\"name\":\"data\",\"mountPath\":\"" TRAINER_DATA_DIR "\",\"readOnly\":true}");
    const char *part = json_string(view->dataset, "spec.source.persistentVolumeClaim.subPath", NULL);
    if (part != NULL)
        cJSON_AddStringToObject(data, "subPath", part);
    cJSON_AddItemToArray(mounts, data);
    if (is_coordinator && view->job->has_output)
        cJSON_AddItemToArray(mounts, tree("{\"name\":\"output\",\"mountPath\":\"" TRAINER_OUTPUT_DIR "\"}"));
    return json;
}

/* `source`: with hostPath or persistentVolumeClaim. A directory that is missing on the node is said, not made. */
static cJSON *volume(const char *name, const cJSON *source, bool read_only)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "name", name);
    const char *path = json_string(source, "hostPath.path", NULL);
    if (path != NULL) {
        cJSON *host_path = cJSON_AddObjectToObject(json, "hostPath");
        cJSON_AddStringToObject(host_path, "path", path);
        cJSON_AddStringToObject(host_path, "type", "Directory");
    } else {
        cJSON *claim = cJSON_AddObjectToObject(json, "persistentVolumeClaim");
        cJSON_AddStringToObject(claim, "claimName", json_string(source, "persistentVolumeClaim.claimName", ""));
        if (read_only)
            cJSON_AddTrueToObject(claim, "readOnly");
    }
    return json;
}

static cJSON *volumes(const struct trainjob_view *view, bool is_coordinator)
{
    char secret[OBJECT_NAME_SIZE];
    object_secret_name(view->job, secret);
    cJSON *list = tree("[{\"name\":\"job\",\"secret\":{\"secretName\":\"%s\",\"defaultMode\":%d}}]", secret, 0440);
    cJSON_AddItemToArray(list, volume("data", json_at(view->dataset, "spec.source"), true));
    if (is_coordinator && view->job->has_output)
        cJSON_AddItemToArray(list, volume("output", json_at(view->job->object, "spec.output.volume"), false));
    return list;
}

/* So that a replacement of a shard avoids the node of the one it replaces: the scheduler counts pods that are still
 * going away, as those of a dead node are. */
static cJSON *away_from_itself(const struct trainjob *job, enum trainjob_role role, uint32_t shard)
{
    cJSON *affinity = tree("{\"podAntiAffinity\":{\"requiredDuringSchedulingIgnoredDuringExecution\":["
                           "{\"topologyKey\":\"kubernetes.io/hostname\",\"labelSelector\":{}}]}}");
    cJSON *terms = (cJSON *)json_at(affinity, "podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    cJSON *selector = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(terms, 0), "labelSelector");
    cJSON_AddItemToObject(selector, "matchLabels", place_labels(job, role, shard));
    return affinity;
}

static cJSON *pod_spec(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard)
{
    static const char *const taken_over[] = {"nodeSelector", "tolerations", "imagePullSecrets", "priorityClassName"};
    bool is_coordinator = role == ROLE_PS && shard == 0;
    cJSON *spec = tree("{\"automountServiceAccountToken\":false,\"enableServiceLinks\":false,"
                       "\"terminationGracePeriodSeconds\":10,\"securityContext\":{\"runAsNonRoot\":true,"
                       "\"runAsUser\":%d,\"runAsGroup\":%d,\"fsGroup\":%d,"
                       "\"fsGroupChangePolicy\":\"OnRootMismatch\",\"seccompProfile\":{\"type\":\"RuntimeDefault\"}}}",
                       TRAINER_USER, TRAINER_USER, TRAINER_USER);
    cJSON *containers = cJSON_AddArrayToObject(spec, "containers");
    cJSON_AddItemToArray(containers, container(view, role, shard, is_coordinator));
    cJSON_AddItemToObject(spec, "volumes", volumes(view, is_coordinator));
    if (role == ROLE_PS)
        cJSON_AddItemToObject(spec, "affinity", away_from_itself(view->job, role, shard));
    const cJSON *user = json_at(view->job->object, "spec.template.spec");
    for (size_t i = 0; i < sizeof taken_over / sizeof taken_over[0]; i++) {
        const cJSON *value = json_at(user, taken_over[i]);
        if (value != NULL)
            cJSON_AddItemToObject(spec, taken_over[i], cJSON_Duplicate(value, true));
    }
    return spec;
}

static cJSON *pod_template(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard)
{
    const cJSON *user = json_at(view->job->object, "spec.template.metadata");
    cJSON *template = cJSON_CreateObject();
    cJSON *metadata = cJSON_AddObjectToObject(template, "metadata");
    cJSON *labels = cJSON_AddObjectToObject(metadata, "labels");
    copy_members(labels, json_at(user, "labels"));
    add_labels(labels, view->job, trainjob_role_name(role));
    cleanup_json cJSON *place = place_labels(view->job, role, shard);
    copy_members(labels, place);
    const cJSON *annotations = json_at(user, "annotations");
    if (annotations != NULL)
        cJSON_AddItemToObject(metadata, "annotations", cJSON_Duplicate(annotations, true));
    cJSON_AddItemToObject(template, "spec", pod_spec(view, role, shard));
    return template;
}

cJSON *object_deployment(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard)
{
    const struct trainjob *job = view->job;
    char name[OBJECT_NAME_SIZE];
    object_deployment_name(job, role, shard, name);
    cJSON *deployment = object(job, name, trainjob_role_name(role));
    cleanup_json cJSON *place = place_labels(job, role, shard);
    copy_members((cJSON *)json_at(deployment, "metadata.labels"), place);

    cJSON *spec = cJSON_AddObjectToObject(deployment, "spec");
    cJSON_AddNumberToObject(spec, "replicas", role == ROLE_PS ? 1 : job->replicas);
    cJSON_AddNumberToObject(spec, "revisionHistoryLimit", 0);
    /* A full cluster must not deadlock: no pod is made before one has gone. */
    cJSON_AddItemToObject(spec, "strategy",
                          role == ROLE_PS ? tree("{\"type\":\"Recreate\"}")
                                          : tree("{\"type\":\"RollingUpdate\",\"rollingUpdate\":{\"maxSurge\":0,"
                                                 "\"maxUnavailable\":1}}"));
    cJSON *selector = cJSON_AddObjectToObject(spec, "selector");
    cJSON_AddItemToObject(selector, "matchLabels", move(place));
    cJSON_AddItemToObject(spec, "template", pod_template(view, role, shard));
    return deployment;
}
