/* cleanup — scope-bound release for plain resources; each type of ours declares its own next to itself.
 *
 *     cleanup_fd int fd = open(…);
 *     cleanup_free char *text = strdup(…);
 *     return move(text);            // hands the value on and leaves NULL behind
 */
#ifndef THOLE_COMMON_CLEANUP_H
#define THOLE_COMMON_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

/* Defines the cleanup function `name` for pointers to `type`, released by `release` (which accepts NULL). */
#define CLEANUP_DEFINE(name, type, release)                                                                            \
    static inline void name(type **pointer)                                                                            \
    {                                                                                                                  \
        release(*pointer);                                                                                             \
    }

#define move(variable)                                                                                                 \
    __extension__({                                                                                                    \
        __typeof__(variable) moved_value = (variable);                                                                 \
        (variable) = NULL;                                                                                             \
        moved_value;                                                                                                   \
    })

static inline int move_fd(int *fd)
{
    int moved = *fd;
    *fd = -1;
    return moved;
}

static inline void cleanup_free_pointer(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_close_fd(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_close_file(FILE **file)
{
    if (*file != NULL)
        fclose(*file);
}

#define cleanup_free CLEANUP(cleanup_free_pointer)
#define cleanup_fd   CLEANUP(cleanup_close_fd)
#define cleanup_file CLEANUP(cleanup_close_file)

#endif
