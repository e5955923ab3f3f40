#include "optimizer/optimizer.h"

#include "optimizer/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A tensor as the optimizer sees it. */
struct range {
    uint64_t begin, end;
    uint64_t first_chunk; /* canonical chunks before it */
    bool statistic;
    float momentum;
};

struct optimizer {
    struct plan_optimizer plan;
    uint32_t chunk;   /* floats of a canonical one */
    uint64_t chunks;  /* of the whole vector */
    double *measures; /* of all chunks: optimizer_update()'s */
    double *scalars;  /* the same */
    uint32_t range_count;
    struct range ranges[];
};

enum round { CLIP, RATIOS };

static enum round round_of(const struct optimizer *optimizer, uint32_t round)
{
    return round == 0 && optimizer->plan.clip_norm > 0 ? CLIP : RATIOS;
}

/* ---- elements ---- */

/* Elements that are all trained, of no tensor or row in particular. `ratio`: LAMB's, whose update has been made. */
static void apply_elements(const struct plan_optimizer *plan, const struct optimizer_step *step, double ratio,
                           float *next, const float *theta, float *const states[OPTIMIZER_STATES_MOST],
                           const float *sum, size_t n)
{
    switch (plan->type) {
    case PLAN_SGD:
        if (plan->momentum == 0)
            kernel_sgd(step, next, theta, states, sum, n);
        else if (plan->nesterov)
            kernel_nesterov(step, next, theta, states, sum, n);
        else
            kernel_momentum(step, next, theta, states, sum, n);
        return;
    case PLAN_ADAGRAD:
        kernel_adagrad(step, next, theta, states, sum, n);
        return;
    case PLAN_RMSPROP:
        if (plan->momentum == 0)
            kernel_rmsprop(step, next, theta, states, sum, n);
        else
            kernel_rmsprop_momentum(step, next, theta, states, sum, n);
        return;
    case PLAN_ADAM:
    case PLAN_ADAMW:
        kernel_adam(step, next, theta, states, sum, n);
        return;
    case PLAN_AMSGRAD:
        kernel_amsgrad(step, next, theta, states, sum, n);
        return;
    case PLAN_LAMB:
        kernel_lamb_apply((float)((double)step->rate * ratio), next, theta, states[2], n);
        return;
    }
}

static double trust_ratio(double theta_squares, double update_squares)
{
    return theta_squares == 0 || update_squares == 0 ? 1 : sqrt(theta_squares) / sqrt(update_squares);
}

/* ---- rows ---- */

void optimizer_apply_row(const struct plan_optimizer *plan, const struct optimizer_step *step, float *theta,
                         float *const states[OPTIMIZER_STATES_MOST], const float *sum, size_t n)
{
    double ratio = 1;
    if (plan->type == PLAN_LAMB) {
        kernel_lamb_update(step, theta, states, sum, n);
        ratio = trust_ratio(kernel_squares(theta, n), kernel_squares(states[2], n));
    }
    apply_elements(plan, step, ratio, theta, theta, states, sum, n);
}

double optimizer_row_squares(const struct optimizer_step *step, const float *sum, size_t n)
{
    return kernel_gradient_squares(step, sum, n);
}

void optimizer_add_row_squares(const struct optimizer_step *step, const struct sparse *sum, struct exact_sum *squares)
{
    for (uint32_t i = 0; i < sum->count; i++)
        exact_sum_add(squares, optimizer_row_squares(step, sum->rows + (size_t)i * sum->dim, sum->dim));
}

void optimizer_clip_row(const struct optimizer_step *step, float *sum, size_t n)
{
    kernel_clip(step, sum, n);
}

/* ---- tensors ---- */

static int check_tensors(const struct network_tensor *tensors, uint32_t count, struct error *err)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (tensors[i].offset != at || tensors[i].count == 0)
            return error_set(err, "tensor %s does not begin where the one before it ends", tensors[i].name);
        at += tensors[i].count;
    }
    return 0;
}

