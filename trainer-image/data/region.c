#include "data/region.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GROW_LEAST = 1 << 16 };

static int no_memory(uint64_t length, const char *name, struct error *err)
{
    return error_set(err, "out of memory for the %" PRIu64 " bytes of data set file '%s'", length, name);
}

static int map_empty(struct region *out, uint64_t length, const char *name, struct error *err)
{
    void *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return no_memory(length, name, err);
    *out = (struct region){base, length};
    return 0;
}

int region_make(struct region *out, uint64_t length, const char *name, struct error *err)
{
    if (map_empty(out, length, name, err) < 0)
        return -1;
    /* Samples are read in a random order: with small pages nearly each is a miss of the page tables' cache. Where there
     * are no large ones, small ones will do. A region that grows has small ones: to move large ones takes longer. */
    (void)madvise(out->base, length, MADV_HUGEPAGE);
    return 0;
}

int region_map(struct region *out, int fd, uint64_t length, const char *name, struct error *err)
{
    void *base = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return error_errno(err, "map data set file '%s' into memory", name);
    *out = (struct region){base, length};
    return 0;
}

int region_grow(struct region *region, uint64_t length, uint64_t most, const char *name, struct error *err)
{
    if (length <= region->length)
        return 0;
    if (length > most)
        return error_set(err, "data set file '%s' holds more than %" PRIu64 " bytes of samples", name, most);
    uint64_t wanted = region->length < GROW_LEAST ? GROW_LEAST : 2 * region->length;
    wanted = wanted < length ? length : wanted;
    wanted = wanted > most ? most : wanted;
    if (region->base == NULL)
        return map_empty(region, wanted, name, err);
    void *base = mremap(region->base, region->length, wanted, MREMAP_MAYMOVE);
    if (base == MAP_FAILED)
        return no_memory(wanted, name, err);
    *region = (struct region){base, wanted};
    return 0;
}

void region_keep(struct region *region, uint64_t begin, uint64_t end)
{
    if (region->base == NULL || end > region->length)
        return;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t whole = (region->length + page - 1) / page * page;
    const uint64_t behind = (end + page - 1) / page * page;
    /* Pages in front are emptied and stay addressable, so that nobody's offsets change. */
    if (begin >= page)
        madvise(region->base, begin / page * page, MADV_DONTNEED);
    if (behind > 0 && behind < whole) {
        munmap(region->base + behind, whole - behind);
        region->length = behind;
    }
}

void region_free(struct region *region)
{
    if (region->base != NULL)
        munmap(region->base, region->length);
    *region = (struct region){0};
}
