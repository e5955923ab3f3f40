/* Who computes what, and who is not waited for. */
#include "coordinator/state.h"

static const int64_t SILENCE_LEAST = 2 * SECONDS;
static const int64_t OWN_PAUSE = 1 * SECONDS;

uint32_t deal_blocks(const struct coordinator *coordinator, uint64_t step)
{
    return rounds_are_dealt(coordinator) ? coordinator->open[step % OPEN_STEPS].shares : coordinator->plan->blocks;
}

static uint64_t all_blocks(const struct coordinator *coordinator, uint64_t step)
{
    uint32_t blocks = deal_blocks(coordinator, step);
    return blocks == 64 ? UINT64_MAX : (UINT64_C(1) << blocks) - 1;
}

static uint64_t held_blocks(const struct coordinator *coordinator, uint64_t step, bool silent_too)
{
    uint64_t held = 0;
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++) {
        const struct member *member = &coordinator->members[rank];
        if (member->present && (silent_too || !member->silent))
            held |= member->holds[step % OPEN_STEPS];
    }
    return held;
}

uint32_t deal_members(const struct coordinator *coordinator, bool silent_too)
{
    uint32_t count = 0;
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++)
        count += coordinator->members[rank].present && (silent_too || !coordinator->members[rank].silent);
    return count;
}

/* Something is put into a member's hands: if it had nothing, its time to get on begins now. */
void deal_note(struct member *member, uint32_t count, struct instant now)
{
    if (member->dealt == member->settled)
        member->progress = now;
    member->dealt += count;
}

static void deal_run(struct coordinator *coordinator, uint32_t rank, uint64_t step, uint32_t first, uint32_t count,
                     struct instant now)
{
    struct member *member = &coordinator->members[rank];
    uint64_t *holds = &member->holds[step % OPEN_STEPS];
    if (*holds == 0)
        coordinator->open[step % OPEN_STEPS].parallelism++;
    for (uint32_t block = first; block < first + count; block++)
        *holds |= UINT64_C(1) << block;
    if (rounds_are_dealt(coordinator)) {
        for (uint32_t share = first; share < first + count; share++)
            rounds_deal(coordinator, rank, step, share, now);
        return;
    }
    deal_note(member, count, now);
    state_act(coordinator, (struct coordinator_action){
                               .type = COORDINATOR_DEAL, .rank = rank, .step = step, .first = first, .count = count});
}

/* Deals member number `index` of `members` its part of the `total` blocks in `missing`, as few runs. */
static void deal_part(struct coordinator *coordinator, uint32_t rank, uint64_t step, uint64_t missing, uint32_t index,
                      uint32_t members, struct instant now)
{
    uint32_t total = (uint32_t)__builtin_popcountll(missing);
    uint32_t begin = index * total / members, end = (index + 1) * total / members;
    uint32_t seen = 0, first = 0, count = 0;
    for (uint32_t block = 0; block < deal_blocks(coordinator, step); block++) {
        if ((missing >> block & 1) == 0)
            continue;
        uint32_t place = seen++;
        if (place < begin || place >= end)
            continue;
        if (count > 0 && first + count != block) {
            deal_run(coordinator, rank, step, first, count, now);
            count = 0;
        }
        if (count == 0)
            first = block;
        count++;
    }
    if (count > 0)
        deal_run(coordinator, rank, step, first, count, now);
}

/* In rank order, contiguous, so that a member's blocks make few tree nodes; more members than blocks: the last idle. */
static void spread(struct coordinator *coordinator, uint64_t step, uint64_t missing, bool silent_too,
                   struct instant now)
{
    uint32_t members = deal_members(coordinator, silent_too);
    uint32_t total = (uint32_t)__builtin_popcountll(missing);
    if (members > total)
        members = total;
    for (uint32_t rank = 0, index = 0; rank < coordinator->ranks && index < members; rank++) {
        const struct member *member = &coordinator->members[rank];
        if (member->present && (silent_too || !member->silent))
            deal_part(coordinator, rank, step, missing, index++, members, now);
    }
}

static void deal_missing_of(struct coordinator *coordinator, uint64_t step, struct instant now)
{
    /* With nobody audible the silent ones are all there is, and may only be slow. */
    bool silent_too = deal_members(coordinator, false) == 0;
    uint64_t missing = all_blocks(coordinator, step) & ~held_blocks(coordinator, step, silent_too);
    if (missing != 0)
        spread(coordinator, step, missing, silent_too, now);
}

void deal_missing(struct coordinator *coordinator, struct instant now)
{
    if (tasks_are_leased(coordinator->plan))
        tasks_lease(coordinator, now);
    for (uint64_t step = coordinator->oldest; step < coordinator->next; step++)
        deal_missing_of(coordinator, step, now);
    if (coordinator->phase == COORDINATOR_VALIDATING)
        validation_deal(coordinator, now);
}

void deal_open_next(struct coordinator *coordinator, struct instant now)
{
    uint64_t step = coordinator->next++;
    coordinator->open[step % OPEN_STEPS] = (struct open_step){.opened = now};
    if (rounds_are_dealt(coordinator))
        rounds_open(coordinator, &coordinator->open[step % OPEN_STEPS]);
    deal_missing_of(coordinator, step, now);
}

/* Closes the steps that all shards have done. */
void deal_close_done(struct coordinator *coordinator)
{
    while (coordinator->oldest < coordinator->next) {
        for (uint32_t shard = 0; shard < coordinator->plan->shards; shard++)
            if (coordinator->shard_done[shard] <= coordinator->oldest)
                return;
        size_t slot = coordinator->oldest % OPEN_STEPS;
        for (uint32_t rank = 0; rank < coordinator->ranks; rank++)
            coordinator->members[rank].holds[slot] = 0;
        coordinator->parallelism = coordinator->open[slot].parallelism;
        coordinator->oldest++;
    }
}

static bool is_silent(const struct member *member, struct instant now, int64_t limit)
{
    if (instant_since(now, member->heard) > limit)
        return true;
    return member->dealt > member->settled && instant_since(now, member->progress) > limit;
}

static int64_t silence_limit(const struct coordinator *coordinator)
{
    int64_t slow = 4 * progress_median_step(coordinator);
    return slow > SILENCE_LEAST ? slow : SILENCE_LEAST;
}

/* A coordinator that was itself stopped for a while has heard nobody, and nobody is to blame. */
static void forgive_own_pause(struct coordinator *coordinator, struct instant now)
{
    int64_t pause = instant_since(now, coordinator->ticked);
    coordinator->ticked = now;
    if (pause <= OWN_PAUSE)
        return;
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++) {
        coordinator->members[rank].heard.nanoseconds += pause;
        coordinator->members[rank].progress.nanoseconds += pause;
    }
}

void deal_look_for_silence(struct coordinator *coordinator, struct instant now)
{
    forgive_own_pause(coordinator, now);
    int64_t limit = silence_limit(coordinator);
    bool changed = false;
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++) {
        struct member *member = &coordinator->members[rank];
        bool silent = member->present && is_silent(member, now, limit);
        changed = changed || silent != member->silent;
        member->silent = silent;
    }
    if (changed)
        deal_missing(coordinator, now);
}

/* Was silent, and has just spoken: as good as any again, if it also gets on. */
void deal_hear(struct coordinator *coordinator, struct member *member, struct instant now)
{
    member->heard = now;
    if (!member->silent || is_silent(member, now, silence_limit(coordinator)))
        return;
    member->silent = false;
    deal_missing(coordinator, now);
}
