#include "history/history.h"

#include "common/crypto.h"
#include "history/store.h"
#include "loop/mailbox.h"

#include <pthread.h>
#include <search.h>
#include <string.h>

/* What waits for one job. They stand in a list in the order of their coming and in a tree by UID. */
struct owed {
    char *job_uid;
    struct record *waiting; /* NULL while the thread is writing it, unless more came meanwhile */
    bool writing;
    unsigned failures;
    struct instant due;
    char *told; /* the sentence of the last failure that the loop was told */
    struct owed *next, *previous;
};

/* What the loop is to be told. */
struct result {
    struct result *next;
    bool synced, final;
    uint32_t epoch;
    char *sentence;
    char job_uid[];
};

struct history {
    const struct log *log;
    struct history_hooks hooks;
    int64_t retry_least, retry_most;
    struct mailbox *doorbell; /* wakes the loop when there are results; holds one message, the history itself */
    struct store *store;      /* the thread's */
    pthread_t thread;

    pthread_mutex_t mutex; /* of everything below */
    pthread_cond_t changed;
    void *tree;
    struct owed *first, *last;
    size_t count;
    struct result *results, **results_end;
    struct instant away_until; /* MongoDB did not answer: nobody is tried before */
    unsigned away;             /* attempts in a row that were not answered */
    bool stopping;
    struct instant stop_by;
    struct history_metrics metrics;
};

static struct history *lock(struct history *history)
{
    pthread_mutex_lock(&history->mutex);
    return history;
}

static void unlock(struct history **history)
{
    pthread_mutex_unlock(&(*history)->mutex);
}

/* Until the end of the block. */
#define LOCKED(history) struct history *locked CLEANUP(unlock) = lock(history)

/* ---- count; all of it under the lock ---- */

static int compare_owed(const void *a, const void *b)
{
    return strcmp(((const struct owed *)a)->job_uid, ((const struct owed *)b)->job_uid);
}

static struct owed *find_owed(struct history *history, char *job_uid)
{
    struct owed wanted = {.job_uid = job_uid};
    struct owed **found = (struct owed **)tfind(&wanted, &history->tree, compare_owed);
    return found == NULL ? NULL : *found;
}

static void append_owed(struct history *history, struct owed *owed)
{
    owed->next = NULL;
    owed->previous = history->last;
    if (history->last == NULL)
        history->first = owed;
    else
        history->last->next = owed;
    history->last = owed;
}

static void unlink_owed(struct history *history, struct owed *owed)
{
    if (owed->previous == NULL)
        history->first = owed->next;
    else
        owed->previous->next = owed->next;
    if (owed->next == NULL)
        history->last = owed->previous;
    else
        owed->next->previous = owed->previous;
}

static struct owed *add_owed(struct history *history, const char *job_uid, struct error *err)
{
    if (history->count >= HISTORY_JOBS_MOST) {
        error_set(err, "the records of %d jobs already wait for MongoDB", HISTORY_JOBS_MOST);
        return NULL;
    }
    struct owed *owed = calloc(1, sizeof *owed);
    if (owed != NULL)
        owed->job_uid = strdup(job_uid);
    if (owed == NULL || owed->job_uid == NULL || tsearch(owed, &history->tree, compare_owed) == NULL) {
        if (owed != NULL)
            free(owed->job_uid);
        free(owed);
        error_set(err, "out of memory for a history record");
        return NULL;
    }
    append_owed(history, owed);
    history->count++;
    return owed;
}

static void remove_owed(struct history *history, struct owed *owed)
{
    tdelete(owed, &history->tree, compare_owed);
    unlink_owed(history, owed);
    history->count--;
    record_free(owed->waiting);
    free(owed->told);
    free(owed->job_uid);
    free(owed);
}

/* The record (taken over) joins what already waits. */
static int wait_with(struct owed *owed, struct record *record, struct error *err)
{
    cleanup_record struct record *newer = record;
    if (owed->waiting != NULL && record_merge(newer, owed->waiting, err) < 0)
        return -1;
    record_free(owed->waiting);
    owed->waiting = move(newer);
    return 0;
}

/* ---- results ---- */

/* NULL without memory. */
static struct result *result_new(const char *job_uid)
{
    size_t length = strlen(job_uid) + 1;
    struct result *result = calloc(1, sizeof *result + length);
    if (result != NULL)
        memcpy(result->job_uid, job_uid, length);
    return result;
}

static void result_free(struct result *result)
{
    if (result == NULL)
        return;
    free(result->sentence);
    free(result);
}

static void tell(struct history *history, struct result *result)
{
    *history->results_end = result;
    history->results_end = &result->next;
    /* A full doorbell has been rung already. */
    (void)mailbox_push(history->doorbell, history);
}

static struct result *take_results(struct history *history)
{
    LOCKED(history);
    struct result *results = locked->results;
    locked->results = NULL;
    locked->results_end = &locked->results;
    return results;
}

