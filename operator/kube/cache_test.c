#include "kube/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A story is a list of steps, and what the cache told at each: "+key@version" appeared, "~" changed, "-" vanished.
 * Steps:  list | end | see NAME UID VERSION | gone NAME UID | wrote NAME UID VERSION | removed NAME UID | wait SECONDS
 */
struct step {
    const char *what;
    const char *told;
};

struct told {
    struct buffer text;
};

static void on_change(void *arg, enum kube_change change, const char *key, const cJSON *object)
{
    struct told *told = arg;
    buffer_printf(&told->text, NULL, "%s%c%s@%s", told->text.length > 0 ? " " : "", "+~-"[change], key,
                  json_string(object, "metadata.resourceVersion", "?"));
}

static cJSON *object_of(const char *name, const char *uid, const char *version)
{
    cJSON *object = cJSON_CreateObject();
    json_put(object, "metadata.namespace", cJSON_CreateString("n"), NULL);
    json_put(object, "metadata.name", cJSON_CreateString(name), NULL);
    json_put(object, "metadata.uid", cJSON_CreateString(uid), NULL);
    json_put(object, "metadata.resourceVersion", cJSON_CreateString(version), NULL);
    json_put(object, "metadata.managedFields", cJSON_CreateArray(), NULL);
    return object;
}

static void play(struct kube_cache *cache, const char *step, struct instant *now)
{
    char verb[16] = "";
    char name[16] = "";
    char uid[16] = "";
    char version[16] = "";
    sscanf(step, "%15s %15s %15s %15s", verb, name, uid, version);
    cleanup_json cJSON *object = object_of(name, uid, version);
    int result = 0;
    if (strcmp(verb, "list") == 0)
        result = kube_cache_observe(cache, KUBE_WATCH_LISTING, NULL, *now, NULL);
    else if (strcmp(verb, "end") == 0)
        result = kube_cache_observe(cache, KUBE_WATCH_LISTED, NULL, *now, NULL);
    else if (strcmp(verb, "see") == 0)
        result = kube_cache_observe(cache, KUBE_WATCH_APPLIED, object, *now, NULL);
    else if (strcmp(verb, "gone") == 0)
        result = kube_cache_observe(cache, KUBE_WATCH_DELETED, object, *now, NULL);
    else if (strcmp(verb, "wrote") == 0)
        result = kube_cache_wrote(cache, object, *now, NULL);
    else if (strcmp(verb, "removed") == 0) {
        struct kube_key key;
        kube_key_make(&key, "n", name);
        result = kube_cache_removed(cache, key.text, uid, *now, NULL);
    } else if (strcmp(verb, "wait") == 0) {
        now->nanoseconds += strtol(name, NULL, 10) * SECONDS;
        kube_cache_expire(cache, *now);
        kube_cache_squeeze(cache, *now);
    } else {
        fail_msg("no such step: %s", step);
    }
    assert_int_equal(result, 0);
}

