/* clock — instants for intervals and RFC 3339 times for people.
 *
 * Decisions never read a clock: they take `struct instant now`. An instant counts nanoseconds of CLOCK_BOOTTIME, which
 * goes on while a machine sleeps and never jumps.
 */
#ifndef THOLE_COMMON_CLOCK_H
#define THOLE_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

struct instant {
    int64_t nanoseconds;
};

#define MILLISECONDS INT64_C(1000000)
#define SECONDS      INT64_C(1000000000)

struct instant clock_now(void);

static inline int64_t instant_since(struct instant later, struct instant earlier)
{
    return later.nanoseconds - earlier.nanoseconds;
}

/* Wall-clock time in whole seconds since 1970, for what people and Kubernetes read. */
int64_t clock_wall_seconds(void);

#define RFC3339_SIZE 21
/* "2026-01-31T12:00:00Z"; `out` holds RFC3339_SIZE bytes. */
void time_format_rfc3339(int64_t seconds, char *out);

#define MICRO_TIME_SIZE 28
/* The wall-clock time now as Kubernetes' MicroTime, "2026-01-31T12:00:00.000000Z"; `out` holds MICRO_TIME_SIZE bytes. */
void clock_wall_micro_time(char *out);

/* With or without fractions of a second, "Z" or an offset. -1 where the text is no such time. */
int time_parse_rfc3339(const char *text, int64_t *seconds);

#endif
