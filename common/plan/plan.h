/* plan — what one job is to compute, fixed at its start.
 *
 * The operator (or `thole-trainer local`) compiles a TrainJob and its Dataset into plan.json; every process of the
 * job reads the same bytes and derives from them, and from nothing else, what it computes. What may change while a
 * job runs (numbers of workers) is therefore not in it. `digest` names the plan in every handshake, so two processes
 * that would compute different things never exchange a number.
 * May call network and common; knows nothing of Kubernetes.
 */
#ifndef THOLE_COMMON_PLAN_PLAN_H
#define THOLE_COMMON_PLAN_PLAN_H

#include "common/cleanup.h"
#include "common/crypto.h"
#include "common/error.h"
#include "common/json.h"
#include "common/network/network.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    PLAN_VERSION = 1,
    PLAN_BLOCKS_MOST = 64,
    PLAN_SHARDS_MOST = 16,
    PLAN_CHANNELS_MOST = 64,
    PLAN_BYTES_MOST = 512 * 1024, /* a Secret holds 1 MiB */
};

/* One of zoo, layers and start is set. */
struct plan_model {
    char *zoo;
    char *layers; /* spec.model.layers, as network_layers_text() writes them */
    char *start;  /* the model and its first parameters are a file's: "file/dir/model.safetensors", "trainjob/NAME" */
};

enum plan_format { PLAN_FORMAT_IDX, PLAN_FORMAT_NPY, PLAN_FORMAT_CSV, PLAN_FORMAT_LIBSVM };

struct plan_split {
    char *features; /* NULL: no test files. Paths relative to the data set's root, never absolute, never with ".." */
    char *labels;   /* NULL where the features' file holds them: CSV and LibSVM */
};

enum {
    PLAN_CATEGORICAL_MOST = 256, /* categorical columns of a CSV */
    PLAN_VOCABULARY_MOST = 1024, /* words of one column */
    PLAN_COLUMNS_MOST = 1 << 20, /* of a vector of features */
};

/* A column of categories: becomes an id in [0, rows of the column), by its place in the vocabulary (0: any other word)
 * or by a hash of its text. Ids of several columns do not overlap: a column's begin where the one before ends. */
struct plan_categorical {
    char *name; /* in the header; without one, its number from 0 as text */
    char **vocabulary;
    uint32_t words;   /* 0: hashed … */
    uint32_t buckets; /* … into so many */
};

struct plan_csv {
    bool header;
    char *label_column; /* its name, or its number from 0 as text */
    struct plan_categorical *categorical;
    uint32_t categorical_count;
    char *missing; /* what else than an empty field stands for a missing value, such as "NA"; NULL: nothing else */
};

enum plan_optimizer_type {
    PLAN_SGD, /* with momentum, Nesterov's too */
    PLAN_ADAGRAD,
    PLAN_RMSPROP,
    PLAN_ADAM,
    PLAN_ADAMW,
    PLAN_AMSGRAD,
    PLAN_LAMB,
};

enum plan_schedule_type {
    PLAN_SCHEDULE_CONSTANT,
    PLAN_SCHEDULE_STEP,       /* times `factor` after every `every_epochs` */
    PLAN_SCHEDULE_COSINE,     /* from 1 to `final_factor` over the whole job, half a cosine */
    PLAN_SCHEDULE_POLYNOMIAL, /* from 1 to `final_factor` over the whole job, (1 − progress)^power */
};

/* Members that a type does not use are zero. */
struct plan_optimizer {
    enum plan_optimizer_type type;
    double learning_rate, weight_decay;
    double momentum; /* SGD, RMSProp */
    bool nesterov;   /* SGD */
    double decay;    /* RMSProp: PyTorch's alpha */
    double beta1, beta2;
    double epsilon;
    double clip_value; /* each element of the mean gradient to ±this; 0: off */
    double clip_norm;  /* the mean gradient's global norm to at most this; 0: off */
    struct {
        enum plan_schedule_type type;
        double factor, final_factor, power;
        uint32_t every_epochs;
        uint64_t
            warmup_steps; /* before any type: the rate grows linearly from 0 to its full value, then the type begins */
    } schedule;
};

