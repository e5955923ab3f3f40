/* A model with embedding tables of ten million rows, of which a small table of data holds some hundreds: the model is
 * the same bytes for any number of workers and shards, in both wires, and holds the rows of the data and no others. */
#include "local/test_bed.h"

#include "common/cleanup.h"
#include "common/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SAMPLES = 330, STREETS = 400, CITIES = 3 };

/* Of a sale: what is a number, what is a word, and whether it was dear. */
static void put_data(const struct bed *bed)
{
    static const char *const cities[CITIES] = {"Cork", "Dublin", "Galway"};
    char dataset[1024];
    cleanup_free char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    fputs("dear,area,city,street\n", file);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        uint32_t area = i * 2654435761U >> 25, city = i * 40503U >> 8, street = i * 2246822519U >> 11;
        fprintf(file, "%d,%u.5,%s,street %u\n", area + 20 * (city % CITIES) > 80, area, cities[city % CITIES],
                street % STREETS);
    }
    fclose(file);
    bed_put(bed, "sales.csv", text, size);
    snprintf(dataset, sizeof dataset,
             "apiVersion: thole.dev/v1alpha1\nkind: Dataset\nmetadata: {name: sales}\nspec:\n"
             "  format: CSV\n  source: {hostPath: {path: %s}}\n  train: {features: sales.csv}\n  classes: 2\n"
             "  normalize: {scale: 0.01}\n"
             "  csv:\n    header: true\n    labelColumn: dear\n    categorical:\n"
             "    - {name: city, vocabulary: [Cork, Dublin, Galway]}\n    - {name: street, buckets: 10000000}\n",
             bed->folder);
    bed_put(bed, "dataset.yaml", dataset, strlen(dataset));
}

static void put_job(const struct bed *bed, const char *sync)
{
    char text[1024];
    snprintf(text, sizeof text,
             "apiVersion: thole.dev/v1alpha1\nkind: TrainJob\nmetadata: {name: test}\nspec:\n"
             "  datasetRef: {name: sales}\n  model: {zoo: widedeep}\n"
             "  training: {epochs: 3, batchSize: 41, seed: 5, optimizer: {type: Adam, learningRate: 0.02}}\n"
             "  sync: %s\n",
             sync);
    bed_put(bed, "job.yaml", text, strlen(text));
}

/* Shapes of a tensor, as the model's file says. */
static double dimension(const cJSON *header, const char *tensor, int which)
{
    const cJSON *shape = json_at(cJSON_GetObjectItemCaseSensitive(header, tensor), "shape");
    const cJSON *item = cJSON_GetArrayItem(shape, which);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

/* The rows of the samples that were trained on: a bucket for each street that occurs, with few that share one. */
static void expect_rows_of_the_data(const struct bed *bed)
{
    char path[256];
    uint64_t length = 0;
    snprintf(path, sizeof path, "%s/model.safetensors", bed->output);
    cleanup_file FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(&length, sizeof length, 1, file), 1);
    cleanup_free char *text = calloc(1, length + 1);
    assert_int_equal(fread(text, 1, length, file), length);
    struct error err = {0};
    cleanup_json cJSON *header = json_parse(text, length, "the header", &err);
    assert_non_null(header);
    double rows = dimension(header, "deep.weight.ids", 0);
    assert_true(rows > CITIES + 100 && rows <= CITIES + 1 + STREETS);
    assert_true(dimension(header, "deep.weight.rows", 0) == rows);
    assert_true(dimension(header, "wide.weight.ids", 0) == rows);
}

static void test_the_model_does_not_depend_on_workers_or_shards(void **state)
{
    (void)state;
    static const struct {
        uint32_t workers, shards;
    } teams[] = {{2, 2}, {3, 4}, {4, 3}, {1, 4}};
    static const char *const wires[] = {"Float32", "BFloat16"};
    char alone[2][SHA256_HEX_SIZE];
    struct bed bed;
    bed_make(&bed);
    put_data(&bed);
    for (size_t wire = 0; wire < 2; wire++) {
        char sync[128];
        snprintf(sync, sizeof sync, "{type: Synchronous, synchronous: {blocks: 6, wire: %s}}", wires[wire]);
        put_job(&bed, sync);
        bed_train(&bed, 1, 1);
        expect_rows_of_the_data(&bed);
        bed_digest(&bed, alone[wire]);
        for (size_t i = wire; i < sizeof teams / sizeof teams[0]; i += 1 + wire) {
            char many[SHA256_HEX_SIZE];
            bed_train(&bed, teams[i].workers, teams[i].shards);
            bed_digest(&bed, many);
            if (strcmp(many, alone[wire]) != 0)
                fail_msg("%s: another model with %u workers and %u shards", wires[wire], teams[i].workers,
                         teams[i].shards);
        }
    }
    assert_string_not_equal(alone[0], alone[1]);
    bed_free(&bed);
}

static void test_other_types_apply_rows_as_they_come(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    put_data(&bed);
    put_job(&bed, "{type: Asynchronous}");
    bed_train(&bed, 3, 2);
    expect_rows_of_the_data(&bed);
    put_job(&bed, "{type: Hogwild}");
    bed_train(&bed, 2, 3);
    expect_rows_of_the_data(&bed);
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_model_does_not_depend_on_workers_or_shards),
        cmocka_unit_test(test_other_types_apply_rows_as_they_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
