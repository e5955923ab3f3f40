/* The zoo: every model as the list of layers that a user might have written, with PyTorch's names. */
#include "common/network/layers.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static struct network_layer *add(struct layer_list *list, enum layer_type type, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static struct network_layer *add(struct layer_list *list, enum layer_type type, const char *format, ...)
{
    struct network_layer *layer = layer_list_add(list, type);
    va_list args;
    va_start(args, format);
    vsnprintf(layer->name, sizeof layer->name, format, args);
    va_end(args);
    return layer;
}

static int32_t last(const struct layer_list *list)
{
    return (int32_t)list->count - 1;
}

static void dense(struct layer_list *list, const char *name, uint32_t units)
{
    add(list, LAYER_DENSE, "%s", name)->units = units;
}

static void maxpool(struct layer_list *list, const char *name)
{
    struct network_layer *layer = add(list, LAYER_MAXPOOL, "%s", name);
    layer->kernel = layer->stride = 2;
}

static void join(struct layer_list *list, enum layer_type type, const char *name, int32_t first, int32_t second)
{
    struct network_layer *layer = add(list, type, "%s", name);
    layer->input_count = 2;
    layer->inputs[0] = first;
    layer->inputs[1] = second;
}

/* ---- categories ---- */

static int32_t take_ids(struct layer_list *list, const struct network_sample *sample)
{
    struct network_layer *columns = add(list, LAYER_COLUMNS, "ids");
    columns->inputs[0] = NETWORK_SAMPLE;
    columns->from = (uint32_t)shape_size(sample->shape) - sample->categories;
    return last(list);
}

static void look_up(struct layer_list *list, int32_t ids, const char *name, uint32_t dim)
{
    struct network_layer *embedding = add(list, LAYER_EMBEDDING, "%s", name);
    embedding->inputs[0] = ids;
    embedding->dim = dim;
}

/* A row with an entry for each output, added up over the sample's categories: linear in which ones they are. */
static int32_t look_up_outputs(struct layer_list *list, int32_t ids, uint32_t outputs)
{
    look_up(list, ids, "wide", outputs);
    add(list, LAYER_SUM, "wide_sum")->units = outputs;
    return last(list);
}

/* The sample's other columns, if it has any; *out is their layer. */
static bool take_numbers(struct layer_list *list, const struct network_sample *sample, int32_t *out)
{
    uint32_t numbers = (uint32_t)shape_size(sample->shape) - sample->categories;
    if (numbers == 0)
        return false;
    struct network_layer *columns = add(list, LAYER_COLUMNS, "numbers");
    columns->inputs[0] = NETWORK_SAMPLE;
    columns->to = numbers;
    *out = last(list);
    return true;
}

static int check_outputs(const char *name, uint32_t outputs, struct error *err)
{
    return outputs <= NETWORK_DIM_MOST ? 0
                                       : error_set(err, "model %s: takes at most %d classes with categories, not %u",
                                                   name, NETWORK_DIM_MOST, outputs);
}

/* ---- vectors ---- */

static int linear_with_categories(struct layer_list *list, const struct network_sample *sample, uint32_t outputs,
                                  struct error *err)
{
    if (check_outputs("linear", outputs, err) < 0)
        return -1;
    int32_t wide = look_up_outputs(list, take_ids(list, sample), outputs);
    int32_t numbers;
    if (!take_numbers(list, sample, &numbers))
        return error_set(err, "model linear: all columns of the samples are categories; it needs one of numbers, too");
    dense(list, "fc", outputs);
    join(list, LAYER_ADD, "output", wide, last(list));
    return 0;
}

static int linear(struct layer_list *list, const struct network_sample *sample, uint32_t outputs, struct error *err)
{
    if (sample->categories > 0)
        return linear_with_categories(list, sample, outputs, err);
    add(list, LAYER_FLATTEN, "flatten");
    dense(list, "fc", outputs);
    return 0;
}

