/* model — computes a network: layers over one flat vector of parameters and one of gradients.
 *
 * A model is made of a network (common/network) and is immutable then: any number of threads may use it, each with its
 * own workspace. Parameters are float32 in one flat vector in a fixed order, which is what parameter servers shard;
 * tensors are named ranges of it. Gradients are sums over samples; the optimizer divides, once.
 * Every result is a function of its arguments' values alone: not of where they lie in memory, nor of the workspace's
 * size, nor of what was computed before.
 * May call numerics and common.
 */
#ifndef THOLE_MODEL_MODEL_H
#define THOLE_MODEL_MODEL_H

#include "common/cleanup.h"
#include "common/crypto.h"
#include "common/error.h"
#include "common/json.h"
#include "common/network/network.h"
#include "common/plan/plan.h"

#include <stddef.h>
#include <stdint.h>

enum { MODEL_WORKSPACE_SAMPLES_MOST = 1 << 20 };

struct model; /* opaque */

/* Of `network`, which is taken over, also where this fails. */
int model_build(struct model **out, struct network *network, struct error *err);
/* Of the network that `spec` describes for such samples. */
int model_make(struct model **out, const struct network_spec *spec, const struct network_sample *sample,
               struct error *err);
void model_free(struct model *model);
CLEANUP_DEFINE(cleanup_model_pointer, struct model, model_free)
#define cleanup_model CLEANUP(cleanup_model_pointer)

const struct network *model_network(const struct model *model);
uint64_t model_parameters(const struct model *model);  /* of the flat vector */
uint64_t model_sample_size(const struct model *model); /* C·H·W */

/* Initial values of parameters [begin, end): uniform in ±bound, or the constant, of each one's tensor. A value depends
 * on the seed, its tensor and its place in it, so any range can be made by itself. */
void model_init_range(const struct model *model, uint64_t seed, uint64_t begin, uint64_t end, float *out);

/* What rows of tables that no gradient has touched are made of: the job's seed, or, where it goes on from a model's
 * file, that of the job which made them first. They stay what they were, as all other parameters do. */
uint64_t model_rows_seed(const struct network *network, const struct plan *plan);

/* Memory of one computation at a time, for calls with up to `samples` samples. */
struct workspace;
int workspace_new(struct workspace **out, const struct model *model, uint32_t samples, struct error *err);
void workspace_free(struct workspace *workspace);
CLEANUP_DEFINE(cleanup_workspace_pointer, struct workspace, workspace_free)
#define cleanup_workspace CLEANUP(cleanup_workspace_pointer)

/* Rows of an embedding's table that a block reads. */
struct model_rows {
    uint32_t count;
    const uint32_t *ids; /* [count], ascending, each once: at least those that the block's samples hold */
    const float *values; /* [count][dim] */
    float *grad;         /* [count][dim], overwritten; not written by model_evaluate */
};

/* Samples that are computed together. */
struct model_batch {
    uint32_t n;
    const float *x;       /* [n][C][H][W] */
    const float *targets; /* [n]: the class, a whole number below classes, or the value to predict */
    struct {
        uint64_t seed; /* the job's */
        uint32_t epoch;
        uint64_t first;            /* the first sample's position in the epoch's order */
    } place;                       /* for what is random in training: dropout */
    const struct model_rows *rows; /* one for each of the network's tables */

    /* NULL, or called during model_gradient as grad [begin, end) becomes final: every range once, the deepest layers'
     * first. */
    void (*ready)(void *arg, uint64_t begin, uint64_t end);
    void *ready_arg;

    float *kept; /* NULL, or [model_kept_floats(n)]: see "Weight gradients piece by piece" */
};

/* One block: the sum over the samples of the gradients of the loss.
 *   params [parameters]   grad [parameters], overwritten
 * Returns the sum of the losses, added in the samples' order. 1 ≤ n ≤ the workspace's samples.
 * Allocates nothing. */
double model_gradient(const struct model *model, const float *params, const struct model_batch *batch, float *grad,
                      struct workspace *workspace);

/* ---- Weight gradients piece by piece ----
 *
 * Most of what a block writes to memory are the gradients of large Dense weights, each a product of two small matrices.
 * Where a batch has `kept`, model_gradient() leaves those matrices there and does without the weights' ranges of grad,
 * which are never `ready`. Their gradients can then be made piece by piece (consecutive rows of one weight), for many
 * blocks in turn, while a piece and its sums stay in the cache. The bits are those of model_gradient(). */

