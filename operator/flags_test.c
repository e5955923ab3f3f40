#include "flags.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { ARGUMENTS_MOST = 8 };

static int parse(struct flags *flags, const char *const *arguments, struct error *err)
{
    char *copies[ARGUMENTS_MOST + 2] = {"thole-operator"};
    int count = 1;
    for (; count <= ARGUMENTS_MOST && arguments[count - 1] != NULL; count++)
        copies[count] = (char *)arguments[count - 1];
    return flags_parse(flags, count, copies, err);
}

#define NEEDED "--trainer-image=i", "--key-file=k"

static void flags_have_their_defaults(void **state)
{
    (void)state;
    struct error err = {0};
    struct flags flags;
    assert_int_equal(parse(&flags, (const char *[ARGUMENTS_MOST]){NEEDED, "--namespace="}, &err), 0);
    assert_string_equal(flags.trainer_image, "i");
    assert_string_equal(flags.key_file, "k");
    assert_string_equal(flags.listen, ":8080");
    assert_string_equal(flags.allowed_host_paths, "");
    assert_null(flags.namespace);
    assert_null(flags.mongodb_uri);
    assert_null(flags.advertise_address);
    assert_int_equal(flags.log_level, LOG_INFO);
    assert_int_equal(flags.log_format, LOG_TEXT);
}

static void every_flag_reaches_its_member(void **state)
{
    (void)state;
    struct error err = {0};
    struct flags flags;
    assert_int_equal(
        parse(&flags, (const char *[ARGUMENTS_MOST]){NEEDED, "--kubeconfig", "a", "--context=b", "--listen=:1"}, &err),
        0);
    assert_string_equal(flags.kubeconfig, "a");
    assert_string_equal(flags.context, "b");
    assert_string_equal(flags.listen, ":1");
    assert_int_equal(parse(&flags,
                           (const char *[ARGUMENTS_MOST]){NEEDED, "--namespace=n", "--allowed-host-paths=/a,/b",
                                                          "--advertise-address=h:1", "--mongodb-uri=m",
                                                          "--log-level=debug", "--log-format=json"},
                           &err),
                     0);
    assert_string_equal(flags.namespace, "n");
    assert_string_equal(flags.allowed_host_paths, "/a,/b");
    assert_string_equal(flags.advertise_address, "h:1");
    assert_string_equal(flags.mongodb_uri, "m");
    assert_int_equal(flags.log_level, LOG_DEBUG);
    assert_int_equal(flags.log_format, LOG_JSON);
    assert_int_equal(parse(&flags, (const char *[ARGUMENTS_MOST]){NEEDED, "--mongodb-uri-file=f"}, &err), 0);
    assert_string_equal(flags.mongodb_uri_file, "f");
    assert_int_equal(parse(&flags, (const char *[ARGUMENTS_MOST]){"--version"}, &err), 0);
    assert_true(flags.version);
    assert_int_equal(parse(&flags, (const char *[ARGUMENTS_MOST]){"--help"}, &err), 0);
    assert_true(flags.help);
}

static void mistakes_name_the_flag(void **state)
{
    (void)state;
    static const struct {
        const char *arguments[ARGUMENTS_MOST];
        const char *sentence;
    } cases[] = {
        {{0}, "--trainer-image is missing: name the image of jobs that name none"},
        {{"--trainer-image=i"}, "--key-file is missing: name the file with the operator's secret"},
        {{NEEDED, "--colour"}, "there is no flag '--colour', or it takes no value: see --help"},
        {{NEEDED, "-x"}, "there is no flag '-x', or it takes no value: see --help"},
        {{NEEDED, "--help=yes"}, "there is no flag '--help=yes', or it takes no value: see --help"},
        {{NEEDED, "--listen"}, "'--listen' wants a value: see --help"},
        {{NEEDED, "here"}, "'here' is no flag: see --help"},
        {{NEEDED, "--log-level=loud"}, "'loud' is no log level: use debug, info, warn or error"},
        {{NEEDED, "--mongodb-uri=a", "--mongodb-uri-file=b"},
         "--mongodb-uri and --mongodb-uri-file exclude each other: give one of them"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        struct flags flags;
        assert_int_equal(parse(&flags, cases[i].arguments, &err), -1);
        assert_string_equal(error_message(&err), cases[i].sentence);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_have_their_defaults),
        cmocka_unit_test(every_flag_reaches_its_member),
        cmocka_unit_test(mistakes_name_the_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
