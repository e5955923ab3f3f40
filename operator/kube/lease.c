#include "kube/lease.h"
#include "common/crypto.h"
#include "kube/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct kube_resource lease_resource = {"coordination.k8s.io", "v1", "leases", "Lease", true};

struct kube_lease {
    struct loop *loop;
    struct kube_client *client;
    const struct log *log;
    char namespace[KUBE_NAMESPACE_SIZE], name[KUBE_NAME_SIZE], selector[KUBE_NAME_SIZE + 16];
    struct kube_lease_hooks hooks;
    struct election election;
    bool ended; /* lost, or released */

    struct kube_watch *watch;
    bool listed_it; /* in the list that is under way */

    struct loop_timer timer;
    struct kube_call *call; /* at most one at a time */
    enum election_step step;
    struct instant sent;
};

static void go_on(struct kube_lease *lease);

static void report_holder(const struct kube_lease *lease, const char *before)
{
    const char *holder = lease->election.record.holder;
    if (strcmp(before, holder) == 0 || strcmp(holder, lease->election.identity) == 0)
        return;
    if (holder[0] == '\0')
        log_info(lease->log, "nobody leads", "lease", lease->name, NULL);
    else
        log_info(lease->log, "another operator leads", "lease", lease->name, "leader", holder, NULL);
}

static void observe(struct kube_lease *lease, const cJSON *object, bool asked)
{
    char before[ELECTION_IDENTITY_SIZE];
    snprintf(before, sizeof before, "%s", lease->election.record.holder);
    election_observe(&lease->election, object, asked, clock_now());
    report_holder(lease, before);
}

/* ---- the end ---- */

static void end(struct kube_lease *lease)
{
    lease->ended = true;
    lease->election.leading = false;
    loop_timer_cancel(&lease->timer);
    if (lease->call != NULL)
        kube_call_cancel(lease->call);
    lease->call = NULL;
}

static void lose(struct kube_lease *lease)
{
    char sentence[ELECTION_IDENTITY_SIZE + KUBE_NAME_SIZE + 64];
    bool by_another = clock_now().nanoseconds < lease->election.ours_until.nanoseconds;
    if (by_another)
        snprintf(sentence, sizeof sentence, "'%s' has taken the Lease '%s'", lease->election.record.holder,
                 lease->name);
    else
        snprintf(sentence, sizeof sentence, "the Lease '%s' could not be renewed for %lld seconds", lease->name,
                 (long long)(lease->election.timing.renew / SECONDS));
    end(lease);
    if (lease->hooks.lost != NULL)
        lease->hooks.lost(lease->hooks.arg, sentence);
}

static void finish_release(struct kube_lease *lease)
{
    end(lease);
    if (lease->hooks.released != NULL)
        lease->hooks.released(lease->hooks.arg);
}

bool kube_lease_held(struct kube_lease *lease)
{
    if (lease->ended || !lease->election.leading || lease->election.releasing)
        return false;
    if (clock_now().nanoseconds < lease->election.ours_until.nanoseconds)
        return true;
    lose(lease);
    return false;
}

/* ---- requests ---- */

static void on_granted(struct kube_lease *lease, const cJSON *object)
{
    bool led = lease->election.leading;
    election_granted(&lease->election, object, lease->sent, clock_now());
    if (led || !lease->election.leading)
        return;
    log_info(lease->log, "this operator leads", "lease", lease->name, "identity", lease->election.identity, NULL);
    if (lease->hooks.leading != NULL)
        lease->hooks.leading(lease->hooks.arg);
}

static void on_refused(struct kube_lease *lease, const struct kube_response *response)
{
    bool is_look = lease->step == ELECTION_LOOK;
    if (is_look && response->status == 404) {
        observe(lease, NULL, true);
        return;
    }
    bool taken = response->conflict || response->status == 409 || response->status == 404;
    if (!is_look && taken) {
        election_contested(&lease->election);
        return;
    }
    log_warn(lease->log, "the Lease cannot be asked for or written, and is tried again", "error",
             error_message(response->error), NULL);
    election_failed(&lease->election, clock_now());
}

static void watch(struct kube_lease *lease);

static void on_answer(void *arg, struct kube_response *response)
{
    struct kube_lease *lease = arg;
    lease->call = NULL;
    if (response->cancelled)
        return;
    if (response->error != NULL)
        on_refused(lease, response);
    else if (lease->step == ELECTION_LOOK)
        observe(lease, response->object, true);
    else if (lease->step == ELECTION_RELEASE)
        finish_release(lease);
    else
        on_granted(lease, response->object);
    if (response->status != 0 && !lease->ended)
        watch(lease);
    go_on(lease);
}

/* The object to create, or the patch for the version that was seen. What others wrote into the Lease stays. */
static cJSON *body_of(const struct kube_lease *lease)
{
    const struct election_record *record = &lease->election.record;
    bool is_new = lease->step == ELECTION_CREATE;
    cleanup_json cJSON *body = cJSON_CreateObject();
    cJSON *spec = lease->step == ELECTION_RELEASE ? election_free(&lease->election) : election_claim(&lease->election);
    if (body == NULL || spec == NULL || json_put(body, "spec", spec, NULL) < 0)
        return NULL;
    const char *const members[][2] = {
        {"apiVersion", "coordination.k8s.io/v1"},
        {"kind", "Lease"},
        {is_new ? "metadata.name" : "metadata.uid", is_new ? lease->name : record->uid},
        {is_new ? "metadata.namespace" : "metadata.resourceVersion", is_new ? lease->namespace : record->version},
    };
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        if (json_put(body, members[i][0], cJSON_CreateString(members[i][1]), NULL) < 0)
            return NULL;
    return move(body);
}

