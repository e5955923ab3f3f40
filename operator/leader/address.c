#include "leader/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct kube_resource slice_resource = {"discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true};

static const int64_t retry = 1 * SECONDS;

struct address {
    struct loop *loop;
    struct kube_client *client;
    const struct log *log;
    char namespace[KUBE_NAMESPACE_SIZE], service[KUBE_NAME_SIZE], selector[KUBE_NAME_SIZE + 16];
    struct kube_watch *watch;
    struct loop_timer timer;
    struct kube_call *call;
    cJSON *wanted; /* the whole slice as it should be */
    cJSON *seen;   /* NULL: there is none */
    bool listed, publishes;
};

static cJSON *build(const struct address_options *options, bool ipv6)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"metadata\":{\"labels\":{\"endpointslice.kubernetes.io/managed-by\":\"thole-operator\","
             "\"app.kubernetes.io/part-of\":\"thole\"}},\"addressType\":\"%s\","
             "\"endpoints\":[{\"conditions\":{\"ready\":true}}],"
             "\"ports\":[{\"name\":\"http\",\"port\":%u,\"protocol\":\"TCP\"}]}",
             ipv6 ? "IPv6" : "IPv4", options->port);
    cleanup_json cJSON *slice = cJSON_Parse(text);
    cJSON *addresses = cJSON_CreateArray();
    if (slice == NULL || addresses == NULL) {
        cJSON_Delete(addresses);
        return NULL;
    }
    cJSON_AddItemToArray(addresses, cJSON_CreateString(options->address));
    cJSON *endpoint = cJSON_GetArrayItem(json_at(slice, "endpoints"), 0);
    cJSON *metadata = cJSON_GetObjectItemCaseSensitive(slice, "metadata");
    cJSON *labels = cJSON_GetObjectItemCaseSensitive(metadata, "labels");
    if (!cJSON_AddItemToObject(endpoint, "addresses", addresses) ||
        cJSON_AddStringToObject(metadata, "name", options->service) == NULL ||
        cJSON_AddStringToObject(metadata, "namespace", options->namespace) == NULL ||
        cJSON_AddStringToObject(labels, "kubernetes.io/service-name", options->service) == NULL)
        return NULL;
    return move(slice);
}

/* Does the slice say all that it should? It may say more: labels of others, an empty condition. */
static bool says(const cJSON *seen, const cJSON *wanted)
{
    if (!cJSON_IsObject(wanted) && !cJSON_IsArray(wanted))
        return json_equal(seen, wanted);
    if (cJSON_IsArray(wanted) && cJSON_GetArraySize(seen) != cJSON_GetArraySize(wanted))
        return false;
    const cJSON *member = NULL;
    int index = 0;
    cJSON_ArrayForEach(member, wanted)
    {
        const cJSON *other = cJSON_IsArray(wanted) ? cJSON_GetArrayItem(seen, index++)
                                                   : cJSON_GetObjectItemCaseSensitive(seen, member->string);
        if (other == NULL || !says(other, member))
            return false;
    }
    return true;
}

static void see(struct address *address, const cJSON *slice)
{
    cJSON_Delete(address->seen);
    address->seen = slice == NULL ? NULL : cJSON_Duplicate(slice, true);
}

static void on_written(void *arg, struct kube_response *response);

static int write_slice(struct address *address, struct error *err)
{
    struct kube_request request = {
        .method = address->seen == NULL ? KUBE_POST : KUBE_PATCH,
        .resource = &slice_resource,
        .namespace = address->namespace,
        .name = address->service,
        .query = "fieldManager=" KUBE_FIELD_MANAGER,
        .content_type = address->seen == NULL ? NULL : "application/merge-patch+json",
    };
    cleanup_json cJSON *body = cJSON_Duplicate(address->wanted, true);
    if (address->seen != NULL) {
        const char *uid = json_string(address->seen, "metadata.uid", "");
        const char *version = json_string(address->seen, "metadata.resourceVersion", "");
        if (json_put(body, "metadata.uid", cJSON_CreateString(uid), err) < 0 ||
            json_put(body, "metadata.resourceVersion", cJSON_CreateString(version), err) < 0)
            return -1;
    } else if (json_put(body, "apiVersion", cJSON_CreateString("discovery.k8s.io/v1"), err) < 0 ||
               json_put(body, "kind", cJSON_CreateString("EndpointSlice"), err) < 0) {
        return -1;
    }
    cleanup_free char *text = json_print(body);
    if (text == NULL)
        return error_set(err, "out of memory for an EndpointSlice");
    request.body = text;
    request.body_length = strlen(text);
    return kube_request(address->client, &request, on_written, address, &address->call, err);
}

