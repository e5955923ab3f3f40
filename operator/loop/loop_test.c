#include "loop/loop.h"
#include "loop/mailbox.h"
#include "loop/trim.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cmocka.h>

/* A small generator of its own: the same order in every run. */
static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static void heap_gives_the_earliest_whatever_was_inserted_and_removed(void **state)
{
    (void)state;
    enum { NODES = 500 };
    struct heap heap = {NULL};
    struct heap_node nodes[NODES] = {0};
    bool inside[NODES] = {false};
    uint64_t seed = 1;
    for (int step = 0; step < 20000; step++) {
        size_t i = next_random(&seed) % NODES;
        if (inside[i]) {
            heap_remove(&heap, &nodes[i]);
        } else {
            nodes[i].due = (int64_t)(next_random(&seed) % 1000);
            heap_insert(&heap, &nodes[i]);
        }
        inside[i] = !inside[i];
        int64_t earliest = INT64_MAX;
        for (size_t j = 0; j < NODES; j++)
            if (inside[j] && nodes[j].due < earliest)
                earliest = nodes[j].due;
        if (earliest == INT64_MAX)
            assert_null(heap.root);
        else
            assert_int_equal(heap.root->due, earliest);
    }
}

struct trace {
    struct loop *loop;
    char text[64];
    struct loop_timer a, b, c;
};

static void note(struct trace *trace, const char *what)
{
    strncat(trace->text, what, sizeof trace->text - strlen(trace->text) - 1);
}

static void on_a(void *arg)
{
    struct trace *trace = arg;
    note(trace, "a");
    loop_timer_cancel(&trace->b);
}

static void on_b(void *arg)
{
    note(arg, "b");
}

static void on_c(void *arg)
{
    struct trace *trace = arg;
    note(trace, "c");
    loop_stop(trace->loop);
}

static void timers_come_in_order_and_can_be_cancelled(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct trace trace = {.loop = loop};
    loop_timer_init(&trace.a, loop, on_a, &trace);
    loop_timer_init(&trace.b, loop, on_b, &trace);
    loop_timer_init(&trace.c, loop, on_c, &trace);
    loop_timer_set(&trace.c, 3 * MILLISECONDS);
    loop_timer_set(&trace.b, 2 * MILLISECONDS);
    loop_timer_set(&trace.a, 5 * MILLISECONDS);
    loop_timer_set(&trace.a, 1 * MILLISECONDS);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_string_equal(trace.text, "ac");
    assert_false(trace.a.armed);
    assert_false(trace.b.armed);
}

struct pair {
    struct loop *loop;
    struct loop_fd one, other;
    int served;
};

static void serve_one(struct pair *pair, struct loop_fd *other)
{
    pair->served++;
    loop_fd_remove(other);
    loop_stop(pair->loop);
}

static void on_one(void *arg, uint32_t events)
{
    (void)events;
    serve_one(arg, &((struct pair *)arg)->other);
}

static void on_other(void *arg, uint32_t events)
{
    (void)events;
    serve_one(arg, &((struct pair *)arg)->one);
}

/* Both are readable in the same turn; whichever is served first removes the other, which must then stay silent. */
static void a_removed_descriptor_is_not_served_in_the_same_turn(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    cleanup_fd int first = eventfd(1, EFD_CLOEXEC);
    cleanup_fd int second = eventfd(1, EFD_CLOEXEC);
    struct pair pair = {.loop = loop};
    loop_fd_init(&pair.one, loop, first, on_one, &pair);
    loop_fd_init(&pair.other, loop, second, on_other, &pair);
    assert_int_equal(loop_fd_set(&pair.one, EPOLLIN, NULL), 0);
    assert_int_equal(loop_fd_set(&pair.other, EPOLLIN, NULL), 0);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(pair.served, 1);
    loop_fd_remove(&pair.one);
    loop_fd_remove(&pair.other);
}

struct signals {
    struct loop *loop;
    int last;
};

static void on_signal(void *arg, int signal)
{
    struct signals *signals = arg;
    signals->last = signal;
    loop_stop(signals->loop);
}

static void a_signal_arrives_as_a_callback(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    struct signals signals = {.loop = loop};
    assert_int_equal(loop_handle_signals(loop, on_signal, &signals, NULL), 0);
    kill(getpid(), SIGTERM);
    assert_int_equal(loop_run(loop, NULL), 0);
    assert_int_equal(signals.last, SIGTERM);
}

