/* norms — the coordinator's part in the rounds of an optimizer: takes what every shard has measured, folds it in the
 * order of the vector, and says the scalars that all are to go on with; private to this folder. No sockets. What shards
 * have measured of the rows of embedding tables has no such order, and is added exactly (numerics/exact_sum.h).
 *
 * Rounds follow each other: round r of step t is complete when all shards have sent their measures of it, and round
 * r + 1, or round 0 of step t + 1, begins. What comes of a round that is complete changes nothing; a shard cannot be
 * ahead, as it goes on only with the scalars.
 */
#ifndef THOLE_COORDINATOR_NORMS_H
#define THOLE_COORDINATOR_NORMS_H

#include "common/cleanup.h"
#include "common/network/network.h"
#include "common/plan/plan.h"

struct norms;

/* Both borrowed during the call. */
int norms_new(struct norms **out, const struct plan *plan, const struct network *network, struct error *err);
void norms_free(struct norms *norms);
CLEANUP_DEFINE(cleanup_norms_pointer, struct norms, norms_free)
#define cleanup_norms CLEANUP(cleanup_norms_pointer)

/* `bytes` of doubles, which are the shard's measures from `first` on; those before have come. 1 where they complete the
 * round; 0 where others are still missing, or where they had come before; -1 with a sentence where they cannot be. */
int norms_add(struct norms *norms, uint32_t shard, uint64_t step, uint32_t round, uint64_t first, const void *measures,
              size_t bytes, struct error *err);

/* What the newest complete round came to; borrowed until the next norms_add(). */
const double *norms_scalars(const struct norms *norms, uint32_t *count);

#endif
