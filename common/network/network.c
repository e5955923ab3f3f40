#include "common/network/network.h"

#include "common/network/layers.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- sentences ---- */

struct text {
    char text[96];
};

/* "6×3×3" */
static struct text shape_text(struct shape shape)
{
    struct text out;
    snprintf(out.text, sizeof out.text, "%" PRIu32 "×%" PRIu32 "×%" PRIu32, shape.c, shape.h, shape.w);
    return out;
}

/* A network while it is built: beside every layer, which of its output's elements are ids of categories. */
struct builder {
    struct network *network;
    struct {
        uint32_t from, to; /* none: equal */
    } ids[NETWORK_LAYERS_MOST];
};

static struct shape shape_of(const struct network *network, int32_t input)
{
    return input == NETWORK_SAMPLE ? network->sample.shape : network->layers[input].out;
}

/* "6×3×3 from layer pool1", "1×28×28 (the sample)" */
static struct text input_text(const struct network *network, int32_t input)
{
    struct text out;
    struct text shape = shape_text(shape_of(network, input));
    if (input == NETWORK_SAMPLE)
        snprintf(out.text, sizeof out.text, "%.40s (the sample)", shape.text);
    else
        snprintf(out.text, sizeof out.text, "%.40s from layer %s", shape.text, network->layers[input].name);
    return out;
}

/* "its input of 6×3×3 from layer pool1" is what most sentences speak of. */
static struct text first_input(const struct network *network, const struct network_layer *layer)
{
    return input_text(network, layer->inputs[0]);
}

/* ---- tensors ---- */

struct tensor_wish {
    const char *role; /* "weight" */
    enum tensor_kind kind;
    uint32_t rank, dims[4];
    float bound, constant, momentum;
};

/* Adds a tensor at the end of the flat vector; *at gets where it begins. */
static int add_tensor(struct network *network, const struct network_layer *layer, const struct tensor_wish *wish,
                      uint64_t *at, struct error *err)
{
    struct network_tensor *tensor = &network->tensors[network->tensor_count];
    *tensor = (struct network_tensor){.kind = wish->kind,
                                      .offset = network->parameters,
                                      .count = 1,
                                      .rank = wish->rank,
                                      .bound = wish->bound,
                                      .constant = wish->constant,
                                      .momentum = wish->momentum};
    snprintf(tensor->name, sizeof tensor->name, "%s.%s", layer->name, wish->role);
    for (uint32_t i = 0; i < wish->rank; i++) {
        tensor->dims[i] = wish->dims[i];
        tensor->count *= wish->dims[i]; /* at most 2^30 · 2^24 */
        if (tensor->count > NETWORK_PARAMETERS_MOST)
            break;
    }
    if (tensor->count > NETWORK_PARAMETERS_MOST - network->parameters)
        return layer_refused(layer, err, "its %s for an input of %s brings the model above %d parameters", wish->role,
                             first_input(network, layer).text, NETWORK_PARAMETERS_MOST);
    *at = tensor->offset;
    network->parameters += tensor->count;
    network->tensor_count++;
    return 0;
}

/* Weight and bias are uniform in ±1/√fan_in: PyTorch's default (Kaiming uniform with a = √5, biases alike). */
static int add_weight_and_bias(struct network *network, struct network_layer *layer, uint32_t rank,
                               const uint32_t dims[4], struct error *err)
{
    uint64_t fan_in = 1;
    for (uint32_t i = 1; i < rank; i++)
        fan_in *= dims[i];
    struct tensor_wish weight = {.role = "weight", .rank = rank, .bound = (float)(1.0 / sqrt((double)fan_in))};
    memcpy(weight.dims, dims, rank * sizeof dims[0]);
    if (add_tensor(network, layer, &weight, &layer->weight, err) < 0)
        return -1;
    struct tensor_wish bias = {
        .role = "bias", .kind = TENSOR_BIAS, .rank = 1, .dims = {dims[0]}, .bound = weight.bound};
    return layer->bias ? add_tensor(network, layer, &bias, &layer->bias_at, err) : 0;
}

