#include "loop/trim.h"

#include <link.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const int64_t interval = 5 * SECONDS;
enum { WORTH_IT = 256 * 1024 }; /* bytes by which the heap must have changed */

struct trim {
    struct loop_timer timer;
    size_t free_before, free_trimmed; /* bytes of the heap that are free: at the last look; after the last trim */
    bool trimmed;                     /* once */
};

/* Segments that may never be written hold only what is in the file. Those that are read-only only after relocation
 * are marked as writable in the program header. */
static int drop_constant_segments(struct dl_phdr_info *object, size_t size, void *arg)
{
    (void)size;
    size_t *dropped = arg;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &object->dlpi_phdr[i];
        if (header->p_type != PT_LOAD || (header->p_flags & PF_W) != 0)
            continue;
        uintptr_t begin = (object->dlpi_addr + header->p_vaddr) & ~(page - 1);
        uintptr_t end = (object->dlpi_addr + header->p_vaddr + header->p_filesz) & ~(page - 1);
        void *address = NULL;
        memcpy(&address, &begin, sizeof address); /* the program header has numbers */
        if (end > begin && madvise(address, end - begin, MADV_DONTNEED) == 0)
            *dropped += end - begin;
    }
    return 0;
}

size_t trim_now(void)
{
    size_t dropped = 0;
    malloc_trim(0);
    dl_iterate_phdr(drop_constant_segments, &dropped);
    return dropped;
}

static bool is_far(size_t a, size_t b)
{
    return (a > b ? a - b : b - a) >= WORTH_IT;
}

/* Quiet is when the heap has not changed much between two looks. */
static void look(void *arg)
{
    struct trim *trim = arg;
    size_t free_now = mallinfo2().fordblks;
    if (!is_far(free_now, trim->free_before) && (!trim->trimmed || is_far(free_now, trim->free_trimmed))) {
        trim_now();
        trim->trimmed = true;
        trim->free_trimmed = mallinfo2().fordblks;
    }
    trim->free_before = free_now;
    loop_timer_set(&trim->timer, interval);
}

struct trim *trim_start(struct loop *loop, struct error *err)
{
    struct trim *trim = calloc(1, sizeof *trim);
    if (trim == NULL) {
        error_set(err, "out of memory");
        return NULL;
    }
    loop_timer_init(&trim->timer, loop, look, trim);
    loop_timer_set(&trim->timer, interval);
    return trim;
}

void trim_stop(struct trim *trim)
{
    if (trim == NULL)
        return;
    loop_timer_cancel(&trim->timer);
    free(trim);
}
