#include "data/source.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    INFLATE_MOST = 1 << 30,       /* bytes asked of zlib at once, whose counts are 32 bits wide */
    GZIP_WINDOW = MAX_WBITS + 16, /* inflateInit2: gzip only */
};

void source_free(struct source *source)
{
    if (source->gzip)
        inflateEnd(&source->stream);
}

/* Reads on where the buffer is empty; at the file's end it stays empty. */
static int source_fill(struct source *source, struct error *err)
{
    while (source->stream.avail_in == 0 && !source->ended) {
        ssize_t got = read(source->fd, source->buffer, sizeof source->buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(err, "read data set file '%s'", source->name);
        source->ended = got == 0;
        source->stream.next_in = source->buffer;
        source->stream.avail_in = (uInt)got;
    }
    return 0;
}

int source_open(struct source *source, int fd, const char *name, struct error *err)
{
    memset(source, 0, sizeof *source);
    source->fd = fd;
    source->name = name;
    if (source_fill(source, err) < 0)
        return -1;
    if (source->stream.avail_in < 2 || source->buffer[0] != 0x1F || source->buffer[1] != 0x8B)
        return 0;
    if (inflateInit2(&source->stream, GZIP_WINDOW) != Z_OK)
        return error_set(err, "out of memory for unpacking data set file '%s'", name);
    source->gzip = true;
    return 0;
}

static int copy_some(struct source *source, uint8_t *out, size_t length, size_t *got, struct error *err)
{
    while (*got < length) {
        if (source_fill(source, err) < 0)
            return -1;
        size_t some = length - *got < source->stream.avail_in ? length - *got : source->stream.avail_in;
        if (some == 0)
            return 0;
        memcpy(out + *got, source->stream.next_in, some);
        source->stream.next_in += some;
        source->stream.avail_in -= (uInt)some;
        *got += some;
    }
    return 0;
}

static int inflate_some(struct source *source, uint8_t *out, size_t length, size_t *got, struct error *err)
{
    while (*got < length) {
        if (source_fill(source, err) < 0)
            return -1;
        if (source->ended && source->between)
            return 0;
        if (source->ended)
            return error_set(err, "data set file '%s' is cut off inside its gzip stream: copy it again", source->name);
        if (source->between && (*source->stream.next_in != 0x1F || inflateReset(&source->stream) != Z_OK))
            return error_set(err, "data set file '%s' goes on behind the end of its gzip stream: copy it again",
                             source->name);
        source->between = false;
        size_t left = length - *got;
        uInt wanted = left < INFLATE_MOST ? (uInt)left : INFLATE_MOST;
        source->stream.next_out = out + *got;
        source->stream.avail_out = wanted;
        int result = inflate(&source->stream, Z_NO_FLUSH);
        *got += wanted - source->stream.avail_out;
        source->between = result == Z_STREAM_END;
        if (result == Z_MEM_ERROR)
            return error_set(err, "out of memory for unpacking data set file '%s'", source->name);
        if (result != Z_OK && result != Z_STREAM_END)
            return error_set(err, "data set file '%s' has a damaged gzip stream (%s): copy it again", source->name,
                             source->stream.msg == NULL ? "no reason given" : source->stream.msg);
    }
    return 0;
}

int source_read(struct source *source, void *out, size_t length, size_t *got, struct error *err)
{
    *got = 0;
    int result = source->gzip ? inflate_some(source, out, length, got, err) : copy_some(source, out, length, got, err);
    source->consumed += *got;
    return result;
}
