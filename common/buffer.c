#include "common/buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

void buffer_init(struct buffer *buffer, size_t cap)
{
    *buffer = (struct buffer){.cap = cap};
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){.cap = buffer->cap};
}

void buffer_clear(struct buffer *buffer)
{
    buffer->length = 0;
    if (buffer->data != NULL)
        buffer->data[0] = '\0';
}

int buffer_reserve(struct buffer *buffer, size_t extra, struct error *err)
{
    if (extra > buffer->cap - buffer->length)
        return error_set(err, "more than %zu bytes", buffer->cap);
    size_t needed = buffer->length + extra + 1;
    if (needed <= buffer->capacity)
        return 0;
    size_t capacity = buffer->capacity == 0 ? 64 : buffer->capacity;
    while (capacity < needed)
        capacity *= 2;
    if (capacity > buffer->cap + 1)
        capacity = buffer->cap + 1;
    char *data = realloc(buffer->data, capacity);
    if (data == NULL)
        return error_set(err, "out of memory for %zu bytes", capacity);
    buffer->data = data;
    buffer->capacity = capacity;
    buffer->data[buffer->length] = '\0';
    return 0;
}

int buffer_append(struct buffer *buffer, const void *data, size_t length, struct error *err)
{
    if (buffer_reserve(buffer, length, err) < 0)
        return -1;
    if (length > 0)
        memcpy(buffer->data + buffer->length, data, length);
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
    return 0;
}

int buffer_append_text(struct buffer *buffer, const char *text, struct error *err)
{
    return buffer_append(buffer, text, strlen(text), err);
}

int buffer_printf(struct buffer *buffer, struct error *err, const char *format, ...)
{
    va_list arguments;
    va_list again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    int result = length < 0 ? error_set(err, "text cannot be formatted") : buffer_reserve(buffer, (size_t)length, err);
    if (result == 0) {
        vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, again);
        buffer->length += (size_t)length;
    }
    va_end(again);
    return result;
}

void buffer_consume(struct buffer *buffer, size_t length)
{
    if (length >= buffer->length) {
        buffer_clear(buffer);
        return;
    }
    memmove(buffer->data, buffer->data + length, buffer->length - length + 1);
    buffer->length -= length;
}

const char *buffer_text(const struct buffer *buffer)
{
    return buffer->data == NULL ? "" : buffer->data;
}

int buffer_read_file(struct buffer *buffer, const char *path, struct error *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "open '%s'", path);
    char chunk[16384];
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(err, "read '%s'", path);
        if (got == 0)
            return buffer_reserve(buffer, 0, err);
        if (buffer_append(buffer, chunk, (size_t)got, NULL) < 0)
            return error_set(err, "read '%s': it holds more than %zu bytes", path, buffer->cap);
    }
}

static int write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, data, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        data += written;
        length -= (size_t)written;
    }
    return 0;
}

/* A rename is durable once its directory is. */
static int sync_parent(const char *path)
{
    cleanup_free char *parent = strdup(path);
    if (parent == NULL)
        return -1;
    char *slash = strrchr(parent, '/');
    if (slash == parent)
        slash[1] = '\0';
    else if (slash != NULL)
        *slash = '\0';
    cleanup_fd int fd = open(slash == NULL ? "." : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

int file_write_atomically(const char *path, const void *data, size_t length, struct error *err)
{
    cleanup_free char *temporary = NULL;
    if (asprintf(&temporary, "%s.tmp.%ld", path, (long)getpid()) < 0) {
        temporary = NULL;
        return error_set(err, "write '%s': out of memory", path);
    }
    cleanup_fd int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_errno(err, "create '%s'", temporary);
    if (write_all(fd, data, length) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0 || sync_parent(path) < 0) {
        error_errno(err, "write '%s'", path);
        unlink(temporary);
        return -1;
    }
    return 0;
}
