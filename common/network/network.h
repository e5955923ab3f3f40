/* network — what a model is made of: layers, how they connect, the shapes that flow between them, and the tensors that
 * they need. No arithmetic: the trainer's model/ computes, the operator only refuses what cannot be built.
 *
 * A network comes from the zoo (zoo.c has each as a list of layers) or from spec.model.layers. Every layer reads the
 * one before it unless it names its inputs; "input" is the sample. The last layer's output goes into the loss.
 * A sample is one vector of floats, C×H×W; of a table with categories the last columns are ids, exact in a float.
 * May call common.
 */
#ifndef THOLE_COMMON_NETWORK_NETWORK_H
#define THOLE_COMMON_NETWORK_NETWORK_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/json.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    NETWORK_LAYERS_MOST = 256,
    NETWORK_INPUTS_MOST = 8,
    NETWORK_NAME_SIZE = 32,        /* of a layer, with its NUL */
    NETWORK_TENSOR_NAME_SIZE = 48, /* "conv1.weight" */
    NETWORK_TENSORS_MOST = 4 * NETWORK_LAYERS_MOST,
    NETWORK_TABLES_MOST = 32,
    NETWORK_ELEMENTS_MOST = 1 << 24, /* of a sample, or of a layer's output */
    NETWORK_PARAMETERS_MOST = 1 << 30,
    NETWORK_ROWS_MOST = 1 << 24, /* of an embedding table: ids are exact in a float32 */
    NETWORK_DIM_MOST = 1024,     /* of an embedding */
    NETWORK_OUTPUTS_MOST = 65536,
    NETWORK_SAMPLE = -1, /* as an input: the sample itself */
};

/* Names in YAML are CamelCase: Dense, Conv2D, MaxPool, AvgPool, GlobalAvgPool, BatchNorm, LayerNorm, Dropout,
 * Embedding, Sum, Add, Concat, Columns, Flatten, ReLU, GELU, Tanh, Sigmoid. */
enum layer_type {
    LAYER_DENSE,   /* [in] → [units]; units absent: as many as the loss wants */
    LAYER_CONV2D,  /* c×h×w → filters×oh×ow; o = ⌊(i + 2·padding − kernel)/stride⌋ + 1 */
    LAYER_MAXPOOL, /* kernel, stride (absent: kernel), padding ≤ kernel/2, which is never the largest; what does
                      not fill a window is left out */
    LAYER_AVGPOOL, /* the same, with padding that counts as zeros (PyTorch's count_include_pad) */
    LAYER_GLOBAL_AVGPOOL, /* c×h×w → [c] */
    LAYER_BATCHNORM,      /* per channel, over the block's samples (and places) */
    LAYER_LAYERNORM,      /* over all elements of a sample */
    LAYER_DROPOUT,        /* rate */
    LAYER_EMBEDDING, /* [k] ids → [k·dim]; a table of `rows` sparse rows (absent: as many as the samples' ids) */
    LAYER_ADD,       /* inputs of one shape */
    LAYER_CONCAT,    /* along channels; heights and widths equal */
    LAYER_COLUMNS,   /* elements [from, to) of a vector; absent: from its beginning, to its end */
    LAYER_FLATTEN,
    LAYER_RELU,
    LAYER_GELU, /* x·Φ(x), with erf */
    LAYER_TANH,
    LAYER_SIGMOID,
    LAYER_SUM, /* [k·units] → [units]: y[j] = Σ x[i·units + j], i from 0 to k − 1: embeddings of k columns, summed */
    LAYER_TYPES,
};
const char *layer_type_name(enum layer_type type); /* "Conv2D" */

enum loss_type {
    LOSS_SOFTMAX_CROSS_ENTROPY, /* outputs: classes */
    LOSS_BINARY_CROSS_ENTROPY,  /* outputs: 1, of two classes; with logits */
    LOSS_MSE,                   /* outputs: 1; (y − t)² */
    LOSS_HUBER,                 /* outputs: 1; PyTorch's HuberLoss */
    LOSS_TYPES,
};
const char *loss_type_name(enum loss_type type); /* "SoftmaxCrossEntropy", "BinaryCrossEntropy", "MSE", "Huber" */

struct shape {
    uint32_t c, h, w; /* a vector: [size, 1, 1] */
};
static inline uint64_t shape_size(struct shape shape)
{
    return (uint64_t)shape.c * shape.h * shape.w;
}

/* What a data set says of its samples. */
struct network_sample {
    struct shape shape;
    uint32_t categories; /* the last so many elements are ids (of a vector; else 0) … */
    uint32_t rows;       /* … below this */
    uint32_t classes;    /* 0: regression */
};

struct network_layer {
    enum layer_type type;
    char name[NETWORK_NAME_SIZE];
    int32_t inputs[NETWORK_INPUTS_MOST]; /* indices of earlier layers, or NETWORK_SAMPLE */
    uint32_t input_count;

