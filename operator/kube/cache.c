#include "kube/cache.h"

#include "kube/entries.h"

#include <stdlib.h>
#include <string.h>

static const int64_t overlay_life = 30 * SECONDS;
static const int64_t warm = 60 * SECONDS; /* what has not changed for so long is squeezed */

enum { OBJECTS_MOST = 1000000, SQUEEZED_AT_ONCE = 16 };

struct kube_cache {
    kube_project *project;
    char *label;
    kube_cache_handler *handler;
    void *arg;

    struct entries entries;
    uint64_t list; /* lists that have begun */
    struct overlay *oldest, *newest;
    struct entry *coolest, *warmest;
    struct pattern pattern;
    struct instant now; /* of the call */
};

/* ---- what has changed lately ------------------------------------------------------------------------------------ */

static void cool(struct kube_cache *cache, struct entry *entry)
{
    if (entry->warm_since == 0)
        return;
    if (entry->previous_warm != NULL)
        entry->previous_warm->next_warm = entry->next_warm;
    else
        cache->coolest = entry->next_warm;
    if (entry->next_warm != NULL)
        entry->next_warm->previous_warm = entry->previous_warm;
    else
        cache->warmest = entry->previous_warm;
    entry->warm_since = 0;
}

static void warm_up(struct kube_cache *cache, struct entry *entry)
{
    cool(cache, entry);
    entry->warm_since = cache->now.nanoseconds > 0 ? cache->now.nanoseconds : 1;
    entry->next_warm = NULL;
    entry->previous_warm = cache->warmest;
    if (cache->warmest != NULL)
        cache->warmest->next_warm = entry;
    else
        cache->coolest = entry;
    cache->warmest = entry;
}

static void drop_if_empty(struct kube_cache *cache, struct entry *entry)
{
    if (entry->watched != NULL || entry->overlay != NULL)
        return;
    cool(cache, entry);
    entries_remove(&cache->entries, entry);
}

/* ---- changes of the view ---------------------------------------------------------------------------------------- */

static void tell(struct kube_cache *cache, enum kube_change change, const char *key, const struct version *version,
                 const cJSON *object)
{
    if (cache->handler == NULL)
        return;
    cleanup_json cJSON *unpacked = object == NULL ? version_unpack(version, &cache->pattern) : NULL;
    cache->handler(cache->arg, change, key, object == NULL ? unpacked : object);
}

/* Says what differs between the view before and after. `object` is what comes after, or NULL where it must be unpacked.
 */
static void tell_difference(struct kube_cache *cache, const struct entry *entry, const struct version *before,
                            const cJSON *object)
{
    const struct version *after = entry_view(entry);
    if (before == NULL && after == NULL)
        return;
    if (before == NULL) {
        tell(cache, KUBE_APPEARED, entry->key, after, object);
    } else if (after == NULL) {
        tell(cache, KUBE_VANISHED, entry->key, before, NULL);
    } else if (strcmp(version_uid(before), version_uid(after)) != 0) {
        tell(cache, KUBE_VANISHED, entry->key, before, NULL);
        tell(cache, KUBE_APPEARED, entry->key, after, object);
    } else if (!version_same(before, after)) {
        tell(cache, KUBE_CHANGED, entry->key, after, object);
    }
}

static void unlink_overlay(struct kube_cache *cache, struct overlay *overlay)
{
    if (overlay->previous != NULL)
        overlay->previous->next = overlay->next;
    else
        cache->oldest = overlay->next;
    if (overlay->next != NULL)
        overlay->next->previous = overlay->previous;
    else
        cache->newest = overlay->previous;
}

/* Makes `watched` and `overlay` (both taken over) what the entry holds, keeps the indexes, and tells the change.
 * `object` is what the new one of them was packed from, or NULL. The entry may be gone afterwards. */
