/* coordinator/registrant — the other end of REGISTER: a shard that is not the coordinator's tells it where it is,
 * what it has measured and which steps it has done. Lives on the net's thread of shards 1 and up.
 */
#ifndef THOLE_COORDINATOR_REGISTRANT_H
#define THOLE_COORDINATOR_REGISTRANT_H

#include "wire/wire.h"

struct registrant;

struct registrant_options {
    struct net *net;
    const struct log *log;
    const char *coordinator; /* "host:port" */
    const char *address;     /* where others reach this shard */
    uint32_t shard;
    uint8_t canary[SHA256_SIZE]; /* of what this shard computes */
    void (*accepted)(void *arg, uint32_t term);
    /* A round's scalars have come (shard_commit()); -1 closes the connection with the sentence. */
    int (*committed)(void *arg, uint64_t step, uint32_t round, const double *scalars, uint32_t count,
                     struct error *err);
    void (*finished)(void *arg);                 /* the job is over */
    void (*lost)(void *arg, const char *reason); /* refused, or the coordinator is gone in the middle of the job */
    void *arg;
};

/* Dials every 300 ms until it is accepted. */
int registrant_new(struct registrant **out, const struct registrant_options *options, struct error *err);
void registrant_free(struct registrant *registrant);
CLEANUP_DEFINE(cleanup_registrant_pointer, struct registrant, registrant_free)
#define cleanup_registrant CLEANUP(cleanup_registrant_pointer)

void registrant_done(struct registrant *registrant, uint64_t step);
void registrant_task_done(struct registrant *registrant, uint64_t task);
/* What this shard has measured: to be called from shard_hooks.measured. */
void registrant_measured(struct registrant *registrant, uint64_t step, uint32_t round, const double *measures,
                         uint32_t count);
/* This shard cannot go on: the coordinator is told why. */
void registrant_fail(struct registrant *registrant, const char *sentence);

#endif
