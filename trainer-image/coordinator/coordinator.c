/* What happens, from the first shard to the end: who is there, which step and epoch it is, and how it ends. */
#include "coordinator/state.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct coordinator *coordinator_new(const struct plan *plan, uint64_t train_samples, uint64_t test_samples,
                                    uint32_t term, struct instant now)
{
    cleanup_coordinator struct coordinator *coordinator = calloc(1, sizeof *coordinator);
    if (coordinator == NULL)
        return NULL;
    coordinator->plan = plan;
    coordinator->schedule = schedule_of(plan, train_samples);
    coordinator->tasks = tasks_of(plan, train_samples);
    coordinator->test_samples = test_samples;
    coordinator->term = term;
    coordinator->ticked = now;
    coordinator->validation.count = validation_blocks(test_samples);
    coordinator->validation.blocks = calloc((size_t)coordinator->validation.count + 1, sizeof(struct validation_block));
    coordinator->history = calloc(plan->training.epochs, sizeof *coordinator->history);
    if (coordinator->validation.blocks == NULL || coordinator->history == NULL)
        return NULL;
    return move(coordinator);
}

void coordinator_free(struct coordinator *coordinator)
{
    if (coordinator == NULL)
        return;
    free(coordinator->validation.blocks);
    free(coordinator->history);
    free(coordinator);
}

void state_act(struct coordinator *coordinator, struct coordinator_action action)
{
    /* Whoever calls takes all actions after every event, and no event causes more than there is room for. */
    if (coordinator->actions_end == ACTIONS_MOST)
        abort();
    coordinator->actions[coordinator->actions_end++] = action;
}

bool coordinator_take(struct coordinator *coordinator, struct coordinator_action *out)
{
    if (coordinator->actions_begin == coordinator->actions_end) {
        coordinator->actions_begin = coordinator->actions_end = 0;
        return false;
    }
    *out = coordinator->actions[coordinator->actions_begin++];
    return true;
}

void state_note_time(struct coordinator *coordinator, int64_t step)
{
    coordinator->step_times[coordinator->steps_timed++ % STEP_TIMES] = step;
}

void coordinator_note_sync(struct coordinator *coordinator, const struct report_sync *sync)
{
    coordinator->sync = *sync;
}

/* ---- the end ---- */

static void finish(struct coordinator *coordinator, bool succeeded, const char *reason, const char *sentence)
{
    if (coordinator->phase == COORDINATOR_OVER)
        return;
    coordinator->phase = COORDINATOR_OVER;
    struct report_finished *result = &coordinator->result;
    result->term = coordinator->term;
    result->succeeded = succeeded;
    result->sync = progress_sync(coordinator);
    snprintf(result->reason, sizeof result->reason, "%s", reason);
    snprintf(result->message, sizeof result->message, "%s", sentence);
    state_act(coordinator, (struct coordinator_action){.type = COORDINATOR_FINISHED});
}

