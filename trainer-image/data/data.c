#include "data/data.h"

#include "data/idx.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { BYTE_VALUES = 256 };

struct dataset {
    uint64_t samples;
    uint32_t shape[3];
    uint64_t plane;               /* H·W */
    uint8_t *features;            /* [samples][C][H][W] */
    uint8_t *labels;              /* [samples] */
    float (*values)[BYTE_VALUES]; /* [C]: what each byte means */
};

void dataset_free(struct dataset *dataset)
{
    if (dataset == NULL)
        return;
    free(dataset->features);
    free(dataset->labels);
    free(dataset->values);
    free(dataset);
}

uint64_t dataset_samples(const struct dataset *dataset)
{
    return dataset->samples;
}

const uint32_t *dataset_shape(const struct dataset *dataset)
{
    return dataset->shape;
}

/* ---- Opening ---- */

enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK }; /* a FIFO must not block before it is refused */

/* For kernels and sandboxes without openat2: step by step, and without any symbolic link. */
static int open_by_steps(int root, const char *path)
{
    cleanup_free char *rest = strdup(path);
    cleanup_fd int at = dup(root);
    if (rest == NULL || at < 0)
        return -1;
    char *place = NULL;
    for (char *step = strtok_r(rest, "/", &place); step != NULL;) {
        char *next = strtok_r(NULL, "/", &place);
        if (strcmp(step, "..") == 0 || path[0] == '/') {
            errno = EXDEV;
            return -1;
        }
        int fd = openat(at, step, OPEN_FLAGS | O_NOFOLLOW | (next == NULL ? 0 : O_DIRECTORY));
        if (fd < 0)
            return -1;
        close(at);
        at = fd;
        step = next;
    }
    return move_fd(&at);
}

static int open_beneath(int root, const char *path)
{
    struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd;
    do
        fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd < 0 && (errno == ENOSYS || errno == EPERM) ? open_by_steps(root, path) : fd;
}

/* Opens a regular file below the directory `root`; neither ".." nor a symbolic link leads out of it. */
static int open_below(int root, const char *root_path, const char *path, struct error *err)
{
    cleanup_fd int fd = open_beneath(root, path);
    struct stat status;
    if (fd < 0 && errno == EXDEV)
        return error_set(err, "data set file '%s' lies outside '%s', the root of the data set's source", path,
                         root_path);
    if (fd < 0 && errno == ENOENT)
        return error_set(err, "data set file '%s' does not exist below '%s', the root of the data set's source", path,
                         root_path);
    if (fd < 0)
        return error_errno(err, "open data set file '%s' below '%s'", path, root_path);
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return error_set(err, "data set file '%s' below '%s' is no regular file", path, root_path);
    return move_fd(&fd);
}

static int read_file(struct idx *out, int root, const char *root_path, const char *path, uint32_t rank_least,
                     uint32_t rank_most, uint64_t bytes_most, struct error *err)
{
    cleanup_fd int fd = open_below(root, root_path, path, err);
    if (fd < 0)
        return -1;
    return idx_read(out, fd, path, rank_least, rank_most, bytes_most, err);
}

/* The shape of one sample: dimensions that the file does not have are 1. */
static void shape_of(const struct idx *features, uint32_t shape[3])
{
    for (int i = 0; i < 3; i++)
        shape[i] = 1;
    for (uint32_t i = 1; i < features->rank; i++)
        shape[3 - features->rank + i] = features->dims[i];
}

static int take_features(struct dataset *dataset, struct idx *features, const struct plan *plan, const char *path,
                         struct error *err)
{
    dataset->features = features->data; /* owned from here, whatever is found wrong */
    dataset->samples = features->dims[0];
    shape_of(features, dataset->shape);
    const uint32_t *have = dataset->shape;
    const uint32_t *want = plan->dataset.shape;
    dataset->plane = (uint64_t)have[1] * have[2];
    if (dataset->samples > DATASET_SAMPLES_MOST)
        return error_set(err, "data set file '%s' has %" PRIu64 " samples; at most %d are read", path, dataset->samples,
                         DATASET_SAMPLES_MOST);
    if (plan->dataset.has_shape && memcmp(have, want, sizeof dataset->shape) != 0)
        return error_set(err,
                         "data set file '%s' has samples of shape %" PRIu32 "×%" PRIu32 "×%" PRIu32
                         ", but the Dataset's spec.shape says %" PRIu32 "×%" PRIu32 "×%" PRIu32,
                         path, have[0], have[1], have[2], want[0], want[1], want[2]);
    if (plan->dataset.channels != 1 && plan->dataset.channels != have[0])
        return error_set(err,
                         "the Dataset's spec.normalize has mean and std for %" PRIu32
                         " channels, and data set file '%s' has samples of %" PRIu32,
                         plan->dataset.channels, path, have[0]);
    return 0;
}

static int check_labels(const struct dataset *dataset, const struct idx *labels, const struct plan_split *split,
                        struct error *err)
{
    if (labels->dims[0] != dataset->samples)
        return error_set(err,
                         "data set file '%s' has %" PRIu32 " labels, and '%s' has %" PRIu64
                         " samples: they do not belong together",
                         split->labels, labels->dims[0], split->features, dataset->samples);
    return 0;
}

