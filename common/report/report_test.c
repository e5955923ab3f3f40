#include "common/report/report.h"
#include "common/test/scarce.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define HEX64 "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define HELLO                                                                                                          \
    "{\"type\":\"hello\",\"namespace\":\"default\",\"name\":\"lenet\",\"uid\":\"0b1c-2d\",\"pod\":\"lenet-ps-0-x\","   \
    "\"podUID\":\"77aa\",\"boot\":\"0123456789abcdef\",\"term\":1,\"kernel\":\"SkylakeX\",\"nonce\":\"" HEX64          \
    "\",\"mac\":\"" HEX64 "\"}"
#define MODEL "\"model\":{\"path\":\"a/b\",\"sha256\":\"" HEX64 "\",\"bytes\":246824,\"step\":2345}"

#define PROGRESS "{\"type\":\"progress\",\"term\":1,\"epoch\":1,\"steps\":5,\"step\":5,\"workers\":0,\"idleWorkers\":0,"

/* What each side writes, byte for byte: the other side may be of another version. */
static const char *const golden[] = {
    "{\"type\":\"challenge\",\"nonce\":\"" HEX64 "\"}",
    HELLO,
    "{\"type\":\"welcome\",\"mac\":\"" HEX64 "\",\"status\":2,\"history\":1}",
    "{\"type\":\"progress\",\"term\":1,\"epoch\":3,\"step\":1406,\"steps\":2345,\"trainLoss\":0.31,\"workers\":2,"
    "\"idleWorkers\":0,\"message\":\"waiting for a worker\"}",
    "{\"type\":\"progress\",\"term\":1,\"epoch\":1,\"step\":0,\"steps\":2345,\"workers\":0,\"idleWorkers\":0}",
    "{\"type\":\"progress\",\"term\":1,\"epoch\":1,\"step\":7,\"steps\":9,\"workers\":2,\"idleWorkers\":0,"
    "\"sync\":{\"steps\":7,\"samples\":700,\"duplicates\":1,\"stale\":2,\"staleness\":[4,0,3]}}",
    "{\"type\":\"epoch\",\"term\":4294967295,\"epoch\":3,\"trainLoss\":0.3127,\"validationLoss\":0.4,"
    "\"accuracy\":88.41,\"parallelism\":2,\"durationSeconds\":2.9}",
    "{\"type\":\"epoch\",\"term\":1,\"epoch\":3,\"trainLoss\":0.1,\"parallelism\":2,\"durationSeconds\":2.9}",
    "{\"type\":\"epoch\",\"term\":1,\"epoch\":3,\"accuracy\":10,\"parallelism\":2,\"durationSeconds\":2.9}",
    "{\"type\":\"epoch\",\"term\":1,\"epoch\":3,\"validationLoss\":0.25,\"parallelism\":2,\"durationSeconds\":2.9}",
    "{\"type\":\"finished\",\"term\":1,\"result\":\"Succeeded\",\"reason\":\"Trained\",\"message\":\"done – 5 "
    "epochs\"," MODEL "}",
    "{\"type\":\"finished\",\"term\":1,\"result\":\"Failed\",\"reason\":\"DataUnreadable\"}",
    "{\"type\":\"finished\",\"term\":1,\"result\":\"Succeeded\",\"reason\":\"Completed\"," MODEL
    ",\"sync\":{\"steps\":4690,\"samples\":700,\"duplicates\":0,\"stale\":0,\"staleness\":[]}}",
    "{\"type\":\"ack\",\"status\":3,\"history\":2}",
    "{\"type\":\"ack-finished\"}",
    "{\"type\":\"refused\",\"message\":\"a newer pod is the coordinator\"}",
};

static void messages_survive_the_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        struct error err = {0};
        struct report_message message;
        int result = report_decode(&message, golden[i], strlen(golden[i]), &err);
        assert_string_equal(error_message(&err), "");
        assert_int_equal(result, 0);
        cleanup_free char *text = report_encode(&message);
        assert_string_equal(text, golden[i]);
    }
}

