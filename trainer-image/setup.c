#include "setup.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A start is not only parameters: what goes in and what comes out must be the same, too. */
static int check_start(const struct plan *plan, const struct network *network, const struct network_sample *sample,
                       struct error *err)
{
    const struct network_sample *of = &network->sample;
    if (memcmp(&of->shape, &sample->shape, sizeof of->shape) != 0 || of->classes != sample->classes)
        return error_set(err,
                         "spec.model: the model of %s takes samples of %" PRIu32 "×%" PRIu32 "×%" PRIu32 " in %" PRIu32
                         " classes, but those of Dataset '%s' are %" PRIu32 "×%" PRIu32 "×%" PRIu32 " in %" PRIu32,
                         plan->model.start, of->shape.c, of->shape.h, of->shape.w, of->classes, plan->dataset.name,
                         sample->shape.c, sample->shape.h, sample->shape.w, sample->classes);
    if (of->categories != sample->categories || of->rows != sample->rows)
        return error_set(err,
                         "spec.model: the model of %s takes %" PRIu32 " columns of categories with %" PRIu32
                         " ids, but Dataset '%s' has %" PRIu32 " with %" PRIu32,
                         plan->model.start, of->categories, of->rows, plan->dataset.name, sample->categories,
                         sample->rows);
    return 0;
}

/* The job's loss goes before the file's, where the outputs can be the same. */
static int take_loss(struct network *network, const struct plan *plan, struct error *err)
{
    if (!plan->training.has_loss)
        return 0;
    bool softmax = plan->training.loss == LOSS_SOFTMAX_CROSS_ENTROPY;
    bool of_classes = softmax || plan->training.loss == LOSS_BINARY_CROSS_ENTROPY;
    uint32_t outputs = softmax ? network->sample.classes : 1;
    if (outputs != network->outputs || of_classes != (network->sample.classes > 0))
        return error_set(err,
                         "spec.training.loss: %s takes %" PRIu32 " outputs, but the model of %s has %" PRIu32
                         ", for %s; leave it out",
                         loss_type_name(plan->training.loss), outputs, plan->model.start, network->outputs,
                         loss_type_name(network->loss));
    network->loss = plan->training.loss;
    network->huber_delta = plan->training.loss == LOSS_HUBER ? plan->training.huber_delta : 0;
    return 0;
}

static int read_network(struct setup *setup, const struct plan *plan, const char *start, struct error *err)
{
    const struct network_sample sample = dataset_sample(plan, setup->train.shape);
    if (plan->model.start == NULL)
        return plan_network(&setup->network, plan, &sample, err);
    if (start == NULL)
        return error_set(err, "spec.model: the model starts from %s, and no file of it is given: set --start FILE",
                         plan->model.start);
    if (model_file_network(&setup->network, start, err) < 0 || check_start(plan, setup->network, &sample, err) < 0)
        return -1;
    return take_loss(setup->network, plan, err);
}

int setup_read(struct setup *out, const struct plan *plan, const char *data, const char *start, struct error *err)
{
    *out = (struct setup){0};
    if (dataset_describe(&out->train, data, plan, DATASET_TRAIN, err) < 0 ||
        dataset_describe(&out->test, data, plan, DATASET_TEST, err) < 0)
        return -1;
    if (memcmp(out->train.shape, out->test.shape, sizeof out->train.shape) != 0)
        return error_set(err, "the data set's training samples have another shape than its test samples");
    return read_network(out, plan, start, err) < 0 ? -1 : plan_check_network(plan, out->network, err);
}

void setup_free(struct setup *setup)
{
    network_free(setup->network);
    setup->network = NULL;
}
