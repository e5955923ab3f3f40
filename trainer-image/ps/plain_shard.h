/* A shard of one tensor in even chunks, for tests and benchmarks; private to ps. */
#ifndef THOLE_PS_PLAIN_SHARD_H
#define THOLE_PS_PLAIN_SHARD_H

#include "ps/shard.h"

#include <stdlib.h>

/* Of parameters [begin, end), all zero, in chunks of `chunk_floats`. */
static inline int plain_shard(struct shard **out, struct net *net, const struct plan *plan, uint64_t begin,
                              uint64_t end, uint32_t chunk_floats, uint64_t train_samples,
                              const struct shard_hooks *hooks, struct error *err)
{
    uint32_t count = (uint32_t)((end - begin + chunk_floats - 1) / chunk_floats);
    struct chunk *chunks = calloc(count, sizeof *chunks);
    if (chunks == NULL)
        return error_set(err, "no memory for a list of chunks");
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = begin + (uint64_t)i * chunk_floats;
        chunks[i] =
            (struct chunk){.offset = at, .count = end - at < chunk_floats ? (uint32_t)(end - at) : chunk_floats};
    }
    const struct network_tensor tensor = {.name = "all", .count = end};
    const struct shard_cut cut = {.chunks = chunks,
                                  .chunk_count = count,
                                  .tensors = &tensor,
                                  .tensor_count = 1,
                                  .canonical = chunk_floats < 4096 ? chunk_floats : 4096};
    int made = shard_make(out, net, plan, &cut, train_samples, hooks, err);
    free(chunks);
    return made;
}

#endif
