/* buffer — bytes that grow up to a cap stated when the buffer is made.
 *
 * The content is always followed by a NUL that does not count, so text can be read as a C string.
 * Appending past the cap, or without memory, fails with an error and leaves the content as it was.
 */
#ifndef THOLE_COMMON_BUFFER_H
#define THOLE_COMMON_BUFFER_H

#include "common/cleanup.h"
#include "common/error.h"

#include <stddef.h>

struct buffer {
    char *data; /* NULL while empty and never grown */
    size_t length;
    size_t capacity;
    size_t cap; /* most bytes of content */
};

void buffer_init(struct buffer *buffer, size_t cap);
void buffer_free(struct buffer *buffer); /* leaves it empty with the same cap */
void buffer_clear(struct buffer *buffer);

/* Makes room for `extra` more bytes. */
int buffer_reserve(struct buffer *buffer, size_t extra, struct error *err);
int buffer_append(struct buffer *buffer, const void *data, size_t length, struct error *err);
int buffer_append_text(struct buffer *buffer, const char *text, struct error *err);
int buffer_printf(struct buffer *buffer, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Drops the first `length` bytes. */
void buffer_consume(struct buffer *buffer, size_t length);

/* The content as text, "" when empty; borrowed. */
const char *buffer_text(const struct buffer *buffer);

/* Reads the whole file; fails where it holds more than the buffer's cap. */
int buffer_read_file(struct buffer *buffer, const char *path, struct error *err);

/* Writes `data` to `path` by way of a temporary file beside it, fsync and rename: a reader sees all or nothing. */
int file_write_atomically(const char *path, const void *data, size_t length, struct error *err);

static inline void cleanup_buffer_value(struct buffer *buffer)
{
    buffer_free(buffer);
}
#define cleanup_buffer CLEANUP(cleanup_buffer_value)

#endif
