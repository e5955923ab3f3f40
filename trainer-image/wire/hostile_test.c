/* Ends that mean harm, or nothing at all: one port, strangers on it, and a connection that must not notice. */
#include "wire/net_test_support.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

struct fixture {
    struct end a, b; /* a dials, b listens */
    struct side *dialled, *accepted;
};

static int start(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    end_start(&f->a, 11, NULL);
    end_start(&f->b, 22, NULL);
    connect_ends(&f->a, &f->b, DIALOGUE_CONTROL, &f->dialled, &f->accepted);
    *state = f;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    end_stop(&f->a);
    end_stop(&f->b);
    free(f);
    return 0;
}

/* The good connection goes on, the strangers' are gone, and each left one line with its address and `sentence`. */
static void check_harmless(struct fixture *f, int lines, const char *sentence)
{
    pump_idle(&f->b, &f->a);
    check_alive(&f->a, &f->b, f->dialled, f->accepted);
    assert_ptr_equal(f->b.net->conns, f->accepted->conn);
    assert_null(f->b.net->conns->next);
    assert_int_equal(f->b.net->unproven, 0);
    assert_int_equal(f->b.net->accepted, 1);
    assert_int_equal(f->b.side_count, 1);
    static char text[65536];
    assert_int_equal(end_logged(&f->b, text, sizeof text), lines);
    if (lines > 0)
        assert_non_null(strstr(text, "peer=127.0.0.1:"));
    if (lines > 0 && strstr(text, sentence) == NULL)
        fail_msg("'%s' does not say '%s'", text, sentence);
}

/* ---- Strangers ---- */

static void garbage_gets_one_line(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *bytes;
        size_t length;
        const char *sentence;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: lenet\r\n\r\n", 31, "wire protocol: it began with 'GET / HTTP/1.1?\?Host: le'"},
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11, "wire protocol: it began with '?\?\?\?\?"},
        {"\0", 1, "wire protocol: it began with '?'"},
        {"THL\0", 4, "wire protocol: it began with 'THL?'"},
        {"THLE and then something else that is long enough to be a header.", 64, "speaks version 32 of the wire"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct raw raw;
        raw_open(&raw, &f->b);
        raw_send(&raw, cases[i].bytes, cases[i].length);
        uint8_t answer[1200];
        ssize_t length = raw_read(&raw, answer, sizeof answer);
        /* Who does not even begin with the magic gets no answer. */
        assert_int_equal(length > 0, cases[i].length == 64);
        raw_close(&raw);
        check_harmless(f, 1, cases[i].sentence);
    }
    uint64_t seed = 5;
    for (int i = 0; i < 200; i++) {
        uint8_t bytes[600];
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)test_random(&seed);
        if (i % 2 == 0)
            frame_encode(&(struct frame){.type = (uint8_t)(test_random(&seed) % 60), .length = bytes[0]}, 0, bytes);
        struct raw raw;
        raw_open(&raw, &f->b);
        raw_send(&raw, bytes, 1 + test_random(&seed) % sizeof bytes);
        raw_close(&raw);
        pump_idle(&f->b, NULL);
        f->b.net->refusals = 0; /* as a second later */
    }
    check_harmless(f, 200, "reason=");
}

static void a_look_at_the_port_is_no_mistake(void **state)
{
    struct fixture *f = *state;
    struct raw raw;
    raw_open(&raw, &f->b);
    pump_idle(&f->b, NULL);
    raw_close(&raw);
    check_harmless(f, 0, "");
}

static void a_flood_of_garbage_is_summed_up(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 100; i++) {
        struct raw raw;
        raw_open(&raw, &f->b);
        raw_send(&raw, "x", 1);
        raw_close(&raw);
        pump_idle(&f->b, NULL);
        f->b.net->refusals_since = clock_now().nanoseconds; /* all within a second */
    }
    check_harmless(f, 20, "it began with 'x'");
    f->b.net->refusals_since = 0;
    struct raw raw;
    raw_open(&raw, &f->b);
    raw_send(&raw, "x", 1);
    raw_close(&raw);
    check_harmless(f, 2, "refused more connections count=80");
}

