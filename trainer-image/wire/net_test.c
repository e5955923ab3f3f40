/* Ends that mean well: two loops in one process, talking over loopback. */
#include "wire/net_test_support.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

struct fixture {
    struct end a, b; /* a dials, b listens */
};

static int start(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    end_start(&fixture->a, 11, NULL);
    end_start(&fixture->b, 22, NULL);
    *state = fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *fixture = *state;
    end_stop(&fixture->a);
    end_stop(&fixture->b);
    free(fixture);
    return 0;
}

static void all_dialogues_open(void **state)
{
    struct fixture *f = *state;
    for (enum dialogue dialogue = DIALOGUE_CONTROL; dialogue <= DIALOGUE_DATA; dialogue++) {
        struct side *dialled, *accepted;
        connect_ends(&f->a, &f->b, dialogue, &dialled, &accepted);
        assert_int_equal(accepted->dialogue, dialogue);
        assert_int_equal(dialled->peer_boot, 22);
        assert_int_equal(accepted->peer_boot, 11);
        assert_non_null(strstr(conn_peer(accepted->conn), "127.0.0.1:"));
        assert_string_equal(conn_peer(dialled->conn), f->b.address);
    }
    char text[100];
    assert_int_equal(end_logged(&f->b, text, sizeof text), 0);
}

static void frames_arrive_whole_and_in_order(void **state)
{
    struct fixture *f = *state;
    struct side *dialled, *accepted;
    connect_ends(&f->a, &f->b, DIALOGUE_DATA, &dialled, &accepted);
    /* Lengths around what is read ahead, and the largest; short frames between them. */
    static const uint32_t lengths[] = {4,     60,    64,    4000,   4032,   4033,   4096, 16383,
                                       16384, 16385, 65536, 262143, 262144, 262144, 8,    262144};
    uint32_t crc = 0;
    size_t bytes = 0, frames = 0;
    uint64_t seed = 4;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct payload *payload = payload_new(f->a.net, lengths[i]);
        for (size_t k = 0; k < payload->length; k++)
            payload->data[k] = (unsigned char)test_random(&seed);
        crc = crc32c(crc, payload->data, payload->length);
        bytes += payload->length;
        conn_send(dialled->conn, &(struct frame){.type = FRAME_PUSH, .step = i}, payload);
        payload_unref(f->a.net, payload);
        conn_send(dialled->conn, &(struct frame){.type = FRAME_GET, .offset = i}, NULL);
        frames += 2;
    }
    pump_heard(&f->a, &f->b, accepted, frames);
    assert_int_equal(accepted->heard_bytes, bytes);
    assert_int_equal(accepted->heard_crc, crc);
    for (size_t i = 0; i < frames; i++) {
        const struct frame *frame = &accepted->heard[i];
        assert_int_equal(frame->type, i % 2 == 0 ? FRAME_PUSH : FRAME_GET);
        assert_int_equal(i % 2 == 0 ? frame->step : frame->offset, i / 2);
    }
    pump_idle(&f->a, &f->b);
    assert_int_equal(conn_queued(dialled->conn), 0);
    assert_true(dialled->drained >= 1);
}

static void short_payloads_are_copied(void **state)
{
    struct fixture *f = *state;
    struct side *dialled, *accepted;
    connect_ends(&f->a, &f->b, DIALOGUE_CONTROL, &dialled, &accepted);
    char json[] = "{\"pod\":\"worker-7\"}";
    conn_send_bytes(dialled->conn, &(struct frame){.type = FRAME_JOIN}, json, strlen(json));
    memset(json, 'x', strlen(json));
    pump_heard(&f->a, &f->b, accepted, 1);
    assert_string_equal(accepted->text, "{\"pod\":\"worker-7\"}");
    check_alive(&f->a, &f->b, dialled, accepted);
    assert_int_equal(accepted->heard[1].value.counter, 7);
    assert_int_equal(dialled->heard[0].step, 9);
}

