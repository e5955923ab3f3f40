/* Whole jobs as processes on this machine: the model is the same, bit for bit, for any number of workers and shards and
 * whoever is killed in the middle; what goes wrong is said in one sentence. */
#include "common/buffer.h"
#include "common/crypto.h"
#include "common/json.h"
#include "local/test_bed.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEXT_MOST = 1 << 20, CHILDREN_MOST = 32 };

/* ---- one run ---- */

struct run {
    pid_t pid;
    FILE *out; /* stdout and stderr */
    struct buffer text;
    int status;
};

static void start(struct run *run, const struct bed *bed, const char *workers, const char *shards)
{
    char *argv[] = {
        (char *)THOLE_TRAINER, (char *)"local",     (char *)"-f",          (char *)bed->dataset, (char *)"-f",
        (char *)bed->job,      (char *)"--workers", (char *)workers,       (char *)"--shards",   (char *)shards,
        (char *)"--output",    (char *)bed->output, (char *)"--log-level", (char *)"error",      NULL};
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    *run = (struct run){0};
    assert_int_equal(posix_spawn(&run->pid, THOLE_TRAINER, &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    run->out = fdopen(ends[0], "r");
    assert_non_null(run->out);
    buffer_init(&run->text, TEXT_MOST);
}

/* The next line, without its end; false at the end of all. */
static bool next_line(struct run *run, char line[2048])
{
    if (fgets(line, 2048, run->out) == NULL)
        return false;
    assert_int_equal(buffer_append_text(&run->text, line, NULL), 0);
    line[strcspn(line, "\n")] = '\0';
    return true;
}

static void finish(struct run *run)
{
    char line[2048];
    while (next_line(run, line))
        continue;
    fclose(run->out);
    assert_int_equal(waitpid(run->pid, &run->status, 0), run->pid);
}

/* The job may succeed though a process ended with a sanitizer's complaint. */
static void expect_no_complaint(const struct run *run)
{
    if (strstr(buffer_text(&run->text), "Sanitizer") != NULL)
        fail_msg("%s", buffer_text(&run->text));
}

static void expect_success(const struct run *run)
{
    expect_no_complaint(run);
    if (!WIFEXITED(run->status) || WEXITSTATUS(run->status) != 0)
        fail_msg("ended with %x:\n%s", (unsigned)run->status, buffer_text(&run->text));
}

static void expect_failure(const struct run *run, const char *sentence)
{
    expect_no_complaint(run);
    if (!WIFEXITED(run->status) || WEXITSTATUS(run->status) != 1 || strstr(buffer_text(&run->text), sentence) == NULL)
        fail_msg("ended with %x, without saying '%s':\n%s", (unsigned)run->status, sentence, buffer_text(&run->text));
}

static void train(const struct bed *bed, const char *workers, const char *shards, char digest[SHA256_HEX_SIZE])
{
    struct run run;
    start(&run, bed, workers, shards);
    finish(&run);
    expect_success(&run);
    bed_digest(bed, digest);
    buffer_free(&run.text);
}

/* ---- its children ---- */

struct child {
    pid_t pid;
    bool worker;
};

static uint32_t find_children(const struct run *run, struct child list[CHILDREN_MOST])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", run->pid, run->pid);
    cleanup_file FILE *file = fopen(path, "r");
    assert_non_null(file);
    uint32_t count = 0;
    char word[32];
    while (count < CHILDREN_MOST && fscanf(file, "%31s", word) == 1) {
        pid_t pid = (pid_t)strtol(word, NULL, 10);
        char command[64] = "";
        snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
        cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t length = fd < 0 ? 0 : read(fd, command, sizeof command - 1);
        bool named = length > (ssize_t)sizeof "thole-trainer";
        list[count++] = (struct child){pid, named && strcmp(command + sizeof "thole-trainer", "worker") == 0};
    }
    return count;
}

/* Sends a signal to `most` of the workers; says to how many. */
static uint32_t signal_workers(const struct run *run, int signal, uint32_t most, pid_t *last)
{
    struct child list[CHILDREN_MOST];
    uint32_t count = find_children(run, list), signalled = 0;
    for (uint32_t i = 0; i < count && signalled < most; i++) {
        if (!list[i].worker || kill(list[i].pid, signal) < 0)
            continue;
        *last = list[i].pid;
        signalled++;
    }
    return signalled;
}

/* ---- tests ---- */

static void test_the_model_does_not_depend_on_workers_or_shards(void **state)
{
    (void)state;
    static const char *const models[] = {"mlp", "lenet"};
    static const char *const workers[] = {"1", "2", "3", "8"};
    static const char *const shards[] = {"1", "2"};
    struct bed bed;
    bed_make(&bed);
    for (size_t m = 0; m < 2; m++) {
        char first[SHA256_HEX_SIZE], other[SHA256_HEX_SIZE];
        bed_put_job(&bed, models[m], 2, 37, "0.05"); /* 8 does not divide 37, and 37 not 301 */
        train(&bed, "1", "1", first);
        for (size_t w = 0; w < 4; w++)
            for (size_t s = m == 0 ? 0 : 1; s < 2; s++) { /* mlp has more than one chunk, and with it all cases */
                train(&bed, workers[w], shards[s], other);
                if (strcmp(first, other) != 0)
                    fail_msg("%s differs with %s workers and %s shards", models[m], workers[w], shards[s]);
            }
    }
    bed_free(&bed);
}

static void test_the_history_is_kept(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    bed_put_job(&bed, "mlp", 3, 16, "0.05");
    char digest[SHA256_HEX_SIZE], path[256];
    train(&bed, "2", "1", digest);
    struct error err = {0};
    snprintf(path, sizeof path, "%s/history.json", bed.output);
    cleanup_json cJSON *history = json_read_file(path, TEXT_MOST, &err);
    assert_non_null(history);
    assert_int_equal(cJSON_GetArraySize(history), 3);
    for (int i = 0; i < 3; i++) {
        const cJSON *entry = cJSON_GetArrayItem(history, i);
        assert_int_equal(json_int(entry, "epoch", 0), i + 1);
        assert_true(json_number(entry, "trainLoss", -1) >= 0);
        assert_true(json_number(entry, "validationLoss", -1) >= 0);
        assert_true(json_number(entry, "accuracy", -1) >= 0);
        assert_true(json_number(entry, "durationSeconds", -1) > 0);
        assert_true(json_int(entry, "parallelism", 0) >= 1);
    }
    assert_true(json_number(cJSON_GetArrayItem(history, 2), "accuracy", 0) > 90);
    bed_free(&bed);
}

static void test_killed_workers_change_nothing(void **state)
{
    (void)state;
    enum { EPOCHS = 12 };
    struct bed bed;
    bed_make(&bed);
    bed_put_job(&bed, "mlp", EPOCHS, 29, "0.02");
    char quiet[SHA256_HEX_SIZE], killed[SHA256_HEX_SIZE];
    train(&bed, "1", "1", quiet);

    struct run run;
    start(&run, &bed, "3", "2");
    char line[2048];
    uint32_t dead = 0, epochs = 0;
    pid_t pid = 0;
    while (next_line(&run, line)) {
        if (strncmp(line, "epoch ", 6) != 0)
            continue;
        epochs++;
        if (epochs == EPOCHS / 2)
            dead += signal_workers(&run, SIGKILL, CHILDREN_MOST, &pid); /* all at once */
        else if (epochs < EPOCHS - 1 && epochs % 2 == 1)
            dead += signal_workers(&run, SIGKILL, 1, &pid);
    }
    finish(&run);
    expect_success(&run);
    bed_digest(&bed, killed);
    assert_true(dead >= 2);
    assert_int_equal(epochs, EPOCHS);
    assert_string_equal(quiet, killed);
    buffer_free(&run.text);
    bed_free(&bed);
}

static void test_a_stopped_worker_is_not_waited_for(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    bed_put_job(&bed, "mlp", 60, 37, "0.05");
    char quiet[SHA256_HEX_SIZE], stopped[SHA256_HEX_SIZE];
    train(&bed, "1", "1", quiet);
    struct run run;
    start(&run, &bed, "2", "1");
    char line[2048];
    uint32_t epochs = 0;
    pid_t pid = 0;
    while (next_line(&run, line)) {
        epochs += strncmp(line, "epoch ", 6) == 0;
        if (epochs == 1 && pid == 0)
            assert_int_equal(signal_workers(&run, SIGSTOP, 1, &pid), 1);
        if (epochs == 60)
            kill(pid, SIGCONT); /* the rest was trained without it */
    }
    finish(&run);
    expect_success(&run);
    bed_digest(&bed, stopped);
    assert_string_equal(quiet, stopped);
    buffer_free(&run.text);
    bed_free(&bed);
}

static void test_a_lost_parameter_server_ends_the_job(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    bed_put_job(&bed, "mlp", 1000, 37, "0.01");
    for (uint32_t shard = 0; shard < 2; shard++) {
        struct run run;
        start(&run, &bed, "2", "2");
        char line[2048];
        bool killed = false;
        while (next_line(&run, line)) {
            if (strncmp(line, "epoch ", 6) != 0 || killed)
                continue;
            struct child list[CHILDREN_MOST];
            assert_true(find_children(&run, list) >= 3);
            killed = kill(list[shard].pid, SIGKILL) == 0; /* they are started in this order */
        }
        finish(&run);
        expect_failure(&run, "part of the model"); /* by the coordinator's word, or by the signal that killed it */
        buffer_free(&run.text);
    }
    bed_free(&bed);
}

static void test_an_interrupt_ends_everything(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    bed_put_job(&bed, "mlp", 1000, 37, "0.01");
    struct run run;
    start(&run, &bed, "2", "1");
    char line[2048];
    struct child list[CHILDREN_MOST];
    uint32_t count = 0;
    while (next_line(&run, line)) {
        if (strncmp(line, "epoch 1/", 8) != 0)
            continue;
        count = find_children(&run, list);
        kill(run.pid, SIGINT);
    }
    finish(&run);
    expect_failure(&run, "Interrupted");
    assert_int_equal(count, 3);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(kill(list[i].pid, 0), -1);
    buffer_free(&run.text);
    bed_free(&bed);
}

static void test_a_job_starts_from_a_models_file(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    char first[SHA256_HEX_SIZE], alone[SHA256_HEX_SIZE], many[SHA256_HEX_SIZE], model[256];
    snprintf(bed.output, sizeof bed.output, "%s/first", bed.folder);
    bed_put_job(&bed, "resnet8", 1, 37, "0.05"); /* running statistics are part of a start, too */
    train(&bed, "2", "1", first);

    snprintf(bed.output, sizeof bed.output, "%s/out", bed.folder);
    snprintf(model, sizeof model, "{file: {volume: {hostPath: {path: %s}}, path: first/model.safetensors}}",
             bed.folder);
    bed_put_model_job(&bed, model, 1, 37, "1e-30");
    train(&bed, "1", "1", alone);
    train(&bed, "3", "2", many);
    assert_string_equal(alone, many);
    bed_put_model_job(&bed, "{zoo: resnet8}", 1, 37, "1e-30");
    train(&bed, "1", "1", many);
    assert_string_not_equal(alone, many);

    struct run run;
    bed_put_model_job(&bed, model, 1, 37, "0.05");
    snprintf(bed.output, sizeof bed.output, "%s/first", bed.folder);
    start(&run, &bed, "1", "1");
    finish(&run);
    expect_failure(&run, "its model is what this job starts from, and would be overwritten");
    buffer_free(&run.text);
    bed_digest(&bed, many);
    assert_string_equal(first, many);

    snprintf(bed.output, sizeof bed.output, "%s/out", bed.folder);
    char dataset[512];
    int length = snprintf(dataset, sizeof dataset,
                          "apiVersion: thole.dev/v1alpha1\nkind: Dataset\nmetadata: {name: quarters}\nspec:\n"
                          "  format: IDX\n  source: {hostPath: {path: %s}}\n  train: {features: x, labels: y}\n"
                          "  test: {features: tx, labels: ty}\n  classes: 5\n",
                          bed.folder);
    bed_put(&bed, "dataset.yaml", dataset, (size_t)length);
    start(&run, &bed, "1", "1");
    finish(&run);
    expect_failure(&run, "thole-trainer local: spec.model: the model of file/first/model.safetensors takes samples of "
                         "1×12×12 in 4 classes, but those of Dataset 'quarters' are 1×12×12 in 5");
    buffer_free(&run.text);
    bed_free(&bed);
}

/* Prices that follow from two numbers, a town and a street; a tenth of the lines is held back for validation. */
static void put_table(const struct bed *bed)
{
    enum { LINES = 400, TOWNS = 4 };
    struct error err = {0};
    cleanup_buffer struct buffer csv;
    buffer_init(&csv, TEXT_MOST);
    assert_int_equal(buffer_append_text(&csv, "rooms,age,town,street,price\n", &err), 0);
    uint32_t random = 7;
    for (uint32_t i = 0; i < LINES; i++) {
        random = random * 1664525 + 1013904223;
        const uint32_t rooms = random >> 29, age = random >> 24 & 31, town = random >> 16 & (TOWNS - 1);
        const double price = rooms * 0.1 - age * 0.02 + town * 0.3;
        char line[96];
        snprintf(line, sizeof line, "%.1f,%.2f,t%u,s%u,%.3f\n", rooms / 8.0, age / 32.0, town, random >> 8 & 127,
                 price);
        assert_int_equal(buffer_append_text(&csv, line, &err), 0);
    }
    bed_put(bed, "prices.csv", csv.data, csv.length);
    char text[512];
    int length = snprintf(text, sizeof text,
                          "apiVersion: thole.dev/v1alpha1\nkind: Dataset\nmetadata: {name: quarters}\nspec:\n"
                          "  format: CSV\n  source: {hostPath: {path: %s}}\n  train: {features: prices.csv}\n"
                          "  csv: {labelColumn: price, categorical: [{name: town, vocabulary: [t0, t1, t2]}, "
                          "{name: street, buckets: 50}]}\n",
                          bed->folder);
    bed_put(bed, "dataset.yaml", text, (size_t)length);
}

/* Tables have rows for what was seen; of a start they come from the file. There is no accuracy of values. */
static void test_models_of_tables_are_the_same_for_all(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    put_table(&bed);
    char first[SHA256_HEX_SIZE], other[SHA256_HEX_SIZE], model[256], path[256];
    static const char *const models[] = {"{zoo: linear}", "{zoo: widedeep}"};
    for (size_t i = 0; i < 2; i++) {
        bed_put_model_job(&bed, models[i], 2, 37, "0.05");
        train(&bed, "1", "1", first);
        train(&bed, "3", "2", other);
        assert_string_equal(first, other);
    }
    struct error err = {0};
    snprintf(path, sizeof path, "%s/history.json", bed.output);
    cleanup_json cJSON *history = json_read_file(path, TEXT_MOST, &err);
    assert_int_equal(cJSON_GetArraySize(history), 2);
    assert_true(json_number(cJSON_GetArrayItem(history, 1), "validationLoss", -1) >= 0);
    assert_null(json_at(cJSON_GetArrayItem(history, 1), "accuracy"));

    snprintf(model, sizeof model, "{file: {volume: {hostPath: {path: %s}}, path: out/model.safetensors}}", bed.folder);
    snprintf(bed.output, sizeof bed.output, "%s/further", bed.folder);
    bed_put_model_job(&bed, model, 1, 37, "1e-30"); /* which moves nothing: every parameter and row must come back */
    train(&bed, "2", "3", other);
    assert_string_equal(first, other);
    bed_put_model_job(&bed, model, 1, 37, "0.05");
    train(&bed, "1", "1", first);
    train(&bed, "2", "3", other);
    assert_string_equal(first, other);
    bed_free(&bed);
}

/* Before anything starts: by `local` itself, not by a process of the job. */
static void test_a_layer_that_does_not_fit_is_said(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    bed_put_model_job(&bed,
                      "{layers: [{name: pool1, type: MaxPool, kernel: 4}, {name: conv2, type: Conv2D, filters: 3, "
                      "kernel: 5}, {name: flat, type: Flatten}, {name: fc, type: Dense}]}",
                      1, 37, "0.05");
    struct run run;
    start(&run, &bed, "2", "2");
    finish(&run);
    expect_failure(&run,
                   "thole-trainer local: layer conv2 (Conv2D): its 5×5 kernel does not fit its input of 1×3×3 from "
                   "layer pool1");
    buffer_free(&run.text);
    bed_free(&bed);
}

static void test_what_goes_wrong_is_said(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    struct run run;

    bed_put_job(&bed, "mlp", 5, 37, "900");
    start(&run, &bed, "2", "1");
    finish(&run);
    expect_failure(&run, "is not a finite number; a spec.training.optimizer.learningRate below 900 may help");
    buffer_free(&run.text);

    bed_put_job(&bed, "mlp", 2, 37, "0.05");
    bed_put_dataset(&bed, "missing");
    start(&run, &bed, "2", "1");
    finish(&run);
    expect_failure(&run, "data set file 'missing' does not exist");
    buffer_free(&run.text);

    uint8_t cut[] = {0, 0, 8, 3, 0, 0, BED_TRAIN >> 8, BED_TRAIN & 0xff, 0, 0, 0, BED_SIDE, 0, 0, 0, BED_SIDE, 1, 2, 3};
    bed_put(&bed, "cut", cut, sizeof cut);
    bed_put_dataset(&bed, "cut");
    start(&run, &bed, "2", "1");
    finish(&run);
    expect_failure(&run, "data set file 'cut' is cut off");
    buffer_free(&run.text);

    bed_put_dataset(&bed, "x");
    bed_put_job(&bed, "mlp", 2, 37, "0.05");
    snprintf(bed.output, sizeof bed.output, "%s/x/out", bed.folder);
    start(&run, &bed, "2", "1");
    finish(&run);
    expect_failure(&run, "Not a directory");
    buffer_free(&run.text);
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_model_does_not_depend_on_workers_or_shards),
        cmocka_unit_test(test_the_history_is_kept),
        cmocka_unit_test(test_killed_workers_change_nothing),
        cmocka_unit_test(test_a_stopped_worker_is_not_waited_for),
        cmocka_unit_test(test_a_lost_parameter_server_ends_the_job),
        cmocka_unit_test(test_an_interrupt_ends_everything),
        cmocka_unit_test(test_a_job_starts_from_a_models_file),
        cmocka_unit_test(test_models_of_tables_are_the_same_for_all),
        cmocka_unit_test(test_a_layer_that_does_not_fit_is_said),
        cmocka_unit_test(test_what_goes_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