    uint32_t units, filters, kernel, stride, padding, groups; /* groups ≥ 1; stride ≥ 1 */
    bool bias;                                                /* dense, conv2d */
    uint32_t rows, dim, table;                                /* embedding; table: which of the network's */
    uint32_t from, to;                                        /* columns */
    double rate;                                              /* dropout: what is dropped, 0 ≤ rate < 1 */
    double momentum, epsilon; /* batch norm: running = (1 − momentum)·running + momentum·new; both norms: epsilon */

    struct shape in, out;          /* of the first input, of the output; in a built network */
    uint64_t weight, bias_at;      /* where its tensors begin in the flat vector (norms: scale and shift) */
    uint64_t mean_at, variance_at; /* batch norm's running statistics */
};

enum tensor_kind {
    TENSOR_WEIGHT,
    TENSOR_BIAS,
    TENSOR_STATISTIC, /* not trained: a running statistic, which moves by `momentum` towards each step's */
};

/* A named range of the flat vector; they fill it in order without gaps. */
struct network_tensor {
    char name[NETWORK_TENSOR_NAME_SIZE]; /* PyTorch's: "conv1.weight", "bn1.running_mean"; dims too */
    enum tensor_kind kind;
    uint64_t offset, count; /* in floats */
    uint32_t rank;
    uint32_t dims[4]; /* dense [out][in], conv2d [out][in/groups][k][k], layer norm of an image [c][h][w], others [n] */
    float bound;      /* initial values are uniform in [−bound, bound), or, where bound is 0, … */
    float constant;   /* … this */
    float momentum;   /* TENSOR_STATISTIC */
};

/* An embedding's table: sparse, outside the flat vector. A row that no gradient has touched is uniform in
 * [−bound, bound) by (seed, table, row, position). Row r lives on shard r mod shards. */
struct network_table {
    char name[NETWORK_TENSOR_NAME_SIZE]; /* "wide.weight" */
    uint32_t rows, dim;
    float bound;
};

struct network {
    char name[NETWORK_NAME_SIZE]; /* the zoo's name, or "layers" … */
    char *list;                   /* … as network_layers_text() writes them; NULL: the zoo's */
    struct network_sample sample;
    enum loss_type loss;
    double huber_delta;
    uint32_t outputs; /* of the last layer */
    struct network_layer *layers;
    uint32_t layer_count;
    struct network_tensor *tensors;
    uint32_t tensor_count;
    struct network_table tables[NETWORK_TABLES_MOST];
    uint32_t table_count;
    bool has_rows_seed; /* rows that no gradient has touched are by this seed; else by the job's */
    uint64_t rows_seed;
    uint64_t parameters; /* of the flat vector */
};

/* Which network: exactly one of zoo and layers. */
struct network_spec {
    const char *zoo;
    const cJSON *layers; /* spec.model.layers */
    bool has_loss; /* else SoftmaxCrossEntropy with classes, MSE without; of `logistic` with two BinaryCrossEntropy */
    enum loss_type loss;
    double huber_delta; /* 0: 1 */
};

/* Builds it for such samples. Sentences name the layer and both shapes: "layer conv2 (Conv2D): its 5×5 kernel does not
 * fit its input of 6×3×3 from layer pool1". */
int network_build(struct network **out, const struct network_spec *spec, const struct network_sample *sample,
                  struct error *err);
void network_free(struct network *network);
CLEANUP_DEFINE(cleanup_network_pointer, struct network, network_free)
#define cleanup_network CLEANUP(cleanup_network_pointer)

/* What can be said of a list of layers without knowing the samples: names, inputs, members of each type, bounds. */
int network_check_layers(const cJSON *layers, struct error *err);

/* A list that passes network_check_layers as compact JSON, to be freed: members in one order, those with default values
 * left out, so that lists that mean the same are the same text. NULL with *err. */
char *network_layers_text(const cJSON *layers, struct error *err);

/* The zoo's names, in the order of the documentation; NULL past the end. */
const char *network_zoo_name(uint32_t index);

/* ---- Shards ----
 *
 * Norms of gradients and parameters are sums over canonical chunks, which begin at every tensor's beginning and then
 * every network_chunk() floats; they cross neither tensors nor shards, and so do not depend on the number of shards. */
/* 4096; 256 for models below 2^18 parameters, 16 below 2^12, 1 below 2^8: so that each of 16 shards has some. */
uint32_t network_chunk(const struct network *network);

/* The end of the canonical chunk in which element `at` lies. */
uint64_t network_chunk_end(const struct network *network, uint64_t at);

/* The range of the flat vector that is shard `index`'s: about parameters/shards each, begun at canonical chunks.
 * begin == end where the model has fewer parameters than there are shards. */
void network_shard_range(const struct network *network, uint32_t shards, uint32_t index, uint64_t *begin,
                         uint64_t *end);

#endif
