/* CSV (RFC 4180): a label, numbers and categories in columns; see columns.h for what they become. */
#include "data/columns.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct csv {
    const struct content_files *files;
    enum content_depth depth;
    struct content *content;
    struct text text;
    struct record record;
    struct columns columns;
    struct normalisation *by; /* [numeric] */
    uint32_t size;            /* of a sample */
};

static void csv_free(struct csv *csv)
{
    text_free(&csv->text);
    record_free(&csv->record);
    columns_free(&csv->columns);
    free(csv->by);
}
#define cleanup_csv CLEANUP(csv_free)

/* ---- The first line ---- */

static int first_record(struct text *text, struct record *record, struct error *err)
{
    int got = text_record(text, record, err);
    if (got == 0)
        return error_set(err, "data set file '%s' is empty", text->source.name);
    return got;
}

/* Columns mean the same in all parts only if they stand in the same order. */
static int check_header(const struct csv *csv, struct error *err)
{
    cleanup_text struct text text = {0};
    cleanup_record struct record record = {0};
    const struct content_files *files = csv->files;
    const struct columns *columns = &csv->columns;
    if (text_open(&text, files->first, files->first_name, err) < 0 || first_record(&text, &record, err) < 0)
        return -1;
    for (uint32_t i = 0; i < columns->count && i < record.count; i++) {
        struct span name = span_trimmed(record.fields[i]);
        if (strlen(columns->names[i]) != name.length || memcmp(columns->names[i], name.at, name.length) != 0)
            return error_set(err,
                             "data set file '%s' has a column '%s' where '%s' has '%s': both need the same columns in "
                             "the same order",
                             files->features_name, columns_name(columns, i).text, files->first_name,
                             span_shown(name).text);
    }
    if (columns->count != record.count)
        return error_set(err, "data set file '%s' has %" PRIu32 " columns, and '%s' has %" PRIu32, files->features_name,
                         columns->count, files->first_name, record.count);
    return 0;
}

static int make_normalisation(struct csv *csv, struct error *err)
{
    const uint32_t plane = csv->content->shape[1] * csv->content->shape[2];
    csv->by = calloc(csv->columns.numeric + 1, sizeof *csv->by);
    if (csv->by == NULL)
        return error_set(err, "out of memory for normalising the columns of data set file '%s'",
                         csv->files->features_name);
    for (uint32_t i = 0; i < csv->columns.numeric; i++)
        csv->by[i] = content_normalisation(csv->files->plan, i / plane);
    return 0;
}

static int begin(struct csv *csv, struct error *err)
{
    const struct content_files *files = csv->files;
    const struct plan *plan = files->plan;
    if (text_open(&csv->text, files->features, files->features_name, err) < 0 ||
        first_record(&csv->text, &csv->record, err) < 0 ||
        columns_of(&csv->columns, plan, &csv->record, files->features_name, err) < 0)
        return -1;
    csv->size = csv->columns.numeric + plan->dataset.csv.categorical_count;
    if (content_shape_vector(csv->content, files, csv->size, err) < 0 || make_normalisation(csv, err) < 0)
        return -1;
    return plan->dataset.csv.header && files->first >= 0 ? check_header(csv, err) : 0;
}

/* ---- The lines with samples ---- */

static int bad_field(const struct csv *csv, uint32_t column, const char *what, struct error *err)
{
    return error_set(err, "data set file '%s', line %" PRIu64 ", column '%s': '%s' %s", csv->files->features_name,
                     csv->record.line, columns_name(&csv->columns, column).text,
                     span_shown(csv->record.fields[column]).text, what);
}

static int take_label(const struct csv *csv, float *out, struct error *err)
{
    const uint32_t column = csv->columns.label;
    double label;
    struct error why = {0};
    if (!span_number(span_trimmed(csv->record.fields[column]), &label))
        return bad_field(csv, column, "is no number, and a label must be one", err);
    if (content_target(csv->files->plan, label, out, &why) < 0)
        return bad_field(csv, column, error_message(&why), err);
    return 0;
}

static int take_number(const struct csv *csv, uint32_t column, float *out, struct error *err)
{
    const struct span text = span_trimmed(csv->record.fields[column]);
    if (columns_is_missing(csv->files->plan, text)) {
        *out = 0; /* as if it were the mean */
        return 0;
    }
    double number;
    if (!span_number(text, &number))
        return bad_field(csv, column,
                         "is no number: leave a missing value empty or say in spec.csv.missing what stands for it, and "
                         "name a column of words in spec.csv.categorical",
                         err);
    *out = normalised(csv->by[csv->columns.places[column]], number);
    return isfinite(*out) ? 0 : bad_field(csv, column, "is too large for a 32-bit float", err);
}

static int take_fields(const struct csv *csv, float *x, float *target, struct error *err)
{
    const struct columns *columns = &csv->columns;
    if (csv->record.count != columns->count)
        return error_set(err,
                         "data set file '%s', line %" PRIu64 " has %" PRIu32 " columns, and the first has %" PRIu32,
                         csv->files->features_name, csv->record.line, csv->record.count, columns->count);
    if (take_label(csv, target, err) < 0)
        return -1;
    for (uint32_t i = 0; i < columns->count; i++) {
        const uint32_t place = columns->places[i];
        if (i == columns->label)
            continue;
        if (place >= columns->numeric)
            x[place] = (float)columns_id(columns, place - columns->numeric, csv->record.fields[i]);
        else if (take_number(csv, i, &x[place], err) < 0)
            return -1;
    }
    return 0;
}

static int take_sample(struct csv *csv, struct error *err)
{
    struct content *content = csv->content;
    const char *name = csv->files->features_name;
    const uint64_t width = csv->size * sizeof(float);
    /* What is only described needs room for one. */
    const uint64_t at = csv->depth == CONTENT_DESCRIBED ? 0 : content->samples;
    if (content->samples == DATASET_SAMPLES_MOST)
        return error_set(err, "data set file '%s' has more than %d samples", name, DATASET_SAMPLES_MOST);
    if (region_grow(&content->rows, (at + 1) * width, DATASET_BYTES_MOST, name, err) < 0 ||
        region_grow(&content->targets, (at + 1) * sizeof(float), DATASET_BYTES_MOST, name, err) < 0)
        return -1;
    float *rows = (float *)(void *)content->rows.base;
    float *targets = (float *)(void *)content->targets.base;
    content->samples++;
    return take_fields(csv, rows + at * csv->size, targets + at, err);
}

int csv_content(struct content *out, const struct content_files *files, enum content_depth depth, struct error *err)
{
    cleanup_csv struct csv csv = {.files = files, .depth = depth, .content = out};
    if (begin(&csv, err) < 0)
        return -1;
    int got = 1;
    if (files->plan->dataset.csv.header)
        got = text_record(&csv.text, &csv.record, err);
    for (; got > 0; got = text_record(&csv.text, &csv.record, err))
        if (take_sample(&csv, err) < 0)
            return -1;
    if (got < 0)
        return -1;
    return out->samples > 0 ? 0
                            : error_set(err, "data set file '%s' has a header and no samples", files->features_name);
}
