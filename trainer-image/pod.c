#include "pod.h"

#include "common/buffer.h"
#include "setup.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const char help[] =
    "Usage: thole-trainer ps --shard I [options]\n"
    "       thole-trainer worker [options]\n"
    "\n"
    "One process of a job; in a cluster the operator starts it, on one machine `thole-trainer local` does.\n"
    "\n"
    "  --shard I            ps: which shard of the parameters; 0 is the coordinator too\n"
    "  --plan FILE          what the job computes [/etc/thole/job/plan.json]\n"
    "  --token FILE         the job's secret, 32 bytes [/etc/thole/job/token]\n"
    "  --data DIR           root of the data set's files [/data]\n"
    "  --start FILE         the model file that a job with spec.model.trainJobRef or file starts from\n"
    "                       [/start/model.safetensors]\n"
    "  --start-sha256 HEX   what that file must hold\n"
    "  --coordinator ADDR   host:port of shard 0 [$THOLE_COORDINATOR]\n"
    "  --listen ADDR        ps: where to listen [:7077]\n"
    "  --listen-fd N        ps: a listening socket that is open already\n"
    "  --advertise ADDR     ps: where others reach it [$POD_IP and the port]\n"
    "  --output DIR         ps 0: the model goes to DIR/<namespace>/<name>/<uid>/, if DIR exists [/output]\n"
    "  --model-file FILE    ps 0: the model goes here instead\n"
    "  --operator ADDR      ps 0: host:port to report to [$THOLE_OPERATOR; none: no reports]\n"
    "  --report-fd N        ps 0: a socket to report over instead\n"
    "  --exit-when-done     leave when the job is over, instead of waiting for SIGTERM\n"
    "  --with-parent PID    end when that process, the parent, does\n"
    "  --log-level LEVEL    debug, info, warn or error [info]\n"
    "  --log-format FORMAT  text or json [text]\n"
    "\n"
    "POD_NAME and POD_UID are used in reports and messages. Status 65: the data set cannot be read.\n";

static const char *environment(const char *name, const char *fallback)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : fallback;
}

static int parse_number(const char *text, const char *flag, uint64_t most, uint64_t *out, struct error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > most)
        return error_set(err, "--%s %s: is not a number from 0 to %llu", flag, text, (unsigned long long)most);
    *out = value;
    return 0;
}

/* A process that its parent left behind would go on for ever. */
static int die_with(uint64_t parent, struct error *err)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_errno(err, "tie this process to its parent");
    if ((uint64_t)getppid() != parent)
        return error_set(err, "process %llu, which this one belongs to, is gone", (unsigned long long)parent);
    return 0;
}

enum flag_kind {
    FLAG_TEXT, /* kept as it is */
    FLAG_FD,
    FLAG_SHARD,
    FLAG_EXIT_WHEN_DONE,
    FLAG_WITH_PARENT,
    FLAG_LOG_LEVEL,
    FLAG_LOG_FORMAT,
    FLAG_HELP,
};

static const struct flag {
    const char *name;
    enum flag_kind kind;
    size_t member; /* of struct pod: a text or a descriptor */
} flags[] = {
    {"shard", FLAG_SHARD, 0},
    {"plan", FLAG_TEXT, offsetof(struct pod, plan_file)},
    {"token", FLAG_TEXT, offsetof(struct pod, token_file)},
    {"data", FLAG_TEXT, offsetof(struct pod, data)},
    {"start", FLAG_TEXT, offsetof(struct pod, start)},
    {"start-sha256", FLAG_TEXT, offsetof(struct pod, start_sha256)},
    {"coordinator", FLAG_TEXT, offsetof(struct pod, coordinator)},
    {"listen", FLAG_TEXT, offsetof(struct pod, listen)},
    {"listen-fd", FLAG_FD, offsetof(struct pod, listen_fd)},
    {"advertise", FLAG_TEXT, offsetof(struct pod, advertise)},
    {"output", FLAG_TEXT, offsetof(struct pod, output)},
    {"model-file", FLAG_TEXT, offsetof(struct pod, model_file)},
    {"operator", FLAG_TEXT, offsetof(struct pod, operator_address)},
    {"report-fd", FLAG_FD, offsetof(struct pod, report_fd)},
    {"exit-when-done", FLAG_EXIT_WHEN_DONE, 0},
    {"with-parent", FLAG_WITH_PARENT, 0},
    {"log-level", FLAG_LOG_LEVEL, 0},
    {"log-format", FLAG_LOG_FORMAT, 0},
    {"help", FLAG_HELP, 0},
};

enum { FLAGS = sizeof flags / sizeof flags[0], FLAG_FIRST = 256 /* as getopt_long() answers */ };

static void fill_options(struct option options[FLAGS + 1])
{
    for (int i = 0; i < FLAGS; i++) {
        bool alone = flags[i].kind == FLAG_EXIT_WHEN_DONE || flags[i].kind == FLAG_HELP;
        options[i] = (struct option){flags[i].name, alone ? no_argument : required_argument, NULL, FLAG_FIRST + i};
    }
    options[FLAGS] = (struct option){0};
}