static void deliver(void *arg, void *message)
{
    struct history *history = arg;
    (void)message;
    for (struct result *result = take_results(history), *next; result != NULL; result = next) {
        next = result->next;
        if (result->synced)
            history->hooks.synced(history->hooks.arg, result->job_uid, result->epoch, result->final);
        else
            history->hooks.failed(history->hooks.arg, result->job_uid,
                                  result->sentence == NULL ? "MongoDB could not be written" : result->sentence);
        result_free(result);
    }
}

/* Once for each way of failing. */
static void tell_failure(struct history *history, struct owed *owed, const char *sentence)
{
    if (owed->told != NULL && strcmp(owed->told, sentence) == 0)
        return;
    struct result *result = result_new(owed->job_uid);
    if (result == NULL)
        return;
    free(owed->told);
    owed->told = strdup(sentence);
    result->sentence = strdup(sentence);
    tell(history, result);
}

/* ---- the thread ---- */

static int64_t backoff(const struct history *history, unsigned failures)
{
    int64_t delay = history->retry_least;
    for (unsigned i = 1; i < failures && delay < history->retry_most; i++)
        delay *= 2;
    if (delay > history->retry_most)
        delay = history->retry_most;
    /* Between half and whole, so that two operators do not knock at once. */
    return delay - (int64_t)(random_u64() % (uint64_t)(delay / 2 + 1));
}

static struct instant later(struct instant now, int64_t delay)
{
    return (struct instant){now.nanoseconds + delay};
}

static bool past(struct instant now, struct instant due)
{
    return now.nanoseconds >= due.nanoseconds;
}

/* The first whose turn it is; else *wake is when there may be one (0: when something is put). */
static struct owed *next_due(struct history *history, struct instant now, struct instant *wake)
{
    *wake = (struct instant){0};
    if (!history->stopping && !past(now, history->away_until)) {
        if (history->first != NULL)
            *wake = history->away_until;
        return NULL;
    }
    for (struct owed *owed = history->first; owed != NULL; owed = owed->next) {
        if (owed->waiting == NULL)
            continue;
        if (past(now, owed->due))
            return owed;
        if (wake->nanoseconds == 0 || owed->due.nanoseconds < wake->nanoseconds)
            *wake = owed->due;
    }
    return NULL;
}

static void wait_for_change(struct history *history, struct instant now, struct instant wake)
{
    if (wake.nanoseconds == 0) {
        pthread_cond_wait(&history->changed, &history->mutex);
        return;
    }
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t nanoseconds = until.tv_nsec + instant_since(wake, now);
    until.tv_sec += nanoseconds / SECONDS;
    until.tv_nsec = nanoseconds % SECONDS;
    pthread_cond_timedwait(&history->changed, &history->mutex, &until);
}

static void written(struct history *history, struct owed *owed, struct result *result, enum store_outcome outcome)
{
    history->metrics.written += outcome == STORE_WRITTEN;
    history->metrics.settled += outcome == STORE_SETTLED;
    result->synced = true;
    tell(history, result);
    if (history->away > 0)
        log_info(history->log, "MongoDB answers again", NULL);
    history->away = 0;
    owed->failures = 0;
    free(owed->told);
    owed->told = NULL;
    if (owed->waiting == NULL)
        remove_owed(history, owed);
}

static void not_written(struct history *history, struct owed *owed, struct record *record, enum store_outcome outcome,
                        const struct error *error)
{
    struct instant now = clock_now();
    struct error ignored;
    history->metrics.failures++;
    if (outcome == STORE_AWAY) {
        if (history->away++ == 0)
            log_warn(history->log, "MongoDB does not answer; what is owed is written when it does", "error",
                     error_message(error), NULL);
        history->away_until = later(now, backoff(history, history->away));
    } else {
        owed->due = later(now, backoff(history, ++owed->failures));
        log_warn(history->log, "cannot write a job's history", "job", record->job, "uid", record->job_uid, "error",
                 error_message(error), NULL);
    }
    /* What came meanwhile is newer; where the two cannot be joined for want of memory, it stands for itself. */
    if (owed->waiting == NULL)
        owed->waiting = record;
    else
        (void)record_merge(owed->waiting, record, &ignored);
    if (owed->waiting != record)
        record_free(record);
    /* The others wait behind it. */
    unlink_owed(history, owed);
    append_owed(history, owed);
    if (outcome != STORE_AWAY)
        tell_failure(history, owed, error_message(error));
    else
        for (struct owed *other = history->first; other != NULL; other = other->next)
            tell_failure(history, other, error_message(error));
}

/* Called and returns under the lock, which is open while MongoDB is written. */
static enum store_outcome write_one(struct history *history, struct owed *owed)
{
    struct result *result = result_new(owed->job_uid);
    if (result == NULL) {
        owed->due = later(clock_now(), history->retry_least);
        return STORE_REFUSED;
    }
    struct record *record = move(owed->waiting);
    owed->writing = true;
    pthread_mutex_unlock(&history->mutex);

