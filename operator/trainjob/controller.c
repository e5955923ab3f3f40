#include "trainjob/controller.h"

#include "common/clock.h"
#include "trainjob/status.h"

#include <string.h>

enum { INFORMERS = 5 };

/* ---- what is kept of objects ---- */

static void keep_members(cJSON *object, const char *const *names)
{
    for (cJSON *item = object == NULL ? NULL : object->child, *next = NULL; item != NULL; item = next) {
        next = item->next;
        bool keep = false;
        for (size_t i = 0; names[i] != NULL && !keep; i++)
            keep = strcmp(item->string, names[i]) == 0;
        if (!keep)
            cJSON_Delete(cJSON_DetachItemViaPointer(object, item));
    }
}

static void project_job(cJSON *object)
{
    cJSON_DeleteItemFromObjectCaseSensitive((cJSON *)json_at(object, "metadata"), "annotations");
}

/* Drops the items of a list whose `member` is none of `values`. */
static void keep_items(cJSON *list, const char *member, const char *const *values)
{
    for (cJSON *item = list == NULL ? NULL : list->child, *next = NULL; item != NULL; item = next) {
        next = item->next;
        bool keep = false;
        for (size_t i = 0; values[i] != NULL && !keep; i++)
            keep = strcmp(json_string(item, member, ""), values[i]) == 0;
        if (!keep)
            cJSON_Delete(cJSON_DetachItemViaPointer(list, item));
    }
}

/* There are several of these for each job: only what job.c reads. */
static void project_child(cJSON *object)
{
    static const char *const members[] = {"metadata", "spec", "status", NULL};
    static const char *const metadata[] = {"name",
                                           "namespace",
                                           "uid",
                                           "resourceVersion",
                                           "labels",
                                           "ownerReferences",
                                           "creationTimestamp",
                                           "deletionTimestamp",
                                           NULL};
    static const char *const labels[] = {TRAINJOB_LABEL_JOB, TRAINJOB_LABEL_UID, TRAINJOB_LABEL_ROLE,
                                         TRAINJOB_LABEL_SHARD, NULL};
    static const char *const owner[] = {"uid", "controller", NULL};
    static const char *const spec[] = {"replicas", "nodeName", NULL};
    static const char *const status[] = {"phase", "reason", "message", "conditions", "containerStatuses", NULL};
    static const char *const conditions[] = {"ReplicaFailure", "Ready", "PodScheduled", NULL};
    keep_members(object, members);
    keep_members((cJSON *)json_at(object, "metadata"), metadata);
    keep_members((cJSON *)json_at(object, "metadata.labels"), labels);
    cJSON *item = NULL;
    cJSON_ArrayForEach(item, json_at(object, "metadata.ownerReferences")) keep_members(item, owner);
    keep_members((cJSON *)json_at(object, "spec"), spec);
    keep_members((cJSON *)json_at(object, "status"), status);
    keep_items((cJSON *)json_at(object, "status.conditions"), "type", conditions);
}

/* ---- what wakes a job up ---- */

/* What the first lists bring is mostly as it should be: what happens afterwards comes before it. */
static enum queue_priority priority_of_events(const struct trainjob_controller *controller)
{
    return controller->begun ? QUEUE_HIGH : QUEUE_LOW;
}

static void wake(struct trainjob_controller *controller, const char *namespace, const char *name)
{
    struct kube_key key;
    if (kube_key_make(&key, namespace, name) == 0)
        controller_enqueue(controller->runtime, key.text, priority_of_events(controller));
}

static void wake_waiter(void *arg, const char *key)
{
    struct trainjob_controller *controller = arg;
    controller_enqueue(controller->runtime, key, priority_of_events(controller));
}

static void on_job(void *arg, enum kube_change change, const char *key, const cJSON *object)
{
    struct trainjob_controller *controller = arg;
    (void)object;
    if (change == KUBE_VANISHED)
        memory_drop(controller->memory, key);
    memory_waiting_for(controller->memory, key, wake_waiter, controller);
    controller_enqueue(controller->runtime, key, priority_of_events(controller));
}

static void on_child(void *arg, enum kube_change change, const char *key, const cJSON *object)
{
    struct trainjob_controller *controller = arg;
    (void)change;
    (void)key;
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(json_at(object, "metadata.labels"), TRAINJOB_LABEL_JOB);
    if (cJSON_IsString(name))
        wake(controller, json_string(object, "metadata.namespace", ""), name->valuestring);
}