static const struct story {
    const char *name;
    struct step steps[12];
} stories[] = {
    {"a list, then changes",
     {{"list", ""},
      {"see a u1 1", "+n/a@1"},
      {"see b u2 2", "+n/b@2"},
      {"end", ""},
      {"see a u1 3", "~n/a@3"},
      {"gone b u2", "-n/b@2"}}},
    {"the same version again is no change", {{"see a u1 1", "+n/a@1"}, {"see a u1 1", ""}}},
    {"a new list drops what it does not name",
     {{"list", ""},
      {"see a u1 1", "+n/a@1"},
      {"see b u2 2", "+n/b@2"},
      {"end", ""},
      {"list", ""},
      {"see b u2 2", ""},
      {"end", "-n/a@1"}}},
    {"an interrupted list drops nothing",
     {{"list", ""},
      {"see a u1 1", "+n/a@1"},
      {"end", ""},
      {"list", ""},
      {"list", ""},
      {"see a u1 1", ""},
      {"end", ""}}},
    {"a successor of the same name", {{"see a u1 1", "+n/a@1"}, {"see a u2 2", "-n/a@1 +n/a@2"}}},
    {"deleting what is unknown", {{"gone a u1", ""}}},
    {"an own write shows at once and stays against an older event",
     {{"see a u1 1", "+n/a@1"},
      {"wrote a u1 3", "~n/a@3"},
      {"see a u1 2", ""},
      {"see a u1 3", ""},
      {"see a u1 4", "~n/a@4"}}},
    {"an own creation", {{"wrote a u1 3", "+n/a@3"}, {"see a u1 3", ""}, {"gone a u1", "-n/a@3"}}},
    {"an own write that the watch had shown already",
     {{"see a u1 3", "+n/a@3"}, {"wrote a u1 3", ""}, {"see a u1 2", "~n/a@2"}}},
    {"an own write that the watch has gone beyond",
     {{"see a u1 3", "+n/a@3"},
      {"see a u1 4", "~n/a@4"},
      {"see a u1 5", "~n/a@5"},
      {"wrote a u1 3", ""},
      {"see a u1 6", "~n/a@6"}}},
    {"the later of two own writes counts",
     {{"wrote a u1 1", "+n/a@1"},
      {"wrote a u1 2", "~n/a@2"},
      {"see a u1 1", ""},
      {"see a u1 2", ""},
      {"see a u1 3", "~n/a@3"}}},
    {"an own write is given up after 30 s",
     {{"see a u1 1", "+n/a@1"}, {"wrote a u1 3", "~n/a@3"}, {"wait 29", ""}, {"wait 1", "~n/a@1"}}},
    {"an own creation that never shows", {{"wrote a u1 3", "+n/a@3"}, {"wait 30", "-n/a@3"}}},
    {"somebody deletes what was just written",
     {{"see a u1 1", "+n/a@1"}, {"wrote a u1 3", "~n/a@3"}, {"gone a u1", "-n/a@3"}}},
    {"a list that began before the write does not undo it",
     {{"list", ""}, {"wrote a u1 3", "+n/a@3"}, {"end", ""}, {"see a u1 3", ""}}},
    {"a list that began after the write decides", {{"wrote a u1 3", "+n/a@3"}, {"list", ""}, {"end", "-n/a@3"}}},
    {"a list shows a write of its time",
     {{"list", ""},
      {"see a u1 1", "+n/a@1"},
      {"wrote a u1 3", "~n/a@3"},
      {"end", ""},
      {"list", ""},
      {"see a u1 4", ""},
      {"end", "~n/a@4"}}},
    {"an own delete shows at once",
     {{"see a u1 1", "+n/a@1"}, {"removed a u1", "-n/a@1"}, {"see a u1 2", ""}, {"gone a u1", ""}}},
    {"an own delete and a successor", {{"see a u1 1", "+n/a@1"}, {"removed a u1", "-n/a@1"}, {"see a u2 3", "+n/a@3"}}},
    {"an own delete of what is another already", {{"see a u2 1", "+n/a@1"}, {"removed a u1", ""}}},
    {"an own delete that does not happen",
     {{"see a u1 1", "+n/a@1"}, {"removed a u1", "-n/a@1"}, {"wait 30", "+n/a@1"}}},
    {"deleted and created again by us",
     {{"see a u1 1", "+n/a@1"},
      {"removed a u1", "-n/a@1"},
      {"wrote a u2 5", "+n/a@5"},
      {"gone a u1", ""},
      {"see a u2 5", ""}}},
    {"what we created replaces a predecessor",
     {{"see a u1 1", "+n/a@1"}, {"wrote a u2 5", "-n/a@1 +n/a@5"}, {"gone a u1", ""}}},
};