    struct error err = {0};
    enum store_outcome outcome = store_write(history->store, record, &err);

    pthread_mutex_lock(&history->mutex);
    owed->writing = false;
    result->epoch = record_newest_epoch(record);
    result->final = record->final;
    if (outcome == STORE_WRITTEN || outcome == STORE_SETTLED) {
        record_free(record);
        written(history, owed, result, outcome);
    } else {
        result_free(result);
        not_written(history, owed, record, outcome, &err);
    }
    return outcome;
}

static void *run(void *arg)
{
    struct history *history = arg;
    LOCKED(history);
    for (;;) {
        struct instant now = clock_now(), wake;
        if (locked->stopping && past(now, locked->stop_by))
            break;
        struct owed *owed = next_due(locked, now, &wake);
        if (owed != NULL) {
            if (write_one(locked, owed) == STORE_AWAY && locked->stopping)
                break;
        } else if (locked->stopping) {
            break;
        } else {
            wait_for_change(locked, now, wake);
        }
    }
    return NULL;
}

/* ---- beginning and end ---- */

static void log_driver(mongoc_log_level_t level, const char *domain, const char *message, void *arg)
{
    const struct log *log = arg;
    if (level == MONGOC_LOG_LEVEL_ERROR || level == MONGOC_LOG_LEVEL_CRITICAL)
        log_warn(log, message, "domain", domain, NULL);
}

static struct history *history_new(const struct history_options *options, struct error *err)
{
    struct history *history = calloc(1, sizeof *history);
    if (history == NULL) {
        error_set(err, "out of memory for the history");
        return NULL;
    }
    history->log = options->log;
    history->hooks = options->hooks;
    history->retry_least = options->retry_least > 0 ? options->retry_least : 500 * MILLISECONDS;
    history->retry_most = options->retry_most > 0 ? options->retry_most : 30 * SECONDS;
    history->results_end = &history->results;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&history->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&history->mutex, NULL);
    return history;
}

static void history_free(struct history *history)
{
    if (history == NULL)
        return;
    while (history->first != NULL)
        remove_owed(history, history->first);
    for (struct result *result = history->results, *next; result != NULL; result = next) {
        next = result->next;
        result_free(result);
    }
    mailbox_free(history->doorbell);
    store_close(history->store);
    /* No mongoc_cleanup(): after it the driver could not be started again in this process. */
    mongoc_log_set_handler(NULL, NULL);
    pthread_cond_destroy(&history->changed);
    pthread_mutex_destroy(&history->mutex);
    free(history);
}
CLEANUP_DEFINE(cleanup_history_pointer, struct history, history_free)

int history_start(struct history **out, const struct history_options *options, struct error *err)
{
    mongoc_init();
    mongoc_log_set_handler(log_driver, (void *)options->log);
    CLEANUP(cleanup_history_pointer) struct history *history = history_new(options, err);
    if (history == NULL)
        return -1;
    history->store = store_open(options->uri, err);
    if (history->store == NULL)
        return -1;
    history->doorbell = mailbox_new(1, NULL, err);
    if (history->doorbell == NULL || mailbox_attach(history->doorbell, options->loop, deliver, history, err) < 0)
        return -1;
    if (pthread_create(&history->thread, NULL, run, history) != 0)
        return error_set(err, "cannot start the thread that writes the history");
    pthread_setname_np(history->thread, "history");
    *out = move(history);
    return 0;
}

size_t history_stop(struct history *history, int64_t flush)
{
    if (history == NULL)
        return 0;
    {
        LOCKED(history);
        locked->stopping = true;
        locked->stop_by = later(clock_now(), flush);
        pthread_cond_signal(&locked->changed);
    }
    pthread_join(history->thread, NULL);
    size_t left = history->count;
    history_free(history);
    return left;
}

/* ---- from the loop ---- */

static int put(struct history *history, struct record *record, struct error *err)
{
    cleanup_record struct record *owned = record;
    LOCKED(history);
    struct owed *owed = find_owed(locked, owned->job_uid);
    if (owed == NULL)
        owed = add_owed(locked, owned->job_uid, err);
    if (owed == NULL || wait_with(owed, move(owned), err) < 0)
        return -1;
    pthread_cond_signal(&locked->changed);
    return 0;
}

void history_put(struct history *history, const cJSON *trainjob, const struct report_epoch *epochs, size_t count,
                 bool final)
{
    struct error err = {0};
    struct record *record = record_new(trainjob, epochs, count, final, &err);
    if (record != NULL && put(history, record, &err) == 0)
        return;
    struct result *result = result_new(json_string(trainjob, "metadata.uid", ""));
    if (result == NULL)
        return;
    result->sentence = strdup(error_message(&err));
    LOCKED(history);
    tell(locked, result);
}

void history_metrics(struct history *history, struct history_metrics *out)
{
    LOCKED(history);
    *out = locked->metrics;
    out->waiting = locked->count;
}
