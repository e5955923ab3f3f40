/* plan — what one job is to compute, fixed at its start.
 *
 * The operator (or `thole-trainer local`) compiles a TrainJob and its Dataset into plan.json; every process of the
 * job reads the same bytes and derives from them, and from nothing else, what it computes. What may change while a
 * job runs (numbers of workers) is therefore not in it. `digest` names the plan in every handshake, so two processes
 * that would compute different things never exchange a number.
 * May call common; knows nothing of Kubernetes.
 */
#ifndef THOLE_COMMON_PLAN_PLAN_H
#define THOLE_COMMON_PLAN_PLAN_H

#include "common/cleanup.h"
#include "common/crypto.h"
#include "common/error.h"
#include "common/json.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    PLAN_VERSION = 1,
    PLAN_BLOCKS_MOST = 64,
    PLAN_SHARDS_MOST = 16,
    PLAN_CHANNELS_MOST = 64,
    PLAN_BYTES_MOST = 512 * 1024, /* a Secret holds 1 MiB */
};

enum plan_model { PLAN_MODEL_MLP, PLAN_MODEL_LENET };

struct plan_split {
    char *features; /* paths relative to the data set's root, never absolute, never with ".." */
    char *labels;
};

struct plan {
    char *job_namespace, *job_name, *job_uid;

    enum plan_model model;

    struct {
        char *name;
        struct plan_split train, test;
        bool has_shape;    /* else taken from the files */
        uint32_t shape[3]; /* C, H, W */
        uint32_t classes;
        double scale;      /* x = (byte · scale − mean[c]) / std[c] */
        uint32_t channels; /* entries of mean and std: 1, or one a channel */
        double mean[PLAN_CHANNELS_MOST];
        double std[PLAN_CHANNELS_MOST];
    } dataset;

    struct {
        uint32_t epochs;
        uint32_t batch_size;                          /* of the whole step, over all workers */
        double learning_rate, momentum, weight_decay; /* SGD */
        uint64_t seed;
        uint32_t validate_every_epochs; /* 0: only after the last */
        double goal_accuracy;           /* percent; 0: off */
    } training;

    uint32_t blocks; /* of a synchronous step */
    uint32_t shards;

    uint8_t digest[SHA256_SIZE]; /* of plan.json's bytes, without the job's identity: see plan_parse */
};

/* Compiles `trainjob` and `dataset` (whole objects, as the API server returns them, defaults filled in) into the
 * text of plan.json, to be freed: compact, members in a fixed order, so that equal inputs give equal bytes.
 * NULL with *err naming the field (as users write it, "spec.model.zoo") and the mend. */
char *plan_compile(const cJSON *trainjob, const cJSON *dataset, struct error *err);

/* Reads plan.json. Every number is checked against its bounds here, so that users of `struct plan` need not.
 * The digest covers what decides the computation (everything but "job"): the same job run elsewhere has the same. */
int plan_parse(struct plan **out, const char *text, size_t length, struct error *err);

void plan_free(struct plan *plan);
CLEANUP_DEFINE(cleanup_plan_pointer, struct plan, plan_free)
#define cleanup_plan CLEANUP(cleanup_plan_pointer)

const char *plan_model_name(enum plan_model model); /* "mlp", "lenet": the names of spec.model.zoo */

#endif