static void mailbox_keeps_order_and_refuses_when_full(void **state)
{
    (void)state;
    cleanup_mailbox struct mailbox *mailbox = mailbox_new(2, free, NULL);
    char *first = strdup("first");
    char *second = strdup("second");
    char *third = strdup("third");
    assert_int_equal(mailbox_push(mailbox, first), 0);
    assert_int_equal(mailbox_push(mailbox, second), 0);
    assert_int_equal(mailbox_push(mailbox, third), -1);
    assert_ptr_equal(mailbox_pop(mailbox), first);
    assert_int_equal(mailbox_push(mailbox, third), 0);
    assert_int_equal(mailbox_push(mailbox, first), -1);
    assert_ptr_equal(mailbox_pop(mailbox), second);
    free(first);
    free(second);
    /* The third is freed with the mailbox: LeakSanitizer is the judge. */
}

enum { SENT_BY_EACH = 5000, SENDERS = 2 };

struct traffic {
    struct loop *loop;
    struct mailbox *in, *back;
    sem_t looks;                         /* of the other thread, into `back` */
    int messages[SENDERS][SENT_BY_EACH]; /* what is sent: its own number */
    int next[SENDERS];                   /* expected from each sender */
    int received, returned;
    bool in_order;
};

struct sender {
    struct traffic *traffic;
    int id;
};

/* A full mailbox leaves the message with its sender, who here simply tries again. */
static void push_until_taken(struct mailbox *mailbox, int *message)
{
    while (mailbox_push(mailbox, message) < 0)
        sched_yield();
}

static void *send_all(void *arg)
{
    struct sender *sender = arg;
    for (int i = 0; i < SENT_BY_EACH; i++) {
        int *message = &sender->traffic->messages[sender->id][i];
        *message = i * SENDERS + sender->id;
        push_until_taken(sender->traffic->in, message);
    }
    return NULL;
}

static void on_message(void *arg, void *message)
{
    struct traffic *traffic = arg;
    int number = *(int *)message;
    traffic->in_order = traffic->in_order && traffic->next[number % SENDERS]++ == number / SENDERS;
    push_until_taken(traffic->back, message);
    if (++traffic->received == SENT_BY_EACH * SENDERS)
        loop_stop(traffic->loop);
}

static void *receive_all(void *arg)
{
    struct traffic *traffic = arg;
    while (traffic->returned < SENT_BY_EACH * SENDERS) {
        sem_wait(&traffic->looks);
        while (mailbox_pop(traffic->back) != NULL)
            traffic->returned++;
    }
    return NULL;
}

static void look(void *arg)
{
    sem_post(&((struct traffic *)arg)->looks);
}

static void messages_cross_threads_both_ways(void **state)
{
    (void)state;
    cleanup_loop struct loop *loop = loop_new(NULL);
    cleanup_free struct traffic *traffic = calloc(1, sizeof *traffic);
    assert_non_null(traffic);
    traffic->loop = loop;
    traffic->in_order = true;
    traffic->in = mailbox_new(16, NULL, NULL);
    traffic->back = mailbox_new(16, NULL, NULL);
    sem_init(&traffic->looks, 0, 0);
    mailbox_on_push(traffic->back, look, traffic);
    assert_int_equal(mailbox_attach(traffic->in, loop, on_message, traffic, NULL), 0);

    pthread_t senders[SENDERS];
    struct sender who[SENDERS];
    pthread_t receiver;
    assert_int_equal(pthread_create(&receiver, NULL, receive_all, traffic), 0);
    for (int i = 0; i < SENDERS; i++) {
        who[i] = (struct sender){traffic, i};
        assert_int_equal(pthread_create(&senders[i], NULL, send_all, &who[i]), 0);
    }
    assert_int_equal(loop_run(loop, NULL), 0);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i], NULL);
    pthread_join(receiver, NULL);
    assert_true(traffic->in_order);
    assert_int_equal(traffic->returned, SENT_BY_EACH * SENDERS);
    mailbox_free(traffic->in);
    mailbox_free(traffic->back);
    sem_destroy(&traffic->looks);
}

static const char *first_word(void)
{
    return "first";
}

static const char *second_word(void)
{
    return "second";
}

/* Addresses that the dynamic linker filled in, in what is constant from then on. */
static const char *(*const volatile words[])(void) = {first_word, second_word};

static void code_that_was_let_go_comes_back(void **state)
{
    (void)state;
    assert_true(trim_now() > 0);
    assert_string_equal(words[0](), "first");
    assert_string_equal(words[1](), "second");
    char text[64];
    snprintf(text, sizeof text, "%.3f", 0.125);
    assert_string_equal(text, "0.125");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heap_gives_the_earliest_whatever_was_inserted_and_removed),
        cmocka_unit_test(timers_come_in_order_and_can_be_cancelled),
        cmocka_unit_test(a_removed_descriptor_is_not_served_in_the_same_turn),
        cmocka_unit_test(a_signal_arrives_as_a_callback),
        cmocka_unit_test(mailbox_keeps_order_and_refuses_when_full),
        cmocka_unit_test(messages_cross_threads_both_ways),
        cmocka_unit_test(code_that_was_let_go_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
