#include "trainjob/memory.h"

#include <string.h>

enum { FIRST_BUCKETS = 256 };

/* One job. Its texts stand behind it: the key, then the UID. */
struct entry {
    struct entry *next_by_key, *next_by_uid;
    struct job_memory *job;    /* NULL: settled */
    enum trainjob_phase phase; /* then */
    uint32_t uid;              /* where it begins */
    char texts[];
};

struct memory {
    struct entry **by_key, **by_uid;
    size_t buckets; /* of each, a power of two */
    size_t count;
    size_t awaiting; /* jobs that wait for another */
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
        memory->by_key = calloc(FIRST_BUCKETS, sizeof(struct entry *));
        memory->by_uid = calloc(FIRST_BUCKETS, sizeof(struct entry *));
    }
    if (memory == NULL || memory->by_key == NULL || memory->by_uid == NULL) {
        error_set(err, "out of memory");
        return NULL;
    }
    return move(memory);
}

static const char *uid_of(const struct entry *entry)
{
    return entry->texts + entry->uid;
}

static struct entry **key_bucket(const struct memory *memory, const char *key)
{
    return &memory->by_key[hash(key) & (memory->buckets - 1)];
}

static struct entry **uid_bucket(const struct memory *memory, const char *uid)
{
    return &memory->by_uid[hash(uid) & (memory->buckets - 1)];
}

int memory_await(struct memory *memory, struct job_memory *job, const char *key)
{
    if (key != NULL && job->awaits != NULL && strcmp(job->awaits, key) == 0)
        return 0;
    memory->awaiting -= job->awaits != NULL;
    free(job->awaits);
    job->awaits = key == NULL ? NULL : strdup(key);
    memory->awaiting += job->awaits != NULL;
    return key != NULL && job->awaits == NULL ? -1 : 0;
}

static void free_job(struct memory *memory, struct entry *entry)
{
    if (entry->job == NULL)
        return;
    (void)memory_await(memory, entry->job, NULL);
    free(entry->job->reports);
    free(entry->job->attempts);
    free(entry->job->epochs);
    cJSON_Delete(entry->job->events);
    free(entry->job);
    entry->job = NULL;
}

static void free_entry(struct memory *memory, struct entry *entry)
{
    free_job(memory, entry);
    free(entry);
}

void memory_free(struct memory *memory)
{
    if (memory == NULL)
        return;
    for (size_t i = 0; memory->by_key != NULL && i < memory->buckets; i++) {
        for (struct entry *entry = memory->by_key[i], *next = NULL; entry != NULL; entry = next) {
            next = entry->next_by_key;
            free_entry(memory, entry);
        }
    }
    free(memory->by_key);
    free(memory->by_uid);
    free(memory);
}

static void insert(struct memory *memory, struct entry *entry)
{
    struct entry **by_key = key_bucket(memory, entry->texts);
    struct entry **by_uid = uid_bucket(memory, uid_of(entry));
    entry->next_by_key = *by_key;
    entry->next_by_uid = *by_uid;
    *by_key = entry;
    *by_uid = entry;
}

/* Without memory for it the chains just grow longer. */
static void grow(struct memory *memory)
{
    size_t buckets = memory->buckets * 2;
    struct entry **by_key = calloc(buckets, sizeof(struct entry *));
    struct entry **by_uid = calloc(buckets, sizeof(struct entry *));
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
        for (struct entry *entry = old.by_key[i], *next = NULL; entry != NULL; entry = next) {
            next = entry->next_by_key;
            insert(memory, entry);
        }
    }
    free(old.by_key);
    free(old.by_uid);
}

static struct entry *find_key(const struct memory *memory, const char *key)
{
    struct entry *entry = *key_bucket(memory, key);
    while (entry != NULL && strcmp(entry->texts, key) != 0)
        entry = entry->next_by_key;
    return entry;
}

struct job_memory *memory_find(const struct memory *memory, const char *uid)
{
    struct entry *entry = *uid_bucket(memory, uid);
    while (entry != NULL && strcmp(uid_of(entry), uid) != 0)
        entry = entry->next_by_uid;
    return entry == NULL ? NULL : entry->job;
}

void memory_drop(struct memory *memory, const char *key)
{
    struct entry *entry = find_key(memory, key);
    if (entry == NULL)
        return;
    struct entry **by_key = key_bucket(memory, entry->texts);
    while (*by_key != entry)
        by_key = &(*by_key)->next_by_key;
    *by_key = entry->next_by_key;
    struct entry **by_uid = uid_bucket(memory, uid_of(entry));
    while (*by_uid != entry)
        by_uid = &(*by_uid)->next_by_uid;
    *by_uid = entry->next_by_uid;
    memory->count--;
    free_entry(memory, entry);
}

