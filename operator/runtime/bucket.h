/* bucket — a token bucket: so much at once, so much a second afterwards. Pure: time is passed in. */
#ifndef THOLE_OPERATOR_BUCKET_H
#define THOLE_OPERATOR_BUCKET_H

#include "common/clock.h"

struct bucket {
    double rate, burst; /* tokens a second, and at most */
    double tokens;      /* below 0: promised to those who reserved */
    struct instant at;
};

/* Full at first. */
struct bucket bucket_make(double rate, double burst, struct instant now);

/* Takes one token, now or ahead of time: how long to wait before it may be used, 0: not at all. A wait of more than
 * `most` is not promised: nothing is taken then, and `most` is the answer. */
int64_t bucket_reserve(struct bucket *bucket, struct instant now, int64_t most);

#endif
