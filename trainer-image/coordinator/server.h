/* coordinator/server — the coordinator behind sockets: CONTROL and REGISTER dialogues, the report, the model file.
 *
 * Turns frames into events for `struct coordinator`, its actions into frames, and keeps whatever the decisions do not
 * need: addresses, connections, boot ids. Lives in shard 0's process, on the net's thread.
 */
#ifndef THOLE_COORDINATOR_SERVER_H
#define THOLE_COORDINATOR_SERVER_H

#include "common/report/report.h"
#include "model/model.h"
#include "ps/ps.h"
#include "wire/wire.h"

enum { COORDINATOR_FIRST_TERM = 1 };

struct coordinator_server;

struct coordinator_server_options {
    struct net *net;
    const struct log *log;
    const struct plan *plan;
    const struct model *model;
    const struct shard *shard;      /* shard 0 */
    const struct report_sync *sync; /* what it counts; NULL: nothing */
    uint64_t train_samples, test_samples;
    uint64_t boot_id;
    uint8_t token[SHA256_SIZE];
    const char *kernel;                                     /* the job's, which is this process's */
    uint8_t canary[SHA256_SIZE], shard_canary[SHA256_SIZE]; /* what workers and shards must compute */
    const char *address;                                    /* where others reach this process */
    const char *model_path;                                 /* the file to write; NULL: none */
    const char *model_name;                                 /* how it is reported */

    const char *pod, *pod_uid;    /* for the report */
    const char *operator_address; /* NULL: no operator */
    int report_fd;                /* -1: none */

    /* Shard 0's part of a COMMIT: see shard_commit(). -1 ends the job. */
    int (*committed)(void *arg, uint64_t step, uint32_t round, const double *scalars, uint32_t count,
                     struct error *err);
    /* The job is over, and everyone who should know does. */
    void (*over)(void *arg, bool succeeded);
    void *arg;
};

int coordinator_server_new(struct coordinator_server **out, const struct coordinator_server_options *options,
                           struct error *err);
void coordinator_server_free(struct coordinator_server *server);
CLEANUP_DEFINE(cleanup_coordinator_server_pointer, struct coordinator_server, coordinator_server_free)
#define cleanup_coordinator_server CLEANUP(cleanup_coordinator_server_pointer)

/* A proven CONTROL or REGISTER connection is the server's from now on. */
void coordinator_server_accept(struct coordinator_server *server, struct conn *conn, enum dialogue dialogue,
                               uint64_t peer_boot);
/* Shard 0 has done a step: to be called from shard_hooks.step_done. */
void coordinator_server_step_done(struct coordinator_server *server, uint64_t step, double loss);
/* Shard 0 has applied a task: to be called from batches_hooks.task_done. */
void coordinator_server_task_done(struct coordinator_server *server, uint64_t task, double loss);
/* Shard 0 has measured a round: to be called from shard_hooks.measured. May call options.committed. */
void coordinator_server_measured(struct coordinator_server *server, uint64_t step, uint32_t round,
                                 const double *measures, uint32_t count);
/* Is anybody connected? */
bool coordinator_server_has_peers(const struct coordinator_server *server);
/* The job cannot go on, for a reason that this process has found: CamelCase and a sentence. */
void coordinator_server_fail(struct coordinator_server *server, const char *reason, const char *sentence);

#endif
