/* What a shard's server sees of its chunks. Private to ps. */
#ifndef THOLE_PS_SHARD_H
#define THOLE_PS_SHARD_H

#include "ps/ps.h"

#define SHARD_NO_CHUNK UINT32_MAX

struct shard_chunk {
    uint64_t offset, version; /* the newest */
    struct payload *params;   /* of that version, borrowed */
};

/* What a shard is cut from and into: its chunks, which follow each other, and all tensors of the vector with the floats
 * of a canonical chunk. All borrowed during the call. */
struct shard_cut {
    const struct chunk *chunks;
    uint32_t chunk_count;
    const struct network_tensor *tensors;
    uint32_t tensor_count, canonical;
};

/* A shard of parameters that are all zero; shard_new() and tests give it others. */
int shard_make(struct shard **out, struct net *net, const struct plan *plan, const struct shard_cut *cut,
               uint64_t train_samples, const struct shard_hooks *hooks, struct error *err);

uint32_t shard_chunks(const struct shard *shard);
struct shard_chunk shard_chunk(const struct shard *shard, uint32_t chunk);
uint32_t shard_chunk_at(const struct shard *shard, uint64_t offset); /* SHARD_NO_CHUNK where none begins */

size_t shard_server_queued_most(const struct shard_server *server); /* bytes queued to the client with most */

#endif
