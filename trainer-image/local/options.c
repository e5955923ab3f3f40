#include "local/options.h"

#include "common/log.h"
#include "common/plan/plan.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: thole-trainer local -f dataset.yaml -f trainjob.yaml [options]\n"
    "\n"
    "Runs a TrainJob as processes on this machine, without Kubernetes: the same YAML, the same model, bit for bit.\n"
    "Leaves DIR/model.safetensors and DIR/history.json. Ctrl-C stops everything.\n"
    "\n"
    "  -f, --file FILE     a file with Datasets and TrainJobs; may be given several times\n"
    "  --job NAME          which TrainJob, if there are several\n"
    "  --workers N         instead of spec.workers.replicas\n"
    "  --shards N          instead of spec.parameterServers.shards\n"
    "  --data NAME=DIR     the Dataset NAME's files are below DIR; may be given several times\n"
    "  --start FILE        the model file that a TrainJob with spec.model.file or trainJobRef starts from\n"
    "  --output DIR        where model and history go [thole-output]\n"
    "  --log-level LEVEL   of the processes: debug, info, warn or error [warn]\n";

static int parse_count(const char *flag, const char *text, uint32_t most, uint32_t *out, struct error *err)
{
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '1' || text[0] > '9' || *end != '\0' || value > most)
        return error_set(err, "--%s %s: is not a number from 1 to %u", flag, text, most);
    *out = (uint32_t)value;
    return 0;
}

static int add(const char **list, uint32_t *count, const char *value, const char *flag, struct error *err)
{
    if (*count == OPTIONS_FILES_MOST)
        return error_set(err, "%s: at most %d are read", flag, OPTIONS_FILES_MOST);
    list[(*count)++] = value;
    return 0;
}

enum { FLAG_JOB = 256, FLAG_WORKERS, FLAG_SHARDS, FLAG_DATA, FLAG_START, FLAG_OUTPUT, FLAG_LOG_LEVEL, FLAG_HELP };

static int parse_one(struct options *options, int flag, const char *value, struct error *err)
{
    enum log_level level;
    switch (flag) {
    case 'f':
        return add(options->files, &options->file_count, value, "--file", err);
    case FLAG_DATA:
        if (strchr(value, '=') == NULL || value[0] == '=')
            return error_set(err, "--data %s: is not NAME=DIR, a Dataset's name and a directory", value);
        return add(options->data, &options->data_count, value, "--data", err);
    case FLAG_WORKERS:
        return parse_count("workers", value, OPTIONS_WORKERS_MOST, &options->workers, err);
    case FLAG_SHARDS:
        return parse_count("shards", value, PLAN_SHARDS_MOST, &options->shards, err);
    case FLAG_JOB:
        options->job = value;
        return 0;
    case FLAG_START:
        options->start = value;
        return 0;
    case FLAG_OUTPUT:
        options->output = value;
        return 0;
    case FLAG_LOG_LEVEL:
        options->log_level = value;
        return log_level_parse(value, &level, err);
    default:
        return 0;
    }
}

int options_parse(struct options *options, int argc, char **argv, struct error *err)
{
    static const struct option flags[] = {
        {"file", required_argument, NULL, 'f'},
        {"job", required_argument, NULL, FLAG_JOB},
        {"workers", required_argument, NULL, FLAG_WORKERS},
        {"shards", required_argument, NULL, FLAG_SHARDS},
        {"data", required_argument, NULL, FLAG_DATA},
        {"start", required_argument, NULL, FLAG_START},
        {"output", required_argument, NULL, FLAG_OUTPUT},
        {"log-level", required_argument, NULL, FLAG_LOG_LEVEL},
        {"help", no_argument, NULL, FLAG_HELP},
        {0},
    };
    *options = (struct options){.output = "thole-output", .log_level = "warn"};
    opterr = 0;
    optind = 2;
    int flag;
    while ((flag = getopt_long(argc, argv, ":f:h", flags, NULL)) != -1) {
        if (flag == FLAG_HELP || flag == 'h') {
            fputs(help, stdout);
            return 1;
        }
        if (flag == ':' || flag == '?')
            return error_set(err, "%s %s; see thole-trainer local --help", argv[optind - 1],
                             flag == ':' ? "needs a value" : "is no flag of this role");
        if (parse_one(options, flag, optarg, err) < 0)
            return -1;
    }
    if (optind < argc)
        return error_set(err, "'%s' is no flag; files are given by -f; see thole-trainer local --help", argv[optind]);
    if (options->file_count == 0)
        return error_set(err, "which job? give its files by -f; see thole-trainer local --help");
    return 0;
}
