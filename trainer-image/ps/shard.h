/* What a shard's server sees of its chunks. Private to ps. */
#ifndef THOLE_PS_SHARD_H
#define THOLE_PS_SHARD_H

#include "ps/ps.h"

#define SHARD_NO_CHUNK UINT32_MAX

struct shard_chunk {
    uint64_t offset, version; /* the newest */
    struct payload *params;   /* of that version, borrowed */
};

/* A shard of parameters [begin, end), all zero, in chunks of `chunk_floats`: what shard_new() gives the model's initial
 * values, and tests their own, by shard_chunk(). */
int shard_make(struct shard **out, struct net *net, const struct plan *plan, uint64_t begin, uint64_t end,
               uint32_t chunk_floats, uint64_t train_samples, const struct shard_hooks *hooks, struct error *err);

uint32_t shard_chunks(const struct shard *shard);
struct shard_chunk shard_chunk(const struct shard *shard, uint32_t chunk);
uint32_t shard_chunk_at(const struct shard *shard, uint64_t offset); /* SHARD_NO_CHUNK where none begins */

size_t shard_server_queued_most(const struct shard_server *server); /* bytes queued to the client with most */

#endif