static void replace(struct kube_cache *cache, struct entry *entry, struct version *watched, struct overlay *overlay,
                    const cJSON *object)
{
    const struct version *before = entry_view(entry);
    struct version *old_watched = entry->watched;
    struct overlay *old_overlay = entry->overlay;
    entries_hide(&cache->entries, entry);
    if (old_overlay != overlay && old_overlay != NULL)
        unlink_overlay(cache, old_overlay);
    if (old_overlay != overlay && overlay != NULL) {
        overlay->previous = cache->newest;
        if (cache->newest != NULL)
            cache->newest->next = overlay;
        else
            cache->oldest = overlay;
        cache->newest = overlay;
    }
    entry->watched = watched;
    entry->overlay = overlay;
    entries_show(&cache->entries, entry);
    bool is_seen = entry_view(entry) == (overlay != old_overlay && overlay != NULL ? overlay->version : watched);
    tell_difference(cache, entry, before, is_seen ? object : NULL);
    if (old_watched != watched)
        free(old_watched);
    if (old_overlay != overlay)
        overlay_free(old_overlay);
    warm_up(cache, entry);
    drop_if_empty(cache, entry);
}

/* ---- what the watch shows --------------------------------------------------------------------------------------- */

static uint32_t hash_version(const struct kube_cache *cache, const char *resource_version)
{
    uint32_t hash = entries_hash(&cache->entries, resource_version, strlen(resource_version));
    return hash == 0 ? 1 : hash; /* 0 is an empty place */
}

static void remember_shown(const struct kube_cache *cache, struct entry *entry, const struct version *version)
{
    entry->recent[entry->recent_next++ % ENTRY_RECENT] =
        hash_version(cache, version_at(version, version->resource_version));
}

static bool shown_before(const struct kube_cache *cache, const struct entry *entry, const struct version *version)
{
    uint32_t hash = hash_version(cache, version_at(version, version->resource_version));
    for (int i = 0; i < ENTRY_RECENT; i++)
        if (entry->recent[i] == hash)
            return true;
    return false;
}

/* The overlay that is left once the watch has shown `version`. */
static struct overlay *overlay_after(struct entry *entry, const struct version *version)
{
    struct overlay *overlay = entry->overlay;
    if (overlay == NULL)
        return NULL;
    if (overlay->version == NULL) /* ours is a delete: only another object's life ends it here */
        return strcmp(overlay->uid, version_uid(version)) == 0 ? overlay : NULL;
    return version_same(overlay->version, version) ? NULL : overlay;
}

static int observe_applied(struct kube_cache *cache, cJSON *object, struct error *err)
{
    struct kube_key key;
    if (kube_key_of(&key, object) < 0)
        return error_set(err, "an object of the API server has no usable name");
    struct entry *entry = entries_find_or_add(&cache->entries, key.text, err);
    if (entry == NULL)
        return -1;
    struct version *version = version_pack(object, cache->project, cache->label, err);
    if (version == NULL) {
        drop_if_empty(cache, entry);
        return -1;
    }
    entry->list = cache->list;
    remember_shown(cache, entry, version);
    replace(cache, entry, version, overlay_after(entry, version), object);
    return 0;
}

static int observe_deleted(struct kube_cache *cache, const cJSON *object, struct error *err)
{
    struct kube_key key;
    if (kube_key_of(&key, object) < 0)
        return error_set(err, "an object of the API server has no usable name");
    struct entry *entry = entries_find(&cache->entries, key.text);
    if (entry == NULL)
        return 0;
    /* What lies over it stays only where it belongs to a successor of the same name. */
    const char *uid = json_string(object, "metadata.uid", "");
    struct overlay *overlay = entry->overlay;
    if (overlay != NULL && (overlay->version == NULL || strcmp(version_uid(overlay->version), uid) == 0))
        overlay = NULL;
    replace(cache, entry, NULL, overlay, NULL);
    return 0;
}

/* Drops what the list that has just ended did not name, and own writes that were made before it began. */
static void sweep(struct kube_cache *cache)
{
    for (size_t i = 0; i < cache->entries.buckets; i++) {
        for (struct entry *entry = cache->entries.by_key[i], *next; entry != NULL; entry = next) {
            next = entry->by_key.next;
            struct version *watched = entry->list == cache->list ? entry->watched : NULL;
            struct overlay *overlay = entry->overlay;
            if (overlay != NULL && overlay->list < cache->list)
                overlay = NULL;
            if (watched != entry->watched || overlay != entry->overlay)
                replace(cache, entry, watched, overlay, NULL);
        }
    }
}