static int logistic(struct layer_list *list, const struct network_sample *sample, uint32_t outputs, struct error *err)
{
    if (sample->classes == 0)
        return error_set(err, "model logistic: tells classes apart, but the Dataset has values to predict: set "
                              "spec.classes in the Dataset, or take model linear");
    return linear(list, sample, outputs, err);
}

static int mlp(struct layer_list *list, const struct network_sample *sample, uint32_t outputs, struct error *err)
{
    (void)sample;
    (void)err;
    add(list, LAYER_FLATTEN, "flatten");
    dense(list, "fc1", 256);
    add(list, LAYER_RELU, "relu1");
    dense(list, "fc2", 128);
    add(list, LAYER_RELU, "relu2");
    dense(list, "fc3", outputs);
    return 0;
}

/* ---- images ---- */

static struct network_layer *conv(struct layer_list *list, const char *name, uint32_t filters, uint32_t kernel,
                                  uint32_t stride, uint32_t padding)
{
    struct network_layer *layer = add(list, LAYER_CONV2D, "%s", name);
    layer->filters = filters;
    layer->kernel = kernel;
    layer->stride = stride;
    layer->padding = padding;
    return layer;
}

/* relu after pooling, which is the same as before it and a quarter of the work: the largest of a window, cut at zero,
 * is the largest of what is cut at zero. */
static int lenet(struct layer_list *list, const struct network_sample *sample, uint32_t outputs, struct error *err)
{
    (void)sample;
    (void)err;
    conv(list, "conv1", 6, 5, 1, 2);
    maxpool(list, "pool1");
    add(list, LAYER_RELU, "relu1");
    conv(list, "conv2", 16, 5, 1, 0);
    maxpool(list, "pool2");
    add(list, LAYER_RELU, "relu2");
    add(list, LAYER_FLATTEN, "flatten");
    dense(list, "fc1", 120);
    add(list, LAYER_RELU, "relu3");
    dense(list, "fc2", 84);
    add(list, LAYER_RELU, "relu4");
    dense(list, "fc3", outputs);
    return 0;
}

/* A convolution without bias (the norm's shift is one) and its batch norm. */
static void conv_norm(struct layer_list *list, const char *conv_name, const char *norm_name, uint32_t filters,
                      uint32_t kernel, uint32_t stride)
{
    conv(list, conv_name, filters, kernel, stride, kernel / 2)->bias = false;
    add(list, LAYER_BATCHNORM, "%s", norm_name);
}

/* y = relu(norm(conv(relu(norm(conv(x))))) + x); where the shape changes, x by a 1×1 convolution and its norm. */
static void residual_block(struct layer_list *list, uint32_t stage, uint32_t block, uint32_t filters)
{
    int32_t from = last(list);
    bool project = stage > 1 && block == 0;
    uint32_t stride = project ? 2 : 1;
    char prefix[28];
    char names[4][48];
    snprintf(prefix, sizeof prefix, "layer%u.%u", stage, block);
    static const char *const parts[4] = {"conv1", "bn1", "conv2", "bn2"};
    for (size_t i = 0; i < 4; i++)
        snprintf(names[i], sizeof names[i], "%s.%s", prefix, parts[i]);

    conv_norm(list, names[0], names[1], filters, 3, stride);
    add(list, LAYER_RELU, "%s.relu1", prefix);
    conv_norm(list, names[2], names[3], filters, 3, 1);
    int32_t residual = last(list);
    int32_t shortcut = from;
    if (project) {
        snprintf(names[0], sizeof names[0], "%s.downsample.0", prefix);
        snprintf(names[1], sizeof names[1], "%s.downsample.1", prefix);
        conv_norm(list, names[0], names[1], filters, 1, stride);
        shortcut = last(list);
        list->layers[shortcut - 1].inputs[0] = from;
    }
    snprintf(names[0], sizeof names[0], "%s.add", prefix);
    join(list, LAYER_ADD, names[0], residual, shortcut);
    add(list, LAYER_RELU, "%s.relu2", prefix);
}