static void stories_are_told_as_expected(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof stories / sizeof stories[0]; i++) {
        cleanup_kube_cache struct kube_cache *cache = kube_cache_new(NULL, NULL, 0, NULL);
        struct told told;
        buffer_init(&told.text, 1000);
        kube_cache_on_change(cache, on_change, &told);
        struct instant now = {1000 * SECONDS};
        for (size_t j = 0; stories[i].steps[j].what != NULL; j++) {
            buffer_clear(&told.text);
            play(cache, stories[i].steps[j].what, &now);
            if (strcmp(buffer_text(&told.text), stories[i].steps[j].told) != 0)
                fail_msg("%s: '%s' told '%s' instead of '%s'", stories[i].name, stories[i].steps[j].what,
                         buffer_text(&told.text), stories[i].steps[j].told);
        }
        buffer_free(&told.text);
    }
}

static void keep_only_data(cJSON *object)
{
    cJSON_DeleteItemFromObject(object, "spec");
}

static cJSON *child_of(const char *namespace, const char *name, const char *owner, const char *job)
{
    cJSON *object = object_of(name, name, "1");
    json_put(object, "metadata.namespace", cJSON_CreateString(namespace), NULL);
    json_put(object, "spec.large", cJSON_CreateString("xxxxxxxxxxxxxxxxxxxxxx"), NULL);
    cJSON *labels = cJSON_CreateObject();
    cJSON_AddStringToObject(labels, "thole.dev/job", job);
    json_put(object, "metadata.labels", labels, NULL);
    cJSON *owners = cJSON_CreateArray();
    cJSON *other = cJSON_CreateObject();
    cJSON_AddStringToObject(other, "uid", "somebody");
    cJSON_AddItemToArray(owners, other);
    cJSON *reference = cJSON_CreateObject();
    cJSON_AddStringToObject(reference, "uid", owner);
    cJSON_AddBoolToObject(reference, "controller", true);
    cJSON_AddItemToArray(owners, reference);
    json_put(object, "metadata.ownerReferences", owners, NULL);
    return object;
}

static void see(struct kube_cache *cache, cJSON *object)
{
    assert_int_equal(kube_cache_observe(cache, KUBE_WATCH_APPLIED, object, (struct instant){0}, NULL), 0);
    cJSON_Delete(object);
}

static void names_are(cJSON *array, const char *expected)
{
    char names[256] = "";
    const cJSON *object = NULL;
    cJSON_ArrayForEach(object, array)
    {
        size_t length = strlen(names);
        snprintf(names + length, sizeof names - length, "%s ", json_string(object, "metadata.name", "?"));
    }
    assert_string_equal(names, expected);
    cJSON_Delete(array);
}

static void indexes_follow_the_view(void **state)
{
    (void)state;
    cleanup_kube_cache struct kube_cache *cache = kube_cache_new(keep_only_data, "thole.dev/job", 0, NULL);
    see(cache, child_of("n", "b", "owner-1", "lenet"));
    see(cache, child_of("n", "a", "owner-1", "lenet"));
    see(cache, child_of("n", "c", "owner-2", "lenet"));
    see(cache, child_of("m", "d", "owner-1", "lenet"));
    names_are(kube_cache_owned(cache, "owner-1"), "d a b ");
    names_are(kube_cache_owned(cache, "owner-2"), "c ");
    names_are(kube_cache_owned(cache, "somebody"), "");
    names_are(kube_cache_labelled(cache, "n", "lenet"), "a b c ");
    names_are(kube_cache_labelled(cache, "m", "lenet"), "d ");
    names_are(kube_cache_labelled(cache, "m", "mlp"), "");

    cleanup_json cJSON *written = child_of("n", "a", "owner-2", "mlp");
    json_put(written, "metadata.resourceVersion", cJSON_CreateString("2"), NULL);
    assert_int_equal(kube_cache_wrote(cache, written, (struct instant){0}, NULL), 0);
    assert_non_null(json_at(written, "spec.large")); /* the answer itself is not pruned */
    names_are(kube_cache_owned(cache, "owner-1"), "d b ");
    names_are(kube_cache_owned(cache, "owner-2"), "a c ");
    names_are(kube_cache_labelled(cache, "n", "mlp"), "a ");

    cleanup_json cJSON *read = kube_cache_get(cache, "n/a");
    assert_non_null(read);
    assert_null(json_at(read, "spec"));
    assert_null(json_at(read, "metadata.managedFields"));
    assert_null(kube_cache_get(cache, "n/nothing"));
    assert_int_equal(kube_cache_count(cache), 4);
}