int kube_cache_observe(struct kube_cache *cache, enum kube_watch_event_type type, cJSON *object, struct instant now,
                       struct error *err)
{
    kube_cache_expire(cache, now);
    switch (type) {
    case KUBE_WATCH_LISTING:
        cache->list++;
        return 0;
    case KUBE_WATCH_APPLIED:
        return observe_applied(cache, object, err);
    case KUBE_WATCH_DELETED:
        return observe_deleted(cache, object, err);
    case KUBE_WATCH_LISTED:
        sweep(cache);
        return 0;
    }
    return 0;
}

/* ---- our own writes --------------------------------------------------------------------------------------------- */

static struct overlay *overlay_new(const struct kube_cache *cache, struct entry *entry, struct instant now)
{
    struct overlay *overlay = calloc(1, sizeof *overlay);
    if (overlay == NULL)
        return NULL;
    overlay->entry = entry;
    overlay->list = cache->list;
    overlay->expires = (struct instant){now.nanoseconds + overlay_life};
    return overlay;
}

int kube_cache_wrote(struct kube_cache *cache, const cJSON *answer, struct instant now, struct error *err)
{
    kube_cache_expire(cache, now);
    struct kube_key key;
    if (kube_key_of(&key, answer) < 0)
        return error_set(err, "the answer to a write has no usable name");
    cleanup_json cJSON *object = cJSON_Duplicate(answer, true);
    cleanup_free struct version *version =
        object == NULL ? NULL : version_pack(object, cache->project, cache->label, err);
    if (version == NULL)
        return error_set(err, "out of memory for an object of the cache");
    struct entry *entry = entries_find_or_add(&cache->entries, key.text, err);
    if (entry == NULL)
        return -1;
    if (shown_before(cache, entry, version))
        return 0;
    struct overlay *overlay = overlay_new(cache, entry, now);
    if (overlay == NULL) {
        drop_if_empty(cache, entry);
        return error_set(err, "out of memory for an object of the cache");
    }
    overlay->version = move(version);
    replace(cache, entry, entry->watched, overlay, object);
    return 0;
}

int kube_cache_removed(struct kube_cache *cache, const char *key, const char *uid, struct instant now,
                       struct error *err)
{
    kube_cache_expire(cache, now);
    struct entry *entry = entries_find(&cache->entries, key);
    const struct version *version = entry == NULL ? NULL : entry_view(entry);
    if (version == NULL || strcmp(version_uid(version), uid) != 0)
        return 0;
    struct overlay *overlay = overlay_new(cache, entry, now);
    if (overlay != NULL)
        overlay->uid = strdup(uid);
    if (overlay == NULL || overlay->uid == NULL) {
        overlay_free(overlay);
        return error_set(err, "out of memory for an object of the cache");
    }
    replace(cache, entry, entry->watched, overlay, NULL);
    return 0;
}

struct instant kube_cache_expire(struct kube_cache *cache, struct instant now)
{
    cache->now = now;
    while (cache->oldest != NULL && cache->oldest->expires.nanoseconds <= now.nanoseconds)
        replace(cache, cache->oldest->entry, cache->oldest->entry->watched, NULL, NULL);
    return cache->oldest == NULL ? (struct instant){0} : cache->oldest->expires;
}

static void squeeze_entry(struct kube_cache *cache, struct entry *entry)
{
    struct version *squeezed = entry->watched == NULL ? NULL : version_squeeze(entry->watched, &cache->pattern);
    if (squeezed == NULL)
        return;
    if (entry_view(entry) == entry->watched)
        cache->entries.bytes -= entry->watched->size - squeezed->size;
    free(entry->watched);
    entry->watched = squeezed;
}

void kube_cache_squeeze(struct kube_cache *cache, struct instant now)
{
    for (int i = 0; i < SQUEEZED_AT_ONCE && cache->coolest != NULL; i++) {
        struct entry *entry = cache->coolest;
        if (entry->warm_since + warm > now.nanoseconds)
            return;
        squeeze_entry(cache, entry);
        cool(cache, entry);
    }
}