static void mistakes_name_the_member(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"", "the message is not JSON: mistake at byte 0"},
        {"[]", "'type' must name a message of thole-report.v1"},
        {"{\"type\":\"hullo\"}", "'type' must name a message of thole-report.v1"},
        {"{\"type\":\"ack\",\"status\":1,\"history\":2}}",
         "the message is not JSON: there is more behind its end at byte 37"},
        {"{\"type\":\"ack\",\"status\":-1,\"history\":2}", "'status' must be a whole number from 0 to 1000000"},
        {"{\"type\":\"ack\",\"status\":1.5,\"history\":2}", "'status' must be a whole number from 0 to 1000000"},
        {"{\"type\":\"ack\",\"status\":1}", "'history' must be a whole number from 0 to 1000000"},
        {"{\"type\":\"challenge\",\"nonce\":\"00\"}", "'nonce' must be 64 hexadecimal digits"},
        {"{\"type\":\"challenge\",\"nonce\":7}", "'nonce' must be 64 hexadecimal digits"},
        {"{\"type\":\"hello\",\"namespace\":\"a/b\"}", "'namespace' must be made of letters, digits, '.', '_' and '-'"},
        {"{\"type\":\"hello\",\"namespace\":\"\"}", "'namespace' must be made of letters, digits, '.', '_' and '-'"},
        {"{\"type\":\"hello\",\"namespace\":7}", "'namespace' must be a string"},
        {"{\"type\":\"hello\",\"namespace\":\"0123456789012345678901234567890123456789012345678901234567890123\"}",
         "'namespace' is longer than 63 bytes"},
        {"{\"type\":\"progress\",\"term\":0}", "'term' must be a whole number from 1 to 4294967295"},
        {"{\"type\":\"progress\",\"term\":1,\"epoch\":1,\"steps\":5,\"step\":6}",
         "'step' must be a whole number from 0 to 5"},
        {"{\"type\":\"progress\",\"term\":1,\"epoch\":1,\"steps\":5,\"step\":5,\"workers\":0,\"idleWorkers\":0,"
         "\"message\":\"a\\nb\"}",
         "'message' holds control characters or is not UTF-8"},
        {PROGRESS "\"sync\":{}}", "'sync.steps' must be a whole number from 0 to 9007199254740992"},
        {PROGRESS "\"sync\":{\"steps\":1,\"samples\":700,\"duplicates\":0,\"stale\":-1}}",
         "'sync.stale' must be a whole number from 0 to 9007199254740992"},
        {PROGRESS "\"sync\":{\"steps\":1,\"samples\":700,\"duplicates\":0,\"stale\":0}}",
         "'sync.staleness' must be a list of at most 16 numbers"},
        {PROGRESS "\"sync\":{\"steps\":1,\"samples\":700,\"duplicates\":0,\"stale\":0,"
                  "\"staleness\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}}",
         "'sync.staleness' must be a list of at most 16 numbers"},
        {PROGRESS "\"sync\":{\"steps\":1,\"samples\":700,\"duplicates\":0,\"stale\":0,\"staleness\":[1,0.5]}}",
         "'sync.staleness' must hold whole numbers from 0 to 9007199254740992"},
        {"{\"type\":\"refused\",\"message\":\"\xc3\"}", "'message' holds control characters or is not UTF-8"},
        {"{\"type\":\"refused\",\"message\":\"\xed\xa0\x80\"}", "'message' holds control characters or is not UTF-8"},
        {"{\"type\":\"epoch\",\"term\":1,\"epoch\":0}", "'epoch' must be a whole number from 1 to 1000000"},
        {"{\"type\":\"epoch\",\"term\":1,\"epoch\":1,\"trainLoss\":\"NaN\"}",
         "'trainLoss' must be a number from -1.79769e+308 to 1.79769e+308"},
        {"{\"type\":\"epoch\",\"term\":1,\"epoch\":1,\"trainLoss\":1e999}",
         "'trainLoss' must be a number from -1.79769e+308 to 1.79769e+308"},
        {"{\"type\":\"epoch\",\"term\":1,\"epoch\":1,\"parallelism\":1}",
         "'durationSeconds' must be a number from 0 to 1.79769e+308"},
        {"{\"type\":\"epoch\",\"term\":1,\"epoch\":1,\"parallelism\":1,\"durationSeconds\":1,\"accuracy\":100.5}",
         "'accuracy' must be a number from 0 to 100"},
        {"{\"type\":\"finished\",\"term\":1,\"result\":\"Done\"}", "'result' must be 'Succeeded' or 'Failed'"},
        {"{\"type\":\"finished\",\"term\":1,\"result\":\"Failed\",\"reason\":\"A B\"}",
         "'reason' must be made of letters, digits, '.', '_' and '-'"},
        {"{\"type\":\"finished\",\"term\":1,\"result\":\"Succeeded\",\"reason\":\"A\",\"model\":{\"path\":\"a\"}}",
         "'model.sha256' must be 64 hexadecimal digits"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        struct report_message message;
        assert_int_equal(report_decode(&message, cases[i].text, strlen(cases[i].text), &err), -1);
        assert_string_equal(error_message(&err), cases[i].sentence);
    }
}

