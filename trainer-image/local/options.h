/* options — what the user of `thole-trainer local` asked for; private to this folder. */
#ifndef THOLE_LOCAL_OPTIONS_H
#define THOLE_LOCAL_OPTIONS_H

#include "common/error.h"

#include <stdint.h>

enum { OPTIONS_FILES_MOST = 64, OPTIONS_WORKERS_MOST = 64 };

struct options {
    const char *files[OPTIONS_FILES_MOST];
    const char *data[OPTIONS_FILES_MOST]; /* NAME=DIR */
    uint32_t file_count, data_count;
    const char *job;          /* NULL: the only one */
    uint32_t workers, shards; /* 0: as the TrainJob says */
    const char *start;        /* a model file; NULL: where the TrainJob says */
    const char *output;
    const char *log_level;
};

/* 0; 1 where --help was asked for and given; -1 where the usage is wrong. */
int options_parse(struct options *options, int argc, char **argv, struct error *err);

#endif
