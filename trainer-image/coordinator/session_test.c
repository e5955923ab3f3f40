/* The report's dialogue from the coordinator's side, against an operator made of a few lines. */
#include "coordinator/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SENT_MOST = 64, EPOCHS = 3 };

struct bed {
    struct plan plan;
    struct coordinator *coordinator;
    struct session session;
    struct report_message sent[SENT_MOST];
    uint32_t count;
    uint32_t room; /* how many more messages the way takes */
};

static bool take(void *arg, const char *text)
{
    struct bed *bed = arg;
    if (bed->room == 0)
        return false;
    bed->room--;
    struct error err = {0};
    assert_true(bed->count < SENT_MOST);
    if (report_decode(&bed->sent[bed->count++], text, strlen(text), &err) < 0)
        fail_msg("%s", error_message(&err));
    return true;
}

static void make(struct bed *bed, bool trusted)
{
    memset(bed, 0, sizeof *bed);
    bed->room = SENT_MOST;
    bed->plan.blocks = bed->plan.shards = 1;
    bed->plan.training.epochs = EPOCHS;
    bed->plan.training.batch_size = 10;
    struct instant now = {1};
    bed->coordinator = coordinator_new(&bed->plan, 10, 0, 1, now);
    assert_non_null(bed->coordinator);
    struct session_options options = {
        .token = "the token of the job, 32 bytes.",
        .hello = {.job_namespace = "default",
                  .job_name = "lenet",
                  .job_uid = "uid-1",
                  .pod = "lenet-ps-0",
                  .pod_uid = "uid-2",
                  .boot = "00000000000000ff",
                  .kernel = "Haswell",
                  .term = 1},
        .trusted = trusted,
        .send = take,
        .arg = bed,
    };
    session_init(&bed->session, &options);
}

static void unmake(struct bed *bed)
{
    coordinator_free(bed->coordinator);
}

/* The job goes on by one epoch. */
static void train_epoch(struct bed *bed, uint64_t step)
{
    struct error err = {0};
    struct instant now = {1};
    uint32_t rank;
    struct coordinator_action action;
    if (step == 0) {
        assert_int_equal(coordinator_shard_registered(bed->coordinator, 0, now, &err), 0);
        assert_int_equal(coordinator_join(bed->coordinator, "w", &rank, now, &err), 0);
    }
    assert_int_equal(coordinator_shard_done(bed->coordinator, 0, step, 1.0, now, &err), 0);
    while (coordinator_take(bed->coordinator, &action))
        continue;
}

static int say(struct bed *bed, const struct report_message *message)
{
    cleanup_free char *text = report_encode(message);
    assert_non_null(text);
    struct error err = {0};
    return session_received(&bed->session, text, strlen(text), &err);
}

static int ack(struct bed *bed, uint32_t status, uint32_t history)
{
    return say(bed, &(struct report_message){.type = REPORT_ACK, .ack = {status, history}});
}

/* Challenge, hello, welcome; says whether the welcome was accepted. */
static int shake_hands(struct bed *bed, const char *token, uint32_t acked)
{
    struct report_message challenge = {.type = REPORT_CHALLENGE};
    memset(challenge.challenge.nonce, 7, sizeof challenge.challenge.nonce);
    session_connected(&bed->session);
    bed->count = 0;
    assert_int_equal(say(bed, &challenge), 0);
    assert_int_equal(bed->count, 1);
    const struct report_hello *hello = &bed->sent[0].hello;
    assert_int_equal(bed->sent[0].type, REPORT_HELLO);
    assert_string_equal(hello->job_uid, "uid-1");
    assert_string_equal(hello->kernel, "Haswell");
    uint8_t key[REPORT_TOKEN_SIZE] = {0}, mac[SHA256_SIZE];
    memcpy(key, "the token of the job, 32 bytes.", sizeof "the token of the job, 32 bytes.");
    report_hello_mac(hello, key, challenge.challenge.nonce, mac);
    assert_memory_equal(hello->mac, mac, sizeof mac);
    struct report_message welcome = {.type = REPORT_WELCOME, .welcome.ack = {acked, acked}};
    memset(key, 0, sizeof key);
    for (size_t i = 0; token[i] != '\0'; i++)
        key[i] = (uint8_t)token[i];
    report_welcome_mac(key, hello->nonce, challenge.challenge.nonce, welcome.welcome.mac);
    bed->count = 0;
    return say(bed, &welcome);
}

static void expect_epochs(struct bed *bed, uint32_t first, uint32_t last)
{
    bed->count = 0;
    session_flush(&bed->session, bed->coordinator);
    assert_int_equal(bed->count, last - first + 1);
    for (uint32_t i = 0; i < bed->count; i++) {
        assert_int_equal(bed->sent[i].type, REPORT_EPOCH);
        assert_int_equal(bed->sent[i].epoch.epoch, first + i);
    }
}

