#include "local/processes.h"

#include "local/local.h"
#include "wire/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* Above whatever this process has open, so that no copy falls on another. */
enum {
    CHILD_LISTEN_FD = 200,
    CHILD_REPORT_FD,
    CHILD_PLAN_FD,
    CHILD_TOKEN_FD,
    CHILD_WORDS_FD,
};
enum { ARGUMENTS_MOST = 40, TEXT_MOST = JOB_PATH_MOST };

static const int64_t QUICK = 5 * SECONDS; /* a process that ended after less is started after a pause */
static const int64_t PAUSE_LEAST = 100 * MILLISECONDS;
static const int64_t PAUSE_MOST = 5 * SECONDS;

/* ---- what the children need ---- */

static int memory_file(const char *name, const void *data, size_t length, struct error *err)
{
    cleanup_fd int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0 || (length > 0 && write(fd, data, length) != (ssize_t)length))
        return error_errno(err, "make a file in memory for the job's %s", name);
    return move_fd(&fd);
}

static int make_files(struct processes *processes, struct error *err)
{
    const char *plan = processes->job->plan_text;
    uint8_t token[SHA256_SIZE];
    random_bytes(token, sizeof token);
    processes->plan = memory_file("plan", plan, strlen(plan), err);
    processes->token = processes->plan < 0 ? -1 : memory_file("token", token, sizeof token, err);
    explicit_bzero(token, sizeof token);
    if (processes->token < 0)
        return -1;
    for (uint32_t i = 0; i < processes->count; i++)
        if ((processes->list[i].words = memory_file("last words", NULL, 0, err)) < 0)
            return -1;
    return 0;
}

int processes_init(struct processes *processes, const struct job *job, const char *model_file, const char *log_level,
                   int log_fd, struct error *err)
{
    *processes = (struct processes){
        .job = job,
        .model_file = model_file,
        .log_level = log_level,
        .plan = -1,
        .token = -1,
        .report = {-1, -1},
        .log_fd = log_fd,
    };
    for (uint32_t shard = 0; shard < PLAN_SHARDS_MOST; shard++)
        processes->listeners[shard] = -1;
    uint32_t shards = job->plan->shards;
    processes->list = calloc(shards + job->workers, sizeof *processes->list);
    if (processes->list == NULL)
        return error_set(err, "start the job: no memory");
    for (uint32_t i = 0; i < shards + job->workers; i++)
        processes->list[i] = (struct process){
            .role = i < shards ? PROCESS_PS : PROCESS_WORKER, .index = i < shards ? i : i - shards, .words = -1};
    processes->count = shards + job->workers;
    if (make_files(processes, err) < 0)
        return -1;
    for (uint32_t shard = 0; shard < shards; shard++) {
        processes->listeners[shard] = wire_listen_socket("127.0.0.1:0", &processes->ports[shard], err);
        if (processes->listeners[shard] < 0)
            return -1;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, processes->report) < 0)
        return error_errno(err, "make a line to the coordinator");
    return 0;
}

/* ---- starting ---- */

struct command {
    const char *arguments[ARGUMENTS_MOST];
    size_t count;
    char texts[12][TEXT_MOST];
    size_t text_count;
};

static void add(struct command *command, const char *argument)
{
    command->arguments[command->count++] = argument;
}

static void add_flag(struct command *command, const char *flag, const char *value)
{
    add(command, flag);
    add(command, value);
}

static void add_format(struct command *command, const char *flag, const char *format, unsigned long value)
    __attribute__((format(printf, 3, 0)));

static void add_format(struct command *command, const char *flag, const char *format, unsigned long value)
{
    char *text = command->texts[command->text_count++];
    snprintf(text, TEXT_MOST, format, value);
    add_flag(command, flag, text);
}

static const char *role_name(const struct process *process)
{
    return process->role == PROCESS_PS ? "ps" : "worker";
}

