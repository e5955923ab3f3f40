#include "common/log.h"
#include "common/buffer.h"
#include "common/json.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LINE_MOST = 16384 };

static const char *const level_names[] = {"debug", "info", "warn", "error"};

int log_level_parse(const char *text, enum log_level *out, struct error *err)
{
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return error_set(err, "'%s' is no log level: use debug, info, warn or error", text);
}

int log_format_parse(const char *text, enum log_format *out, struct error *err)
{
    if (strcmp(text, "text") == 0)
        *out = LOG_TEXT;
    else if (strcmp(text, "json") == 0)
        *out = LOG_JSON;
    else
        return error_set(err, "'%s' is no log format: use text or json", text);
    return 0;
}

static void append_json_string(struct buffer *line, const char *text)
{
    cleanup_json cJSON *string = cJSON_CreateString(text);
    cleanup_free char *quoted = string == NULL ? NULL : json_print(string);
    buffer_append_text(line, quoted == NULL ? "\"\"" : quoted, NULL);
}

/* Quoted only where a person or a splitting tool would otherwise misread it; control characters never pass. */
static void append_text_value(struct buffer *line, const char *text)
{
    bool plain = *text != '\0';
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c <= ' ' || *c == '"' || *c == '=' || *c == 0x7f)
            plain = false;
    if (plain)
        buffer_append_text(line, text, NULL);
    else
        append_json_string(line, text);
}

static void append_timestamp(struct buffer *line)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm parts;
    char text[32];
    if (gmtime_r(&now.tv_sec, &parts) == NULL || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts) == 0)
        return;
    buffer_printf(line, NULL, "%s.%03ldZ", text, now.tv_nsec / 1000000);
}

static void append_message_text(struct buffer *line, const char *message)
{
    for (const char *c = message; *c != '\0'; c++) {
        char shown = (unsigned char)*c < ' ' || *c == 0x7f ? ' ' : *c;
        buffer_append(line, &shown, 1, NULL);
    }
}

static void begin_line(struct buffer *line, const struct log *log, enum log_level level, const char *message)
{
    if (log->format == LOG_JSON) {
        buffer_append_text(line, "{\"time\":\"", NULL);
        append_timestamp(line);
        buffer_printf(line, NULL, "\",\"level\":\"%s\",\"message\":", level_names[level]);
        append_json_string(line, message);
        if (log->component != NULL)
            buffer_printf(line, NULL, ",\"component\":\"%s\"", log->component);
        return;
    }
    append_timestamp(line);
    buffer_printf(line, NULL, " %-5s ", level_names[level]);
    if (log->component != NULL)
        buffer_printf(line, NULL, "%s: ", log->component);
    append_message_text(line, message);
}

static void append_field(struct buffer *line, const struct log *log, const char *name, const char *value)
{
    if (log->format == LOG_JSON) {
        buffer_append_text(line, ",", NULL);
        append_json_string(line, name);
        buffer_append_text(line, ":", NULL);
        append_json_string(line, value);
        return;
    }
    buffer_printf(line, NULL, " %s=", name);
    append_text_value(line, value);
}

struct log log_with(const struct log *log, const char *name, const char *value)
{
    struct log out = *log;
    for (size_t i = 0; i < LOG_FIELDS_MOST; i++) {
        if (out.fields[i].name == NULL) {
            out.fields[i] = (struct log_field){name, value};
            break;
        }
    }
    return out;
}

void log_write(const struct log *log, enum log_level level, const char *message, ...)
{
    if (!log_enabled(log, level))
        return;
    cleanup_buffer struct buffer line;
    buffer_init(&line, LINE_MOST);
    begin_line(&line, log, level, message);

    for (size_t i = 0; i < LOG_FIELDS_MOST && log->fields[i].name != NULL; i++)
        append_field(&line, log, log->fields[i].name, log->fields[i].value);
    va_list fields;
    va_start(fields, message);
    for (const char *name; (name = va_arg(fields, const char *)) != NULL;) {
        const char *value = va_arg(fields, const char *);
        append_field(&line, log, name, value == NULL ? "" : value);
    }
    va_end(fields);

    buffer_append_text(&line, log->format == LOG_JSON ? "}\n" : "\n", NULL);
    /* A log that cannot be written has nobody to tell. */
    (void)!write(log->fd, line.data, line.length);
}
