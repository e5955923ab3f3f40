#include "kube/election.h"

#include <stdio.h>
#include <string.h>

static const int64_t longest_lease = 3600 * SECONDS; /* more is not believed: nobody would ever lead */

static const struct instant never = {INT64_MAX};

void election_init(struct election *election, const struct election_timing *timing, const char *identity)
{
    *election = (struct election){.timing = *timing};
    snprintf(election->identity, sizeof election->identity, "%s", identity);
}

static bool is_ours(const struct election *election)
{
    return strcmp(election->record.holder, election->identity) == 0;
}

/* When the Lease, as it was last seen, can be had. */
static struct instant free_from(const struct election *election)
{
    const struct election_record *record = &election->record;
    if (record->holder[0] == '\0' || is_ours(election))
        return (struct instant){0};
    int64_t length = record->seconds > 0 ? record->seconds * SECONDS : election->timing.lease;
    return (struct instant){election->changed.nanoseconds + (length < longest_lease ? length : longest_lease)};
}

static enum election_step wait_until(struct instant when, struct instant *at)
{
    *at = when;
    return ELECTION_WAIT;
}

static enum election_step next_of_leader(const struct election *election, struct instant now, struct instant *at)
{
    bool is_anothers = election->seen && election->exists && !is_ours(election);
    if (now.nanoseconds >= election->ours_until.nanoseconds || is_anothers)
        return ELECTION_LOST;
    if (now.nanoseconds < election->not_before.nanoseconds) {
        bool sooner = election->not_before.nanoseconds < election->ours_until.nanoseconds;
        return wait_until(sooner ? election->not_before : election->ours_until, at);
    }
    if (!election->seen)
        return ELECTION_LOOK;
    return election->exists ? ELECTION_TAKE : ELECTION_CREATE;
}

static enum election_step next_of_releaser(const struct election *election, struct instant now, struct instant *at)
{
    if (!election->leading)
        return ELECTION_OVER;
    if (now.nanoseconds < election->not_before.nanoseconds)
        return wait_until(election->not_before, at);
    if (!election->seen)
        return ELECTION_LOOK;
    return election->exists && is_ours(election) ? ELECTION_RELEASE : ELECTION_OVER;
}

enum election_step election_next(const struct election *election, struct instant now, struct instant *at)
{
    *at = never;
    if (election->releasing)
        return next_of_releaser(election, now, at);
    if (election->leading)
        return next_of_leader(election, now, at);
    if (now.nanoseconds < election->not_before.nanoseconds)
        return wait_until(election->not_before, at);
    if (!election->seen)
        return ELECTION_LOOK;
    if (!election->candidate)
        return wait_until(never, at);
    struct instant from = free_from(election);
    if (now.nanoseconds < from.nanoseconds)
        return wait_until(from, at);
    /* A watch may have been silent though the holder renewed. */
    if (election->looked.nanoseconds < from.nanoseconds)
        return ELECTION_LOOK;
    return election->exists ? ELECTION_TAKE : ELECTION_CREATE;
}

static void read_record(struct election_record *out, const cJSON *lease)
{
    *out = (struct election_record){
        .transitions = json_int(lease, "spec.leaseTransitions", 0),
        .seconds = json_int(lease, "spec.leaseDurationSeconds", 0),
    };
    if (out->seconds > longest_lease / SECONDS)
        out->seconds = longest_lease / SECONDS;
    snprintf(out->holder, sizeof out->holder, "%s", json_string(lease, "spec.holderIdentity", ""));
    snprintf(out->uid, sizeof out->uid, "%s", json_string(lease, "metadata.uid", ""));
    snprintf(out->version, sizeof out->version, "%s", json_string(lease, "metadata.resourceVersion", ""));
    snprintf(out->renewed, sizeof out->renewed, "%s", json_string(lease, "spec.renewTime", ""));
    snprintf(out->acquired, sizeof out->acquired, "%s", json_string(lease, "spec.acquireTime", ""));
}

/* Does it show that its holder lives? A label that somebody adds does not. */
static bool is_sign_of_life(const struct election_record *before, const struct election_record *now)
{
    return strcmp(before->holder, now->holder) != 0 || strcmp(before->renewed, now->renewed) != 0 ||
           strcmp(before->acquired, now->acquired) != 0 || before->transitions != now->transitions ||
           before->seconds != now->seconds;
}

void election_observe(struct election *election, const cJSON *lease, bool asked, struct instant now)
{
    bool knew = election->looked.nanoseconds != 0 || election->changed.nanoseconds != 0;
    /* What a watch brings may be older than what we wrote: the holder asks where it is surprised, and believes the
     * answer. */
    if (election->leading && !asked) {
        if (lease == NULL || strcmp(json_string(lease, "spec.holderIdentity", ""), election->identity) != 0)
            election_contested(election);
        return;
    }
    if (asked)
        election->looked = now;
    election->seen = true;
    election->exists = lease != NULL;
    if (lease == NULL)
        return;
    struct election_record record;
    read_record(&record, lease);
    if (!knew || is_sign_of_life(&election->record, &record))
        election->changed = now;
    election->record = record;
}

void election_granted(struct election *election, const cJSON *lease, struct instant sent, struct instant now)
{
    election_observe(election, lease, true, now);
    election->leading = is_ours(election);
    election->ours_until = (struct instant){sent.nanoseconds + election->timing.renew};
    election->not_before = (struct instant){election->leading ? sent.nanoseconds + election->timing.retry : 0};
}

void election_contested(struct election *election)
{
    election->seen = false;
    election->not_before = (struct instant){0};
}

void election_failed(struct election *election, struct instant now)
{
    election->not_before = (struct instant){now.nanoseconds + election->timing.retry};
}

void election_release(struct election *election)
{
    election->releasing = true;
    election->candidate = false;
    election->not_before = (struct instant){0};
}

static cJSON *build(const char *holder, int64_t seconds, const char *acquired, const char *renewed, int64_t transitions)
{
    cleanup_json cJSON *spec = cJSON_CreateObject();
    bool good = cJSON_AddStringToObject(spec, "holderIdentity", holder) != NULL &&
                cJSON_AddNumberToObject(spec, "leaseDurationSeconds", (double)seconds) != NULL &&
                cJSON_AddStringToObject(spec, "acquireTime", acquired) != NULL &&
                cJSON_AddStringToObject(spec, "renewTime", renewed) != NULL &&
                cJSON_AddNumberToObject(spec, "leaseTransitions", (double)transitions) != NULL;
    return good ? move(spec) : NULL;
}

cJSON *election_claim(const struct election *election)
{
    const struct election_record *record = &election->record;
    char now[MICRO_TIME_SIZE];
    clock_wall_micro_time(now);
    bool renewal = election->exists && is_ours(election) && record->acquired[0] != '\0';
    bool turn = election->exists && !is_ours(election);
    return build(election->identity, election->timing.lease / SECONDS, renewal ? record->acquired : now, now,
                 record->transitions + (turn ? 1 : 0));
}

cJSON *election_free(const struct election *election)
{
    char now[MICRO_TIME_SIZE];
    clock_wall_micro_time(now);
    return build("", 1, now, now, election->record.transitions);
}
