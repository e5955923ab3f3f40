#include "trainjob/turns.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool differs(const cJSON *before, const cJSON *now, const char *path)
{
    return strcmp(json_string(before, path, ""), json_string(now, path, "")) != 0;
}

static bool process_ended(const cJSON *before, const cJSON *now, struct turn *out)
{
    const cJSON *failure = json_at(now, "lastFailure");
    if (failure == NULL || json_equal(failure, json_at(before, "lastFailure")))
        return false;
    const char *message = json_string(failure, "message", "");
    out->reason = REASON_PROCESS_ENDED;
    snprintf(out->note, sizeof out->note, "pod '%s' on node '%s' ended with exit code %" PRId64 "%s%s",
             json_string(failure, "pod", ""), json_string(failure, "node", ""), json_int(failure, "exitCode", 0),
             message[0] == '\0' ? "" : ": ", message);
    return true;
}

static bool phase_turned(const cJSON *before, const cJSON *now, struct turn *out)
{
    static const enum reason phases[] = {REASON_RUNNING, REASON_SUCCEEDED, REASON_FAILED};
    if (!differs(before, now, "phase"))
        return false;
    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++) {
        if (strcmp(json_string(now, "phase", ""), reason_name(phases[i])) != 0)
            continue;
        out->reason = phases[i];
        snprintf(out->note, sizeof out->note, "%s", json_string(now, "message", ""));
        return true;
    }
    return false;
}

static const cJSON *stalled_condition(const cJSON *status)
{
    const cJSON *condition = json_find(json_at(status, "conditions"), "type", "Stalled");
    return strcmp(json_string(condition, "status", ""), "True") == 0 ? condition : NULL;
}

/* A failed job is stalled too, but that is told by its phase. */
static bool got_stuck(const cJSON *before, const cJSON *now, struct turn *out)
{
    const cJSON *stalled = stalled_condition(now);
    if (stalled == NULL || strcmp(json_string(now, "phase", ""), reason_name(REASON_FAILED)) == 0 ||
        !differs(stalled_condition(before), stalled, "reason"))
        return false;
    out->reason = reason_parse(json_string(stalled, "reason", ""), REASON_ERROR);
    snprintf(out->note, sizeof out->note, "%s", json_string(now, "message", ""));
    return true;
}

size_t trainjob_turns(const cJSON *before, const cJSON *now, struct turn out[TURNS_MOST])
{
    static bool (*const all[TURNS_MOST])(const cJSON *, const cJSON *, struct turn *) = {process_ended, phase_turned,
                                                                                         got_stuck};
    size_t count = 0;
    for (size_t i = 0; i < TURNS_MOST; i++)
        count += all[i](before, now, &out[count]);
    return count;
}
