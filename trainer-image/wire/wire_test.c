/* What of wire needs no sockets: checksums, frames, the table of the dialogues, addresses, timers, payloads. */
#include "wire/net_internal.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <netdb.h>
#include <string.h>

static uint64_t random_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* ---- CRC32C ---- */

static void crc_known_answers(void **state)
{
    (void)state;
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];
    memset(ones, 0xff, sizeof ones);
    for (uint8_t i = 0; i < 32; i++) {
        up[i] = i;
        down[i] = (uint8_t)(31 - i);
    }
    /* RFC 3720, B.4 */
    static const uint8_t read_command[48] = {0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
                                             0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
                                             0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
                                             0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
    const struct {
        const void *bytes;
        size_t length;
        uint32_t crc;
    } cases[] = {
        {zeros, 32, 0x8a9136aa},        {ones, 32, 0x62a8ab43},       {up, 32, 0x46dd794e}, {down, 32, 0x113fdb5c},
        {read_command, 48, 0xd9963a56}, {"123456789", 9, 0xe3069283}, {"", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (enum crc_way way = CRC_BEST; way <= CRC_PLAIN; way++)
            assert_int_equal(crc32c_by(way, 0, cases[i].bytes, cases[i].length), cases[i].crc);
    }
}

static uint32_t crc_by_definition(uint32_t crc, const uint8_t *bytes, size_t length)
{
    crc = ~crc;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78U & (0U - (crc & 1)));
    }
    return ~crc;
}

static void crc_at_every_length_and_place(void **state)
{
    (void)state;
    static uint8_t bytes[40000];
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)random_next(&seed);
    static const size_t around[] = {0, 60, 240, 500, 756, 1024, 3072, 6144, 9216, 12288, 30720};
    for (size_t i = 0; i < sizeof around / sizeof around[0]; i++) {
        for (size_t more = 0; more < 40; more++) {
            const uint8_t *at = bytes + more % 9;
            size_t length = around[i] + more;
            uint32_t right = crc_by_definition(0x1234567, at, length);
            for (enum crc_way way = CRC_BEST; way <= CRC_PLAIN; way++)
                assert_int_equal(crc32c_by(way, 0x1234567, at, length), right);
        }
    }
    uint32_t whole = crc32c(0, bytes, sizeof bytes);
    for (int i = 0; i < 100; i++) {
        size_t cut = random_next(&seed) % sizeof bytes;
        assert_int_equal(crc32c(crc32c(0, bytes, cut), bytes + cut, sizeof bytes - cut), whole);
    }
}

/* ---- Frames ---- */

static void frame_has_its_golden_bytes(void **state)
{
    (void)state;
    static const uint8_t golden[WIRE_HEADER_SIZE] = {
        'T',  'H',  'L',  'E',  1,    50,   0,    0,    4,    3,    2,    1,    8, 7, 6, 5, 0x18, 0x17, 0x16, 0x15,
        0x14, 0x13, 0x12, 0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 0, 0, 0, 0, 0,    0,    0xf8, 0x3f,
        0x34, 0x33, 0x32, 0x31, 0x44, 0x03, 0x02, 0x00, 0x54, 0x53, 0x52, 0x51, 0, 0, 0, 0, 0,    0,    0,    0};
    struct frame frame = {.type = FRAME_PUSH,
                          .term = 0x01020304,
                          .node = 0x05060708,
                          .step = UINT64_C(0x1112131415161718),
                          .offset = UINT64_C(0x2122232425262728),
                          .value.loss = 1.5,
                          .count = 0x31323334,
                          .length = 0x00020344};
    uint8_t bytes[WIRE_HEADER_SIZE];
    frame_encode(&frame, 0x51525354, bytes);
    assert_memory_equal(bytes, golden, 60);
    uint32_t crc = crc_by_definition(0, golden, 60);
    for (int i = 0; i < 4; i++)
        assert_int_equal(bytes[60 + i], crc >> (8 * i) & 255);
}

