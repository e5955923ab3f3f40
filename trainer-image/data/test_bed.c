#include "data/test_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

/* ---- Making files ---- */ void append(struct buffer *out, const void *data, size_t length)
{
    struct error err = {0};
    if (buffer_append(out, data, length, &err) < 0)
        fail_msg("%s", error_message(&err));
} /* The bytes of an IDX file whose elements are i·7 mod `modulus`. */
void make_idx(struct buffer *out, uint32_t rank, const uint32_t *dims, uint32_t modulus)
{
    buffer_init(out, 4 << 20);
    const uint8_t magic[4] = {0, 0, 8, (uint8_t)rank};
    append(out, magic, sizeof magic);
    size_t size = 1;
    for (uint32_t i = 0; i < rank; i++) {
        const uint8_t dim[4] = {(uint8_t)(dims[i] >> 24), (uint8_t)(dims[i] >> 16), (uint8_t)(dims[i] >> 8),
                                (uint8_t)dims[i]};
        append(out, dim, sizeof dim);
        size *= dims[i];
    }
    for (size_t i = 0; i < size; i++) {
        const uint8_t element = (uint8_t)(i * 7 % modulus);
        append(out, &element, 1);
    }
}
void make_gzip(struct buffer *out, const void *data, size_t length)
{
    buffer_init(out, 4 << 20);
    z_stream stream = {0};
    uint8_t packed[8192];
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (Bytef *)data;
    stream.avail_in = (uInt)length;
    int result;
    do {
        stream.next_out = packed;
        stream.avail_out = sizeof packed;
        result = deflate(&stream, Z_FINISH);
        append(out, packed, sizeof packed - stream.avail_out);
    } while (result == Z_OK);
    assert_int_equal(result, Z_STREAM_END);
    deflateEnd(&stream);
} /* ---- A folder with a data set, and its plan; one for each test ---- */
void put_file(const struct bed *bed, const char *name, const void *data, size_t length)
{
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/%s", bed->folder, name);
    if (file_write_atomically(path, data, length, &err) < 0)
        fail_msg("%s", error_message(&err));
}
void put_idx(const struct bed *bed, const char *name, uint32_t rank, const uint32_t *dims, uint32_t modulus)
{
    cleanup_buffer struct buffer content;
    make_idx(&content, rank, dims, modulus);
    put_file(bed, name, content.data, content.length);
}
void bed_make(struct bed *bed)
{
    *bed = (struct bed){.folder = "/tmp/thole-data-XXXXXX"};
    assert_non_null(mkdtemp(bed->folder));
    bed->plan.dataset.train = (struct plan_split){(char *)"x.idx", (char *)"y.idx"};
    bed->plan.dataset.test = (struct plan_split){(char *)"deep/er/tx.gz", (char *)"deep/er/ty.gz"};
    bed->plan.dataset.classes = 10;
    bed->plan.dataset.scale = 1 / 255.0;
    bed->plan.dataset.channels = 1;
    bed->plan.dataset.mean[0] = 0.286;
    bed->plan.dataset.std[0] = 0.353;
    put_idx(bed, "x.idx", 3, (const uint32_t[]){20, 3, 4}, 251);
    put_idx(bed, "y.idx", 1, (const uint32_t[]){20}, 10);
}
void bed_free(struct bed *bed)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", bed->folder);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): our own path */
}
struct dataset *open_part(const struct bed *bed, enum dataset_part part)
{
    struct error err = {0};
    struct dataset *dataset = NULL;
    if (dataset_open(&dataset, bed->folder, &bed->plan, part, &err) < 0)
        fail_msg("%s", error_message(&err)); /* The headers alone say the same. */
    struct dataset_description description;
    if (dataset_describe(&description, bed->folder, &bed->plan, part, &err) < 0)
        fail_msg("%s", error_message(&err));
    assert_int_equal(description.samples, dataset_samples(dataset));
    assert_memory_equal(description.shape, dataset_shape(dataset), sizeof description.shape);
    return dataset;
}
void expect_refusal(const struct bed *bed, const char *sentence)
{
    struct error err = {0};
    struct dataset *dataset = NULL;
    assert_int_equal(dataset_open(&dataset, bed->folder, &bed->plan, DATASET_TRAIN, &err), -1);
    assert_null(dataset);
    if (strstr(error_message(&err), sentence) == NULL)
        fail_msg("'%s' does not say '%s'", error_message(&err), sentence);
}