static void count_key(void *arg, const char *key)
{
    (void)key;
    (*(size_t *)arg)++;
}

static void many_objects_grow_the_tables_and_leave_nothing(void **state)
{
    (void)state;
    enum { MANY = 5000 };
    cleanup_kube_cache struct kube_cache *cache = kube_cache_new(NULL, "thole.dev/job", MANY, NULL);
    char name[32];
    char owner[32];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "object-%d", i);
        snprintf(owner, sizeof owner, "owner-%d", i / 5);
        see(cache, child_of("n", name, owner, owner));
    }
    struct error err = {0};
    cleanup_json cJSON *over = child_of("n", "over", "o", "j");
    assert_int_equal(kube_cache_observe(cache, KUBE_WATCH_APPLIED, over, (struct instant){0}, &err), -1);
    assert_non_null(strstr(error_message(&err), "more than 5000 objects"));
    for (int i = 0; i < MANY / 5; i++) {
        snprintf(owner, sizeof owner, "owner-%d", i);
        cleanup_json cJSON *owned = kube_cache_owned(cache, owner);
        cleanup_json cJSON *labelled = kube_cache_labelled(cache, "n", owner);
        assert_int_equal(cJSON_GetArraySize(owned), 5);
        assert_int_equal(cJSON_GetArraySize(labelled), 5);
    }
    size_t keys = 0;
    kube_cache_keys(cache, count_key, &keys);
    assert_int_equal(keys, MANY);
    assert_true(kube_cache_bytes(cache) > 0);
    kube_cache_observe(cache, KUBE_WATCH_LISTING, NULL, (struct instant){0}, NULL);
    kube_cache_observe(cache, KUBE_WATCH_LISTED, NULL, (struct instant){0}, NULL);
    assert_int_equal(kube_cache_count(cache), 0);
    assert_int_equal(kube_cache_bytes(cache), 0);
}

static cJSON *large_object(int number)
{
    char text[64];
    cJSON *object = object_of("a", "u", "1");
    snprintf(text, sizeof text, "object-%d", number);
    json_put(object, "metadata.name", cJSON_CreateString(text), NULL);
    snprintf(text, sizeof text, "%08x-1111-2222-3333-444455556666", (unsigned)number * 2654435761u);
    json_put(object, "metadata.uid", cJSON_CreateString(text), NULL);
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < 20; i++) {
        snprintf(text, sizeof text, "a sentence of which %d are in every object", i);
        cJSON_AddItemToArray(list, cJSON_CreateString(text));
    }
    cJSON_AddItemToObject(object, "spec", list);
    cJSON_DeleteItemFromObject((cJSON *)json_at(object, "metadata"), "managedFields");
    return object;
}

static void check_object(const struct kube_cache *cache, const cJSON *want)
{
    struct kube_key key;
    kube_key_of(&key, want);
    cleanup_json cJSON *got = kube_cache_get(cache, key.text);
    assert_true(json_equal(got, want));
}

