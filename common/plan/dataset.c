/* What a plan says of its data set. */
#include "common/plan/rows.h"

#include <math.h>
#include <string.h>

enum { SHAPE_MOST = 1 << 20, COLUMN_NAME_MOST = 253, WORD_MOST = 253, MISSING_MOST = 64 };

static const char *const formats[] = {
    [PLAN_FORMAT_IDX] = "IDX", [PLAN_FORMAT_NPY] = "NPY", [PLAN_FORMAT_CSV] = "CSV", [PLAN_FORMAT_LIBSVM] = "LibSVM"};
enum { FORMATS = sizeof formats / sizeof formats[0] };

static bool labels_are_inside(const struct plan *plan)
{
    return plan->dataset.format == PLAN_FORMAT_CSV || plan->dataset.format == PLAN_FORMAT_LIBSVM;
}

/* ---- files ---- */

static int read_split(const struct plan *plan, struct plan_split *split, const struct source *source,
                      const struct place places[2], struct error *err)
{
    if (read_path(source, &places[0], false, &split->features, err) < 0)
        return -1;
    bool inside = labels_are_inside(plan);
    if (inside && place_value(source, &places[1]) != NULL)
        return error_set(err, "%s: a %s file holds its labels itself; leave it out", places[1].path,
                         formats[plan->dataset.format]);
    return inside ? 0 : read_path(source, &places[1], false, &split->labels, err);
}

static int read_files(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place name = {.path = "metadata.name", .of_dataset = true, .plan_path = "dataset.name"};
    static const struct place train[2] = {{.path = "spec.train.features", .of_dataset = true},
                                          {.path = "spec.train.labels", .of_dataset = true}};
    static const struct place test[2] = {{.path = "spec.test.features", .of_dataset = true},
                                         {.path = "spec.test.labels", .of_dataset = true}};
    static const struct place any_test = {.path = "spec.test", .of_dataset = true};
    if (read_text(source, &name, PLAN_TEXT_MOST, false, &plan->dataset.name, err) < 0 ||
        read_split(plan, &plan->dataset.train, source, train, err) < 0)
        return -1;
    return place_value(source, &any_test) == NULL ? 0 : read_split(plan, &plan->dataset.test, source, test, err);
}

/* ---- shape and normalisation ---- */

static int read_shape(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place place = {.path = "spec.shape", .of_dataset = true};
    const cJSON *shape = place_value(source, &place);
    if (shape == NULL)
        return 0;
    plan->dataset.has_shape = true;
    size_t count = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, shape)
    {
        double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
        if (count == 3 || !(value >= 1 && value <= SHAPE_MOST) || trunc(value) != value)
            return error_set(err, "spec.shape: must be three whole numbers from 1 to %d", SHAPE_MOST);
        plan->dataset.shape[count++] = (uint32_t)value;
    }
    return count == 3 ? 0 : error_set(err, "spec.shape: must be three whole numbers from 1 to %d", SHAPE_MOST);
}

/* mean or std; *count entries, or one, the fallback. */
static int read_channels(const struct source *source, const struct place *place, double least, double fallback,
                         double out[PLAN_CHANNELS_MOST], uint32_t *count, struct error *err)
{
    const cJSON *list = place_value(source, place);
    const cJSON *item = NULL;
    *count = 0;
    cJSON_ArrayForEach(item, list)
    {
        double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
        if (*count == PLAN_CHANNELS_MOST || !(value >= least && value <= 1e6))
            return error_set(err, "%s: must be at most %d numbers from %.15g to 1000000", place->path,
                             PLAN_CHANNELS_MOST, least);
        out[(*count)++] = value;
    }
    if (list == NULL)
        out[(*count)++] = fallback;
    return *count > 0 ? 0 : error_set(err, "%s: is missing", place->path);
}

