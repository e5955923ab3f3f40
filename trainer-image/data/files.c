#include "data/files.h"

#include "data/data.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK }; /* a FIFO must not block before it is refused */

/* For kernels and sandboxes without openat2: step by step, and without any symbolic link. */
static int open_by_steps(int root, const char *path)
{
    cleanup_free char *rest = strdup(path);
    cleanup_fd int at = dup(root);
    if (rest == NULL || at < 0)
        return -1;
    char *place = NULL;
    for (char *step = strtok_r(rest, "/", &place); step != NULL;) {
        char *next = strtok_r(NULL, "/", &place);
        if (strcmp(step, "..") == 0 || path[0] == '/') {
            errno = EXDEV;
            return -1;
        }
        int fd = openat(at, step, OPEN_FLAGS | O_NOFOLLOW | (next == NULL ? 0 : O_DIRECTORY));
        if (fd < 0)
            return -1;
        close(at);
        at = fd;
        step = next;
    }
    return move_fd(&at);
}

static int open_beneath(int root, const char *path)
{
    struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd;
    do
        fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd < 0 && (errno == ENOSYS || errno == EPERM) ? open_by_steps(root, path) : fd;
}

int files_open_below(int root, const char *root_path, const char *path, struct error *err)
{
    cleanup_fd int fd = open_beneath(root, path);
    struct stat status;
    if (fd < 0 && errno == EXDEV)
        return error_set(err, "data set file '%s' lies outside '%s', the root of the data set's source", path,
                         root_path);
    if (fd < 0 && errno == ENOENT)
        return error_set(err, "data set file '%s' does not exist below '%s', the root of the data set's source", path,
                         root_path);
    if (fd < 0)
        return error_errno(err, "open data set file '%s' below '%s'", path, root_path);
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return error_set(err, "data set file '%s' below '%s' is no regular file", path, root_path);
    return move_fd(&fd);
}

int files_open_root(const char *root, struct error *err)
{
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_errno(err, "open '%s', the root of the data set's source", root) : fd;
}

/* ---- Files that change while they are mapped ---- */

static void on_lost_page(int signal, siginfo_t *info, void *context)
{
    static const char sentence[] = "a data set file was cut short, or its storage failed, while it was in use: files "
                                   "must stay as they are while a job trains; the next start will name the file\n";
    (void)signal;
    (void)context;
    /* Any other cause is this program's own mistake: with the handler gone it is met again, and says so. */
    if (info->si_code != BUS_ADRERR)
        return;
    if (write(STDERR_FILENO, sentence, sizeof sentence - 1) < 0)
        _exit(EXIT_FAILURE);
    _exit(EXIT_FAILURE);
}

int dataset_guard(struct error *err)
{
    struct sigaction action = {.sa_sigaction = on_lost_page, .sa_flags = (int)(SA_SIGINFO | SA_RESETHAND)};
    return sigaction(SIGBUS, &action, NULL) < 0 ? error_errno(err, "handle SIGBUS") : 0;
}
