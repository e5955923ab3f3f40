#include "runtime/bucket.h"

struct bucket bucket_make(double rate, double burst, struct instant now)
{
    return (struct bucket){.rate = rate, .burst = burst, .tokens = burst, .at = now};
}

static void refill(struct bucket *bucket, struct instant now)
{
    int64_t passed = instant_since(now, bucket->at);
    if (passed <= 0)
        return;
    bucket->tokens += (double)passed / (double)SECONDS * bucket->rate;
    bucket->at = now;
    if (bucket->tokens > bucket->burst)
        bucket->tokens = bucket->burst;
}

int64_t bucket_reserve(struct bucket *bucket, struct instant now, int64_t most)
{
    refill(bucket, now);
    double missing = 1 - bucket->tokens;
    double wait = missing <= 0 ? 0 : missing / bucket->rate * (double)SECONDS;
    if (wait > (double)most)
        return most;
    bucket->tokens -= 1;
    return (int64_t)wait;
}