static void a_message_longer_than_the_cap_is_refused(void **state)
{
    (void)state;
    static char text[REPORT_MESSAGE_MOST + 1];
    memset(text, ' ', sizeof text);
    memcpy(text, golden[0], strlen(golden[0]));
    struct error err = {0};
    struct report_message message;
    assert_int_equal(report_decode(&message, text, sizeof text - 1, &err), 0);
    assert_int_equal(report_decode(&message, text, sizeof text, &err), -1);
    assert_string_equal(error_message(&err), "a message of 16385 bytes is longer than 16384");
}

static void whatever_is_written_can_be_read(void **state)
{
    (void)state;
    struct report_message message = {.type = REPORT_FINISHED};
    message.finished = (struct report_finished){.term = 1, .reason = "Failed", .has_model = true};
    /* "…é" cut in the middle, as snprintf cuts; a lone continuation; controls; quotes. */
    snprintf(message.finished.message, sizeof message.finished.message, "a\n\"b\"\x80\t\xc3");
    memset(message.finished.model.path, '"', sizeof message.finished.model.path - 1);
    snprintf(message.finished.model.sha256, sizeof message.finished.model.sha256, HEX64);
    cleanup_free char *text = report_encode(&message);
    assert_non_null(text);
    assert_true(strlen(text) <= REPORT_MESSAGE_MOST);
    struct error err = {0};
    struct report_message read;
    assert_int_equal(report_decode(&read, text, strlen(text), &err), 0);
    assert_string_equal(read.finished.message, "a \"b\"? ?");
}

static void a_loss_that_is_not_finite_is_absent(void **state)
{
    (void)state;
    struct report_message message = {.type = REPORT_EPOCH};
    message.epoch = (struct report_epoch){.term = 1,
                                          .epoch = 1,
                                          .train_loss = (double)INFINITY,
                                          .validated = true,
                                          .validation_loss = (double)NAN,
                                          .accuracy = 10,
                                          .parallelism = 1};
    cleanup_free char *text = report_encode(&message);
    assert_string_equal(text, "{\"type\":\"epoch\",\"term\":1,\"epoch\":1,\"accuracy\":10,\"parallelism\":1,"
                              "\"durationSeconds\":0}");
    struct error err = {0};
    struct report_message read;
    assert_int_equal(report_decode(&read, text, strlen(text), &err), 0);
    assert_true(isnan(read.epoch.train_loss));
    assert_true(isnan(read.epoch.validation_loss));
    assert_true(read.epoch.validated);
}

