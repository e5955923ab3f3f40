/* Every optimizer with either wire, alone and over many workers and shards: the models are the same bytes. What is
 * covered by default takes seconds; THOLE_TEST_MATRIX=full takes all of 1 to 8 workers with 1 to 4 shards. */
#include "test/bed.h"

#include "common/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WORKERS_MOST = 8, SHARDS_MOST = 4 };

static const char *const optimizers[] = {
    "type: SGD, learningRate: 0.05",
    "type: SGD, learningRate: 0.05, momentum: 0.9, nesterov: true, weightDecay: 0.0001",
    "type: Adagrad, learningRate: 0.01",
    "type: RMSProp, learningRate: 0.001, momentum: 0.5, schedule: {type: Step, everyEpochs: 1, factor: 0.5}",
    "type: Adam, learningRate: 0.001, clip: {norm: 0.2}",
    "type: AdamW, learningRate: 0.001, weightDecay: 0.01, schedule: {type: Cosine, warmupSteps: 3}",
    "type: AMSGrad, learningRate: 0.001, clip: {value: 0.01}",
    "type: LAMB, learningRate: 0.01, weightDecay: 0.01",
    "type: LAMB, learningRate: 0.01, clip: {value: 0.1, norm: 0.2}, schedule: {type: Polynomial, power: 2}",
};
enum { OPTIMIZERS = sizeof optimizers / sizeof optimizers[0] };

static const char *const wires[] = {"Float32", "BFloat16"};

static void put_job(const struct bed *bed, uint32_t batch, const char *optimizer, const char *sync)
{
    char text[1024];
    snprintf(text, sizeof text,
             "apiVersion: thole.dev/v1alpha1\nkind: TrainJob\nmetadata: {name: test}\nspec:\n"
             "  datasetRef: {name: quarters}\n  model: {zoo: mlp}\n"
             "  training: {epochs: 2, batchSize: %u, seed: 5, optimizer: {%s}}\n"
             "  sync: %s\n",
             batch, optimizer, sync);
    bed_put(bed, "job.yaml", text, strlen(text));
}

/* The last step has one sample. */
static void put_synchronous_job(const struct bed *bed, const char *optimizer, const char *wire)
{
    char sync[64];
    snprintf(sync, sizeof sync, "{synchronous: {blocks: 8, wire: %s}}", wire);
    put_job(bed, 75, optimizer, sync);
}

static void expect_same(const struct bed *bed, const char *optimizer, const char *wire, uint32_t workers,
                        uint32_t shards, const char *alone)
{
    char many[SHA256_HEX_SIZE];
    bed_train(bed, workers, shards, many);
    if (strcmp(many, alone) != 0)
        fail_msg("{%s} over %s: another model with %u workers and %u shards", optimizer, wire, workers, shards);
}

static void test_the_model_does_not_depend_on_workers_or_shards(void **state)
{
    (void)state;
    static const struct {
        uint32_t workers, shards;
    } teams[] = {{2, 2}, {3, 1}, {8, 4}, {5, 3}, {4, 2}, {7, 4}, {1, 3}};
    const char *matrix = getenv("THOLE_TEST_MATRIX");
    bool full = matrix != NULL && strcmp(matrix, "full") == 0;
    struct bed bed;
    bed_make(&bed);
    size_t next = 0;
    for (size_t i = 0; i < OPTIMIZERS; i++)
        for (size_t wire = full ? 0 : i % 2; wire < (full ? 2 : i % 2 + 1); wire++) {
            char alone[SHA256_HEX_SIZE];
            put_synchronous_job(&bed, optimizers[i], wires[wire]);
            bed_train(&bed, 1, 1, alone);
            for (uint32_t k = 0; full && k < WORKERS_MOST * SHARDS_MOST; k++)
                expect_same(&bed, optimizers[i], wires[wire], 1 + k % WORKERS_MOST, 1 + k / WORKERS_MOST, alone);
            if (!full)
                expect_same(&bed, optimizers[i], wires[wire], teams[next % 7].workers, teams[next % 7].shards, alone);
            next++;
        }
    bed_free(&bed);
}

/* Both decide the bits: were one of them ignored, all of the above would be in vain. */
static void test_optimizers_and_wires_differ(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    char digests[4][SHA256_HEX_SIZE];
    for (int i = 0; i < 4; i++) {
        const char *optimizer = optimizers[i % 2 == 0 ? 0 : 7];
        put_synchronous_job(&bed, optimizer, wires[i / 2]);
        bed_train(&bed, 2, 1, digests[i]);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(digests[i], digests[k]);
    }
    bed_free(&bed);
}

/* One worker computes the same in every type, and clips the same: its own gradient is everybody's. */
static void test_one_worker_is_one_in_every_type(void **state)
{
    (void)state;
    static const char *const types[] = {"{synchronous: {blocks: 1}}", "{type: Asynchronous}", "{type: Hogwild}",
                                        "{type: KAverage, kAverage: {localSteps: 2}}"};
    char digests[4][SHA256_HEX_SIZE], unclipped[SHA256_HEX_SIZE];
    struct bed bed;
    bed_make(&bed);
    bed_put_samples(&bed, "x", "y", 256); /* in steps of powers of two, whose mean is not rounded */
    for (uint32_t i = 0; i < 4; i++) {
        put_job(&bed, 64, "type: SGD, learningRate: 0.05, clip: {value: 0.01, norm: 0.05}", types[i]);
        bed_train(&bed, 1, 1 + i, digests[i]);
        assert_string_equal(digests[i], digests[0]);
    }
    put_job(&bed, 64, "type: SGD, learningRate: 0.05, clip: {value: 0.01}", types[0]);
    bed_train(&bed, 1, 1, unclipped);
    assert_string_not_equal(unclipped, digests[0]);
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_model_does_not_depend_on_workers_or_shards),
        cmocka_unit_test(test_optimizers_and_wires_differ),
        cmocka_unit_test(test_one_worker_is_one_in_every_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