static int parse_flag(struct pod *pod, const struct flag *flag, const char *value, struct error *err)
{
    void *member = (char *)pod + flag->member;
    uint64_t number = 0;
    switch (flag->kind) {
    case FLAG_TEXT:
        memcpy(member, &value, sizeof value);
        return 0;
    case FLAG_FD:
        if (parse_number(value, flag->name, 1 << 20, &number, err) < 0)
            return -1;
        memcpy(member, &(int){(int)number}, sizeof(int));
        return 0;
    case FLAG_SHARD:
        if (parse_number(value, flag->name, PLAN_SHARDS_MOST - 1, &number, err) < 0)
            return -1;
        pod->shard = (uint32_t)number;
        return 0;
    case FLAG_WITH_PARENT:
        return parse_number(value, flag->name, INT32_MAX, &number, err) < 0 ? -1 : die_with(number, err);
    case FLAG_LOG_LEVEL:
        return log_level_parse(value, &pod->log.level, err);
    case FLAG_LOG_FORMAT:
        return log_format_parse(value, &pod->log.format, err);
    case FLAG_EXIT_WHEN_DONE:
        pod->exit_when_done = true;
        return 0;
    case FLAG_HELP:
        fputs(help, stdout);
        return 1;
    }
    return 0;
}

int pod_parse(struct pod *pod, int argc, char **argv, struct error *err)
{
    *pod = (struct pod){
        .log = {.fd = STDERR_FILENO, .level = LOG_INFO, .format = LOG_TEXT, .component = argv[1]},
        .argv = argv,
        .plan_file = "/etc/thole/job/plan.json",
        .token_file = "/etc/thole/job/token",
        .data = "/data",
        .start = "/start/model.safetensors",
        .output = "/output",
        .listen = ":7077",
        .coordinator = environment("THOLE_COORDINATOR", NULL),
        .operator_address = environment("THOLE_OPERATOR", NULL),
        .name = environment("POD_NAME", argv[1]),
        .uid = environment("POD_UID", "local"),
        .listen_fd = -1,
        .report_fd = -1,
    };
    struct option options[FLAGS + 1];
    fill_options(options);
    opterr = 0;
    optind = 2;
    int option;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (option == ':' || option == '?')
            return error_set(err, "%s %s; see thole-trainer %s --help", argv[optind - 1],
                             option == ':' ? "needs a value" : "is no flag of this role", argv[1]);
        int parsed = parse_flag(pod, &flags[option - FLAG_FIRST], optarg, err);
        if (parsed != 0)
            return parsed;
    }
    if (optind < argc)
        return error_set(err, "'%s' is no flag; see thole-trainer %s --help", argv[optind], argv[1]);
    return 0;
}

static int read_token(struct pod *pod, struct error *err)
{
    cleanup_buffer struct buffer token;
    buffer_init(&token, sizeof pod->token + 1);
    if (buffer_read_file(&token, pod->token_file, err) < 0)
        return -1;
    if (token.length != sizeof pod->token)
        return error_set(err, "'%s' holds %zu bytes and no token of %zu", pod->token_file, token.length,
                         sizeof pod->token);
    memcpy(pod->token, token.data, sizeof pod->token);
    explicit_bzero(token.data, token.length);
    return 0;
}

int pod_load(struct pod *pod, struct error *err)
{
    cleanup_buffer struct buffer text;
    buffer_init(&text, PLAN_BYTES_MOST);
    if (buffer_read_file(&text, pod->plan_file, err) < 0 || plan_parse(&pod->plan, text.data, text.length, err) < 0 ||
        read_token(pod, err) < 0)
        return -1;
    do
        pod->boot_id = random_u64();
    while (pod->boot_id == 0);
    return 0;
}

void pod_free(struct pod *pod)
{
    plan_free(pod->plan);
    explicit_bzero(pod->token, sizeof pod->token);
}

/* A job was started with one file and no other: two in one place would be two jobs. Where nobody knew what it holds,
 * all processes must have found the same: the plan's digest tells them. */
static int check_start(const struct pod *pod, struct error *err)
{
    uint8_t digest[SHA256_SIZE];
    char found[SHA256_HEX_SIZE];
    if (pod->start_sha256 == NULL && pod->plan->model.start == NULL)
        return 0;
    if (sha256_file(pod->start, digest, err) < 0)
        return -1;
    hex_encode(digest, sizeof digest, found);
    if (pod->start_sha256 == NULL || strcmp(found, pod->start_sha256) == 0)
        return pod->plan->model.start == NULL ? 0 : plan_begin_from(pod->plan, digest, err);
    return error_set(
        err,
        "the model file '%s' is not the one that the job was started with: its SHA-256 is %s, not %.64s; put "
        "that file back, or make the job again",
        pod->start, found, pod->start_sha256);
}

int pod_model(const struct pod *pod, struct model **out, struct dataset_description *train,
              struct dataset_description *test, struct error *err)
{
    cleanup_setup struct setup setup = {0};
    if (check_start(pod, err) < 0 || setup_read(&setup, pod->plan, pod->data, pod->start, err) < 0)
        return -1;
    *train = setup.train;
    *test = setup.test;
    return model_build(out, move(setup.network), err);
}

int pod_net(const struct pod *pod, struct net **out, struct error *err)
{
    struct net_options options = {.boot_id = pod->boot_id, .log = &pod->log};
    memcpy(options.token, pod->token, sizeof options.token);
    memcpy(options.plan_digest, pod->plan->digest, sizeof options.plan_digest);
    return net_new(out, &options, err);
}

int pod_signals(struct error *err)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        return error_errno(err, "block signals");
    int fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? error_errno(err, "wait for signals") : fd;
}