static void make_command(const struct processes *processes, const struct process *process, struct command *command)
{
    add(command, "thole-trainer");
    add(command, role_name(process));
    add_format(command, "--with-parent", "%lu", (unsigned long)getpid());
    add_format(command, "--plan", "/proc/self/fd/%lu", CHILD_PLAN_FD);
    add_format(command, "--token", "/proc/self/fd/%lu", CHILD_TOKEN_FD);
    add_flag(command, "--data", processes->job->data);
    if (processes->job->start[0] != '\0')
        add_flag(command, "--start", processes->job->start);
    add_flag(command, "--log-level", processes->log_level);
    add_format(command, "--coordinator", "127.0.0.1:%lu", processes->ports[0]);
    add(command, "--exit-when-done");
    if (process->role == PROCESS_PS) {
        add_format(command, "--shard", "%lu", process->index);
        add_format(command, "--listen-fd", "%lu", CHILD_LISTEN_FD);
        add_format(command, "--advertise", "127.0.0.1:%lu", processes->ports[process->index]);
        if (process->index == 0) {
            add_format(command, "--report-fd", "%lu", CHILD_REPORT_FD);
            add_flag(command, "--model-file", processes->model_file);
        }
    }
    command->arguments[command->count] = NULL;
}

/* Ours without what belongs to a cluster, and one thread for OpenBLAS from the start. */
static int make_environment(const struct process *process, char ***out)
{
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    char **list = calloc(count + 6, sizeof *list);
    if (list == NULL)
        return -1;
    static const char *const ours[] = {
        "OPENBLAS_NUM_THREADS=", "POD_NAME=", "POD_UID=", "POD_IP=", "THOLE_COORDINATOR=", "THOLE_OPERATOR=",
        "THOLE_TERMINATION_LOG="};
    size_t kept = 0;
    bool failed = false;
    for (size_t i = 0; i < count; i++) {
        bool own = false;
        for (size_t j = 0; j < sizeof ours / sizeof ours[0]; j++)
            own = own || strncmp(environ[i], ours[j], strlen(ours[j])) == 0;
        if (!own)
            failed = (list[kept++] = strdup(environ[i])) == NULL || failed;
    }
    char *name = NULL, *words = NULL;
    failed = asprintf(&name, "POD_NAME=%s-%u", role_name(process), process->index) < 0 || failed;
    failed = asprintf(&words, "THOLE_TERMINATION_LOG=/proc/self/fd/%d", CHILD_WORDS_FD) < 0 || failed;
    list[kept++] = name;
    list[kept++] = words;
    list[kept++] = strdup("OPENBLAS_NUM_THREADS=1");
    *out = list;
    return failed || list[kept - 1] == NULL ? -1 : 0;
}

static void free_environment(char **list)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++)
        free(list[i]);
    free(list);
}

static int spawn(const struct processes *processes, struct process *process, char **environment)
{
    struct command command = {0};
    make_command(processes, process, &command);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return -1;
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return -1;
    }
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    /* A group of its own: Ctrl-C is for this process, which ends the others in order. */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (processes->log_fd >= 0)
        posix_spawn_file_actions_adddup2(&actions, processes->log_fd, STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&actions, processes->plan, CHILD_PLAN_FD);
    posix_spawn_file_actions_adddup2(&actions, processes->token, CHILD_TOKEN_FD);
    posix_spawn_file_actions_adddup2(&actions, process->words, CHILD_WORDS_FD);
    if (process->role == PROCESS_PS)
        posix_spawn_file_actions_adddup2(&actions, processes->listeners[process->index], CHILD_LISTEN_FD);
    if (process->role == PROCESS_PS && process->index == 0)
        posix_spawn_file_actions_adddup2(&actions, processes->report[1], CHILD_REPORT_FD);
    int failed = posix_spawn(&process->pid, "/proc/self/exe", &actions, &attributes, (char *const *)command.arguments,
                             environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    errno = failed;
    return failed != 0 ? -1 : 0;
}

static int start_one(struct processes *processes, struct process *process, struct instant now, struct error *err)
{
    char **environment = NULL;
    int result = make_environment(process, &environment);
    if (result < 0)
        error_set(err, "start %s %u: no memory", role_name(process), process->index);
    else if ((result = spawn(processes, process, environment)) < 0)
        error_errno(err, "start %s %u", role_name(process), process->index);
    free_environment(environment);
    if (result < 0) {
        process->pid = 0;
        return -1;
    }
    process->started = now;
    if (process->role != PROCESS_PS)
        return 0;
    /* From now on only the child listens: when it is gone, connections are refused at once. */
    close(processes->listeners[process->index]);
    processes->listeners[process->index] = -1;
    if (process->index == 0)
        close(move_fd(&processes->report[1]));
    return 0;
}

