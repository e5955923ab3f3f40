/* table — one shard's part of an embedding table: the rows with id mod shards == shard, as far as they exist; private
 * to ps.
 *
 * A row that no gradient has touched is uniform in ±bound by (seed, table, row, position): reading computes it, and
 * costs no memory, so a table of 10 million rows is as large as the rows that the data hold. A row comes to exist when
 * its first gradient is applied, with the optimizer's state for it. Rows without a gradient in a step are not touched
 * by it: neither weight decay nor momentum move them. That is what "lazy" means of sparse optimizers (PyTorch's
 * SparseAdam); it is not what the same optimizer does to a dense matrix.
 *
 * θ_t stays readable until θ_{t+2}: of the rows that the newest step changed, the values before it are kept.
 */
#ifndef THOLE_PS_TABLE_H
#define THOLE_PS_TABLE_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/network/network.h"
#include "numerics/sparse.h"

struct table;

struct table_options {
    const struct network_table *table; /* borrowed */
    uint32_t number;                   /* of the table in its network: which stream of random numbers */
    uint64_t seed;
    uint32_t shards, shard;
    uint32_t states; /* floats that the optimizer keeps for each of a row's */
};

int table_new(struct table **out, const struct table_options *options, struct error *err);
void table_free(struct table *table);
CLEANUP_DEFINE(cleanup_table_pointer, struct table, table_free)
#define cleanup_table CLEANUP(cleanup_table_pointer)

/* Is the row on this shard? */
bool table_owns(const struct table *table, uint32_t id);
/* How many rows it would have if all existed. */
uint32_t table_rows_most(const struct table *table);

uint64_t table_version(const struct table *table); /* the newest; 0 at first */
/* Is it the newest or the one before? */
bool table_has(const struct table *table, uint64_t version);

/* Rows of a version that it has, into out [count][dim]; they need not exist, but are this shard's. */
void table_read(const struct table *table, uint64_t version, const uint32_t *ids, uint32_t count, float *out);

/* One optimizer step of one row: theta [n] in place; state [states][n], zeros at first; sum [n]: of its gradients. */
typedef void table_update(void *arg, float *theta, float *state, const float *sum, size_t n);

/* Room for the next version, whose gradients have these ids, ascending and this shard's. -1 without memory: nothing has
 * changed then, and the same call will do again. */
int table_reserve(struct table *table, const uint32_t *ids, uint32_t count, struct error *err);

/* The next version: `update` for every row of `sum`, for whose ids there is room. */
void table_apply(struct table *table, const struct sparse *sum, table_update *update, void *arg);

/* Makes rows with values of their own before the first step, as read from a model's file. -1 without memory. */
int table_set(struct table *table, const uint32_t *ids, const float *rows, uint32_t count, struct error *err);

/* Ids of rows that exist in a version that it has, ascending and not below `from`: at most `most` go to `ids`. Returns
 * how many, or -1 without memory. Of many calls in a row only the first is expensive. */
int64_t table_list(struct table *table, uint64_t version, uint32_t from, uint32_t *ids, uint32_t most);

uint32_t table_rows(const struct table *table); /* that exist, in the newest version */
size_t table_bytes(const struct table *table);  /* of memory, all in all */

#endif
