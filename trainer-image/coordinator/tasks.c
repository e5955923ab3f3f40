/* Asynchronous, Hogwild: who is leased which task (common/plan/tasks.h).
 *
 * A task is open from its first lease until every shard has reported it applied. Nothing is ever taken back: where no
 * member that can be heard holds an open task it is leased once more, and the shards take each of its steps from
 * whoever comes first. Every member has a task that it computes and one that waits, so that it never does. */
#include "coordinator/state.h"

#include <math.h>
#include <string.h>

static struct open_task *open_task(struct coordinator *coordinator, uint64_t task)
{
    return &coordinator->open_tasks[task % TASKS_OPEN_MOST];
}

static uint64_t epoch_end(const struct coordinator *coordinator)
{
    return (coordinator->epochs_done + UINT64_C(1)) * coordinator->tasks.per_epoch;
}

static bool holds(const struct member *member, uint64_t task)
{
    for (uint32_t i = 0; i < member->task_count; i++)
        if (member->tasks[i] == task)
            return true;
    return false;
}

static void lease(struct coordinator *coordinator, uint32_t rank, uint64_t task, struct instant now)
{
    struct member *member = &coordinator->members[rank];
    member->tasks[member->task_count++] = task;
    member->took_part = true;
    open_task(coordinator, task)->leased = now;
    deal_note(member, tasks_steps(&coordinator->tasks, task), now);
    state_act(coordinator, (struct coordinator_action){.type = COORDINATOR_LEASE,
                                                       .rank = rank,
                                                       .count = (uint32_t)(task - coordinator->tasks_oldest),
                                                       .step = task});
}

/* The oldest open tasks first that nobody audible holds, then new ones. */
struct search {
    bool held[TASKS_OPEN_MOST]; /* of open tasks: by somebody who counts */
    uint64_t from;              /* no task before this one is free */
};

static void begin_search(const struct coordinator *coordinator, bool silent_too, struct search *search)
{
    memset(search, 0, sizeof *search);
    search->from = coordinator->tasks_oldest;
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++) {
        const struct member *member = &coordinator->members[rank];
        if (!member->present || (member->silent && !silent_too))
            continue;
        for (uint32_t i = 0; i < member->task_count; i++)
            search->held[member->tasks[i] % TASKS_OPEN_MOST] = true;
    }
}

static bool is_over(const struct coordinator *coordinator, uint64_t task)
{
    return coordinator->open_tasks[task % TASKS_OPEN_MOST].over;
}

/* The next task for the member, or UINT64_MAX. What it holds already, silently, it is not given again. */
static uint64_t find_task(struct coordinator *coordinator, const struct member *member, struct search *search)
{
    for (uint64_t task = search->from; task < coordinator->tasks_next; task++) {
        bool is_free = !is_over(coordinator, task) && !search->held[task % TASKS_OPEN_MOST];
        if (is_free && !holds(member, task))
            return task;
        if (!is_free && task == search->from)
            search->from++;
    }
    uint64_t end = epoch_end(coordinator);
    if (coordinator->tasks_next >= end || coordinator->tasks_next - coordinator->tasks_oldest >= TASKS_OPEN_MOST)
        return UINT64_MAX;
    *open_task(coordinator, coordinator->tasks_next) = (struct open_task){0};
    return coordinator->tasks_next++;
}

void tasks_lease(struct coordinator *coordinator, struct instant now)
{
    if (coordinator->phase != COORDINATOR_TRAINING)
        return;
    /* With nobody audible the silent ones are all there is, and may only be slow. */
    bool silent_too = deal_members(coordinator, false) == 0;
    struct search search;
    begin_search(coordinator, silent_too, &search);
    /* One each in turn, so that what is left at an epoch's end goes round. */
    for (uint32_t hand = 0; hand < TASK_HAND; hand++) {
        for (uint32_t rank = 0; rank < coordinator->ranks; rank++) {
            struct member *member = &coordinator->members[rank];
            if (!member->present || (member->silent && !silent_too) || member->task_count > hand)
                continue;
            uint64_t task = find_task(coordinator, member, &search);
            if (task == UINT64_MAX)
                continue;
            search.held[task % TASKS_OPEN_MOST] = true;
            lease(coordinator, rank, task, now);
        }
    }
}

static void drop_from_hands(struct coordinator *coordinator, uint64_t task)
{
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++) {
        struct member *member = &coordinator->members[rank];
        uint32_t kept = 0;
        for (uint32_t i = 0; i < member->task_count; i++)
            if (member->tasks[i] != task)
                member->tasks[kept++] = member->tasks[i];
        member->task_count = kept;
    }
}

void tasks_begin_epoch(struct coordinator *coordinator, struct instant now)
{
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++)
        coordinator->members[rank].took_part = false;
    tasks_lease(coordinator, now);
}

static uint32_t all_shards(const struct coordinator *coordinator)
{
    return (UINT32_C(1) << coordinator->plan->shards) - 1;
}

int tasks_take_done(struct coordinator *coordinator, uint32_t shard, uint64_t task, double loss, struct instant now,
                    struct error *err)
{
    struct open_task *open = open_task(coordinator, task);
    if (task < coordinator->tasks_oldest || task >= coordinator->tasks_next || (open->shards >> shard & 1) != 0)
        return error_set(err, "shard %u reports task %llu, and open are %llu to %llu, each once", shard,
                         (unsigned long long)task, (unsigned long long)coordinator->tasks_oldest,
                         (unsigned long long)coordinator->tasks_next);
    open->shards |= UINT32_C(1) << shard;
    uint32_t steps = tasks_steps(&coordinator->tasks, task);
    if (shard == 0) {
        coordinator->epoch_loss += loss;
        coordinator->steps_done += steps;
        state_note_time(coordinator, instant_since(now, open->leased) / steps);
    }
    if (open->shards != all_shards(coordinator))
        return 0;
    open->over = true;
    drop_from_hands(coordinator, task);
    while (coordinator->tasks_oldest < coordinator->tasks_next && is_over(coordinator, coordinator->tasks_oldest))
        coordinator->tasks_oldest++;
    return 0;
}

/* Every step of an epoch has been applied once, everywhere: that many versions there are. */
bool tasks_epoch_is_over(struct coordinator *coordinator)
{
    if (coordinator->tasks_oldest < epoch_end(coordinator))
        return false;
    coordinator->next = (coordinator->epochs_done + UINT64_C(1)) * coordinator->schedule.steps_per_epoch;
    coordinator->oldest = coordinator->next;
    coordinator->parallelism = 0;
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++)
        coordinator->parallelism += coordinator->members[rank].present && coordinator->members[rank].took_part;
    return true;
}
