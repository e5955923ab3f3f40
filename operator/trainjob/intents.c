#include "trainjob/intents.h"

#include <string.h>

const struct kube_resource trainjob_resource = {"thole.dev", "v1alpha1", "trainjobs", "TrainJob", true};
const struct kube_resource deployment_resource = {"apps", "v1", "deployments", "Deployment", true};
const struct kube_resource service_resource = {"", "v1", "services", "Service", true};
const struct kube_resource policy_resource = {"networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true};
const struct kube_resource secret_resource = {"", "v1", "secrets", "Secret", true};
const struct kube_resource pod_resource = {"", "v1", "pods", "Pod", true};
const struct kube_resource event_resource = {"", "v1", "events", "Event", true};

void intents_free(struct intents *intents)
{
    for (size_t i = 0; i < intents->count; i++)
        cJSON_Delete(intents->items[i].body);
    intents->count = 0;
}

struct intent *intents_add(struct intents *intents, enum intent_type type, const struct kube_resource *resource,
                           const char *name, const char *uid, cJSON *body)
{
    if (intents->count == INTENTS_MOST || (body == NULL && type != INTENT_DELETE)) {
        cJSON_Delete(body);
        intents_look_again(intents, 1);
        return NULL;
    }
    struct intent *intent = &intents->items[intents->count++];
    *intent = (struct intent){.type = type, .resource = resource, .body = body};
    snprintf(intent->name, sizeof intent->name, "%s", name);
    snprintf(intent->uid, sizeof intent->uid, "%s", uid == NULL ? "" : uid);
    return intent;
}

void intents_look_again(struct intents *intents, int64_t seconds)
{
    if (seconds < 1)
        seconds = 1;
    if (intents->after == 0 || seconds < intents->after)
        intents->after = seconds;
}

const char *intent_name(enum intent_type type)
{
    static const char *const names[] = {
        [INTENT_CREATE] = "create", [INTENT_SCALE] = "scale",           [INTENT_DELETE] = "delete",
        [INTENT_FREEZE] = "freeze", [INTENT_FINALIZERS] = "finalizers",
    };
    return names[type];
}

cJSON *intents_json(const struct intents *intents)
{
    bool whole = true;
    cleanup_json cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < intents->count; i++) {
        const struct intent *intent = &intents->items[i];
        cJSON *item = json_add_object(list, NULL, &whole);
        json_add_text(item, "do", intent_name(intent->type), &whole);
        json_add_text(item, "kind", intent->resource->kind, &whole);
        json_add_text(item, "name", intent->name, &whole);
        if (intent->uid[0] != '\0')
            json_add_text(item, "uid", intent->uid, &whole);
        if (intent->body != NULL)
            json_add(item, "body", cJSON_Duplicate(intent->body, true), &whole);
    }
    return whole ? move(list) : NULL;
}