static int add_scale_and_shift(struct network *network, struct network_layer *layer, uint32_t rank,
                               const uint32_t dims[3], struct error *err)
{
    struct tensor_wish scale = {.role = "weight", .rank = rank, .constant = 1};
    memcpy(scale.dims, dims, rank * sizeof dims[0]);
    struct tensor_wish shift = scale;
    shift.role = "bias";
    shift.kind = TENSOR_BIAS;
    shift.constant = 0;
    return add_tensor(network, layer, &scale, &layer->weight, err) < 0
               ? -1
               : add_tensor(network, layer, &shift, &layer->bias_at, err);
}

/* ---- shapes: a function for each type that checks its input (layer->in) and sets its output, and adds what is
 * trained ---- */

static int need_vector(const struct network *network, const struct network_layer *layer, struct error *err)
{
    if (layer->in.h == 1 && layer->in.w == 1)
        return 0;
    return layer_refused(layer, err, "takes a vector, but its input is %s: put a Flatten before it",
                         first_input(network, layer).text);
}

static int shape_dense(struct builder *builder, struct network_layer *layer, struct error *err)
{
    struct network *network = builder->network;
    if (layer->units == 0)
        layer->units = network->outputs;
    layer->out = (struct shape){layer->units, 1, 1};
    if (layer->in.h != 1 || layer->in.w != 1)
        return layer_refused(layer, err, "takes a vector and gives %s, but its input is %s: put a Flatten before it",
                             shape_text(layer->out).text, first_input(network, layer).text);
    return add_weight_and_bias(network, layer, 2, (uint32_t[4]){layer->units, layer->in.c}, err);
}

/* Windows of `kernel` every `stride` over an input that is padded on both sides. */
static int slide(const struct network *network, struct network_layer *layer, uint32_t channels, const char *what,
                 struct error *err)
{
    uint32_t h = layer->in.h + 2 * layer->padding;
    uint32_t w = layer->in.w + 2 * layer->padding;
    char padding[48] = "";
    if (layer->padding > 0)
        snprintf(padding, sizeof padding, " with padding %" PRIu32, layer->padding);
    if (h < layer->kernel || w < layer->kernel)
        return layer_refused(layer, err, "its %" PRIu32 "×%" PRIu32 " %s%s does not fit its input of %s", layer->kernel,
                             layer->kernel, what, padding, first_input(network, layer).text);
    layer->out =
        (struct shape){channels, (h - layer->kernel) / layer->stride + 1, (w - layer->kernel) / layer->stride + 1};
    return 0;
}

static int shape_conv2d(struct builder *builder, struct network_layer *layer, struct error *err)
{
    struct network *network = builder->network;
    if (layer->in.c % layer->groups != 0 || layer->filters % layer->groups != 0)
        return layer_refused(layer, err,
                             "its %" PRIu32 " groups must divide its %" PRIu32 " filters and the channels of its "
                             "input of %s",
                             layer->groups, layer->filters, first_input(network, layer).text);
    if (slide(network, layer, layer->filters, "kernel", err) < 0)
        return -1;
    uint32_t dims[4] = {layer->filters, layer->in.c / layer->groups, layer->kernel, layer->kernel};
    return add_weight_and_bias(network, layer, 4, dims, err);
}

/* PyTorch's bound: a window must not lie in the padding alone. */
static int shape_pool(struct builder *builder, struct network_layer *layer, struct error *err)
{
    if (layer->padding > layer->kernel / 2)
        return layer_refused(layer, err,
                             "its padding %" PRIu32 " is more than half of its %" PRIu32 "×%" PRIu32
                             " window over its input of %s: make it smaller",
                             layer->padding, layer->kernel, layer->kernel, first_input(builder->network, layer).text);
    return slide(builder->network, layer, layer->in.c, "window", err);
}

static int shape_global_avgpool(struct builder *builder, struct network_layer *layer, struct error *err)
{
    (void)builder;
    (void)err;
    layer->out = (struct shape){layer->in.c, 1, 1};
    return 0;
}