static int take_labels(struct dataset *dataset, struct idx *labels, const struct plan *plan,
                       const struct plan_split *split, struct error *err)
{
    dataset->labels = labels->data;
    if (check_labels(dataset, labels, split, err) < 0)
        return -1;
    for (uint64_t i = 0; i < dataset->samples; i++)
        if (dataset->labels[i] >= plan->dataset.classes)
            return error_set(err,
                             "data set file '%s': label %u of sample %" PRIu64 " is not below the Dataset's "
                             "spec.classes, %" PRIu32,
                             split->labels, dataset->labels[i], i, plan->dataset.classes);
    return 0;
}

static int make_values(struct dataset *dataset, const struct plan *plan, struct error *err)
{
    dataset->values = calloc(dataset->shape[0], sizeof dataset->values[0]);
    if (dataset->values == NULL)
        return error_set(err, "out of memory for normalising %" PRIu32 " channels", dataset->shape[0]);
    for (uint32_t c = 0; c < dataset->shape[0]; c++) {
        uint32_t entry = plan->dataset.channels == 1 ? 0 : c;
        for (int byte = 0; byte < BYTE_VALUES; byte++)
            dataset->values[c][byte] =
                (float)((byte * plan->dataset.scale - plan->dataset.mean[entry]) / plan->dataset.std[entry]);
    }
    return 0;
}

int dataset_open(struct dataset **out, const char *root, const struct plan *plan, enum dataset_part part,
                 struct error *err)
{
    const struct plan_split *split = part == DATASET_TRAIN ? &plan->dataset.train : &plan->dataset.test;
    cleanup_fd int root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return error_errno(err, "open '%s', the root of the data set's source", root);
    cleanup_dataset struct dataset *dataset = calloc(1, sizeof *dataset);
    if (dataset == NULL)
        return error_set(err, "out of memory for the data set");

    struct idx features = {0};
    struct idx labels = {0};
    if (read_file(&features, root_fd, root, split->features, 2, IDX_RANK_MOST, DATASET_BYTES_MOST, err) < 0 ||
        take_features(dataset, &features, plan, split->features, err) < 0 ||
        read_file(&labels, root_fd, root, split->labels, 1, 1, DATASET_SAMPLES_MOST, err) < 0 ||
        take_labels(dataset, &labels, plan, split, err) < 0 || make_values(dataset, plan, err) < 0)
        return -1;
    *out = move(dataset);
    return 0;
}

static int read_header_of(struct idx *out, int root, const char *root_path, const char *path, uint32_t rank_least,
                          uint32_t rank_most, uint64_t bytes_most, struct error *err)
{
    cleanup_fd int fd = open_below(root, root_path, path, err);
    if (fd < 0)
        return -1;
    return idx_read_header(out, fd, path, rank_least, rank_most, bytes_most, err);
}

int dataset_describe(struct dataset_description *out, const char *root, const struct plan *plan, enum dataset_part part,
                     struct error *err)
{
    const struct plan_split *split = part == DATASET_TRAIN ? &plan->dataset.train : &plan->dataset.test;
    cleanup_fd int root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return error_errno(err, "open '%s', the root of the data set's source", root);
    struct dataset dataset = {0};
    struct idx features;
    struct idx labels;
    if (read_header_of(&features, root_fd, root, split->features, 2, IDX_RANK_MOST, DATASET_BYTES_MOST, err) < 0 ||
        take_features(&dataset, &features, plan, split->features, err) < 0 ||
        read_header_of(&labels, root_fd, root, split->labels, 1, 1, DATASET_SAMPLES_MOST, err) < 0 ||
        check_labels(&dataset, &labels, split, err) < 0)
        return -1;
    out->samples = dataset.samples;
    memcpy(out->shape, dataset.shape, sizeof out->shape);
    return 0;
}

/* ---- Fetching ---- */

/* The sample at a position of the order, on its way into the caches: a permutation leads to places that nothing else
 * has read lately. */
static uint64_t sample_at(const struct dataset *dataset, const struct permutation *order, uint64_t position)
{
    enum { LINE = 64 };
    const uint64_t sample = order == NULL ? position : permutation_at(order, position);
    const uint64_t size = dataset->shape[0] * dataset->plane;
    for (uint64_t at = 0; at < size && at < (uint64_t)32 * LINE; at += LINE)
        __builtin_prefetch(dataset->features + sample * size + at);
    return sample;
}

void dataset_fetch(const struct dataset *dataset, const struct permutation *order, uint64_t first, uint32_t n, float *x,
                   float *targets)
{
    const uint64_t size = dataset->shape[0] * dataset->plane;
    uint64_t next = n == 0 ? 0 : sample_at(dataset, order, first);
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t sample = next;
        if (i + 1 < n)
            next = sample_at(dataset, order, first + i + 1);
        const uint8_t *bytes = dataset->features + sample * size;
        targets[i] = (float)dataset->labels[sample];
        for (uint32_t c = 0; c < dataset->shape[0]; c++) {
            const float *values = dataset->values[c];
            for (uint64_t j = 0; j < dataset->plane; j++)
                *x++ = values[*bytes++];
        }
    }
}
