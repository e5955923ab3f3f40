/* LibSVM: "label index:value index:value …" a line, indices from 1 and ascending, what is absent is 0, "#" begins a
 * comment. Kept as it is, sparse: a dense file costs twice its floats then, a sparse one next to nothing. */
#include "data/content.h"
#include "data/text.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct libsvm {
    const struct content_files *files;
    enum content_depth depth;
    struct content *content;
    struct text text;
    uint64_t entries; /* that are kept */
};

static void libsvm_free(struct libsvm *libsvm)
{
    text_free(&libsvm->text);
}
#define cleanup_libsvm CLEANUP(libsvm_free)

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* The next word of the line, which is taken off it. */
static bool take_word(struct span *line, struct span *out)
{
    *line = span_trimmed(*line);
    size_t length = 0;
    while (length < line->length && !is_space(line->at[length]))
        length++;
    *out = (struct span){line->at, length};
    line->at += length;
    line->length -= length;
    return length > 0;
}

static int bad_word(const struct libsvm *libsvm, struct span word, const char *what, struct error *err)
{
    return error_set(err, "data set file '%s', line %" PRIu64 ": '%s' %s", libsvm->files->features_name,
                     libsvm->text.line, span_shown(word).text, what);
}

static int take_label(const struct libsvm *libsvm, struct span word, float *out, struct error *err)
{
    const struct plan *plan = libsvm->files->plan;
    double label;
    struct error why = {0};
    if (!span_number(word, &label))
        return bad_word(libsvm, word, "is no number, and a line must begin with its label", err);
    if (plan->dataset.classes == 2 && label == -1)
        label = 0; /* the format's own custom: −1 and 1 */
    return content_target(plan, label, out, &why) < 0 ? bad_word(libsvm, word, error_message(&why), err) : 0;
}

/* "index:value"; *last is the index before, from 1. */
static int take_entry(const struct libsvm *libsvm, struct span word, uint32_t *last, struct sparse_entry *out,
                      struct error *err)
{
    const uint32_t features = libsvm->files->plan->dataset.features;
    const uint32_t *shape = libsvm->content->shape;
    uint64_t index = 0;
    size_t at = 0;
    for (; at < word.length && word.at[at] >= '0' && word.at[at] <= '9' && index <= features; at++)
        index = index * 10 + (uint64_t)(word.at[at] - '0');
    if (index > features)
        return bad_word(libsvm, word, "has an index above the Dataset's spec.libsvm.features", err);
    double value;
    if (at == 0 || at == word.length || word.at[at] != ':' ||
        !span_number((struct span){word.at + at + 1, word.length - at - 1}, &value))
        return bad_word(libsvm, word, "is no index:value", err);
    if (index == 0)
        return bad_word(libsvm, word, "has the index 0: indices begin at 1", err);
    if (index <= *last)
        return bad_word(libsvm, word, "has an index that is not above the one before: they must ascend", err);
    *last = (uint32_t)index;
    out->place = (uint32_t)index - 1;
    out->value = normalised(content_normalisation(libsvm->files->plan, out->place / (shape[1] * shape[2])), value);
    return isfinite(out->value) ? 0 : bad_word(libsvm, word, "has a value too large for a 32-bit float", err);
}

static int take_entries(struct libsvm *libsvm, struct span line, struct error *err)
{
    struct region *entries = &libsvm->content->entries;
    uint32_t last = 0;
    struct span word;
    while (take_word(&line, &word)) {
        struct sparse_entry entry;
        if (take_entry(libsvm, word, &last, &entry, err) < 0)
            return -1;
        if (libsvm->depth == CONTENT_DESCRIBED)
            continue;
        if (region_grow(entries, (libsvm->entries + 1) * sizeof entry, DATASET_BYTES_MOST, libsvm->files->features_name,
                        err) < 0)
            return -1;
        memcpy(entries->base + libsvm->entries++ * sizeof entry, &entry, sizeof entry);
    }
    return 0;
}

static int take_sample(struct libsvm *libsvm, struct span line, struct error *err)
{
    struct content *content = libsvm->content;
    const char *name = libsvm->files->features_name;
    const char *comment = line.length == 0 ? NULL : memchr(line.at, '#', line.length);
    if (comment != NULL)
        line.length = (size_t)(comment - line.at);
    struct span word;
    if (!take_word(&line, &word))
        return 0;
    if (content->samples == DATASET_SAMPLES_MOST)
        return error_set(err, "data set file '%s' has more than %d samples", name, DATASET_SAMPLES_MOST);
    const uint64_t at = libsvm->depth == CONTENT_DESCRIBED ? 0 : content->samples;
    if (region_grow(&content->targets, (at + 1) * sizeof(float), DATASET_BYTES_MOST, name, err) < 0 ||
        region_grow(&content->offsets, (at + 2) * sizeof(uint64_t), DATASET_BYTES_MOST, name, err) < 0 ||
        take_label(libsvm, word, (float *)(void *)content->targets.base + at, err) < 0 ||
        take_entries(libsvm, line, err) < 0)
        return -1;
    ((uint64_t *)(void *)content->offsets.base)[at + 1] = libsvm->entries;
    content->samples++;
    return 0;
}

int libsvm_content(struct content *out, const struct content_files *files, enum content_depth depth, struct error *err)
{
    cleanup_libsvm struct libsvm libsvm = {.files = files, .depth = depth, .content = out};
    if (content_shape_vector(out, files, files->plan->dataset.features, err) < 0 ||
        text_open(&libsvm.text, files->features, files->features_name, err) < 0)
        return -1;
    struct span line;
    int got;
    while ((got = text_line(&libsvm.text, &line, err)) > 0)
        if (take_sample(&libsvm, line, err) < 0)
            return -1;
    if (got < 0)
        return -1;
    return out->samples > 0 ? 0 : error_set(err, "data set file '%s' has no samples", files->features_name);
}
