#include "kube/apply.h"
#include "kube/fake_server.h"
#include "kube/lease.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const int64_t hang = 60 * SECONDS;

#define PATH     "/apis/coordination.k8s.io/v1/namespaces/n/leases"
#define LOOK     "GET " PATH "/l "
#define WATCH    "GET " PATH "?"
#define CREATE   "POST " PATH "?fieldManager=thole-operator "
#define TAKE     "\"holderIdentity\":\"us\""
#define RELEASE  "\"holderIdentity\":\"\""
#define STATUS   "{\"kind\":\"Status\",\"reason\":\"x\",\"message\":\"so it is\"}"
#define CONFLICT "{\"kind\":\"Status\",\"reason\":\"Conflict\",\"message\":\"so it is\"}"
#define LEASE(version, holder, renewed)                                                                                \
    "{\"metadata\":{\"name\":\"l\",\"uid\":\"u\",\"resourceVersion\":\"" version                                       \
    "\"},\"spec\":{\"leaseDurationSeconds\":1,\"holderIdentity\":\"" holder "\",\"renewTime\":\"" renewed "\"}}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}\n"
#define LIST_END                                                                                                       \
    "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"1\",\"annotations\":{"                     \
    "\"k8s.io/initial-events-end\":\"true\"}}}}\n"

struct stage {
    struct loop *loop;
    struct fake_server *server;
    struct kube_client *client;
    struct kube_lease *lease;
    struct loop_timer look;
    struct instant began;
    int leading, lost, released, answers;
    int open, asked; /* the gate: so many times it says yes */
    char sentence[1024];
    bool (*until)(const struct stage *stage);
    int played; /* for `until` */
};

static void on_leading(void *arg)
{
    ((struct stage *)arg)->leading++;
}

static void on_lost(void *arg, const char *sentence)
{
    struct stage *stage = arg;
    stage->lost++;
    snprintf(stage->sentence, sizeof stage->sentence, "%s", sentence);
}

static void on_released(void *arg)
{
    ((struct stage *)arg)->released++;
}

static void look(void *arg)
{
    struct stage *stage = arg;
    if (stage->until(stage) || instant_since(clock_now(), stage->began) > hang)
        loop_stop(stage->loop);
    else
        loop_timer_set(&stage->look, 1 * MILLISECONDS);
}

static void run_until(struct stage *stage, bool (*until)(const struct stage *stage))
{
    stage->until = until;
    do {
        loop_timer_set(&stage->look, 0);
        assert_int_equal(loop_run(stage->loop, NULL), 0);
        (void)fake_server_played(stage->server); /* fails the test at a surprise */
        assert_true(instant_since(clock_now(), stage->began) < hang);
    } while (!until(stage));
}

static bool has_played(const struct stage *stage)
{
    return fake_server_played(stage->server) >= stage->played;
}

static bool is_leading(const struct stage *stage)
{
    return stage->leading > 0;
}

static bool is_lost(const struct stage *stage)
{
    return stage->lost > 0;
}

static bool is_released(const struct stage *stage)
{
    return stage->released > 0;
}

static void begin_without_lease(struct stage *stage, const struct exchange *script)
{
    *stage = (struct stage){.loop = loop_new(NULL), .began = clock_now()};
    assert_non_null(stage->loop);
    loop_timer_init(&stage->look, stage->loop, look, stage);
    stage->server = fake_server_start(stage->loop, script);
    stage->client = fake_server_client(stage->server, NULL);
}

static void begin(struct stage *stage, const struct exchange *script, int64_t renew, int64_t retry)
{
    begin_without_lease(stage, script);
    const struct kube_lease_options options = {
        .namespace = "n",
        .name = "l",
        .identity = "us",
        .timing = {.lease = 15 * SECONDS, .renew = renew, .retry = retry},
        .hooks = {.arg = stage, .leading = on_leading, .lost = on_lost, .released = on_released},
    };
    assert_int_equal(kube_lease_start(&stage->lease, stage->loop, stage->client, NULL, &options, NULL), 0);
}

/* Plays until `played` exchanges were begun. */
static void play(struct stage *stage, int played)
{
    stage->played = played;
    run_until(stage, has_played);
}

static void end(struct stage *stage)
{
    loop_timer_cancel(&stage->look);
    kube_lease_stop(stage->lease);
    kube_client_free(stage->client);
    fake_server_stop(stage->server);
    loop_free(stage->loop);
}