static void fail(struct coordinator *coordinator, const char *reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void fail(struct coordinator *coordinator, const char *reason, const char *format, ...)
{
    char sentence[sizeof coordinator->result.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    finish(coordinator, false, reason, sentence);
}

void coordinator_fail(struct coordinator *coordinator, const char *reason, const char *sentence)
{
    finish(coordinator, false, reason, sentence);
}

void coordinator_saved(struct coordinator *coordinator, const struct report_model *model, const char *failure)
{
    if (coordinator->phase != COORDINATOR_SAVING)
        return;
    if (failure != NULL) {
        fail(coordinator, "OutputFailed", "The model is trained but could not be kept: %s", failure);
        return;
    }
    struct report_finished *result = &coordinator->result;
    result->has_model = model != NULL;
    if (model != NULL)
        result->model = *model;
    const struct report_epoch *last = &coordinator->history[coordinator->epochs_done - 1];
    char sentence[sizeof result->message];
    double goal = coordinator->plan->training.goal_accuracy;
    if (goal > 0 && last->validated && last->accuracy >= goal) {
        snprintf(sentence, sizeof sentence, "Reached %.2f %% accuracy, of %.2f %% asked for, after epoch %u of %u",
                 last->accuracy, goal, last->epoch, coordinator->plan->training.epochs);
        finish(coordinator, true, "GoalReached", sentence);
        return;
    }
    int length = snprintf(sentence, sizeof sentence, "Trained all %u epochs", last->epoch);
    if (last->validated && coordinator->plan->dataset.classes > 0)
        snprintf(sentence + length, sizeof sentence - (size_t)length, "; accuracy %.2f %%", last->accuracy);
    else if (last->validated)
        snprintf(sentence + length, sizeof sentence - (size_t)length, "; validation loss %.4g", last->validation_loss);
    finish(coordinator, true, "Completed", sentence);
}

/* ---- epochs ---- */

/* Are all of the epoch's steps, or rounds, opened? */
static bool epoch_is_dealt(const struct coordinator *coordinator)
{
    if (rounds_are_dealt(coordinator))
        return rounds_epoch_is_dealt(coordinator);
    return coordinator->next == (coordinator->epochs_done + UINT64_C(1)) * coordinator->schedule.steps_per_epoch;
}

static void begin_epoch(struct coordinator *coordinator, struct instant now)
{
    coordinator->phase = COORDINATOR_TRAINING;
    coordinator->epoch_began = now;
    coordinator->epoch_loss = 0;
    coordinator->epoch_dealt = 0;
    if (tasks_are_leased(coordinator->plan))
        tasks_begin_epoch(coordinator, now);
    else
        deal_open_next(coordinator, now);
}

static void end_epoch(struct coordinator *coordinator, bool validated, struct instant now)
{
    struct report_epoch *entry = &coordinator->history[coordinator->epochs_done];
    *entry = (struct report_epoch){
        .term = coordinator->term,
        .epoch = coordinator->epochs_done + 1,
        .train_loss = coordinator->epoch_loss / (double)coordinator->schedule.samples,
        .validated = validated,
        .parallelism = coordinator->parallelism,
        .duration_seconds = (double)instant_since(now, coordinator->epoch_began) / (double)SECONDS,
    };
    if (validated)
        validation_sum(coordinator, &entry->validation_loss, &entry->accuracy);
    state_act(coordinator, (struct coordinator_action){.type = COORDINATOR_EPOCH, .first = coordinator->epochs_done});
    coordinator->epochs_done++;

    if (validated && !isfinite(entry->validation_loss)) {
        fail(coordinator, "Diverged",
             "Training diverged: the validation loss after epoch %u is not a finite number; a "
             "spec.training.optimizer.learningRate below %g may help",
             entry->epoch, coordinator->plan->training.optimizer.learning_rate);
        return;
    }
    double goal = coordinator->plan->training.goal_accuracy;
    bool reached = goal > 0 && validated && entry->accuracy >= goal;
    if (!reached && coordinator->epochs_done < coordinator->plan->training.epochs) {
        begin_epoch(coordinator, now);
        return;
    }
    coordinator->phase = COORDINATOR_SAVING;
    state_act(coordinator, (struct coordinator_action){.type = COORDINATOR_SAVE, .step = coordinator->next});
}

static void end_training_of_epoch(struct coordinator *coordinator, struct instant now)
{
    if (coordinator->test_samples == 0 || !validation_due(coordinator->plan, coordinator->epochs_done)) {
        end_epoch(coordinator, false, now);
        return;
    }
    coordinator->phase = COORDINATOR_VALIDATING;
    validation_begin(coordinator);
    validation_deal(coordinator, now);
}

/* What the shards' progress allows: closing steps, opening the next, ending the epoch. */
static void advance(struct coordinator *coordinator, struct instant now)
{
    deal_close_done(coordinator);
    if (coordinator->phase != COORDINATOR_TRAINING)
        return;
    if (epoch_is_dealt(coordinator)) {
        if (coordinator->oldest == coordinator->next)
            end_training_of_epoch(coordinator, now);
        return;
    }
    if (coordinator->shard_done[0] == coordinator->next && coordinator->next - coordinator->oldest < OPEN_STEPS)
        deal_open_next(coordinator, now);
}

static void try_start(struct coordinator *coordinator, struct instant now)
{
    if (coordinator->phase != COORDINATOR_WAITING || deal_members(coordinator, true) == 0 ||
        !rounds_may_start(coordinator, now))
        return;
    for (uint32_t shard = 0; shard < coordinator->plan->shards; shard++)
        if (!coordinator->registered[shard])
            return;
    for (uint32_t rank = 0; rank < coordinator->ranks; rank++)
        if (coordinator->members[rank].present)
            state_act(coordinator, (struct coordinator_action){.type = COORDINATOR_WELCOME, .rank = rank});
    begin_epoch(coordinator, now);
}

/* ---- shards ---- */

int coordinator_shard_registered(struct coordinator *coordinator, uint32_t shard, struct instant now, struct error *err)
{
    if (shard >= coordinator->plan->shards)
        return error_set(err, "there is no shard %u: the plan has %u", shard, coordinator->plan->shards);
    if (coordinator->phase != COORDINATOR_WAITING)
        return error_set(err, "shard %u cannot register again: the job has started with its parameters", shard);
    coordinator->registered[shard] = true;
    try_start(coordinator, now);
    return 0;
}

void coordinator_shard_lost(struct coordinator *coordinator, uint32_t shard, const char *why)
{
    if (coordinator->phase == COORDINATOR_WAITING) {
        coordinator->registered[shard] = false;
        return;
    }
    fail(coordinator, "ParameterServerLost", "Parameter server %u was lost with its part of the model: %s", shard, why);
}

static void diverged(struct coordinator *coordinator, const char *where, uint64_t number)
{
    /* No rate has been applied yet to what a job's first step computes. */
    if (number == 0 && !rounds_are_dealt(coordinator) && !tasks_are_leased(coordinator->plan)) {
        fail(coordinator, "Diverged",
             "Training diverged: the loss of its first step is not a finite number; look in the data set for numbers "
             "that are not finite or very large, which spec.normalize of the Dataset can scale");
        return;
    }
    fail(coordinator, "Diverged",
         "Training diverged: the loss %s %llu (epoch %u) is not a finite number; a "
         "spec.training.optimizer.learningRate below %g may help",
         where, (unsigned long long)number, coordinator->epochs_done + 1,
         coordinator->plan->training.optimizer.learning_rate);
}

static void count_step(struct coordinator *coordinator, uint64_t step, double loss, struct instant now)
{
    const struct open_step *open = &coordinator->open[step % OPEN_STEPS];
    /* A round's shares are computed side by side, and each of their steps counts as progress. */
    uint64_t steps = rounds_are_dealt(coordinator) ? (open->steps + open->shares - 1) / open->shares : 1;
    coordinator->steps_done += open->steps;
    coordinator->epoch_loss += loss;
    state_note_time(coordinator, instant_since(now, open->opened) / (int64_t)steps);
    if (!isfinite(loss))
        diverged(coordinator, rounds_are_dealt(coordinator) ? "of round" : "of step", step);
}

int coordinator_shard_done(struct coordinator *coordinator, uint32_t shard, uint64_t step, double loss,
                           struct instant now, struct error *err)
{
    if (shard >= coordinator->plan->shards || !coordinator->registered[shard])
        return error_set(err, "shard %u reports a step and has not registered", shard);
    if (tasks_are_leased(coordinator->plan))
        return error_set(err, "shard %u reports a step, and this job has tasks", shard);
    if (step != coordinator->shard_done[shard] || step >= coordinator->next)
        return error_set(err, "shard %u reports step %llu as done, and step %llu would be its next of %llu dealt",
                         shard, (unsigned long long)step, (unsigned long long)coordinator->shard_done[shard],
                         (unsigned long long)coordinator->next);
    coordinator->shard_done[shard]++;
    if (shard == 0)
        count_step(coordinator, step, loss, now);
    advance(coordinator, now);
    return 0;
}

int coordinator_task_done(struct coordinator *coordinator, uint32_t shard, uint64_t task, double loss,
                          struct instant now, struct error *err)
{
    if (!tasks_are_leased(coordinator->plan))
        return error_set(err, "shard %u reports a task, and this job has none", shard);
    if (shard >= coordinator->plan->shards || !coordinator->registered[shard])
        return error_set(err, "shard %u reports a task and has not registered", shard);
    if (tasks_take_done(coordinator, shard, task, loss, now, err) < 0)
        return -1;
    if (!isfinite(loss)) {
        diverged(coordinator, "of task", task);
        return 0;
    }
    if (coordinator->phase != COORDINATOR_TRAINING)
        return 0;
    if (tasks_epoch_is_over(coordinator))
        end_training_of_epoch(coordinator, now);
    else
        tasks_lease(coordinator, now);
    return 0;
}

/* ---- members ---- */

int coordinator_join(struct coordinator *coordinator, const char *name, uint32_t *rank, struct instant now,
                     struct error *err)
{
    uint32_t free_rank = 0;
    while (free_rank < COORDINATOR_MEMBERS_MOST && coordinator->members[free_rank].present)
        free_rank++;
    if (free_rank == COORDINATOR_MEMBERS_MOST)
        return error_set(err,
                         "the job has %d workers already, and can have no more: ask for fewer in "
                         "spec.workers.replicas",
                         COORDINATOR_MEMBERS_MOST);
    struct member *member = &coordinator->members[free_rank];
    *member = (struct member){.present = true, .heard = now, .progress = now};
    coordinator->joined = now;
    snprintf(member->name, sizeof member->name, "%s", name);
    if (free_rank >= coordinator->ranks)
        coordinator->ranks = free_rank + 1;
    *rank = free_rank;

    if (coordinator->phase == COORDINATOR_WAITING) {
        try_start(coordinator, now);
    } else if (coordinator->phase != COORDINATOR_OVER) {
        state_act(coordinator, (struct coordinator_action){.type = COORDINATOR_WELCOME, .rank = free_rank});
        deal_missing(coordinator, now);
    }
    return 0;
}

static struct member *member_of(struct coordinator *coordinator, uint32_t rank)
{
    if (rank >= coordinator->ranks || !coordinator->members[rank].present)
        return NULL;
    return &coordinator->members[rank];
}

void coordinator_lost(struct coordinator *coordinator, uint32_t rank, struct instant now)
{
    struct member *member = member_of(coordinator, rank);
    if (member == NULL)
        return;
    validation_release(coordinator, rank);
    *member = (struct member){0};
    while (coordinator->ranks > 0 && !coordinator->members[coordinator->ranks - 1].present)
        coordinator->ranks--;
    if (coordinator->phase != COORDINATOR_OVER)
        deal_missing(coordinator, now);
}

void coordinator_heartbeat(struct coordinator *coordinator, uint32_t rank, uint64_t settled, struct instant now)
{
    struct member *member = member_of(coordinator, rank);
    if (member == NULL)
        return;
    settled = settled < member->dealt ? settled : member->dealt;
    if (settled > member->settled) {
        member->settled = settled;
        member->progress = now;
    }
    if (coordinator->phase != COORDINATOR_OVER)
        deal_hear(coordinator, member, now);
}

int coordinator_validated(struct coordinator *coordinator, uint32_t rank, uint64_t version, uint32_t block,
                          uint32_t correct, double loss, struct instant now, struct error *err)
{
    struct member *member = member_of(coordinator, rank);
    if (version > coordinator->next)
        return error_set(err, "validation with parameters of version %llu, and the newest are %llu",
                         (unsigned long long)version, (unsigned long long)coordinator->next);
    /* Late, of a validation that others have ended: nothing to it. */
    if (coordinator->phase != COORDINATOR_VALIDATING || version != coordinator->next)
        return 0;
    if (validation_take(coordinator, block, correct, loss, err) < 0)
        return -1;
    if (member != NULL) {
        member->progress = now;
        deal_hear(coordinator, member, now);
    }
    if (coordinator->validation.done == coordinator->validation.count)
        end_epoch(coordinator, true, now);
    else
        validation_deal(coordinator, now);
    return 0;
}

void coordinator_tick(struct coordinator *coordinator, struct instant now)
{
    if (coordinator->phase != COORDINATOR_OVER)
        deal_look_for_silence(coordinator, now);
    try_start(coordinator, now);
}

/* ---- what is known ---- */

enum coordinator_phase coordinator_phase(const struct coordinator *coordinator)
{
    return coordinator->phase;
}

const struct report_epoch *coordinator_history(const struct coordinator *coordinator, size_t index)
{
    return index < coordinator->epochs_done ? &coordinator->history[index] : NULL;
}

const struct report_finished *coordinator_result(const struct coordinator *coordinator)
{
    return coordinator->phase == COORDINATOR_OVER ? &coordinator->result : NULL;
}

bool coordinator_is_silent(const struct coordinator *coordinator, uint32_t rank)
{
    return rank < coordinator->ranks && coordinator->members[rank].silent;
}
