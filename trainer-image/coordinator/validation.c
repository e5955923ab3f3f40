/* One validation: its blocks go out by the handful, so that fast members take more of them, and come back as sums. */
#include "coordinator/state.h"

#include <math.h>
#include <string.h>

void validation_begin(struct coordinator *coordinator)
{
    struct validation *validation = &coordinator->validation;
    memset(validation->blocks, 0, validation->count * sizeof *validation->blocks);
    validation->done = 0;
    validation->free_from = 0;
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++)
        coordinator->members[rank].hand = 0;
}

/* What a member holds may be dealt to others. */
void validation_release(struct coordinator *coordinator, uint32_t rank)
{
    struct validation *validation = &coordinator->validation;
    if (coordinator->phase != COORDINATOR_VALIDATING || coordinator->members[rank].hand == 0)
        return;
    coordinator->members[rank].hand = 0;
    for (uint32_t i = validation->count; i-- > 0;) {
        struct validation_block *block = &validation->blocks[i];
        if (block->state != VALIDATION_DEALT || block->holder != rank)
            continue;
        block->state = VALIDATION_FREE;
        validation->free_from = i < validation->free_from ? i : validation->free_from;
    }
}

static void deal_hand(struct coordinator *coordinator, uint32_t rank, struct instant now)
{
    struct validation *validation = &coordinator->validation;
    struct member *member = &coordinator->members[rank];
    uint32_t i = validation->free_from;
    while (member->hand < VALIDATION_HAND && i < validation->count) {
        if (validation->blocks[i].state != VALIDATION_FREE) {
            i++;
            continue;
        }
        uint32_t first = i, count = 0;
        while (i < validation->count && member->hand < VALIDATION_HAND &&
               validation->blocks[i].state == VALIDATION_FREE) {
            validation->blocks[i].state = VALIDATION_DEALT;
            validation->blocks[i].holder = rank;
            member->hand++;
            count++;
            i++;
        }
        deal_note(member, count, now);
        state_act(
            coordinator,
            (struct coordinator_action){
                .type = COORDINATOR_VALIDATE, .rank = rank, .step = coordinator->next, .first = first, .count = count});
    }
    while (validation->free_from < validation->count &&
           validation->blocks[validation->free_from].state != VALIDATION_FREE)
        validation->free_from++;
}

void validation_deal(struct coordinator *coordinator, struct instant now)
{
    bool silent_too = deal_members(coordinator, false) == 0;
    for (uint32_t rank = 0; rank < coordinator->ranks && !silent_too; rank++)
        if (coordinator->members[rank].present && coordinator->members[rank].silent)
            validation_release(coordinator, rank);
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++) {
        const struct member *member = &coordinator->members[rank];
        if (member->present && (silent_too || !member->silent))
            deal_hand(coordinator, rank, now);
    }
}

int validation_take(struct coordinator *coordinator, uint32_t index, uint32_t correct, double loss, struct error *err)
{
    struct validation *validation = &coordinator->validation;
    if (index >= validation->count)
        return error_set(err, "there is no validation block %u: they are 0 to %u", index, validation->count - 1);
    if (correct > validation_block_samples(coordinator->test_samples, index))
        return error_set(err, "validation block %u cannot have %u correct answers", index, correct);
    struct validation_block *block = &validation->blocks[index];
    if (block->state == VALIDATION_DONE)
        return 0;
    if (block->state == VALIDATION_DEALT)
        coordinator->members[block->holder].hand--;
    *block = (struct validation_block){.state = VALIDATION_DONE, .correct = correct, .loss = loss};
    validation->done++;
    return 0;
}

/* Mean loss and percent of correct answers; added in the order of blocks, so that they do not depend on who was fast.
 */
void validation_sum(const struct coordinator *coordinator, double *loss, double *accuracy)
{
    double losses = 0;
    uint64_t correct = 0;
    for (uint32_t i = 0; i < coordinator->validation.count; i++) {
        losses += coordinator->validation.blocks[i].loss;
        correct += coordinator->validation.blocks[i].correct;
    }
    *loss = losses / (double)coordinator->test_samples;
    /* Of values nothing is right or wrong. */
    bool of_classes = coordinator->plan->dataset.classes > 0;
    *accuracy = of_classes ? 100.0 * (double)correct / (double)coordinator->test_samples : (double)NAN;
}
