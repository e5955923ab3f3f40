#include "kube/entries.h"

#include "common/crypto.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BUCKETS = 64 };

void overlay_free(struct overlay *overlay)
{
    if (overlay == NULL)
        return;
    free(overlay->version);
    free(overlay->uid);
    free(overlay);
}

/* ---- hashes ----------------------------------------------------------------------------------------------------- */

/* FNV-1a, seeded, with a finish that spreads the high bits: names come from outside. */
uint32_t entries_hash(const struct entries *entries, const char *text, size_t length)
{
    uint32_t hash = UINT32_C(2166136261) ^ entries->seed;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * UINT32_C(16777619);
    hash ^= hash >> 16;
    hash *= UINT32_C(0x85ebca6b);
    return hash ^ hash >> 13;
}

static size_t namespace_length(const char *key)
{
    const char *slash = strchr(key, '/');
    return slash == NULL ? 0 : (size_t)(slash - key);
}

static struct entry **owner_bucket(const struct entries *entries, const char *owner)
{
    return &entries->by_owner[entries_hash(entries, owner, strlen(owner)) & (entries->buckets - 1)];
}

static struct entry **label_bucket(const struct entries *entries, const char *namespace, size_t length,
                                   const char *value)
{
    uint32_t hash = entries_hash(entries, namespace, length) * 31 + entries_hash(entries, value, strlen(value));
    return &entries->by_label[hash & (entries->buckets - 1)];
}

/* ---- tables ----------------------------------------------------------------------------------------------------- */

/* A link's `next` is of the entry that holds it; which of the three links that is, the table says. */
#define LINK_INSERT(entry, member, head)                                                                               \
    do {                                                                                                               \
        (entry)->member.next = *(head);                                                                                \
        (entry)->member.from = (head);                                                                                 \
        if (*(head) != NULL)                                                                                           \
            (*(head))->member.from = &(entry)->member.next;                                                            \
        *(head) = (entry);                                                                                             \
    } while (0)

#define LINK_REMOVE(entry, member)                                                                                     \
    do {                                                                                                               \
        if ((entry)->member.from != NULL) {                                                                            \
            *(entry)->member.from = (entry)->member.next;                                                              \
            if ((entry)->member.next != NULL)                                                                          \
                (entry)->member.next->member.from = (entry)->member.from;                                              \
            (entry)->member.from = NULL;                                                                               \
        }                                                                                                              \
    } while (0)

static void link_view(const struct entries *entries, struct entry *entry)
{
    const struct version *version = entry_view(entry);
    const char *owner = version_at(version, version->owner);
    const char *label = version_at(version, version->label);
    if (*owner != '\0') {
        struct entry **head = owner_bucket(entries, owner);
        LINK_INSERT(entry, by_owner, head);
    }
    if (*label != '\0') {
        struct entry **head = label_bucket(entries, entry->key, namespace_length(entry->key), label);
        LINK_INSERT(entry, by_label, head);
    }
}

void entries_show(struct entries *entries, struct entry *entry)
{
    if (entry_view(entry) == NULL)
        return;
    link_view(entries, entry);
    entries->visible++;
    entries->bytes += entry_view(entry)->size;
}

void entries_hide(struct entries *entries, struct entry *entry)
{
    if (entry_view(entry) == NULL)
        return;
    LINK_REMOVE(entry, by_owner);
    LINK_REMOVE(entry, by_label);
    entries->visible--;
    entries->bytes -= entry_view(entry)->size;
}

static int make_tables(struct entries *entries, size_t buckets)
{
    struct entry **tables = calloc(buckets * 3, sizeof(struct entry *));
    if (tables == NULL)
        return -1;
    entries->by_key = tables;
    entries->by_owner = tables + buckets;
    entries->by_label = tables + buckets * 2;
    entries->buckets = buckets;
    return 0;
}

/* Replaces the three tables by larger ones. Without memory the old ones serve on, only slower. */
static void grow(struct entries *entries)
{
    struct entry **old = entries->by_key;
    size_t old_buckets = entries->buckets;
    if (make_tables(entries, old_buckets * 2) < 0)
        return;
    for (size_t i = 0; i < old_buckets; i++) {
        for (struct entry *entry = old[i], *next; entry != NULL; entry = next) {
            next = entry->by_key.next;
            struct entry **head = &entries->by_key[entry->hash & (entries->buckets - 1)];
            LINK_INSERT(entry, by_key, head);
            entry->by_owner = (struct link){0};
            entry->by_label = (struct link){0};
            if (entry_view(entry) != NULL)
                link_view(entries, entry);
        }
    }
    free(old);
}

