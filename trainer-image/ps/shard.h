/* What a shard's server sees of its chunks. Private to ps. */
#ifndef THOLE_PS_SHARD_H
#define THOLE_PS_SHARD_H

#include "optimizer/optimizer.h"
#include "ps/ps.h"
#include "ps/tables.h"

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

/* Gives it the network's tables; shard_new() does. */
int shard_add_tables(struct shard *shard, const struct network *network, uint32_t index, struct error *err);

uint32_t shard_chunks(const struct shard *shard);
struct shard_chunk shard_chunk(const struct shard *shard, uint32_t chunk);
uint32_t shard_chunk_at(const struct shard *shard, uint64_t offset); /* SHARD_NO_CHUNK where none begins */
/* The chunk that a frame, a `what` in the sentence, brings as a whole; SHARD_NO_CHUNK with *err set where it is none.
 */
uint32_t shard_check_chunk(const struct shard *shard, const struct frame *frame, const char *what, struct error *err);

struct tables *shard_tables(const struct shard *shard); /* NULL: it has none */

/* One node's whole part for a table, as shard_push() takes a gradient. `rows` come from tables_take(), and are the
 * shard's from now on. `frame` has passed tables_check_push(). */
int shard_push_rows(struct shard *shard, const struct frame *frame, struct sparse *rows, enum push_result *result,
                    struct error *err);

/* ---- the other types, beside shard_push ---- */

/* One step of the optimizer with a gradient's sum, at once: the chunk has a new version, and the one before is gone.
 * shard_version() does not count these. */
int shard_update(struct shard *shard, uint32_t chunk, const struct optimizer_step *step, const struct payload *sum,
                 struct error *err);

/* The chunk's next version, of which a reference is taken; hooks are called as after a step. */
void shard_replace(struct shard *shard, uint32_t chunk, struct payload *params, double loss);

size_t shard_server_queued_most(const struct shard_server *server); /* bytes queued to the client with most */

#endif
