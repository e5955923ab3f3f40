#include "common/clock.h"

#include <stdio.h>
#include <string.h>

struct instant clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (struct instant){now.tv_sec * SECONDS + now.tv_nsec};
}

int64_t clock_wall_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec;
}

void time_format_rfc3339(int64_t seconds, char *out)
{
    time_t time = (time_t)seconds;
    struct tm parts;
    if (gmtime_r(&time, &parts) == NULL || strftime(out, RFC3339_SIZE, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        memcpy(out, "1970-01-01T00:00:00Z", RFC3339_SIZE);
}

void clock_wall_micro_time(char *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char seconds[RFC3339_SIZE];
    time_format_rfc3339(now.tv_sec, seconds);
    snprintf(out, MICRO_TIME_SIZE, "%.19s.%06uZ", seconds, (unsigned)(now.tv_nsec / 1000) % 1000000);
}

int time_parse_rfc3339(const char *text, int64_t *seconds)
{
    struct tm parts = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    if (rest == NULL)
        return -1;
    if (*rest == '.') {
        size_t digits = strspn(rest + 1, "0123456789");
        if (digits == 0)
            return -1;
        rest += 1 + digits;
    }
    int offset = 0;
    if (*rest == '+' || *rest == '-') {
        int hours = 0;
        int minutes = 0;
        int used = 0;
        if (sscanf(rest + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 || used != 5 || rest[6] != '\0') // NOLINT(cert-err34-c)
            return -1;
        offset = (hours * 60 + minutes) * (*rest == '+' ? 60 : -60);
    } else if (strcmp(rest, "Z") != 0) {
        return -1;
    }
    *seconds = (int64_t)timegm(&parts) - offset;
    return 0;
}