void memory_settle(struct memory *memory, const char *key)
{
    struct entry *entry = find_key(memory, key);
    if (entry == NULL || entry->job == NULL)
        return;
    entry->phase = entry->job->phase;
    free_job(memory, entry);
}

static struct entry *add_entry(struct memory *memory, const char *key, const char *uid)
{
    size_t key_size = strlen(key) + 1;
    size_t uid_size = strlen(uid) + 1;
    struct entry *entry = calloc(1, sizeof *entry + key_size + uid_size);
    if (entry == NULL)
        return NULL;
    entry->uid = (uint32_t)key_size;
    memcpy(entry->texts, key, key_size);
    memcpy(entry->texts + key_size, uid, uid_size);
    if (memory->count >= memory->buckets)
        grow(memory);
    insert(memory, entry);
    memory->count++;
    return entry;
}

struct job_memory *memory_of(struct memory *memory, const char *key, const char *uid)
{
    struct entry *entry = find_key(memory, key);
    if (entry != NULL && strcmp(uid_of(entry), uid) != 0) {
        memory_drop(memory, key);
        entry = NULL;
    }
    if (entry == NULL)
        entry = add_entry(memory, key, uid);
    if (entry == NULL || entry->job != NULL)
        return entry == NULL ? NULL : entry->job;
    entry->job = calloc(1, sizeof *entry->job);
    if (entry->job == NULL)
        return NULL;
    entry->job->key = entry->texts;
    entry->job->uid = uid_of(entry);
    entry->job->phase = entry->phase;
    entry->job->history.configured = memory->history_configured;
    return entry->job;
}

void memory_waiting_for(const struct memory *memory, const char *key, void (*visit)(void *arg, const char *waiter),
                        void *arg)
{
    for (size_t i = 0; memory->awaiting > 0 && i < memory->buckets; i++)
        for (const struct entry *entry = memory->by_key[i]; entry != NULL; entry = entry->next_by_key)
            if (entry->job != NULL && entry->job->awaits != NULL && strcmp(entry->job->awaits, key) == 0)
                visit(arg, entry->texts);
}

void memory_count(const struct memory *memory, uint64_t out[TRAINJOB_PHASES])
{
    memset(out, 0, TRAINJOB_PHASES * sizeof out[0]);
    for (size_t i = 0; i < memory->buckets; i++)
        for (const struct entry *entry = memory->by_key[i]; entry != NULL; entry = entry->next_by_key)
            out[entry->job != NULL ? entry->job->phase : entry->phase]++;
}

/* ---- what there mostly is not ---- */

const struct trainjob_reports *job_memory_reports(const struct job_memory *job)
{
    static const struct trainjob_reports none = {0};
    return job->reports == NULL ? &none : job->reports;
}

const struct trainjob_attempts *job_memory_attempts(const struct job_memory *job)
{
    static const struct trainjob_attempts none = {0};
    static const struct trainjob_attempts made = {.secret_made = true};
    if (job->attempts != NULL)
        return job->attempts;
    return job->secret_made ? &made : &none;
}

void job_memory_set_secret_made(struct job_memory *job, bool made)
{
    job->secret_made = made;
    if (job->attempts != NULL)
        job->attempts->secret_made = made;
}

void job_memory_attempted(struct job_memory *job, const struct trainjob_attempts *attempts)
{
    bool is_plain = !attempts->is_conflict && !attempts->is_refused && attempts->sentence[0] == '\0';
    job->secret_made = attempts->secret_made;
    if (is_plain) {
        free(job->attempts);
        job->attempts = NULL;
        return;
    }
    if (job->attempts == NULL)
        job->attempts = malloc(sizeof *job->attempts);
    if (job->attempts != NULL)
        *job->attempts = *attempts;
}

static void publish(struct job_memory *job)
{
    if (job->reports == NULL)
        return;
    job->reports->epochs = job->epochs;
    job->reports->epoch_count = job->epoch_count;
}

struct trainjob_reports *job_memory_listen(struct job_memory *job)
{
    if (job->reports == NULL)
        job->reports = calloc(1, sizeof *job->reports);
    publish(job);
    return job->reports;
}

/* ---- epochs ---- */

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