static void one_payload_goes_to_many(void **state)
{
    struct fixture *f = *state;
    enum { MANY = 12 };
    struct side *dialled[MANY], *accepted[MANY];
    for (int i = 0; i < MANY; i++)
        connect_ends(&f->a, &f->b, DIALOGUE_DATA, &dialled[i], &accepted[i]);
    struct payload *payload = payload_new(f->b.net, WIRE_PAYLOAD_MOST);
    memset(payload->data, 0x3c, payload->length);
    for (int i = 0; i < MANY; i++)
        conn_send(accepted[i]->conn, &(struct frame){.type = FRAME_PARAMS, .step = 5}, payload);
    assert_true(payload->crc_known);
    for (int i = 0; i < MANY; i++) {
        pump_heard(&f->b, &f->a, dialled[i], 1);
        assert_int_equal(dialled[i]->heard_crc, payload->crc);
    }
    pump_idle(&f->a, &f->b);
    assert_int_equal(payload->references, 1);
    payload_unref(f->b.net, payload);
}

static void a_lagging_receiver_blocks_nobody(void **state)
{
    struct fixture *f = *state;
    struct side *slow, *slow_there, *other, *other_there;
    connect_ends(&f->a, &f->b, DIALOGUE_DATA, &slow, &slow_there);
    struct end third;
    end_start(&third, 33, NULL);
    connect_ends(&third, &f->b, DIALOGUE_CONTROL, &other, &other_there);

    /* Nobody runs a's loop: its kernel fills up, the rest stays queued, by reference. */
    enum { FRAMES = 200 };
    struct payload *payload = payload_new(f->b.net, WIRE_PAYLOAD_MOST);
    memset(payload->data, 1, payload->length);
    for (int i = 0; i < FRAMES; i++)
        conn_send(slow_there->conn, &(struct frame){.type = FRAME_PARAMS, .step = (uint64_t)i}, payload);
    check_alive(&third, &f->b, other, other_there);
    assert_true(conn_queued(slow_there->conn) > (size_t)100 * WIRE_PAYLOAD_MOST);
    assert_int_equal(slow_there->drained, 1); /* after READY */

    pump_heard(&f->a, &f->b, slow, FRAMES);
    pump_idle(&f->a, &f->b);
    assert_int_equal(conn_queued(slow_there->conn), 0);
    assert_int_equal(slow_there->drained, 2);
    assert_int_equal(payload->references, 1);
    payload_unref(f->b.net, payload);
    check_alive(&third, &f->b, other, other_there);
    end_stop(&third);
}

static void a_control_peer_that_does_not_read_is_closed(void **state)
{
    struct fixture *f = *state;
    struct side *dialled, *accepted;
    connect_ends(&f->a, &f->b, DIALOGUE_CONTROL, &dialled, &accepted);
    static char text[WIRE_JSON_MOST];
    memset(text, ' ', sizeof text);
    for (int i = 0; i < 2000 && accepted->conn->state == CONN_OPEN; i++)
        conn_send_bytes(accepted->conn, &(struct frame){.type = FRAME_WELCOME}, text, sizeof text);
    assert_false(accepted->closed); /* handlers run in net_wait only */
    pump_closed(&f->b, NULL, accepted);
    assert_non_null(strstr(accepted->reason, "bytes wait for a peer that does not take them"));
    pump_closed(&f->a, NULL, dialled);
}

static void a_sentence_reaches_the_peer(void **state)
{
    struct fixture *f = *state;
    struct side *dialled, *accepted;
    connect_ends(&f->a, &f->b, DIALOGUE_CONTROL, &dialled, &accepted);
    conn_send(dialled->conn, &(struct frame){.type = FRAME_HEARTBEAT}, NULL);
    conn_send(accepted->conn, &(struct frame){.type = FRAME_DEAL}, NULL);
    conn_close(accepted->conn, "worker 7 computes other bits than worker 0");
    conn_close(accepted->conn, "said twice");
    pump_closed(&f->a, &f->b, dialled);
    assert_string_equal(dialled->reason, "worker 7 computes other bits than worker 0");
    assert_true(dialled->refused);
    assert_int_equal(dialled->heard_count, 1); /* what was queued before came before */
    assert_true(accepted->closed);
    assert_false(accepted->refused);
    assert_string_equal(accepted->reason, "worker 7 computes other bits than worker 0");
    assert_int_equal(accepted->heard_count, 0); /* nothing after conn_close */
    pump_idle(&f->a, &f->b);
    assert_null(f->a.net->conns);
    assert_null(f->b.net->conns);
}

