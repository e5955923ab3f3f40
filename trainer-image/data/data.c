#include "data/data.h"

#include "data/augment.h"
#include "data/content.h"
#include "data/files.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

enum { BYTE_VALUES = 256, CACHE_LINE = 64 };

/* Mappings up to this are asked for as a whole when they are opened; of larger ones only what the next step needs. */
#define READ_AHEAD_WHOLE (UINT64_C(256) << 20)

struct dataset {
    struct content content;
    uint64_t first, samples;      /* the part of the content that this is */
    uint64_t plane;               /* H·W */
    uint64_t size;                /* C·H·W */
    struct normalisation *by;     /* [C] */
    float *zero;                  /* [C]: what 0 means */
    float (*values)[BYTE_VALUES]; /* [C]: what each byte means; NULL: elements are no bytes */
    struct augment augment;
    bool piecemeal; /* dataset_prefetch() has something to do */
};

void dataset_free(struct dataset *dataset)
{
    if (dataset == NULL)
        return;
    content_free(&dataset->content);
    free(dataset->by);
    free(dataset->zero);
    free(dataset->values);
    free(dataset);
}

uint64_t dataset_samples(const struct dataset *dataset)
{
    return dataset->samples;
}

const uint32_t *dataset_shape(const struct dataset *dataset)
{
    return dataset->content.shape;
}

/* ---- Opening ---- */

static int read_content(struct content *out, const char *root, const struct plan *plan, enum dataset_part part,
                        enum content_depth depth, struct error *err)
{
    static content_function *const formats[] = {
        [PLAN_FORMAT_IDX] = idx_content,
        [PLAN_FORMAT_NPY] = npy_content,
        [PLAN_FORMAT_CSV] = csv_content,
        [PLAN_FORMAT_LIBSVM] = libsvm_content,
    };
    const struct plan_split *train = &plan->dataset.train;
    const bool other = part == DATASET_TEST && plan->dataset.test.features != NULL;
    const struct plan_split *split = other ? &plan->dataset.test : train;
    cleanup_fd int root_fd = files_open_root(root, err);
    if (root_fd < 0)
        return -1;
    cleanup_fd int features = files_open_below(root_fd, root, split->features, err);
    if (features < 0)
        return -1;
    cleanup_fd int labels = split->labels == NULL ? -1 : files_open_below(root_fd, root, split->labels, err);
    cleanup_fd int first = other ? files_open_below(root_fd, root, train->features, err) : -1;
    if ((split->labels != NULL && labels < 0) || (other && first < 0))
        return -1;
    const struct content_files files = {plan, features, labels, split->features, split->labels, first, train->features};
    return formats[plan->dataset.format](out, &files, depth, err);
}

/* How many of `samples` training samples are the test part: ⌊samples · validationSplit⌋, at least 1; 0 with test files.
 */
static uint64_t samples_held_back(const struct plan *plan, uint64_t samples)
{
    const double split = plan->training.validation_split;
    if (plan->dataset.test.features != NULL || split == 0)
        return 0;
    const uint64_t part = (uint64_t)((double)samples * split);
    return part == 0 ? 1 : part;
}

/* Which of the files' samples are the part: all, or without test files what samples_held_back() says. */
static int find_part(const struct plan *plan, enum dataset_part part, uint64_t samples, uint64_t *first,
                     uint64_t *count, struct error *err)
{
    *first = 0;
    *count = samples;
    if (plan->dataset.test.features != NULL)
        return 0;
    const uint64_t held_back = samples_held_back(plan, samples);
    if (held_back == 0 && part == DATASET_TEST)
        return error_set(err, "the Dataset has no test files, and spec.training.validationSplit is 0: set one of them");
    if (held_back == samples)
        return error_set(err,
                         "data set file '%s' has one sample, and spec.training.validationSplit needs one to train "
                         "and one to validate",
                         plan->dataset.train.features);
    *first = part == DATASET_TEST ? samples - held_back : 0;
    *count = part == DATASET_TEST ? held_back : samples - held_back;
    return 0;
}

/* Lets go of the samples of other parts. */
static void keep_part(struct dataset *dataset)
{
    struct content *content = &dataset->content;
    const uint64_t begin = dataset->first, end = begin + dataset->samples;
    if (content->features.region.base != NULL) {
        const uint64_t width = content->features.size / content->samples;
        const uint64_t header = (uint64_t)(content->features.data - content->features.region.base);
        region_keep(&content->features.region, header + begin * width, header + end * width);
    }
    const uint64_t row = dataset->size * sizeof(float);
    region_keep(&content->rows, begin * row, end * row);
    region_keep(&content->targets, begin * sizeof(float), end * sizeof(float));
    if (content->offsets.base != NULL) {
        const uint64_t *offsets = (const uint64_t *)(void *)content->offsets.base;
        const uint64_t entry = sizeof(struct sparse_entry);
        region_keep(&content->entries, offsets[begin] * entry, offsets[end] * entry);
        region_keep(&content->offsets, begin * sizeof *offsets, (end + 1) * sizeof *offsets);
    }
}