static void expect_nothing(struct bed *bed)
{
    bed->count = 0;
    session_flush(&bed->session, bed->coordinator);
    assert_int_equal(bed->count, 0);
}

static void test_epochs_are_sent_until_they_are_durable(void **state)
{
    (void)state;
    struct bed bed;
    make(&bed, false);
    train_epoch(&bed, 0);
    expect_nothing(&bed); /* not connected */
    assert_int_equal(shake_hands(&bed, "the token of the job, 32 bytes.", 0), 0);
    expect_epochs(&bed, 1, 1);
    expect_nothing(&bed); /* once over one connection */
    train_epoch(&bed, 1);
    expect_epochs(&bed, 2, 2);
    assert_int_equal(ack(&bed, 2, 1), 0); /* in the status, and the first in MongoDB too */
    session_disconnected(&bed.session);
    expect_nothing(&bed);
    assert_int_equal(shake_hands(&bed, "the token of the job, 32 bytes.", 0), 0);
    expect_epochs(&bed, 2, 2);
    session_disconnected(&bed.session);
    assert_int_equal(shake_hands(&bed, "the token of the job, 32 bytes.", 2), 0); /* a new leader knows more */
    expect_nothing(&bed);
    unmake(&bed);
}

static void test_the_end_is_sent_until_it_is_known(void **state)
{
    (void)state;
    struct bed bed;
    make(&bed, false);
    for (uint64_t step = 0; step < EPOCHS; step++)
        train_epoch(&bed, step);
    coordinator_saved(bed.coordinator, NULL, NULL);
    struct coordinator_action action;
    while (coordinator_take(bed.coordinator, &action))
        continue;
    for (int connection = 0; connection < 2; connection++) {
        assert_int_equal(shake_hands(&bed, "the token of the job, 32 bytes.", EPOCHS), 0);
        session_flush(&bed.session, bed.coordinator);
        assert_int_equal(bed.count, 1);
        assert_int_equal(bed.sent[0].type, REPORT_FINISHED);
        assert_true(bed.sent[0].finished.succeeded);
        expect_nothing(&bed);
        assert_false(bed.session.finished_acked);
        if (connection == 0)
            session_disconnected(&bed.session);
    }
    assert_int_equal(say(&bed, &(struct report_message){.type = REPORT_ACK_FINISHED}), 0);
    assert_true(bed.session.finished_acked);
    struct report_progress progress = {.term = 1, .epoch = 3};
    session_progress(&bed.session, &progress);
    expect_nothing(&bed);
    unmake(&bed);
}

static void test_what_has_no_room_is_sent_later(void **state)
{
    (void)state;
    struct bed bed;
    make(&bed, true);
    session_connected(&bed.session);
    train_epoch(&bed, 0);
    train_epoch(&bed, 1);
    bed.room = 1;
    expect_epochs(&bed, 1, 1);
    expect_nothing(&bed);
    bed.room = SENT_MOST;
    expect_epochs(&bed, 2, 2);
    unmake(&bed);
}

static void test_impostors_and_nonsense_end_the_connection(void **state)
{
    (void)state;
    struct bed bed;
    make(&bed, false);
    train_epoch(&bed, 0);
    assert_int_equal(shake_hands(&bed, "another token", 0), -1);
    session_disconnected(&bed.session);
    session_connected(&bed.session);
    assert_int_equal(ack(&bed, 1, 1), -1); /* before the welcome */
    expect_nothing(&bed);
    assert_int_equal(shake_hands(&bed, "the token of the job, 32 bytes.", 0), 0);
    struct error err = {0};
    assert_int_equal(session_received(&bed.session, "{}", 2, &err), -1);
    assert_int_equal(say(&bed, &(struct report_message){.type = REPORT_ACK_FINISHED}), -1); /* nothing has finished */
    struct report_message refused = {.type = REPORT_REFUSED};
    snprintf(refused.refused.message, sizeof refused.refused.message, "this pod is not the newest");
    cleanup_free char *text = report_encode(&refused);
    assert_int_equal(session_received(&bed.session, text, strlen(text), &err), -1);
    assert_string_equal(err.message, "the operator refuses: this pod is not the newest");
    unmake(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epochs_are_sent_until_they_are_durable),
        cmocka_unit_test(test_the_end_is_sent_until_it_is_known),
        cmocka_unit_test(test_what_has_no_room_is_sent_later),
        cmocka_unit_test(test_impostors_and_nonsense_end_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
