#include "local/local.h"

#include "common/buffer.h"
#include "local/display.h"
#include "local/processes.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { EXIT_USAGE = 2, PATH_MOST = JOB_PATH_MOST };

static const int64_t PATIENCE = 5 * SECONDS; /* for processes that were asked to end */

struct local {
    struct options options;
    struct job job;
    struct processes processes;
    struct display display;
    char model_file[PATH_MOST], history_file[PATH_MOST];
    int signals, log_read, log_write;
    struct buffer line; /* of the report, not whole yet */
    cJSON *history;     /* as the object's status has it */
    bool over, succeeded;
    bool by_itself;      /* the coordinator has said so: the processes leave by themselves */
    char sentence[2048]; /* how it ended */
    struct report_finished result;
    uint64_t step;
    double trained_seconds;
    struct instant ending; /* since when the processes are to end; 0: they are not */
    bool asked, killed;
};

/* ---- the end ---- */

static void conclude(struct local *local, bool succeeded, const char *sentence)
{
    if (local->over)
        return;
    local->over = true;
    local->succeeded = succeeded;
    snprintf(local->sentence, sizeof local->sentence, "%s", sentence);
}

/* ---- the report ---- */

static int write_history(struct local *local, struct error *err)
{
    cleanup_free char *text = cJSON_Print(local->history);
    if (text == NULL)
        return error_set(err, "write '%s': no memory", local->history_file);
    return file_write_atomically(local->history_file, text, strlen(text), err);
}

static void keep_epoch(struct local *local, const struct report_epoch *epoch)
{
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddNumberToObject(entry, "epoch", epoch->epoch);
    if (isfinite(epoch->train_loss))
        cJSON_AddNumberToObject(entry, "trainLoss", epoch->train_loss);
    if (epoch->validated && isfinite(epoch->validation_loss))
        cJSON_AddNumberToObject(entry, "validationLoss", epoch->validation_loss);
    if (epoch->validated && !isnan(epoch->accuracy))
        cJSON_AddNumberToObject(entry, "accuracy", epoch->accuracy);
    cJSON_AddNumberToObject(entry, "parallelism", epoch->parallelism);
    cJSON_AddNumberToObject(entry, "durationSeconds", epoch->duration_seconds);
    cJSON_AddItemToArray(local->history, entry);
    local->trained_seconds += epoch->duration_seconds;
    struct error err = {0};
    if (write_history(local, &err) < 0)
        conclude(local, false, error_message(&err));
    display_epoch(&local->display, epoch);
}

static void answer(struct local *local, const struct report_message *message)
{
    cleanup_free char *text = report_encode(message);
    if (text == NULL)
        return;
    /* The other side reads all the time, and these are few and short. */
    (void)send(local->processes.report[0], text, strlen(text), MSG_NOSIGNAL);
    (void)send(local->processes.report[0], "\n", 1, MSG_NOSIGNAL);
}

static void take_message(struct local *local, const struct report_message *message)
{
    switch (message->type) {
    case REPORT_PROGRESS:
        if (message->progress.step > local->step)
            local->processes.ended_without_progress = 0;
        local->step = message->progress.step;
        display_progress(&local->display, &message->progress, clock_now());
        return;
    case REPORT_EPOCH:
        keep_epoch(local, &message->epoch);
        answer(local,
               &(struct report_message){.type = REPORT_ACK, .ack = {message->epoch.epoch, message->epoch.epoch}});
        return;
    case REPORT_FINISHED:
        if (!local->over) {
            local->by_itself = true;
            local->result = message->finished;
            conclude(local, message->finished.succeeded, message->finished.message);
        }
        answer(local, &(struct report_message){.type = REPORT_ACK_FINISHED});
        return;
    default:
        return;
    }
}

static void take_lines(struct local *local)
{
    size_t begin = 0;
    const char *end;
    while ((end = memchr(buffer_text(&local->line) + begin, '\n', local->line.length - begin)) != NULL) {
        const char *text = buffer_text(&local->line) + begin;
        struct report_message message;
        struct error err = {0};
        if (report_decode(&message, text, (size_t)(end - text), &err) < 0)
            display_note(&local->display, error_message(&err));
        else
            take_message(local, &message);
        begin = (size_t)(end - buffer_text(&local->line)) + 1;
    }
    buffer_consume(&local->line, begin);
}

static void read_report(struct local *local)
{
    char bytes[4096];
    ssize_t count = recv(local->processes.report[0], bytes, sizeof bytes, MSG_DONTWAIT);
    if (count > 0 && buffer_append(&local->line, bytes, (size_t)count, NULL) == 0) {
        take_lines(local);
        return;
    }
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    close(move_fd(&local->processes.report[0])); /* what ended says why */
}

