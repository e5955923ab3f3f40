#include "kube/said.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct world {
    struct said_table *table;
    struct instant now;
    uint64_t unique;
};

static int set_up(void **state)
{
    static struct world world;
    world = (struct world){.table = said_new(NULL), .now = {1000 * SECONDS}};
    *state = &world;
    return world.table == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    said_free(((struct world *)*state)->table);
    return 0;
}

static struct said *say(struct world *world, const char *uid, const char *reason, const char *note, bool *is_new)
{
    const struct said_identity identity = {.namespace = "n",
                                           .object = "lenet",
                                           .uid = uid,
                                           .kind = "TrainJob",
                                           .type = "Warning",
                                           .reason = reason,
                                           .action = "Reconcile",
                                           .note = note};
    struct said *said = said_this(world->table, &identity, world->now, 7, ++world->unique, is_new);
    assert_non_null(said);
    return said;
}

static bool is_new(struct world *world, const char *uid, const char *reason, const char *note)
{
    bool result = false;
    say(world, uid, reason, note, &result);
    return result;
}

static void the_same_again_counts(void **state)
{
    struct world *world = *state;
    bool new = false;
    struct said *said = say(world, "u", "R", "note", &new);
    assert_true(new);
    assert_string_equal(said->name, "lenet.0000000000000001");
    assert_string_equal(said->namespace, "n");
    assert_false(is_new(world, "u", "R", "note"));
    assert_int_equal(said->count, 2);
    assert_true(is_new(world, "u2", "R", "note"));
    assert_true(is_new(world, "u", "R2", "note"));
    assert_true(is_new(world, "u", "R", "note 2"));
    assert_int_equal(said_count(world->table), 4);
}

static void a_count_is_written_every_half_minute(void **state)
{
    struct world *world = *state;
    struct instant next;
    is_new(world, "u", "R", "note");
    assert_null(said_due(world->table, world->now, &next));
    assert_int_equal(next.nanoseconds, 0);
    for (int i = 0; i < 20; i++)
        is_new(world, "u", "R", "note");
    assert_null(said_due(world->table, world->now, &next));
    assert_int_equal(instant_since(next, world->now), SAID_INTERVAL * SECONDS);
    world->now = next;
    const struct said *said = said_due(world->table, world->now, &next);
    assert_non_null(said);
    assert_int_equal(said->count, 21);
    assert_null(said_due(world->table, world->now, &next));
    assert_int_equal(next.nanoseconds, 0);
}

static void after_ten_minutes_it_is_new(void **state)
{
    struct world *world = *state;
    struct instant next;
    is_new(world, "u", "R", "note");
    world->now.nanoseconds += SAID_MEMORY * SECONDS;
    assert_false(is_new(world, "u", "R", "note"));
    world->now.nanoseconds += SAID_MEMORY * SECONDS + 1;
    assert_true(is_new(world, "u", "R", "note"));
    assert_int_equal(said_count(world->table), 1);
    world->now.nanoseconds += SAID_MEMORY * SECONDS + 1;
    assert_null(said_due(world->table, world->now, &next)); /* forgets it */
    assert_int_equal(said_count(world->table), 0);
}

static void many_that_differ_in_their_note_become_one(void **state)
{
    struct world *world = *state;
    char note[64];
    bool new = false;
    for (int i = 0; i < 1000; i++) {
        snprintf(note, sizeof note, "pod 'lenet-worker-%d' ended", i);
        const struct said *said = say(world, "u", "ProcessEnded", note, &new);
        assert_int_equal(new, i <= SAID_SIMILAR);
        assert_int_equal(said->combined, i >= SAID_SIMILAR);
        assert_int_equal(said->count, i <= SAID_SIMILAR ? 1 : i - SAID_SIMILAR + 1);
    }
    assert_int_equal(said_count(world->table), SAID_SIMILAR + 1);
    assert_true(is_new(world, "u", "Failed", note));        /* of another reason */
    assert_true(is_new(world, "u2", "ProcessEnded", note)); /* of another job */
    world->now.nanoseconds += SAID_MEMORY * SECONDS + 1;
    assert_true(is_new(world, "u", "ProcessEnded", "pod 'lenet-worker-1000' ended"));
}

static void what_is_gone_is_said_anew(void **state)
{
    struct world *world = *state;
    bool new = false;
    const struct said *said = say(world, "u", "R", "note", &new);
    char name[128];
    snprintf(name, sizeof name, "%s", said->name);
    said_forget(world->table, "elsewhere", name);
    assert_false(is_new(world, "u", "R", "note"));
    said_forget(world->table, "n", name);
    assert_true(is_new(world, "u", "R", "note"));
}

static void no_more_are_remembered_than_the_most(void **state)
{
    struct world *world = *state;
    char uid[32];
    for (int i = 0; i < SAID_MOST + 100; i++) {
        snprintf(uid, sizeof uid, "u%d", i);
        world->now.nanoseconds++;
        assert_true(is_new(world, uid, "R", "note"));
    }
    assert_int_equal(said_count(world->table), SAID_MOST);
    assert_false(is_new(world, "u100", "R", "note"));
    assert_true(is_new(world, "u0", "R", "note"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_same_again_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_count_is_written_every_half_minute, set_up, tear_down),
        cmocka_unit_test_setup_teardown(after_ten_minutes_it_is_new, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_that_differ_in_their_note_become_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_gone_is_said_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_more_are_remembered_than_the_most, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
