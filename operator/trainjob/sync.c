#include "trainjob/status.h"

void trainjob_show_sync(const struct report_sync *sync, cJSON *status)
{
    if (!sync->known)
        return;
    uint32_t buckets = REPORT_STALENESS_BUCKETS;
    while (buckets > 0 && sync->staleness[buckets - 1] == 0)
        buckets--;
    bool whole = true;
    cleanup_json cJSON *json = cJSON_CreateObject();
    json_add_number(json, "steps", (double)sync->steps, &whole);
    json_add_number(json, "duplicates", (double)sync->duplicates, &whole);
    json_add_number(json, "stale", (double)sync->stale, &whole);
    cJSON *staleness = json_add_list(json, "staleness", &whole);
    for (uint32_t i = 0; i < buckets; i++)
        json_add(staleness, NULL, cJSON_CreateNumber((double)sync->staleness[i]), &whole);
    status_put(status, "sync", whole ? move(json) : NULL);
}

static uint64_t grown(uint64_t before, uint64_t now)
{
    return now >= before ? now - before : now;
}

void trainjob_add_sync(struct report_sync *totals, struct report_sync *counted, const struct report_sync *now)
{
    if (!now->known)
        return;
    totals->known = true;
    totals->steps += grown(counted->steps, now->steps);
    totals->duplicates += grown(counted->duplicates, now->duplicates);
    totals->stale += grown(counted->stale, now->stale);
    for (uint32_t i = 0; i < REPORT_STALENESS_BUCKETS; i++)
        totals->staleness[i] += grown(counted->staleness[i], now->staleness[i]);
    *counted = *now;
}
