/* content — what a data set's files of one part hold, whatever their format. Private to data.
 *
 * Each format is one function (idx.c, npy.c, csv.c, libsvm.c) that fills a struct content from open files. Two of them
 * keep the elements of the file, which fetching normalises; text has become normalised floats when it has been read.
 */
#ifndef THOLE_DATA_CONTENT_H
#define THOLE_DATA_CONTENT_H

#include "common/plan/plan.h"
#include "data/array.h"
#include "data/data.h"

struct content_files {
    const struct plan *plan;
    int features, labels; /* borrowed; labels: −1 where the features' file holds them */
    const char *features_name, *labels_name;
    int first; /* the training part's features, where this is another part; else −1 */
    const char *first_name;
};

/* A value that a sparse row holds; what it does not hold is zero. */
struct sparse_entry {
    uint32_t place;
    float value;
};

struct content {
    uint64_t samples;
    uint32_t shape[3];     /* [C, H, W] of a sample */
    struct array features; /* IDX, NPY: [samples][C][H][W] */
    struct region rows;    /* CSV: float [samples][C][H][W], normalised */
    struct region entries; /* LibSVM: struct sparse_entry, normalised, ascending within a sample … */
    struct region offsets; /* … uint64_t [samples + 1]: where each sample's begin */
    struct region targets; /* float [samples] */
};

enum content_depth {
    CONTENT_DESCRIBED, /* samples and shape: from the headers of arrays; text is read and checked, and nothing kept */
    CONTENT_READ,
};

typedef int content_function(struct content *out, const struct content_files *files, enum content_depth depth,
                             struct error *err);
content_function idx_content, npy_content, csv_content, libsvm_content;
void content_free(struct content *content);
#define cleanup_content CLEANUP(content_free)

/* A header's worth: reads it where `source` stands, and no further. */
typedef int array_header_function(struct array *out, struct source *source, struct error *err);

/* The content of two files that are arrays: what idx_content() and npy_content() share. */
int content_of_arrays(struct content *out, const struct content_files *files, enum content_depth depth,
                      array_header_function *header, struct error *err);

/* Sets the shape where the samples of a file are vectors of `size`: spec.shape, which must be of that size, or
 * [size, 1, 1]. Does spec.normalize fit it? */
int content_shape_vector(struct content *content, const struct content_files *files, uint64_t size, struct error *err);

/* A label as a target. −1: *why says what it is not, "is not below the Dataset's spec.classes, 9". */
int content_target(const struct plan *plan, double label, float *out, struct error *why);

/* Values of channel `c` are (x · scale − mean) / std with these. */
struct normalisation {
    double scale, mean, std;
};
struct normalisation content_normalisation(const struct plan *plan, uint32_t c);

static inline float normalised(struct normalisation by, double value)
{
    return (float)((value * by.scale - by.mean) / by.std);
}

#endif
