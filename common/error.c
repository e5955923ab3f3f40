#include "common/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set_message(struct error *err, const char *format, va_list arguments)
{
    vsnprintf(err->message, sizeof err->message, format, arguments);
}

int error_set(struct error *err, const char *format, ...)
{
    if (err == NULL)
        return -1;
    va_list arguments;
    va_start(arguments, format);
    set_message(err, format, arguments);
    va_end(arguments);
    err->code = 0;
    return -1;
}

int error_code(struct error *err, int code, const char *format, ...)
{
    if (err == NULL)
        return -1;
    va_list arguments;
    va_start(arguments, format);
    set_message(err, format, arguments);
    va_end(arguments);
    err->code = code;
    return -1;
}

int error_errno(struct error *err, const char *format, ...)
{
    int code = errno;
    if (err == NULL)
        return -1;
    va_list arguments;
    va_start(arguments, format);
    set_message(err, format, arguments);
    va_end(arguments);
    err->code = code;
    char text[128];
    size_t length = strlen(err->message);
    snprintf(err->message + length, sizeof err->message - length, ": %s", strerror_r(code, text, sizeof text));
    return -1;
}
