#include "data/idx.h"

#include "common/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
    MAGIC_SIZE = 4,
    TYPE_UNSIGNED_BYTE = 0x08,
    BUFFER_SIZE = 64 * 1024,
    FIRST_ALLOCATION = 1 << 20,
    INFLATE_MOST = 1 << 30,       /* bytes asked of zlib at once, whose counts are 32 bits wide */
    GZIP_WINDOW = MAX_WBITS + 16, /* inflateInit2: gzip only */
};

void idx_free(struct idx *idx)
{
    free(idx->data);
    idx->data = NULL;
}
#define cleanup_idx CLEANUP(idx_free)

/* A file's content, unpacked where it is gzip: one member or several, and nothing behind the last. */
struct source {
    int fd;
    const char *name;
    bool gzip, ended; /* ended: the file's end has been reached */
    bool between;     /* no member is open: the end may come */
    z_stream stream;  /* next_in, avail_in: what is buffered, for plain files too */
    uint8_t buffer[BUFFER_SIZE];
};

static void source_free(struct source *source)
{
    if (source->gzip)
        inflateEnd(&source->stream);
}
#define cleanup_source CLEANUP(source_free)

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

static int source_open(struct source *source, int fd, const char *name, struct error *err)
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

/* Reads up to `length` bytes; *got is less only at the content's end. */
static int read_some(struct source *source, void *out, size_t length, size_t *got, struct error *err)
{
    *got = 0;
    return source->gzip ? inflate_some(source, out, length, got, err) : copy_some(source, out, length, got, err);
}

static const char *type_name(uint8_t type)
{
    switch (type) {
    case 0x09:
        return "signed bytes";
    case 0x0B:
        return "16-bit integers";
    case 0x0C:
        return "32-bit integers";
    case 0x0D:
        return "32-bit floats";
    case 0x0E:
        return "64-bit floats";
    default:
        return NULL;
    }
}

static int read_header(struct idx *idx, struct source *source, uint32_t rank_least, uint32_t rank_most,
                       uint64_t bytes_most, struct error *err)
{
    uint8_t header[MAGIC_SIZE + 4 * IDX_RANK_MOST];
    size_t got;
    if (read_some(source, header, MAGIC_SIZE, &got, err) < 0)
        return -1;
    if (got < MAGIC_SIZE || header[0] != 0 || header[1] != 0 ||
        (header[2] != TYPE_UNSIGNED_BYTE && type_name(header[2]) == NULL))
        return error_set(err,
                         "data set file '%s' is no IDX file: it must begin with two zero bytes, the type 8 and the "
                         "rank (gzip around that is fine)",
                         source->name);
    if (header[2] != TYPE_UNSIGNED_BYTE)
        return error_set(err, "data set file '%s' holds %s; only IDX files of unsigned bytes are read", source->name,
                         type_name(header[2]));
    idx->rank = header[3];
    if (idx->rank < rank_least || idx->rank > rank_most)
        return error_set(err,
                         "data set file '%s' has rank %" PRIu32 " where %s%" PRIu32 " is expected: are features "
                         "and labels swapped?",
                         source->name, idx->rank, rank_least == rank_most ? "" : "2 to ", rank_most);
    const size_t dims = 4 * (size_t)idx->rank;
    if (read_some(source, header + MAGIC_SIZE, dims, &got, err) < 0)
        return -1;
    if (got < dims)
        return error_set(err, "data set file '%s' is cut off inside its header: copy it again", source->name);
    idx->size = 1;
    for (uint32_t i = 0; i < idx->rank; i++) {
        const uint8_t *at = header + MAGIC_SIZE + (size_t)4 * i;
        idx->dims[i] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        if (idx->dims[i] == 0)
            return error_set(err, "data set file '%s' says in its header that it is empty", source->name);
        /* The product before is at most bytes_most, so this one does not overflow. */
        idx->size *= idx->dims[i];
        if (idx->size > bytes_most)
            return error_set(err, "data set file '%s' says in its header that it holds more than %" PRIu64 " bytes",
                             source->name, bytes_most);
    }
    return 0;
}

/* Memory grows with what has come, not with what the header promises. */
static int read_data(struct idx *idx, struct source *source, struct error *err)
{
    uint64_t have = 0;
    uint64_t capacity = 0;
    while (have < idx->size) {
        uint64_t wanted = capacity == 0 ? FIRST_ALLOCATION : 2 * capacity;
        wanted = wanted < idx->size ? wanted : idx->size;
        uint8_t *data = realloc(idx->data, wanted);
        if (data == NULL)
            return error_set(err, "out of memory for the %" PRIu64 " bytes of data set file '%s'", idx->size,
                             source->name);
        idx->data = data;
        capacity = wanted;
        size_t got;
        if (read_some(source, data + have, capacity - have, &got, err) < 0)
            return -1;
        have += got;
        if (have < capacity)
            return error_set(err,
                             "data set file '%s' is cut off: its header promises %" PRIu64 " bytes of data, and there "
                             "are %" PRIu64 ": copy it again",
                             source->name, idx->size, have);
    }
    return 0;
}

int idx_read(struct idx *out, int fd, const char *name, uint32_t rank_least, uint32_t rank_most, uint64_t bytes_most,
             struct error *err)
{
    cleanup_source struct source source;
    cleanup_idx struct idx idx = {0};
    uint8_t more;
    size_t got;
    if (source_open(&source, fd, name, err) < 0 ||
        read_header(&idx, &source, rank_least, rank_most, bytes_most, err) < 0 || read_data(&idx, &source, err) < 0 ||
        read_some(&source, &more, 1, &got, err) < 0)
        return -1;
    if (got > 0)
        return error_set(err,
                         "data set file '%s' goes on behind the %" PRIu64 " bytes of data that its header promises",
                         name, idx.size);
    *out = idx;
    idx.data = NULL;
    return 0;
}

int idx_read_header(struct idx *out, int fd, const char *name, uint32_t rank_least, uint32_t rank_most,
                    uint64_t bytes_most, struct error *err)
{
    cleanup_source struct source source;
    *out = (struct idx){0};
    if (source_open(&source, fd, name, err) < 0)
        return -1;
    return read_header(out, &source, rank_least, rank_most, bytes_most, err);
}