/* ---- processes ---- */

static void stop_all(struct local *local)
{
    if (local->ending.nanoseconds != 0)
        return;
    local->ending = clock_now();
    processes_stop(&local->processes, false);
}

static void take_ended(struct local *local, const struct ended *ended)
{
    struct processes *processes = &local->processes;
    if (local->over)
        return;
    if (ended->process->role == PROCESS_PS) {
        /* Its last report may be unread; what it said comes before what became of it. */
        while (processes->report[0] >= 0 && !local->over) {
            struct pollfd ready = {.fd = processes->report[0], .events = POLLIN};
            if (poll(&ready, 1, 0) <= 0)
                break;
            read_report(local);
        }
        char sentence[sizeof ended->sentence + 64];
        snprintf(sentence, sizeof sentence, "%s; its part of the model is lost, and the job with it", ended->sentence);
        conclude(local, false, sentence);
        return;
    }
    processes->ended_without_progress += !ended->well;
    if (ended->in_vain) {
        conclude(local, false, ended->sentence);
        return;
    }
    if (processes->ended_without_progress > local->job.backoff_limit * local->job.workers) {
        char sentence[sizeof ended->sentence + 128];
        snprintf(sentence, sizeof sentence,
                 "Workers ended %u times without a step of progress (spec.runPolicy.backoffLimit): %s",
                 processes->ended_without_progress, ended->sentence);
        conclude(local, false, sentence);
        return;
    }
    processes->restarts++;
    char sentence[sizeof ended->sentence + 64];
    snprintf(sentence, sizeof sentence, "%s; starting it again", ended->sentence);
    display_note(&local->display, sentence);
}

static void take_signals(struct local *local)
{
    struct signalfd_siginfo signal;
    while (read(local->signals, &signal, sizeof signal) == (ssize_t)sizeof signal) {
        if (signal.ssi_signo == SIGCHLD)
            continue;
        if (local->ending.nanoseconds != 0) {
            processes_stop(&local->processes, true); /* asked twice */
            continue;
        }
        conclude(local, false, "Interrupted");
        stop_all(local);
    }
    struct ended ended;
    while (processes_reap(&local->processes, &ended, clock_now()))
        take_ended(local, &ended);
}

static void read_log(struct local *local)
{
    char bytes[8192];
    ssize_t count = read(local->log_read, bytes, sizeof bytes);
    if (count > 0)
        display_log(&local->display, bytes, (size_t)count);
}

/* ---- the loop ---- */

/* After the end processes leave by themselves where the job came to its own end, and are asked to otherwise. A worker
 * that was still on its way to servers which have left would look for them for ever. */
static void look_after_the_end(struct local *local)
{
    if (local->ending.nanoseconds == 0) {
        if (local->by_itself)
            local->ending = clock_now();
        else
            stop_all(local);
        return;
    }
    if (local->by_itself && !local->asked && !processes_serve(&local->processes)) {
        local->asked = true;
        processes_stop(&local->processes, false);
    }
    int64_t waited = instant_since(clock_now(), local->ending);
    if (waited > PATIENCE && !local->killed) {
        local->killed = true;
        processes_stop(&local->processes, true);
    }
}

static int poll_timeout(const struct local *local)
{
    int64_t wait = local->over ? 100 * MILLISECONDS : processes_wait(&local->processes, clock_now());
    return wait < 0 ? -1 : (int)((wait + MILLISECONDS - 1) / MILLISECONDS);
}

static int run(struct local *local, struct error *err)
{
    while (!local->over || processes_run(&local->processes)) {
        if (!local->over && processes_start(&local->processes, clock_now(), err) < 0)
            return -1;
        struct pollfd ready[] = {
            {.fd = local->signals, .events = POLLIN},
            {.fd = local->processes.report[0], .events = POLLIN},
            {.fd = local->log_read, .events = POLLIN},
        };
        if (poll(ready, 3, poll_timeout(local)) < 0 && errno != EINTR)
            return error_errno(err, "wait for the job's processes");
        if (ready[2].revents != 0)
            read_log(local);
        if (ready[1].revents != 0)
            read_report(local);
        if (ready[0].revents != 0)
            take_signals(local);
        if (local->over)
            look_after_the_end(local);
    }
    return 0;
}

/* ---- life ---- */

