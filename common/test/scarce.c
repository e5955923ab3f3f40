/* The linker (--wrap) calls __wrap_X where the code says X, and X itself where it says __real_X. */
#include "common/test/scarce.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* NOLINTBEGIN(bugprone-reserved-identifier): the names are the linker's */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t most);
int __real_vasprintf(char **out, const char *format, va_list arguments);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t most);
int __wrap_vasprintf(char **out, const char *format, va_list arguments);
int __wrap_asprintf(char **out, const char *format, ...);

static _Thread_local struct {
    bool on, refused;
    enum scarce_kind kind;
    size_t allowed;
} scarce;

static bool refuse(void)
{
    if (!scarce.on)
        return false;
    if (scarce.allowed > 0) {
        scarce.allowed--;
        return false;
    }
    if (scarce.refused && scarce.kind == SCARCE_ONE)
        return false;
    scarce.refused = true;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return refuse() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return refuse() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return refuse() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return refuse() ? NULL : __real_aligned_alloc(alignment, size);
}

char *__wrap_strdup(const char *text)
{
    return refuse() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t most)
{
    return refuse() ? NULL : __real_strndup(text, most);
}

int __wrap_vasprintf(char **out, const char *format, va_list arguments)
{
    return refuse() ? -1 : __real_vasprintf(out, format, arguments);
}

int __wrap_asprintf(char **out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = __wrap_vasprintf(out, format, arguments);
    va_end(arguments);
    return length;
}
/* NOLINTEND(bugprone-reserved-identifier) */

void scarce_begin(enum scarce_kind kind, size_t allowed)
{
    cJSON_Hooks hooks = {.malloc_fn = __wrap_malloc, .free_fn = free};
    cJSON_InitHooks(&hooks);
    scarce.on = true;
    scarce.refused = false;
    scarce.kind = kind;
    scarce.allowed = allowed;
}

bool scarce_refused(void)
{
    return scarce.refused;
}

bool scarce_end(void)
{
    bool refused = scarce.refused;
    cJSON_InitHooks(NULL);
    scarce.on = false;
    scarce.refused = false;
    return refused;
}
