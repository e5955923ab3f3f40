/* Whole jobs as processes on this machine: the model is the same, bit for bit, for any number of workers and shards and
 * whoever is killed in the middle; what goes wrong is said in one sentence. */
#include "common/buffer.h"
#include "common/crypto.h"
#include "common/json.h"
#include "test/bed.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEXT_MOST = 1 << 20, CHILDREN_MOST = 32 };

/* ---- its children ---- */

struct child {
    pid_t pid;
    bool worker;
};

static uint32_t find_children(const struct process *run, struct child list[CHILDREN_MOST])
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
static uint32_t signal_workers(const struct process *run, int signal, uint32_t most, pid_t *last)
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
    static const uint32_t workers[] = {1, 2, 3, 8}, shards[] = {1, 2};
    struct bed bed;
    bed_make(&bed);
    for (size_t m = 0; m < 2; m++) {
        char first[SHA256_HEX_SIZE], other[SHA256_HEX_SIZE];
        bed_put_job(&bed, models[m], 2, 37, "0.05"); /* 8 does not divide 37, and 37 not 301 */
        bed_train(&bed, 1, 1, first);
        for (size_t w = 0; w < 4; w++)
            for (size_t s = m == 0 ? 0 : 1; s < 2; s++) { /* mlp has more than one chunk, and with it all cases */
                bed_train(&bed, workers[w], shards[s], other);
                if (strcmp(first, other) != 0)
                    fail_msg("%s differs with %u workers and %u shards", models[m], workers[w], shards[s]);
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
    bed_train(&bed, 2, 1, digest);
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
    bed_train(&bed, 1, 1, quiet);

    struct process run;
    bed_start(&run, &bed, 3, 2);
    char line[PROCESS_LINE_SIZE];
    uint32_t dead = 0, epochs = 0;
    pid_t pid = 0;
    while (process_line(&run, line)) {
        if (strncmp(line, "epoch ", 6) != 0)
            continue;
        epochs++;
        if (epochs == EPOCHS / 2)
            dead += signal_workers(&run, SIGKILL, CHILDREN_MOST, &pid); /* all at once */
        else if (epochs < EPOCHS - 1 && epochs % 2 == 1)
            dead += signal_workers(&run, SIGKILL, 1, &pid);
    }
    process_expect_end(&run, 0, NULL);
    bed_digest(&bed, killed);
    assert_true(dead >= 2);
    assert_int_equal(epochs, EPOCHS);
    assert_string_equal(quiet, killed);
    bed_free(&bed);
}

static void test_a_stopped_worker_is_not_waited_for(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    bed_put_job(&bed, "mlp", 60, 37, "0.05");
    char quiet[SHA256_HEX_SIZE], stopped[SHA256_HEX_SIZE];
    bed_train(&bed, 1, 1, quiet);
    struct process run;
    bed_start(&run, &bed, 2, 1);
    char line[PROCESS_LINE_SIZE];
    uint32_t epochs = 0;
    pid_t pid = 0;
    while (process_line(&run, line)) {
        epochs += strncmp(line, "epoch ", 6) == 0;
        if (epochs == 1 && pid == 0)
            assert_int_equal(signal_workers(&run, SIGSTOP, 1, &pid), 1);
        if (epochs == 60)
            kill(pid, SIGCONT); /* the rest was trained without it */
    }
    process_expect_end(&run, 0, NULL);
    bed_digest(&bed, stopped);
    assert_string_equal(quiet, stopped);
    bed_free(&bed);
}

static void test_a_lost_parameter_server_ends_the_job(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    bed_put_job(&bed, "mlp", 1000, 37, "0.01");
    for (uint32_t shard = 0; shard < 2; shard++) {
        struct process run;
        bed_start(&run, &bed, 2, 2);
        char line[PROCESS_LINE_SIZE];
        bool killed = false;
        while (process_line(&run, line)) {
            if (strncmp(line, "epoch ", 6) != 0 || killed)
                continue;
            struct child list[CHILDREN_MOST];
            assert_true(find_children(&run, list) >= 3);
            killed = kill(list[shard].pid, SIGKILL) == 0; /* they are started in this order */
        }
        process_expect_end(&run, 1,
                           "part of the model"); /* by the coordinator's word, or by the signal that killed it */
    }
    bed_free(&bed);
}

static void test_an_interrupt_ends_everything(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    bed_put_job(&bed, "mlp", 1000, 37, "0.01");
    struct process run;
    bed_start(&run, &bed, 2, 1);
    char line[PROCESS_LINE_SIZE];
    struct child list[CHILDREN_MOST];
    uint32_t count = 0;
    while (process_line(&run, line)) {
        if (strncmp(line, "epoch 1/", 8) != 0)
            continue;
        count = find_children(&run, list);
        kill(run.pid, SIGINT);
    }
    process_expect_end(&run, 1, "Interrupted");
    assert_int_equal(count, 3);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(kill(list[i].pid, 0), -1);
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
    bed_train(&bed, 2, 1, first);

    snprintf(bed.output, sizeof bed.output, "%s/out", bed.folder);
    snprintf(model, sizeof model, "{file: {volume: {hostPath: {path: %s}}, path: first/model.safetensors}}",
             bed.folder);
    bed_put_model_job(&bed, model, 1, 37, "1e-30");
    bed_train(&bed, 1, 1, alone);
    bed_train(&bed, 3, 2, many);
    assert_string_equal(alone, many);
    bed_put_model_job(&bed, "{zoo: resnet8}", 1, 37, "1e-30");
    bed_train(&bed, 1, 1, many);
    assert_string_not_equal(alone, many);

    struct process run;
    bed_put_model_job(&bed, model, 1, 37, "0.05");
    snprintf(bed.output, sizeof bed.output, "%s/first", bed.folder);
    bed_start(&run, &bed, 1, 1);
    process_expect_end(&run, 1, "its model is what this job starts from, and would be overwritten");
    bed_digest(&bed, many);
    assert_string_equal(first, many);

    snprintf(bed.output, sizeof bed.output, "%s/out", bed.folder);
    bed_put_dataset(&bed, "x", 5);
    bed_start(&run, &bed, 1, 1);
    process_expect_end(&run, 1,
                       "thole-trainer local: spec.model: the model of file/first/model.safetensors takes samples of "
                       "1×12×12 in 4 classes, but those of Dataset 'quarters' are 1×12×12 in 5");
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
    struct process run;
    bed_start(&run, &bed, 2, 2);
    process_expect_end(&run, 1,
                       "thole-trainer local: layer conv2 (Conv2D): its 5×5 kernel does not fit its input of 1×3×3 from "
                       "layer pool1");
    bed_free(&bed);
}

static void test_what_goes_wrong_is_said(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    struct process run;

    bed_put_job(&bed, "mlp", 5, 37, "900");
    bed_start(&run, &bed, 2, 1);
    process_expect_end(&run, 1, "is not a finite number; a spec.training.optimizer.learningRate below 900 may help");

    bed_put_job(&bed, "mlp", 2, 37, "0.05");
    bed_put_dataset(&bed, "missing", 4);
    bed_start(&run, &bed, 2, 1);
    process_expect_end(&run, 1, "data set file 'missing' does not exist");

    uint8_t cut[] = {0, 0, 8, 3, 0, 0, BED_TRAIN >> 8, BED_TRAIN & 0xff, 0, 0, 0, BED_SIDE, 0, 0, 0, BED_SIDE, 1, 2, 3};
    bed_put(&bed, "cut", cut, sizeof cut);
    bed_put_dataset(&bed, "cut", 4);
    bed_start(&run, &bed, 2, 1);
    process_expect_end(&run, 1, "data set file 'cut' is cut off");

    bed_put_dataset(&bed, "x", 4);
    bed_put_job(&bed, "mlp", 2, 37, "0.05");
    snprintf(bed.output, sizeof bed.output, "%s/x/out", bed.folder);
    bed_start(&run, &bed, 2, 1);
    process_expect_end(&run, 1, "Not a directory");
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
        cmocka_unit_test(test_a_layer_that_does_not_fit_is_said),
        cmocka_unit_test(test_what_goes_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
