/* bed — a folder with a small data set, its Dataset and a TrainJob, for the tests of whole jobs. */
#ifndef THOLE_TEST_BED_H
#define THOLE_TEST_BED_H

#include "common/crypto.h"
#include "test/process.h"

#include <stdint.h>

struct bed {
    char folder[64], dataset[128], job[128], output[128];
};

void bed_make(struct bed *bed);
void bed_free(struct bed *bed);
void bed_put(const struct bed *bed, const char *name, const void *data, size_t length);
/* Images of 12×12 in four classes that are easily told apart. */
void bed_put_samples(const struct bed *bed, const char *images, const char *labels, uint32_t samples);
void bed_put_dataset(const struct bed *bed, const char *features, uint32_t classes);
void bed_put_job(const struct bed *bed, const char *zoo, uint32_t epochs, uint32_t batch, const char *rate);
/* The same with spec.model as it stands in YAML. */
void bed_put_model_job(const struct bed *bed, const char *model, uint32_t epochs, uint32_t batch, const char *rate);
/* `thole-trainer local` with them. */
void bed_start(struct process *process, const struct bed *bed, uint32_t workers, uint32_t shards);
void bed_digest(const struct bed *bed, char out[SHA256_HEX_SIZE]); /* of the model that is in `output` */
/* Runs the job to its end, which must be a good one. */
void bed_train(const struct bed *bed, uint32_t workers, uint32_t shards, char digest[SHA256_HEX_SIZE]);

enum { BED_SIDE = 12, BED_TRAIN = 301, BED_TEST = 120 };

#endif
