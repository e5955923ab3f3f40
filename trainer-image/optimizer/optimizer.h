/* optimizer — from a step's gradient to the next parameters: SGD, Adagrad, RMSProp, Adam, AdamW, AMSGrad and LAMB, with
 * weight decay, clipping and schedules of the rate, as PyTorch defines them.
 *
 * Every function is pure: what a step's elements share is computed once, in double, from the step's number; after that
 * each element stands alone, so any cut of the vector into ranges gives the same bits. Two things need more than their
 * element: clipping by norm and LAMB's trust ratios. They take rounds: sums of squares over canonical chunks, which
 * cross neither tensors nor shards, are added in the order of the vector, whoever made them, and come back as scalars.
 *
 * Rows of embedding tables are updated one by one, where the step has a gradient for them, and have no place in the
 * vector's order: which rows a shard has depends on how many shards there are. So in the round that clips, a row's sum
 * of squares is a double, made in the order of its elements, and those of all rows are added exactly
 * (numerics/exact_sum.h). For LAMB a row is a layer: its trust ratio is of its own norms, and takes no round.
 *
 * May call numerics, common/network's types and common/plan.
 *
 * Of g = sum/samples, in this order: each element to ±clip_value; the whole to clip_norm; then weight decay (with AdamW
 * and LAMB elsewhere, as below). A TENSOR_STATISTIC knows none of this: θ' = θ + momentum·(sum/samples − θ).
 *
 *   SGD      v = μ·v + g;  θ' = θ − rate·v           Nesterov: θ' = θ − rate·(g + μ·v); without momentum no v
 *   Adagrad  s = s + g²;   θ' = θ − rate·g/(√s + ε)
 *   RMSProp  s = α·s + (1−α)·g²;  d = g/(√s + ε);  with momentum b = μ·b + d, θ' = θ − rate·b; else θ' = θ − rate·d
 *   Adam     m = β₁·m + (1−β₁)·g;  v = β₂·v + (1−β₂)·g²;  θ' = θ − rate/(1−β₁ᵗ)·m/(√v/√(1−β₂ᵗ) + ε)
 *   AdamW    the same, with θ·(1 − rate·decay) for θ and no decay in g
 *   AMSGrad  Adam with the largest v so far under the root
 *   LAMB     u = m̂/(√v̂ + ε) + decay·θ;  θ' = θ − rate·ratio·u, ratio = ‖θ‖/‖u‖ of each tensor, or of each row of an
 *            embedding, 1 where either is 0
 *            (You et al.: "Large batch optimization for deep learning", ICLR 2020)
 */
#ifndef THOLE_OPTIMIZER_OPTIMIZER_H
#define THOLE_OPTIMIZER_OPTIMIZER_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/network/network.h"
#include "common/plan/schedule.h"
#include "numerics/exact_sum.h"
#include "numerics/sparse.h"

#include <stddef.h>

enum {
    OPTIMIZER_STATES_MOST = 3,
    OPTIMIZER_ROUNDS_MOST = 2,
    OPTIMIZER_MEASURES_MOST = 2,
};

/* ---- what the plan alone decides ---- */

/* Floats of state a parameter: arrays that begin as zeros. */
uint32_t optimizer_states(const struct plan_optimizer *plan);
/* 0; 1 to clip by norm or for LAMB; 2 for both, the clipping first. */
uint32_t optimizer_rounds(const struct plan_optimizer *plan);

/* The learning rate of a step (from 0). With w steps of warm-up it is (step + 1)/w of the full rate at first; the type
 * then begins, with steps and epochs counted from there. */
double optimizer_rate(const struct plan_optimizer *plan, const struct schedule *schedule, uint64_t step);

/* What the elements of one step share. */
struct optimizer_step {
    float scale, clip_value, clip, decay; /* of the gradient; `clip`: 1, or the norm's factor */
    float rate, shrink, momentum;
    float keep1, take1, keep2, take2; /* β₁, 1−β₁, β₂ (RMSProp: α), 1−β₂ */
    float correct1, correct2;         /* LAMB: 1/(1−β₁ᵗ); 1/√(1−β₂ᵗ) */
    float epsilon;
    const double *ratios; /* LAMB: of every tensor, borrowed; set by optimizer_commit() */
};

