#include "kube/election.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { TURNS_MOST = 12 };

static const struct election_timing timing = {15 * SECONDS, 10 * SECONDS, 2 * SECONDS};

/* What happens to one election at a second of its clock, and what it wants to do then. */
enum happening {
    NOTHING,
    CANDIDATE,
    SEES,      /* by the watch: `holder`, `renewed` */
    SEES_NONE, /* by the watch */
    FINDS,     /* by a request */
    FINDS_NONE,
    GRANTED, /* its write, which was sent at second `sent` */
    CONTESTED,
    FAILED,
    RELEASE,
};

struct turn {
    int64_t at;
    enum happening what;
    const char *holder, *renewed;
    int64_t sent;
    enum election_step want;
    int64_t until; /* of ELECTION_WAIT; -1: for ever */
};

static const struct story {
    const char *name;
    struct turn turns[TURNS_MOST];
} stories[] = {
    {"it looks first, and takes nothing that it was not told to take",
     {{1, NOTHING, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS_NONE, NULL, NULL, 0, ELECTION_WAIT, -1},
      {9, CANDIDATE, NULL, NULL, 0, ELECTION_CREATE, 0},
      {9, GRANTED, "us", "a", 9, ELECTION_WAIT, 11}}},
    {"what is free is taken at once",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "", "a", 0, ELECTION_TAKE, 0},
      {2, GRANTED, "us", "b", 1, ELECTION_WAIT, 3},
      {3, NOTHING, NULL, NULL, 0, ELECTION_TAKE, 0}}},
    {"another's time runs from when we saw its renewal, whatever its clock says",
     {{100, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {100, FINDS, "them", "a", 0, ELECTION_WAIT, 115},
      {109, SEES, "them", "b", 0, ELECTION_WAIT, 124},
      {123, NOTHING, NULL, NULL, 0, ELECTION_WAIT, 124},
      {124, NOTHING, NULL, NULL, 0, ELECTION_LOOK, 0},
      {125, FINDS, "them", "b", 0, ELECTION_TAKE, 0}}},
    {"a label that somebody adds is no sign of life",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "them", "a", 0, ELECTION_WAIT, 16},
      {9, SEES, "them", "a", 0, ELECTION_WAIT, 16}}},
    {"a watch that was silent deceives nobody",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "them", "a", 0, ELECTION_WAIT, 16},
      {16, NOTHING, NULL, NULL, 0, ELECTION_LOOK, 0},
      {16, FINDS, "them", "g", 0, ELECTION_WAIT, 31}}},
    {"what is given back is taken at once",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "them", "a", 0, ELECTION_WAIT, 16},
      {5, SEES, "", "b", 0, ELECTION_TAKE, 0}}},
    {"a Lease that is deleted does not end its holder's time",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "them", "a", 0, ELECTION_WAIT, 16},
      {5, SEES_NONE, NULL, NULL, 0, ELECTION_WAIT, 16},
      {16, NOTHING, NULL, NULL, 0, ELECTION_LOOK, 0},
      {17, FINDS_NONE, NULL, NULL, 0, ELECTION_CREATE, 0}}},
    {"of two who want it, one looks again",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "", "a", 0, ELECTION_TAKE, 0},
      {2, CONTESTED, NULL, NULL, 0, ELECTION_LOOK, 0},
      {2, FINDS, "them", "b", 0, ELECTION_WAIT, 17}}},
    {"ours though we were not told",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "", "a", 0, ELECTION_TAKE, 0},
      {3, FAILED, NULL, NULL, 0, ELECTION_WAIT, 5},
      {4, SEES, "us", "b", 0, ELECTION_WAIT, 5},
      {5, NOTHING, NULL, NULL, 0, ELECTION_TAKE, 0}}},
    {"our time runs from before the renewal was sent",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "", "a", 0, ELECTION_TAKE, 0},
      {6, GRANTED, "us", "b", 1, ELECTION_TAKE, 0},
      {8, FAILED, NULL, NULL, 0, ELECTION_WAIT, 10},
      {10, FAILED, NULL, NULL, 0, ELECTION_WAIT, 11},
      {11, NOTHING, NULL, NULL, 0, ELECTION_LOST, 0}}},
    {"a pause that was longer than our time is noticed before anything is tried",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "", "a", 0, ELECTION_TAKE, 0},
      {1, GRANTED, "us", "b", 1, ELECTION_WAIT, 3},
      {60, NOTHING, NULL, NULL, 0, ELECTION_LOST, 0}}},
    {"a leader asks when its write is contested, and goes on where it is still the holder",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "", "a", 0, ELECTION_TAKE, 0},
      {1, GRANTED, "us", "b", 1, ELECTION_WAIT, 3},
      {3, CONTESTED, NULL, NULL, 0, ELECTION_LOOK, 0},
      {3, FINDS, "us", "b", 0, ELECTION_TAKE, 0},
      {4, GRANTED, "us", "c", 3, ELECTION_WAIT, 5}}},
    {"a leader whose Lease is another's stops at once",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "", "a", 0, ELECTION_TAKE, 0},
      {1, GRANTED, "us", "b", 1, ELECTION_WAIT, 3},
      {2, SEES, "them", "c", 0, ELECTION_LOOK, 0},
      {2, FINDS, "them", "c", 0, ELECTION_LOST, 0}}},
    {"a leader is not confused by what a watch brings late",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "them", "a", 0, ELECTION_WAIT, 16},
      {2, SEES, "", "b", 0, ELECTION_TAKE, 0},
      {2, GRANTED, "us", "c", 2, ELECTION_WAIT, 4},
      {3, SEES, "", "b", 0, ELECTION_LOOK, 0},
      {3, FINDS, "us", "c", 0, ELECTION_TAKE, 0},
      {3, GRANTED, "us", "d", 3, ELECTION_WAIT, 5},
      {4, SEES, "us", "c", 0, ELECTION_WAIT, 5}}},
    {"a leader makes a Lease that was deleted again",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS_NONE, NULL, NULL, 0, ELECTION_CREATE, 0},
      {1, GRANTED, "us", "b", 1, ELECTION_WAIT, 3},
      {2, SEES_NONE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {2, FINDS_NONE, NULL, NULL, 0, ELECTION_CREATE, 0},
      {2, GRANTED, "us", "c", 2, ELECTION_WAIT, 4}}},
    {"an API server that is away is asked again",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FAILED, NULL, NULL, 0, ELECTION_WAIT, 3},
      {3, NOTHING, NULL, NULL, 0, ELECTION_LOOK, 0}}},
    {"given back once, and only what is ours",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "", "a", 0, ELECTION_TAKE, 0},
      {1, GRANTED, "us", "b", 1, ELECTION_WAIT, 3},
      {2, RELEASE, NULL, NULL, 0, ELECTION_RELEASE, 0},
      {2, CONTESTED, NULL, NULL, 0, ELECTION_LOOK, 0},
      {2, FINDS, "us", "b", 0, ELECTION_RELEASE, 0},
      {2, CONTESTED, NULL, NULL, 0, ELECTION_LOOK, 0},
      {2, FINDS, "them", "c", 0, ELECTION_OVER, 0}}},
    {"who does not lead has nothing to give back",
     {{1, CANDIDATE, NULL, NULL, 0, ELECTION_LOOK, 0},
      {1, FINDS, "", "a", 0, ELECTION_TAKE, 0},
      {1, RELEASE, NULL, NULL, 0, ELECTION_OVER, 0}}},
};

