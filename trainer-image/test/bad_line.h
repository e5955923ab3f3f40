/* bad_line — a port in front of another: passes bytes on, and cuts connections after some, in the middle of a frame. */
#ifndef THOLE_TEST_BAD_LINE_H
#define THOLE_TEST_BAD_LINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { PAIRS_MOST = 32 };

struct bad_line {
    pthread_t thread;
    int listener;
    uint16_t port, to;
    atomic_bool stop;
    atomic_uint cuts; /* still to be made */
    atomic_uint made;
    uint32_t random;
    struct {
        int fds[2];
        size_t left; /* bytes until the cut */
    } pairs[PAIRS_MOST];
    uint32_t count;
};

/* In a thread of its own, until line_stop(). */
void line_start(struct bad_line *line, uint16_t to, uint32_t cuts);
void line_stop(struct bad_line *line);

#endif
