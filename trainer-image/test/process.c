#include "test/process.h"

#include <fcntl.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEXT_MOST = 1 << 20 };

void process_start(struct process *process, const char *const argv[], int listener, const char *environment)
{
    const char *program = strchr(argv[0], '/') != NULL ? argv[0] : THOLE_TRAINER;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    if (listener >= 0)
        posix_spawn_file_actions_adddup2(&actions, listener, PROCESS_LISTEN_FD);
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    char **list = calloc(count + 2, sizeof *list);
    memcpy(list, environ, count * sizeof *list);
    list[count] = (char *)environment;
    *process = (struct process){0};
    assert_int_equal(posix_spawn(&process->pid, program, &actions, NULL, (char *const *)argv, list), 0);
    posix_spawn_file_actions_destroy(&actions);
    free(list);
    close(ends[1]);
    process->out = fdopen(ends[0], "r");
    assert_non_null(process->out);
    buffer_init(&process->text, TEXT_MOST);
}

bool process_line(struct process *process, char line[PROCESS_LINE_SIZE])
{
    if (fgets(line, PROCESS_LINE_SIZE, process->out) == NULL)
        return false;
    assert_int_equal(buffer_append_text(&process->text, line, NULL), 0);
    line[strcspn(line, "\n")] = '\0';
    return true;
}

void process_wait_for(struct process *process, const char *words)
{
    char line[PROCESS_LINE_SIZE];
    while (process_line(process, line))
        if (strstr(line, words) != NULL)
            return;
    fail_msg("it never said '%s':\n%s", words, buffer_text(&process->text));
}

void process_expect_end(struct process *process, int status, const char *words)
{
    char line[PROCESS_LINE_SIZE];
    int waited = 0;
    while (process_line(process, line))
        continue;
    fclose(process->out);
    assert_int_equal(waitpid(process->pid, &waited, 0), process->pid);
    int ended = WIFEXITED(waited) ? WEXITSTATUS(waited) : -WTERMSIG(waited);
    const char *text = buffer_text(&process->text);
    if (ended != status || (words != NULL && strstr(text, words) == NULL) || strstr(text, "Sanitizer") != NULL)
        fail_msg("ended with %d, not with %d and '%s':\n%s", ended, status, words == NULL ? "" : words, text);
    buffer_free(&process->text);
}
