/* pod — how a process of a job learns who it is: flags, environment, and the files that the operator mounts. */
#ifndef THOLE_TRAINER_POD_H
#define THOLE_TRAINER_POD_H

#include "common/log.h"
#include "common/plan/plan.h"
#include "data/data.h"
#include "model/model.h"
#include "wire/wire.h"

struct pod {
    struct log log;
    char *const *argv;
    const char *plan_file, *token_file, *data, *start, *start_sha256, *output, *model_file, *listen, *advertise,
        *coordinator, *operator_address;
    const char *name, *uid;
    int listen_fd, report_fd; /* -1: none */
    uint32_t shard;
    bool exit_when_done;

    struct plan *plan;
    uint8_t token[SHA256_SIZE];
    uint64_t boot_id;
};

/* Fills *pod from the flags that stand behind the role's name (argv[1]) and from the environment. 0; 1 where --help was
 * asked for and given; -1 with *err where the usage is wrong. */
int pod_parse(struct pod *pod, int argc, char **argv, struct error *err);
/* Reads plan and token. */
int pod_load(struct pod *pod, struct error *err);
void pod_free(struct pod *pod);
#define cleanup_pod CLEANUP(pod_free)

/* The model for the plan's data set, or the file's that it starts from; *train and *test are what the files' headers
 * say. */
int pod_model(const struct pod *pod, struct model **out, struct dataset_description *train,
              struct dataset_description *test, struct error *err);
int pod_net(const struct pod *pod, struct net **out, struct error *err);
/* A descriptor on which SIGTERM and SIGINT arrive; they are blocked otherwise. */
int pod_signals(struct error *err);

/* The roles: 0, or the sentence that ends the process and -1, or, where the data set cannot be read,
 * LOCAL_BAD_DATA. */
int ps_main(const struct pod *pod, struct error *err);
int worker_main(const struct pod *pod, struct error *err);

#endif
