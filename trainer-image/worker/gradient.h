/* gradient — one tree node's sum of block gradients, handed out chunk by chunk; private to this folder.
 *
 * Each block is one call of model_gradient(), never fused with another, and sums are those of the fixed tree, so a node
 * has the same bits whoever computes it. With the plan's wire BFloat16 every node's are rounded to it, also of those
 * that nobody sends. Chunks are handed out as they are done: those of the deepest layers while the last block's
 * backward pass still goes on above them; of large Dense weights, which are added up piece by piece over all blocks
 * when these have been computed, while the next piece is. That way neither lies in memory as a whole, and servers have
 * work early.
 */
#ifndef THOLE_WORKER_GRADIENT_H
#define THOLE_WORKER_GRADIENT_H

#include "common/plan/schedule.h"
#include "data/data.h"
#include "model/model.h"
#include "worker/parameters.h"

struct gradient;

/* All borrowed. */
int gradient_new(struct gradient **out, const struct plan *plan, const struct model *model, const struct dataset *train,
                 struct error *err);
void gradient_free(struct gradient *gradient);
CLEANUP_DEFINE(cleanup_gradient_pointer, struct gradient, gradient_free)
#define cleanup_gradient CLEANUP(cleanup_gradient_pointer)

/* The nodes whose sums make up blocks [first, first + count) of a step, and nothing else. */
uint32_t gradient_cover(const struct gradient *gradient, uint64_t step, uint32_t first, uint32_t count,
                        uint32_t nodes[TREE_COVER_MOST]);

/* Fetches the samples that blocks from `first` on begin with, if the step has any: for when there is nothing to do but
 * to wait for its parameters. It need not be computed next, or ever. */
void gradient_prepare(struct gradient *gradient, uint64_t step, uint32_t first);

struct gradient_hooks {
    /* Before every block: is the step still wanted? */
    bool (*go_on)(void *arg);
    /* The rows that a block's samples x [n] hold, of each table; NULL, and it is no longer wanted, where they cannot be
     * had. The hook is NULL where the model has no tables. */
    const struct model_rows *(*rows)(void *arg, uint32_t block, const float *x, uint32_t n);
    /* Where the node's sum over the chunk is to be written, as the plan's wire has it; NULL: it is not wanted. Each
     * chunk once, in any order, and before others are filled; must not look at sockets. */
    void *(*place)(void *arg, const struct chunk *chunk);
    /* It is written to `place`. `loss` is the node's in the vector's first chunk, the last to come, and 0 in others. */
    void (*filled)(void *arg, const struct chunk *chunk, void *place, double loss);
    void *arg;
};

/* Computes a node that is not empty, from θ_step, in the chunks of `parameters`. False where go_on() said so; nothing
 * has been placed then. */
bool gradient_compute(struct gradient *gradient, uint64_t step, uint32_t node, const float *params,
                      const struct parameters *parameters, const struct gradient_hooks *hooks);

#endif