static void it_is_made_and_given_back(void **state)
{
    (void)state;
    static const struct exchange script[] = {
        {LOOK, 404, NULL, STATUS, false, false},
        {WATCH, 200, NULL, LIST_END, false, true},
        {CREATE, 201, NULL, LEASE("2", "us", "a"), false, false},
        {RELEASE, 200, NULL, LEASE("4", "", "c"), false, false},
        {0},
    };
    struct stage stage;
    begin(&stage, script, 3600 * SECONDS, 1800 * SECONDS);
    play(&stage, 2);
    assert_int_equal(stage.leading, 0);
    assert_false(kube_lease_held(stage.lease));
    kube_lease_stand(stage.lease);
    run_until(&stage, is_leading);
    assert_true(kube_lease_held(stage.lease));
    kube_lease_release(stage.lease);
    assert_false(kube_lease_held(stage.lease));
    run_until(&stage, is_released);
    assert_int_equal(fake_server_played(stage.server), 4);
    assert_int_equal(stage.leading, 1);
    assert_int_equal(stage.lost, 0);
    end(&stage);
}

static void it_is_renewed_on_the_version_that_was_written(void **state)
{
    (void)state;
    static const struct exchange script[] = {
        {LOOK, 404, NULL, STATUS, false, false},
        {WATCH, 200, NULL, LIST_END, false, true},
        {CREATE, 201, NULL, LEASE("2", "us", "a"), false, false},
        {"\"metadata\":{\"uid\":\"u\",\"resourceVersion\":\"2\"}", 200, NULL, LEASE("3", "us", "b"), false, false},
        {"\"metadata\":{\"uid\":\"u\",\"resourceVersion\":\"3\"}", 200, NULL, LEASE("4", "us", "c"), false, false},
        {0},
    };
    struct stage stage;
    begin(&stage, script, 3600 * SECONDS, 1 * MILLISECONDS);
    play(&stage, 2);
    kube_lease_stand(stage.lease);
    play(&stage, 5);
    assert_true(kube_lease_held(stage.lease));
    assert_int_equal(stage.leading, 1);
    end(&stage);
}

static void one_that_is_given_back_is_taken_when_the_watch_says_so(void **state)
{
    (void)state;
    static const struct exchange script[] = {
        {LOOK, 200, NULL, LEASE("1", "them", "a"), false, false},
        {WATCH, 200, NULL, EVENT("ADDED", LEASE("1", "them", "a")) LIST_END EVENT("MODIFIED", LEASE("5", "", "b")),
         false, true},
        {"\"resourceVersion\":\"5\"", 200, NULL, LEASE("6", "us", "c"), false, false},
        {0},
    };
    struct stage stage;
    begin(&stage, script, 3600 * SECONDS, 3600 * SECONDS);
    play(&stage, 2);
    kube_lease_stand(stage.lease);
    run_until(&stage, is_leading);
    assert_true(kube_lease_held(stage.lease));
    end(&stage);
}

static void another_was_faster(void **state)
{
    (void)state;
    static const struct exchange script[] = {
        {LOOK, 200, NULL, LEASE("1", "", "a"), false, false},
        {WATCH, 200, NULL, EVENT("ADDED", LEASE("1", "", "a")) LIST_END, false, true},
        {TAKE, 409, NULL, CONFLICT, false, false},
        {LOOK, 200, NULL, LEASE("2", "them", "b"), false, false},
        {LOOK, 200, NULL, LEASE("2", "them", "b"), false, false}, /* after its second */
        {TAKE, 200, NULL, LEASE("3", "us", "c"), false, false},
        {0},
    };
    struct stage stage;
    begin(&stage, script, 3600 * SECONDS, 100 * MILLISECONDS);
    play(&stage, 2);
    kube_lease_stand(stage.lease);
    play(&stage, 4);
    assert_int_equal(stage.leading, 0);
    run_until(&stage, is_leading);
    assert_int_equal(fake_server_played(stage.server), 6);
    end(&stage);
}