enum plan_sync { PLAN_SYNCHRONOUS, PLAN_ASYNCHRONOUS, PLAN_HOGWILD, PLAN_KAVERAGE };
enum plan_wire { PLAN_FLOAT32, PLAN_BFLOAT16 };

struct plan {
    char *job_namespace, *job_name, *job_uid;

    struct plan_model model;

    struct {
        char *name;
        struct plan_split train, test;
        bool has_shape;    /* else taken from the files */
        uint32_t shape[3]; /* C, H, W */
        uint32_t classes;  /* 0: regression */
        enum plan_format format;
        struct plan_csv csv;
        uint32_t features; /* LibSVM: how many; else 0 */
        double scale;      /* x = (byte · scale − mean[c]) / std[c] */
        uint32_t channels; /* entries of mean and std: 1, or one a channel */
        double mean[PLAN_CHANNELS_MOST];
        double std[PLAN_CHANNELS_MOST];
    } dataset;

    struct {
        uint32_t epochs;
        uint32_t batch_size; /* Synchronous: of the whole step, over all workers; else of each worker's */
        struct plan_optimizer optimizer;
        bool has_loss; /* else the network's own choice: see struct network_spec */
        enum loss_type loss;
        double huber_delta;
        uint64_t seed;
        uint32_t validate_every_epochs; /* 0: only after the last */
        double goal_accuracy;           /* percent; 0: off */
        double validation_split;        /* without test files: this part of the training samples, from the end */
        bool flip_horizontal;           /* augmentation of images: by a coin for each sample and epoch */
        uint32_t crop_padding;          /* … shifted by −padding … +padding, zeros around; 0: off */
    } training;

    enum plan_sync sync;
    enum plan_wire wire;
    uint32_t blocks;        /* of a synchronous step; other types: 1 */
    uint32_t max_staleness; /* Asynchronous: a push of older parameters than this is computed again */
    uint32_t local_steps;   /* KAverage: between averages; 0: one average an epoch */
    uint32_t shards;

    uint8_t digest[SHA256_SIZE]; /* of plan.json's bytes, without the job's identity: see plan_parse, plan_begin_from */
};

/* Compiles `trainjob` and `dataset` (whole objects, as the API server returns them, defaults filled in) into the
 * text of plan.json, to be freed: compact, members in a fixed order, so that equal inputs give equal bytes.
 * NULL with *err naming the field (as users write it, "spec.model.zoo") and the mend. */
char *plan_compile(const cJSON *trainjob, const cJSON *dataset, struct error *err);

/* Reads plan.json. Every number is checked against its bounds here, so that users of `struct plan` need not.
 * The digest covers what decides the computation (everything but "job"): the same job run elsewhere has the same. */
int plan_parse(struct plan **out, const char *text, size_t length, struct error *err);

/* For model.start, once it is known what is there: the digest is by what the file holds, from now on, and no more by
 * where it was found. -1 without memory. */
int plan_begin_from(struct plan *plan, const uint8_t file_sha256[SHA256_SIZE], struct error *err);

void plan_free(struct plan *plan);
CLEANUP_DEFINE(cleanup_plan_pointer, struct plan, plan_free)
#define cleanup_plan CLEANUP(cleanup_plan_pointer)

/* "lenet", "layers", or where the model comes from: for people. */
const char *plan_model_name(const struct plan *plan);

const char *plan_sync_name(enum plan_sync sync); /* "KAverage" */

/* Ids of a column, and of all columns of categories. */
uint32_t plan_categorical_rows(const struct plan_categorical *categorical);
uint32_t plan_category_rows(const struct plan *plan);

/* What the plan itself says of its samples; false where only the files tell their shape, which is zero then. */
bool plan_sample(const struct plan *plan, struct network_sample *out);

/* Can a model with embedding tables be trained so? Not by averages of whole models. The compiler asks where it can tell
 * that there are any; who knows the network asks then. */
int plan_check_tables(const struct plan *plan, struct error *err);

/* What cannot be said without the network: tables, and shards that would have nothing. */
int plan_check_network(const struct plan *plan, const struct network *network, struct error *err);

/* The network of the plan's zoo model or layers, for such samples. With model.start there is none of its own: it is the
 * file's. */
int plan_network(struct network **out, const struct plan *plan, const struct network_sample *sample, struct error *err);

#endif
