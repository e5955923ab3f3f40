/* histogram — how long something took, as Prometheus counts it. */
#ifndef THOLE_OPERATOR_HISTOGRAM_H
#define THOLE_OPERATOR_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_BUCKETS = 20 };
extern const double histogram_bounds[HISTOGRAM_BUCKETS]; /* seconds, rising */

struct histogram {
    uint64_t buckets[HISTOGRAM_BUCKETS]; /* not cumulative; beyond the last bound: only in `count` */
    uint64_t count;
    double sum; /* seconds */
};

void histogram_add(struct histogram *histogram, int64_t nanoseconds); /* below 0 counts as 0 */

#endif