static int make_directories(const char *directory, struct error *err)
{
    char path[PATH_MOST];
    snprintf(path, sizeof path, "%s", directory);
    for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash != NULL)
            *slash = '\0';
        if (mkdir(path, 0777) < 0 && errno != EEXIST)
            return error_errno(err, "make the directory '%s' for model and history", path);
        if (slash == NULL)
            return 0;
        *slash = '/';
    }
}

static int make_output(struct local *local, struct error *err)
{
    const char *output = local->options.output;
    if (strlen(output) + sizeof "/model.safetensors" > PATH_MOST || output[0] == '\0')
        return error_set(err, "--output '%s': is no directory", output);
    snprintf(local->model_file, sizeof local->model_file, "%s/model.safetensors", output);
    snprintf(local->history_file, sizeof local->history_file, "%s/history.json", output);
    local->history = cJSON_CreateArray();
    if (make_directories(output, err) < 0 || write_history(local, err) < 0)
        return -1;
    struct stat old, start;
    if (local->job.start[0] != '\0' && stat(local->model_file, &old) == 0 && stat(local->job.start, &start) == 0 &&
        old.st_dev == start.st_dev && old.st_ino == start.st_ino)
        return error_set(err,
                         "--output %s: its model is what this job starts from, and would be overwritten: give "
                         "another directory",
                         output);
    /* A model of a former run must not pass for this one's. */
    if (unlink(local->model_file) < 0 && errno != ENOENT)
        return error_errno(err, "remove the old '%s'", local->model_file);
    return 0;
}

static int make_signals(struct local *local, struct error *err)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        return error_errno(err, "block signals");
    local->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return local->signals < 0 ? error_errno(err, "wait for signals") : 0;
}

/* On a terminal the processes' logs go through this one, which keeps its own line below them. */
static int make_log_pipe(struct local *local, struct error *err)
{
    int ends[2];
    if (!local->display.terminal)
        return 0;
    if (pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
        return error_errno(err, "make a pipe for logs");
    local->log_read = ends[0];
    local->log_write = ends[1];
    return 0;
}

static void print_end(struct local *local)
{
    if (local->log_read >= 0)
        read_log(local);
    display_end(&local->display, local->succeeded, local->sentence);
    if (local->result.has_model)
        printf("model     %s  (%.0f KiB)\nsha256    %s\n", local->model_file, (double)local->result.model.bytes / 1024,
               local->result.model.sha256);
    int epochs = cJSON_GetArraySize(local->history);
    if (epochs > 0)
        printf("history   %s\n", local->history_file);
    if (epochs > 0 && local->trained_seconds > 0)
        printf("speed     %.0f samples/s over %d epoch%s, validation included\n",
               (double)local->job.train_samples * epochs / local->trained_seconds, epochs, epochs == 1 ? "" : "s");
    display_sync(&local->result.sync);
    if (local->processes.restarts > 0)
        printf("restarts  %u of workers\n", local->processes.restarts);
}

static int prepare_and_run(struct local *local, struct error *err)
{
    if (job_load(&local->job, &local->options, err) < 0)
        return -1;
    display_init(&local->display, local->job.plan, local->job.train_samples);
    if (make_output(local, err) < 0 || make_signals(local, err) < 0 || make_log_pipe(local, err) < 0)
        return -1;
    int result = processes_init(&local->processes, &local->job, local->model_file, local->options.log_level,
                                local->log_write, err);
    if (result == 0) {
        display_start(&local->display, local->job.plan, local->job.workers);
        result = run(local, err);
    }
    processes_free(&local->processes);
    return result;
}

static void free_local(struct local *local)
{
    job_free(&local->job);
    cJSON_Delete(local->history);
    buffer_free(&local->line);
    const int descriptors[] = {local->signals, local->log_read, local->log_write};
    for (size_t i = 0; i < sizeof descriptors / sizeof descriptors[0]; i++)
        if (descriptors[i] >= 0)
            close(descriptors[i]);
    free(local);
}

int local_main(int argc, char **argv)
{
    struct error err = {0};
    struct local *local = calloc(1, sizeof *local);
    if (local == NULL)
        return EXIT_FAILURE;
    local->signals = local->log_read = local->log_write = -1;
    buffer_init(&local->line, REPORT_MESSAGE_MOST + sizeof(char[4096]));
    int status = EXIT_FAILURE;
    int parsed = options_parse(&local->options, argc, argv, &err);
    if (parsed != 0) {
        status = parsed < 0 ? EXIT_USAGE : EXIT_SUCCESS;
    } else if (prepare_and_run(local, &err) == 0) {
        print_end(local);
        status = local->succeeded ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    if (err.message[0] != '\0')
        fprintf(stderr, "thole-trainer local: %s\n", error_message(&err));
    free_local(local);
    return status;
}
