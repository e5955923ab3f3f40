/* region — memory by the page: anonymous, or a file's, mapped read-only. Private to data. */
#ifndef THOLE_DATA_REGION_H
#define THOLE_DATA_REGION_H

#include "common/cleanup.h"
#include "common/error.h"

#include <stdint.h>

struct region {
    uint8_t *base;   /* NULL: none */
    uint64_t length; /* bytes */
};

/* Zeros, which cost memory once they are written to (by large pages, where the kernel has them): a length that somebody
 * else named is only address space. `name` is the file's whose content is to come here, for the sentence. */
int region_make(struct region *out, uint64_t length, const char *name, struct error *err);

/* The first `length` bytes of a file. */
int region_map(struct region *out, int fd, uint64_t length, const char *name, struct error *err);

/* Room for at least `length` bytes, at most `most`, in an anonymous region or an empty one; it may move. */
int region_grow(struct region *region, uint64_t length, uint64_t most, const char *name, struct error *err);

/* Gives back the pages of which nothing lies in [begin, end); the rest stays where it is. */
void region_keep(struct region *region, uint64_t begin, uint64_t end);

void region_free(struct region *region);
#define cleanup_region CLEANUP(region_free)

#endif