struct entry *entries_find(const struct entries *entries, const char *key)
{
    uint32_t hash = entries_hash(entries, key, strlen(key));
    struct entry *entry = entries->by_key[hash & (entries->buckets - 1)];
    while (entry != NULL && (entry->hash != hash || strcmp(entry->key, key) != 0))
        entry = entry->by_key.next;
    return entry;
}

struct entry *entries_find_or_add(struct entries *entries, const char *key, struct error *err)
{
    struct entry *entry = entries_find(entries, key);
    if (entry != NULL)
        return entry;
    if (entries->count >= entries->most) {
        error_set(err, "more than %zu objects: '%s' is not kept", entries->most, key);
        return NULL;
    }
    if (entries->count >= entries->buckets)
        grow(entries);
    size_t size = strlen(key) + 1;
    entry = calloc(1, sizeof *entry + size);
    if (entry == NULL) {
        error_set(err, "out of memory for an object of the cache");
        return NULL;
    }
    memcpy(entry->key, key, size);
    entry->hash = entries_hash(entries, key, size - 1);
    struct entry **head = &entries->by_key[entry->hash & (entries->buckets - 1)];
    LINK_INSERT(entry, by_key, head);
    entries->count++;
    return entry;
}

void entries_remove(struct entries *entries, struct entry *entry)
{
    LINK_REMOVE(entry, by_key);
    entries->count--;
    free(entry);
}

/* ---- finding many ----------------------------------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(const struct entry *const *)a)->key, (*(const struct entry *const *)b)->key);
}

static void sort(const struct entry **found, size_t count)
{
    if (count > 1)
        qsort(found, count, sizeof(const struct entry *), compare_keys);
}

static bool owned_by(const struct entry *entry, const char *uid)
{
    const struct version *version = entry_view(entry);
    return strcmp(version_at(version, version->owner), uid) == 0;
}

const struct entry **entries_owned(const struct entries *entries, const char *owner_uid, size_t *count)
{
    const struct entry *head = *owner_bucket(entries, owner_uid);
    *count = 0;
    for (const struct entry *entry = head; entry != NULL; entry = entry->by_owner.next)
        *count += owned_by(entry, owner_uid);
    const struct entry **found = calloc(*count + 1, sizeof(const struct entry *));
    if (found == NULL)
        return NULL;
    size_t at = 0;
    for (const struct entry *entry = head; entry != NULL; entry = entry->by_owner.next)
        if (owned_by(entry, owner_uid))
            found[at++] = entry;
    sort(found, *count);
    return found;
}

static bool labelled(const struct entry *entry, const char *namespace, size_t length, const char *value)
{
    const struct version *version = entry_view(entry);
    return namespace_length(entry->key) == length && memcmp(entry->key, namespace, length) == 0 &&
           strcmp(version_at(version, version->label), value) == 0;
}

const struct entry **entries_labelled(const struct entries *entries, const char *namespace, const char *value,
                                      size_t *count)
{
    size_t length = strlen(namespace);
    const struct entry *head = *label_bucket(entries, namespace, length, value);
    *count = 0;
    for (const struct entry *entry = head; entry != NULL; entry = entry->by_label.next)
        *count += labelled(entry, namespace, length, value);
    const struct entry **found = calloc(*count + 1, sizeof(const struct entry *));
    if (found == NULL)
        return NULL;
    size_t at = 0;
    for (const struct entry *entry = head; entry != NULL; entry = entry->by_label.next)
        if (labelled(entry, namespace, length, value))
            found[at++] = entry;
    sort(found, *count);
    return found;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

int entries_init(struct entries *entries, size_t most, struct error *err)
{
    *entries = (struct entries){.most = most, .seed = (uint32_t)random_u64()};
    return make_tables(entries, FIRST_BUCKETS) < 0 ? error_set(err, "out of memory for a cache") : 0;
}

void entries_free(struct entries *entries)
{
    for (size_t i = 0; i < entries->buckets; i++) {
        for (struct entry *entry = entries->by_key[i], *next; entry != NULL; entry = next) {
            next = entry->by_key.next;
            free(entry->watched);
            overlay_free(entry->overlay);
            free(entry);
        }
    }
    free(entries->by_key);
}
