/* layer — one layer's mathematics each: forward and backward over a block of n samples. Private to model.
 *
 * Every type of layer is a row in layer_kinds (kinds.c): functions over a `struct layer_call`, and what the engine
 * (compute.c) may do with its memory. The engine knows nothing else of types. Arrays hold n samples, one after the
 * other without gaps, in the shapes of the network. Nothing is allocated, no state is kept; a result is a function of
 * values alone: not of addresses, nor of what lay in output, scratch or saved before.
 * Plain versions of the layers that have fast ones stand in reference.c; they are the definition.
 */
#ifndef THOLE_MODEL_LAYER_H
#define THOLE_MODEL_LAYER_H

#include "common/network/network.h"
#include "model/gemm.h"
#include "model/model.h"

#include <stddef.h>
#include <stdint.h>

/* One layer over one block. What forward writes and backward reads: output, where LAYER_READS_OUTPUT; saved. */
struct layer_call {
    const struct network_layer *layer;
    uint32_t index;      /* of the layer in the network: for streams of random numbers */
    uint32_t n;          /* samples, ≥ 1 */
    enum gemm_unit unit; /* for products that step over zeros */
    bool training;       /* else: batch norm by its running statistics, no dropout; forward only */
    bool relu;           /* only where LAYER_TAKES_RELU: see there */

    const float *params; /* the whole flat vector; the layer knows its offsets */
    const float *inputs[NETWORK_INPUTS_MOST];
    struct shape shapes[NETWORK_INPUTS_MOST]; /* of the inputs */
    float *output;

    /* backward */
    float *doutput;                      /* the gradient with respect to the output; may be overwritten */
    float *dinputs[NETWORK_INPUTS_MOST]; /* NULL: not wanted; else overwritten in this order (they may repeat) … */
    bool add[NETWORK_INPUTS_MOST];       /* … or, only where LAYER_ADDS, added to */
    float *grad; /* the whole flat vector; the layer's ranges are overwritten with sums over the block (of a
                    TENSOR_STATISTIC: n times its value) */

    float *kept; /* NULL, or of a large Dense: gets x [n][in] and doutput [n][out] in place of the weight's gradient */

    float *scratch; /* scratch() floats, for the length of this call */
    void *saved;    /* saved() bytes, from forward to backward */

    const struct model_batch *batch; /* place: of sample 0 of this call */
    const struct model_rows *rows;   /* of the layer's table */
};

enum layer_flag {
    /* Forward may find output == inputs[0], and then must not read what it has overwritten. */
    LAYER_OVER_INPUT = 1 << 0,
    /* Backward may find dinputs[0] == doutput. */
    LAYER_OVER_GRADIENT = 1 << 1,
    /* Backward reads inputs (else they are not valid there). */
    LAYER_READS_INPUT = 1 << 2,
    /* Backward reads output (else it is not valid there). */
    LAYER_READS_OUTPUT = 1 << 3,
    /* Backward heeds `add`; without this the engine adds what backward wrote elsewhere. The bits must be those of
     * adding the finished value: dinput = dinput + value. */
    LAYER_ADDS = 1 << 4,
    /* Computes a ReLU that alone reads the layer's output in the same pass, where call.relu: forward writes
     * x < 0 ? 0 : x in place of x; in backward output is valid, doutput is the ReLU's, and counts where output > 0.
     * The bits must be those of the two layers. */
    LAYER_TAKES_RELU = 1 << 5,
    /* Has ranges of the flat vector, or rows of a table. */
    LAYER_TRAINS = 1 << 6,
};

struct layer_kind {
    void (*forward)(const struct layer_call *call);  /* NULL: output is inputs[0], only the shape … */
    void (*backward)(const struct layer_call *call); /* … differs */
    size_t (*scratch)(const struct network_layer *layer, uint32_t n); /* floats; NULL: none */
    size_t (*saved)(const struct network_layer *layer, uint32_t n);   /* bytes; NULL: none */
    unsigned flags;
};

const struct layer_kind *layer_kind(enum layer_type type);

/* y [n][out] = x [n][in] · wᵀ + b,   w [out][in] */
extern const struct layer_kind dense_kind;

/* y[o,i,j] = b[o] + Σ x[c, i·s+u−p, j·s+v−p]·w[o,c,u,v],   x [n][ci][h][w], w [co][ci/groups][k][k], y [n][co][oh][ow];
 * c runs over the input channels of o's group */
extern const struct layer_kind conv2d_kind;

/* The largest of each window, the first of equal ones row by row; padding is below all. */
extern const struct layer_kind maxpool_kind;

extern const struct layer_kind relu_kind; /* x < 0 ? 0 : x, so that NaN stays seen */

extern const struct layer_kind avgpool_kind, global_avgpool_kind;             /* pool.c */
extern const struct layer_kind batchnorm_kind, layernorm_kind;                /* norm.c */
extern const struct layer_kind dropout_kind;                                  /* dropout.c */
extern const struct layer_kind gelu_kind, tanh_kind, sigmoid_kind;            /* activation.c */
extern const struct layer_kind add_kind, concat_kind, columns_kind, sum_kind; /* combine.c */
extern const struct layer_kind embedding_kind;                                /* embedding.c */

/* ---- Losses: loss.c ---- */

/* Losses of `outputs` [n][network->outputs] against `targets` [n]: writes the gradients of their sum to `doutputs`
 * (may be the outputs) and returns the sum, in double, added in the samples' order. */
double loss_gradient(const struct network *network, const float *outputs, const float *targets, uint32_t n,
                     float *doutputs);

/* The same without gradients; *correct grows by the samples that are classified rightly (of equal outputs the first
 * counts); of a regression it stays. */
double loss_evaluate(const struct network *network, const float *outputs, const float *targets, uint32_t n,
                     uint64_t *correct);

#endif
