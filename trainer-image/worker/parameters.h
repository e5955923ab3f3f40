/* parameters — θ as a worker holds it: two buffers, received chunk by chunk, each chunk with its version; private to
 * this folder.
 *
 * Version v lives in buffer v % 2. That suffices: a chunk of version v + 2 exists only where somebody has computed step
 * v + 1, with all of θ_{v+1}, so step v is over for everybody and its parameters are no longer wanted. A chunk that is
 * being received has no version, so half of one is never computed with.
 */
#ifndef THOLE_WORKER_PARAMETERS_H
#define THOLE_WORKER_PARAMETERS_H

#include "common/cleanup.h"
#include "common/error.h"
#include "ps/layout.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stdint.h>

struct parameters;

/* The chunks of `shards` shards, in the order of the flat vector. */
int parameters_new(struct parameters **out, const struct network *network, uint32_t shards, enum plan_wire wire,
                   struct error *err);
void parameters_free(struct parameters *parameters);
CLEANUP_DEFINE(cleanup_parameters_pointer, struct parameters, parameters_free)
#define cleanup_parameters CLEANUP(cleanup_parameters_pointer)

/* As if nothing had ever come: another coordinator's versions mean other parameters. */
void parameters_forget(struct parameters *parameters);

uint32_t parameters_chunks(const struct parameters *parameters);
const struct chunk *parameters_chunk(const struct parameters *parameters, uint32_t index);
/* The chunk that begins at `offset`, or NULL. */
const struct chunk *parameters_find(const struct parameters *parameters, uint64_t offset);

/* Bytes of a chunk as it travels. */
uint32_t parameters_bytes(const struct parameters *parameters, const struct chunk *chunk);
/* A chunk of `version` begins to come: where to write its bytes. NULL where it is not wanted, being older than what is
 * there, or the same. */
void *parameters_place(struct parameters *parameters, const struct chunk *chunk, uint64_t version);
/* It has come, whole. */
void parameters_placed(struct parameters *parameters, const struct chunk *chunk, uint64_t version);

/* θ_version where all its chunks are here, else NULL. */
const float *parameters_at(const struct parameters *parameters, uint64_t version);
/* Is step `version` over, as newer parameters have come that could not exist otherwise? All chunks of the next version
 * are enough, unless there are embedding tables, which may still wait for the step's gradients. */
bool parameters_over(const struct parameters *parameters, uint64_t version);
/* Has the chunk been sent in a newer version only, so that `version` has to be asked for? True once a version. */
bool parameters_must_ask(struct parameters *parameters, uint32_t index, uint64_t version);
/* The connection to a shard is new: what was asked for over the old one may never come. */
void parameters_ask_again(struct parameters *parameters, uint32_t shard);

#endif