static int make_values(struct dataset *dataset, const struct plan *plan, struct error *err)
{
    const uint32_t channels = dataset->content.shape[0];
    const enum element element = dataset->content.features.element;
    const bool bytes = dataset->content.features.data != NULL && element_size(element) == 1;
    dataset->by = calloc(channels, sizeof *dataset->by);
    dataset->zero = calloc(channels, sizeof *dataset->zero);
    dataset->values = bytes ? calloc(channels, sizeof *dataset->values) : NULL;
    if (dataset->by == NULL || dataset->zero == NULL || (bytes && dataset->values == NULL))
        return error_set(err, "out of memory for normalising %" PRIu32 " channels", channels);
    const uint32_t numeric = channels - plan->dataset.csv.categorical_count;
    for (uint32_t c = 0; c < numeric; c++) {
        const struct normalisation by = dataset->by[c] = content_normalisation(plan, c);
        dataset->zero[c] = normalised(by, 0);
        for (int byte = 0; bytes && byte < BYTE_VALUES; byte++)
            dataset->values[c][byte] = normalised(by, element == ELEMENT_I8 ? (int8_t)byte : byte);
    }
    return 0;
}

static void read_ahead(struct dataset *dataset)
{
    const struct array *features = &dataset->content.features;
    if (!features->mapped)
        return;
    /* The order of samples is no order in the file: what lies beside a sample is of no use, but for the whole. */
    dataset->piecemeal = features->region.length > READ_AHEAD_WHOLE;
    madvise(features->region.base, features->region.length, dataset->piecemeal ? MADV_RANDOM : MADV_WILLNEED);
}

int dataset_open(struct dataset **out, const char *root, const struct plan *plan, enum dataset_part part,
                 struct error *err)
{
    cleanup_dataset struct dataset *dataset = calloc(1, sizeof *dataset);
    if (dataset == NULL)
        return error_set(err, "out of memory for the data set");
    struct content *content = &dataset->content;
    if (read_content(content, root, plan, part, CONTENT_READ, err) < 0 ||
        find_part(plan, part, content->samples, &dataset->first, &dataset->samples, err) < 0)
        return -1;
    dataset->plane = (uint64_t)content->shape[1] * content->shape[2];
    dataset->size = content->shape[0] * dataset->plane;
    if (part == DATASET_TRAIN)
        dataset->augment = (struct augment){plan->training.flip_horizontal, plan->training.crop_padding};
    if (make_values(dataset, plan, err) < 0)
        return -1;
    keep_part(dataset);
    read_ahead(dataset);
    *out = move(dataset);
    return 0;
}

int dataset_describe(struct dataset_description *out, const char *root, const struct plan *plan, enum dataset_part part,
                     struct error *err)
{
    cleanup_content struct content content = {0};
    uint64_t first;
    if (read_content(&content, root, plan, part, CONTENT_DESCRIBED, err) < 0 ||
        find_part(plan, part, content.samples, &first, &out->samples, err) < 0)
        return -1;
    memcpy(out->shape, content.shape, sizeof out->shape);
    return 0;
}

struct network_sample dataset_sample(const struct plan *plan, const uint32_t shape[3])
{
    return (struct network_sample){
        .shape = {shape[0], shape[1], shape[2]},
        .categories = plan->dataset.csv.categorical_count,
        .rows = plan_category_rows(plan),
        .classes = plan->dataset.classes,
    };
}

/* ---- Fetching ---- */

/* The content's sample at a position of the order, on its way into the caches: a permutation leads to places that
 * nothing else has read lately. */
static uint64_t sample_at(const struct dataset *dataset, const struct permutation *order, uint64_t position)
{
    enum { LINES = 32 };
    const struct content *content = &dataset->content;
    const uint64_t sample = dataset->first + (order == NULL ? position : permutation_at(order, position));
    const uint8_t *data = content->features.data;
    uint64_t width = dataset->size * (data == NULL ? sizeof(float) : element_size(content->features.element));
    if (data == NULL)
        data = content->rows.base;
    for (uint64_t at = 0; data != NULL && at < width && at < (uint64_t)LINES * CACHE_LINE; at += CACHE_LINE)
        __builtin_prefetch(data + sample * width + at);
    return sample;
}