static int shape_same(struct builder *builder, struct network_layer *layer, struct error *err)
{
    (void)builder;
    (void)err;
    layer->out = layer->in;
    return 0;
}

static int shape_batchnorm(struct builder *builder, struct network_layer *layer, struct error *err)
{
    struct network *network = builder->network;
    layer->out = layer->in;
    struct tensor_wish mean = {.role = "running_mean",
                               .kind = TENSOR_STATISTIC,
                               .rank = 1,
                               .dims = {layer->in.c},
                               .momentum = (float)layer->momentum};
    struct tensor_wish variance = mean;
    variance.role = "running_var";
    variance.constant = 1;
    if (add_scale_and_shift(network, layer, 1, (uint32_t[3]){layer->in.c}, err) < 0 ||
        add_tensor(network, layer, &mean, &layer->mean_at, err) < 0)
        return -1;
    return add_tensor(network, layer, &variance, &layer->variance_at, err);
}

static int shape_layernorm(struct builder *builder, struct network_layer *layer, struct error *err)
{
    layer->out = layer->in;
    uint32_t rank = layer->in.h == 1 && layer->in.w == 1 ? 1 : 3;
    return add_scale_and_shift(builder->network, layer, rank, (uint32_t[3]){layer->in.c, layer->in.h, layer->in.w},
                               err);
}

static int shape_embedding(struct builder *builder, struct network_layer *layer, struct error *err)
{
    struct network *network = builder->network;
    if (network->sample.categories == 0)
        return layer_refused(layer, err,
                             "takes ids of categories, but its input of %s holds none: name categorical columns in "
                             "spec.csv.categorical of the Dataset",
                             first_input(network, layer).text);
    if (need_vector(network, layer, err) < 0)
        return -1;
    if (layer->rows == 0)
        layer->rows = network->sample.rows;
    if (layer->rows < network->sample.rows)
        return layer_refused(layer, err,
                             "its %" PRIu32 " rows are too few for the samples' ids, which go up to %" PRIu32
                             ": leave rows out, or raise it",
                             layer->rows, network->sample.rows - 1);
    uint64_t out = (uint64_t)layer->in.c * layer->dim;
    if (out > NETWORK_ELEMENTS_MOST)
        return layer_refused(layer, err, "an output of %" PRIu64 "×1×1 from its input of %s has more than %d elements",
                             out, first_input(network, layer).text, NETWORK_ELEMENTS_MOST);
    layer->out = (struct shape){(uint32_t)out, 1, 1};
    if (network->table_count == NETWORK_TABLES_MOST)
        return layer_refused(layer, err, "the model has more than %d embeddings", NETWORK_TABLES_MOST);
    struct network_table *table = &network->tables[network->table_count];
    /* Keras's default for embeddings; PyTorch's normal deviates would drown what is added to a wide model. */
    *table = (struct network_table){.rows = layer->rows, .dim = layer->dim, .bound = 0.05F};
    snprintf(table->name, sizeof table->name, "%s.weight", layer->name);
    layer->table = network->table_count++;
    return 0;
}

static int shape_sum(struct builder *builder, struct network_layer *layer, struct error *err)
{
    if (need_vector(builder->network, layer, err) < 0)
        return -1;
    layer->out = (struct shape){layer->units, 1, 1};
    if (layer->in.c % layer->units != 0)
        return layer_refused(layer, err, "its output of %s does not divide its input of %s",
                             shape_text(layer->out).text, first_input(builder->network, layer).text);
    return 0;
}

static int shape_add(struct builder *builder, struct network_layer *layer, struct error *err)
{
    const struct network *network = builder->network;
    layer->out = layer->in;
    for (uint32_t i = 1; i < layer->input_count; i++) {
        struct shape other = shape_of(network, layer->inputs[i]);
        if (other.c != layer->in.c || other.h != layer->in.h || other.w != layer->in.w)
            return layer_refused(layer, err, "its inputs differ in shape: %s and %s", first_input(network, layer).text,
                                 input_text(network, layer->inputs[i]).text);
    }
    return 0;
}

