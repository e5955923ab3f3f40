/* What people are told while it runs. */
#include "coordinator/state.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_times(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

int64_t progress_median_step(const struct coordinator *coordinator)
{
    size_t count = coordinator->steps_timed < STEP_TIMES ? (size_t)coordinator->steps_timed : STEP_TIMES;
    if (count == 0)
        return 0;
    int64_t sorted[STEP_TIMES];
    memcpy(sorted, coordinator->step_times, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_times);
    return sorted[count / 2];
}

struct text {
    char *out;
    size_t size, length;
};

static void say(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text->out + text->length, text->size - text->length, format, arguments);
    va_end(arguments);
    if (length > 0)
        text->length += (size_t)length;
    if (text->length >= text->size)
        text->length = text->size - 1;
}

static void say_what_is_waited_for(const struct coordinator *coordinator, struct text *text)
{
    const char *before = "Waits for parameter server";
    for (uint32_t shard = 0; shard < coordinator->plan->shards; shard++) {
        if (coordinator->registered[shard])
            continue;
        say(text, "%s %u", before, shard);
        before = ",";
    }
    if (text->length == 0 && deal_members(coordinator, true) > 0)
        say(text, "Waits a moment for more workers to share the first round");
    else if (text->length == 0)
        say(text, "Waits for a worker");
}

static void say_who_is_left_out(const struct coordinator *coordinator, uint32_t idle, struct instant now,
                                struct text *text)
{
    if (idle > 0 && tasks_are_leased(coordinator->plan))
        say(text, "; %u more idle, as an epoch has %llu batches (spec.training.batchSize)", idle,
            (unsigned long long)coordinator->schedule.steps_per_epoch);
    else if (idle > 0 && rounds_are_dealt(coordinator))
        say(text, "; %u more idle until the next round", idle);
    else if (idle > 0)
        say(text, "; %u more idle, as a step has %u blocks (spec.sync.synchronous.blocks)", idle,
            coordinator->plan->blocks);
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++) {
        const struct member *member = &coordinator->members[rank];
        if (!member->present || !member->silent)
            continue;
        int64_t since = instant_since(now, member->heard);
        if (since > 1 * SECONDS)
            say(text, "; worker %s has not been heard for %lld s, others do its work", member->name,
                (long long)(since / SECONDS));
        else
            say(text, "; worker %s has not got on for %lld s, others do its work", member->name,
                (long long)(instant_since(now, member->progress) / SECONDS));
        return;
    }
}

static void say_what_is_done(const struct coordinator *coordinator, const struct report_progress *progress,
                             struct instant now, struct text *text)
{
    switch (coordinator->phase) {
    case COORDINATOR_WAITING:
        say_what_is_waited_for(coordinator, text);
        return;
    case COORDINATOR_SAVING:
        say(text, "Writes the model");
        return;
    case COORDINATOR_OVER:
        say(text, "%s", coordinator->result.message);
        return;
    case COORDINATOR_TRAINING:
    case COORDINATOR_VALIDATING:
        break;
    }
    const char *verb = coordinator->phase == COORDINATOR_TRAINING ? "Trains" : "Validates";
    if (progress->workers == 0) {
        say(text, "Waits for a worker in epoch %u of %u, as all are gone", progress->epoch,
            coordinator->plan->training.epochs);
        return;
    }
    uint32_t busy = progress->workers - progress->idle_workers;
    say(text, "%s epoch %u of %u with %u worker%s", verb, progress->epoch, coordinator->plan->training.epochs, busy,
        busy == 1 ? "" : "s");
    say_who_is_left_out(coordinator, progress->idle_workers, now, text);
}

static bool counts_steps(const struct coordinator *coordinator)
{
    return coordinator->plan->sync != PLAN_SYNCHRONOUS;
}

static uint64_t steps_applied(const struct coordinator *coordinator)
{
    return counts_steps(coordinator) ? coordinator->steps_done : coordinator->shard_done[0];
}

/* How many members have something to do at a time. */
static uint64_t busy_most(const struct coordinator *coordinator)
{
    if (tasks_are_leased(coordinator->plan))
        return coordinator->tasks.per_epoch;
    if (!rounds_are_dealt(coordinator))
        return coordinator->plan->blocks;
    /* Who joins in the middle of a round has a share of the next. */
    bool runs = coordinator->phase == COORDINATOR_TRAINING && coordinator->next > 0;
    return runs ? deal_blocks(coordinator, coordinator->next - 1) : COORDINATOR_MEMBERS_MOST;
}

struct report_sync progress_sync(const struct coordinator *coordinator)
{
    struct report_sync sync = coordinator->sync;
    if (rounds_are_dealt(coordinator)) {
        sync.known = true;
        sync.steps = coordinator->steps_done;
    }
    return sync;
}

static double loss_so_far(const struct coordinator *coordinator)
{
    uint64_t steps = steps_applied(coordinator) - coordinator->epochs_done * coordinator->schedule.steps_per_epoch;
    if (steps > 0) {
        uint64_t samples = steps * coordinator->schedule.batch;
        if (samples > coordinator->schedule.samples)
            samples = coordinator->schedule.samples;
        return coordinator->epoch_loss / (double)samples;
    }
    if (coordinator->epochs_done > 0)
        return coordinator->history[coordinator->epochs_done - 1].train_loss;
    return NAN;
}

void coordinator_progress(const struct coordinator *coordinator, struct instant now, struct report_progress *out)
{
    uint32_t epochs = coordinator->plan->training.epochs;
    /* The one that runs, or the last that did; 1 where there was none. */
    bool runs = coordinator->phase <= COORDINATOR_VALIDATING || coordinator->epochs_done == 0;
    *out = (struct report_progress){
        .term = coordinator->term,
        .epoch = runs && coordinator->epochs_done < epochs ? coordinator->epochs_done + 1 : coordinator->epochs_done,
        .step = counts_steps(coordinator) ? coordinator->steps_done : coordinator->oldest,
        .steps = coordinator->schedule.steps,
        .train_loss = loss_so_far(coordinator),
        .workers = deal_members(coordinator, true),
        .sync = progress_sync(coordinator),
    };
    if (out->workers > busy_most(coordinator))
        out->idle_workers = out->workers - (uint32_t)busy_most(coordinator);
    struct text text = {.out = out->message, .size = sizeof out->message};
    say_what_is_done(coordinator, out, now, &text);
}