/* Of He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015, section 4.2: 6n + 2 layers for small
 * images; shortcuts between stages by projection (their option B). */
static int resnet(struct layer_list *list, const char *name, uint32_t n, const struct network_sample *sample,
                  uint32_t outputs, struct error *err)
{
    if (sample->shape.h < 8 || sample->shape.w < 8)
        return error_set(err, "model %s: needs images of at least 8×8, but a sample is %u×%u×%u", name, sample->shape.c,
                         sample->shape.h, sample->shape.w);
    conv_norm(list, "conv1", "bn1", 16, 3, 1);
    add(list, LAYER_RELU, "relu");
    for (uint32_t stage = 1; stage <= 3; stage++)
        for (uint32_t block = 0; block < n; block++)
            residual_block(list, stage, block, 8U << stage);
    add(list, LAYER_GLOBAL_AVGPOOL, "avgpool");
    dense(list, "fc", outputs);
    return 0;
}

static int resnet8(struct layer_list *list, const struct network_sample *sample, uint32_t outputs, struct error *err)
{
    return resnet(list, "resnet8", 1, sample, outputs, err);
}

static int resnet20(struct layer_list *list, const struct network_sample *sample, uint32_t outputs, struct error *err)
{
    return resnet(list, "resnet20", 3, sample, outputs, err);
}

/* ---- tables ---- */

/* Of Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016: a linear model over the categories, whose
 * weights are rows of a table with one entry an output, and a deep one over their embeddings and the numbers, added. */
static int widedeep(struct layer_list *list, const struct network_sample *sample, uint32_t outputs, struct error *err)
{
    enum { EMBEDDING_DIM = 8 };
    if (sample->categories == 0)
        return error_set(err, "model widedeep: the samples have no categories: name them in spec.csv.categorical of "
                              "the Dataset, or take model mlp");
    if (check_outputs("widedeep", outputs, err) < 0)
        return -1;
    int32_t ids = take_ids(list, sample);
    int32_t wide = look_up_outputs(list, ids, outputs);
    look_up(list, ids, "deep", EMBEDDING_DIM);
    int32_t embedded = last(list);
    int32_t numbers;
    if (take_numbers(list, sample, &numbers))
        join(list, LAYER_CONCAT, "features", numbers, embedded);
    dense(list, "fc1", 64);
    add(list, LAYER_RELU, "relu1");
    dense(list, "fc2", 32);
    add(list, LAYER_RELU, "relu2");
    dense(list, "fc3", outputs);
    join(list, LAYER_ADD, "output", wide, last(list));
    return 0;
}

/* ---- the list ---- */

static const struct {
    const char *name;
    int (*layers)(struct layer_list *list, const struct network_sample *sample, uint32_t outputs, struct error *err);
} zoo[] = {
    {"linear", linear},   {"logistic", logistic}, {"mlp", mlp},           {"lenet", lenet},
    {"resnet8", resnet8}, {"resnet20", resnet20}, {"widedeep", widedeep},
};
enum { ZOO = sizeof zoo / sizeof zoo[0] };

const char *network_zoo_name(uint32_t index)
{
    return index < ZOO ? zoo[index].name : NULL;
}

bool zoo_loss(const char *name, const struct network_sample *sample, enum loss_type *loss)
{
    if (name == NULL || strcmp(name, "logistic") != 0 || sample->classes != 2)
        return false;
    *loss = LOSS_BINARY_CROSS_ENTROPY;
    return true;
}

int zoo_layers(struct layer_list *list, const char *name, const struct network_sample *sample, uint32_t outputs,
               struct error *err)
{
    for (size_t i = 0; i < ZOO; i++)
        if (strcmp(zoo[i].name, name) == 0)
            return zoo[i].layers(list, sample, outputs, err);
    char names[128] = "";
    for (size_t i = 0, at = 0; i < ZOO && at < sizeof names; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i == 0 ? "" : ", ", zoo[i].name);
    return error_set(err, "spec.model.zoo: there is no model '%.31s'; there are %s", name, names);
}