static void frame_round_trips(void **state)
{
    (void)state;
    uint64_t seed = 2;
    for (int i = 0; i < 2000; i++) {
        struct frame in = {.type = (uint8_t)random_next(&seed),
                           .term = (uint32_t)random_next(&seed),
                           .node = (uint32_t)random_next(&seed),
                           .step = random_next(&seed),
                           .offset = random_next(&seed),
                           .value.counter = random_next(&seed),
                           .count = (uint32_t)random_next(&seed),
                           .length = 1 + (uint32_t)(random_next(&seed) % WIRE_PAYLOAD_MOST)};
        uint32_t payload_crc = (uint32_t)random_next(&seed), out_crc;
        uint8_t bytes[WIRE_HEADER_SIZE];
        frame_encode(&in, payload_crc, bytes);
        struct frame out;
        struct error err = {0};
        assert_int_equal(frame_decode(&out, &out_crc, bytes, &err), 0);
        assert_int_equal(out_crc, payload_crc);
        assert_true(out.type == in.type && out.term == in.term && out.node == in.node && out.step == in.step &&
                    out.offset == in.offset && out.value.counter == in.value.counter && out.count == in.count &&
                    out.length == in.length);

        size_t bit = random_next(&seed) % (8 * sizeof bytes);
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_int_equal(frame_decode(&out, &out_crc, bytes, &err), -1);
        assert_string_not_equal(error_message(&err), "");
    }
}

static void frame_refuses_with_a_sentence(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        const char *sentence;
    } cases[] = {
        {0, 'X', "begins with 58484c45"},
        {4, 2, "speaks version 2 of the wire protocol, this process version 1"},
        {6, 1, "bits set that this version reserves"},
        {7, 1, "bits set that this version reserves"},
        {52, 1, "bits set that this version reserves"},
        {59, 1, "bits set that this version reserves"},
        {47, 1, "announces a payload of 16777216 bytes"},
        {48, 1, "has a payload's checksum, but no payload"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[WIRE_HEADER_SIZE];
        frame_encode(&(struct frame){.type = FRAME_DEAL}, 0, bytes);
        bytes[cases[i].at] = cases[i].value;
        uint32_t crc = crc32c(0, bytes, 60);
        for (int k = 0; k < 4; k++)
            bytes[60 + k] = (uint8_t)(crc >> (8 * k));
        struct frame out;
        struct error err = {0};
        assert_int_equal(frame_decode(&out, &crc, bytes, &err), -1);
        if (strstr(error_message(&err), cases[i].sentence) == NULL)
            fail_msg("'%s' does not say '%s'", error_message(&err), cases[i].sentence);
    }
}

/* ---- Who may send what ---- */

static void dialogues_allow_what_the_header_says(void **state)
{
    (void)state;
    enum { CD = 1, CL = 2, RD = 4, RL = 8, DD = 16, DL = 32 }; /* dialogue, then dialler or listener */
    static const struct {
        uint8_t type;
        int senders;
    } table[] = {
        {FRAME_REFUSED, CD | CL | RD | RL | DD | DL},
        {FRAME_JOIN, CD},
        {FRAME_WELCOME, CL},
        {FRAME_DEAL, CL},
        {FRAME_VALIDATE, CL},
        {FRAME_VALIDATED, CD},
        {FRAME_HEARTBEAT, CD},
        {FRAME_LEAVE, CD},
        {FRAME_FINISHED, CL | RL},
        {FRAME_LEASE, CL},
        {FRAME_SHARE, CL},
        {FRAME_REGISTER, RD},
        {FRAME_ACCEPTED, RL},
        {FRAME_DONE, RD},
        {FRAME_TASK_DONE, RD},
        {FRAME_NORMS, RD},
        {FRAME_COMMIT, RL},
        {FRAME_SUBSCRIBE, DD},
        {FRAME_GET, DD},
        {FRAME_PUSH, DD},
        {FRAME_PARAMS, DL},
        {FRAME_TAKEN, DL},
        {FRAME_PUSH_SHARE, DD},
        {FRAME_PUSH_BATCH, DD},
        {FRAME_GET_ROWS, DD},
        {FRAME_ROWS, DL},
        {FRAME_PUSH_ROWS, DD},
        {FRAME_PUSH_BATCH_ROWS, DD},
        {FRAME_TAKEN_ROWS, DL},
        {FRAME_LIST_ROWS, DD},
        {FRAME_LISTED, DL},
    };
    static const uint32_t lengths[] = {0, 16, WIRE_PAYLOAD_MOST};
    for (unsigned type = 0; type < 256; type++) {
        int senders = 0;
        for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
            if (table[i].type == type)
                senders = table[i].senders;
        for (int which = 0; which < 6; which++) {
            bool allowed = false; /* with a payload of some length */
            for (size_t i = 0; i < 3; i++) {
                struct frame frame = {.type = (uint8_t)type, .length = lengths[i]};
                enum dialogue dialogue = (enum dialogue)(DIALOGUE_CONTROL + which / 2);
                struct error err = {0};
                bool fits = dialogue_check(dialogue, which % 2 == 0, &frame, &err) == 0;
                assert_true(fits || err.message[0] != '\0');
                allowed = allowed || fits;
            }
            assert_int_equal(allowed, (senders >> which & 1) != 0);
        }
    }
    struct error err = {0};
    assert_int_equal(
        dialogue_check(DIALOGUE_CONTROL, true, &(struct frame){.type = FRAME_HEARTBEAT, .length = 1}, &err), -1);
    assert_string_equal(error_message(&err), "HEARTBEAT has a payload of 1 bytes; it can have 0 to 0");
    assert_int_equal(dialogue_check(DIALOGUE_DATA, false, &(struct frame){.type = FRAME_PUSH, .length = 4}, &err), -1);
    assert_string_equal(error_message(&err),
                        "a frame of type 50 is none that the listener may send in a DATA dialogue");
}

