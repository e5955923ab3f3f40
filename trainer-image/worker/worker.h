/* worker — computes gradients on the blocks that the coordinator deals, with the parameters that the shards serve.
 *
 * Holds nothing that matters: whatever it has is computed again by others when it is gone, to the same bits. It joins
 * as soon as it can, joins again where its connection breaks, and forgets everything when the coordinator is another
 * process than before. One thread: sockets are looked at between blocks.
 * May call wire, model, data, optimizer, numerics and common; ps for the ranges of shards only.
 */
#ifndef THOLE_WORKER_WORKER_H
#define THOLE_WORKER_WORKER_H

#include "data/data.h"
#include "model/model.h"
#include "wire/wire.h"

struct worker;

struct worker_options {
    struct net *net;
    const struct log *log;
    const struct plan *plan;
    const struct model *model;
    const struct dataset *train, *test; /* test: NULL where the plan has none */
    const char *coordinator;            /* "host:port" */
    const char *pod;                    /* its name, for people */
    const char *kernel;
    uint8_t canary[SHA256_SIZE];
    char *const *argv; /* to start again with where the job's kernel is another */
    bool exit_when_done;
};

/* All borrowed. */
int worker_new(struct worker **out, const struct worker_options *options, struct error *err);
void worker_free(struct worker *worker);
CLEANUP_DEFINE(cleanup_worker_pointer, struct worker, worker_free)
#define cleanup_worker CLEANUP(cleanup_worker_pointer)

/* Works until worker_leave() or, with exit_when_done, until the job is over: 0. -1 where it cannot go on: refused, or
 * on a CPU without the job's kernel. */
int worker_run(struct worker *worker, struct error *err);

/* Tells the coordinator that it goes; worker_run() returns once that is out. From a handler on the net's thread. */
void worker_leave(struct worker *worker);

#endif