struct namespace_visit {
    struct trainjob_controller *controller;
    const char *namespace;
};

static void wake_in_namespace(void *arg, const char *key)
{
    const struct namespace_visit *visit = arg;
    size_t length = strlen(visit->namespace);
    if (strncmp(key, visit->namespace, length) == 0 && key[length] == '/')
        controller_enqueue(visit->controller->runtime, key, QUEUE_LOW);
}

/* Which jobs name it is only in the jobs: a look costs nothing where there is nothing to do. */
static void on_dataset(void *arg, const char *namespace, const char *name)
{
    struct trainjob_controller *controller = arg;
    (void)name;
    struct namespace_visit visit = {controller, namespace};
    kube_cache_keys(kube_informer_cache(controller->jobs), wake_in_namespace, &visit);
}

/* ---- observing ---- */

struct kube_informer *informer_of(const struct trainjob_controller *controller, const struct kube_resource *resource)
{
    if (resource == &trainjob_resource)
        return controller->jobs;
    if (resource == &deployment_resource)
        return controller->deployments;
    if (resource == &pod_resource)
        return controller->pods;
    if (resource == &service_resource)
        return controller->services;
    return resource == &policy_resource ? controller->policies : NULL;
}

static void gather_children(const struct trainjob_controller *controller, struct observation *out,
                            const struct job_memory *memory)
{
    const struct trainjob *job = &out->job;
    out->deployments = kube_cache_owned(kube_informer_cache(controller->deployments), job->uid);
    out->services = kube_cache_owned(kube_informer_cache(controller->services), job->uid);
    out->policies = kube_cache_owned(kube_informer_cache(controller->policies), job->uid);
    out->pods = kube_cache_labelled(kube_informer_cache(controller->pods), job->namespace, job->uid);
    trainjob_children_decode(&out->children, job, out->deployments, out->pods, out->services, out->policies,
                             memory->events);
}

/* Has it to wait for another's model? */
static bool waits_for_start(const struct trainjob *job)
{
    return job->start_job != NULL && !job->started && !job->deleting;
}

/* The job whose model is the start of one that has not started; it is woken by whatever happens to that one. */
static cJSON *gather_start_job(struct trainjob_controller *controller, const struct trainjob *job,
                               struct job_memory *memory)
{
    struct kube_key key;
    bool waits = waits_for_start(job) && kube_key_make(&key, job->namespace, job->start_job) == 0;
    /* Without memory for it, the next resync looks. */
    (void)memory_await(controller->memory, memory, waits ? key.text : NULL);
    return waits ? kube_cache_get(kube_informer_cache(controller->jobs), key.text) : NULL;
}

enum { CHAIN_MOST = 64 }; /* jobs that are followed, each waiting for the next */

/* Adds a name to the chain; false where it is the last, as what follows has been seen. */
static bool add_to_chain(cJSON *chain, const char *name, const char *own)
{
    bool seen = strcmp(name, own) == 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, chain) seen = seen || strcmp(item->valuestring, name) == 0;
    cJSON *added = cJSON_CreateString(name);
    return cJSON_AddItemToArray(chain, added) && !seen && cJSON_GetArraySize(chain) < CHAIN_MOST;
}

/* See trainjob_view. Where one in the middle changes, only the job before it is woken; its status then changes, which
 * wakes the one before that, and so on. */
static cJSON *gather_start_chain(const struct trainjob_controller *controller, const struct trainjob *job,
                                 const cJSON *start_job)
{
    cleanup_json cJSON *chain = start_job == NULL ? NULL : cJSON_CreateArray();
    cleanup_json cJSON *held = NULL;
    bool more = chain != NULL && add_to_chain(chain, job->start_job, job->name);
    for (const cJSON *at = start_job; more && at != NULL; at = held) {
        struct trainjob of;
        struct kube_key key;
        trainjob_decode(&of, at);
        if (!waits_for_start(&of) || kube_key_make(&key, job->namespace, of.start_job) < 0)
            break;
        more = add_to_chain(chain, of.start_job, job->name);
        cJSON_Delete(held);
        held = more ? kube_cache_get(kube_informer_cache(controller->jobs), key.text) : NULL;
    }
    return move(chain);
}