static void go_on(struct address *address)
{
    if (!address->publishes || !address->listed || address->call != NULL || address->timer.armed ||
        (address->seen != NULL && says(address->seen, address->wanted)))
        return;
    struct error err = {0};
    if (write_slice(address, &err) == 0)
        return;
    log_warn(address->log, "the EndpointSlice cannot be written, and is tried again", "error", error_message(&err),
             NULL);
    loop_timer_set(&address->timer, retry);
}

/* What contradicts what was seen will be seen soon: another leader wrote, or somebody deleted it. */
static void on_written(void *arg, struct kube_response *response)
{
    struct address *address = arg;
    address->call = NULL;
    if (response->cancelled)
        return;
    if (response->error == NULL) {
        see(address, response->object);
        log_info(address->log, "the coordinators' Service leads here", "service", address->service, NULL);
    } else {
        if (!response->conflict && response->status != 404 && response->status != 409)
            log_warn(address->log, "the EndpointSlice cannot be written, and is tried again", "error",
                     error_message(response->error), NULL);
        loop_timer_set(&address->timer, retry);
    }
    go_on(address);
}

static void on_timer(void *arg)
{
    go_on(arg);
}

static void on_event(void *arg, enum kube_watch_event_type type, cJSON *object)
{
    struct address *address = arg;
    if (type == KUBE_WATCH_LISTING || type == KUBE_WATCH_DELETED)
        see(address, NULL);
    else if (type == KUBE_WATCH_APPLIED)
        see(address, object);
    address->listed = type == KUBE_WATCH_LISTED || (address->listed && type != KUBE_WATCH_LISTING);
    go_on(address);
}

int address_start(struct address **out, const struct address_options *options, struct error *err)
{
    struct in6_addr ignored;
    bool ipv6 = inet_pton(AF_INET6, options->address, &ignored) == 1;
    if (!ipv6 && inet_pton(AF_INET, options->address, &ignored) != 1)
        return error_set(err, "'%s' is no IP address: POD_IP must be this pod's", options->address);
    cleanup_address struct address *address = calloc(1, sizeof *address);
    if (address == NULL)
        return error_set(err, "out of memory for an EndpointSlice");
    address->loop = options->loop;
    address->client = options->client;
    address->log = options->log;
    snprintf(address->namespace, sizeof address->namespace, "%s", options->namespace);
    snprintf(address->service, sizeof address->service, "%s", options->service);
    snprintf(address->selector, sizeof address->selector, "metadata.name=%s", options->service);
    loop_timer_init(&address->timer, options->loop, on_timer, address);
    address->wanted = build(options, ipv6);
    if (address->wanted == NULL)
        return error_set(err, "out of memory for an EndpointSlice");
    const struct kube_watch_options watch = {
        .resource = &slice_resource, .namespace = address->namespace, .field_selector = address->selector};
    if (kube_watch_start(&address->watch, options->loop, options->client, options->log, &watch, on_event, address,
                         err) < 0)
        return -1;
    *out = move(address);
    return 0;
}

void address_stop(struct address *address)
{
    if (address == NULL)
        return;
    address_retire(address);
    kube_watch_stop(address->watch);
    cJSON_Delete(address->wanted);
    cJSON_Delete(address->seen);
    free(address);
}

void address_publish(struct address *address)
{
    address->publishes = true;
    go_on(address);
}

void address_retire(struct address *address)
{
    address->publishes = false;
    loop_timer_cancel(&address->timer);
    if (address->call != NULL)
        kube_call_cancel(address->call);
    address->call = NULL;
}