static void closing_without_a_sentence_sends_what_is_queued(void **state)
{
    struct fixture *f = *state;
    struct side *dialled, *accepted;
    connect_ends(&f->a, &f->b, DIALOGUE_DATA, &dialled, &accepted);
    struct payload *payload = payload_new(f->a.net, WIRE_PAYLOAD_MOST);
    memset(payload->data, 2, payload->length);
    for (int i = 0; i < 40; i++)
        conn_send(dialled->conn, &(struct frame){.type = FRAME_PUSH}, payload);
    payload_unref(f->a.net, payload);
    conn_close(dialled->conn, NULL);
    pump_closed(&f->b, &f->a, accepted);
    assert_int_equal(accepted->heard_count, 40);
    assert_false(accepted->refused);
    assert_string_equal(dialled->reason, "closed by this process");
}

static void connections_may_be_closed_in_every_handler(void **state)
{
    struct fixture *f = *state;
    struct side *dialled, *accepted;
    struct payload *payload = payload_new(f->a.net, 1000);
    memset(payload->data, 3, payload->length);
    for (int which = 0; which < 5; which++) {
        f->b.refuse_all = which == 4;
        connect_ends(&f->a, &f->b, DIALOGUE_DATA, &dialled, &accepted);
        const char *sentences[] = {"in place", "no place", "in received", "not received", "not today"};
        const char **wishes[] = {&accepted->close_in_place, &accepted->fail_place, &accepted->close_in_received,
                                 &accepted->fail_received};
        if (which < 4) {
            *wishes[which] = sentences[which];
            conn_send(dialled->conn, &(struct frame){.type = FRAME_PUSH}, payload);
            conn_send(dialled->conn, &(struct frame){.type = FRAME_PUSH}, payload);
        }
        pump_closed(&f->a, &f->b, dialled);
        pump_closed(&f->a, &f->b, accepted);
        assert_string_equal(dialled->reason, sentences[which]);
        assert_string_equal(accepted->reason, sentences[which]);
        assert_int_equal(accepted->heard_count, which == 2 || which == 3);
        assert_true(dialled->refused);
    }
    pump_idle(&f->a, &f->b);
    assert_null(f->a.net->conns);
    assert_int_equal(payload->references, 1);
    payload_unref(f->a.net, payload);
}

static void a_vanished_peer_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct side *dialled, *accepted;
    struct end third;
    end_start(&third, 33, NULL);
    connect_ends(&third, &f->b, DIALOGUE_CONTROL, &dialled, &accepted);
    end_stop(&third); /* as a killed process: the kernel closes */
    pump_closed(&f->b, NULL, accepted);
    assert_non_null(strstr(accepted->reason, "closed by 127.0.0.1:"));
    assert_false(accepted->refused);
}

