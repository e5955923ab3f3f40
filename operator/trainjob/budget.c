#include "trainjob/budget.h"

/* Longer than any turn that a cluster of a hundred thousand jobs would wait for. */
static const int64_t longest_promise = 3600 * SECONDS;

void budget_init(struct budget *budget, struct instant now)
{
    *budget = (struct budget){.bucket = bucket_make(BUDGET_WRITES_PER_SECOND, BUDGET_BURST, now)};
}

/* Until the job itself may write again. */
static int64_t own_wait(const struct budget_share *share, int64_t interval, struct instant now)
{
    int64_t left = interval - instant_since(now, share->written);
    return share->written.nanoseconds == 0 || left < 0 ? 0 : left;
}

int64_t budget_wait(struct budget *budget, struct budget_share *share, enum status_change change, struct instant now)
{
    if (change == STATUS_SAME)
        return INT64_MAX;
    if (change == STATUS_AT_ONCE)
        return 0;
    int64_t wait = own_wait(share, change == STATUS_SOON ? SENTENCE_INTERVAL : STATUS_INTERVAL, now);
    if (wait > 0)
        return wait;
    if (share->turn.nanoseconds == 0) {
        budget->spent++;
        share->turn.nanoseconds = now.nanoseconds + bucket_reserve(&budget->bucket, now, longest_promise);
    }
    wait = instant_since(share->turn, now);
    return wait > 0 ? wait : 0;
}

void budget_written(struct budget_share *share, struct instant now)
{
    *share = (struct budget_share){.written = now};
}

bool budget_is_open(const struct budget_share *share, struct instant now)
{
    return own_wait(share, STATUS_INTERVAL, now) == 0 && instant_since(share->turn, now) <= 0;
}