static int shape_concat(struct builder *builder, struct network_layer *layer, struct error *err)
{
    const struct network *network = builder->network;
    layer->out = layer->in;
    for (uint32_t i = 1; i < layer->input_count; i++) {
        struct shape other = shape_of(network, layer->inputs[i]);
        if (other.h != layer->in.h || other.w != layer->in.w)
            return layer_refused(layer, err, "its inputs differ in height or width: %s and %s",
                                 first_input(network, layer).text, input_text(network, layer->inputs[i]).text);
        layer->out.c += other.c; /* at most 8 · 2^24 */
    }
    return 0;
}

static int shape_columns(struct builder *builder, struct network_layer *layer, struct error *err)
{
    if (need_vector(builder->network, layer, err) < 0)
        return -1;
    if (layer->to == 0)
        layer->to = layer->in.c;
    if (layer->from >= layer->to || layer->to > layer->in.c)
        return layer_refused(layer, err, "there are no columns from %" PRIu32 " to %" PRIu32 " in its input of %s",
                             layer->from, layer->to, first_input(builder->network, layer).text);
    layer->out = (struct shape){layer->to - layer->from, 1, 1};
    return 0;
}

static int shape_flatten(struct builder *builder, struct network_layer *layer, struct error *err)
{
    (void)builder;
    (void)err;
    layer->out = (struct shape){(uint32_t)shape_size(layer->in), 1, 1};
    return 0;
}

static int (*const shapers[LAYER_TYPES])(struct builder *builder, struct network_layer *layer, struct error *err) = {
    [LAYER_DENSE] = shape_dense,
    [LAYER_CONV2D] = shape_conv2d,
    [LAYER_MAXPOOL] = shape_pool,
    [LAYER_AVGPOOL] = shape_pool,
    [LAYER_BATCHNORM] = shape_batchnorm,
    [LAYER_GLOBAL_AVGPOOL] = shape_global_avgpool,
    [LAYER_DROPOUT] = shape_same,
    [LAYER_LAYERNORM] = shape_layernorm,
    [LAYER_ADD] = shape_add,
    [LAYER_EMBEDDING] = shape_embedding,
    [LAYER_CONCAT] = shape_concat,
    [LAYER_COLUMNS] = shape_columns,
    [LAYER_FLATTEN] = shape_flatten,
    [LAYER_RELU] = shape_same,
    [LAYER_GELU] = shape_same,
    [LAYER_TANH] = shape_same,
    [LAYER_SIGMOID] = shape_same,
    [LAYER_SUM] = shape_sum,
};

/* ---- ids of categories ---- */

/* Ids are names, not amounts: they may be cut out of a vector and looked up, nothing else. */
static int follow_ids(struct builder *builder, uint32_t index, struct error *err)
{
    const struct network *network = builder->network;
    const struct network_layer *layer = &network->layers[index];
    uint32_t size = (uint32_t)shape_size(network->sample.shape);
    for (uint32_t i = 0; i < layer->input_count; i++) {
        int32_t input = layer->inputs[i];
        uint32_t from = input == NETWORK_SAMPLE ? size - network->sample.categories : builder->ids[input].from;
        uint32_t to = input == NETWORK_SAMPLE ? size : builder->ids[input].to;
        if (layer->type == LAYER_COLUMNS) {
            from = from < layer->from ? layer->from : from;
            to = to > layer->to ? layer->to : to;
            if (from < to) {
                builder->ids[index].from = from - layer->from;
                builder->ids[index].to = to - layer->from;
            }
        } else if (layer->type == LAYER_FLATTEN) {
            builder->ids[index].from = from;
            builder->ids[index].to = to;
        } else if (layer->type == LAYER_EMBEDDING) {
            if (from != 0 || to != layer->in.c)
                return layer_refused(layer, err,
                                     "takes ids of categories, but its input of %s holds other numbers too: take the "
                                     "last %" PRIu32 " columns of the sample with Columns",
                                     input_text(network, input).text, network->sample.categories);
        } else if (from < to) {
            return layer_refused(layer, err,
                                 "columns %" PRIu32 " to %" PRIu32 " of its input of %s are ids of categories: take "
                                 "them out with Columns and look them up with Embedding",
                                 from, to - 1, input_text(network, input).text);
        }
    }
    return 0;
}

