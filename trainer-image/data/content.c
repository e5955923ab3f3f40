#include "data/content.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void content_free(struct content *content)
{
    array_free(&content->features);
    region_free(&content->rows);
    region_free(&content->entries);
    region_free(&content->offsets);
    region_free(&content->targets);
}

struct normalisation content_normalisation(const struct plan *plan, uint32_t c)
{
    const uint32_t entry = plan->dataset.channels == 1 ? 0 : c;
    return (struct normalisation){plan->dataset.scale, plan->dataset.mean[entry], plan->dataset.std[entry]};
}

int content_target(const struct plan *plan, double label, float *out, struct error *why)
{
    const uint32_t classes = plan->dataset.classes;
    *out = (float)label;
    if (classes == 0)
        return isfinite(*out) ? 0 : error_set(why, "is no finite 32-bit float");
    if (label >= classes)
        return error_set(why, "is not below the Dataset's spec.classes, %" PRIu32, classes);
    if (!(label >= 0) || trunc(label) != label)
        return error_set(why, "is no class: with spec.classes %" PRIu32 " labels are whole numbers from 0 to %" PRIu32,
                         classes, classes - 1);
    return 0;
}

/* ---- Shapes ---- */

static int other_shape(const uint32_t have[3], const struct content_files *files, struct error *err)
{
    const uint32_t *want = files->plan->dataset.shape;
    return error_set(err,
                     "data set file '%s' has samples of shape %" PRIu32 "×%" PRIu32 "×%" PRIu32
                     ", but the Dataset's spec.shape says %" PRIu32 "×%" PRIu32 "×%" PRIu32,
                     files->features_name, have[0], have[1], have[2], want[0], want[1], want[2]);
}

/* Vectors may be what spec.shape says; shapes that the file itself has must be equal to it. */
static int take_shape(struct content *content, const struct content_files *files, const uint32_t have[3],
                      bool is_vector, struct error *err)
{
    const struct plan *plan = files->plan;
    const uint32_t *want = plan->dataset.shape;
    memcpy(content->shape, have, sizeof content->shape);
    if (plan->dataset.has_shape) {
        bool equal = memcmp(have, want, sizeof content->shape) == 0;
        bool same_size =
            (uint64_t)have[0] * have[1] * have[2] == (uint64_t)want[0] * want[1] * want[2]; /* both far below 2^64 */
        if (!equal && !(is_vector && same_size))
            return other_shape(have, files, err);
        memcpy(content->shape, want, sizeof content->shape);
    }
    const uint32_t channels = plan->dataset.channels;
    const uint32_t numeric = content->shape[0] - plan->dataset.csv.categorical_count;
    if (channels != 1 && channels != content->shape[0] && channels != numeric)
        return error_set(err,
                         "the Dataset's spec.normalize has mean and std for %" PRIu32
                         " channels, and data set file '%s' has samples of %" PRIu32,
                         channels, files->features_name, content->shape[0]);
    const bool is_image = content->shape[1] > 1 && content->shape[2] > 1;
    if ((plan->training.flip_horizontal || plan->training.crop_padding > 0) && !is_image)
        return error_set(err,
                         "spec.training.augmentation is for images, and data set file '%s' has samples of shape "
                         "%" PRIu32 "×%" PRIu32 "×%" PRIu32 ": leave it out",
                         files->features_name, content->shape[0], content->shape[1], content->shape[2]);
    return 0;
}

int content_shape_vector(struct content *content, const struct content_files *files, uint64_t size, struct error *err)
{
    const uint32_t have[3] = {(uint32_t)size, 1, 1};
    return take_shape(content, files, have, true, err);
}

/* ---- Arrays ---- */

