/* test_bed — a folder with a data set, and its plan: what the tests of data share. */
#ifndef THOLE_DATA_TEST_BED_H
#define THOLE_DATA_TEST_BED_H

#include "common/buffer.h"
#include "data/data.h"

struct bed {
    char folder[64];
    struct plan plan;
};

/* 20 images of 3×4 bytes and labels below 10 as IDX, normalised. */
void bed_make(struct bed *bed);
void bed_free(struct bed *bed);

void append(struct buffer *out, const void *data, size_t length);

/* The bytes of an IDX file whose elements are i·7 mod `modulus`. */
void make_idx(struct buffer *out, uint32_t rank, const uint32_t *dims, uint32_t modulus);
void make_gzip(struct buffer *out, const void *data, size_t length);

void put_file(const struct bed *bed, const char *name, const void *data, size_t length);
void put_idx(const struct bed *bed, const char *name, uint32_t rank, const uint32_t *dims, uint32_t modulus);

/* Opens the part, and expects dataset_describe() to say the same of it. */
struct dataset *open_part(const struct bed *bed, enum dataset_part part);

/* Opening the training part fails with words that hold `sentence`. */
void expect_refusal(const struct bed *bed, const char *sentence);

#endif
