/* job — from the user's YAML to a plan and a directory of data; private to this folder. */
#ifndef THOLE_LOCAL_JOB_H
#define THOLE_LOCAL_JOB_H

#include "common/plan/plan.h"
#include "local/options.h"

enum { JOB_PATH_MOST = 4096 };

struct job {
    char *plan_text;
    struct plan *plan;
    char data[JOB_PATH_MOST];  /* root of the data set's files */
    char start[JOB_PATH_MOST]; /* the model file that it starts from; "": none */
    uint32_t workers;
    uint32_t backoff_limit;
    uint64_t train_samples;
};

int job_load(struct job *job, const struct options *options, struct error *err);
void job_free(struct job *job);
#define cleanup_job CLEANUP(job_free)

#endif