/* The shape of one sample: dimensions that the file does not have are 1. */
static int array_shape(struct content *content, const struct array *features, const struct content_files *files,
                       struct error *err)
{
    uint32_t have[3] = {1, 1, 1};
    uint64_t size = 1;
    for (uint32_t i = 1; i < features->rank; i++) {
        if (features->dims[i] > NETWORK_ELEMENTS_MOST / size)
            return error_set(err, "data set file '%s' has samples of more than %d elements", files->features_name,
                             NETWORK_ELEMENTS_MOST);
        size *= features->dims[i];
        have[3 - features->rank + i] = (uint32_t)features->dims[i];
    }
    return take_shape(content, files, have, features->rank == 2, err);
}

static int take_samples(struct content *content, uint64_t samples, const char *name, struct error *err)
{
    content->samples = samples;
    if (samples > DATASET_SAMPLES_MOST)
        return error_set(err, "data set file '%s' has %" PRIu64 " samples; at most %d are read", name, samples,
                         DATASET_SAMPLES_MOST);
    return 0;
}

static int check_rank(const struct array *array, const char *name, bool labels, struct error *err)
{
    /* A column of labels, [n][1], is what tables are saved as. */
    bool column = labels && array->rank == 2 && array->dims[1] == 1;
    if (array->rank == 1 ? labels : column || (!labels && array->rank >= 2))
        return 0;
    return error_set(err,
                     "data set file '%s' has rank %" PRIu32 " where %s is expected: are features and labels swapped?",
                     name, array->rank, labels ? "1" : "2 to 4");
}

static int read_targets(struct content *content, const struct array *labels, const struct content_files *files,
                        struct error *err)
{
    if (region_make(&content->targets, content->samples * sizeof(float), files->labels_name, err) < 0)
        return -1;
    float *targets = (float *)(void *)content->targets.base;
    for (uint64_t i = 0; i < content->samples; i++) {
        struct error why = {0};
        double label = array_value(labels, i);
        if (content_target(files->plan, label, &targets[i], &why) < 0)
            return error_set(err, "data set file '%s': label %.9g of sample %" PRIu64 " %s", files->labels_name, label,
                             i, error_message(&why));
    }
    return 0;
}

static int open_array(struct array *out, struct source *source, int fd, const char *name, bool labels,
                      array_header_function *header, struct error *err)
{
    const uint64_t most = labels ? (uint64_t)DATASET_SAMPLES_MOST * sizeof(double) : DATASET_BYTES_MOST;
    if (source_open(source, fd, name, err) < 0 || header(out, source, err) < 0 ||
        check_rank(out, name, labels, err) < 0)
        return -1;
    return array_measure(out, name, most, err);
}

static int array_features(struct content *content, const struct content_files *files, enum content_depth depth,
                          array_header_function *header, struct error *err)
{
    cleanup_source struct source source = {0};
    struct array *features = &content->features;
    if (open_array(features, &source, files->features, files->features_name, false, header, err) < 0 ||
        take_samples(content, features->dims[0], files->features_name, err) < 0 ||
        array_shape(content, features, files, err) < 0)
        return -1;
    return depth == CONTENT_DESCRIBED ? 0 : array_load(features, &source, err);
}

static int array_labels(struct content *content, const struct content_files *files, enum content_depth depth,
                        array_header_function *header, struct error *err)
{
    cleanup_source struct source source = {0};
    cleanup_array struct array labels = {0};
    if (open_array(&labels, &source, files->labels, files->labels_name, true, header, err) < 0)
        return -1;
    if (labels.dims[0] != content->samples)
        return error_set(err,
                         "data set file '%s' has %" PRIu64 " labels, and '%s' has %" PRIu64
                         " samples: they do not belong together",
                         files->labels_name, labels.dims[0], files->features_name, content->samples);
    if (depth == CONTENT_DESCRIBED)
        return 0;
    return array_load(&labels, &source, err) < 0 ? -1 : read_targets(content, &labels, files, err);
}

int content_of_arrays(struct content *out, const struct content_files *files, enum content_depth depth,
                      array_header_function *header, struct error *err)
{
    return array_features(out, files, depth, header, err) < 0 ? -1 : array_labels(out, files, depth, header, err);
}
