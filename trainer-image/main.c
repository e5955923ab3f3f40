/* thole-trainer — the one program of a job: parameter server, worker, or both on one machine. */
#include "data/data.h"
#include "local/local.h"
#include "numerics/numerics.h"
#include "pod.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

static const char help[] = "Usage: thole-trainer ROLE [options]\n"
                           "\n"
                           "  ps       one shard of a job's parameters; shard 0 coordinates the job\n"
                           "  worker   computes gradients for a job\n"
                           "  local    runs a whole TrainJob as processes on this machine\n"
                           "\n"
                           "  --help, --version\n"
                           "\n"
                           "thole-trainer ROLE --help tells a role's options.\n";

/* Kubernetes shows the last words of a container from a file, where there is one, beside the log. `local` reads its own
 * and says them itself. */
static void say_last_words(const struct pod *pod, const char *sentence)
{
    const char *path = getenv("THOLE_TERMINATION_LOG");
    cleanup_fd int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)
                                     : open("/dev/termination-log", O_WRONLY | O_CLOEXEC);
    const size_t length = strlen(sentence);
    const bool written = fd >= 0 && write(fd, sentence, length) == (ssize_t)length;
    if (path == NULL || !written)
        log_error(&pod->log, sentence, NULL);
}

static int run_role(int argc, char **argv, int (*role)(const struct pod *pod, struct error *err))
{
    char name[16]; /* as the kernel cuts it; a start by way of /proc/self/exe would show as "exe" */
    snprintf(name, sizeof name, "thole-%s", argv[1]);
    prctl(PR_SET_NAME, name);
    struct error err = {0};
    cleanup_pod struct pod pod;
    int parsed = pod_parse(&pod, argc, argv, &err);
    if (parsed != 0) {
        if (parsed < 0)
            fprintf(stderr, "thole-trainer %s: %s\n", argv[1], error_message(&err));
        return parsed < 0 ? EXIT_USAGE : EXIT_SUCCESS;
    }
    const int result = pod_load(&pod, &err) < 0 ? -1 : role(&pod, &err);
    if (result == 0)
        return EXIT_SUCCESS;
    say_last_words(&pod, error_message(&err));
    return result < 0 ? EXIT_FAILURE : result;
}

/* OpenBLAS makes its threads while it is loaded, before main: they would cost memory, and take signals that are meant
 * for this thread's signalfd. Only the environment of a fresh start keeps it from that. */
static void start_without_threads(char **argv)
{
    static const char name[] = "OPENBLAS_NUM_THREADS";
    const char *threads = getenv(name);
    if ((threads != NULL && strcmp(threads, "1") == 0) || setenv(name, "1", 1) < 0)
        return;
    execv("/proc/self/exe", argv); /* else it goes on with the threads that there are */
}

int main(int argc, char **argv)
{
    start_without_threads(argv);
    numerics_setup();
    signal(SIGPIPE, SIG_IGN);
    struct error err = {0};
    if (dataset_guard(&err) < 0) {
        fprintf(stderr, "thole-trainer: %s\n", error_message(&err));
        return EXIT_FAILURE;
    }
    const char *role = argc > 1 ? argv[1] : "";
    if (strcmp(role, "ps") == 0)
        return run_role(argc, argv, ps_main);
    if (strcmp(role, "worker") == 0)
        return run_role(argc, argv, worker_main);
    if (strcmp(role, "local") == 0)
        return local_main(argc, argv);
    if (strcmp(role, "--version") == 0) {
        printf("thole-trainer %s (OpenBLAS kernels: %s)\n", THOLE_VERSION, numerics_kernel());
        return EXIT_SUCCESS;
    }
    if (strcmp(role, "--help") == 0) {
        fputs(help, stdout);
        return EXIT_SUCCESS;
    }
    if (role[0] == '\0')
        fputs("thole-trainer: which role? ps, worker or local; see thole-trainer --help\n", stderr);
    else
        fprintf(stderr, "thole-trainer: '%s' is no role: there are ps, worker and local; see thole-trainer --help\n",
                role);
    return EXIT_USAGE;
}
