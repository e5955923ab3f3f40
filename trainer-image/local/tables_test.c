/* A model with embedding tables of ten million rows, of which a small table of data holds some hundreds: the model is
 * the same bytes for any number of workers and shards, in both wires, and holds the rows of the data and no others. */
#include "test/bed.h"

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
static void put_sales(const struct bed *bed, uint32_t samples)
{
    static const char *const cities[CITIES + 1] = {"Cork", "Dublin", "Galway", "Sligo"};
    cleanup_free char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    fputs("dear,area,city,street\n", file);
    for (uint32_t i = 0; i < samples; i++) {
        uint32_t area = i * 2654435761U >> 25, city = (i * 40503U >> 8) % (CITIES + 1), street = i * 2246822519U >> 11;
        fprintf(file, "%d,%u.5,%s,street %u\n", area + 20 * city > 80, area, cities[city], street % STREETS);
    }
    fclose(file);
    bed_put(bed, "sales.csv", text, size);
}

/* `label`: the column that is learned, and what more of the spec there is to say. The last city is not in the
 * vocabulary. */
static void put_dataset(const struct bed *bed, const char *label)
{
    char dataset[1024];
    snprintf(dataset, sizeof dataset,
             "apiVersion: thole.dev/v1alpha1\nkind: Dataset\nmetadata: {name: sales}\nspec:\n"
             "  format: CSV\n  source: {hostPath: {path: %s}}\n  train: {features: sales.csv}\n"
             "  normalize: {scale: 0.01}\n"
             "  csv:\n    header: true\n    categorical:\n"
             "    - {name: city, vocabulary: [Cork, Dublin, Galway]}\n    - {name: street, buckets: 10000000}\n"
             "    labelColumn: %s\n",
             bed->folder, label);
    bed_put(bed, "dataset.yaml", dataset, strlen(dataset));
}

/* `more`: of the spec, lines of two spaces and a member. */
static void put_seeded_job(const struct bed *bed, uint32_t seed, const char *model, uint32_t batch,
                           const char *optimizer, const char *more)
{
    char text[1024];
    snprintf(text, sizeof text,
             "apiVersion: thole.dev/v1alpha1\nkind: TrainJob\nmetadata: {name: test}\nspec:\n"
             "  datasetRef: {name: sales}\n  model: %s\n"
             "  training: {epochs: 3, batchSize: %u, seed: %u, optimizer: {%s}}\n%s",
             model, batch, seed, optimizer, more);
    bed_put(bed, "job.yaml", text, strlen(text));
}

static void put_job_of(const struct bed *bed, const char *model, uint32_t batch, const char *optimizer,
                       const char *more)
{
    put_seeded_job(bed, 5, model, batch, optimizer, more);
}

static void put_job(const struct bed *bed, const char *model, const char *rate, const char *more)
{
    char optimizer[64];
    snprintf(optimizer, sizeof optimizer, "type: Adam, learningRate: %s", rate);
    put_job_of(bed, model, 41, optimizer, more);
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
    put_sales(&bed, SAMPLES);
    put_dataset(&bed, "dear\n  classes: 2");
    for (size_t wire = 0; wire < 2; wire++) {
        char sync[128];
        snprintf(sync, sizeof sync, "  sync: {type: Synchronous, synchronous: {blocks: 6, wire: %s}}\n", wires[wire]);
        put_job(&bed, "{zoo: widedeep}", "0.02", sync);
        bed_train(&bed, 1, 1, alone[wire]);
        expect_rows_of_the_data(&bed);
        for (size_t i = wire; i < sizeof teams / sizeof teams[0]; i += 1 + wire) {
            char many[SHA256_HEX_SIZE];
            bed_train(&bed, teams[i].workers, teams[i].shards, many);
            if (strcmp(many, alone[wire]) != 0)
                fail_msg("%s: another model with %u workers and %u shards", wires[wire], teams[i].workers,
                         teams[i].shards);
        }
    }
    assert_string_not_equal(alone[0], alone[1]);
    bed_free(&bed);
}

