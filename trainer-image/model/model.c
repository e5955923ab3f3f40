#include "model/model.h"

#include "model/network.h"
#include "numerics/numerics.h"

#include <stdlib.h>

static int build_mlp(struct model *model, struct error *err)
{
    if (network_flatten(model, "flatten", err) < 0 || network_dense(model, "fc1", 256, err) < 0 ||
        network_relu(model, "relu1", err) < 0 || network_dense(model, "fc2", 128, err) < 0 ||
        network_relu(model, "relu2", err) < 0)
        return -1;
    return network_dense(model, "fc3", model->classes, err);
}

/* relu after pooling, which is the same as before it and a quarter of the work: the largest of a window, cut at zero,
 * is the largest of what is cut at zero. */
static int build_lenet(struct model *model, struct error *err)
{
    if (network_conv2d(model, "conv1", 6, 5, 2, err) < 0 || network_maxpool(model, "pool1", err) < 0 ||
        network_relu(model, "relu1", err) < 0 || network_conv2d(model, "conv2", 16, 5, 0, err) < 0 ||
        network_maxpool(model, "pool2", err) < 0 || network_relu(model, "relu2", err) < 0 ||
        network_flatten(model, "flatten", err) < 0 || network_dense(model, "fc1", 120, err) < 0 ||
        network_relu(model, "relu3", err) < 0 || network_dense(model, "fc2", 84, err) < 0 ||
        network_relu(model, "relu4", err) < 0)
        return -1;
    return network_dense(model, "fc3", model->classes, err);
}

int model_build(struct model **out, enum plan_model zoo, const uint32_t shape[3], uint32_t classes, struct error *err)
{
    cleanup_model struct model *model = calloc(1, sizeof *model);
    if (model == NULL)
        return error_set(err, "out of memory for the model's description");
    if (network_begin(model, zoo, shape, classes, err) < 0)
        return -1;
    int built = zoo == PLAN_MODEL_LENET ? build_lenet(model, err) : build_mlp(model, err);
    if (built < 0)
        return -1;
    *out = move(model);
    return 0;
}

void model_free(struct model *model)
{
    free(model);
}

const char *model_name(const struct model *model)
{
    return plan_model_name(model->zoo);
}

uint64_t model_parameters(const struct model *model)
{
    return model->parameters;
}

uint64_t model_sample_size(const struct model *model)
{
    return (uint64_t)model->shape[0] * model->shape[1] * model->shape[2];
}

uint32_t model_classes(const struct model *model)
{
    return model->classes;
}

const struct model_tensor *model_tensors(const struct model *model, uint32_t *count)
{
    *count = model->tensor_count;
    return model->tensors;
}

void model_init_range(const struct model *model, uint64_t seed, uint64_t begin, uint64_t end, float *out)
{
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        uint64_t tensor_end = tensor->offset + tensor->count;
        uint64_t from = begin > tensor->offset ? begin : tensor->offset;
        uint64_t to = end < tensor_end ? end : tensor_end;
        if (from >= to)
            continue;
        random_uniform_range(random_stream(seed, RANDOM_INIT, i, 0, 0), from - tensor->offset, to - tensor->offset,
                             -tensor->bound, tensor->bound, out + (from - begin));
    }
}
