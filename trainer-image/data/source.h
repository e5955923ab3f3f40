/* source — a file's content from its beginning to its end, unpacked where it is gzip (told by content, not by name).
 * Private to data. One gzip member or several (RFC 1952), and nothing behind the last. */
#ifndef THOLE_DATA_SOURCE_H
#define THOLE_DATA_SOURCE_H

#include "common/cleanup.h"
#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

enum { SOURCE_BUFFER = 64 * 1024 };

struct source {
    int fd;            /* borrowed */
    const char *name;  /* as the user knows it, for sentences; borrowed */
    uint64_t consumed; /* bytes of content handed out */
    bool gzip, ended;  /* ended: the file's end has been reached */
    bool between;      /* no member is open: the end may come */
    z_stream stream;   /* next_in, avail_in: what is buffered, for plain files too */
    uint8_t buffer[SOURCE_BUFFER];
};

/* `fd` stands at the file's beginning. */
int source_open(struct source *source, int fd, const char *name, struct error *err);
void source_free(struct source *source);
#define cleanup_source CLEANUP(source_free)

/* Reads up to `length` bytes; *got is less only at the content's end. */
int source_read(struct source *source, void *out, size_t length, size_t *got, struct error *err);

#endif
