/* layout — where the flat vector is cut: into shards, and each shard into the chunks that travel. One definition for
 * shards, workers and whoever fetches the model.
 *
 * A chunk has at most WIRE_CHUNK_FLOATS parameters and is made of whole canonical chunks (common/network), so that it
 * can be measured for norms as soon as it is there, without its neighbours.
 */
#ifndef THOLE_PS_LAYOUT_H
#define THOLE_PS_LAYOUT_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/network/network.h"
#include "common/plan/plan.h"

struct chunk {
    uint32_t shard;
    uint32_t count;  /* parameters */
    uint64_t offset; /* of the first, in the flat vector */
};

struct layout {
    uint64_t parameters;
    uint32_t shards;
    uint32_t first[PLAN_SHARDS_MOST + 1]; /* a shard's chunks are [first[shard], first[shard + 1]) */
    struct chunk chunks[];                /* in the order of the vector */
};

/* A shard may have no chunks, where the model is too small for so many. */
int layout_new(struct layout **out, const struct network *network, uint32_t shards, struct error *err);
void layout_free(struct layout *layout);
CLEANUP_DEFINE(cleanup_layout_pointer, struct layout, layout_free)
#define cleanup_layout CLEANUP(cleanup_layout_pointer)

static inline uint32_t layout_chunks(const struct layout *layout)
{
    return layout->first[layout->shards];
}

/* The chunk that begins at `offset`, or NULL. */
const struct chunk *layout_find(const struct layout *layout, uint64_t offset);

/* Bytes of a value in PUSH and PARAMS. */
static inline uint32_t layout_value_bytes(enum plan_wire wire)
{
    return wire == PLAN_BFLOAT16 ? 2 : 4;
}

/* How layout_new() cuts: the last canonical boundary in (begin, begin + most], or `end` where that is not beyond it.
 * `begin` is a boundary; a canonical chunk has `canonical` ≤ `most` parameters, or what is left of its tensor. */
uint64_t layout_cut(const struct network *network, uint32_t canonical, uint64_t begin, uint64_t end, uint64_t most);

#endif