int optimizer_new(struct optimizer **out, const struct plan_optimizer *plan, const struct network_tensor *tensors,
                  uint32_t tensor_count, uint32_t chunk, struct error *err)
{
    if (check_tensors(tensors, tensor_count, err) < 0)
        return -1;
    cleanup_optimizer struct optimizer *optimizer =
        calloc(1, sizeof *optimizer + tensor_count * sizeof optimizer->ranges[0]);
    if (optimizer == NULL)
        return error_set(err, "make an optimizer: no memory");
    optimizer->plan = *plan;
    optimizer->chunk = chunk;
    optimizer->range_count = tensor_count;
    for (uint32_t i = 0; i < tensor_count; i++) {
        optimizer->ranges[i] = (struct range){
            .begin = tensors[i].offset,
            .end = tensors[i].offset + tensors[i].count,
            .first_chunk = optimizer->chunks,
            .statistic = tensors[i].kind == TENSOR_STATISTIC,
            .momentum = tensors[i].momentum,
        };
        optimizer->chunks += (tensors[i].count + chunk - 1) / chunk;
    }
    optimizer->measures = calloc(optimizer->chunks + 1, OPTIMIZER_MEASURES_MOST * sizeof(double));
    optimizer->scalars = calloc((size_t)tensor_count + 1, sizeof(double));
    if (optimizer->measures == NULL || optimizer->scalars == NULL)
        return error_set(err, "make an optimizer: no memory");
    *out = move(optimizer);
    return 0;
}

void optimizer_free(struct optimizer *optimizer)
{
    if (optimizer == NULL)
        return;
    free(optimizer->measures);
    free(optimizer->scalars);
    free(optimizer);
}

/* The tensor that holds parameter `at`; past the end the last. */
static const struct range *range_at(const struct optimizer *optimizer, uint64_t at)
{
    uint32_t low = 0;
    uint32_t high = optimizer->range_count - 1;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (at < optimizer->ranges[middle].end)
            high = middle;
        else
            low = middle + 1;
    }
    return &optimizer->ranges[low];
}

uint64_t optimizer_chunks(const struct optimizer *optimizer, uint64_t offset)
{
    const struct range *range = range_at(optimizer, offset);
    return range->first_chunk + (offset - range->begin + optimizer->chunk - 1) / optimizer->chunk;
}

/* As far as one kernel can go from `at`: over tensors that are trained alike. */
static uint64_t stretch(const struct optimizer *optimizer, const struct range *range, uint64_t end)
{
    const struct range *last = &optimizer->ranges[optimizer->range_count - 1];
    bool alone = range->statistic || optimizer->plan.type == PLAN_LAMB;
    while (!alone && range < last && range->end < end && !range[1].statistic)
        range++;
    return range->end < end ? range->end : end;
}

static void advance(float *const states[], uint64_t by, float *out[OPTIMIZER_STATES_MOST])
{
    for (int i = 0; i < OPTIMIZER_STATES_MOST; i++)
        out[i] = states[i] == NULL ? NULL : states[i] + by;
}

void optimizer_apply(const struct optimizer *optimizer, const struct optimizer_step *step, uint64_t begin, uint64_t end,
                     float *next, const float *theta, float *const states[OPTIMIZER_STATES_MOST], const float *sum)
{
    uint64_t until;
    for (uint64_t at = begin; at < end; at = until) {
        const struct range *range = range_at(optimizer, at);
        until = stretch(optimizer, range, end);
        uint64_t done = at - begin;
        if (range->statistic) {
            kernel_statistic(step->scale, range->momentum, next + done, theta + done, sum + done, until - at);
            continue;
        }
        float *here[OPTIMIZER_STATES_MOST];
        advance(states, done, here);
        double ratio = step->ratios != NULL ? step->ratios[range - optimizer->ranges] : 1;
        apply_elements(&optimizer->plan, step, ratio, next + done, theta + done, here, sum + done, until - at);
    }
}

void optimizer_clip(const struct optimizer *optimizer, const struct optimizer_step *step, float *sum)
{
    for (uint32_t i = 0; i < optimizer->range_count; i++) {
        const struct range *range = &optimizer->ranges[i];
        if (!range->statistic)
            kernel_clip(step, sum + range->begin, range->end - range->begin);
    }
}

/* ---- rounds ---- */

static uint64_t end_of(const struct optimizer *optimizer)
{
    return optimizer->ranges[optimizer->range_count - 1].end;
}

uint32_t optimizer_measures(const struct optimizer *optimizer, uint32_t round)
{
    return round_of(optimizer, round) == CLIP ? 1 : 2;
}

