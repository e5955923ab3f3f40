/* One look at one job: observe, carry the plan out, write the status, tell who waits for it. */

#include "trainjob/look.h"

#include "common/clock.h"
#include "trainjob/plan.h"
#include "trainjob/status.h"
#include "trainjob/turns.h"

#include <inttypes.h>
#include <string.h>

enum {
    CONFLICT_SECONDS = 10, /* between attempts to make a child whose name is taken */
};

static void look_free(struct look *look)
{
    intents_free(&look->intents);
    cJSON_Delete(look->before);
    cJSON_Delete(look->now);
    free(look);
}

void look_again(struct look *look, int64_t after)
{
    if (look->after == 0 || after < look->after)
        look->after = after;
}

static void fail(struct look *look, const struct error *err)
{
    if (!look->failed)
        look->failure = *err;
    look->failed = true;
}

struct job_memory *look_memory(const struct look *look)
{
    return memory_find(look->controller->memory, look->uid);
}

void look_end(struct look *look)
{
    struct reconcile *run = look->run;
    bool failed = look->failed;
    struct error failure = look->failure;
    int64_t after = look->after;
    look_free(look);
    if (failed)
        reconcile_failed(run, &failure);
    else
        reconcile_done_after(run, after);
}

bool look_was_cancelled(struct look *look, const struct kube_response *response)
{
    if (!response->cancelled)
        return false;
    if (--look->outstanding == 0)
        look_free(look);
    return true;
}

static void write_status(struct look *look);
static void settle(struct look *look, struct observation *observed, struct job_memory *memory);

/* ---- carrying out ---- */

struct step {
    struct look *look;
    size_t index; /* of the intent */
};

static void on_step_done(struct look *look)
{
    if (--look->outstanding > 0)
        return;
    struct job_memory *memory = look_memory(look);
    if (memory != NULL) {
        look->attempts.secret_made = look->attempts.secret_made || memory->secret_made;
        job_memory_attempted(memory, &look->attempts);
        memory->secret_lost = memory->secret_lost && !memory->secret_made;
    }
    write_status(look);
}

/* Only the first sentence is shown, unless a graver one comes. */
static void note(struct look *look, bool is_conflict, bool is_refused, const char *sentence)
{
    struct trainjob_attempts *attempts = &look->attempts;
    bool graver = (is_refused && !attempts->is_refused) || (is_conflict && !attempts->is_conflict);
    if (attempts->sentence[0] == '\0' || graver)
        snprintf(attempts->sentence, sizeof attempts->sentence, "%s", sentence);
    attempts->is_conflict = attempts->is_conflict || is_conflict;
    attempts->is_refused = attempts->is_refused || is_refused;
}

static void note_conflict(struct look *look, const struct intent *intent)
{
    char sentence[600];
    snprintf(sentence, sizeof sentence,
             "%s '%s' in namespace '%s' exists and is not this job's; delete it, or make the job under another name",
             intent->resource->kind, intent->name, look->namespace);
    note(look, true, false, sentence);
    look_again(look, CONFLICT_SECONDS * SECONDS);
}

/* An object whose TrainJob is gone, or that is going itself, will make room by itself. */
static bool will_make_room(const struct look *look, const cJSON *object)
{
    if (json_at(object, "metadata.deletionTimestamp") != NULL)
        return true;
    const cJSON *owner = NULL;
    cJSON_ArrayForEach(owner, json_at(object, "metadata.ownerReferences"))
    {
        if (!json_bool(owner, "controller", false) || strcmp(json_string(owner, "kind", ""), "TrainJob") != 0)
            continue;
        struct kube_key key;
        if (kube_key_make(&key, look->namespace, json_string(owner, "name", "")) < 0)
            return false;
        cleanup_json cJSON *job = kube_cache_get(kube_informer_cache(look->controller->jobs), key.text);
        return job == NULL || strcmp(json_string(job, "metadata.uid", ""), json_string(owner, "uid", "")) != 0;
    }
    return false;
}

