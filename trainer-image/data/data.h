/* data — data sets: read from files below a root, checked, handed out as normalised samples.
 *
 * Formats are IDX (MNIST's), NPY, CSV and LibSVM, plain or gzip by content.
 *   IDX, NPY   an array of numbers of any type: features of rank 2 to 4 ([n][w], [n][h][w] or [n][c][h][w]) and labels
 *              of rank 1, in a file of their own. Kept in the file's own type; plain files are mapped.
 *   CSV        a sample is the numbers of a line in the file's order, then the ids of its categories in the plan's
 *              order, an id of column k being Σ rows of the columns before + its place in the vocabulary (0: another
 *              word) or its hash. A missing number is what the mean would be, 0; a missing category is the empty word.
 *   LibSVM     sparse lines; what is absent is 0, and normalised like any 0.
 *
 * Fetching makes (value · scale − mean[c]) / std[c] of every number, in double and rounded once, so that every member
 * sees the same bits. Without test files the last part of the training samples, in the file's order, is the test part.
 * A file must stay as it is while a job trains: members that saw different bytes would compute different models. One
 * that is cut short meanwhile ends the process with a sentence: see dataset_guard().
 * Paths come from a plan and cannot leave the root. May call numerics and common.
 */
#ifndef THOLE_DATA_DATA_H
#define THOLE_DATA_DATA_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/plan/plan.h"
#include "numerics/numerics.h"

#include <stddef.h>
#include <stdint.h>

enum { DATASET_SAMPLES_MOST = 1 << 30 };
#define DATASET_BYTES_MOST (UINT64_C(16) << 30) /* of features */

enum dataset_part { DATASET_TRAIN, DATASET_TEST };

struct dataset; /* opaque, immutable: any number of threads may fetch */

/* Reads a part of the plan's data set below the directory `root`. Errors name the file, the line or sample and the
 * mend: missing, outside the root, truncated, longer than its header says, of another format or shape than the plan's,
 * a label outside the classes, numbers of features and labels that differ, a word where a number should be. */
int dataset_open(struct dataset **out, const char *root, const struct plan *plan, enum dataset_part part,
                 struct error *err);
void dataset_free(struct dataset *dataset);
CLEANUP_DEFINE(cleanup_dataset_pointer, struct dataset, dataset_free)
#define cleanup_dataset CLEANUP(cleanup_dataset_pointer)

/* What dataset_open() would find, for roles that need the numbers and not the samples: from the headers of arrays
 * alone, with errors as there but for what only the content shows; CSV and LibSVM are read through and checked, not
 * kept. */
struct dataset_description {
    uint64_t samples;
    uint32_t shape[3]; /* [C, H, W] of a sample */
};
int dataset_describe(struct dataset_description *out, const char *root, const struct plan *plan, enum dataset_part part,
                     struct error *err);

/* Samples of `shape` as network_build() wants to know them. */
struct network_sample dataset_sample(const struct plan *plan, const uint32_t shape[3]);

/* From now on a file that is cut short while it is mapped ends the process with a sentence on stderr (the kernel raises
 * SIGBUS, and says nothing). For main(), once; the process's handler of SIGBUS is this one. */
int dataset_guard(struct error *err);

uint64_t dataset_samples(const struct dataset *dataset);
const uint32_t *dataset_shape(const struct dataset *dataset); /* [C, H, W] of a sample */

/* Samples at positions [first, first + n) of `order` (NULL: as in the file, and never augmented; else order->n is the
 * number of samples): x [n][C][H][W], targets [n]: the class's number or the value.
 * The training part's images are augmented as the plan says: moved by −padding … +padding rows and columns, what comes
 * in being 0 (a black pixel, normalised), then mirrored by a coin, each a function of (seed, epoch, sample). */
void dataset_fetch(const struct dataset *dataset, const struct permutation *order, uint64_t first, uint32_t n, float *x,
                   float *targets);

/* Samples that are about to be fetched: has the kernel begin to read them where the file is mapped and large. */
void dataset_prefetch(const struct dataset *dataset, const struct permutation *order, uint64_t first, uint64_t n);

#endif