struct observation *observe(struct trainjob_controller *controller, const char *key, struct job_memory **memory)
{
    cleanup_observation struct observation *out = calloc(1, sizeof *out);
    if (out == NULL)
        return NULL;
    out->object = kube_cache_get(kube_informer_cache(controller->jobs), key);
    if (out->object == NULL)
        return NULL;
    trainjob_decode(&out->job, out->object);
    *memory = memory_of(controller->memory, key, out->job.uid);
    if (*memory == NULL)
        return NULL;
    (*memory)->phase = out->job.phase;
    gather_children(controller, out, *memory);
    out->dataset = dataset_get(controller->options.datasets, out->job.namespace, out->job.dataset);
    out->start_job = gather_start_job(controller, &out->job, *memory);
    out->start_chain = gather_start_chain(controller, &out->job, out->start_job);
    out->view = (struct trainjob_view){
        .job = &out->job,
        .dataset = out->dataset,
        .start_job = out->start_job,
        .start_chain = out->start_chain,
        .children = &out->children,
        .reports = job_memory_reports(*memory),
        .attempts = job_memory_attempts(*memory),
        .history = &(*memory)->history,
        .allowed_host_paths = controller->options.allowed_host_paths,
        .trainer_image = controller->options.trainer_image,
        .advertise_address = controller->options.advertise_address,
        .key = controller->options.key,
        .key_length = controller->options.key_length,
        .now = clock_wall_seconds(),
    };
    return move(out);
}

void observation_free(struct observation *observation)
{
    if (observation == NULL)
        return;
    cJSON_Delete(observation->object);
    cJSON_Delete(observation->dataset);
    cJSON_Delete(observation->start_job);
    cJSON_Delete(observation->start_chain);
    cJSON_Delete(observation->deployments);
    cJSON_Delete(observation->pods);
    cJSON_Delete(observation->services);
    cJSON_Delete(observation->policies);
    free(observation);
}

struct report_ack durable_ack(const struct job_memory *memory, const cJSON *status)
{
    uint32_t epoch = trainjob_durable_epoch(status);
    return (struct report_ack){.status = epoch, .history = memory->history.configured ? memory->history.synced : epoch};
}

/* ---- what coordinators say ---- */

static void refuse(const struct trainjob_controller *controller, const struct report_hello *hello, const char *sentence)
{
    if (controller->options.hooks.refuse != NULL)
        controller->options.hooks.refuse(controller->options.hooks.arg, hello->job_uid, hello->boot, sentence);
}

/* A process of a later life knows nothing of what the one before was doing. */
static int remember_hello(struct job_memory *memory, const struct report_hello *hello)
{
    struct trainjob_reports *reports = job_memory_listen(memory);
    if (reports == NULL)
        return -1;
    if (strcmp(reports->boot, hello->boot) != 0) {
        reports->has_progress = false;
        reports->has_finished = false;
        reports->counted = (struct report_sync){0};
    }
    reports->connected = true;
    reports->term = hello->term;
    snprintf(reports->pod, sizeof reports->pod, "%s", hello->pod);
    snprintf(reports->pod_uid, sizeof reports->pod_uid, "%s", hello->pod_uid);
    snprintf(reports->boot, sizeof reports->boot, "%s", hello->boot);
    snprintf(reports->kernel, sizeof reports->kernel, "%s", hello->kernel);
    memory->ack_is_due = true;
    memory->finished_is_acked = false;
    return 0;
}

/* Why this process may not report; NULL where it may. */
static const char *hello_refused(const struct observation *observed, const struct report_hello *hello)
{
    if (observed == NULL || strcmp(observed->job.uid, hello->job_uid) != 0)
        return "there is no TrainJob of this name and UID";
    if (observed->job.deleting)
        return "the TrainJob is being deleted";
    if (!observed->job.started)
        return "the TrainJob has not been started";
    const struct trainjob_pod *pod = trainjob_shard_pod(&observed->children, 0);
    if (pod == NULL || strcmp(pod->uid, hello->pod_uid) != 0)
        return "this is not the job's newest pod of shard 0 that the operator knows";
    return NULL;
}