/* The object that stands where ours should be. */
static void on_occupant(void *arg, struct kube_response *response)
{
    cleanup_free struct step *step = arg;
    struct look *look = step->look;
    if (look_was_cancelled(look, response))
        return;
    const struct intent *intent = &look->intents.items[step->index];
    const char *owner = response->error == NULL ? kube_controller_uid(response->object) : NULL;
    if (response->error != NULL) {
        if (response->status != 404)
            fail(look, response->error);
        look_again(look, 1);
    } else if (owner != NULL && strcmp(owner, look->uid) == 0) {
        kube_informer_wrote(informer_of(look->controller, intent->resource), response->object);
    } else if (will_make_room(look, response->object)) {
        char sentence[500];
        snprintf(sentence, sizeof sentence, "%s '%s' of an earlier job is still going away", intent->resource->kind,
                 intent->name);
        note(look, false, false, sentence);
        look_again(look, 1 * SECONDS);
    } else {
        note_conflict(look, intent);
    }
    on_step_done(look);
}

/* The name is taken. Secrets are never read: one that this job cannot have made is somebody else's. */
static bool on_name_taken(struct look *look, struct step *step, const struct intent *intent)
{
    struct job_memory *memory = look_memory(look);
    if (intent->resource == &secret_resource) {
        if (memory != NULL && memory->frozen_here && !memory->secret_uncertain) {
            note_conflict(look, intent);
            return false;
        }
        look->attempts.secret_made = true;
        look_again(look, 1); /* nothing else would wake the job: Secrets are not watched */
        return false;
    }
    struct error err = {0};
    struct step *next = malloc(sizeof *next);
    if (next == NULL)
        return false;
    *next = *step;
    if (kube_get(look->controller->options.client, intent->resource, look->namespace, intent->name, on_occupant, next,
                 &err) == 0)
        return true;
    free(next);
    fail(look, &err);
    return false;
}

/* Did the write end the object? A delete then answers with a Status or, of some kinds, with the object as it was; one
 * that stays for a while answers with the time of its deletion. Taking a deleted object's last finalizer away answers
 * with the object. */
static bool is_gone(const struct intent *intent, const cJSON *answer)
{
    bool deleting = json_at(answer, "metadata.deletionTimestamp") != NULL;
    if (intent->type == INTENT_DELETE)
        return !deleting;
    const cJSON *finalizers = json_at(answer, "metadata.finalizers");
    return intent->type == INTENT_FINALIZERS && deleting && cJSON_GetArraySize(finalizers) == 0;
}

/* The object `intent` was about does not exist any longer. */
static void note_gone(const struct look *look, const struct intent *intent)
{
    struct kube_informer *informer = informer_of(look->controller, intent->resource);
    struct kube_key key;
    if (informer != NULL && kube_key_make(&key, look->namespace, intent->name) == 0)
        kube_informer_removed(informer, key.text, intent->uid);
}

static void tell(const struct look *look, const cJSON *job, enum reason reason, const char *sentence)
{
    enum kube_event_type type = reason_is_warning(reason) ? KUBE_EVENT_WARNING : KUBE_EVENT_NORMAL;
    kube_event(look->controller->options.events, job, type, reason_name(reason), "Reconcile", sentence);
}

static void on_success(struct look *look, const struct intent *intent, const struct kube_response *response)
{
    struct trainjob_controller *controller = look->controller;
    struct kube_informer *informer = informer_of(controller, intent->resource);
    struct job_memory *memory = look_memory(look);
    if (informer == NULL)
        look->attempts.secret_made = true;
    else if (is_gone(intent, response->object))
        note_gone(look, intent);
    else
        kube_informer_wrote(informer, response->object);
    if (intent->type == INTENT_FREEZE && memory != NULL)
        memory->frozen_here = true;
    if (intent->event != REASON_NONE) /* the answer is the job itself */
        tell(look, response->object, intent->event, intent->event_note);
    log_debug(reconcile_log(look->run), "done", "what", intent_name(intent->type), "kind", intent->resource->kind,
              "name", intent->name, NULL);
    look_again(look, 1); /* what comes next need not wait for the watch */
}

