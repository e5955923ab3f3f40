/* pods — the roles as pods run them, each a process started by itself, with what they all need in a folder. */
#ifndef THOLE_TEST_PODS_H
#define THOLE_TEST_PODS_H

#include "test/bed.h"

struct cluster {
    struct bed bed;
    const char *program; /* argv[0]: see process_start() */
    char plan[128], token[128], model[160];
    int listeners[2];
    uint16_t ports[2];
};

void cluster_make(struct cluster *cluster, uint32_t shards, uint32_t epochs);
/* `model`: spec.model, and what more of the spec there is to say. */
void cluster_make_job(struct cluster *cluster, uint32_t shards, uint32_t epochs, const char *model, const char *rate);
void cluster_free(struct cluster *cluster);

/* `advertised` NULL: its own port. `stays`: also when the job is over. `environment`: as process_start(). */
void start_ps(struct process *pod, const struct cluster *cluster, uint32_t shard, const char *advertised, bool stays,
              const char *environment);
/* `data` NULL: the cluster's. */
void start_worker(struct process *pod, const struct cluster *cluster, const char *data, bool stays,
                  const char *environment);

/* What one undisturbed worker makes of it. */
void train_quietly(const struct cluster *cluster, uint32_t shards, char digest[SHA256_HEX_SIZE]);

#endif