static void send(struct kube_lease *lease, enum election_step step)
{
    struct error err = {0};
    lease->step = step;
    lease->sent = clock_now();
    struct kube_request request = {
        .resource = &lease_resource,
        .namespace = lease->namespace,
        .name = lease->name,
        .lane = KUBE_LANE_LEASE,
        /* So that one half-open connection does not cost the lead. */
        .timeout = lease->election.timing.renew / 2,
    };
    cleanup_free char *text = NULL;
    if (step != ELECTION_LOOK) {
        cleanup_json cJSON *body = body_of(lease);
        text = body == NULL ? NULL : json_print(body);
        if (text == NULL) {
            election_failed(&lease->election, lease->sent);
            return;
        }
        request.method = step == ELECTION_CREATE ? KUBE_POST : KUBE_PATCH;
        request.content_type = step == ELECTION_CREATE ? NULL : "application/merge-patch+json";
        request.query = "fieldManager=thole-operator";
        request.body = text;
        request.body_length = strlen(text);
    }
    if (kube_request(lease->client, &request, on_answer, lease, &lease->call, &err) == 0)
        return;
    log_warn(lease->log, "the Lease cannot be asked for", "error", error_message(&err), NULL);
    election_failed(&lease->election, lease->sent);
}

/* ---- in time ---- */

/* So that those who wait for the same moment do not all ask at once. */
static struct instant a_little_later(const struct kube_lease *lease, struct instant when)
{
    uint64_t most = (uint64_t)lease->election.timing.retry / 5;
    if (lease->election.leading || when.nanoseconds == INT64_MAX)
        return when;
    return (struct instant){when.nanoseconds + (int64_t)(random_u64() % (most + 1))};
}

/* An answer is waited for, but not for longer than the request was given, and not beyond the end of our time. */
static struct instant patience(const struct kube_lease *lease)
{
    const struct election *election = &lease->election;
    int64_t until = lease->sent.nanoseconds + election->timing.renew / 2 + election->timing.retry / 4;
    if (election->leading && !election->releasing && election->ours_until.nanoseconds < until)
        until = election->ours_until.nanoseconds;
    return (struct instant){until};
}

static void go_on(struct kube_lease *lease)
{
    while (!lease->ended) {
        struct instant now = clock_now();
        struct instant at;
        enum election_step step = election_next(&lease->election, now, &at);
        if (step == ELECTION_LOST) {
            lose(lease);
            return;
        }
        if (lease->call != NULL) {
            if (now.nanoseconds < patience(lease).nanoseconds) {
                loop_timer_set_at(&lease->timer, patience(lease));
                return;
            }
            kube_call_cancel(lease->call);
            lease->call = NULL;
            election_failed(&lease->election, now);
            continue;
        }
        if (step == ELECTION_WAIT) {
            if (at.nanoseconds != INT64_MAX)
                loop_timer_set_at(&lease->timer, a_little_later(lease, at));
            return;
        }
        if (step == ELECTION_OVER) {
            finish_release(lease);
            return;
        }
        send(lease, step);
    }
}

static void on_timer(void *arg)
{
    go_on(arg);
}

static void on_event(void *arg, enum kube_watch_event_type type, cJSON *object)
{
    struct kube_lease *lease = arg;
    switch (type) {
    case KUBE_WATCH_LISTING:
        lease->listed_it = false;
        return;
    case KUBE_WATCH_APPLIED:
        lease->listed_it = true;
        observe(lease, object, false);
        break;
    case KUBE_WATCH_DELETED:
        observe(lease, NULL, false);
        break;
    case KUBE_WATCH_LISTED:
        if (!lease->listed_it)
            observe(lease, NULL, false);
        break;
    }
    go_on(lease);
}

/* Without it, all goes on, only slower: a Lease that was given back is noticed when its time is over. */
static void watch(struct kube_lease *lease)
{
    struct error err = {0};
    const struct kube_watch_options options = {
        .resource = &lease_resource, .namespace = lease->namespace, .field_selector = lease->selector};
    if (lease->watch == NULL &&
        kube_watch_start(&lease->watch, lease->loop, lease->client, lease->log, &options, on_event, lease, &err) < 0)
        log_warn(lease->log, "the Lease cannot be watched", "error", error_message(&err), NULL);
}

/* ---- beginning and end ---- */

int kube_lease_start(struct kube_lease **out, struct loop *loop, struct kube_client *client, const struct log *log,
                     const struct kube_lease_options *options, struct error *err)
{
    cleanup_kube_lease struct kube_lease *lease = calloc(1, sizeof *lease);
    if (lease == NULL)
        return error_set(err, "out of memory for the Lease");
    lease->loop = loop;
    lease->client = client;
    lease->log = log;
    lease->hooks = options->hooks;
    snprintf(lease->namespace, sizeof lease->namespace, "%s", options->namespace);
    snprintf(lease->name, sizeof lease->name, "%s", options->name);
    snprintf(lease->selector, sizeof lease->selector, "metadata.name=%s", options->name);
    election_init(&lease->election, &options->timing, options->identity);
    loop_timer_init(&lease->timer, loop, on_timer, lease);
    loop_timer_set(&lease->timer, 0);
    *out = move(lease);
    return 0;
}

void kube_lease_stop(struct kube_lease *lease)
{
    if (lease == NULL)
        return;
    end(lease);
    kube_watch_stop(lease->watch);
    free(lease);
}

void kube_lease_stand(struct kube_lease *lease)
{
    lease->election.candidate = true;
    if (!lease->ended)
        loop_timer_set(&lease->timer, 0);
}

void kube_lease_release(struct kube_lease *lease)
{
    election_release(&lease->election);
    if (!lease->ended)
        loop_timer_set(&lease->timer, 0);
}

const char *kube_lease_holder(const struct kube_lease *lease)
{
    return lease->election.record.holder;
}
