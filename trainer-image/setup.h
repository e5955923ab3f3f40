/* setup — what a plan and the files beside it make together: samples, network, and where its parameters start. Every
 * role begins here, and `local` does before it starts any, so that what does not fit is said once and at once.
 * May call data, model and common.
 */
#ifndef THOLE_TRAINER_SETUP_H
#define THOLE_TRAINER_SETUP_H

#include "common/plan/plan.h"
#include "data/data.h"
#include "model/model.h"

/* A job's files: what the headers say of the samples below `data`, and for plan.model.start the model file `start`. */
struct setup {
    struct dataset_description train, test;
    struct network *network;
};

/* -1 with a sentence that names the layer and both shapes where the network does not fit the samples. */
int setup_read(struct setup *out, const struct plan *plan, const char *data, const char *start, struct error *err);
void setup_free(struct setup *setup);
#define cleanup_setup CLEANUP(setup_free)

#endif
