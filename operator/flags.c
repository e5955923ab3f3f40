#include "flags.h"

#include "common/clock.h"

#include <getopt.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

const char flags_help[] =
    "Usage: thole-operator --trainer-image IMAGE --key-file FILE [FLAG]...\n"
    "Turns TrainJobs into parameter servers and workers, and keeps their status and history.\n"
    "\n"
    "The cluster:\n"
    "  --kubeconfig FILE           instead of $KUBECONFIG, the pod's service account or ~/.kube/config\n"
    "  --context NAME              of the kubeconfig\n"
    "  --namespace NAME            watch this namespace only; without it, all\n"
    "\n"
    "Several operators, of which one acts:\n"
    "  --leader-elect[=BOOL]       by a Lease; without the flag true in a pod, and false where a kubeconfig is used\n"
    "  --leader-elect-resource-namespace N, --leader-elect-resource-name N\n"
    "                              of the Lease: the operator's own, thole-operator\n"
    "  --leader-elect-lease-duration TIME, --leader-elect-renew-deadline TIME, --leader-elect-retry-period TIME\n"
    "                              15s, 10s and 2s: who has not renewed for the first is replaced, who could not for\n"
    "                              the second ends, and it is tried at intervals of the third\n"
    "\n"
    "The jobs:\n"
    "  --trainer-image IMAGE       of jobs that name none\n"
    "  --allowed-host-paths P,...  directories of the nodes that Datasets, outputs and model files may be in; without\n"
    "                              it, none\n"
    "  --key-file FILE             the operator's secret, 16 bytes to 64 KiB; the jobs' tokens are made from it\n"
    "  --advertise-address H:P     where the jobs' coordinators find this operator; without it,\n"
    "                              thole-operator.<its namespace>.svc and the port of --listen\n"
    "\n"
    "  --resync-period TIME        look at each object so often though nothing happens to it: 10h; 0: never\n"
    "\n"
    "The server (coordinators, /healthz, /readyz, /metrics):\n"
    "  --listen [ADDRESS]:PORT     :8080\n"
    "  --debug                     also serve /debug/trainjob?key=NAMESPACE/NAME: what is queued, kept and remembered\n"
    "                              of a job, for whoever reaches the port\n"
    "\n"
    "The history (without one of these: in the jobs' status alone):\n"
    "  --mongodb-uri URI           mongodb://[user:password@]host[:port]\n"
    "  --mongodb-uri-file FILE     the same from a file, where it holds a password\n"
    "\n"
    "  --log-level LEVEL           debug, info, warn or error: info\n"
    "  --log-format FORMAT         text or json: text\n"
    "  --version                   print the version and end\n"
    "  --help                      print this and end\n";

enum {
    OPTION_FIRST = 256,
    OPTION_LOG_LEVEL = OPTION_FIRST,
    OPTION_LOG_FORMAT,
    OPTION_LEADER_ELECT,
    OPTION_LEASE_DURATION,
    OPTION_RENEW_DEADLINE,
    OPTION_RETRY_PERIOD,
    OPTION_RESYNC_PERIOD,
    OPTION_DEBUG,
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_TEXT
};

/* The options that are kept as they are; `val` of each is OPTION_TEXT plus its place here. */
static const struct {
    const char *name;
    size_t member;
} texts[] = {
    {"kubeconfig", offsetof(struct flags, kubeconfig)},
    {"context", offsetof(struct flags, context)},
    {"namespace", offsetof(struct flags, namespace)},
    {"trainer-image", offsetof(struct flags, trainer_image)},
    {"allowed-host-paths", offsetof(struct flags, allowed_host_paths)},
    {"key-file", offsetof(struct flags, key_file)},
    {"advertise-address", offsetof(struct flags, advertise_address)},
    {"listen", offsetof(struct flags, listen)},
    {"leader-elect-resource-namespace", offsetof(struct flags, lease_namespace)},
    {"leader-elect-resource-name", offsetof(struct flags, lease_name)},
    {"mongodb-uri", offsetof(struct flags, mongodb_uri)},
    {"mongodb-uri-file", offsetof(struct flags, mongodb_uri_file)},
};

enum { TEXTS = sizeof texts / sizeof texts[0], OTHERS = OPTION_TEXT - OPTION_FIRST };

static void fill_options(struct option options[TEXTS + OTHERS + 1])
{
    static const struct option others[OTHERS] = {
        {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
        {"log-format", required_argument, NULL, OPTION_LOG_FORMAT},
        {"resync-period", required_argument, NULL, OPTION_RESYNC_PERIOD},
        {"debug", no_argument, NULL, OPTION_DEBUG},
        {"leader-elect", optional_argument, NULL, OPTION_LEADER_ELECT},
        {"leader-elect-lease-duration", required_argument, NULL, OPTION_LEASE_DURATION},
        {"leader-elect-renew-deadline", required_argument, NULL, OPTION_RENEW_DEADLINE},
        {"leader-elect-retry-period", required_argument, NULL, OPTION_RETRY_PERIOD},
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
    };
    for (int i = 0; i < TEXTS; i++)
        options[i] = (struct option){texts[i].name, required_argument, NULL, OPTION_TEXT + i};
    memcpy(options + TEXTS, others, sizeof others);
    options[TEXTS + OTHERS] = (struct option){0};
}

/* "10h", "1.5m", "90s", "500ms", "0". */
static int parse_duration(const char *text, int64_t *out, struct error *err)
{
    static const struct {
        const char *name;
        int64_t length;
    } units[] = {{"h", 3600 * SECONDS}, {"m", 60 * SECONDS}, {"s", SECONDS}, {"ms", MILLISECONDS}};
    static const double most = 1e5 * 3600 * (double)SECONDS;
    char *end = NULL;
    double number = strtod(text, &end);
    if (*text < '0' || *text > '9')
        number = -1; /* strtod also reads signs, blanks and words */
    if (number == 0 && *end == '\0') {
        *out = 0;
        return 0;
    }
    for (size_t i = 0; number >= 0 && i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].name) != 0 || number * (double)units[i].length > most)
            continue;
        *out = (int64_t)(number * (double)units[i].length);
        return 0;
    }
    return error_set(err, "'%s' is no length of time: write it like 10h, 30m, 90s or 500ms, at most 100000h", text);
}