static void expect_same(const struct bed *bed, uint32_t workers, uint32_t shards, const char *alone)
{
    char many[SHA256_HEX_SIZE];
    bed_train(bed, workers, shards, many);
    if (strcmp(many, alone) != 0)
        fail_msg("another model with %u workers and %u shards", workers, shards);
}

/* Norms over rows, which lie where the number of shards puts them, and of rows. */
static void test_norms_do_not_depend_on_workers_or_shards(void **state)
{
    (void)state;
    static const char *const optimizers[] = {
        "type: LAMB, learningRate: 0.02",
        "type: LAMB, learningRate: 0.02, clip: {norm: 0.05}",
        "type: SGD, learningRate: 0.5, momentum: 0.9",
        "type: SGD, learningRate: 0.5, momentum: 0.9, clip: {norm: 0.05, value: 0.02}",
    };
    enum { RUNS = 2 * sizeof optimizers / sizeof optimizers[0] };
    char digests[RUNS][SHA256_HEX_SIZE], sync[128];
    struct bed bed;
    bed_make(&bed);
    put_sales(&bed, SAMPLES);
    put_dataset(&bed, "dear\n  classes: 2");
    for (size_t i = 0; i < RUNS; i++) {
        snprintf(sync, sizeof sync, "  sync: {synchronous: {blocks: 6, wire: %s}}\n",
                 i % 2 == 0 ? "Float32" : "BFloat16");
        put_job_of(&bed, "{zoo: widedeep}", 41, optimizers[i / 2], sync);
        bed_train(&bed, 1, 1, digests[i]);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(digests[i], digests[k]);
        if (i / 2 == 2)
            continue; /* here only to be another */
        expect_same(&bed, 3, 4, digests[i]);
        if (i / 2 != 1)
            continue; /* others have no other sums */
        expect_same(&bed, 2, 2, digests[i]);
        expect_same(&bed, 1, 3, digests[i]);
    }
    bed_free(&bed);
}

static void test_other_types_apply_rows_as_they_come(void **state)
{
    (void)state;
    struct bed bed;
    char digest[SHA256_HEX_SIZE];
    bed_make(&bed);
    put_sales(&bed, SAMPLES);
    put_dataset(&bed, "dear\n  classes: 2");
    put_job(&bed, "{zoo: widedeep}", "0.02", "  sync: {type: Asynchronous}\n");
    bed_train(&bed, 3, 2, digest);
    expect_rows_of_the_data(&bed);
    put_job_of(&bed, "{zoo: widedeep}", 41, "type: Adam, learningRate: 0.02, clip: {norm: 0.1}",
               "  sync: {type: Hogwild}\n");
    bed_train(&bed, 2, 3, digest);
    expect_rows_of_the_data(&bed);
    bed_free(&bed);
}

/* One worker's gradients are those of the steps of one block, and never stale. It clips them before it pushes them,
 * which is the same number where the samples are a power of two. */
static void test_one_worker_clips_as_all_do(void **state)
{
    (void)state;
    static const char optimizer[] = "type: SGD, learningRate: 0.5, momentum: 0.9, clip: {norm: 0.05, value: 0.02}";
    char synchronous[SHA256_HEX_SIZE];
    struct bed bed;
    bed_make(&bed);
    put_sales(&bed, 320);
    put_dataset(&bed, "dear\n  classes: 2");
    put_job_of(&bed, "{zoo: widedeep}", 32, optimizer, "  sync: {synchronous: {blocks: 1}}\n");
    bed_train(&bed, 1, 2, synchronous);
    put_job_of(&bed, "{zoo: widedeep}", 32, optimizer, "  sync: {type: Asynchronous}\n");
    expect_same(&bed, 1, 3, synchronous);
    put_job_of(&bed, "{zoo: widedeep}", 32, optimizer, "  sync: {type: Hogwild}\n");
    expect_same(&bed, 1, 1, synchronous);
    bed_free(&bed);
}