/* ---- building ---- */

static int check_sample(const struct network_sample *sample, struct error *err)
{
    struct shape shape = sample->shape;
    const uint32_t sizes[3] = {shape.c, shape.h, shape.w};
    uint64_t size = 1;
    for (int i = 0; i < 3; i++) {
        if (sizes[i] == 0 || sizes[i] > NETWORK_ELEMENTS_MOST)
            return error_set(err,
                             "samples of shape %s cannot be: each of channels, height and width must be from 1 to %d",
                             shape_text(shape).text, NETWORK_ELEMENTS_MOST);
        size *= sizes[i];
        if (size > NETWORK_ELEMENTS_MOST)
            return error_set(err, "a sample of shape %s has more than %d elements", shape_text(shape).text,
                             NETWORK_ELEMENTS_MOST);
    }
    if (sample->classes == 1 || sample->classes > NETWORK_OUTPUTS_MOST)
        return error_set(err, "the number of classes must be from 2 to %d, not %" PRIu32, NETWORK_OUTPUTS_MOST,
                         sample->classes);
    if (sample->categories > size || sample->rows > NETWORK_ROWS_MOST || (sample->categories > 0 && sample->rows == 0))
        return error_set(err, "a sample of shape %s cannot have %" PRIu32 " categories with %" PRIu32 " ids",
                         shape_text(shape).text, sample->categories, sample->rows);
    return 0;
}

static int choose_loss(struct network *network, const struct network_spec *spec, struct error *err)
{
    uint32_t classes = network->sample.classes;
    if (spec->has_loss)
        network->loss = spec->loss;
    else if (!zoo_loss(spec->zoo, &network->sample, &network->loss))
        network->loss = classes > 0 ? LOSS_SOFTMAX_CROSS_ENTROPY : LOSS_MSE;
    network->huber_delta = network->loss != LOSS_HUBER ? 0 : spec->huber_delta > 0 ? spec->huber_delta : 1;
    network->outputs = network->loss == LOSS_SOFTMAX_CROSS_ENTROPY ? classes : 1;

    bool of_values = network->loss == LOSS_MSE || network->loss == LOSS_HUBER;
    if (of_values && classes > 0)
        return error_set(err,
                         "loss %s is of values, but the samples have %" PRIu32 " classes: take SoftmaxCrossEntropy",
                         loss_type_name(network->loss), classes);
    if (!of_values && classes == 0)
        return error_set(err, "loss %s is of classes, but the Dataset names none: set its spec.classes, or take MSE",
                         loss_type_name(network->loss));
    if (network->loss == LOSS_BINARY_CROSS_ENTROPY && classes != 2)
        return error_set(err,
                         "loss BinaryCrossEntropy is of two classes, but the samples have %" PRIu32
                         ": take SoftmaxCrossEntropy",
                         classes);
    return 0;
}

static int build_layer(struct builder *builder, uint32_t index, struct error *err)
{
    struct network *network = builder->network;
    struct network_layer *layer = &network->layers[index];
    layer->in = shape_of(network, layer->inputs[0]);
    if (shapers[layer->type](builder, layer, err) < 0)
        return -1;
    if (shape_size(layer->out) > NETWORK_ELEMENTS_MOST)
        return layer_refused(layer, err, "an output of %s from its input of %s has more than %d elements",
                             shape_text(layer->out).text, first_input(network, layer).text, NETWORK_ELEMENTS_MOST);
    return follow_ids(builder, index, err);
}