int processes_start(struct processes *processes, struct instant now, struct error *err)
{
    for (uint32_t i = 0; i < processes->count; i++) {
        struct process *process = &processes->list[i];
        if (process->pid == 0 && instant_since(now, process->start_at) >= 0 &&
            start_one(processes, process, now, err) < 0)
            return -1;
    }
    return 0;
}

int64_t processes_wait(const struct processes *processes, struct instant now)
{
    int64_t least = -1;
    for (uint32_t i = 0; i < processes->count; i++) {
        if (processes->list[i].pid != 0)
            continue;
        int64_t wait = instant_since(processes->list[i].start_at, now);
        wait = wait > 0 ? wait : 0;
        least = least < 0 || wait < least ? wait : least;
    }
    return least;
}

/* ---- ending ---- */

static void note_words(struct process *process, const char *words, bool quick, struct ended *ended)
{
    uint8_t digest[SHA256_SIZE];
    sha256(words, strlen(words), digest);
    bool same = quick && words[0] != '\0' && memcmp(digest, process->same, sizeof digest) == 0;
    process->same_ends = same ? process->same_ends + 1 : 1;
    memcpy(process->same, digest, sizeof digest);
    ended->in_vain = ended->in_vain || process->same_ends == 3;
}

static void tell_end(struct process *process, int status, bool quick, struct ended *ended)
{
    const char *what = process->role == PROCESS_PS ? "Parameter server" : "Worker";
    char how[64], words[1000] = "";
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(status));
    ssize_t length = pread(process->words, words, sizeof words - 1, 0);
    words[length > 0 ? length : 0] = '\0';
    if (ftruncate(process->words, 0) < 0)
        words[0] = '\0';
    note_words(process, words, quick, ended);
    snprintf(ended->sentence, sizeof ended->sentence, "%s %u %s%s%s", what, process->index, how,
             words[0] != '\0' ? ": " : "", words);
}

bool processes_reap(struct processes *processes, struct ended *ended, struct instant now)
{
    int status = 0;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0)
        return false;
    for (uint32_t i = 0; i < processes->count; i++) {
        struct process *process = &processes->list[i];
        if (process->pid != pid)
            continue;
        process->pid = 0;
        *ended = (struct ended){.process = process,
                                .well = WIFEXITED(status) && WEXITSTATUS(status) == 0,
                                .in_vain = WIFEXITED(status) && WEXITSTATUS(status) == LOCAL_BAD_DATA};
        bool quick = instant_since(now, process->started) < QUICK;
        tell_end(process, status, quick, ended);
        process->quick_ends = quick ? process->quick_ends + 1 : 0;
        int64_t pause = process->quick_ends == 0 ? 0 : PAUSE_LEAST;
        for (uint32_t n = 1; n < process->quick_ends && pause < PAUSE_MOST; n++)
            pause *= 2;
        process->start_at.nanoseconds = now.nanoseconds + (pause < PAUSE_MOST ? pause : PAUSE_MOST);
        return true;
    }
    return processes_reap(processes, ended, now);
}

bool processes_run(const struct processes *processes)
{
    for (uint32_t i = 0; i < processes->count; i++)
        if (processes->list[i].pid != 0)
            return true;
    return false;
}

bool processes_serve(const struct processes *processes)
{
    for (uint32_t i = 0; i < processes->count; i++)
        if (processes->list[i].pid != 0 && processes->list[i].role == PROCESS_PS)
            return true;
    return false;
}

void processes_stop(const struct processes *processes, bool kill_them)
{
    for (uint32_t i = 0; i < processes->count; i++)
        if (processes->list[i].pid != 0)
            kill(processes->list[i].pid, kill_them ? SIGKILL : SIGTERM);
}

void processes_free(struct processes *processes)
{
    processes_stop(processes, true);
    for (uint32_t i = 0; i < processes->count; i++)
        if (processes->list[i].pid != 0)
            waitpid(processes->list[i].pid, NULL, 0);
    for (uint32_t shard = 0; shard < PLAN_SHARDS_MOST; shard++)
        if (processes->listeners[shard] >= 0)
            close(processes->listeners[shard]);
    for (int i = 0; i < 2; i++)
        if (processes->report[i] >= 0)
            close(processes->report[i]);
    for (uint32_t i = 0; i < processes->count; i++)
        if (processes->list[i].words >= 0)
            close(processes->list[i].words);
    if (processes->plan >= 0)
        close(processes->plan);
    if (processes->token >= 0)
        close(processes->token);
    free(processes->list);
}