static int read_normalization(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place mean = {.path = "spec.normalize.mean", .of_dataset = true, .plan_path = "dataset.mean"};
    static const struct place std = {.path = "spec.normalize.std", .of_dataset = true, .plan_path = "dataset.std"};
    /* Pixels are bytes; other formats hold numbers as they are meant. */
    const struct number_row scale = {
        {.path = "spec.normalize.scale", .of_dataset = true, .plan_path = "dataset.scale"},
        offsetof(struct plan, dataset.scale),
        0,
        1e6,
        .type = F64,
        .above = true,
        .optional = true,
        .fallback = plan->dataset.format == PLAN_FORMAT_IDX ? 0.00392156862745098 : 1,
    };
    uint32_t deviations = 0;
    if (read_number(plan, source, &scale, err) < 0 ||
        read_channels(source, &mean, -1e6, 0, plan->dataset.mean, &plan->dataset.channels, err) < 0 ||
        read_channels(source, &std, 1e-6, 1, plan->dataset.std, &deviations, err) < 0)
        return -1;
    if (deviations != plan->dataset.channels)
        return error_set(err, "spec.normalize: mean and std need the same number of entries");
    bool known = plan->dataset.has_shape || plan->dataset.format == PLAN_FORMAT_IDX;
    if (deviations != 1 && known && !(plan->dataset.has_shape && plan->dataset.shape[0] == deviations))
        return error_set(err, "spec.normalize: mean and std need one entry, or one per channel of spec.shape");
    return 0;
}

/* ---- CSV ---- */

static bool has_word(const struct plan_categorical *categorical, const char *word)
{
    for (uint32_t i = 0; i < categorical->words; i++)
        if (categorical->vocabulary[i] != NULL && strcmp(categorical->vocabulary[i], word) == 0)
            return true;
    return false;
}

static int read_vocabulary(struct plan_categorical *categorical, const cJSON *list, struct error *err)
{
    int count = cJSON_GetArraySize(list);
    if (!cJSON_IsArray(list) || count < 1 || count > PLAN_VOCABULARY_MOST)
        return error_set(err, "spec.csv.categorical[%s].vocabulary: must be a list of 1 to %d words", categorical->name,
                         PLAN_VOCABULARY_MOST);
    categorical->vocabulary = calloc((size_t)count, sizeof *categorical->vocabulary);
    if (categorical->vocabulary == NULL)
        return error_set(err, "out of memory");
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list)
    {
        const char *word = cJSON_IsString(item) ? item->valuestring : NULL;
        if (word == NULL || strlen(word) > WORD_MOST)
            return error_set(err, "spec.csv.categorical[%s].vocabulary: word %u must be text of at most %d characters",
                             categorical->name, categorical->words, WORD_MOST);
        if (has_word(categorical, word))
            return error_set(err, "spec.csv.categorical[%s].vocabulary: '%s' stands there twice", categorical->name,
                             word);
        char *copy = strdup(word);
        if (copy == NULL)
            return error_set(err, "out of memory");
        categorical->vocabulary[categorical->words++] = copy;
    }
    return 0;
}

static bool has_column(const struct plan_csv *csv, const char *name)
{
    for (uint32_t i = 0; i < csv->categorical_count; i++)
        if (csv->categorical[i].name != NULL && strcmp(csv->categorical[i].name, name) == 0)
            return true;
    return false;
}

static int read_categorical(struct plan *plan, const cJSON *json, struct error *err)
{
    struct plan_csv *csv = &plan->dataset.csv;
    const char *name = json_string(json, "name", "");
    if (name[0] == '\0' || strlen(name) > COLUMN_NAME_MOST)
        return error_set(err, "spec.csv.categorical[%u].name: must be a column's name, or its number from 0 in quotes",
                         csv->categorical_count);
    if (has_column(csv, name))
        return error_set(err, "spec.csv.categorical: column '%s' stands there twice", name);
    if (strcmp(name, csv->label_column) == 0)
        return error_set(err, "spec.csv.categorical: column '%s' is spec.csv.labelColumn", name);
    struct plan_categorical *categorical = &csv->categorical[csv->categorical_count];
    categorical->name = strdup(name);
    if (categorical->name == NULL)
        return error_set(err, "out of memory");
    csv->categorical_count++;
    const cJSON *vocabulary = cJSON_GetObjectItemCaseSensitive(json, "vocabulary");
    const cJSON *buckets = cJSON_GetObjectItemCaseSensitive(json, "buckets");
    if ((vocabulary == NULL) == (buckets == NULL))
        return error_set(err, "spec.csv.categorical[%s]: set exactly one of vocabulary and buckets", name);
    if (vocabulary != NULL)
        return read_vocabulary(categorical, vocabulary, err);
    double value = cJSON_IsNumber(buckets) ? buckets->valuedouble : NAN;
    if (!(value >= 1 && value <= NETWORK_ROWS_MOST) || trunc(value) != value)
        return error_set(err, "spec.csv.categorical[%s].buckets: must be a whole number at least 1 and at most %d",
                         name, NETWORK_ROWS_MOST);
    categorical->buckets = (uint32_t)value;
    return 0;
}