/* ---- Addresses ---- */

static void addresses_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host, *port;
    } cases[] = {
        {"lenet.default.svc:7077", "lenet.default.svc", "7077"},
        {"10.1.2.3:0", "10.1.2.3", "0"},
        {":7077", "", "7077"},
        {"[::1]:65535", "::1", "65535"},
        {"::1:7077", NULL, "write IPv6 addresses as [address]:port"},
        {"lenet", NULL, "it needs a port"},
        {"lenet:", NULL, "its port is no number"},
        {"lenet:65536", NULL, "its port is no number"},
        {"lenet:7077x", NULL, "its port is no number"},
        {"lenet:-1", NULL, "its port is no number"},
        {"", NULL, "it needs a port"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char host[ADDRESS_HOST_SIZE], port[ADDRESS_PORT_SIZE];
        struct error err = {0};
        int result = address_split(cases[i].text, host, port, &err);
        if (cases[i].host == NULL) {
            assert_int_equal(result, -1);
            assert_non_null(strstr(error_message(&err), cases[i].port));
        } else {
            assert_int_equal(result, 0);
            assert_string_equal(host, cases[i].host);
            assert_string_equal(port, cases[i].port);
        }
    }
    char long_host[400];
    memset(long_host, 'a', sizeof long_host);
    memcpy(long_host + 300, ":1", 3);
    char host[ADDRESS_HOST_SIZE], port[ADDRESS_PORT_SIZE];
    assert_int_equal(address_split(long_host, host, port, NULL), -1);
}

