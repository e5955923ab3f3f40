#include "test/bed.h"

#include "common/buffer.h"
#include "common/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TEXT_MOST = 1 << 20 };

void bed_put(const struct bed *bed, const char *name, const void *data, size_t length)
{
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/%s", bed->folder, name);
    if (file_write_atomically(path, data, length, &err) < 0)
        fail_msg("%s", error_message(&err));
}

/* Images whose brightest quarter depends on the label, and noise. */
void bed_put_samples(const struct bed *bed, const char *images, const char *labels, uint32_t samples)
{
    struct error err = {0};
    cleanup_buffer struct buffer x;
    cleanup_buffer struct buffer y;
    buffer_init(&x, TEXT_MOST);
    buffer_init(&y, TEXT_MOST);
    const uint8_t big = (uint8_t)(samples >> 8), small = (uint8_t)samples;
    const uint8_t x_header[] = {0, 0, 8, 3, 0, 0, big, small, 0, 0, 0, BED_SIDE, 0, 0, 0, BED_SIDE};
    const uint8_t y_header[] = {0, 0, 8, 1, 0, 0, big, small};
    assert_int_equal(buffer_append(&x, x_header, sizeof x_header, &err), 0);
    assert_int_equal(buffer_append(&y, y_header, sizeof y_header, &err), 0);
    uint32_t random = samples;
    for (uint32_t i = 0; i < samples; i++) {
        uint8_t label = (uint8_t)(i * 7 % 4);
        assert_int_equal(buffer_append(&y, &label, 1, &err), 0);
        for (uint32_t p = 0; p < BED_SIDE * BED_SIDE; p++) {
            random = random * 1664525 + 1013904223;
            uint32_t quarter = p / (BED_SIDE * BED_SIDE / 2) * 2 + p % BED_SIDE / (BED_SIDE / 2);
            uint8_t byte = (uint8_t)((random >> 25) + (quarter == label ? 120 : 0));
            assert_int_equal(buffer_append(&x, &byte, 1, &err), 0);
        }
    }
    bed_put(bed, images, x.data, x.length);
    bed_put(bed, labels, y.data, y.length);
}

void bed_put_dataset(const struct bed *bed, const char *features, uint32_t classes)
{
    char text[1024];
    snprintf(text, sizeof text,
             "apiVersion: thole.dev/v1alpha1\nkind: Dataset\nmetadata: {name: quarters}\nspec:\n  format: IDX\n"
             "  source: {hostPath: {path: %s}}\n  train: {features: %s, labels: y}\n"
             "  test: {features: tx, labels: ty}\n  classes: %u\n",
             bed->folder, features, classes);
    bed_put(bed, "dataset.yaml", text, strlen(text));
}

void bed_put_job(const struct bed *bed, const char *zoo, uint32_t epochs, uint32_t batch, const char *rate)
{
    char model[64];
    snprintf(model, sizeof model, "{zoo: %s}", zoo);
    bed_put_model_job(bed, model, epochs, batch, rate);
}

void bed_put_model_job(const struct bed *bed, const char *model, uint32_t epochs, uint32_t batch, const char *rate)
{
    char text[1024];
    snprintf(
        text, sizeof text,
        "apiVersion: thole.dev/v1alpha1\nkind: TrainJob\nmetadata: {name: test}\nspec:\n"
        "  datasetRef: {name: quarters}\n  model: %s\n"
        "  training: {epochs: %u, batchSize: %u, seed: 5, optimizer: {type: SGD, learningRate: %s, momentum: 0.9}}\n",
        model, epochs, batch, rate);
    bed_put(bed, "job.yaml", text, strlen(text));
}

void bed_make(struct bed *bed)
{
    *bed = (struct bed){.folder = "/tmp/thole-local-XXXXXX"};
    assert_non_null(mkdtemp(bed->folder));
    snprintf(bed->dataset, sizeof bed->dataset, "%s/dataset.yaml", bed->folder);
    snprintf(bed->job, sizeof bed->job, "%s/job.yaml", bed->folder);
    snprintf(bed->output, sizeof bed->output, "%s/out", bed->folder);
    bed_put_samples(bed, "x", "y", BED_TRAIN);
    bed_put_samples(bed, "tx", "ty", BED_TEST);
    bed_put_dataset(bed, "x", 4);
}

void bed_free(struct bed *bed)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", bed->folder);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): our own path */
}

void bed_digest(const struct bed *bed, char out[SHA256_HEX_SIZE])
{
    char path[256];
    uint8_t digest[SHA256_SIZE];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/model.safetensors", bed->output);
    if (sha256_file(path, digest, &err) < 0)
        fail_msg("%s", error_message(&err));
    hex_encode(digest, sizeof digest, out);
}

void bed_start(struct process *process, const struct bed *bed, uint32_t workers, uint32_t shards)
{
    char w[16], s[16];
    snprintf(w, sizeof w, "%u", workers);
    snprintf(s, sizeof s, "%u", shards);
    const char *argv[] = {THOLE_TRAINER, "local", "-f",       bed->dataset, "-f",          bed->job, "--workers", w,
                          "--shards",    s,       "--output", bed->output,  "--log-level", "error",  NULL};
    process_start(process, argv, -1, NULL);
}

void bed_train(const struct bed *bed, uint32_t workers, uint32_t shards, char digest[SHA256_HEX_SIZE])
{
    struct process process;
    bed_start(&process, bed, workers, shards);
    process_expect_end(&process, 0, NULL);
    bed_digest(bed, digest);
}
