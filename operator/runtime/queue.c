#include "runtime/queue.h"
#include "loop/heap.h"
#include "runtime/bucket.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BUCKETS = 64, HIGH_IN_A_ROW = 16, KEYS_MOST = 1000000, FLOWS = 64 };

/* A failed key that something happens to is looked at again before its back-off is over, but not more often than
 * this: what happens may be its own doing. */
static const int64_t shortest_retry = 1 * SECONDS;

enum where { NOWHERE, READY, DELAYED };

struct entry {
    struct entry *next_in_bucket;
    struct entry *next, *previous; /* of the ready keys of its priority and flow */
    struct heap_node node;         /* among the delayed; `due` is when it becomes ready, or since when it is */
    uint32_t hash;
    uint8_t flow;
    enum where where;
    enum queue_priority priority;
    enum queue_priority taken; /* the priority of its run */
    bool running;
    bool again;               /* added while it ran */
    unsigned failures;        /* in a row */
    struct instant no_sooner; /* than this, after a failure */
    char key[];
};

struct list {
    struct entry *first, *last;
};

/* The ready keys of one priority. Namespaces are dealt to flows by hash, and flows take turns. */
struct line {
    struct list flows[FLOWS];
    uint64_t busy; /* bit i: flows[i] is not empty */
    unsigned next; /* whose turn it is, or the first busy one behind it */
    size_t count;
};

struct queue {
    struct queue_options options;
    struct entry **buckets;
    size_t bucket_count, entries;
    struct line ready[QUEUE_PRIORITIES];
    size_t delayed_count, running;
    unsigned high_in_a_row;
    struct heap delayed;
    struct bucket retries;
    uint64_t random;
    struct queue_metrics metrics;
};

