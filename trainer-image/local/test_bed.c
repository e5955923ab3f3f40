#include "local/test_bed.h"

#include "common/buffer.h"
#include "common/cleanup.h"

#include <fcntl.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

void bed_put_dataset(const struct bed *bed, const char *features)
{
    char text[1024];
    snprintf(text, sizeof text,
             "apiVersion: thole.dev/v1alpha1\nkind: Dataset\nmetadata: {name: quarters}\nspec:\n  format: IDX\n"
             "  source: {hostPath: {path: %s}}\n  train: {features: %s, labels: y}\n"
             "  test: {features: tx, labels: ty}\n  classes: 4\n",
             bed->folder, features);
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
    bed_put_dataset(bed, "x");
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

/* What it said, for who must know why. */
static void fail_with_log(const struct bed *bed, int status)
{
    char path[256], text[4096];
    snprintf(path, sizeof path, "%s/log", bed->folder);
    cleanup_file FILE *file = fopen(path, "r");
    size_t length = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
    text[length] = '\0';
    fail_msg("ended with %x:\n%s", (unsigned)status, text);
}

void bed_train(const struct bed *bed, uint32_t workers, uint32_t shards)
{
    char w[8], s[8], log[256];
    snprintf(w, sizeof w, "%u", workers);
    snprintf(s, sizeof s, "%u", shards);
    snprintf(log, sizeof log, "%s/log", bed->folder);
    const char *argv[] = {THOLE_TRAINER, "local", "-f",       bed->dataset, "-f",          bed->job, "--workers", w,
                          "--shards",    s,       "--output", bed->output,  "--log-level", "error",  NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    pid_t pid;
    int status = 0;
    assert_int_equal(posix_spawn(&pid, THOLE_TRAINER, &actions, NULL, (char *const *)argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status != 0)
        fail_with_log(bed, status);
}
