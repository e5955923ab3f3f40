/* shard_state — what a shard is made of: shard_make.c makes it, shard.c moves it on. Private to these two. */
#ifndef THOLE_PS_SHARD_STATE_H
#define THOLE_PS_SHARD_STATE_H

#include "common/plan/schedule.h"
#include "numerics/numerics.h"
#include "optimizer/optimizer.h"
#include "ps/reduction.h"
#include "ps/shard.h"

/* A chunk as the shard holds it. */
struct held {
    uint64_t offset; /* in the model's flat vector */
    uint32_t floats;
    uint64_t version;          /* of params[0]; its tree waits for the step of this number */
    struct payload *params[2]; /* θ of `version`, and of the one before (NULL at first), as they are handed out */
    struct payload *next;      /* room for θ of the next version, from when its step is measured */
    struct reduction reduction;
};

struct shard {
    struct net *net;
    const struct plan *plan;
    struct shard_hooks hooks;
    struct tree tree;
    struct schedule schedule;
    struct optimizer *optimizer;
    struct tables *tables; /* NULL: none */
    uint64_t begin, end;
    uint64_t version;   /* the oldest of the chunks' and tables' */
    uint32_t at_oldest; /* how many of them have it */
    double loss;        /* of the step that chunk 0 has just applied: the chunks are never more than a step apart */

    float *states[OPTIMIZER_STATES_MOST]; /* each [end − begin], or NULL */
    float *masters;                       /* [end − begin]; NULL where what is handed out is not rounded */

    struct optimizer_step step; /* of `step_of`, with what has been committed of it */
    uint64_t step_of;
    uint32_t rounds, round;
    uint64_t round_of;        /* the step that the round is of: all chunks have applied those before */
    bool rows_wait;           /* for the first of them, which clips: tables, where there are any */
    uint32_t measured;        /* chunks and, where they wait, tables, in this round */
    struct exact_sum squares; /* of the rows' gradients that are measured */
    uint64_t first_measure;
    double *measures; /* of the shard's canonical chunks, then of its rows */
    double *scalars;  /* of the newest commit */
    float *unpacked;  /* a chunk's gradient that is being measured */

    uint32_t chunk_count;
    struct held chunks[];
};

/* The chunk's parameters as floats, not rounded. */
static inline float *shard_theta(const struct shard *shard, const struct held *chunk)
{
    return shard->masters != NULL ? shard->masters + (chunk->offset - shard->begin) : (float *)chunk->params[0]->data;
}

/* shard.c: the chunk waits for the gradients of the step that makes its next version. */
void shard_begin_step(struct shard *shard, struct held *chunk);

#endif
