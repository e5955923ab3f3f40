/* Coordinators that report: the dialogue, who may speak when, and how much. */
#include "server/test_bed.h"

#include "server/internal.h"

#include <sched.h>
#include <stdio.h>

/* ---- the dialogue ---- */

static void the_whole_dialogue(struct scene *scene)
{
    struct client client;
    join(&client, scene, "u-1", BOOT_A);
    struct report_message message = {.type = REPORT_PROGRESS};
    message.progress = (struct report_progress){.term = 1, .epoch = 1, .step = 0, .steps = 2, .workers = 1};
    say(&client, &message);
    message = (struct report_message){.type = REPORT_EPOCH};
    message.epoch = (struct report_epoch){.term = 1, .epoch = 1, .parallelism = 1};
    say(&client, &message);
    struct report_message ack = hear(&client, REPORT_ACK);
    assert_int_equal(ack.ack.status, 1);
    assert_int_equal(ack.ack.history, 0);
    message = (struct report_message){.type = REPORT_FINISHED};
    message.finished = (struct report_finished){.term = 1, .succeeded = true, .reason = "Trained"};
    say(&client, &message);
    hear(&client, REPORT_ACK_FINISHED);
    client_close(&client);
}

static void a_coordinator_reports_and_is_acknowledged(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(the_whole_dialogue, &scene, usual());
    assert_int_equal(scene.hellos, 1);
    assert_int_equal(scene.progress, 1);
    assert_int_equal(scene.epochs, 1);
    assert_int_equal(scene.finished, 1);
}

static void with_another_key(struct scene *scene)
{
    struct client client;
    client_open(&client, scene);
    struct report_message challenge = hear(&client, REPORT_CHALLENGE);
    struct report_message hello = hello_of("u-1", BOOT_A, &challenge);
    hello.hello.mac[0] ^= 1;
    say(&client, &hello);
    hear_the_end(&client, "the token is not this job's: it belongs to another operator's key");
    client_close(&client);

    /* A mac of another job's token. */
    client_open(&client, scene);
    challenge = hear(&client, REPORT_CHALLENGE);
    hello = hello_of("u-1", BOOT_A, &challenge);
    snprintf(hello.hello.job_uid, sizeof hello.hello.job_uid, "u-2");
    say(&client, &hello);
    hear_the_end(&client, "the token is not this job's: it belongs to another operator's key");
    client_close(&client);
}

static void replayed(struct scene *scene)
{
    struct client first, second;
    client_open(&first, scene);
    struct report_message challenge = hear(&first, REPORT_CHALLENGE);
    struct report_message hello = hello_of("u-1", BOOT_A, &challenge);
    client_open(&second, scene);
    hear(&second, REPORT_CHALLENGE);
    say(&second, &hello);
    hear_the_end(&second, "the token is not this job's: it belongs to another operator's key");
    client_close(&second);
    client_close(&first);
}

static void without_the_token_nobody_gets_through(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(with_another_key, &scene, usual());
    assert_int_equal(scene.hellos, 0);
    play(replayed, &scene, usual());
    assert_int_equal(scene.hellos, 0);
}

static void refused_by_the_loop(struct scene *scene)
{
    struct client client;
    client_open(&client, scene);
    struct report_message challenge = hear(&client, REPORT_CHALLENGE);
    struct report_message hello = hello_of("u-1", BOOT_A, &challenge);
    say(&client, &hello);
    hear_the_end(&client, "a newer pod is the coordinator");
    client_close(&client);
}

static void the_loop_decides_who_may_report(void **state)
{
    (void)state;
    struct scene scene = {.refuses = true};
    play(refused_by_the_loop, &scene, usual());
    assert_int_equal(scene.hellos, 1);
}

static void out_of_turn(struct scene *scene)
{
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"{\"type\":\"ack-finished\"}", "the first message must be a hello"},
        {"{\"type\":\"epoch\",\"term\":1,\"epoch\":1,\"parallelism\":1,\"durationSeconds\":1}",
         "the first message must be a hello"},
        {"hello", "the message is not JSON: mistake at byte 0"},
        {"{\"type\":\"hello\"}", "'namespace' must be a string"},
    };
    struct client client;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        client_open(&client, scene);
        hear(&client, REPORT_CHALLENGE);
        say_text(&client, cases[i].text);
        hear_the_end(&client, cases[i].sentence);
        client_close(&client);
    }
    join(&client, scene, "u-1", BOOT_A);
    say_text(&client, "{\"type\":\"ack\",\"status\":1,\"history\":1}");
    hear_the_end(&client, "this message may not be sent now");
    client_close(&client);

    client_open(&client, scene);
    hear(&client, REPORT_CHALLENGE);
    client.binary = true;
    say_text(&client, "{}");
    hear_the_end(&client, "messages must be text");
    client_close(&client);
}

static void what_may_not_be_said_ends_the_connection(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(out_of_turn, &scene, usual());
    assert_int_equal(scene.hellos, 1);
    assert_int_equal(scene.epochs, 0);
}

