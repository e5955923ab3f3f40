/* rows — the rows of embedding tables that a worker computes with, and their gradients; private to this folder.
 *
 * Which rows a range of samples reads is known from the data, so they are asked for before they are needed, each shard
 * for its own, and come back as the shards have them: at once, or with the version. A block then finds its own rows
 * among them; what its backward pass leaves is the block's leaf of the step's tree, for each table.
 * At most one range is wanted at a time, and one node is added up. Knows no connections: frames go out by a hook.
 */
#ifndef THOLE_WORKER_ROWS_H
#define THOLE_WORKER_ROWS_H

#include "data/data.h"
#include "model/model.h"
#include "optimizer/optimizer.h"
#include "wire/wire.h"

struct rows;

struct rows_hooks {
    /* Sends a frame to a shard; what cannot be sent is dropped, and asked for again by rows_ask_again(). `payload` may
     * be NULL. */
    void (*send)(void *arg, uint32_t shard, const struct frame *frame, struct payload *payload);
    void *arg;
};

/* All borrowed; *out is NULL where the model has no tables. */
int rows_new(struct rows **out, struct net *net, const struct plan *plan, const struct model *model,
             const struct rows_hooks *hooks, struct error *err);
void rows_free(struct rows *rows); /* NULL is fine */
CLEANUP_DEFINE(cleanup_rows_pointer, struct rows, rows_free)
#define cleanup_rows CLEANUP(cleanup_rows_pointer)

/* A range of samples at a version of the parameters. */
struct rows_range {
    const struct dataset *dataset;
    const struct permutation *order; /* NULL: as in the file; else the range's place in it: */
    uint64_t epoch;
    uint64_t first, count;
    uint64_t version; /* or WIRE_NEWEST */
    uint64_t attempt; /* the same once more, from newer versions, has another number */
};

/* From now on the rows of this range are wanted; nothing happens where they are already. What was wanted before is
 * forgotten. -1 where the data hold what is no id, or without memory. */
int rows_want(struct rows *rows, const struct rows_range *range, struct error *err);
/* Have all of them come, and has every shard, also where it has none of them, said that it is at their version? Before
 * that no step begins: a table that nobody reads may still wait for the gradients of the step before. */
bool rows_here(const struct rows *rows);
/* Nothing is wanted any more: another coordinator's versions mean other rows. */
void rows_forget(struct rows *rows);
/* The connection to a shard is new: what has not come over the old one is asked for again. */
void rows_ask_again(struct rows *rows, uint32_t shard);

/* A ROWS frame from a shard: what it must be to be an answer to what was asked. -1 with a sentence where it cannot be
 * any; *wanted says whether it is to what is wanted now. */
int rows_check(const struct rows *rows, uint32_t shard, const struct frame *frame, bool *wanted, struct error *err);
/* A wanted one has come. */
void rows_received(struct rows *rows, uint32_t shard, const struct frame *frame, const void *payload);

/* All wanted rows, of each table: for model_evaluate(). They must be here. */
const struct model_rows *rows_all(struct rows *rows);

/* ---- gradients: rows_begin(), rows_block() and model_gradient() for each block of a node, rows_push() ---- */

/* A node's blocks come next. */
void rows_begin(struct rows *rows);
/* The rows of samples x [n], of the wanted range, for block `block` of the step's tree: their gradients are kept as its
 * leaf. NULL without memory. */
const struct model_rows *rows_block(struct rows *rows, uint32_t block, const float *x, uint32_t n);
/* Sends each shard its part of the node's sums: `frame` has term, step and node. `samples` of the step. -1 without
 * memory. */
int rows_push(struct rows *rows, const struct frame *frame, uint64_t samples, struct error *err);

/* ---- the same without a tree: rows_begin(), rows_next_block() for each block, rows_end(), rows_push_part() ---- */

/* As rows_block(), of the block whose gradient is added to what there is. NULL without memory. */
const struct model_rows *rows_next_block(struct rows *rows, const float *x, uint32_t n);
/* Adds the last one. -1 without memory. */
int rows_end(struct rows *rows);
/* ‖g‖² of all rows of all tables together. */
double rows_squares(const struct rows *rows, const struct optimizer_step *step);
/* Each row's gradient as optimizer_clip_row() makes it. */
void rows_clip(struct rows *rows, const struct optimizer_step *step);
/* Sends a shard its part of a table's sums as PUSH_BATCH_ROWS: `frame` has task and sequence. -1 without memory. */
int rows_push_part(struct rows *rows, const struct frame *frame, uint32_t table, uint32_t shard);

#endif
