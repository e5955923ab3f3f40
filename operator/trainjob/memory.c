#include "trainjob/memory.h"

#include <string.h>

enum { FIRST_BUCKETS = 256 };

struct memory {
    struct job_memory **by_key, **by_uid;
    size_t buckets; /* of each, a power of two */
    size_t count;
    bool history_configured;
};

/* FNV-1a. Keys and UIDs come from the API server, which is not an enemy. */
static size_t hash(const char *text)
{
    uint64_t value = UINT64_C(14695981039346656037);
    for (; *text != '\0'; text++)
        value = (value ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return (size_t)(value ^ value >> 32);
}

struct memory *memory_new(bool history_configured, struct error *err)
{
    cleanup_memory struct memory *memory = calloc(1, sizeof *memory);
    if (memory != NULL) {
        memory->buckets = FIRST_BUCKETS;
        memory->history_configured = history_configured;
        memory->by_key = calloc(FIRST_BUCKETS, sizeof(struct job_memory *));
        memory->by_uid = calloc(FIRST_BUCKETS, sizeof(struct job_memory *));
    }
    if (memory == NULL || memory->by_key == NULL || memory->by_uid == NULL) {
        error_set(err, "out of memory");
        return NULL;
    }
    return move(memory);
}

static void job_memory_free(struct job_memory *job)
{
    free(job->epochs);
    cJSON_Delete(job->events);
    free(job);
}

void memory_free(struct memory *memory)
{
    if (memory == NULL)
        return;
    for (size_t i = 0; memory->by_key != NULL && i < memory->buckets; i++) {
        for (struct job_memory *job = memory->by_key[i], *next = NULL; job != NULL; job = next) {
            next = job->next_by_key;
            job_memory_free(job);
        }
    }
    free(memory->by_key);
    free(memory->by_uid);
    free(memory);
}

static void insert(struct memory *memory, struct job_memory *job)
{
    struct job_memory **by_key = &memory->by_key[hash(job->key) & (memory->buckets - 1)];
    struct job_memory **by_uid = &memory->by_uid[hash(job->uid) & (memory->buckets - 1)];
    job->next_by_key = *by_key;
    job->next_by_uid = *by_uid;
    *by_key = job;
    *by_uid = job;
}

/* Without memory for it the chains just grow longer. */
static void grow(struct memory *memory)
{
    size_t buckets = memory->buckets * 2;
    struct job_memory **by_key = calloc(buckets, sizeof(struct job_memory *));
    struct job_memory **by_uid = calloc(buckets, sizeof(struct job_memory *));
    if (by_key == NULL || by_uid == NULL) {
        free(by_key);
        free(by_uid);
        return;
    }
    struct memory old = *memory;
    memory->by_key = by_key;
    memory->by_uid = by_uid;
    memory->buckets = buckets;
    for (size_t i = 0; i < old.buckets; i++) {
        for (struct job_memory *job = old.by_key[i], *next = NULL; job != NULL; job = next) {
            next = job->next_by_key;
            insert(memory, job);
        }
    }
    free(old.by_key);
    free(old.by_uid);
}

static struct job_memory *find_key(const struct memory *memory, const char *key)
{
    struct job_memory *job = memory->by_key[hash(key) & (memory->buckets - 1)];
    while (job != NULL && strcmp(job->key, key) != 0)
        job = job->next_by_key;
    return job;
}

struct job_memory *memory_find(const struct memory *memory, const char *uid)
{
    struct job_memory *job = memory->by_uid[hash(uid) & (memory->buckets - 1)];
    while (job != NULL && strcmp(job->uid, uid) != 0)
        job = job->next_by_uid;
    return job;
}

void memory_drop(struct memory *memory, const char *key)
{
    struct job_memory *job = find_key(memory, key);
    if (job == NULL)
        return;
    struct job_memory **by_key = &memory->by_key[hash(job->key) & (memory->buckets - 1)];
    while (*by_key != job)
        by_key = &(*by_key)->next_by_key;
    *by_key = job->next_by_key;
    struct job_memory **by_uid = &memory->by_uid[hash(job->uid) & (memory->buckets - 1)];
    while (*by_uid != job)
        by_uid = &(*by_uid)->next_by_uid;
    *by_uid = job->next_by_uid;
    memory->count--;
    job_memory_free(job);
}

struct job_memory *memory_of(struct memory *memory, const char *key, const char *uid)
{
    struct job_memory *job = find_key(memory, key);
    if (job != NULL && strcmp(job->uid, uid) == 0)
        return job;
    if (job != NULL)
        memory_drop(memory, key);
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return NULL;
    snprintf(job->key, sizeof job->key, "%s", key);
    snprintf(job->uid, sizeof job->uid, "%s", uid);
    job->history.configured = memory->history_configured;
    if (memory->count >= memory->buckets)
        grow(memory);
    insert(memory, job);
    memory->count++;
    return job;
}

void memory_count(const struct memory *memory, uint64_t out[TRAINJOB_PHASES])
{
    memset(out, 0, TRAINJOB_PHASES * sizeof out[0]);
    for (size_t i = 0; i < memory->buckets; i++)
        for (const struct job_memory *job = memory->by_key[i]; job != NULL; job = job->next_by_key)
            out[job->phase]++;
}

/* ---- epochs ---- */

static void publish(struct job_memory *job)
{
    job->reports.epochs = job->epochs;
    job->reports.epoch_count = job->epoch_count;
}

int job_memory_add_epoch(struct job_memory *job, const struct report_epoch *epoch)
{
    size_t at = job->epoch_count;
    while (at > 0 && job->epochs[at - 1].epoch >= epoch->epoch)
        at--;
    if (at < job->epoch_count && job->epochs[at].epoch == epoch->epoch) {
        if (job->epochs[at].term < epoch->term)
            job->epochs[at] = *epoch;
        return 0;
    }
    if (job->epoch_count == TRAINJOB_EPOCHS_MOST)
        return -1;
    if (job->epoch_count == job->epoch_room) {
        size_t room = job->epoch_room == 0 ? 8 : job->epoch_room * 2;
        struct report_epoch *epochs = realloc(job->epochs, room * sizeof *epochs);
        if (epochs == NULL)
            return -1;
        job->epochs = epochs;
        job->epoch_room = room;
    }
    memmove(&job->epochs[at + 1], &job->epochs[at], (job->epoch_count - at) * sizeof job->epochs[0]);
    job->epochs[at] = *epoch;
    job->epoch_count++;
    publish(job);
    return 0;
}

void job_memory_drop_epochs(struct job_memory *job, uint32_t epoch, uint32_t term)
{
    size_t kept = 0;
    for (size_t i = 0; i < job->epoch_count; i++)
        if (job->epochs[i].epoch > epoch || job->epochs[i].term > term)
            job->epochs[kept++] = job->epochs[i];
    job->epoch_count = kept;
    publish(job);
}