static void on_answer(void *arg, struct kube_response *response)
{
    cleanup_free struct step *step = arg;
    struct look *look = step->look;
    if (look_was_cancelled(look, response))
        return;
    const struct intent *intent = &look->intents.items[step->index];
    bool changes = intent->type != INTENT_CREATE;
    if (response->error == NULL) {
        on_success(look, intent, response);
    } else if (intent->type == INTENT_DELETE && response->status == 404) {
        note_gone(look, intent);
        look_again(look, 1);
    } else if (changes && (response->conflict || response->status == 404)) {
        look_again(look, 1 * SECONDS); /* it is not what we saw; the watch will show what it is */
    } else if (!changes && kube_namespace_ends(response)) {
        log_debug(reconcile_log(look->run), "the namespace is being deleted: nothing is made in it any more", "kind",
                  intent->resource->kind, "name", intent->name, NULL);
        look_again(look, CONFLICT_SECONDS * SECONDS); /* soon the job is gone too */
    } else if (!changes && response->status == 409 && strcmp(response->reason, "AlreadyExists") == 0) {
        if (on_name_taken(look, step, intent))
            return; /* goes on in on_occupant */
    } else if (!changes && response->status == 422) {
        note(look, false, true, error_message(response->error));
    } else {
        struct job_memory *memory = look_memory(look);
        if (response->status == 0 && intent->resource == &secret_resource && memory != NULL)
            memory->secret_uncertain = true;
        note(look, false, false, error_message(response->error));
        fail(look, response->error);
    }
    on_step_done(look);
}

/* A child as it was when the plan was made. */
static cJSON *child_of(const struct look *look, const struct intent *intent)
{
    const struct kube_informer *informer = informer_of(look->controller, intent->resource);
    struct kube_key key;
    if (informer == NULL || kube_key_make(&key, look->namespace, intent->name) < 0)
        return NULL;
    return kube_cache_get(kube_informer_cache(informer), key.text);
}

/* A write that arrives late, when a pod has recovered or another operator acts, must not undo what was done since: each
 * names the version that it is about. */
static int send(const struct look *look, const struct intent *intent, struct step *step, struct error *err)
{
    struct kube_client *client = look->controller->options.client;
    bool changes_child = intent->type == INTENT_DELETE || intent->type == INTENT_SCALE;
    cleanup_json cJSON *child = changes_child ? child_of(look, intent) : NULL;
    struct kube_precondition precondition = {
        .uid = intent->uid,
        .resource_version =
            changes_child ? json_string(child, "metadata.resourceVersion", NULL) : look->resource_version,
    };
    switch (intent->type) {
    case INTENT_CREATE:
        return kube_create(client, intent->resource, intent->body, on_answer, step, err);
    case INTENT_DELETE:
        return kube_delete(client, intent->resource, look->namespace, intent->name, precondition, "Background",
                           on_answer, step, err);
    case INTENT_SCALE:
        return kube_merge_patch(client, intent->resource, look->namespace, intent->name, NULL, intent->body,
                                precondition, on_answer, step, err);
    case INTENT_FREEZE:
    case INTENT_FINALIZERS:
        return kube_merge_patch(client, intent->resource, look->namespace, intent->name,
                                intent->type == INTENT_FREEZE ? "status" : NULL, intent->body, precondition, on_answer,
                                step, err);
    }
    return -1;
}

/* The look lives on until all requests are answered; one that cannot even be sent has failed. */
static void carry_out(struct look *look)
{
    look->outstanding = 1;
    for (size_t i = 0; i < look->intents.count; i++) {
        struct error err = {0};
        struct step *step = malloc(sizeof *step);
        if (step == NULL) {
            error_set(&err, "out of memory");
            fail(look, &err);
            break;
        }
        *step = (struct step){look, i};
        look->outstanding++;
        if (send(look, &look->intents.items[i], step, &err) < 0) {
            look->outstanding--;
            free(step);
            note(look, false, false, error_message(&err));
            fail(look, &err);
        }
    }
    on_step_done(look);
}

/* ---- status ---- */

static void on_status_written(void *arg, struct kube_response *response)
{
    struct look *look = arg;
    if (look_was_cancelled(look, response))
        return;
    look->outstanding--;
    struct job_memory *memory = look_memory(look);
    if (response->error != NULL) {
        if (response->conflict || response->status == 404)
            look_again(look, 1 * SECONDS);
        else
            fail(look, response->error);
        look_end(look);
        return;
    }
    kube_informer_wrote(look->controller->jobs, response->object);
    if (memory != NULL)
        budget_written(&memory->share, loop_now(look->controller->options.loop));
    struct turn turns[TURNS_MOST];
    size_t count = trainjob_turns(look->before, look->now, turns);
    for (size_t i = 0; i < count; i++)
        tell(look, response->object, turns[i].reason, turns[i].note);
    struct job_memory *found = NULL;
    cleanup_observation struct observation *observed = observe(look->controller, look->key, &found);
    if (observed == NULL || strcmp(observed->job.uid, look->uid) != 0) {
        look_end(look);
        return;
    }
    settle(look, observed, found);
}