/* By way of a buffer in the first-level cache: x mostly is not there, and lines come faster than floats. */
static void look_up(const float values[256], const uint8_t *bytes, uint64_t n, float *x)
{
    enum { SOME = 256 };
    float some[SOME];
    for (uint64_t at = 0; at < n; at += SOME) {
        const size_t count = n - at < SOME ? n - at : SOME;
#pragma GCC unroll 8
        for (size_t i = 0; i < count; i++)
            some[i] = values[bytes[at + i]];
        memcpy(x + at, some, count * sizeof *x);
    }
}

/* `n` elements of the sample, of one channel, from element `at` on: of arrays. */
static void fetch_elements(const struct dataset *dataset, uint64_t sample, uint32_t c, uint64_t at, uint64_t n,
                           float *x)
{
    const struct array *features = &dataset->content.features;
    const uint64_t begin = sample * dataset->size + at;
    if (dataset->values == NULL) {
        const struct normalisation by = dataset->by[c];
        array_normalise(features, begin, n, by.scale, by.mean, by.std, x);
        return;
    }
    look_up(dataset->values[c], features->data + begin, n, x);
}

static void fetch_sparse(const struct dataset *dataset, uint64_t sample, float *x)
{
    const uint64_t *offsets = (const uint64_t *)(void *)dataset->content.offsets.base;
    const struct sparse_entry *entries = (const struct sparse_entry *)(void *)dataset->content.entries.base;
    for (uint64_t c = 0; c < dataset->content.shape[0]; c++)
        for (uint64_t i = 0; i < dataset->plane; i++)
            x[c * dataset->plane + i] = dataset->zero[c];
    for (uint64_t i = offsets[sample]; i < offsets[sample + 1]; i++)
        x[entries[i].place] = entries[i].value;
}

static void fetch_one(const struct dataset *dataset, uint64_t sample, float *x)
{
    const struct content *content = &dataset->content;
    if (content->features.data != NULL)
        for (uint32_t c = 0; c < content->shape[0]; c++)
            fetch_elements(dataset, sample, c, c * dataset->plane, dataset->plane, x + c * dataset->plane);
    else if (content->rows.base != NULL)
        memcpy(x, content->rows.base + sample * dataset->size * sizeof *x, dataset->size * sizeof *x);
    else
        fetch_sparse(dataset, sample, x);
}

void dataset_fetch(const struct dataset *dataset, const struct permutation *order, uint64_t first, uint32_t n, float *x,
                   float *targets)
{
    const float *labels = (const float *)(void *)dataset->content.targets.base;
    const bool augmented = order != NULL && augment_any(&dataset->augment);
    uint64_t next = n == 0 ? 0 : sample_at(dataset, order, first);
    for (uint32_t i = 0; i < n; i++, x += dataset->size) {
        const uint64_t sample = next;
        if (i + 1 < n)
            next = sample_at(dataset, order, first + i + 1);
        targets[i] = labels[sample];
        fetch_one(dataset, sample, x);
        if (augmented) {
            const struct augment_move how = augment_of(&dataset->augment, order, sample);
            augment_apply(&how, dataset->content.shape, dataset->zero, x);
        }
    }
}

/* ---- Reading ahead ---- */

enum { ASKED_AT_ONCE = 256 };

/* By insertion: few, and no memory. */
static void sort(uint64_t *values, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        const uint64_t value = values[i];
        uint32_t at = i;
        for (; at > 0 && values[at - 1] > value; at--)
            values[at] = values[at - 1];
        values[at] = value;
    }
}

/* Asks the kernel for the pages of some samples, ascending; those that follow each other at once. */
static void ask_for(const struct dataset *dataset, const uint64_t *samples, uint32_t n)
{
    const struct array *features = &dataset->content.features;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t width = features->size / dataset->content.samples;
    const uint64_t header = (uint64_t)(features->data - features->region.base);
    uint64_t begin = 0, end = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t at = (header + samples[i] * width) / page * page;
        if (at > end) {
            madvise(features->region.base + begin, end - begin, MADV_WILLNEED);
            begin = at;
        }
        end = (header + (samples[i] + 1) * width + page - 1) / page * page;
    }
    madvise(features->region.base + begin, end - begin, MADV_WILLNEED);
}

void dataset_prefetch(const struct dataset *dataset, const struct permutation *order, uint64_t first, uint64_t n)
{
    uint64_t samples[ASKED_AT_ONCE];
    while (dataset->piecemeal && n > 0) {
        const uint32_t some = n < ASKED_AT_ONCE ? (uint32_t)n : ASKED_AT_ONCE;
        for (uint32_t i = 0; i < some; i++)
            samples[i] = dataset->first + (order == NULL ? first + i : permutation_at(order, first + i));
        sort(samples, some);
        ask_for(dataset, samples, some);
        first += some;
        n -= some;
    }
}