/* Of step `step`, whose gradient is a sum over `samples`; t, the number of updates that the states have seen with this
 * one, is step + 1 unless they begin anew in between. `rate_factor` 1, or less for a gradient that is not fresh. */
struct optimizer_step optimizer_step(const struct plan_optimizer *plan, const struct schedule *schedule, uint64_t step,
                                     uint64_t t, uint64_t samples, double rate_factor);

/* ---- rows of embedding tables ---- */

/* One step of one row, in place; states[i] are arrays like theta. Clipping by norm has been committed. */
void optimizer_apply_row(const struct plan_optimizer *plan, const struct optimizer_step *step, float *theta,
                         float *const states[OPTIMIZER_STATES_MOST], const float *sum, size_t n);

/* ‖g‖² of a row, for the round that clips. */
double optimizer_row_squares(const struct optimizer_step *step, const float *sum, size_t n);
/* Adds that of each row of `sum`. */
void optimizer_add_row_squares(const struct optimizer_step *step, const struct sparse *sum, struct exact_sum *squares);

/* ---- over a network's flat vector ---- */

struct optimizer;

/* `tensors` fill the vector without gaps; canonical chunks have `chunk` floats (network_chunk()). All but the result
 * may be gone afterwards. */
int optimizer_new(struct optimizer **out, const struct plan_optimizer *plan, const struct network_tensor *tensors,
                  uint32_t tensor_count, uint32_t chunk, struct error *err);
void optimizer_free(struct optimizer *optimizer);
CLEANUP_DEFINE(cleanup_optimizer_pointer, struct optimizer, optimizer_free)
#define cleanup_optimizer CLEANUP(cleanup_optimizer_pointer)

/* Parameters [begin, end): all pointers are to what belongs to `begin`. With rounds: after the last commit. */
void optimizer_apply(const struct optimizer *optimizer, const struct optimizer_step *step, uint64_t begin, uint64_t end,
                     float *next, const float *theta, float *const states[OPTIMIZER_STATES_MOST], const float *sum);

/* How many canonical chunks begin before `offset`. */
uint64_t optimizer_chunks(const struct optimizer *optimizer, uint64_t offset);

/* Doubles that a round measures of each canonical chunk, those of all of a shard's rows (EXACT_SUM_DOUBLES, or none),
 * and those that it comes back with. */
uint32_t optimizer_measures(const struct optimizer *optimizer, uint32_t round);
uint32_t optimizer_row_measures(const struct optimizer *optimizer, uint32_t round);
uint32_t optimizer_scalars(const struct optimizer *optimizer, uint32_t round);

/* Measures [begin, end), cut at canonical chunks: `out` gets optimizer_measures() doubles of each. LAMB's moves the
 * states, so it is to be called once a step. Earlier rounds are committed. */
void optimizer_measure(const struct optimizer *optimizer, const struct optimizer_step *step, uint32_t round,
                       uint64_t begin, uint64_t end, const float *theta, float *const states[OPTIMIZER_STATES_MOST],
                       const float *sum, double *out);
/* From the measures of all canonical chunks in order to the round's scalars; `rows`: all rows' squares, 0 without. */
void optimizer_fold(const struct optimizer *optimizer, uint32_t round, const double *measures, double rows,
                    double *scalars);
/* The round's scalars, which are borrowed, become part of the step. */
void optimizer_commit(const struct optimizer *optimizer, uint32_t round, const double *scalars,
                      struct optimizer_step *step);

/* ---- for who holds all of it ---- */

/* The step's clipping by norm of all of a gradient; `rows` as in optimizer_fold(). */
void optimizer_find_clip(struct optimizer *optimizer, struct optimizer_step *step, double rows, const float *sum);
/* The gradient as it is then, clipped in both ways, as a sum over as many samples: what somebody who knows only a part
 * of it can apply. Statistics stay as they are. */
void optimizer_clip(const struct optimizer *optimizer, const struct optimizer_step *step, float *sum);
void optimizer_clip_row(const struct optimizer_step *step, float *sum, size_t n);

/* One whole step over the whole vector, with its rounds. */
void optimizer_update(struct optimizer *optimizer, struct optimizer_step *step, float *next, const float *theta,
                      float *const states[OPTIMIZER_STATES_MOST], const float *sum);

#endif