uint32_t optimizer_row_measures(const struct optimizer *optimizer, uint32_t round)
{
    return round_of(optimizer, round) == CLIP ? EXACT_SUM_DOUBLES : 0;
}

uint32_t optimizer_scalars(const struct optimizer *optimizer, uint32_t round)
{
    return round_of(optimizer, round) == CLIP ? 1 : optimizer->range_count;
}

void optimizer_measure(const struct optimizer *optimizer, const struct optimizer_step *step, uint32_t round,
                       uint64_t begin, uint64_t end, const float *theta, float *const states[OPTIMIZER_STATES_MOST],
                       const float *sum, double *out)
{
    const enum round kind = round_of(optimizer, round);
    uint64_t until;
    for (uint64_t at = begin; at < end; at = until) {
        const struct range *range = range_at(optimizer, at);
        until = at + optimizer->chunk < range->end ? at + optimizer->chunk : range->end;
        uint64_t done = at - begin;
        size_t n = until - at;
        double *measures = out;
        out += kind == CLIP ? 1 : 2;
        if (range->statistic) {
            memset(measures, 0, (kind == CLIP ? 1 : 2) * sizeof *measures);
        } else if (kind == CLIP) {
            measures[0] = kernel_gradient_squares(step, sum + done, n);
        } else {
            float *here[OPTIMIZER_STATES_MOST];
            advance(states, done, here);
            kernel_lamb_update(step, theta + done, here, sum + done, n);
            measures[0] = kernel_squares(theta + done, n);
            measures[1] = kernel_squares(here[2], n);
        }
    }
}

/* PyTorch's clip_grad_norm_. */
static double clip_factor(const struct optimizer *optimizer, const double *measures, double rows)
{
    double squares = 0;
    for (uint64_t i = 0; i < optimizer->chunks; i++)
        squares += measures[i];
    double factor = optimizer->plan.clip_norm / (sqrt(squares + rows) + 1e-6);
    return factor > 1 ? 1 : factor;
}

void optimizer_fold(const struct optimizer *optimizer, uint32_t round, const double *measures, double rows,
                    double *scalars)
{
    if (round_of(optimizer, round) == CLIP) {
        scalars[0] = clip_factor(optimizer, measures, rows);
        return;
    }
    for (uint32_t i = 0; i < optimizer->range_count; i++) {
        const struct range *range = &optimizer->ranges[i];
        uint64_t end = range->first_chunk + (range->end - range->begin + optimizer->chunk - 1) / optimizer->chunk;
        double theta = 0;
        double update = 0;
        for (uint64_t chunk = range->first_chunk; chunk < end; chunk++) {
            theta += measures[2 * chunk];
            update += measures[2 * chunk + 1];
        }
        scalars[i] = trust_ratio(theta, update);
    }
}

void optimizer_commit(const struct optimizer *optimizer, uint32_t round, const double *scalars,
                      struct optimizer_step *step)
{
    if (round_of(optimizer, round) == CLIP)
        step->clip = (float)scalars[0];
    else
        step->ratios = scalars;
}

/* All of a round. */
static void make_round(struct optimizer *optimizer, struct optimizer_step *step, uint32_t round, const float *theta,
                       float *const states[OPTIMIZER_STATES_MOST], const float *sum, double rows)
{
    optimizer_measure(optimizer, step, round, 0, end_of(optimizer), theta, states, sum, optimizer->measures);
    optimizer_fold(optimizer, round, optimizer->measures, rows, optimizer->scalars);
    optimizer_commit(optimizer, round, optimizer->scalars, step);
}

void optimizer_find_clip(struct optimizer *optimizer, struct optimizer_step *step, double rows, const float *sum)
{
    make_round(optimizer, step, 0, NULL, NULL, sum, rows); /* which looks at nothing else */
}

void optimizer_update(struct optimizer *optimizer, struct optimizer_step *step, float *next, const float *theta,
                      float *const states[OPTIMIZER_STATES_MOST], const float *sum)
{
    const uint64_t end = end_of(optimizer);
    for (uint32_t round = 0; round < optimizer_rounds(&optimizer->plan); round++)
        make_round(optimizer, step, round, theta, states, sum, 0);
    optimizer_apply(optimizer, step, 0, end, next, theta, states, sum);
}