/* The server answers nothing any more: whoever asks after our time learns of it, and so does whoever does not ask. */
static void what_cannot_be_renewed_is_lost(void **state)
{
    (void)state;
    static const struct exchange script[] = {
        {LOOK, 200, NULL, LEASE("1", "", "a"), false, false},
        {WATCH, 200, NULL, EVENT("ADDED", LEASE("1", "", "a")) LIST_END, false, true},
        {TAKE, 200, NULL, LEASE("2", "us", "b"), false, false},
        {TAKE, 0, NULL, NULL, false, false},
        {TAKE, 0, NULL, NULL, false, false},
        {TAKE, 0, NULL, NULL, false, false},
        {0},
    };
    for (int i = 0; i < 2; i++) {
        struct stage stage;
        begin(&stage, script, 500 * MILLISECONDS, 100 * MILLISECONDS);
        play(&stage, 2);
        kube_lease_stand(stage.lease);
        run_until(&stage, is_leading);
        if (i == 0) {
            while (kube_lease_held(stage.lease)) /* as a process that was paused: the loop has not turned */
                usleep(1000);
            assert_int_equal(stage.lost, 1);
        }
        run_until(&stage, is_lost);
        assert_int_equal(stage.lost, 1);
        assert_string_equal(stage.sentence, "the Lease 'l' could not be renewed for 0 seconds");
        assert_false(kube_lease_held(stage.lease));
        end(&stage);
    }
}

/* ---- the gate of the client's writes ---- */

static const struct kube_resource pods = {"", "v1", "pods", "Pod", true};

static bool gate_is_open(void *arg)
{
    struct stage *stage = arg;
    stage->asked++;
    return stage->open-- > 0;
}

static void on_answer(void *arg, struct kube_response *response)
{
    struct stage *stage = arg;
    const char *sentence = response->error == NULL ? "" : error_message(response->error);
    stage->answers++;
    snprintf(stage->sentence, sizeof stage->sentence, "%s", sentence);
}

static bool is_answered(const struct stage *stage)
{
    return stage->answers > 0;
}

static bool was_asked_twice(const struct stage *stage)
{
    return stage->asked >= 2;
}

/* Sends a write by a gate that says yes `open` times. */
static void begin_gated(struct stage *stage, int open, const struct exchange *script)
{
    begin_without_lease(stage, script);
    stage->open = open;
    kube_client_set_gate(stage->client, gate_is_open, stage);
    cleanup_json cJSON *patch = cJSON_Parse("{}");
    assert_int_equal(kube_merge_patch(stage->client, &pods, "n", "a", NULL, patch, (struct kube_precondition){0},
                                      on_answer, stage, NULL),
                     0);
    assert_int_equal(kube_client_writes(stage->client), 1);
}

static void a_closed_gate_lets_reads_through_and_no_write(void **state)
{
    (void)state;
    static const struct exchange script[] = {{"GET", 200, NULL, "{}", false, false}, {0}};
    struct stage stage;
    begin_gated(&stage, 0, script);
    run_until(&stage, is_answered);
    assert_string_equal(stage.sentence, "patch Pod n/a: not sent, because this operator does not lead");
    assert_int_equal(kube_client_writes(stage.client), 0);
    stage.answers = 0;
    assert_int_equal(kube_get(stage.client, &pods, "n", "a", on_answer, &stage, NULL), 0);
    assert_int_equal(kube_client_writes(stage.client), 0);
    run_until(&stage, is_answered);
    assert_string_equal(stage.sentence, "");
    end(&stage);
}

/* Between the handing over of a write to libcurl and libcurl's sending it, a process may have been stopped for minutes.
 * A request on another connection, sent later, shows that the write would have come first. */
static void a_gate_that_closes_keeps_back_what_libcurl_holds(void **state)
{
    (void)state;
    static const struct exchange script[] = {{"GET", 200, NULL, "{}", false, false}, {0}};
    struct stage stage;
    begin_gated(&stage, 1, script);
    run_until(&stage, was_asked_twice);
    struct kube_request request = {.resource = &pods, .namespace = "n", .name = "a", .lane = KUBE_LANE_LEASE};
    assert_int_equal(kube_request(stage.client, &request, on_answer, &stage, NULL, NULL), 0);
    run_until(&stage, is_answered);
    assert_int_equal(kube_client_writes(stage.client), 1);
    assert_int_equal(fake_server_accepted(stage.server), 1);
    end(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_made_and_given_back),
        cmocka_unit_test(it_is_renewed_on_the_version_that_was_written),
        cmocka_unit_test(one_that_is_given_back_is_taken_when_the_watch_says_so),
        cmocka_unit_test(another_was_faster),
        cmocka_unit_test(what_cannot_be_renewed_is_lost),
        cmocka_unit_test(a_closed_gate_lets_reads_through_and_no_write),
        cmocka_unit_test(a_gate_that_closes_keeps_back_what_libcurl_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