static cJSON *lease_of(const char *holder, const char *renewed, int64_t seconds)
{
    char text[512];
    snprintf(text, sizeof text,
             "{\"metadata\":{\"uid\":\"u\",\"resourceVersion\":\"7\"},\"spec\":{\"holderIdentity\":\"%s\","
             "\"renewTime\":\"%s\",\"leaseDurationSeconds\":%lld,\"leaseTransitions\":4}}",
             holder, renewed, (long long)seconds);
    cJSON *lease = cJSON_Parse(text);
    assert_non_null(lease);
    return lease;
}

static struct instant second(int64_t number)
{
    return (struct instant){number * SECONDS};
}

static void happen(struct election *election, const struct turn *turn)
{
    cleanup_json cJSON *lease = turn->holder == NULL ? NULL : lease_of(turn->holder, turn->renewed, 15);
    struct instant now = second(turn->at);
    switch (turn->what) {
    case NOTHING:
        break;
    case CANDIDATE:
        election->candidate = true;
        break;
    case SEES:
    case SEES_NONE:
        election_observe(election, lease, false, now);
        break;
    case FINDS:
    case FINDS_NONE:
        election_observe(election, lease, true, now);
        break;
    case GRANTED:
        election_granted(election, lease, second(turn->sent), now);
        break;
    case CONTESTED:
        election_contested(election);
        break;
    case FAILED:
        election_failed(election, now);
        break;
    case RELEASE:
        election_release(election);
        break;
    }
}