static int build_layers(struct network *network, struct error *err)
{
    struct builder builder = {.network = network};
    for (uint32_t i = 0; i < network->layer_count; i++)
        if (build_layer(&builder, i, err) < 0)
            return -1;
    const struct network_layer *last = &network->layers[network->layer_count - 1];
    struct shape wanted = {network->outputs, 1, 1};
    if (last->out.c != wanted.c || last->out.h != 1 || last->out.w != 1)
        return layer_refused(last, err, "is the last layer, but its output of %s is not the %s that loss %s takes%s",
                             shape_text(last->out).text, shape_text(wanted).text, loss_type_name(network->loss),
                             last->type == LAYER_DENSE ? ": leave units out" : "");
    if (network->parameters == 0)
        return error_set(err, "the model has no parameters to train: give it a layer such as Dense");
    return 0;
}

int network_build(struct network **out, const struct network_spec *spec, const struct network_sample *sample,
                  struct error *err)
{
    if ((spec->zoo == NULL) == (spec->layers == NULL))
        return error_set(err, "spec.model: set exactly one of zoo and layers");
    cleanup_network struct network *network = calloc(1, sizeof *network);
    cleanup_layers struct layer_list list = {0};
    if (network == NULL || layer_list_new(&list, err) < 0)
        return error_set(err, "out of memory for the model's description");
    network->sample = *sample;
    snprintf(network->name, sizeof network->name, "%s", spec->zoo != NULL ? spec->zoo : "layers");
    if (check_sample(sample, err) < 0 || choose_loss(network, spec, err) < 0)
        return -1;
    int listed = spec->zoo != NULL ? zoo_layers(&list, spec->zoo, sample, network->outputs, err)
                                   : layers_decode(&list, spec->layers, err);
    if (listed < 0)
        return -1;
    if (spec->layers != NULL && (network->list = network_layers_text(spec->layers, err)) == NULL)
        return -1;
    network->layer_count = list.count;
    network->layers = move(list.layers);
    network->tensors = calloc(4 * (size_t)network->layer_count, sizeof *network->tensors);
    if (network->tensors == NULL)
        return error_set(err, "out of memory for the model's tensors");
    if (build_layers(network, err) < 0)
        return -1;
    *out = move(network);
    return 0;
}

void network_free(struct network *network)
{
    if (network == NULL)
        return;
    free(network->list);
    free(network->layers);
    free(network->tensors);
    free(network);
}

/* ---- shards ---- */

uint32_t network_chunk(const struct network *network)
{
    if (network->parameters >= 1 << 18)
        return 4096;
    if (network->parameters >= 1 << 12)
        return 256;
    return network->parameters >= 1 << 8 ? 16 : 1;
}

/* The tensor in which element `at` lies. */
static const struct network_tensor *tensor_at(const struct network *network, uint64_t at)
{
    uint32_t low = 0;
    uint32_t high = network->tensor_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (network->tensors[middle].offset <= at)
            low = middle;
        else
            high = middle;
    }
    return &network->tensors[low];
}

static uint64_t chunk_begin(const struct network *network, uint64_t at)
{
    const struct network_tensor *tensor = tensor_at(network, at);
    return at - (at - tensor->offset) % network_chunk(network);
}

uint64_t network_chunk_end(const struct network *network, uint64_t at)
{
    const struct network_tensor *tensor = tensor_at(network, at);
    uint64_t end = chunk_begin(network, at) + network_chunk(network);
    uint64_t tensor_end = tensor->offset + tensor->count;
    return end < tensor_end ? end : tensor_end;
}

/* Where shard `index` begins: at the chunk's edge that is nearest to its equal part, and so in order. */
static uint64_t shard_begin(const struct network *network, uint32_t shards, uint32_t index)
{
    if (index >= shards)
        return network->parameters;
    uint64_t at = network->parameters * index / shards;
    uint64_t begin = chunk_begin(network, at);
    uint64_t end = network_chunk_end(network, at);
    return at - begin <= end - at ? begin : end;
}

void network_shard_range(const struct network *network, uint32_t shards, uint32_t index, uint64_t *begin, uint64_t *end)
{
    *begin = shard_begin(network, shards, index);
    *end = shard_begin(network, shards, index + 1);
}
