#include "model/layer.h"

#include "numerics/numerics.h"

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

double loss_gradient(const struct network *network, const float *outputs, const float *targets, uint32_t n,
                     float *doutputs)
{
    const uint32_t classes = network->outputs;
    const float *logits = outputs;
    float *dlogits = doutputs;
    double loss = 0;
    for (uint32_t i = 0; i < n; i++, logits += classes, dlogits += classes) {
        uint32_t label = (uint32_t)targets[i];
        double max = (double)logits[largest(logits, classes)];
        double sum = partition(logits, classes, max);
        loss += numerics_log(sum) - ((double)logits[label] - max);
        for (uint32_t c = 0; c < classes; c++) {
            double probability = numerics_exp((double)logits[c] - max) / sum;
            dlogits[c] = (float)(c == label ? probability - 1 : probability);
        }
    }
    return loss;
}

double loss_evaluate(const struct network *network, const float *outputs, const float *targets, uint32_t n,
                     uint64_t *correct)
{
    const uint32_t classes = network->outputs;
    const float *logits = outputs;
    double loss = 0;
    for (uint32_t i = 0; i < n; i++, logits += classes) {
        uint32_t label = (uint32_t)targets[i];
        uint32_t best = largest(logits, classes);
        double max = (double)logits[best];
        loss += numerics_log(partition(logits, classes, max)) - ((double)logits[label] - max);
        *correct += best == label ? 1 : 0;
    }
    return loss;
}