static int parse_elect(struct flags *flags, const char *value, struct error *err)
{
    if (value == NULL || strcmp(value, "true") == 0)
        flags->leader_elect = ELECT_ALWAYS;
    else if (strcmp(value, "false") == 0)
        flags->leader_elect = ELECT_NEVER;
    else
        return error_set(err, "--leader-elect=%s: say true or false", value);
    return 0;
}

static int take(struct flags *flags, int option, const char *name, char *value, struct error *err)
{
    switch (option) {
    case OPTION_LOG_LEVEL:
        return log_level_parse(value, &flags->log_level, err);
    case OPTION_LOG_FORMAT:
        return log_format_parse(value, &flags->log_format, err);
    case OPTION_RESYNC_PERIOD:
        return parse_duration(value, &flags->resync_period, err);
    case OPTION_DEBUG:
        flags->debug = true;
        return 0;
    case OPTION_LEADER_ELECT:
        return parse_elect(flags, value, err);
    case OPTION_LEASE_DURATION:
        return parse_duration(value, &flags->lease_duration, err);
    case OPTION_RENEW_DEADLINE:
        return parse_duration(value, &flags->renew_deadline, err);
    case OPTION_RETRY_PERIOD:
        return parse_duration(value, &flags->retry_period, err);
    case OPTION_HELP:
        flags->help = true;
        return 0;
    case OPTION_VERSION:
        flags->version = true;
        return 0;
    case ':':
        return error_set(err, "'%s' wants a value: see --help", name);
    case '?':
        return error_set(err, "there is no flag '%s', or it takes no value: see --help", name);
    default:
        memcpy((char *)flags + texts[option - OPTION_TEXT].member, &value, sizeof value);
        return 0;
    }
}

/* Whoever holds the Lease must have stopped before another takes it, and have tried more than once before it stops. */
static int check_election(const struct flags *flags, struct error *err)
{
    if (flags->lease_duration == 0 || flags->lease_duration % SECONDS != 0 || flags->lease_duration > 3600 * SECONDS)
        return error_set(err, "--leader-elect-lease-duration must be whole seconds, from 1s to 1h");
    if (flags->renew_deadline >= flags->lease_duration)
        return error_set(err, "--leader-elect-renew-deadline must be less than --leader-elect-lease-duration");
    if (flags->retry_period == 0 || flags->retry_period * 6 / 5 >= flags->renew_deadline)
        return error_set(err, "--leader-elect-retry-period must be more than 0 and less than five sixths of "
                              "--leader-elect-renew-deadline");
    if (*flags->lease_name == '\0')
        return error_set(err, "--leader-elect-resource-name is empty: name the Lease");
    return 0;
}

static int check(struct flags *flags, struct error *err)
{
    if (flags->trainer_image == NULL || *flags->trainer_image == '\0')
        return error_set(err, "--trainer-image is missing: name the image of jobs that name none");
    if (flags->key_file == NULL)
        return error_set(err, "--key-file is missing: name the file with the operator's secret");
    if (flags->mongodb_uri != NULL && flags->mongodb_uri_file != NULL)
        return error_set(err, "--mongodb-uri and --mongodb-uri-file exclude each other: give one of them");
    if (flags->namespace != NULL && *flags->namespace == '\0')
        flags->namespace = NULL;
    if (flags->mongodb_uri != NULL && *flags->mongodb_uri == '\0')
        flags->mongodb_uri = NULL;
    if (flags->lease_namespace != NULL && *flags->lease_namespace == '\0')
        flags->lease_namespace = NULL;
    return check_election(flags, err);
}

int flags_parse(struct flags *out, int count, char **arguments, struct error *err)
{
    struct option options[TEXTS + OTHERS + 1];
    fill_options(options);
    *out = (struct flags){.allowed_host_paths = "",
                          .listen = ":8080",
                          .lease_name = "thole-operator",
                          .lease_duration = 15 * SECONDS,
                          .renew_deadline = 10 * SECONDS,
                          .retry_period = 2 * SECONDS,
                          .resync_period = INT64_C(36000) * SECONDS,
                          .log_level = LOG_INFO,
                          .log_format = LOG_TEXT};
    optind = 0; /* begin anew, whatever was parsed before */
    opterr = 0;
    for (;;) {
        int at = optind == 0 ? 1 : optind;
        int option = getopt_long(count, arguments, ":", options, NULL);
        if (option == -1)
            break;
        if (take(out, option, at < count ? arguments[at] : "", optarg, err) < 0)
            return -1;
    }
    if (out->help || out->version)
        return 0;
    if (optind < count)
        return error_set(err, "'%s' is no flag: see --help", arguments[optind]);
    return check(out, err);
}