static void silent_strangers_keep_nobody_out(void **state)
{
    struct fixture *f = *state;
    enum { STRANGERS = 100 };
    struct raw raws[STRANGERS];
    for (int i = 0; i < STRANGERS; i++) {
        raw_open(&raws[i], &f->b);
        pump_idle(&f->b, NULL);
    }
    assert_int_equal(f->b.net->unproven, WIRE_UNPROVEN_MOST);
    assert_int_equal(f->b.net->accepted, WIRE_UNPROVEN_MOST + 1);
    struct side *dialled, *accepted;
    connect_ends(&f->a, &f->b, DIALOGUE_DATA, &dialled, &accepted);
    uint8_t byte;
    assert_int_equal(raw_read(&raws[0], &byte, 1), -1); /* the oldest went */
    for (int i = 0; i < STRANGERS; i++)
        raw_close(&raws[i]);
    conn_close(dialled->conn, NULL);
    pump_idle(&f->a, &f->b);
    f->b.side_count = 1;
    check_harmless(f, 20, "made room for a newer connection: 64 were waiting for their handshake");
}

/* ---- Members of something else ---- */

static void wrong_members_are_told_why(void **state)
{
    struct fixture *f = *state;
    struct net_options token = usual_options(33), plan = usual_options(44);
    token.token[31] ^= 1;
    plan.plan_digest[0] ^= 0x80;
    const struct {
        const struct net_options *options;
        bool refused; /* by the listener; else the dialler finds out first */
        const char *reason, *logged;
    } cases[] = {
        {&token, false, "the listener's proof is wrong: it does not hold this job's token",
         "the peer refused: the listener's proof is wrong"},
        {&plan, true,
         "it runs another plan than this process: all of a job's processes need the same plan.json, and the same model "
         "file where the job begins from one",
         "it runs another plan"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct end other;
        end_start(&other, 33, cases[i].options);
        struct side *side = end_dial(&other, f->b.address, DIALOGUE_CONTROL);
        pump_closed(&other, &f->b, side);
        assert_string_equal(side->reason, cases[i].reason);
        assert_false(side->ready);
        assert_int_equal(side->refused, cases[i].refused);
        pump_idle(&other, &f->b);
        check_harmless(f, 1, cases[i].logged);
        end_stop(&other);
    }
}

static void a_dialler_without_the_token_is_refused(void **state)
{
    struct fixture *f = *state;
    struct net_options options = usual_options(33), wrong = usual_options(33);
    wrong.token[0] ^= 1;
    struct raw raw;
    raw_open(&raw, &f->b);
    uint8_t bytes[WIRE_TEXT_MOST];
    struct frame frame = {0};
    raw_send(&raw, bytes, raw_hello(&raw, bytes, DIALOGUE_DATA, &options));
    assert_true(raw_read_frame(&raw, &frame, raw.challenge, sizeof raw.challenge));
    raw_send(&raw, bytes, raw_proof(&raw, bytes, &wrong));
    assert_true(raw_read_frame(&raw, &frame, bytes, sizeof bytes));
    assert_int_equal(frame.type, FRAME_REFUSED);
    assert_memory_equal(bytes, "the dialler's proof is wrong", 28);
    raw_close(&raw);
    check_harmless(f, 1, "the dialler's proof is wrong: it does not hold this job's token");
}

static void a_replayed_handshake_is_refused(void **state)
{
    struct fixture *f = *state;
    struct net_options options = usual_options(33);
    uint8_t hello[256], proof[256], bytes[WIRE_TEXT_MOST];
    struct frame frame = {0};
    struct raw raw;
    raw_open(&raw, &f->b);
    size_t hello_length = raw_hello(&raw, hello, DIALOGUE_CONTROL, &options);
    raw_send(&raw, hello, hello_length);
    assert_true(raw_read_frame(&raw, &frame, raw.challenge, sizeof raw.challenge));
    size_t proof_length = raw_proof(&raw, proof, &options);
    raw_send(&raw, proof, proof_length);
    assert_true(raw_read_frame(&raw, &frame, bytes, sizeof bytes));
    assert_int_equal(frame.type, FRAME_READY);
    assert_int_equal(f->b.side_count, 2);
    raw_close(&raw);
    pump_closed(&f->b, NULL, &f->b.sides[1]);
    f->b.side_count = 1;

    /* Byte for byte the same again. */
    raw_open(&raw, &f->b);
    raw_send(&raw, hello, hello_length);
    raw_send(&raw, proof, proof_length);
    assert_true(raw_read_frame(&raw, &frame, bytes, sizeof bytes));
    assert_int_equal(frame.type, FRAME_CHALLENGE);
    assert_true(raw_read_frame(&raw, &frame, bytes, sizeof bytes));
    assert_int_equal(frame.type, FRAME_REFUSED);
    raw_close(&raw);
    check_harmless(f, 1, "the dialler's proof is wrong");
}

static void another_version_is_answered_in_ours(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[WIRE_TEXT_MOST];
    struct net_options options = usual_options(33);
    struct raw raw;
    raw_open(&raw, &f->b);
    size_t length = raw_hello(&raw, bytes, DIALOGUE_CONTROL, &options);
    bytes[4] = WIRE_VERSION + 1;
    raw_send(&raw, bytes, length);
    struct frame frame = {0};
    assert_true(raw_read_frame(&raw, &frame, bytes, sizeof bytes));
    assert_int_equal(frame.type, FRAME_REFUSED);
    raw_close(&raw);
    check_harmless(f, 1, "run all of a job's pods from the same trainer image");
}

/* A listener that is none of ours: the dialler must find out. */
static void a_false_listener_is_found_out(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int what;
        const char *reason;
    } cases[] = {
        {0, "a frame begins with 48545450 instead of the magic number"},
        {1, "the listener's proof is wrong: it does not hold this job's token"}, /* the challenge of another day */
        {2, "a frame of type 1 came where the handshake has CHALLENGE"},         /* an echo */
        {3, "a frame of type 4 came where the handshake has CHALLENGE"},
        {4, "closed by 127.0.0.1:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint16_t port;
        cleanup_fd int listener = wire_listen_socket("127.0.0.1:0", &port, NULL);
        char address[32];
        snprintf(address, sizeof address, "127.0.0.1:%u", port);
        struct side *side = end_dial(&f->a, address, DIALOGUE_DATA);
        struct raw raw = {.end = &f->a};
        while ((raw.fd = accept(listener, NULL, NULL)) < 0)
            pump_idle(&f->a, NULL);
        uint8_t bytes[512], challenge[CHALLENGE_SIZE] = {0};
        struct frame frame = {0};
        assert_true(raw_read_frame(&raw, &frame, raw.hello, sizeof raw.hello));
        if (cases[i].what == 0)
            raw_send(&raw, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nThis is not for you.", 67);
        else if (cases[i].what == 1)
            raw_send(&raw, bytes, frame_bytes(bytes, &(struct frame){.type = FRAME_CHALLENGE}, challenge, 104));
        else if (cases[i].what == 2)
            raw_send(&raw, bytes, frame_bytes(bytes, &(struct frame){.type = FRAME_HELLO}, raw.hello, HELLO_SIZE));
        else if (cases[i].what == 3)
            raw_send(&raw, bytes, frame_bytes(bytes, &(struct frame){.type = FRAME_READY}, NULL, 0));
        else
            raw_close(&raw);
        pump_closed(&f->a, NULL, side);
        assert_false(side->ready);
        if (strstr(side->reason, cases[i].reason) == NULL)
            fail_msg("'%s' does not say '%s'", side->reason, cases[i].reason);
        raw_close(&raw);
    }
    check_harmless(f, 0, "");
}

/* ---- Cut and changed ---- */

static size_t dialler_frame(struct raw *raw, uint8_t *bytes, int which)
{
    struct net_options options = usual_options(33);
    if (which == 0)
        return raw_hello(raw, bytes, DIALOGUE_CONTROL, &options);
    if (which == 1)
        return raw_proof(raw, bytes, &options);
    return frame_bytes(bytes, &(struct frame){.type = FRAME_JOIN}, "{\"pod\":\"x\"}", 11);
}

/* Frames 0 to `which` − 1 of a right dialogue. */
static void raw_advance(struct raw *raw, struct end *end, int which)
{
    uint8_t bytes[512];
    struct frame frame = {0};
    raw_open(raw, end);
    for (int i = 0; i < which; i++) {
        raw_send(raw, bytes, dialler_frame(raw, bytes, i));
        assert_true(raw_read_frame(raw, &frame, i == 0 ? raw->challenge : bytes, CHALLENGE_SIZE));
    }
}

static void forget_others(struct fixture *f)
{
    pump_idle(&f->b, NULL);
    f->b.side_count = 1;
    f->b.net->refusals = 0;
}

static void every_truncation_is_harmless(void **state)
{
    struct fixture *f = *state;
    int lines = 0;
    char text[16384];
    for (int which = 0; which < 3; which++) {
        uint8_t bytes[512];
        struct raw raw;
        raw_advance(&raw, &f->b, which);
        size_t whole = dialler_frame(&raw, bytes, which);
        raw_close(&raw);
        forget_others(f);
        end_logged(&f->b, text, sizeof text);
        for (size_t length = 0; length < whole; length++) {
            raw_advance(&raw, &f->b, which);
            raw_send(&raw, bytes, dialler_frame(&raw, bytes, which) - whole + length);
            raw_close(&raw);
            pump_idle(&f->b, NULL);
            /* After the proof it is an owner's connection, and the owner is told. */
            assert_int_equal(f->b.side_count, which == 2 ? 2 : 1);
            if (which == 2) {
                assert_true(f->b.sides[1].closed);
                assert_int_equal(f->b.sides[1].heard_count, 0);
            }
            forget_others(f);
            lines += end_logged(&f->b, text, sizeof text);
            if (which == 1 || (which == 0 && length > 0))
                assert_non_null(strstr(text, "during the handshake"));
        }
    }
    assert_int_equal(lines, WIRE_HEADER_SIZE + HELLO_SIZE - 1 + WIRE_HEADER_SIZE + PROOF_SIZE);
    check_harmless(f, 0, "");
}

static void put_u32(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

/* One bit of every byte; with `honest`, checksums are made right again, so that what is behind them must notice. */
static void change_every_byte(struct fixture *f, int which, bool honest)
{
    uint64_t seed = 6;
    char text[16384];
    for (size_t at = 0;; at++) {
        uint8_t bytes[512];
        struct raw raw;
        raw_advance(&raw, &f->b, which);
        size_t length = dialler_frame(&raw, bytes, which);
        if (at == length) {
            raw_close(&raw);
            break;
        }
        bytes[at] ^= (uint8_t)(1U << test_random(&seed) % 8);
        if (honest && at >= WIRE_HEADER_SIZE)
            put_u32(bytes + 48, crc32c(0, bytes + WIRE_HEADER_SIZE, length - WIRE_HEADER_SIZE));
        if (honest)
            put_u32(bytes + 60, crc32c(0, bytes, 60));
        raw_send(&raw, bytes, length);
        /* A changed length may leave it waiting for more. */
        shutdown(raw.fd, SHUT_WR);
        struct frame frame = {.type = FRAME_REFUSED};
        uint8_t answer[WIRE_TEXT_MOST];
        bool answered = raw_read_frame(&raw, &frame, answer, sizeof answer);
        /* An honest HELLO with another nonce or boot id is a HELLO, but its maker cannot know that it was changed;
         * numbers that a handshake has no use for are not looked at. */
        bool meaningless = honest && ((at >= 8 && at < 44) || (at >= 60 && at < WIRE_HEADER_SIZE));
        bool still_hello = honest && which == 0 && at >= WIRE_HEADER_SIZE && frame.type == FRAME_CHALLENGE;
        if (meaningless || still_hello) {
            assert_true(which == 2 || answered);
        } else {
            assert_true(!answered || frame.type == FRAME_REFUSED);
            assert_true(which == 2 || f->b.side_count == 1);
            assert_true(which < 2 || honest || f->b.sides[1].heard_count == 0);
        }
        raw_close(&raw);
        pump_idle(&f->b, NULL);
        assert_true(which < 2 || f->b.sides[1].closed);
        forget_others(f);
        int lines = end_logged(&f->b, text, sizeof text);
        assert_true(lines == 1 || (which >= 1 && lines == 0));
        check_alive(&f->a, &f->b, f->dialled, f->accepted);
    }
    forget_others(f);
    end_logged(&f->b, text, sizeof text);
    check_harmless(f, 0, "");
}

static void every_changed_byte_is_noticed(void **state)
{
    for (int which = 0; which < 3; which++)
        change_every_byte(*state, which, false);
}

static void every_changed_byte_with_right_checksums_is_harmless(void **state)
{
    for (int which = 0; which < 3; which++)
        change_every_byte(*state, which, true);
}

/* ---- Members that went mad ---- */

static void proven_peers_are_bound_to_their_dialogue(void **state)
{
    struct fixture *f = *state;
    static const struct {
        enum dialogue dialogue;
        uint8_t type;
        uint32_t length;
        const char *reason;
    } cases[] = {
        {DIALOGUE_CONTROL, FRAME_PUSH, 4, "a frame of type 50 is none that the dialler may send in a CONTROL dialogue"},
        {DIALOGUE_CONTROL, FRAME_WELCOME, 4, "is none that the dialler may send"},
        {DIALOGUE_CONTROL, FRAME_HELLO, HELLO_SIZE, "a frame of type 1 is none"},
        {DIALOGUE_CONTROL, FRAME_JOIN, WIRE_JSON_MOST + 1, "JOIN has a payload of 65537 bytes"},
        {DIALOGUE_CONTROL, FRAME_REFUSED, WIRE_TEXT_MOST + 1, "REFUSED has a payload of 1025 bytes"},
        {DIALOGUE_REGISTER, FRAME_JOIN, 4, "in a REGISTER dialogue"},
        {DIALOGUE_REGISTER, FRAME_COMMIT, 8, "a frame of type 36 is none that the dialler may send in a REGISTER"},
        {DIALOGUE_REGISTER, FRAME_NORMS, 0, "NORMS has a payload of 0 bytes; it can have 8 to 65536"},
        {DIALOGUE_REGISTER, FRAME_NORMS, 65544, "NORMS has a payload of 65544 bytes"},
        {DIALOGUE_CONTROL, FRAME_NORMS, 8, "a frame of type 35 is none that the dialler may send in a CONTROL"},
        {DIALOGUE_DATA, FRAME_PARAMS, 4, "in a DATA dialogue"},
        {DIALOGUE_DATA, FRAME_ROWS, 4, "a frame of type 53 is none that the dialler may send in a DATA dialogue"},
        {DIALOGUE_DATA, FRAME_LIST_ROWS, 4, "LIST_ROWS has a payload of 4 bytes; it can have 0 to 0"},
        {DIALOGUE_CONTROL, FRAME_PUSH_ROWS, 4, "a frame of type 54 is none that the dialler may send in a CONTROL"},
        {DIALOGUE_DATA, FRAME_PUSH, 0, "PUSH has a payload of 0 bytes; it can have 2 to 262144"},
        {DIALOGUE_DATA, FRAME_PUSH, WIRE_PAYLOAD_MOST + 1, "announces a payload of 262145 bytes; the most is 262144"},
        {DIALOGUE_DATA, FRAME_PUSH, UINT32_MAX, "announces a payload of 4294967295 bytes"},
        {DIALOGUE_DATA, 0, 0, "a frame of type 0 is none"},
        {DIALOGUE_DATA, 255, 0, "a frame of type 255 is none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct raw raw;
        raw_open(&raw, &f->b);
        raw_handshake(&raw, cases[i].dialogue);
        struct side *side = end_newest(&f->b);
        uint8_t header[WIRE_HEADER_SIZE], answer[WIRE_TEXT_MOST];
        frame_encode(&(struct frame){.type = cases[i].type, .length = cases[i].length}, cases[i].length > 0, header);
        raw_send(&raw, header, sizeof header);
        struct frame frame = {0};
        assert_true(raw_read_frame(&raw, &frame, answer, sizeof answer));
        assert_int_equal(frame.type, FRAME_REFUSED);
        pump_closed(&f->b, NULL, side);
        assert_memory_equal(side->reason, answer, frame.length);
        assert_non_null(strstr(side->reason, cases[i].reason));
        assert_int_equal(side->heard_count, 0);
        raw_close(&raw);
        forget_others(f);
    }
    check_harmless(f, 0, ""); /* these are their owner's to log */
}

static void a_changed_payload_is_noticed(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[WIRE_HEADER_SIZE + WIRE_PAYLOAD_MOST], payload[WIRE_PAYLOAD_MOST];
    static const size_t places[] = {0, 1, 4031, 4032, 100000, WIRE_PAYLOAD_MOST - 1};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct raw raw;
        raw_open(&raw, &f->b);
        raw_handshake(&raw, DIALOGUE_DATA);
        struct side *side = end_newest(&f->b);
        size_t length = frame_bytes(bytes, &(struct frame){.type = FRAME_PUSH}, payload, sizeof payload);
        raw_send(&raw, bytes, length);
        pump_heard(&f->b, NULL, side, 1);
        bytes[WIRE_HEADER_SIZE + places[i]] ^= 0x10;
        raw_send(&raw, bytes, length);
        pump_closed(&f->b, NULL, side);
        assert_string_equal(side->reason, "a frame of type 50 has a payload with a wrong checksum");
        assert_int_equal(side->heard_count, 1);
        raw_close(&raw);
        forget_others(f);
    }
    check_harmless(f, 0, "");
}

static void pieces_of_any_size_make_the_same_frames(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[8 * (WIRE_HEADER_SIZE + 40000)];
    static uint8_t payload[40000];
    uint64_t seed = 7;
    for (size_t most = 1; most <= 65536; most *= 16) {
        struct raw raw;
        raw_open(&raw, &f->b);
        raw_handshake(&raw, DIALOGUE_DATA);
        struct side *side = end_newest(&f->b);
        size_t length = 0, payloads = 0;
        uint32_t crc = 0;
        for (int i = 0; i < 8; i++) {
            size_t size = i % 4 == 3 ? 0 : 1 + test_random(&seed) % (most == 1 ? 300 : sizeof payload / 4) * 4;
            for (size_t k = 0; k < size; k++)
                payload[k] = (uint8_t)test_random(&seed);
            uint8_t type = size == 0 ? FRAME_GET : FRAME_PUSH;
            size = size == 0 ? 0 : size < 4 ? 4 : size;
            length += frame_bytes(bytes + length, &(struct frame){.type = type, .step = (uint64_t)i}, payload, size);
            crc = crc32c(crc, payload, size);
            payloads += size;
        }
        for (size_t at = 0; at < length;) {
            size_t piece = 1 + test_random(&seed) % most;
            piece = piece < length - at ? piece : length - at;
            raw_send(&raw, bytes + at, piece);
            struct error err = {0};
            assert_true(net_wait(f->b.net, 0, &err) >= 0);
            at += piece;
        }
        pump_heard(&f->b, NULL, side, 8);
        assert_int_equal(side->heard_crc, crc);
        assert_int_equal(side->heard_bytes, payloads);
        for (size_t i = 0; i < 8; i++)
            assert_int_equal(side->heard[i].step, i);
        raw_close(&raw);
        forget_others(f);
    }
    check_harmless(f, 0, "");
}

static void reset_connections_are_survived(void **state)
{
    struct fixture *f = *state;
    for (int which = 0; which < 4; which++) {
        struct raw raw;
        raw_advance(&raw, &f->b, which < 3 ? which : 2);
        if (which == 3) { /* with much on its way to it */
            struct side *side = end_newest(&f->b);
            static char text[WIRE_JSON_MOST];
            memset(text, ' ', sizeof text);
            for (int i = 0; i < 14; i++)
                conn_send_bytes(side->conn, &(struct frame){.type = FRAME_WELCOME}, text, sizeof text);
        }
        struct linger linger = {.l_onoff = 1};
        setsockopt(raw.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        raw_close(&raw); /* by a reset */
        pump_idle(&f->b, NULL);
        if (which >= 2)
            assert_true(f->b.sides[1].closed);
        forget_others(f);
    }
    char text[16384];
    end_logged(&f->b, text, sizeof text);
    check_harmless(f, 0, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(garbage_gets_one_line),
        TEST(a_look_at_the_port_is_no_mistake),
        TEST(a_flood_of_garbage_is_summed_up),
        TEST(silent_strangers_keep_nobody_out),
        TEST(wrong_members_are_told_why),
        TEST(a_dialler_without_the_token_is_refused),
        TEST(a_replayed_handshake_is_refused),
        TEST(another_version_is_answered_in_ours),
        TEST(a_false_listener_is_found_out),
        TEST(every_truncation_is_harmless),
        TEST(every_changed_byte_is_noticed),
        TEST(every_changed_byte_with_right_checksums_is_harmless),
        TEST(proven_peers_are_bound_to_their_dialogue),
        TEST(a_changed_payload_is_noticed),
        TEST(pieces_of_any_size_make_the_same_frames),
        TEST(reset_connections_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
