#include "data/columns.h"

#include <inttypes.h>
#include <string.h>

void columns_free(struct columns *columns)
{
    for (uint32_t i = 0; columns->names != NULL && i < columns->count; i++)
        free(columns->names[i]);
    free(columns->names);
    free(columns->places);
    for (uint32_t i = 0; i < PLAN_CATEGORICAL_MOST; i++)
        free(columns->categories[i].words);
    *columns = (struct columns){0};
}

static int no_memory(const char *name, struct error *err)
{
    return error_set(err, "out of memory for the columns of data set file '%s'", name);
}

struct shown columns_name(const struct columns *columns, uint32_t column)
{
    struct shown shown = {0};
    if (columns->names == NULL) {
        snprintf(shown.text, sizeof shown.text, "%" PRIu32, column);
        return shown;
    }
    return span_shown((struct span){columns->names[column], strlen(columns->names[column])});
}

/* ---- Finding columns ---- */

static int take_names(struct columns *columns, const struct record *header, const char *name, struct error *err)
{
    columns->names = calloc(columns->count, sizeof *columns->names);
    if (columns->names == NULL)
        return no_memory(name, err);
    for (uint32_t i = 0; i < columns->count; i++) {
        struct span field = span_trimmed(header->fields[i]);
        columns->names[i] = strndup(field.at, field.length);
        if (columns->names[i] == NULL)
            return no_memory(name, err);
    }
    return 0;
}

/* "3", below `count`. */
static bool is_number_of_column(const char *text, uint32_t count, uint32_t *out)
{
    uint64_t number = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || number >= count)
            return false;
        number = number * 10 + (uint64_t)(*text - '0');
    }
    *out = (uint32_t)number;
    return number < count;
}

/* By its name in the header, else by its number from 0. */
static int find(const struct columns *columns, const char *wanted, const char *field, const char *name, uint32_t *out,
                struct error *err)
{
    uint32_t found = 0;
    for (uint32_t i = 0; columns->names != NULL && i < columns->count; i++)
        if (strcmp(columns->names[i], wanted) == 0) {
            *out = i;
            found++;
        }
    if (found > 1)
        return error_set(err,
                         "data set file '%s' has %" PRIu32 " columns named '%s', %s of its Dataset: rename all "
                         "but one, or give the column's number from 0",
                         name, found, wanted, field);
    if (found == 1 || is_number_of_column(wanted, columns->count, out))
        return 0;
    return error_set(
        err, "data set file '%s' has no column '%s', %s of its Dataset: its first line has %" PRIu32 " columns, and %s",
        name, wanted, field, columns->count,
        columns->names == NULL ? "without spec.csv.header they are numbered from 0"
                               : "they are named there, or numbered from 0");
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct word *)a)->text, ((const struct word *)b)->text);
}

static int take_vocabulary(struct columns *columns, uint32_t index, const char *name, struct error *err)
{
    const struct plan_categorical *categorical = &columns->plan->dataset.csv.categorical[index];
    if (categorical->words == 0)
        return 0;
    struct word *words = calloc(categorical->words, sizeof *words);
    if (words == NULL)
        return no_memory(name, err);
    columns->categories[index].words = words;
    for (uint32_t i = 0; i < categorical->words; i++)
        words[i] = (struct word){categorical->vocabulary[i], i + 1};
    qsort(words, categorical->words, sizeof *words, by_text);
    return 0;
}

static int find_categories(struct columns *columns, const char *name, struct error *err)
{
    const struct plan_csv *csv = &columns->plan->dataset.csv;
    uint32_t base = 0;
    for (uint32_t i = 0; i < csv->categorical_count; i++) {
        uint32_t column = 0;
        if (find(columns, csv->categorical[i].name, "in spec.csv.categorical", name, &column, err) < 0 ||
            take_vocabulary(columns, i, name, err) < 0)
            return -1;
        if (column == columns->label || columns->places[column] != 0)
            return error_set(err,
                             "data set file '%s': column %s is named twice in spec.csv.categorical and labelColumn",
                             name, columns_name(columns, column).text);
        columns->places[column] = columns->numeric + i + 1; /* 0: none yet */
        columns->categories[i].base = base;
        base += plan_categorical_rows(&csv->categorical[i]);
    }
    return 0;
}

int columns_of(struct columns *out, const struct plan *plan, const struct record *first, const char *name,
               struct error *err)
{
    const struct plan_csv *csv = &plan->dataset.csv;
    *out = (struct columns){.plan = plan, .count = first->count};
    out->places = calloc(out->count, sizeof *out->places);
    if (out->places == NULL)
        return no_memory(name, err);
    if (csv->header && take_names(out, first, name, err) < 0)
        return -1;
    if (out->count < 1 + csv->categorical_count)
        return error_set(err,
                         "data set file '%s' has %" PRIu32 " columns, and its Dataset has a label and %" PRIu32
                         " categories: commas must stand between columns",
                         name, out->count, csv->categorical_count);
    out->numeric = out->count - 1 - csv->categorical_count;
    if (out->numeric + csv->categorical_count == 0)
        return error_set(err,
                         "data set file '%s' has one column, the label, and nothing to learn from: commas must "
                         "stand between columns",
                         name);
    if (find(out, csv->label_column, "spec.csv.labelColumn", name, &out->label, err) < 0 ||
        find_categories(out, name, err) < 0)
        return -1;
    uint32_t numeric = 0;
    for (uint32_t i = 0; i < out->count; i++) {
        if (i == out->label)
            continue;
        out->places[i] = out->places[i] != 0 ? out->places[i] - 1 : numeric++;
    }
    return 0;
}

/* ---- Categories ---- */

bool columns_is_missing(const struct plan *plan, struct span text)
{
    const char *missing = plan->dataset.csv.missing;
    return text.length == 0 ||
           (missing != NULL && strlen(missing) == text.length && memcmp(missing, text.at, text.length) == 0);
}

/* FNV-1a of 64 bits (Fowler, Noll, Vo), then the finalizer of MurmurHash3 (Appleby), since FNV's upper bits hardly move
 * with short texts; the upper bits choose the bucket. It decides which row of a table a word has: never to be changed.
 */
static uint32_t bucket_of(struct span text, uint32_t buckets)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < text.length; i++)
        hash = (hash ^ (unsigned char)text.at[i]) * UINT64_C(0x100000001b3);
    hash = (hash ^ hash >> 33) * UINT64_C(0xff51afd7ed558ccd);
    hash = (hash ^ hash >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    hash ^= hash >> 33;
    return (uint32_t)((unsigned __int128)hash * buckets >> 64);
}

static int compare(const char *word, struct span text)
{
    const size_t length = strlen(word);
    int order = memcmp(word, text.at, length < text.length ? length : text.length);
    return order != 0 ? order : (length > text.length) - (length < text.length);
}

uint32_t columns_id(const struct columns *columns, uint32_t index, struct span text)
{
    const struct plan_categorical *categorical = &columns->plan->dataset.csv.categorical[index];
    const struct word *words = columns->categories[index].words;
    const uint32_t base = columns->categories[index].base;
    /* Whatever stands for a missing value is the empty text. */
    if (columns_is_missing(columns->plan, text))
        text.length = 0;
    if (words == NULL)
        return base + bucket_of(text, categorical->buckets);
    for (uint32_t low = 0, high = categorical->words; low < high;) {
        const uint32_t middle = low + (high - low) / 2;
        const int order = compare(words[middle].text, text);
        if (order == 0)
            return base + words[middle].id;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return base;
}
