#include "kube/said.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS = 256, NAME_SIZE = 254 };

static const int64_t memory = SAID_MEMORY * SECONDS;
static const int64_t interval = SAID_INTERVAL * SECONDS;

/* Of one object and reason: how many different notes there were. */
struct group {
    uint64_t hash; /* 0: free */
    struct instant since;
    unsigned notes;
};

struct said_table {
    struct said *entries[SAID_MOST];
    uint64_t hashes[SAID_MOST]; /* of the entries, side by side: all are looked through each time */
    size_t count;
    struct group groups[GROUPS];
};

/* FNV-1a over the parts, each with its end, so that ("ab", "c") is not ("a", "bc"). */
static uint64_t hash_parts(const char *const *parts, size_t count)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < count; i++)
        for (const char *c = parts[i];; c++) {
            hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
            if (*c == '\0')
                break;
        }
    return hash == 0 ? 1 : hash;
}

static uint64_t hash_of(const struct said_identity *identity, const char *note)
{
    const char *parts[] = {identity->uid,  identity->kind,   identity->namespace, identity->object,
                           identity->type, identity->reason, identity->action,    note};
    return hash_parts(parts, sizeof parts / sizeof parts[0]);
}

/* ---- entries ---- */

static void entry_free(struct said *said)
{
    if (said == NULL)
        return;
    free(said->namespace);
    free(said->name);
    free(said);
}

static void drop(struct said_table *table, size_t at)
{
    entry_free(table->entries[at]);
    table->count--;
    table->entries[at] = table->entries[table->count];
    table->hashes[at] = table->hashes[table->count];
}

static struct said *find(struct said_table *table, uint64_t hash, struct instant now)
{
    for (size_t i = 0; i < table->count; i++) {
        if (table->hashes[i] != hash)
            continue;
        if (instant_since(now, table->entries[i]->last) <= memory)
            return table->entries[i];
        drop(table, i);
        break;
    }
    return NULL;
}

static void make_room(struct said_table *table)
{
    if (table->count < SAID_MOST)
        return;
    size_t oldest = 0;
    for (size_t i = 1; i < table->count; i++)
        if (table->entries[i]->last.nanoseconds < table->entries[oldest]->last.nanoseconds)
            oldest = i;
    drop(table, oldest);
}

static struct said *add(struct said_table *table, const struct said_identity *identity, uint64_t hash, uint64_t unique)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%.230s.%016llx", identity->object, (unsigned long long)unique);
    struct said *said = calloc(1, sizeof *said);
    if (said == NULL)
        return NULL;
    said->hash = hash;
    said->namespace = strdup(identity->namespace);
    said->name = strdup(name);
    if (said->namespace == NULL || said->name == NULL) {
        entry_free(said);
        return NULL;
    }
    make_room(table);
    table->entries[table->count] = said;
    table->hashes[table->count++] = hash;
    return said;
}

/* ---- similar ones ---- */

/* Notes one more note of the group; true where there are too many. */
static bool is_one_too_many(struct said_table *table, uint64_t hash, struct instant now)
{
    struct group *group = &table->groups[hash % GROUPS];
    if (group->hash != hash || instant_since(now, group->since) > memory)
        *group = (struct group){.hash = hash, .since = now};
    if (group->notes >= SAID_SIMILAR)
        return true;
    group->notes++;
    return false;
}

/* ---- saying ---- */

struct said *said_this(struct said_table *table, const struct said_identity *identity, struct instant now, int64_t wall,
                       uint64_t unique, bool *is_new)
{
    uint64_t hash = hash_of(identity, identity->note);
    struct said *said = find(table, hash, now);
    bool combined = false;
    if (said == NULL) {
        uint64_t group = hash_of(identity, "");
        combined = is_one_too_many(table, group, now);
        hash = combined ? group : hash;
        said = combined ? find(table, group, now) : NULL;
    }
    *is_new = said == NULL;
    if (said == NULL) {
        said = add(table, identity, hash, unique);
        if (said == NULL)
            return NULL;
        said->written = now;
        said->count_written = 1;
        said->combined = combined;
    }
    said->last = now;
    said->last_wall = wall;
    said->count++;
    return said;
}

struct said *said_due(struct said_table *table, struct instant now, struct instant *next)
{
    *next = (struct instant){0};
    for (size_t i = table->count; i-- > 0;) {
        struct said *said = table->entries[i];
        if (said->count > said->count_written) {
            struct instant due = {said->written.nanoseconds + interval};
            if (due.nanoseconds <= now.nanoseconds) {
                said->written = now;
                said->count_written = said->count;
                *next = now; /* there may be more */
                return said;
            }
            if (next->nanoseconds == 0 || due.nanoseconds < next->nanoseconds)
                *next = due;
        } else if (instant_since(now, said->last) > memory) {
            drop(table, i);
        }
    }
    return NULL;
}

void said_forget(struct said_table *table, const char *namespace, const char *name)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct said *said = table->entries[i];
        if (strcmp(said->name, name) == 0 && strcmp(said->namespace, namespace) == 0) {
            drop(table, i);
            return;
        }
    }
}

size_t said_count(const struct said_table *table)
{
    return table->count;
}

struct said_table *said_new(struct error *err)
{
    struct said_table *table = calloc(1, sizeof *table);
    if (table == NULL)
        error_set(err, "out of memory for Events");
    return table;
}

void said_free(struct said_table *table)
{
    if (table == NULL)
        return;
    for (size_t i = 0; i < table->count; i++)
        entry_free(table->entries[i]);
    free(table);
}