static int read_csv(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place header = {.path = "spec.csv.header", .of_dataset = true};
    static const struct place label = {.path = "spec.csv.labelColumn", .of_dataset = true};
    static const struct place missing = {.path = "spec.csv.missing", .of_dataset = true};
    static const struct place list = {.path = "spec.csv.categorical", .of_dataset = true};
    struct plan_csv *csv = &plan->dataset.csv;
    if (read_flag(source, &header, true, &csv->header, err) < 0 ||
        read_text(source, &label, COLUMN_NAME_MOST, false, &csv->label_column, err) < 0 ||
        read_text(source, &missing, MISSING_MOST, true, &csv->missing, err) < 0)
        return -1;
    const cJSON *columns = place_value(source, &list);
    int count = cJSON_GetArraySize(columns);
    if (columns != NULL && (!cJSON_IsArray(columns) || count > PLAN_CATEGORICAL_MOST))
        return error_set(err, "spec.csv.categorical: must be a list of at most %d columns", PLAN_CATEGORICAL_MOST);
    if (count == 0)
        return 0;
    csv->categorical = calloc((size_t)count, sizeof *csv->categorical);
    if (csv->categorical == NULL)
        return error_set(err, "out of memory");
    uint64_t rows = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, columns)
    {
        if (read_categorical(plan, item, err) < 0)
            return -1;
        rows += plan_categorical_rows(&csv->categorical[csv->categorical_count - 1]);
    }
    if (rows > NETWORK_ROWS_MOST)
        return error_set(err, "spec.csv.categorical: all columns together have more than %d ids: lower their buckets",
                         NETWORK_ROWS_MOST);
    if (plan->dataset.has_shape && (plan->dataset.shape[1] != 1 || plan->dataset.shape[2] != 1))
        return error_set(err, "spec.shape: samples with categorical columns are vectors: [columns, 1, 1]");
    return 0;
}

uint32_t plan_categorical_rows(const struct plan_categorical *categorical)
{
    return categorical->words > 0 ? categorical->words + 1 : categorical->buckets;
}

uint32_t plan_category_rows(const struct plan *plan)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < plan->dataset.csv.categorical_count; i++)
        rows += plan_categorical_rows(&plan->dataset.csv.categorical[i]);
    return rows;
}

/* ---- the whole ---- */

int read_dataset(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place format = {.path = "spec.format", .of_dataset = true};
    static const struct place csv = {.path = "spec.csv", .of_dataset = true};
    static const struct place libsvm = {.path = "spec.libsvm", .of_dataset = true};
    static const struct number_row classes = {{.path = "spec.classes", .of_dataset = true},
                                              offsetof(struct plan, dataset.classes),
                                              2,
                                              1000,
                                              .type = U32,
                                              .optional = true};
    static const struct number_row features = {{.path = "spec.libsvm.features", .of_dataset = true},
                                               offsetof(struct plan, dataset.features),
                                               1,
                                               PLAN_COLUMNS_MOST,
                                               .type = U32};
    uint32_t chosen = 0;
    if (read_choice(source, &format, formats, FORMATS, -1, &chosen, err) < 0)
        return -1;
    plan->dataset.format = (enum plan_format)chosen;
    if (read_files(plan, source, err) < 0 || read_number(plan, source, &classes, err) < 0 ||
        read_shape(plan, source, err) < 0 || read_normalization(plan, source, err) < 0)
        return -1;
    if (plan->dataset.format != PLAN_FORMAT_CSV && place_value(source, &csv) != NULL)
        return error_set(err, "spec.csv: is only for format CSV, not for %s; leave it out", formats[chosen]);
    if (plan->dataset.format != PLAN_FORMAT_LIBSVM && place_value(source, &libsvm) != NULL)
        return error_set(err, "spec.libsvm: is only for format LibSVM, not for %s; leave it out", formats[chosen]);
    if (plan->dataset.format == PLAN_FORMAT_CSV)
        return read_csv(plan, source, err);
    if (plan->dataset.format != PLAN_FORMAT_LIBSVM)
        return 0;
    if (read_number(plan, source, &features, err) < 0)
        return -1;
    const uint32_t *shape = plan->dataset.shape;
    if (plan->dataset.has_shape && (uint64_t)shape[0] * shape[1] * shape[2] != plan->dataset.features)
        return error_set(err, "spec.shape: %u×%u×%u is not what spec.libsvm.features says, %u", shape[0], shape[1],
                         shape[2], plan->dataset.features);
    return 0;
}

