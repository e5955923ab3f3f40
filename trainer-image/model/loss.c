#include "model/layer.h"

#include "numerics/numerics.h"

#include <math.h>

/* ---- Softmax cross-entropy: −log softmax[label]; its gradient is softmax − onehot(label) ---- */

/* The first of the largest. */
static uint32_t largest(const float *logits, uint32_t classes)
{
    uint32_t best = 0;
    for (uint32_t c = 1; c < classes; c++)
        if (logits[c] > logits[best])
            best = c;
    return best;
}

/* Σ exp(z − max) over the classes, in their order. */
static double partition(const float *logits, uint32_t classes, double max)
{
    double sum = 0;
    for (uint32_t c = 0; c < classes; c++)
        sum += numerics_exp((double)logits[c] - max);
    return sum;
}

/* One sample's loss; `gradients` (NULL: not wanted) may be the logits. */
static double softmax(const float *logits, uint32_t classes, float target, float *gradients, bool *correct)
{
    const uint32_t label = (uint32_t)target;
    const uint32_t best = largest(logits, classes);
    const double max = (double)logits[best];
    const double sum = partition(logits, classes, max);
    const double loss = numerics_log(sum) - ((double)logits[label] - max);
    *correct = best == label;
    for (uint32_t c = 0; gradients != NULL && c < classes; c++) {
        double probability = numerics_exp((double)logits[c] - max) / sum;
        gradients[c] = (float)(c == label ? probability - 1 : probability);
    }
    return loss;
}

/* ---- One output y for one target t: each gives the loss and its slope dL/dy ---- */

/* −t·log σ(y) − (1 − t)·log(1 − σ(y)) = max(y, 0) − y·t + log(1 + e^−|y|) */
static double binary(double y, double t, double *slope)
{
    *slope = 1 / (1 + numerics_exp(-y)) - t;
    return (y > 0 ? y : 0) - y * t + numerics_log(1 + numerics_exp(-fabs(y)));
}

static double square(double y, double t, double *slope)
{
    *slope = 2 * (y - t);
    return (y - t) * (y - t);
}

static double huber(double y, double t, double delta, double *slope)
{
    const double d = y - t;
    if (fabs(d) < delta) {
        *slope = d;
        return 0.5 * d * d;
    }
    *slope = d < 0 ? -delta : delta;
    return delta * (fabs(d) - 0.5 * delta);
}

static double single(const struct network *network, double y, double t, double *slope, bool *correct)
{
    *correct = false;
    switch (network->loss) {
    case LOSS_BINARY_CROSS_ENTROPY:
        *correct = (y > 0) == (t > 0.5);
        return binary(y, t, slope);
    case LOSS_HUBER:
        return huber(y, t, network->huber_delta, slope);
    default:
        return square(y, t, slope);
    }
}

/* ---- Blocks ---- */

/* One sample's loss; `gradients` may be NULL. */
static double sample_loss(const struct network *network, const float *outputs, float target, float *gradients,
                          bool *correct)
{
    if (network->loss == LOSS_SOFTMAX_CROSS_ENTROPY)
        return softmax(outputs, network->outputs, target, gradients, correct);
    double slope;
    const double loss = single(network, (double)outputs[0], (double)target, &slope, correct);
    if (gradients != NULL)
        gradients[0] = (float)slope;
    return loss;
}

double loss_gradient(const struct network *network, const float *outputs, const float *targets, uint32_t n,
                     float *doutputs)
{
    double loss = 0;
    bool correct;
    for (uint32_t i = 0; i < n; i++)
        loss += sample_loss(network, outputs + (size_t)i * network->outputs, targets[i],
                            doutputs + (size_t)i * network->outputs, &correct);
    return loss;
}

double loss_evaluate(const struct network *network, const float *outputs, const float *targets, uint32_t n,
                     uint64_t *correct)
{
    double loss = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool is_correct;
        loss += sample_loss(network, outputs + (size_t)i * network->outputs, targets[i], NULL, &is_correct);
        *correct += is_correct ? 1 : 0;
    }
    return loss;
}