/* Of values there is no accuracy, anywhere. */
static void test_values_are_learned_the_same_too(void **state)
{
    (void)state;
    struct bed bed;
    char alone[SHA256_HEX_SIZE], many[SHA256_HEX_SIZE], path[256];
    bed_make(&bed);
    put_sales(&bed, SAMPLES);
    put_dataset(&bed, "area");
    put_job(&bed, "{zoo: linear}", "0.02", "");
    bed_train(&bed, 1, 1, alone);
    bed_train(&bed, 3, 2, many);
    assert_string_equal(alone, many);
    struct error err = {0};
    snprintf(path, sizeof path, "%s/history.json", bed.output);
    cleanup_json cJSON *history = json_read_file(path, 1 << 20, &err);
    assert_int_equal(cJSON_GetArraySize(history), 3);
    assert_true(json_number(cJSON_GetArrayItem(history, 2), "validationLoss", -1) >= 0);
    assert_null(json_at(cJSON_GetArrayItem(history, 2), "accuracy"));
    bed_free(&bed);
}

static void test_a_start_brings_its_rows(void **state)
{
    (void)state;
    struct bed bed;
    char first[SHA256_HEX_SIZE], other[SHA256_HEX_SIZE], model[256];
    bed_make(&bed);
    put_sales(&bed, SAMPLES);
    put_dataset(&bed, "dear\n  classes: 2");
    put_job(&bed, "{zoo: widedeep}", "0.02", "");
    bed_train(&bed, 1, 1, first);
    snprintf(model, sizeof model, "{file: {volume: {hostPath: {path: %s}}, path: out/model.safetensors}}", bed.folder);
    snprintf(bed.output, sizeof bed.output, "%s/further", bed.folder);
    put_job(&bed, model, "1e-30", ""); /* which moves nothing: every parameter and row must come back */
    bed_train(&bed, 2, 3, other);
    assert_string_equal(first, other);
    put_job(&bed, model, "0.02", "");
    bed_train(&bed, 1, 1, first);
    bed_train(&bed, 2, 3, other);
    assert_string_equal(first, other);
    bed_free(&bed);
}

static double validation_loss(const struct bed *bed)
{
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/history.json", bed->output);
    cleanup_json cJSON *history = json_read_file(path, 1 << 20, &err);
    assert_int_equal(cJSON_GetArraySize(history), 3);
    return json_number(cJSON_GetArrayItem(history, 2), "validationLoss", -1);
}

/* Most streets of the samples that are held back have no row in the file: a job that begins from it, and one that
 * begins from what that one leaves, see them as the first job did, whatever their own seeds are. */
static void test_rows_that_nobody_has_touched_stay_what_they_were(void **state)
{
    (void)state;
    static const char *const folders[] = {"out", "second", "third"};
    struct bed bed;
    char digest[SHA256_HEX_SIZE], model[256];
    bed_make(&bed);
    put_sales(&bed, SAMPLES);
    put_dataset(&bed, "dear\n  classes: 2");
    put_job(&bed, "{zoo: widedeep}", "0.02", "");
    bed_train(&bed, 1, 2, digest);
    const double loss = validation_loss(&bed);
    assert_true(loss > 0);
    for (uint32_t i = 1; i < 3; i++) {
        snprintf(model, sizeof model, "{file: {volume: {hostPath: {path: %s}}, path: %s/model.safetensors}}",
                 bed.folder, folders[i - 1]);
        put_seeded_job(&bed, 5 + i, model, 41, "type: Adam, learningRate: 1e-30", ""); /* which moves nothing */
        snprintf(bed.output, sizeof bed.output, "%s/%s", bed.folder, folders[i]);
        bed_train(&bed, 2, 1 + i, digest);
        if (validation_loss(&bed) != loss)
            fail_msg("job %u computes a loss of %.17g, and the first one %.17g", i + 1, validation_loss(&bed), loss);
    }
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_model_does_not_depend_on_workers_or_shards),
        cmocka_unit_test(test_norms_do_not_depend_on_workers_or_shards),
        cmocka_unit_test(test_other_types_apply_rows_as_they_come),
        cmocka_unit_test(test_one_worker_clips_as_all_do),
        cmocka_unit_test(test_values_are_learned_the_same_too),
        cmocka_unit_test(test_a_start_brings_its_rows),
        cmocka_unit_test(test_rows_that_nobody_has_touched_stay_what_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