static void in_pieces(struct scene *scene)
{
    static char text[REPORT_MESSAGE_MOST + 1];
    struct client client;
    join(&client, scene, "u-1", BOOT_A);
    static const char epoch[] = "{\"type\":\"epoch\",\"term\":1,\"epoch\":1,\"parallelism\":1,\"durationSeconds\":1}";
    memcpy(text, epoch, sizeof epoch);
    memset(text + sizeof epoch - 1, ' ', sizeof text - sizeof epoch + 1);
    say_in_pieces(&client, epoch, strlen(epoch), 1);
    hear(&client, REPORT_ACK);
    say_in_pieces(&client, text, sizeof text - 1, 1000);
    hear(&client, REPORT_ACK);
    say_in_pieces(&client, text, sizeof text, 1000);
    hear_the_end(&client, "a message is longer than 16384 bytes");
    client_close(&client);
}

static void messages_in_pieces_are_joined_up_to_the_cap(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(in_pieces, &scene, usual());
    assert_int_equal(scene.epochs, 2);
}

static void one_after_the_other(struct scene *scene)
{
    struct client old, new, other;
    join(&old, scene, "u-1", BOOT_A);
    join(&other, scene, "u-2", BOOT_A);
    join(&new, scene, "u-1", BOOT_B);
    hear_the_end(&old, "a newer connection of this job took its place");
    struct report_message message = {.type = REPORT_EPOCH};
    message.epoch = (struct report_epoch){.term = 1, .epoch = 1};
    say(&new, &message);
    hear(&new, REPORT_ACK);
    say(&other, &message);
    hear(&other, REPORT_ACK);
    client_close(&old);
    client_close(&new);
    client_close(&other);
}

static void a_newer_connection_takes_the_place_of_the_older(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(one_after_the_other, &scene, usual());
    assert_int_equal(scene.epochs, 2);
}

/* ---- limits ---- */

static void too_late(struct scene *scene)
{
    struct client client;
    client_open(&client, scene);
    hear(&client, REPORT_CHALLENGE);
    hear_the_end(&client, "no hello came in time");
    client_close(&client);
}

static void a_hello_must_come_in_time(void **state)
{
    (void)state;
    struct scene scene = {0};
    struct server_options options = usual();
    options.hello_timeout = 20 * MILLISECONDS;
    play(too_late, &scene, options);
    assert_int_equal(scene.hellos, 0);
}

static void crowd(struct scene *scene)
{
    struct client clients[3], welcomed;
    client_open(&clients[0], scene);
    hear(&clients[0], REPORT_CHALLENGE);
    client_open(&clients[1], scene);
    hear(&clients[1], REPORT_CHALLENGE);
    client_open(&clients[2], scene);
    hear_the_end(&clients[2], "too many connections wait to say hello: come back later");
    client_close(&clients[2]);
    /* Room again when one has said hello. */
    struct report_message challenge;
    client_close(&clients[0]);
    do {
        client_open(&welcomed, scene);
        while (welcomed.heard_count == 0)
            lws_service(welcomed.context, 0);
        challenge = welcomed.heard[0];
        if (challenge.type != REPORT_CHALLENGE)
            client_close(&welcomed);
    } while (challenge.type != REPORT_CHALLENGE);
    client_close(&welcomed);
    client_close(&clients[1]);
}

static void few_may_wait_to_say_hello(void **state)
{
    (void)state;
    struct scene scene = {0};
    struct server_options options = usual();
    options.most_pending = 2;
    play(crowd, &scene, options);
}

/* More than may wait for the loop, and little enough for the rest to find room in the sockets. */
enum { FLOOD = 5000 };

static void flood(struct scene *scene)
{
    struct client client;
    join(&client, scene, "u-1", BOOT_A);
    pthread_mutex_lock(&scene->gate);
    struct report_message message = {.type = REPORT_PROGRESS};
    for (uint32_t i = 0; i < FLOOD; i++) {
        message.progress = (struct report_progress){.term = 1, .epoch = 1, .step = i, .steps = FLOOD};
        say(&client, &message);
    }
    while (!atomic_load(&scene->server->any_paused))
        sched_yield();
    pthread_mutex_unlock(&scene->gate);
    message = (struct report_message){.type = REPORT_EPOCH, .epoch = {.term = 1, .epoch = 1}};
    say(&client, &message);
    hear(&client, REPORT_ACK);
    client_close(&client);
}

static void a_flood_is_slowed_down_and_nothing_is_lost(void **state)
{
    (void)state;
    struct scene scene = {0};
    struct server_options options = usual();
    options.most_connections = 8; /* beyond the pause there is room for one message of each */
    play(flood, &scene, options);
    assert_int_equal(scene.progress, FLOOD);
    assert_int_equal(scene.epochs, 1);
    assert_true(scene.in_order);
}

int main(void)
{
    lws_set_log_level(0, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_coordinator_reports_and_is_acknowledged),
        cmocka_unit_test(without_the_token_nobody_gets_through),
        cmocka_unit_test(the_loop_decides_who_may_report),
        cmocka_unit_test(what_may_not_be_said_ends_the_connection),
        cmocka_unit_test(messages_in_pieces_are_joined_up_to_the_cap),
        cmocka_unit_test(a_newer_connection_takes_the_place_of_the_older),
        cmocka_unit_test(a_hello_must_come_in_time),
        cmocka_unit_test(few_may_wait_to_say_hello),
        cmocka_unit_test(a_flood_is_slowed_down_and_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
