/* sparse — gradients of embedding tables: for each id that occurs, once and ascending, a row of floats.
 *
 * A node of the step's tree is, for each table, one such list. Two are added by merging them: where both have an id,
 * left + right, element by element; where one has it, its row as it is. So an id's sum is that of the fixed tree over
 * the blocks in which it occurs, whoever added what, and ids that no block has cost nothing.
 */
#ifndef THOLE_NUMERICS_SPARSE_H
#define THOLE_NUMERICS_SPARSE_H

#include "common/cleanup.h"
#include "numerics/numerics.h"

/* Starts as {.dim = …}, with `bfloat16` where sums are r(r(left) + r(right)), r() rounding to it: a row that has not
 * been added to anything is rounded when it is. Memory grows to the most that was ever in it and stays. */
struct sparse {
    uint32_t dim;
    uint32_t count, capacity;
    bool bfloat16;
    uint32_t *ids; /* [count], ascending, each once */
    float *rows;   /* [count][dim] */
};

/* Room for `count` rows; what is in it stays. -1 without memory, and nothing has changed. */
int sparse_reserve(struct sparse *sparse, uint32_t count);
void sparse_free(struct sparse *sparse);
#define cleanup_sparse CLEANUP(sparse_free)

/* Where `id` is in ascending ids; `count` where it is not. */
uint32_t sparse_find(const uint32_t *ids, uint32_t count, uint32_t id);

/* Where the first id that is not below `id` is; `count` where all are. */
uint32_t sparse_lower_bound(const uint32_t *ids, uint32_t count, uint32_t id);

/* Sorts ids and leaves each once; returns how many are left. `scratch` has room for as many. */
uint32_t sparse_unique(uint32_t *ids, uint32_t count, uint32_t *scratch);

/* out = left + right, rounded where out->bfloat16 says so; `out` is neither of them. -1 without memory. */
int sparse_sum(struct sparse *out, const struct sparse *left, const struct sparse *right);

/* ---- The tree ---- */

enum { SPARSE_SCRATCH = 2 * (TREE_DEPTH_MOST + 1) };

/* Is the value of `node` there, or do values below it make it up? values[i] is node i's, NULL where it is not known. */
bool sparse_tree_complete(struct tree tree, uint64_t samples, uint32_t node, struct sparse *const *values);

/* The value of a complete `node` that is not empty: one of `values`, or made in `scratch` (all of the table's dim).
 * NULL without memory. */
const struct sparse *sparse_tree_value(struct tree tree, uint64_t samples, uint32_t node, struct sparse *const *values,
                                       struct sparse scratch[SPARSE_SCRATCH]);

#endif