struct instant kube_cache_due(const struct kube_cache *cache)
{
    int64_t expiry = cache->oldest == NULL ? 0 : cache->oldest->expires.nanoseconds;
    int64_t cold = cache->coolest == NULL ? 0 : cache->coolest->warm_since + warm;
    bool expires_first = expiry != 0 && (cold == 0 || expiry < cold);
    return (struct instant){expires_first ? expiry : cold};
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

cJSON *kube_cache_get(const struct kube_cache *cache, const char *key)
{
    const struct entry *entry = entries_find(&cache->entries, key);
    const struct version *version = entry == NULL ? NULL : entry_view(entry);
    return version == NULL ? NULL : version_unpack(version, &cache->pattern);
}

/* Takes `found` over: its objects as an array. */
static cJSON *unpack(const struct kube_cache *cache, const struct entry **found, size_t count)
{
    cleanup_free const struct entry **entries = found;
    cleanup_json cJSON *array = entries == NULL ? NULL : cJSON_CreateArray();
    for (size_t i = 0; i < count && array != NULL; i++) {
        cJSON *object = version_unpack(entry_view(entries[i]), &cache->pattern);
        if (object == NULL)
            return NULL;
        cJSON_AddItemToArray(array, object);
    }
    return move(array);
}

cJSON *kube_cache_owned(const struct kube_cache *cache, const char *owner_uid)
{
    size_t count = 0;
    const struct entry **found = entries_owned(&cache->entries, owner_uid, &count);
    return unpack(cache, found, count);
}

cJSON *kube_cache_labelled(const struct kube_cache *cache, const char *namespace, const char *value)
{
    size_t count = 0;
    const struct entry **found = entries_labelled(&cache->entries, namespace, value, &count);
    return unpack(cache, found, count);
}

void kube_cache_keys(const struct kube_cache *cache, kube_cache_visit *visit, void *arg)
{
    for (size_t i = 0; i < cache->entries.buckets; i++)
        for (const struct entry *entry = cache->entries.by_key[i]; entry != NULL; entry = entry->by_key.next)
            if (entry_view(entry) != NULL)
                visit(arg, entry->key);
}

cJSON *kube_cache_debug(const struct kube_cache *cache, const char *key, struct instant now)
{
    cJSON *json = cJSON_CreateObject();
    const struct entry *entry = entries_find(&cache->entries, key);
    const struct version *watched = entry == NULL ? NULL : entry->watched;
    const struct overlay *overlay = entry == NULL ? NULL : entry->overlay;
    if (watched != NULL)
        cJSON_AddStringToObject(json, "watchedVersion", version_at(watched, watched->resource_version));
    if (overlay != NULL) {
        cJSON *own = cJSON_AddObjectToObject(json, "ownWrite");
        if (overlay->version == NULL)
            cJSON_AddTrueToObject(own, "deleted");
        else
            cJSON_AddStringToObject(own, "version", version_at(overlay->version, overlay->version->resource_version));
        cJSON_AddNumberToObject(own, "expiresInSeconds",
                                (double)instant_since(overlay->expires, now) / (double)SECONDS);
    }
    cJSON_AddItemToObject(json, "object", entry == NULL ? NULL : kube_cache_get(cache, key));
    return json;
}

size_t kube_cache_count(const struct kube_cache *cache)
{
    return cache->entries.visible;
}

size_t kube_cache_bytes(const struct kube_cache *cache)
{
    return cache->entries.bytes;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

struct kube_cache *kube_cache_new(kube_project *project, const char *label, size_t most_objects, struct error *err)
{
    cleanup_kube_cache struct kube_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) {
        error_set(err, "out of memory for a cache");
        return NULL;
    }
    if (entries_init(&cache->entries, most_objects == 0 ? OBJECTS_MOST : most_objects, err) < 0)
        return NULL;
    cache->project = project;
    if (label != NULL && (cache->label = strdup(label)) == NULL) {
        error_set(err, "out of memory for a cache");
        return NULL;
    }
    return move(cache);
}

void kube_cache_free(struct kube_cache *cache)
{
    if (cache == NULL)
        return;
    entries_free(&cache->entries);
    pattern_free(&cache->pattern);
    free(cache->label);
    free(cache);
}

void kube_cache_on_change(struct kube_cache *cache, kube_cache_handler *handler, void *arg)
{
    cache->handler = handler;
    cache->arg = arg;
}
