/* KAverage: rounds, which are dealt as steps are, with shares for blocks.
 *
 * A round takes the next steps of its epoch, `local_steps` for each member that can be heard when it opens (0, or fewer
 * left: all that are left), in as many contiguous shares. Whoever computes a share begins with the round's parameters
 * and an optimizer that has seen nothing, so a lost member's share comes to the same bits from another member: a
 * round's average is of all its shares, in their order, whoever brought them, and depends on their number alone. */
#include "coordinator/state.h"

/* Who starts together should share the first round: an epoch may be one. */
static const int64_t JOINING = 1 * SECONDS;

bool rounds_are_dealt(const struct coordinator *coordinator)
{
    return coordinator->plan->sync == PLAN_KAVERAGE;
}

bool rounds_may_start(const struct coordinator *coordinator, struct instant now)
{
    return !rounds_are_dealt(coordinator) || instant_since(now, coordinator->joined) >= JOINING;
}

void rounds_open(struct coordinator *coordinator, struct open_step *round)
{
    uint64_t left = coordinator->schedule.steps_per_epoch - coordinator->epoch_dealt;
    uint64_t shares = deal_members(coordinator, false);
    shares = shares < 1 ? 1 : shares;
    shares = shares > PLAN_BLOCKS_MOST ? PLAN_BLOCKS_MOST : shares;
    shares = shares > left ? left : shares;
    uint64_t most = coordinator->plan->local_steps == 0 ? left : shares * coordinator->plan->local_steps;
    round->shares = (uint32_t)shares;
    round->steps = most < left ? most : left;
    round->first = coordinator->epochs_done * coordinator->schedule.steps_per_epoch + coordinator->epoch_dealt;
    coordinator->epoch_dealt += round->steps;
}

void rounds_deal(struct coordinator *coordinator, uint32_t rank, uint64_t number, uint32_t share, struct instant now)
{
    const struct open_step *round = &coordinator->open[number % OPEN_STEPS];
    uint64_t begin = share * round->steps / round->shares;
    uint64_t end = (share + UINT64_C(1)) * round->steps / round->shares;
    deal_note(&coordinator->members[rank], (uint32_t)(end - begin), now);
    state_act(coordinator, (struct coordinator_action){.type = COORDINATOR_SHARE,
                                                       .rank = rank,
                                                       .step = number,
                                                       .first = share,
                                                       .count = (uint32_t)(end - begin),
                                                       .begin = round->first + begin,
                                                       .shares = round->shares});
}

bool rounds_epoch_is_dealt(const struct coordinator *coordinator)
{
    return coordinator->epoch_dealt == coordinator->schedule.steps_per_epoch;
}
