/* log — one line an event, as text for people or JSON for machines, to one descriptor.
 *
 * A logger is made in main and handed down; nothing is global. A line is written with one write(2), so lines of
 * several threads never mix. Fields are pairs of name and value, ended by NULL:
 *
 *     log_info(log, "job started", "job", key, "shards", "2", NULL);
 */
#ifndef THOLE_COMMON_LOG_H
#define THOLE_COMMON_LOG_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_field {
    const char *name, *value; /* borrowed */
};
enum { LOG_FIELDS_MOST = 4 };

struct log {
    int fd;
    enum log_level level; /* the least that is written */
    enum log_format format;
    const char *component;                    /* in every line; may be NULL */
    struct log_field fields[LOG_FIELDS_MOST]; /* in every line, before its own; up to one without a name */
};

/* The same log with one more field in every line; where there are too many already, without. */
struct log log_with(const struct log *log, const char *name, const char *value);

/* Is a line of this level written at all? `log` may be NULL. For what is costly to say. */
static inline bool log_enabled(const struct log *log, enum log_level level)
{
    return log != NULL && level >= log->level;
}

/* Names as users write them: "debug", "info", "warn", "error"; "text", "json". */
int log_level_parse(const char *text, enum log_level *out, struct error *err);
int log_format_parse(const char *text, enum log_format *out, struct error *err);

void log_write(const struct log *log, enum log_level level, const char *message, ...) __attribute__((sentinel));

#define log_debug(log, ...) log_write((log), LOG_DEBUG, __VA_ARGS__)
#define log_info(log, ...)  log_write((log), LOG_INFO, __VA_ARGS__)
#define log_warn(log, ...)  log_write((log), LOG_WARN, __VA_ARGS__)
#define log_error(log, ...) log_write((log), LOG_ERROR, __VA_ARGS__)

#endif