static bool is_due(struct look *look, enum status_change change, struct job_memory *memory)
{
    struct trainjob_controller *controller = look->controller;
    int64_t wait = budget_wait(&controller->budget, &memory->share, change, loop_now(controller->options.loop));
    if (wait > 0 && wait != INT64_MAX)
        look_again(look, wait);
    return wait == 0;
}

static void write_status(struct look *look)
{
    struct job_memory *memory = NULL;
    cleanup_observation struct observation *observed = observe(look->controller, look->key, &memory);
    if (observed == NULL || strcmp(observed->job.uid, look->uid) != 0) {
        look_end(look);
        return;
    }
    look->before = cJSON_Duplicate(observed->job.status, true);
    look->now = trainjob_status(&observed->view);
    struct error err = {0};
    if (look->now == NULL) {
        error_set(&err, "out of memory for a status");
        fail(look, &err);
        look_end(look);
        return;
    }
    if (!is_due(look, trainjob_status_change(look->before, look->now), memory)) {
        settle(look, observed, memory);
        return;
    }
    cleanup_json cJSON *patch = trainjob_status_patch(look->before, look->now);
    struct kube_precondition precondition = {.uid = observed->job.uid,
                                             .resource_version = observed->job.resource_version};
    look->outstanding = 1;
    if (kube_merge_patch(look->controller->options.client, &trainjob_resource, look->namespace, observed->job.name,
                         "status", patch, precondition, on_status_written, look, &err) < 0) {
        fail(look, &err);
        look_end(look);
    }
}

/* ---- telling those who wait ---- */

static void acknowledge(const struct look *look, const struct observation *observed, struct job_memory *memory)
{
    const struct trainjob_hooks *hooks = &look->controller->options.hooks;
    const struct trainjob_reports *reports = job_memory_reports(memory);
    if (!reports->connected)
        return;
    struct report_ack ack = durable_ack(memory, observed->job.status);
    bool is_new = ack.status != memory->acked.status || ack.history != memory->acked.history;
    if ((is_new || memory->ack_is_due) && hooks->ack != NULL)
        hooks->ack(hooks->arg, memory->uid, reports->boot, ack);
    memory->acked = ack;
    memory->ack_is_due = false;
    if (!trainjob_is_over(&observed->job) || !reports->has_finished || memory->finished_is_acked)
        return;
    memory->finished_is_acked = true;
    if (hooks->ack_finished != NULL)
        hooks->ack_finished(hooks->arg, memory->uid, reports->boot);
}

/* All epochs that MongoDB may lack: those of the status, and those that are newer or of a higher term. */
static struct report_epoch *owed_epochs(const struct observation *observed, const struct job_memory *memory,
                                        size_t *count)
{
    struct report_epoch *epochs = calloc(TRAINJOB_HISTORY_MOST + memory->epoch_count + 1, sizeof *epochs);
    if (epochs == NULL)
        return NULL;
    size_t written = trainjob_read_epochs(observed->job.status, epochs, TRAINJOB_HISTORY_MOST);
    *count = written;
    for (size_t i = 0; i < memory->epoch_count; i++) {
        const struct report_epoch *epoch = &memory->epochs[i];
        size_t at = 0;
        while (at < written && epochs[at].epoch != epoch->epoch)
            at++;
        if (at == written)
            epochs[(*count)++] = *epoch;
        else if (epochs[at].term < epoch->term)
            epochs[at] = *epoch;
    }
    return epochs;
}

