#include "flags.h"

#include "common/clock.h"

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

#define LEASE_DURATION "--leader-elect-lease-duration must be whole seconds, from 1s to 1h"
#define RETRY_PERIOD                                                                                                   \
    "--leader-elect-retry-period must be more than 0 and less than five sixths of --leader-elect-renew-deadline"
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
    assert_int_equal(flags.leader_elect, ELECT_IN_A_POD);
    assert_null(flags.lease_namespace);
    assert_string_equal(flags.lease_name, "thole-operator");
    assert_int_equal(flags.lease_duration, 15 * SECONDS);
    assert_int_equal(flags.renew_deadline, 10 * SECONDS);
    assert_int_equal(flags.retry_period, 2 * SECONDS);
    assert_int_equal(flags.log_level, LOG_INFO);
    assert_int_equal(flags.log_format, LOG_TEXT);
    assert_int_equal(flags.resync_period, 36000 * SECONDS);
    assert_false(flags.debug);
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
    assert_int_equal(
        parse(&flags,
              (const char *[ARGUMENTS_MOST]){NEEDED, "--leader-elect", "--leader-elect-resource-namespace=n",
                                             "--leader-elect-resource-name=l", "--leader-elect-lease-duration=1m",
                                             "--leader-elect-renew-deadline=40s", "--leader-elect-retry-period=500ms"},
              &err),
        0);
    assert_int_equal(flags.leader_elect, ELECT_ALWAYS);
    assert_string_equal(flags.lease_namespace, "n");
    assert_string_equal(flags.lease_name, "l");
    assert_int_equal(flags.lease_duration, 60 * SECONDS);
    assert_int_equal(flags.renew_deadline, 40 * SECONDS);
    assert_int_equal(flags.retry_period, 500 * MILLISECONDS);
    assert_int_equal(parse(&flags, (const char *[ARGUMENTS_MOST]){NEEDED, "--leader-elect=false"}, &err), 0);
    assert_int_equal(flags.leader_elect, ELECT_NEVER);
    assert_int_equal(parse(&flags, (const char *[ARGUMENTS_MOST]){NEEDED, "--mongodb-uri-file=f"}, &err), 0);
    assert_string_equal(flags.mongodb_uri_file, "f");
    assert_int_equal(parse(&flags, (const char *[ARGUMENTS_MOST]){NEEDED, "--debug", "--resync-period=1.5s"}, &err), 0);
    assert_true(flags.debug);
    assert_int_equal(flags.resync_period, 1500 * MILLISECONDS);
    assert_int_equal(parse(&flags, (const char *[ARGUMENTS_MOST]){"--version"}, &err), 0);
    assert_true(flags.version);
    assert_int_equal(parse(&flags, (const char *[ARGUMENTS_MOST]){"--help"}, &err), 0);
    assert_true(flags.help);
}

static void lengths_of_time_have_a_unit(void **state)
{
    (void)state;
    static const struct {
        const char *flag;
        int64_t length; /* -1: refused */
    } cases[] = {
        {"--resync-period=0", 0},
        {"--resync-period=0s", 0},
        {"--resync-period=20ms", 20 * MILLISECONDS},
        {"--resync-period=90s", 90 * SECONDS},
        {"--resync-period=2m", 120 * SECONDS},
        {"--resync-period=10h", 36000 * SECONDS},
        {"--resync-period=100000h", 360000000 * SECONDS},
        {"--resync-period=100001h", -1},
        {"--resync-period=1e300h", -1},
        {"--resync-period=10", -1},
        {"--resync-period=", -1},
        {"--resync-period=-1s", -1},
        {"--resync-period= 1s", -1},
        {"--resync-period=nans", -1},
        {"--resync-period=1h30m", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        struct flags flags;
        int result = parse(&flags, (const char *[ARGUMENTS_MOST]){NEEDED, cases[i].flag}, &err);
        assert_int_equal(result, cases[i].length < 0 ? -1 : 0);
        if (result == 0)
            assert_int_equal(flags.resync_period, cases[i].length);
    }
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
        {{NEEDED, "--resync-period=often"},
         "'often' is no length of time: write it like 10h, 30m, 90s or 500ms, at most 100000h"},
        {{NEEDED, "--leader-elect=perhaps"}, "--leader-elect=perhaps: say true or false"},
        {{NEEDED, "--leader-elect-lease-duration=15500ms"}, LEASE_DURATION},
        {{NEEDED, "--leader-elect-lease-duration=0"}, LEASE_DURATION},
        {{NEEDED, "--leader-elect-lease-duration=2h"}, LEASE_DURATION},
        {{NEEDED, "--leader-elect-renew-deadline=15s"},
         "--leader-elect-renew-deadline must be less than --leader-elect-lease-duration"},
        {{NEEDED, "--leader-elect-retry-period=9s"}, RETRY_PERIOD},
        {{NEEDED, "--leader-elect-retry-period=0"}, RETRY_PERIOD},
        {{NEEDED, "--leader-elect-resource-name="}, "--leader-elect-resource-name is empty: name the Lease"},
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
        cmocka_unit_test(lengths_of_time_have_a_unit),
        cmocka_unit_test(mistakes_name_the_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