static void free_split(struct plan_split *split)
{
    free(split->features);
    free(split->labels);
}

void free_dataset(struct plan *plan)
{
    struct plan_csv *csv = &plan->dataset.csv;
    for (uint32_t i = 0; i < csv->categorical_count; i++) {
        for (uint32_t j = 0; j < csv->categorical[i].words; j++)
            free(csv->categorical[i].vocabulary[j]);
        free(csv->categorical[i].vocabulary);
        free(csv->categorical[i].name);
    }
    free(csv->categorical);
    free(csv->label_column);
    free(csv->missing);
    free(plan->dataset.name);
    free_split(&plan->dataset.train);
    free_split(&plan->dataset.test);
}

static void add_split(cJSON *dataset, const char *name, const struct plan_split *split, bool *whole)
{
    cJSON *json = json_add_object(dataset, name, whole);
    json_add_text(json, "features", split->features, whole);
    if (split->labels != NULL)
        json_add_text(json, "labels", split->labels, whole);
}

static void add_csv(cJSON *dataset, const struct plan_csv *csv, bool *whole)
{
    cJSON *json = json_add_object(dataset, "csv", whole);
    json_add(json, "header", cJSON_CreateBool(csv->header), whole);
    json_add_text(json, "labelColumn", csv->label_column, whole);
    if (csv->missing != NULL)
        json_add_text(json, "missing", csv->missing, whole);
    cJSON *columns = csv->categorical_count == 0 ? NULL : json_add_list(json, "categorical", whole);
    for (uint32_t i = 0; i < csv->categorical_count; i++) {
        const struct plan_categorical *categorical = &csv->categorical[i];
        cJSON *column = json_add(columns, NULL, cJSON_CreateObject(), whole);
        json_add_text(column, "name", categorical->name, whole);
        if (categorical->words == 0)
            json_add_number(column, "buckets", categorical->buckets, whole);
        cJSON *words = categorical->words == 0 ? NULL : json_add_list(column, "vocabulary", whole);
        for (uint32_t j = 0; j < categorical->words; j++)
            json_add(words, NULL, cJSON_CreateString(categorical->vocabulary[j]), whole);
    }
}

void add_dataset(cJSON *json, const struct plan *plan, bool *whole)
{
    cJSON *dataset = json_add_object(json, "dataset", whole);
    json_add_text(dataset, "name", plan->dataset.name, whole);
    json_add_text(dataset, "format", formats[plan->dataset.format], whole);
    add_split(dataset, "train", &plan->dataset.train, whole);
    if (plan->dataset.test.features != NULL)
        add_split(dataset, "test", &plan->dataset.test, whole);
    if (plan->dataset.has_shape) {
        cJSON *shape = json_add_list(dataset, "shape", whole);
        for (size_t i = 0; i < 3; i++)
            json_add(shape, NULL, cJSON_CreateNumber(plan->dataset.shape[i]), whole);
    }
    if (plan->dataset.classes > 0)
        json_add_number(dataset, "classes", plan->dataset.classes, whole);
    json_add(dataset, "scale", json_exact_number(plan->dataset.scale), whole);
    json_add(dataset, "mean", json_exact_numbers(plan->dataset.mean, plan->dataset.channels), whole);
    json_add(dataset, "std", json_exact_numbers(plan->dataset.std, plan->dataset.channels), whole);
    if (plan->dataset.format == PLAN_FORMAT_CSV)
        add_csv(dataset, &plan->dataset.csv, whole);
    if (plan->dataset.format == PLAN_FORMAT_LIBSVM)
        json_add_number(json_add_object(dataset, "libsvm", whole), "features", plan->dataset.features, whole);
}
