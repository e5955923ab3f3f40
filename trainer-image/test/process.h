/* process — a thole-trainer that a test starts, reads line by line, and sees to its end. */
#ifndef THOLE_TEST_PROCESS_H
#define THOLE_TEST_PROCESS_H

#include "common/buffer.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

enum { PROCESS_LINE_SIZE = 2048, PROCESS_LISTEN_FD = 200 };

struct process {
    pid_t pid;
    FILE *out;          /* its stdout and stderr */
    struct buffer text; /* what was read of it */
};

/* argv[0]: a program's path, or any name for the trainer of this build. `listener`: a socket that it inherits as
 * PROCESS_LISTEN_FD, or -1; `environment`: one variable more, or NULL. */
void process_start(struct process *process, const char *const argv[], int listener, const char *environment);
/* The next line, without its end; false at the end of all. */
bool process_line(struct process *process, char line[PROCESS_LINE_SIZE]);
/* Reads until a line has these words. */
void process_wait_for(struct process *process, const char *words);
/* Reads the rest. It must end with this status, or minus the signal, having said `words` (NULL: anything) and without a
 * sanitizer's complaint, its own or that of a process that it started. */
void process_expect_end(struct process *process, int status, const char *words);

#endif