void trainjob_hello(struct trainjob_controller *controller, const struct report_hello *hello)
{
    struct kube_key key;
    struct job_memory *memory = NULL;
    if (kube_key_make(&key, hello->job_namespace, hello->job_name) < 0)
        return;
    cleanup_observation struct observation *observed =
        controller->begun ? observe(controller, key.text, &memory) : NULL;
    const char *why = controller->begun ? hello_refused(observed, hello) : "the operator is starting";
    if (why == NULL && remember_hello(memory, hello) < 0)
        why = "the operator is out of memory: come back later";
    if (why != NULL) {
        refuse(controller, hello, why);
        return;
    }
    controller_enqueue(controller->runtime, key.text, QUEUE_HIGH);
    const char *boot = json_string(observed->job.status, "coordinator.boot", "");
    if (observed->job.phase == TRAINJOB_RUNNING && boot[0] != '\0' && strcmp(boot, hello->boot) != 0) {
        refuse(controller, hello, "the job was running in an earlier process of this parameter server, and is lost");
        return;
    }
    memory->acked = durable_ack(memory, observed->job.status);
    memory->ack_is_due = false; /* the welcome carries it */
    log_info(controller->options.log, "a coordinator reports", "job", key.text, "pod", hello->pod, "boot", hello->boot,
             NULL);
    if (controller->options.hooks.welcome != NULL)
        controller->options.hooks.welcome(controller->options.hooks.arg, hello->job_uid, hello->boot, memory->acked);
}

/* Is there anything in it that a person would not want to wait for? */
static bool is_news(const struct trainjob_reports *before, const struct report_progress *now)
{
    const struct report_progress *old = &before->progress;
    return !before->has_progress || old->epoch != now->epoch || old->workers != now->workers ||
           old->idle_workers != now->idle_workers || strcmp(old->message, now->message) != 0 ||
           (old->step == 0) != (now->step == 0);
}

void trainjob_report(struct trainjob_controller *controller, const char *job_uid, const char *boot,
                     const struct report_message *message)
{
    struct job_memory *memory = memory_find(controller->memory, job_uid);
    struct trainjob_reports *reports = memory == NULL ? NULL : memory->reports;
    if (reports == NULL || !reports->connected || strcmp(reports->boot, boot) != 0)
        return;
    bool wake_now = true;
    enum queue_priority priority = QUEUE_HIGH;
    switch (message->type) {
    case REPORT_PROGRESS:
        if (!is_news(reports, &message->progress)) { /* numbers go behind what happens to other jobs */
            priority = QUEUE_LOW;
            wake_now = budget_is_open(&memory->share, loop_now(controller->options.loop));
        }
        trainjob_add_sync(&controller->sync, &reports->counted, &message->progress.sync);
        reports->progress = message->progress;
        reports->has_progress = true;
        break;
    case REPORT_EPOCH:
        memory->ack_is_due = true; /* also where it is there already: the acknowledgement was lost */
        if (job_memory_add_epoch(memory, &message->epoch) < 0)
            log_error(controller->options.log, "an epoch cannot be kept", "job", memory->key, NULL);
        break;
    case REPORT_FINISHED:
        trainjob_add_sync(&controller->sync, &reports->counted, &message->finished.sync);
        reports->finished = message->finished;
        reports->has_finished = true;
        memory->finished_is_acked = false;
        break;
    default:
        return;
    }
    if (wake_now)
        controller_enqueue(controller->runtime, memory->key, priority);
}

/* ---- what the history says ---- */

void trainjob_history_synced(struct trainjob_controller *controller, const char *job_uid, uint32_t epoch, bool final)
{
    struct job_memory *memory = memory_find(controller->memory, job_uid);
    if (memory == NULL)
        return;
    if (epoch > memory->history.synced)
        memory->history.synced = epoch;
    memory->history.final = memory->history.final || final;
    memory->history.failure[0] = '\0';
    memory->ack_is_due = true;
    controller_enqueue(controller->runtime, memory->key, QUEUE_HIGH);
}

void trainjob_history_failed(struct trainjob_controller *controller, const char *job_uid, const char *sentence)
{
    struct job_memory *memory = memory_find(controller->memory, job_uid);
    if (memory == NULL)
        return;
    snprintf(memory->history.failure, sizeof memory->history.failure, "%s", sentence);
    controller_enqueue(controller->runtime, memory->key, QUEUE_HIGH);
}

/* ---- beginning and end ---- */

size_t trainjob_informers(const struct trainjob_controller *controller, const struct kube_informer **out, size_t most)
{
    const struct kube_informer *all[] = {controller->jobs, controller->deployments, controller->pods,
                                         controller->services, controller->policies};
    size_t count = 0;
    while (count < sizeof all / sizeof all[0] && count < most) {
        out[count] = all[count];
        count++;
    }
    return count;
}

