/* What a step's elements share: the rate by its schedule, corrections of the moments. All in double, with functions of
 * our own, so that every member has the same bits. */
#include "optimizer/optimizer.h"

#include "numerics/numerics.h"

#include <math.h>

static const double pi = 0x1.921fb54442d18p+1;

uint32_t optimizer_states(const struct plan_optimizer *plan)
{
    switch (plan->type) {
    case PLAN_SGD:
        return plan->momentum != 0;
    case PLAN_ADAGRAD:
        return 1;
    case PLAN_RMSPROP:
        return plan->momentum != 0 ? 2 : 1;
    case PLAN_ADAM:
    case PLAN_ADAMW:
        return 2;
    case PLAN_AMSGRAD:
    case PLAN_LAMB:
        return 3;
    }
    return 0;
}

uint32_t optimizer_rounds(const struct plan_optimizer *plan)
{
    return (uint32_t)(plan->clip_norm > 0) + (uint32_t)(plan->type == PLAN_LAMB);
}

/* x^n by squaring. */
static double whole_power(double x, uint64_t n)
{
    double result = 1;
    for (; n > 0; n /= 2) {
        if (n % 2 == 1)
            result *= x;
        x *= x;
    }
    return result;
}

/* x^y for 0 ≤ x ≤ 1, y > 0. */
static double power(double x, double y)
{
    return x == 0 ? 0 : numerics_exp(y * numerics_log(x));
}

/* cos(π·x) for 0 ≤ x ≤ 1: −sin(π·(x − ½)) by its Taylor polynomial, whose rest is below 2^-58 here. */
static double cos_pi(double x)
{
    double y = pi * (x - 0.5);
    double z = y * y;
    double p = 0;
    for (int k = 25; k >= 3; k -= 2)
        p = -(1 + p) * z / (k * (k - 1));
    return -(y + y * p);
}

/* The type's part, `at` steps after it began, of `of` steps in all. */
static double type_factor(const struct plan_optimizer *plan, const struct schedule *schedule, uint64_t at, uint64_t of)
{
    const double progress = of == 0 ? 0 : (double)at / (double)of;
    const double final = plan->schedule.final_factor;
    switch (plan->schedule.type) {
    case PLAN_SCHEDULE_CONSTANT:
        return 1;
    case PLAN_SCHEDULE_STEP:
        return whole_power(plan->schedule.factor, at / schedule->steps_per_epoch / plan->schedule.every_epochs);
    case PLAN_SCHEDULE_COSINE:
        return final + (1 - final) * (1 + cos_pi(progress)) * 0.5;
    case PLAN_SCHEDULE_POLYNOMIAL:
        return final + (1 - final) * power(1 - progress, plan->schedule.power);
    }
    return 1;
}

double optimizer_rate(const struct plan_optimizer *plan, const struct schedule *schedule, uint64_t step)
{
    const uint64_t warmup = plan->schedule.warmup_steps;
    if (step < warmup)
        return plan->learning_rate * ((double)(step + 1) / (double)warmup);
    uint64_t of = schedule->steps > warmup ? schedule->steps - warmup : 0;
    uint64_t at = step - warmup < of ? step - warmup : of; /* the asynchronous types may take more steps than planned */
    return plan->learning_rate * type_factor(plan, schedule, at, of);
}

static bool has_moments(const struct plan_optimizer *plan)
{
    return plan->type == PLAN_ADAM || plan->type == PLAN_ADAMW || plan->type == PLAN_AMSGRAD || plan->type == PLAN_LAMB;
}

struct optimizer_step optimizer_step(const struct plan_optimizer *plan, const struct schedule *schedule, uint64_t step,
                                     uint64_t t, uint64_t samples, double rate_factor)
{
    const double rate = optimizer_rate(plan, schedule, step) * rate_factor;
    struct optimizer_step out = {
        .scale = (float)(1.0 / (double)samples),
        .clip_value = plan->clip_value > 0 ? (float)plan->clip_value : INFINITY,
        .clip = 1,
        .decay = (float)plan->weight_decay,
        .rate = (float)rate,
        .shrink = 1,
        .momentum = (float)plan->momentum,
        .epsilon = (float)plan->epsilon,
    };
    if (plan->type == PLAN_RMSPROP) {
        out.keep2 = (float)plan->decay;
        out.take2 = (float)(1 - plan->decay);
    }
    if (!has_moments(plan))
        return out;
    const double correct1 = 1 / (1 - whole_power(plan->beta1, t));
    const double correct2 = 1 / sqrt(1 - whole_power(plan->beta2, t));
    out.keep1 = (float)plan->beta1;
    out.take1 = (float)(1 - plan->beta1);
    out.keep2 = (float)plan->beta2;
    out.take2 = (float)(1 - plan->beta2);
    out.correct1 = (float)correct1;
    out.correct2 = (float)correct2;
    if (plan->type != PLAN_LAMB)
        out.rate = (float)(rate * correct1);
    if (plan->type == PLAN_ADAMW) {
        out.decay = 0;
        out.shrink = (float)(1 - rate * plan->weight_decay);
    }
    return out;
}
