/* data — data sets in memory: read from files below a root, checked, handed out as normalised samples.
 *
 * Today's format is IDX (MNIST's), plain or gzip by content, with one unsigned byte an element: features of rank 2 to 4
 * ([n][w], [n][h][w] or [n][c][h][w]), labels of rank 1. Samples are kept as bytes; fetching turns them into floats by
 * one fixed formula, so every member sees the same bits. Paths come from a plan and cannot leave the root.
 * May call numerics and common.
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
#define DATASET_BYTES_MOST (UINT64_C(16) << 30) /* of features in memory */

enum dataset_part { DATASET_TRAIN, DATASET_TEST };

struct dataset; /* opaque, immutable: any number of threads may fetch */

/* Reads a part of the plan's data set below the directory `root`. Errors name the file and the mend: missing, outside
 * the root, truncated, longer than its header says, no IDX, another shape than the plan's, a label outside the
 * classes, numbers of features and labels that differ. */
int dataset_open(struct dataset **out, const char *root, const struct plan *plan, enum dataset_part part,
                 struct error *err);
void dataset_free(struct dataset *dataset);

/* What dataset_open() would find, from the files' headers alone: for roles that need the numbers and not the samples.
 * Errors as there, but for what only the content shows. */
struct dataset_description {
    uint64_t samples;
    uint32_t shape[3]; /* [C, H, W] of a sample */
};
int dataset_describe(struct dataset_description *out, const char *root, const struct plan *plan, enum dataset_part part,
                     struct error *err);
CLEANUP_DEFINE(cleanup_dataset_pointer, struct dataset, dataset_free)
#define cleanup_dataset CLEANUP(cleanup_dataset_pointer)

uint64_t dataset_samples(const struct dataset *dataset);
const uint32_t *dataset_shape(const struct dataset *dataset); /* [C, H, W] of a sample, as model_build() wants it */

/* Samples at positions [first, first + n) of `order` (NULL: as in the file; else order->n is the number of samples):
 *   x [n][C][H][W]: (byte · scale − mean[c]) / std[c] in double, rounded once to float      targets [n]: the label */
void dataset_fetch(const struct dataset *dataset, const struct permutation *order, uint64_t first, uint32_t n, float *x,
                   float *targets);

#endif