static void addresses_are_printed(void **state)
{
    (void)state;
    static const struct {
        const char *host, *text;
    } cases[] = {{"10.1.2.3", "10.1.2.3:80"}, {"::1", "[::1]:80"}, {"::ffff:10.1.2.3", "10.1.2.3:80"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sockaddr_storage address = {0};
        assert_int_equal(address_look_up(cases[i].host, "80", AI_NUMERICHOST, &address, 1, NULL), 1);
        char text[PEER_TEXT_SIZE];
        address_format(&address, text);
        assert_string_equal(text, cases[i].text);
    }
}

/* ---- Timers ---- */

static struct net *new_net(void)
{
    struct net *net = NULL;
    struct error err = {0};
    struct net_options options = {.boot_id = 1};
    if (net_new(&net, &options, &err) < 0)
        fail_msg("%s", error_message(&err));
    return net;
}

enum { TIMERS = 300 };

struct shot {
    struct timer *timer;
    int64_t when; /* -1: disarmed */
    int fired;
    struct shots *all;
};

struct shots {
    struct shot shots[TIMERS];
    int64_t last;
};

static void shot_due(void *arg)
{
    struct shot *shot = arg;
    assert_true(shot->when >= shot->all->last);
    shot->all->last = shot->when;
    shot->fired++;
}

static void timers_fire_once_and_in_order(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net();
    struct shots all = {.last = -1};
    uint64_t seed = 3;
    for (int i = 0; i < TIMERS; i++) {
        all.shots[i] = (struct shot){.when = -1, .all = &all};
        all.shots[i].timer = net_timer_new(net, shot_due, &all.shots[i]);
        assert_non_null(all.shots[i].timer);
    }
    /* Armed, armed anew, disarmed; some are freed while armed. */
    for (int i = 0; i < 4 * TIMERS; i++) {
        struct shot *shot = &all.shots[random_next(&seed) % TIMERS];
        int64_t delay = (int64_t)(random_next(&seed) % 5) - 1;
        net_timer_set(shot->timer, delay < 0 ? -1 : delay * 1000 * SECONDS);
        shot->when = delay < 0 ? -1 : shot->timer->when;
    }
    for (int i = 0; i < TIMERS; i += 10) {
        net_timer_free(all.shots[i].timer);
        all.shots[i] = (struct shot){.when = -1, .all = &all};
    }
    int64_t now = clock_now().nanoseconds + 2500 * SECONDS;
    timers_run(net, now);
    for (int i = 0; i < TIMERS; i++)
        assert_int_equal(all.shots[i].fired, all.shots[i].when >= 0 && all.shots[i].when <= now);
    timers_run(net, INT64_MAX);
    for (int i = 0; i < TIMERS; i++)
        assert_int_equal(all.shots[i].fired, all.shots[i].when >= 0);
    assert_int_equal(timers_next(net, now), -1);
}

static void rearm_once(void *arg)
{
    struct shot *shot = arg;
    if (shot->fired++ == 0)
        net_timer_set(shot->timer, 0);
    else
        net_timer_free(shot->timer);
}

static void timers_may_be_armed_and_freed_when_due(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net();
    struct shot shot = {0};
    shot.timer = net_timer_new(net, rearm_once, &shot);
    net_timer_set(shot.timer, 0);
    struct error err = {0};
    for (int i = 0; i < 100 && shot.fired < 2; i++)
        assert_int_equal(net_wait(net, -1, &err), 1); /* waits for the timer and for nothing else */
    assert_int_equal(shot.fired, 2);
    assert_int_equal(net_wait(net, 0, &err), 0);
}

/* ---- Payloads ---- */

static void payloads_are_counted_and_used_again(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net();
    assert_null(payload_new(net, WIRE_PAYLOAD_MOST + 1));
    struct payload *first = payload_new(net, WIRE_PAYLOAD_MOST);
    assert_int_equal(first->length, WIRE_PAYLOAD_MOST);
    assert_int_equal((uintptr_t)first->data % 64, 0);
    memset(first->data, 0xab, first->length);
    assert_ptr_equal(payload_ref(first), first);
    first->crc_known = true;
    payload_unref(net, first);
    struct payload *second = payload_new(net, WIRE_PAYLOAD_MOST);
    assert_ptr_not_equal(first, second);
    payload_unref(net, first);
    struct payload *third = payload_new(net, 204800);
    assert_ptr_equal(first, third); /* from the free list */
    assert_false(third->crc_known);
    assert_int_equal(third->references, 1);
    assert_int_equal(third->length, 204800);
    struct payload *small = payload_new(net, 0);
    assert_true(small->capacity < 4096);
    payload_unref(net, small);
    payload_unref(net, second);
    payload_unref(net, third);
    payload_unref(net, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_known_answers),
        cmocka_unit_test(crc_at_every_length_and_place),
        cmocka_unit_test(frame_has_its_golden_bytes),
        cmocka_unit_test(frame_round_trips),
        cmocka_unit_test(frame_refuses_with_a_sentence),
        cmocka_unit_test(dialogues_allow_what_the_header_says),
        cmocka_unit_test(addresses_are_split),
        cmocka_unit_test(addresses_are_printed),
        cmocka_unit_test(timers_fire_once_and_in_order),
        cmocka_unit_test(timers_may_be_armed_and_freed_when_due),
        cmocka_unit_test(payloads_are_counted_and_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
