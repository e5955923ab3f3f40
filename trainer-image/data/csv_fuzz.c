/* Any bytes as a CSV file, with a header and without. */
#include "data/table_fuzz.h"

static char *words[] = {(char *)"red", (char *)"say \"so\"", (char *)"\xC3\xA9"};
static const struct plan_categorical named[] = {
    {.name = (char *)"c", .vocabulary = words, .words = 3},
    {.name = (char *)"d", .buckets = 5},
};
static const struct plan_categorical numbered[] = {{.name = (char *)"2", .buckets = 7}};

static void check_rows(const struct plan *plan, const struct content *content)
{
    const uint32_t size = content->shape[0];
    const float *x = (const float *)(const void *)content->rows.base;
    for (uint64_t i = 0; i < content->samples * size; i++) {
        const bool category = i % size >= size - plan->dataset.csv.categorical_count;
        require(isfinite(x[i]));
        require(!category || (x[i] >= 0 && x[i] < (float)plan_category_rows(plan) && x[i] == truncf(x[i])));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plan plan = {.dataset = {.format = PLAN_FORMAT_CSV, .scale = 2, .channels = 1, .mean = {1}, .std = {3}}};
    plan.dataset.csv = (struct plan_csv){true, (char *)"y", (struct plan_categorical *)named, 2, (char *)"NA"};
    table_fuzz(data, size, &plan, csv_content, check_rows);
    plan.dataset.csv = (struct plan_csv){false, (char *)"0", (struct plan_categorical *)numbered, 1, NULL};
    plan.dataset.classes = 3;
    table_fuzz(data, size, &plan, csv_content, check_rows);
    return 0;
}