static void elections_go_as_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof stories / sizeof stories[0]; i++) {
        struct election election;
        election_init(&election, &timing, "us");
        for (const struct turn *turn = stories[i].turns; turn->at != 0; turn++) {
            struct instant at;
            happen(&election, turn);
            enum election_step step = election_next(&election, second(turn->at), &at);
            int64_t until = at.nanoseconds == INT64_MAX ? -1 : at.nanoseconds / SECONDS;
            if (step != turn->want || (step == ELECTION_WAIT && until != turn->until))
                fail_msg("%s, turn %d: step %d until %lld", stories[i].name, (int)(turn - stories[i].turns) + 1,
                         (int)step, (long long)until);
        }
    }
}

static void a_claim_says_who_since_when_and_how_often_it_changed_hands(void **state)
{
    (void)state;
    static const struct {
        const char *holder;
        int64_t transitions;
        bool renewal;
    } cases[] = {{"", 5, false}, {"them", 5, false}, {"us", 4, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct election election;
        election_init(&election, &timing, "us");
        cleanup_json cJSON *lease = lease_of(cases[i].holder, "then", 15);
        json_put(lease, "spec.acquireTime", cJSON_CreateString("before"), NULL);
        election_observe(&election, lease, true, second(1));
        cleanup_json cJSON *claim = election_claim(&election);
        assert_string_equal(json_string(claim, "holderIdentity", ""), "us");
        assert_int_equal(json_int(claim, "leaseDurationSeconds", 0), 15);
        assert_int_equal(json_int(claim, "leaseTransitions", -1), cases[i].transitions);
        assert_int_equal(strcmp(json_string(claim, "acquireTime", ""), "before") == 0, cases[i].renewal);
        assert_int_equal(strlen(json_string(claim, "renewTime", "")), MICRO_TIME_SIZE - 1);
        cleanup_json cJSON *gone = election_free(&election);
        assert_string_equal(json_string(gone, "holderIdentity", "?"), "");
        assert_int_equal(json_int(gone, "leaseTransitions", -1), 4);
    }
}

/* Whatever stands in a Lease that anybody may have written, somebody leads in the end. */
static void strange_durations_are_bounded(void **state)
{
    (void)state;
    static const struct {
        int64_t seconds, until;
    } cases[] = {{INT64_C(1) << 50, 3601}, {0, 16}, {-5, 16}, {3, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct election election;
        struct instant at;
        election_init(&election, &timing, "us");
        election.candidate = true;
        cleanup_json cJSON *lease = lease_of("them", "then", cases[i].seconds);
        election_observe(&election, lease, true, second(1));
        assert_int_equal(election_next(&election, second(1), &at), ELECTION_WAIT);
        assert_int_equal(at.nanoseconds / SECONDS, cases[i].until);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elections_go_as_told),
        cmocka_unit_test(a_claim_says_who_since_when_and_how_often_it_changed_hands),
        cmocka_unit_test(strange_durations_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