static uint64_t next_random(struct queue *queue)
{
    /* SplitMix64 (Steele, Lea and Flood 2014). */
    uint64_t z = queue->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t hash_bytes(const struct queue *queue, const char *text, size_t length)
{
    uint32_t hash = UINT32_C(2166136261) ^ (uint32_t)queue->options.seed;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * UINT32_C(16777619);
    hash ^= hash >> 15;
    hash *= UINT32_C(0x2c1b3c6d);
    return hash ^ hash >> 12;
}

static uint32_t hash_key(const struct queue *queue, const char *key)
{
    return hash_bytes(queue, key, strlen(key));
}

static uint8_t flow_of(const struct queue *queue, const char *key)
{
    const char *slash = strchr(key, '/');
    return (uint8_t)(slash == NULL ? 0 : hash_bytes(queue, key, (size_t)(slash - key)) % FLOWS);
}

/* ---- entries ---------------------------------------------------------------------------------------------------- */

static struct entry *find(const struct queue *queue, const char *key)
{
    uint32_t hash = hash_key(queue, key);
    struct entry *entry = queue->buckets[hash & (queue->bucket_count - 1)];
    while (entry != NULL && (entry->hash != hash || strcmp(entry->key, key) != 0))
        entry = entry->next_in_bucket;
    return entry;
}

/* Without memory the smaller table serves on, only slower. */
static void grow(struct queue *queue)
{
    size_t count = queue->bucket_count * 2;
    struct entry **buckets = calloc(count, sizeof(struct entry *));
    if (buckets == NULL)
        return;
    for (size_t i = 0; i < queue->bucket_count; i++) {
        for (struct entry *entry = queue->buckets[i], *next; entry != NULL; entry = next) {
            next = entry->next_in_bucket;
            entry->next_in_bucket = buckets[entry->hash & (count - 1)];
            buckets[entry->hash & (count - 1)] = entry;
        }
    }
    free(queue->buckets);
    queue->buckets = buckets;
    queue->bucket_count = count;
}

static struct entry *find_or_add(struct queue *queue, const char *key, struct error *err)
{
    struct entry *entry = find(queue, key);
    if (entry != NULL)
        return entry;
    if (queue->entries >= queue->options.most_keys) {
        error_set(err, "more than %zu keys wait: '%s' is not queued", queue->options.most_keys, key);
        return NULL;
    }
    if (queue->entries >= queue->bucket_count)
        grow(queue);
    size_t size = strlen(key) + 1;
    entry = calloc(1, sizeof *entry + size);
    if (entry == NULL) {
        error_set(err, "out of memory for the key '%s'", key);
        return NULL;
    }
    memcpy(entry->key, key, size);
    entry->hash = hash_key(queue, key);
    entry->flow = flow_of(queue, key);
    entry->priority = QUEUE_LOW;
    entry->next_in_bucket = queue->buckets[entry->hash & (queue->bucket_count - 1)];
    queue->buckets[entry->hash & (queue->bucket_count - 1)] = entry;
    queue->entries++;
    return entry;
}

static void drop(struct queue *queue, struct entry *entry)
{
    struct entry **link = &queue->buckets[entry->hash & (queue->bucket_count - 1)];
    while (*link != entry)
        link = &(*link)->next_in_bucket;
    *link = entry->next_in_bucket;
    queue->entries--;
    free(entry);
}

/* ---- where an entry stands -------------------------------------------------------------------------------------- */

static void withdraw(struct queue *queue, struct entry *entry)
{
    if (entry->where == READY) {
        struct line *line = &queue->ready[entry->priority];
        struct list *list = &line->flows[entry->flow];
        if (entry->previous != NULL)
            entry->previous->next = entry->next;
        else
            list->first = entry->next;
        if (entry->next != NULL)
            entry->next->previous = entry->previous;
        else
            list->last = entry->previous;
        if (list->first == NULL)
            line->busy &= ~(UINT64_C(1) << entry->flow);
        line->count--;
    } else if (entry->where == DELAYED) {
        heap_remove(&queue->delayed, &entry->node);
        queue->delayed_count--;
    }
    entry->where = NOWHERE;
}

static void append(struct queue *queue, struct entry *entry)
{
    struct line *line = &queue->ready[entry->priority];
    struct list *list = &line->flows[entry->flow];
    entry->next = NULL;
    entry->previous = list->last;
    if (list->last != NULL)
        list->last->next = entry;
    else
        list->first = entry;
    list->last = entry;
    line->busy |= UINT64_C(1) << entry->flow;
    line->count++;
    entry->where = READY;
}

static void make_ready(struct queue *queue, struct entry *entry, int64_t since)
{
    withdraw(queue, entry);
    entry->node.due = since;
    append(queue, entry);
    queue->metrics.adds++;
}

/* The first key of the flow whose turn it is. */
static struct entry *first_of(struct line *line)
{
    uint64_t behind = line->busy & (UINT64_MAX << line->next);
    unsigned flow = (unsigned)__builtin_ctzll(behind != 0 ? behind : line->busy);
    line->next = (flow + 1) % FLOWS;
    return line->flows[flow].first;
}

static void delay_until(struct queue *queue, struct entry *entry, int64_t due)
{
    withdraw(queue, entry);
    entry->node.due = due;
    heap_insert(&queue->delayed, &entry->node);
    entry->where = DELAYED;
    queue->delayed_count++;
}

static void place(struct queue *queue, struct entry *entry, int64_t due, struct instant now)
{
    if (due <= now.nanoseconds)
        make_ready(queue, entry, now.nanoseconds);
    else
        delay_until(queue, entry, due);
}

int queue_add(struct queue *queue, const char *key, enum queue_priority priority, struct instant now, struct error *err)
{
    struct entry *entry = find_or_add(queue, key, err);
    if (entry == NULL)
        return -1;
    bool raised = priority < entry->priority;
    if (entry->running) {
        entry->again = true;
        if (raised)
            entry->priority = priority;
        return 0;
    }
    if (entry->where == READY) {
        if (raised) {
            withdraw(queue, entry);
            entry->priority = priority;
            append(queue, entry);
        }
        return 0;
    }
    bool backing_off = entry->where == DELAYED && entry->failures > 0;
    if (backing_off && priority == QUEUE_LOW)
        return 0;
    entry->priority = priority;
    int64_t due = entry->failures > 0 ? entry->no_sooner.nanoseconds : now.nanoseconds;
    if (entry->where != DELAYED || due < entry->node.due)
        place(queue, entry, due, now);
    return 0;
}

static void promote_due(struct queue *queue, struct instant now)
{
    while (queue->delayed.root != NULL && queue->delayed.root->due <= now.nanoseconds)
        make_ready(queue, heap_owner(queue->delayed.root, struct entry, node), queue->delayed.root->due);
}

const char *queue_take(struct queue *queue, struct instant now)
{
    promote_due(queue, now);
    struct line *high = &queue->ready[QUEUE_HIGH];
    struct line *low = &queue->ready[QUEUE_LOW];
    if (high->count + low->count == 0 || queue->running >= queue->options.concurrency)
        return NULL;
    /* The low ones get a turn too, however many new ones come. */
    bool is_low = high->count == 0 || (low->count > 0 && queue->high_in_a_row >= HIGH_IN_A_ROW);
    struct entry *entry = first_of(is_low ? low : high);
    queue->high_in_a_row = is_low ? 0 : queue->high_in_a_row + 1;
    withdraw(queue, entry);
    histogram_add(&queue->metrics.waited, now.nanoseconds - entry->node.due);
    entry->running = true;
    entry->again = false;
    entry->taken = entry->priority;
    entry->priority = QUEUE_LOW;
    queue->running++;
    return entry->key;
}

/* ---- after a run ------------------------------------------------------------------------------------------------ */

/* base·2^(failures-1), at most backoff_most, drawn between its half and its whole. */
static int64_t backoff_of(struct queue *queue, unsigned failures)
{
    int64_t most = queue->options.backoff_most;
    int64_t delay = queue->options.backoff_base;
    for (unsigned i = 1; i < failures && delay < most; i++)
        delay *= 2;
    if (delay > most)
        delay = most;
    int64_t half = delay / 2;
    return half + (int64_t)(next_random(queue) % (uint64_t)(delay - half + 1));
}

static void keep_priority(struct entry *entry)
{
    if (entry->taken < entry->priority)
        entry->priority = entry->taken;
}

static void place_failed(struct queue *queue, struct entry *entry, struct instant now)
{
    entry->failures++;
    queue->metrics.retries++;
    int64_t delay = backoff_of(queue, entry->failures);
    int64_t wait = bucket_reserve(&queue->retries, now, queue->options.backoff_most);
    if (wait > delay)
        delay = wait;
    int64_t shortest = delay < shortest_retry ? delay : shortest_retry;
    entry->no_sooner.nanoseconds = now.nanoseconds + shortest;
    bool urgent = entry->again && entry->priority == QUEUE_HIGH;
    keep_priority(entry);
    delay_until(queue, entry, now.nanoseconds + (urgent ? shortest : delay));
}

void queue_done(struct queue *queue, const char *key, enum queue_outcome outcome, int64_t after, struct instant now)
{
    struct entry *entry = find(queue, key);
    if (entry == NULL || !entry->running)
        return;
    entry->running = false;
    queue->running--;
    if (outcome == QUEUE_FAILED) {
        place_failed(queue, entry, now);
        return;
    }
    entry->failures = 0;
    if (entry->again) {
        make_ready(queue, entry, now.nanoseconds);
    } else if (outcome == QUEUE_AFTER) {
        keep_priority(entry);
        place(queue, entry, now.nanoseconds + after, now);
    } else {
        drop(queue, entry);
    }
}

bool queue_next(const struct queue *queue, struct instant now, struct instant *when)
{
    if (queue->running >= queue->options.concurrency)
        return false;
    if (queue->ready[QUEUE_HIGH].count + queue->ready[QUEUE_LOW].count > 0) {
        *when = now;
        return true;
    }
    if (queue->delayed.root == NULL)
        return false;
    when->nanoseconds = queue->delayed.root->due;
    return true;
}

unsigned queue_failures(const struct queue *queue, const char *key)
{
    const struct entry *entry = find(queue, key);
    return entry == NULL ? 0 : entry->failures;
}

void queue_look(const struct queue *queue, const char *key, struct queue_entry *out)
{
    static const char *const states[] = {[NOWHERE] = "absent", [READY] = "ready", [DELAYED] = "delayed"};
    const struct entry *entry = find(queue, key);
    *out = (struct queue_entry){.state = states[NOWHERE], .priority = QUEUE_LOW};
    if (entry == NULL)
        return;
    *out = (struct queue_entry){
        .state = entry->running ? "running" : states[entry->where],
        .priority = entry->running ? entry->taken : entry->priority,
        .again = entry->running && entry->again,
        .failures = entry->failures,
        .due = {entry->node.due},
    };
}

void queue_metrics(const struct queue *queue, struct queue_metrics *out)
{
    *out = queue->metrics;
    for (int i = 0; i < QUEUE_PRIORITIES; i++)
        out->depth[i] = queue->ready[i].count;
    out->delayed = queue->delayed_count;
    out->running = queue->running;
    out->keys = queue->entries;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void fill_in_defaults(struct queue_options *options)
{
    if (options->backoff_base <= 0)
        options->backoff_base = 5 * MILLISECONDS;
    if (options->backoff_most <= 0)
        options->backoff_most = 1000 * SECONDS;
    if (options->retries_per_second <= 0)
        options->retries_per_second = 50;
    if (options->retries_burst <= 0)
        options->retries_burst = 200;
    if (options->concurrency == 0)
        options->concurrency = QUEUE_CONCURRENCY;
    if (options->most_keys == 0)
        options->most_keys = KEYS_MOST;
}

struct queue *queue_new(const struct queue_options *options, struct error *err)
{
    struct queue *queue = calloc(1, sizeof *queue);
    struct entry **buckets = calloc(FIRST_BUCKETS, sizeof(struct entry *));
    if (queue == NULL || buckets == NULL) {
        free(queue);
        free(buckets);
        error_set(err, "out of memory for a queue");
        return NULL;
    }
    if (options != NULL)
        queue->options = *options;
    fill_in_defaults(&queue->options);
    queue->buckets = buckets;
    queue->bucket_count = FIRST_BUCKETS;
    /* From the beginning of time: full whenever it is first used. */
    queue->retries = bucket_make(queue->options.retries_per_second, queue->options.retries_burst, (struct instant){0});
    queue->random = queue->options.seed;
    return queue;
}

void queue_free(struct queue *queue)
{
    if (queue == NULL)
        return;
    for (size_t i = 0; i < queue->bucket_count; i++) {
        for (struct entry *entry = queue->buckets[i], *next; entry != NULL; entry = next) {
            next = entry->next_in_bucket;
            free(entry);
        }
    }
    free(queue->buckets);
    free(queue);
}