enum { MODEL_PIECE_SAMPLES_MOST = 64 }; /* of a batch that has `kept` */

struct model_piece {
    uint32_t layer, row, rows;
    uint64_t begin, end; /* its range of the flat vector */
};

uint32_t model_pieces(const struct model *model);                          /* 0: it has no such weights */
struct model_piece model_piece(const struct model *model, uint32_t index); /* in the order of the flat vector */
uint64_t model_kept_floats(const struct model *model, uint32_t samples);

struct model_kept {
    const float *factors; /* a batch's `kept` */
    uint32_t n;           /* its samples */
};

/* The piece's gradient over the samples of a batch, out [end - begin]. Allocates nothing. */
void model_piece_gradient(const struct model *model, const struct model_piece *piece, struct model_kept kept,
                          float *out);

/* Over those of two or four batches at once, (0 + 1) + (2 + 3), where that is faster: returns false, and has done
 * nothing, where it is not. The bits are those of making each by itself and adding by vector_add(), or, where
 * `rounded`, by vector_bfloat16_add(), but, where they are not rounded, for which NaN a NaN is. */
enum { MODEL_PIECE_BATCHES_MOST = 4 };
bool model_piece_sum(const struct model *model, const struct model_piece *piece, const struct model_kept *kept,
                     uint32_t count, bool rounded, float *out);

struct evaluation {
    double loss_sum;
    uint64_t correct; /* samples whose largest output is the target's, of equal ones the first; of a regression 0 */
};

/* The same samples as they are evaluated: batch norm by its running statistics, nothing dropped. `place` and `ready`
 * are not used; n is not bounded by the workspace: it goes in pieces of MODEL_EVALUATE_SAMPLES. */
enum { MODEL_EVALUATE_SAMPLES = 16 };
struct evaluation model_evaluate(const struct model *model, const float *params, const struct model_batch *batch,
                                 struct workspace *workspace);

/* A digest over what this process computes of a model: gradients and evaluations of every size of block that steps of
 * `batch` samples in `blocks` blocks have over `train_samples` samples (the last step may be short), for fixed random
 * parameters and inputs, products over what is not zero, and exp and log. Takes as long as a few blocks: milliseconds,
 * and of resnet20 a tenth of a second. */
int model_canary(const struct model *model, uint32_t batch, uint32_t blocks, uint64_t train_samples,
                 uint8_t out[SHA256_SIZE], struct error *err);

/* ---- The model file: safetensors in canonical form, so that equal models are equal bytes ----
 *
 * 8 bytes: length of the header, little-endian; the header: compact JSON, members sorted by name, padded with spaces
 * to a multiple of 8; the data: float32, little-endian, in the order of the flat vector, then of each table its rows
 * that exist: their ids (int32, ascending) and values, as tensors "TABLE.ids" [count] and "TABLE.rows" [count][dim].
 * __metadata__ (all strings): classes, format ("thole.dev/model/v1"), kernel, model (the zoo's name, or the layers as
 * JSON), normalize (JSON: mean, scale, std), seed, shape (JSON), and only where there are any: categories and rows (of
 * the samples), loss (where it is not what such targets have by default) with delta, rowsSeed (of tables' rows that are
 * not in the file, where it is not the seed). Nothing about when, where, by whom or by how many it was trained. */

enum { MODEL_FILE_HEADER_MOST = 1 << 20 };

/* The rows of a table that exist. */
struct model_table {
    uint32_t count;
    uint32_t *ids; /* ascending, each once */
    float *values; /* [count][dim] */
};
void model_table_free(struct model_table *table); /* what model_file_read() made */

/* Writes params[parameters] and tables[table_count] to `path` by way of a temporary file beside it, fsync and rename.
 */
int model_file_write(const struct model *model, const struct plan *plan, const char *kernel, const float *params,
                     const struct model_table *tables, const char *path, uint8_t sha256[SHA256_SIZE], uint64_t *bytes,
                     struct error *err);

/* Reads the parameters and tables of `model` from a file that holds exactly its tensors; *metadata (NULL: not wanted)
 * gets __metadata__, to be freed. Every mistake in the file is a sentence naming it. */
int model_file_read(const struct model *model, const char *path, float *params, struct model_table *tables,
                    cJSON **metadata, struct error *err);

/* Builds the network that the file's metadata describes. */
int model_file_network(struct network **out, const char *path, struct error *err);

#endif
