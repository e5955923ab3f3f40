#include "kube/apply.h"

#include <stdlib.h>
#include <string.h>

static int send_object(struct kube_client *client, struct kube_request *request, const cJSON *object,
                       kube_handler *handler, void *arg, struct error *err)
{
    cleanup_free char *body = json_print(object);
    if (body == NULL)
        return error_set(err, "out of memory for a request");
    request->body = body;
    request->body_length = strlen(body);
    return kube_request(client, request, handler, arg, NULL, err);
}

/* A copy of `object` that says what it is. */
static cJSON *named_copy(const struct kube_resource *resource, const cJSON *object, struct error *err)
{
    cleanup_json cJSON *copy = cJSON_Duplicate(object, true);
    char version[KUBE_API_VERSION_SIZE];
    kube_api_version(resource, version);
    bool good = copy != NULL;
    if (good && json_at(copy, "apiVersion") == NULL)
        good = cJSON_AddStringToObject(copy, "apiVersion", version) != NULL;
    if (good && json_at(copy, "kind") == NULL)
        good = cJSON_AddStringToObject(copy, "kind", resource->kind) != NULL;
    if (!good) {
        error_set(err, "out of memory for an object");
        return NULL;
    }
    return move(copy);
}

static int put_precondition(cJSON *object, struct kube_precondition precondition, struct error *err)
{
    if (precondition.uid != NULL && json_put(object, "metadata.uid", cJSON_CreateString(precondition.uid), err) < 0)
        return -1;
    if (precondition.resource_version == NULL)
        return 0;
    return json_put(object, "metadata.resourceVersion", cJSON_CreateString(precondition.resource_version), err);
}

int kube_create(struct kube_client *client, const struct kube_resource *resource, const cJSON *object,
                kube_handler *handler, void *arg, struct error *err)
{
    cleanup_json cJSON *copy = named_copy(resource, object, err);
    if (copy == NULL)
        return -1;
    struct kube_request request = {
        .method = KUBE_POST,
        .resource = resource,
        .namespace = json_string(object, "metadata.namespace", NULL),
        .name = json_string(object, "metadata.name", NULL),
        .query = "fieldManager=" KUBE_FIELD_MANAGER,
    };
    return send_object(client, &request, copy, handler, arg, err);
}

int kube_merge_patch(struct kube_client *client, const struct kube_resource *resource, const char *namespace,
                     const char *name, const char *subresource, const cJSON *patch,
                     struct kube_precondition precondition, kube_handler *handler, void *arg, struct error *err)
{
    cleanup_json cJSON *copy = cJSON_Duplicate(patch, true);
    if (copy == NULL)
        return error_set(err, "out of memory for a patch");
    if (put_precondition(copy, precondition, err) < 0)
        return -1;
    struct kube_request request = {
        .method = KUBE_PATCH,
        .resource = resource,
        .namespace = namespace,
        .name = name,
        .subresource = subresource,
        .query = "fieldManager=" KUBE_FIELD_MANAGER,
        .content_type = "application/merge-patch+json",
    };
    return send_object(client, &request, copy, handler, arg, err);
}

int kube_apply(struct kube_client *client, const struct kube_resource *resource, const cJSON *object,
               struct kube_precondition precondition, kube_handler *handler, void *arg, struct error *err)
{
    cleanup_json cJSON *copy = named_copy(resource, object, err);
    if (copy == NULL || put_precondition(copy, precondition, err) < 0)
        return -1;
    const char *name = json_string(object, "metadata.name", NULL);
    if (name == NULL)
        return error_set(err, "apply %s: the object has no name", resource->kind);
    struct kube_request request = {
        .method = KUBE_PATCH,
        .resource = resource,
        .namespace = json_string(object, "metadata.namespace", NULL),
        .name = name,
        .query = "fieldManager=" KUBE_FIELD_MANAGER "&force=true",
        .content_type = "application/apply-patch+yaml",
    };
    return send_object(client, &request, copy, handler, arg, err);
}

int kube_delete(struct kube_client *client, const struct kube_resource *resource, const char *namespace,
                const char *name, struct kube_precondition precondition, const char *propagation, kube_handler *handler,
                void *arg, struct error *err)
{
    cleanup_json cJSON *options = cJSON_CreateObject();
    bool good = options != NULL && cJSON_AddStringToObject(options, "apiVersion", "v1") != NULL &&
                cJSON_AddStringToObject(options, "kind", "DeleteOptions") != NULL;
    if (good && propagation != NULL)
        good = cJSON_AddStringToObject(options, "propagationPolicy", propagation) != NULL;
    if (!good)
        return error_set(err, "out of memory for a delete");
    if (precondition.uid != NULL &&
        json_put(options, "preconditions.uid", cJSON_CreateString(precondition.uid), err) < 0)
        return -1;
    if (precondition.resource_version != NULL &&
        json_put(options, "preconditions.resourceVersion", cJSON_CreateString(precondition.resource_version), err) < 0)
        return -1;
    struct kube_request request = {
        .method = KUBE_DELETE,
        .resource = resource,
        .namespace = namespace,
        .name = name,
    };
    return send_object(client, &request, options, handler, arg, err);
}

int kube_get(struct kube_client *client, const struct kube_resource *resource, const char *namespace, const char *name,
             kube_handler *handler, void *arg, struct error *err)
{
    const struct kube_request request = {
        .method = KUBE_GET,
        .resource = resource,
        .namespace = namespace,
        .name = name,
    };
    return kube_request(client, &request, handler, arg, NULL, err);
}

bool kube_namespace_ends(const struct kube_response *response)
{
    if (response->status == 404)
        return strcmp(json_string(response->object, "details.kind", ""), "namespaces") == 0;
    if (response->status != 403)
        return false;
    const cJSON *cause = NULL;
    cJSON_ArrayForEach(cause, json_at(response->object, "details.causes"))
    {
        if (strcmp(json_string(cause, "reason", ""), "NamespaceTerminating") == 0)
            return true;
    }
    return false;
}