static void staleness_has_sixteen_buckets(void **state)
{
    (void)state;
    static const struct {
        uint64_t staleness;
        uint32_t bucket;
    } cases[] = {{0, 0},  {7, 7},    {8, 8},     {15, 8},    {16, 9},
                 {31, 9}, {512, 14}, {1023, 14}, {1024, 15}, {UINT64_MAX, 15}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(report_staleness_bucket(cases[i].staleness), cases[i].bucket);
}

static struct report_hello example_hello(void)
{
    struct error err = {0};
    struct report_message message;
    assert_int_equal(report_decode(&message, HELLO, strlen(HELLO), &err), 0);
    return message.hello;
}

/* Both values were computed with Python's hmac module from the formula in report.h. */
static void macs_match_their_formula(void **state)
{
    (void)state;
    struct report_hello hello = example_hello();
    uint8_t token[REPORT_TOKEN_SIZE], nonce[REPORT_NONCE_SIZE], mac[SHA256_SIZE];
    memset(token, 0x11, sizeof token);
    memset(nonce, 0x22, sizeof nonce);
    char hex[SHA256_HEX_SIZE];
    report_hello_mac(&hello, token, nonce, mac);
    hex_encode(mac, sizeof mac, hex);
    assert_string_equal(hex, "1211d6708e298d39ec4a6a5a74c5caabcafcc10696a6e05116e4132f63b4e7dd");
    report_welcome_mac(token, hello.nonce, nonce, mac);
    hex_encode(mac, sizeof mac, hex);
    assert_string_equal(hex, "0a380b0479cf0e6c8562866336780ef443981f4367fcf756da5abf052d0a0c33");
}

static void a_mac_depends_on_where_texts_end(void **state)
{
    (void)state;
    struct report_hello a = example_hello(), b = example_hello();
    snprintf(a.job_uid, sizeof a.job_uid, "12");
    snprintf(a.pod_uid, sizeof a.pod_uid, "3");
    snprintf(b.job_uid, sizeof b.job_uid, "1");
    snprintf(b.pod_uid, sizeof b.pod_uid, "23");
    uint8_t token[REPORT_TOKEN_SIZE] = {0}, nonce[REPORT_NONCE_SIZE] = {0}, first[SHA256_SIZE], second[SHA256_SIZE];
    report_hello_mac(&a, token, nonce, first);
    report_hello_mac(&b, token, nonce, second);
    assert_memory_not_equal(first, second, sizeof first);
}

/* xorshift64*: the same mutations in every run. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static size_t mutate(char *text, size_t length, size_t size, uint64_t *random)
{
    static const char spice[] = "{}[]\",:0123456789-.eE\\untf\x80\xff\xc3\x01 ";
    for (uint64_t changes = 1 + next_random(random) % 4; changes > 0; changes--) {
        size_t at = next_random(random) % length;
        char with = spice[next_random(random) % (sizeof spice - 1)];
        uint64_t how = next_random(random) % 3;
        if (how == 0) {
            text[at] = with;
        } else if (how == 1 && length > 1) {
            memmove(text + at, text + at + 1, length - at - 1);
            length--;
        } else if (length < size) {
            memmove(text + at + 1, text + at, length - at);
            text[at] = with;
            length++;
        }
    }
    return length;
}

/* Whatever comes is either refused with a sentence, or means what it says when written and read again. */
static void mutated_messages_are_refused_or_understood(void **state)
{
    (void)state;
    uint64_t random = 1;
    size_t understood = 0;
    for (size_t round = 0; round < 30000; round++) {
        const char *original = golden[round % (sizeof golden / sizeof golden[0])];
        size_t length = strlen(original);
        /* Exactly as long as the message, so that a read past its end is seen. */
        cleanup_free char *text = malloc(length + 8);
        assert_non_null(text);
        memcpy(text, original, length);
        length = mutate(text, length, length + 8, &random);
        cleanup_free char *exact = malloc(length);
        assert_non_null(exact);
        memcpy(exact, text, length);

        struct error err = {0};
        struct report_message message, again;
        if (report_decode(&message, exact, length, &err) < 0) {
            assert_true(error_message(&err)[0] != '\0');
            continue;
        }
        understood++;
        cleanup_free char *first = report_encode(&message);
        assert_non_null(first);
        assert_int_equal(report_decode(&again, first, strlen(first), &err), 0);
        cleanup_free char *second = report_encode(&again);
        assert_string_equal(first, second);
    }
    assert_true(understood > 1000);
}

/* Whatever allocation fails, the answer is a whole one or none. */
static void failing_allocations_are_survived(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        bool refused = true;
        for (size_t allowed = 0; refused; allowed++) {
            struct error err = {0};
            struct report_message message;
            scarce_begin(SCARCE_ONE, allowed);
            int result = report_decode(&message, golden[i], strlen(golden[i]), &err);
            cleanup_free char *text = result == 0 ? report_encode(&message) : NULL;
            refused = scarce_end();
            assert_int_equal(result < 0, error_message(&err)[0] != '\0');
            if (text != NULL)
                assert_string_equal(text, golden[i]);
            assert_true(text != NULL || refused);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_survive_the_round_trip),
        cmocka_unit_test(mistakes_name_the_member),
        cmocka_unit_test(a_message_longer_than_the_cap_is_refused),
        cmocka_unit_test(whatever_is_written_can_be_read),
        cmocka_unit_test(a_loss_that_is_not_finite_is_absent),
        cmocka_unit_test(staleness_has_sixteen_buckets),
        cmocka_unit_test(macs_match_their_formula),
        cmocka_unit_test(a_mac_depends_on_where_texts_end),
        cmocka_unit_test(mutated_messages_are_refused_or_understood),
        cmocka_unit_test(failing_allocations_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
