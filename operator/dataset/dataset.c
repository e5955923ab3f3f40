#include "dataset/dataset.h"

#include "common/clock.h"

static const struct kube_resource dataset_resource = {"thole.dev", "v1alpha1", "datasets", "Dataset", true};

struct dataset_controller {
    struct dataset_options options;
    struct kube_informer *informer;
    struct controller *runtime;
    bool acts;
    void (*changed)(void *arg, const char *namespace, const char *name);
    void *changed_arg;
};

/* A status write under way. */
struct write {
    struct dataset_controller *controller;
    struct reconcile *run;
};

static void on_written(void *arg, struct kube_response *response)
{
    cleanup_free struct write *write = arg;
    if (response->cancelled)
        return;
    if (response->error == NULL) {
        kube_informer_wrote(write->controller->informer, response->object);
        reconcile_done(write->run);
    } else if (response->status == 404) {
        reconcile_done(write->run); /* gone meanwhile */
    } else {
        reconcile_failed(write->run, response->error);
    }
}

static int write_status(struct dataset_controller *controller, struct reconcile *run, const cJSON *dataset,
                        cJSON *status, struct error *err)
{
    cleanup_json cJSON *patch = cJSON_CreateObject();
    if (json_put(patch, "status", status, err) < 0)
        return -1;
    struct write *write = malloc(sizeof *write);
    if (write == NULL)
        return error_set(err, "out of memory");
    *write = (struct write){controller, run};
    struct kube_precondition precondition = {.uid = json_string(dataset, "metadata.uid", NULL),
                                             .resource_version =
                                                 json_string(dataset, "metadata.resourceVersion", NULL)};
    int result = kube_merge_patch(
        controller->options.client, &dataset_resource, json_string(dataset, "metadata.namespace", NULL),
        json_string(dataset, "metadata.name", ""), "status", patch, precondition, on_written, write, err);
    if (result < 0)
        free(write);
    return result;
}

static void reconcile_dataset(void *arg, struct reconcile *run, const char *key)
{
    struct dataset_controller *controller = arg;
    cleanup_json cJSON *dataset = kube_cache_get(kube_informer_cache(controller->informer), key);
    if (dataset == NULL || json_at(dataset, "metadata.deletionTimestamp") != NULL) {
        reconcile_done(run);
        return;
    }
    cleanup_json cJSON *status = dataset_status(dataset, controller->options.allowed, clock_wall_seconds());
    if (json_equal(status, json_at(dataset, "status"))) {
        reconcile_done(run);
        return;
    }
    struct error err = {0};
    if (write_status(controller, run, dataset, move(status), &err) < 0)
        reconcile_failed(run, &err);
}

static void on_change(void *arg, enum kube_change change, const char *key, const cJSON *object)
{
    struct dataset_controller *controller = arg;
    (void)change;
    /* What the first list brings is mostly as it should be. */
    controller_enqueue(controller->runtime, key, dataset_synced(controller) ? QUEUE_HIGH : QUEUE_LOW);
    if (controller->changed != NULL)
        controller->changed(controller->changed_arg, json_string(object, "metadata.namespace", ""),
                            json_string(object, "metadata.name", ""));
}

static void on_synced(void *arg)
{
    struct dataset_controller *controller = arg;
    if (controller->acts)
        controller_start(controller->runtime);
}

void dataset_begin(struct dataset_controller *controller)
{
    controller->acts = true;
    if (dataset_synced(controller))
        controller_start(controller->runtime);
}

static void list_keys(void *arg, controller_visit *visit, void *visit_arg)
{
    const struct dataset_controller *controller = arg;
    kube_cache_keys(kube_informer_cache(controller->informer), visit, visit_arg);
}

int dataset_start(struct dataset_controller **out, const struct dataset_options *options, struct error *err)
{
    cleanup_dataset_controller struct dataset_controller *controller = calloc(1, sizeof *controller);
    if (controller == NULL)
        return error_set(err, "out of memory");
    controller->options = *options;
    const struct controller_options runtime = {
        .name = "dataset",
        .noun = "dataset",
        .reconcile = reconcile_dataset,
        .arg = controller,
        .log = options->log,
        .list = list_keys,
        .resync = options->resync,
    };
    controller->runtime = controller_new(options->loop, &runtime, err);
    if (controller->runtime == NULL)
        return -1;
    struct kube_informer_options informer = {
        .watch = {.resource = &dataset_resource, .namespace = options->namespace},
    };
    if (kube_informer_start(&controller->informer, options->loop, options->client, options->log, &informer, on_change,
                            on_synced, controller, err) < 0)
        return -1;
    *out = move(controller);
    return 0;
}

void dataset_stop(struct dataset_controller *controller)
{
    if (controller == NULL)
        return;
    kube_informer_stop(controller->informer);
    controller_free(controller->runtime);
    free(controller);
}

void dataset_on_change(struct dataset_controller *controller,
                       void (*changed)(void *arg, const char *namespace, const char *name), void *arg)
{
    controller->changed = changed;
    controller->changed_arg = arg;
}

bool dataset_synced(const struct dataset_controller *controller)
{
    return kube_informer_synced(controller->informer);
}

cJSON *dataset_get(const struct dataset_controller *controller, const char *namespace, const char *name)
{
    struct kube_key key;
    if (kube_key_make(&key, namespace, name) < 0)
        return NULL;
    return kube_cache_get(kube_informer_cache(controller->informer), key.text);
}

struct controller *dataset_runtime(const struct dataset_controller *controller)
{
    return controller->runtime;
}

const struct kube_informer *dataset_informer(const struct dataset_controller *controller)
{
    return controller->informer;
}