const char *trainjob_waiting_for(const struct trainjob_controller *controller)
{
    const struct kube_informer *informers[INFORMERS];
    size_t count = trainjob_informers(controller, informers, INFORMERS);
    for (size_t i = 0; i < count; i++)
        if (!kube_informer_synced(informers[i]))
            return kube_informer_resource(informers[i])->plural;
    return dataset_synced(controller->options.datasets) ? NULL : "datasets";
}

static void begin_when_synced(void *arg)
{
    struct trainjob_controller *controller = arg;
    if (trainjob_waiting_for(controller) != NULL) {
        loop_timer_set(&controller->begin, 50 * MILLISECONDS);
        return;
    }
    controller->begun = true;
    controller_start(controller->runtime);
}

static int start_informer(struct trainjob_controller *controller, struct kube_informer **out,
                          const struct kube_resource *resource, const char *selector, const char *index_label,
                          struct error *err)
{
    bool is_job = resource == &trainjob_resource;
    struct kube_informer_options options = {
        .watch = {.resource = resource, .namespace = controller->options.namespace, .label_selector = selector},
        .project = is_job ? project_job : project_child,
        .index_label = index_label,
    };
    return kube_informer_start(out, controller->options.loop, controller->options.client, controller->options.log,
                               &options, is_job ? on_job : on_child, NULL, controller, err);
}

static void list_keys(void *arg, controller_visit *visit, void *visit_arg)
{
    const struct trainjob_controller *controller = arg;
    kube_cache_keys(kube_informer_cache(controller->jobs), visit, visit_arg);
}

int trainjob_start(struct trainjob_controller **out, const struct trainjob_options *options, struct error *err)
{
    static const char ours[] = "app.kubernetes.io/managed-by=thole-operator";
    cleanup_trainjob_controller struct trainjob_controller *controller = calloc(1, sizeof *controller);
    if (controller == NULL)
        return error_set(err, "out of memory");
    controller->options = *options;
    budget_init(&controller->budget, loop_now(options->loop));
    loop_timer_init(&controller->begin, options->loop, begin_when_synced, controller);
    controller->memory = memory_new(options->hooks.history_put != NULL, err);
    if (controller->memory == NULL)
        return -1;
    const struct controller_options runtime = {
        .name = "trainjob",
        .noun = "job",
        .reconcile = reconcile_trainjob,
        .arg = controller,
        .log = options->log,
        .list = list_keys,
        .resync = options->resync,
    };
    controller->runtime = controller_new(options->loop, &runtime, err);
    if (controller->runtime == NULL)
        return -1;
    if (start_informer(controller, &controller->jobs, &trainjob_resource, NULL, NULL, err) < 0 ||
        start_informer(controller, &controller->deployments, &deployment_resource, ours, NULL, err) < 0 ||
        start_informer(controller, &controller->services, &service_resource, ours, NULL, err) < 0 ||
        start_informer(controller, &controller->policies, &policy_resource, ours, NULL, err) < 0 ||
        start_informer(controller, &controller->pods, &pod_resource, TRAINJOB_LABEL_UID, TRAINJOB_LABEL_UID, err) < 0)
        return -1;
    dataset_on_change(options->datasets, on_dataset, controller);
    *out = move(controller);
    return 0;
}

void trainjob_begin(struct trainjob_controller *controller)
{
    loop_timer_set(&controller->begin, 0);
}

void trainjob_stop(struct trainjob_controller *controller)
{
    if (controller == NULL)
        return;
    loop_timer_cancel(&controller->begin);
    dataset_on_change(controller->options.datasets, NULL, NULL);
    kube_informer_stop(controller->jobs);
    kube_informer_stop(controller->deployments);
    kube_informer_stop(controller->pods);
    kube_informer_stop(controller->services);
    kube_informer_stop(controller->policies);
    controller_free(controller->runtime);
    memory_free(controller->memory);
    free(controller);
}

void trainjob_count(const struct trainjob_controller *controller, uint64_t out[TRAINJOB_PHASES])
{
    memory_count(controller->memory, out);
}

const struct report_sync *trainjob_sync(const struct trainjob_controller *controller)
{
    return &controller->sync;
}

struct controller *trainjob_runtime(const struct trainjob_controller *controller)
{
    return controller->runtime;
}
