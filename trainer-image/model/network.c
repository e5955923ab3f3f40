#include "model/network.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int network_begin(struct model *model, enum plan_model zoo, const uint32_t shape[3], uint32_t classes,
                  struct error *err)
{
    const char *name = plan_model_name(zoo);
    uint64_t size = 1;
    for (int i = 0; i < 3; i++) {
        if (shape[i] == 0 || shape[i] > MODEL_SAMPLE_MOST)
            return error_set(err,
                             "model %s: samples of shape %" PRIu32 "×%" PRIu32 "×%" PRIu32
                             " cannot be: each of channels, height and width must be from 1 to %d",
                             name, shape[0], shape[1], shape[2], MODEL_SAMPLE_MOST);
        size *= shape[i];
        if (size > MODEL_SAMPLE_MOST)
            return error_set(
                err, "model %s: a sample of shape %" PRIu32 "×%" PRIu32 "×%" PRIu32 " has more than %d elements", name,
                shape[0], shape[1], shape[2], MODEL_SAMPLE_MOST);
    }
    if (classes < 2 || classes > MODEL_CLASSES_MOST)
        return error_set(err, "model %s: the number of classes must be from 2 to %d, not %" PRIu32, name,
                         MODEL_CLASSES_MOST, classes);
    *model = (struct model){.zoo = zoo, .shape = {shape[0], shape[1], shape[2]}, .classes = classes};
    return 0;
}

static struct shape last_shape(const struct model *model)
{
    if (model->layer_count == 0)
        return (struct shape){model->shape[0], model->shape[1], model->shape[2]};
    return model->layers[model->layer_count - 1].out;
}

static int add_layer(struct model *model, struct layer *layer, const char *name, struct error *err)
{
    if (model->layer_count == LAYERS_MOST)
        return error_set(err, "model %s has more than %d layers", model_name(model), LAYERS_MOST);
    snprintf(layer->name, sizeof layer->name, "%s", name);
    if (shape_size(layer->out) > MODEL_SAMPLE_MOST)
        return error_set(err,
                         "layer %s of model %s: an output of %" PRIu32 "×%" PRIu32 "×%" PRIu32
                         " from an input of %" PRIu32 "×%" PRIu32 "×%" PRIu32 " has more than %d elements",
                         name, model_name(model), layer->out.c, layer->out.h, layer->out.w, layer->in.c, layer->in.h,
                         layer->in.w, MODEL_SAMPLE_MOST);
    model->layers[model->layer_count++] = *layer;
    return 0;
}

static int add_tensor(struct model *model, const char *layer, const char *role, uint32_t rank, const uint32_t *dims,
                      uint64_t fan_in, struct error *err)
{
    struct model_tensor *tensor = &model->tensors[model->tensor_count];
    *tensor = (struct model_tensor){.offset = model->parameters, .count = 1, .rank = rank};
    snprintf(tensor->name, sizeof tensor->name, "%s.%s", layer, role);
    for (uint32_t i = 0; i < rank; i++) {
        tensor->dims[i] = dims[i];
        tensor->count *= dims[i]; /* at most 2^24 · 2^24 twice over, as layers' shapes are bounded */
        if (tensor->count > MODEL_PARAMETERS_MOST)
            break;
    }
    if (tensor->count > MODEL_PARAMETERS_MOST - model->parameters)
        return error_set(err, "layer %s of model %s: its %s brings the model above %d parameters", layer,
                         model_name(model), role, MODEL_PARAMETERS_MOST);
    tensor->bound = (float)(1.0 / sqrt((double)fan_in));
    model->parameters += tensor->count;
    model->tensor_count++;
    return 0;
}

int network_conv2d(struct model *model, const char *name, uint32_t channels, uint32_t kernel, uint32_t padding,
                   struct error *err)
{
    struct shape in = last_shape(model);
    if (in.h + 2 * padding < kernel || in.w + 2 * padding < kernel)
        return error_set(err,
                         "layer %s of model %s: its %" PRIu32 "×%" PRIu32 " kernel with padding %" PRIu32
                         " does not fit its input of %" PRIu32 "×%" PRIu32 "×%" PRIu32,
                         name, model_name(model), kernel, kernel, padding, in.c, in.h, in.w);
    struct layer layer = {
        .type = LAYER_CONV2D,
        .in = in,
        .out = {channels, in.h + 2 * padding - kernel + 1, in.w + 2 * padding - kernel + 1},
        .kernel = kernel,
        .padding = padding,
    };
    uint64_t fan_in = (uint64_t)in.c * kernel * kernel;
    layer.weight = model->parameters;
    if (add_tensor(model, name, "weight", 4, (uint32_t[]){channels, in.c, kernel, kernel}, fan_in, err) < 0)
        return -1;
    layer.bias = model->parameters;
    if (add_tensor(model, name, "bias", 1, &channels, fan_in, err) < 0)
        return -1;
    return add_layer(model, &layer, name, err);
}

int network_dense(struct model *model, const char *name, uint32_t out, struct error *err)
{
    struct shape in = last_shape(model);
    if (in.h != 1 || in.w != 1)
        return error_set(err,
                         "layer %s of model %s takes a vector and gives %" PRIu32 "×1×1, but its input is %" PRIu32
                         "×%" PRIu32 "×%" PRIu32 ": flatten it first",
                         name, model_name(model), out, in.c, in.h, in.w);
    struct layer layer = {.type = LAYER_DENSE, .in = in, .out = {out, 1, 1}};
    layer.weight = model->parameters;
    if (add_tensor(model, name, "weight", 2, (uint32_t[]){out, in.c}, in.c, err) < 0)
        return -1;
    layer.bias = model->parameters;
    if (add_tensor(model, name, "bias", 1, &out, in.c, err) < 0)
        return -1;
    return add_layer(model, &layer, name, err);
}

int network_maxpool(struct model *model, const char *name, struct error *err)
{
    struct shape in = last_shape(model);
    if (in.h < 2 || in.w < 2)
        return error_set(
            err, "layer %s of model %s: its 2×2 windows do not fit its input of %" PRIu32 "×%" PRIu32 "×%" PRIu32, name,
            model_name(model), in.c, in.h, in.w);
    struct layer layer = {.type = LAYER_MAXPOOL, .in = in, .out = {in.c, in.h / 2, in.w / 2}};
    return add_layer(model, &layer, name, err);
}

int network_relu(struct model *model, const char *name, struct error *err)
{
    struct shape in = last_shape(model);
    struct layer layer = {.type = LAYER_RELU, .in = in, .out = in};
    return add_layer(model, &layer, name, err);
}

int network_flatten(struct model *model, const char *name, struct error *err)
{
    struct shape in = last_shape(model);
    struct layer layer = {.type = LAYER_FLATTEN, .in = in, .out = {(uint32_t)shape_size(in), 1, 1}};
    return add_layer(model, &layer, name, err);
}
