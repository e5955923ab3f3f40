/* entries — what is known of each object, in three hash tables: by key, by owner and by label; private to kube's cache.
 *
 * An entry's view is what reconcilers see: an own write where one lies over the entry, else what was watched. Two of
 * the tables and the sums are of views: entries_hide() before a view changes, entries_show() after.
 */
#ifndef THOLE_OPERATOR_KUBE_ENTRIES_H
#define THOLE_OPERATOR_KUBE_ENTRIES_H

#include "kube/version.h"

#include <stddef.h>
#include <stdint.h>

enum { ENTRY_RECENT = 4 };

/* An own write that the watch has not shown yet. */
struct overlay {
    struct version *version; /* NULL: deleted */
    char *uid;               /* of what was deleted */
    struct instant expires;
    uint64_t list; /* the list that was newest when it was written */
    struct entry *entry;
    struct overlay *next, *previous; /* by expiry */
};
void overlay_free(struct overlay *overlay);

struct link {
    struct entry *next, **from;
};

struct entry {
    struct link by_key, by_owner, by_label;
    uint32_t hash; /* of the key */
    struct version *watched;
    struct overlay *overlay;
    uint64_t list; /* the newest list that named it */
    /* Among those that are not squeezed, by the time of the last change; 0: not among them. */
    struct entry *next_warm, *previous_warm;
    int64_t warm_since;
    /* Hashes of the versions that the watch showed last: an own write among them is old news. */
    uint32_t recent[ENTRY_RECENT];
    unsigned recent_next;
    char key[];
};

/* NULL: there is no such object now. */
static inline const struct version *entry_view(const struct entry *entry)
{
    return entry->overlay != NULL ? entry->overlay->version : entry->watched;
}

struct entries {
    struct entry **by_key, **by_owner, **by_label;
    size_t buckets; /* of each, a power of two */
    size_t count, most;
    size_t visible, bytes; /* of the views */
    uint32_t seed;
};

int entries_init(struct entries *entries, size_t most, struct error *err);
void entries_free(struct entries *entries);

uint32_t entries_hash(const struct entries *entries, const char *text, size_t length);

struct entry *entries_find(const struct entries *entries, const char *key); /* or NULL */
/* One that is added is empty; NULL with *err set where there would be too many, or no memory. */
struct entry *entries_find_or_add(struct entries *entries, const char *key, struct error *err);
/* Frees an entry that is hidden and holds nothing. */
void entries_remove(struct entries *entries, struct entry *entry);

void entries_hide(struct entries *entries, struct entry *entry);
void entries_show(struct entries *entries, struct entry *entry);

/* Those whose view has this owner; those of `namespace` whose view has this label: sorted by key, to be freed. NULL
 * without memory. */
const struct entry **entries_owned(const struct entries *entries, const char *owner_uid, size_t *count);
const struct entry **entries_labelled(const struct entries *entries, const char *namespace, const char *value,
                                      size_t *count);

#endif
