#include "worker/validate.h"

#include <stdlib.h>

/* Samples fetched at a time, so that they stay in the cache; it decides the order in which losses are added. */
enum { PIECE = 4 * MODEL_EVALUATE_SAMPLES };

struct validator {
    const struct model *model;
    const struct dataset *test;
    struct workspace *workspace;
    float *x;
    float targets[PIECE];
};

int validator_new(struct validator **out, const struct model *model, const struct dataset *test, struct error *err)
{
    cleanup_validator struct validator *validator = calloc(1, sizeof *validator);
    if (validator == NULL)
        return error_set(err, "make room for validation: no memory");
    validator->model = model;
    validator->test = test;
    validator->x = vector_new(PIECE * model_sample_size(model));
    if (validator->x == NULL)
        return error_set(err, "make room for validation: no memory");
    if (workspace_new(&validator->workspace, model, MODEL_EVALUATE_SAMPLES, err) < 0)
        return -1;
    *out = move(validator);
    return 0;
}

void validator_free(struct validator *validator)
{
    if (validator == NULL)
        return;
    workspace_free(validator->workspace);
    free(validator->x);
    free(validator);
}

uint32_t validator_blocks(const struct validator *validator)
{
    return validation_blocks(dataset_samples(validator->test));
}

struct evaluation validator_run(struct validator *validator, const float *params, uint32_t block,
                                const struct model_rows *rows)
{
    uint64_t first = (uint64_t)block * VALIDATION_BLOCK;
    uint64_t end = first + validation_block_samples(dataset_samples(validator->test), block);
    struct evaluation sum = {0};
    while (first < end) {
        uint32_t samples = end - first < PIECE ? (uint32_t)(end - first) : PIECE;
        dataset_fetch(validator->test, NULL, first, samples, validator->x, validator->targets);
        const struct model_batch batch = {.n = samples, .x = validator->x, .targets = validator->targets, .rows = rows};
        struct evaluation piece = model_evaluate(validator->model, params, &batch, validator->workspace);
        sum.loss_sum += piece.loss_sum;
        sum.correct += piece.correct;
        first += samples;
    }
    return sum;
}
