#include "runtime/histogram.h"

#include "common/clock.h"

const double histogram_bounds[HISTOGRAM_BUCKETS] = {
    0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1000};

void histogram_add(struct histogram *histogram, int64_t nanoseconds)
{
    double seconds = nanoseconds < 0 ? 0 : (double)nanoseconds / (double)SECONDS;
    histogram->count++;
    histogram->sum += seconds;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (seconds <= histogram_bounds[i]) {
            histogram->buckets[i]++;
            return;
        }
    }
}