static void hand_history_on(const struct look *look, const struct observation *observed, struct job_memory *memory)
{
    const struct trainjob_hooks *hooks = &look->controller->options.hooks;
    const struct trainjob *job = &observed->job;
    if (hooks->history_put == NULL || !job->started)
        return;
    bool over = trainjob_is_over(job);
    bool final = over || job->deleting;
    const char *synced =
        json_string(json_find(json_at(job->status, "conditions"), "type", "HistorySynced"), "reason", "");
    if (over && strcmp(synced, "Complete") == 0 && !memory->history.final) {
        memory->history.final = true; /* an operator before us saw to it */
        memory->put_final = true;
        if (job->deleting)
            controller_enqueue(look->controller->runtime, look->key, QUEUE_HIGH);
        return;
    }
    size_t count = 0;
    cleanup_free struct report_epoch *epochs = owed_epochs(observed, memory, &count);
    if (epochs == NULL)
        return;
    uint32_t epoch = 0;
    uint32_t term = 0;
    for (size_t i = 0; i < count; i++) {
        epoch = epochs[i].epoch > epoch ? epochs[i].epoch : epoch;
        term = epochs[i].term > term ? epochs[i].term : term;
    }
    if (epoch <= memory->put_epoch && term <= memory->put_term && (!final || memory->put_final))
        return;
    memory->put_epoch = epoch;
    memory->put_term = term;
    memory->put_final = final;
    hooks->history_put(hooks->arg, observed->object, epochs, count, final);
}

static void forget_told_epochs(const struct observation *observed, struct job_memory *memory)
{
    uint32_t epoch = trainjob_durable_epoch(observed->job.status);
    if (memory->history.configured && memory->history.synced < epoch)
        epoch = memory->history.synced;
    const cJSON *history = json_at(observed->job.status, "history");
    const cJSON *item = NULL;
    uint32_t term = UINT32_MAX; /* the lowest of the status' */
    cJSON_ArrayForEach(item, history)
    {
        uint32_t one = (uint32_t)json_int(item, "term", 0);
        term = one < term ? one : term;
    }
    job_memory_drop_epochs(memory, epoch, term);
}

/* ---- the whole ---- */

/* Nobody will ask for what was kept of this job; should it change after all, it is looked at anew. */
static bool is_settled(const struct observation *observed, const struct job_memory *memory)
{
    const struct trainjob *job = &observed->job;
    const char *history =
        json_string(json_find(json_at(job->status, "conditions"), "type", "HistorySynced"), "reason", "");
    bool is_recorded =
        memory->history.configured ? strcmp(history, "Complete") == 0 : memory->history.failure[0] == '\0';
    return trainjob_is_over(job) && !job->deleting && is_recorded &&
           (!job_memory_reports(memory)->connected || memory->finished_is_acked);
}

/* The last part: the status is as it should be. */
static void settle(struct look *look, struct observation *observed, struct job_memory *memory)
{
    acknowledge(look, observed, memory);
    hand_history_on(look, observed, memory);
    forget_told_epochs(observed, memory);
    look->outstanding = 1;
    if (!trainjob_is_over(&observed->job) && !observed->job.deleting)
        look_at_stuck_pods(look, observed, memory);
    if (look->after == 0 && !look->failed && is_settled(observed, memory))
        memory_settle(look->controller->memory, look->key);
    if (--look->outstanding == 0)
        look_end(look);
}

void reconcile_trainjob(void *arg, struct reconcile *run, const char *key)
{
    struct trainjob_controller *controller = arg;
    struct job_memory *memory = NULL;
    cleanup_observation struct observation *observed = observe(controller, key, &memory);
    struct look *look = observed == NULL ? NULL : calloc(1, sizeof *look);
    if (look == NULL) {
        reconcile_done(run);
        return;
    }
    look->controller = controller;
    look->run = run;
    snprintf(look->key, sizeof look->key, "%s", key);
    snprintf(look->namespace, sizeof look->namespace, "%s", observed->job.namespace);
    snprintf(look->uid, sizeof look->uid, "%s", observed->job.uid);
    snprintf(look->resource_version, sizeof look->resource_version, "%s", observed->job.resource_version);
    /* Deployments are made after the Secret: where one is, so is the Secret. */
    if (observed->children.deployment_count > 0 && !memory->secret_lost && !memory->secret_made) {
        job_memory_set_secret_made(memory, true);
        observed->view.attempts = job_memory_attempts(memory);
    }
    trainjob_plan(&observed->view, &look->intents);
    if (look->intents.after > 0)
        look_again(look, look->intents.after * SECONDS);
    carry_out(look);
}