static void dialling_fails_with_a_sentence(void **state)
{
    struct fixture *f = *state;
    uint16_t port;
    int fd = wire_listen_socket("127.0.0.1:0", &port, NULL);
    close(fd);
    char nobody[32], sentence[100];
    snprintf(nobody, sizeof nobody, "127.0.0.1:%u", port);
    snprintf(sentence, sizeof sentence, "connect to '%s': Connection refused", nobody);
    const struct {
        const char *address, *sentence;
    } cases[] = {
        {nobody, sentence},
        {"nonsense", "'nonsense' is no address: it needs a port, as in host:7077"},
        {":7077", "an address to dial needs a host"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct side *side = end_dial(&f->a, cases[i].address, DIALOGUE_CONTROL);
        assert_false(side->closed);
        pump_closed(&f->a, NULL, side);
        assert_string_equal(side->reason, cases[i].sentence);
        assert_false(side->refused);
    }
}

static void an_address_that_does_not_answer_is_given_up(void **state)
{
    struct fixture *f = *state;
    uint16_t port;
    cleanup_fd int listener = wire_listen_socket("127.0.0.1:0", &port, NULL);
    assert_int_equal(listen(listener, 0), 0); /* room for one; further ones get no answer */
    char address[32], sentence[100];
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    snprintf(sentence, sizeof sentence, "connect to '%s': no answer", address);
    struct side *side = NULL;
    for (int i = 0; i < 8; i++) {
        side = end_dial(&f->a, address, DIALOGUE_DATA);
        pump_idle(&f->a, NULL);
    }
    assert_int_equal(side->conn->state, CONN_CONNECTING);
    net_timer_set(side->conn->timer, 0);
    pump_closed(&f->a, NULL, side);
    assert_string_equal(side->reason, sentence);
}

static void every_family_is_listened_on(void **state)
{
    struct fixture *f = *state;
    uint16_t port, again;
    struct error err = {0};
    int fd = wire_listen_socket(":0", &port, &err);
    assert_true(fd >= 0);
    static const struct conn_handlers nobody = {0};
    assert_int_equal(net_listen(f->b.net, fd, &nobody, NULL, &err), 0);
    /* [::1] where this machine has it. */
    static const char *const hosts[] = {"127.0.0.1", "[::1]"};
    for (size_t i = 0; i < 2; i++) {
        char address[32];
        snprintf(address, sizeof address, "%s:%u", hosts[i], port);
        struct side *side = end_dial(&f->a, address, DIALOGUE_CONTROL);
        pump_idle(&f->a, NULL);
        assert_true(side->closed ? i == 1 : side->conn->state == CONN_WAIT_CHALLENGE);
    }
    char taken[32], sentence[100];
    snprintf(taken, sizeof taken, "127.0.0.1:%u", f->b.port);
    snprintf(sentence, sizeof sentence, "listen on '%s': Address already in use", taken);
    assert_int_equal(wire_listen_socket(taken, &again, &err), -1);
    assert_string_equal(error_message(&err), sentence);
}

static void running_out_of_descriptors_does_not_spin(void **state)
{
    struct fixture *f = *state;
    struct raw raw;
    raw_open(&raw, &f->b);
    struct rlimit before, none = {0};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct error err = {0};
    int handled = 0;
    for (int i = 0; i < 10; i++)
        handled += net_wait(f->b.net, 0, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    char text[1000];
    assert_int_equal(end_logged(&f->b, text, sizeof text), 1);
    assert_non_null(strstr(text, "cannot accept connections for the moment reason=\"Too many open files\""));
    assert_int_equal(handled, 1);
    raw_handshake(&raw, DIALOGUE_CONTROL); /* as soon as the pause is over */
    assert_true(end_newest(&f->b)->ready);
    raw_close(&raw);
}

static void dialling_again_in_closed_does_not_spin(void **state)
{
    struct fixture *f = *state;
    struct side *side = end_dial(&f->a, "nonsense", DIALOGUE_CONTROL);
    side->dial_again_in_closed = true;
    struct error err = {0};
    assert_int_equal(net_wait(f->a.net, -1, &err), 1);
    assert_true(side->closed);
    assert_int_equal(f->a.side_count, 2);
    pump_closed(&f->a, NULL, &f->a.sides[1]);
}

static void names_are_looked_up_beside_the_loop(void **state)
{
    struct fixture *f = *state;
    char address[40];
    snprintf(address, sizeof address, "localhost:%u", f->b.port);
    struct side *side = end_dial(&f->a, address, DIALOGUE_CONTROL);
    assert_int_equal(side->conn->state, CONN_RESOLVING);
    pump_ready(&f->a, &f->b, side); /* on IPv4, where the listener is, whatever comes first */

    /* Cancelled by conn_close, and by the end of the net. */
    struct side *cancelled = end_dial(&f->a, address, DIALOGUE_CONTROL);
    conn_close(cancelled->conn, NULL);
    pump_closed(&f->a, NULL, cancelled);
    end_dial(&f->a, address, DIALOGUE_CONTROL);
}

static void look_ups_are_bounded(void **state)
{
    struct fixture *f = *state;
    int failed = 0;
    for (int i = 0; i < 100; i++)
        end_dial(&f->a, "localhost:1", DIALOGUE_CONTROL);
    for (int i = 0; i < 100; i++) {
        pump_closed(&f->a, NULL, &f->a.sides[i]);
        failed += strstr(f->a.sides[i].reason, "other look-ups have not been answered") != NULL;
    }
    assert_true(failed <= 100 - RESOLVES_MOST);
}

static void handshakes_end_in_time(void **state)
{
    struct fixture *f = *state;
    /* Nobody runs b's loop, so nobody answers; the clock is moved by arming the connection's own timer. */
    struct side *side = end_dial(&f->a, f->b.address, DIALOGUE_CONTROL);
    pump_idle(&f->a, NULL);
    assert_int_equal(side->conn->state, CONN_WAIT_CHALLENGE);
    net_timer_set(side->conn->timer, 0);
    pump_closed(&f->a, NULL, side);
    assert_non_null(strstr(side->reason, "was not completed within 10 s"));

    struct raw raw;
    raw_open(&raw, &f->b);
    pump_idle(&f->b, NULL);
    assert_non_null(f->b.net->conns);
    assert_true(timers_next(f->b.net, clock_now().nanoseconds) <= HANDSHAKE_MOST);
    char text[1000];
    end_logged(&f->b, text, sizeof text);
    for (struct conn *conn = f->b.net->conns; conn != NULL; conn = conn->next)
        net_timer_set(conn->timer, 0);
    pump_idle(&f->b, NULL);
    assert_null(f->b.net->conns);
    assert_int_equal(end_logged(&f->b, text, sizeof text), 1);
    assert_non_null(strstr(text, "was not completed within 10 s"));
    raw_close(&raw);
}

static void read_event(void *arg)
{
    struct fixture *f = arg;
    f->a.refuse_all = true; /* serves as a mark */
}

static void other_descriptors_are_watched(void **state)
{
    struct fixture *f = *state;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct error err = {0};
    assert_int_equal(net_watch_fd(f->a.net, fd, read_event, f, &err), 0);
    assert_int_equal(net_wait(f->a.net, 0, &err), 0);
    eventfd_write(fd, 1);
    assert_int_equal(net_wait(f->a.net, -1, &err), 1);
    assert_true(f->a.refuse_all);
    net_unwatch_fd(f->a.net, fd);
    assert_int_equal(net_wait(f->a.net, 0, &err), 0);
    close(fd);
}

static void net_free_needs_no_goodbyes(void **state)
{
    struct fixture *f = *state;
    struct side *dialled, *accepted;
    connect_ends(&f->a, &f->b, DIALOGUE_DATA, &dialled, &accepted);
    struct payload *payload = payload_new(f->a.net, WIRE_PAYLOAD_MOST);
    memset(payload->data, 4, payload->length);
    for (int i = 0; i < 100; i++)
        conn_send(dialled->conn, &(struct frame){.type = FRAME_PUSH}, payload);
    payload_unref(f->a.net, payload);
    end_dial(&f->a, f->b.address, DIALOGUE_CONTROL);
    end_dial(&f->a, "nonsense", DIALOGUE_CONTROL);
    assert_non_null(net_timer_new(f->a.net, read_event, f));
}

/* ---- Two threads, for ThreadSanitizer ---- */

enum { ROUNDS = 300 };

static void *run_other_end(void *arg)
{
    struct end *end = arg;
    struct error err = {0};
    struct side *side = &end->sides[0];
    for (size_t answered = 0; answered < ROUNDS;) {
        assert_true(net_wait(end->net, -1, &err) >= 0);
        for (; end->side_count > 0 && answered < side->heard_count; answered++)
            conn_send(side->conn, &(struct frame){.type = FRAME_DEAL, .step = answered}, NULL);
        net_flush(end->net);
    }
    return NULL;
}

static void two_threads_talk(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_other_end, &f->b), 0);
    char address[40];
    snprintf(address, sizeof address, "localhost:%u", f->b.port);
    struct side *side = end_dial(&f->a, address, DIALOGUE_CONTROL);
    pump_ready(&f->a, NULL, side);
    for (size_t i = 0; i < ROUNDS; i++) {
        conn_send(side->conn, &(struct frame){.type = FRAME_HEARTBEAT, .value.counter = i}, NULL);
        pump_heard(&f->a, NULL, side, i + 1);
        assert_int_equal(side->heard[i % HEARD_MOST].step, i);
    }
    pthread_join(thread, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_dialogues_open),
        TEST(frames_arrive_whole_and_in_order),
        TEST(short_payloads_are_copied),
        TEST(one_payload_goes_to_many),
        TEST(a_lagging_receiver_blocks_nobody),
        TEST(a_control_peer_that_does_not_read_is_closed),
        TEST(a_sentence_reaches_the_peer),
        TEST(closing_without_a_sentence_sends_what_is_queued),
        TEST(connections_may_be_closed_in_every_handler),
        TEST(a_vanished_peer_is_noticed),
        TEST(dialling_fails_with_a_sentence),
        TEST(an_address_that_does_not_answer_is_given_up),
        TEST(every_family_is_listened_on),
        TEST(running_out_of_descriptors_does_not_spin),
        TEST(dialling_again_in_closed_does_not_spin),
        TEST(names_are_looked_up_beside_the_loop),
        TEST(look_ups_are_bounded),
        TEST(handshakes_end_in_time),
        TEST(other_descriptors_are_watched),
        TEST(net_free_needs_no_goodbyes),
        TEST(two_threads_talk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
