/* validate — one block of the test set; private to this folder. */
#ifndef THOLE_WORKER_VALIDATE_H
#define THOLE_WORKER_VALIDATE_H

#include "common/plan/schedule.h"
#include "data/data.h"
#include "model/model.h"

struct validator;

/* All borrowed. */
int validator_new(struct validator **out, const struct model *model, const struct dataset *test, struct error *err);
void validator_free(struct validator *validator);
CLEANUP_DEFINE(cleanup_validator_pointer, struct validator, validator_free)
#define cleanup_validator CLEANUP(cleanup_validator_pointer)

uint32_t validator_blocks(const struct validator *validator);
/* `rows`: of each table, those of the block's samples at least; NULL where the model has none. */
struct evaluation validator_run(struct validator *validator, const float *params, uint32_t block,
                                const struct model_rows *rows);

#endif