static void what_is_old_is_squeezed_and_reads_as_before(void **state)
{
    (void)state;
    enum { SOME = 100 };
    struct instant now = {1 * SECONDS};
    cleanup_kube_cache struct kube_cache *cache = kube_cache_new(NULL, NULL, 0, NULL);
    assert_int_equal(kube_cache_due(cache).nanoseconds, 0);
    for (int i = 0; i < SOME; i++) {
        cleanup_json cJSON *object = large_object(i);
        assert_int_equal(kube_cache_observe(cache, KUBE_WATCH_APPLIED, object, now, NULL), 0);
    }
    size_t before = kube_cache_bytes(cache);
    assert_int_equal(kube_cache_due(cache).nanoseconds, 61 * SECONDS);
    kube_cache_squeeze(cache, (struct instant){60 * SECONDS});
    assert_int_equal(kube_cache_bytes(cache), before);

    /* One that changes meanwhile is young again. */
    cleanup_json cJSON *changed = large_object(7);
    json_put(changed, "metadata.resourceVersion", cJSON_CreateString("2"), NULL);
    kube_cache_wrote(cache, changed, (struct instant){60 * SECONDS}, NULL);
    kube_cache_observe(cache, KUBE_WATCH_APPLIED, changed, (struct instant){60 * SECONDS}, NULL);
    for (int i = 0; i < SOME && kube_cache_due(cache).nanoseconds == 61 * SECONDS; i++)
        kube_cache_squeeze(cache, (struct instant){61 * SECONDS});
    assert_int_equal(kube_cache_due(cache).nanoseconds, 120 * SECONDS);
    assert_true(kube_cache_bytes(cache) < before / 4);

    struct told told;
    buffer_init(&told.text, 1 << 16);
    kube_cache_on_change(cache, on_change, &told);
    check_object(cache, changed);
    for (int i = 0; i < SOME; i++) {
        cleanup_json cJSON *object = large_object(i);
        if (i != 7)
            check_object(cache, object);
        kube_cache_observe(cache, KUBE_WATCH_DELETED, object, (struct instant){61 * SECONDS}, NULL);
    }
    assert_memory_equal(buffer_text(&told.text), "-n/object-0@1 -n/object-1@1 ", 28);
    assert_int_equal(kube_cache_bytes(cache), 0);
    assert_int_equal(kube_cache_due(cache).nanoseconds, 0);
    buffer_free(&told.text);
}

static void the_next_expiry_is_told(void **state)
{
    (void)state;
    cleanup_kube_cache struct kube_cache *cache = kube_cache_new(NULL, NULL, 0, NULL);
    assert_int_equal(kube_cache_expire(cache, (struct instant){5}).nanoseconds, 0);
    cleanup_json cJSON *a = object_of("a", "u", "1");
    cleanup_json cJSON *b = object_of("b", "u", "1");
    kube_cache_wrote(cache, a, (struct instant){5}, NULL);
    kube_cache_wrote(cache, b, (struct instant){7}, NULL);
    assert_int_equal(kube_cache_expire(cache, (struct instant){8}).nanoseconds, 5 + 30 * SECONDS);
    assert_int_equal(kube_cache_expire(cache, (struct instant){5 + 30 * SECONDS}).nanoseconds, 7 + 30 * SECONDS);
    assert_int_equal(kube_cache_count(cache), 1);
    assert_int_equal(kube_cache_expire(cache, (struct instant){7 + 30 * SECONDS}).nanoseconds, 0);
    assert_int_equal(kube_cache_count(cache), 0);
}

static void an_object_without_a_name_is_refused(void **state)
{
    (void)state;
    cleanup_kube_cache struct kube_cache *cache = kube_cache_new(NULL, NULL, 0, NULL);
    cleanup_json cJSON *object = cJSON_CreateObject();
    struct error err = {0};
    assert_int_equal(kube_cache_observe(cache, KUBE_WATCH_APPLIED, object, (struct instant){0}, &err), -1);
    assert_int_equal(kube_cache_observe(cache, KUBE_WATCH_DELETED, object, (struct instant){0}, &err), -1);
    assert_int_equal(kube_cache_wrote(cache, object, (struct instant){0}, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_are_told_as_expected),
        cmocka_unit_test(indexes_follow_the_view),
        cmocka_unit_test(many_objects_grow_the_tables_and_leave_nothing),
        cmocka_unit_test(what_is_old_is_squeezed_and_reads_as_before),
        cmocka_unit_test(the_next_expiry_is_told),
        cmocka_unit_test(an_object_without_a_name_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
