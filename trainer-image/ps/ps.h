/* ps — one shard of the parameters: reduces gradients in a fixed tree, applies the optimizer, serves versions.
 *
 * `struct shard` is the state machine, without sockets or clocks; `struct shard_server` puts it behind DATA dialogues.
 * May call wire, model, optimizer, numerics and common. Knows nothing of members, epochs or deals: the coordinator
 * does.
 *
 * The shard holds parameters [begin, end) of the flat vector, cut into chunks (layout.h); each chunk has its own
 * version, and its own tree for the step it waits for. Step t's tree has the blocks of plan.blocks as leaves
 * (numerics/tree); a node's value is left + right, an empty side leaves the other's value as it is. Nodes arrive in any
 * order, from anyone, more than once, and overlapping: a node with a complete ancestor (or descendants that already
 * make it up) adds nothing, an ancestor replaces what is below it, equal bits are all that can come twice. When a
 * chunk's root is complete, the optimizer reads θ_t and writes θ_{t+1} into a fresh payload, which is what is sent.
 * θ_t is kept until θ_{t+2}.
 *
 * An optimizer with rounds (optimizer.h) waits for the whole: a chunk is measured when its root is complete, and when
 * all chunks are, the measures go out by a hook. The answer, shard_commit(), begins the next round, for which all
 * chunks are measured again, or after the last applies the step to all of them. Embedding tables (tables.h) are part of
 * the round that clips by norm, whose answer applies the step to them, and of no other.
 *
 * With the plan's wire BFloat16 every node and every parameter handed out is rounded to it, and payloads are of it. The
 * parameters themselves stay float32 in the shard, running statistics among them, so that steps too small for the wire
 * add up; what anybody computes with, validates or keeps as the model's file is what was handed out. Only of KAverage
 * there is no finer copy: its rounds begin and end with what was rounded.
 */
#ifndef THOLE_PS_PS_H
#define THOLE_PS_PS_H

#include "common/plan/plan.h"
#include "common/report/report.h"
#include "model/model.h"
#include "ps/layout.h"
#include "wire/wire.h"

struct shard;

/* What came of a push. */
enum push_result {
    PUSH_ADDED,
    PUSH_DUPLICATE, /* known already, or overtaken by an ancestor or the step's end */
    PUSH_TOO_EARLY, /* of a step whose parameters are not all there: the sender holds what nobody made */
};

struct shard_hooks {
    /* The chunk at `offset` has got a new version; shard_params() returns it. */
    void (*chunk_ready)(void *arg, uint64_t version, uint64_t offset);
    /* The embedding table has got a new version. May be NULL. */
    void (*rows_ready)(void *arg, uint32_t table, uint64_t version);
    /* All chunks, and all tables, have applied `step`. `loss` is the step's sum of losses (only shard 0's means
     * anything). */
    void (*step_done)(void *arg, uint64_t step, double loss);
    /* Round `round` of `step` has been measured: `count` doubles, of the shard's canonical chunks in order, then of its
     * rows, if any, as exact_sum_write() makes them. May call shard_commit(). Only with an optimizer that has rounds;
     * may be NULL else. */
    void (*measured)(void *arg, uint64_t step, uint32_t round, const double *measures, uint32_t count);
    /* Two members sent different bits for the same node: the job must end with this sentence. May be NULL. */
    void (*failed)(void *arg, const char *sentence);
    void *arg;
};

/* Hooks are called inside shard_push() and shard_commit(), which must not be called from the others. Parameters start
 * as the model's initial ones (version 0), made here from the plan's seed. `train_samples` says, with the plan, how
 * many samples each step has. Net, plan and model are borrowed; the net gives the memory. */
int shard_new(struct shard **out, struct net *net, const struct plan *plan, const struct model *model, uint32_t index,
              uint64_t train_samples, const struct shard_hooks *hooks, struct error *err);
void shard_free(struct shard *shard);
CLEANUP_DEFINE(cleanup_shard_pointer, struct shard, shard_free)
#define cleanup_shard CLEANUP(cleanup_shard_pointer)

/* Is this PUSH header one that this plan can have? Called before a byte of its payload is read. */
int shard_check_push(const struct shard *shard, const struct frame *frame, struct error *err);

/* Takes a reference of `gradient` where it is kept; may write into it when nobody else holds it. `frame` has passed
 * shard_check_push(). -1 where equal nodes came with different bits (hooks.failed was called: two members compute
 * differently, and the job must not go on silently), or without memory (the same push will do again, later). */
int shard_push(struct shard *shard, const struct frame *frame, struct payload *gradient, enum push_result *result,
               struct error *err);

/* The scalars of a round that this shard has measured. What was committed before changes nothing; what cannot be yet is
 * -1 with a sentence. */
int shard_commit(struct shard *shard, uint64_t step, uint32_t round, const double *scalars, uint32_t count,
                 struct error *err);

/* What the training starts from instead of the model's initial values: theta of [begin, end). Before any push. */
void shard_start_from(struct shard *shard, const float *theta);
/* The same of rows of an embedding table, [count][dim], of which the shard takes its own. -1 without memory. */
int shard_start_rows(struct shard *shard, uint32_t table, const uint32_t *ids, const float *rows, uint32_t count,
                     struct error *err);

/* Parameters of a chunk at a version, borrowed; NULL where it is neither the newest nor the one before. */
struct payload *shard_params(const struct shard *shard, uint64_t version, uint64_t offset);
/* Rows of an embedding table that exist in such a version, ascending and not below `from`, as they are handed out: at
 * most `most` go to ids and rows [most][dim]. Returns how many; -1 without memory, or without that version. */
int64_t shard_list_rows(const struct shard *shard, uint32_t table, uint64_t version, uint32_t from, uint32_t *ids,
                        float *rows, uint32_t most);
uint64_t shard_version(const struct shard *shard); /* the oldest of its chunks' */

/* The types Asynchronous and Hogwild: gradients are applied as they come (batches.h), not by shard_push(). */
struct batches;
struct batches_hooks {
    /* Every step of the task is applied to every chunk of this shard; `loss` is the sum of theirs (shard 0's). */
    void (*task_done)(void *arg, uint64_t task, double loss);
    void *arg;
};
/* Shard and plan are borrowed; the hook is called inside the server's handlers. */
int batches_new(struct batches **out, struct shard *shard, const struct plan *plan, uint64_t train_samples,
                const struct batches_hooks *hooks, struct error *err);
void batches_free(struct batches *batches);
CLEANUP_DEFINE(cleanup_batches_pointer, struct batches, batches_free)
#define cleanup_batches CLEANUP(cleanup_batches_pointer)
/* What has become of gradients so far; each counts once, as the shard's first chunk took it. */
const struct report_sync *batches_sync(const struct batches *batches);

/* The type KAverage: shares of rounds, instead of gradients (average.h). */
struct average;
/* All borrowed. */
int average_new(struct average **out, struct net *net, struct shard *shard, const struct plan *plan,
                uint64_t train_samples, struct error *err);
void average_free(struct average *average);
CLEANUP_DEFINE(cleanup_average_pointer, struct average, average_free)
#define cleanup_average CLEANUP(cleanup_average_pointer)
const struct report_sync *average_sync(const struct average *average); /* of the shard's first chunk */

/* Serves DATA dialogues. A subscriber gets every version of every chunk as it gets ready; one that lags gets the newest
 * when it can take more, so that what is queued to it stays below a version and SHARD_QUEUE_MOST. */
enum { SHARD_QUEUE_MOST = 4 * 1024 * 1024 };
struct shard_server;
int shard_server_new(struct shard_server **out, struct net *net, struct shard *shard, const struct log *log,
                     struct error *err);
void shard_server_free(struct shard_server *server);
CLEANUP_DEFINE(cleanup_shard_server_pointer, struct shard_server, shard_server_free)
#define cleanup_shard_server CLEANUP(cleanup_shard_server_pointer)
/* PUSH_BATCH go to `batches`, borrowed, and PUSH are refused from now on. */
void shard_server_set_batches(struct shard_server *server, struct batches *batches);
/* The same for PUSH_SHARE. */
void shard_server_set_average(struct shard_server *server, struct average *average);
/* A proven DATA connection is the server's from now on, handlers and all: to be called from a dispatcher's `ready`. */
void shard_server_accept(struct shard_server *server, struct conn *conn);
/* Is anybody still there? */
bool shard_server_has_clients(const struct shard_server *server);
/* What PARAMS carry from now on; a PUSH of another term closes its connection. 0, as at first: any will do. */
void shard_server_set_term(struct shard_server *server, uint32_t term);
/* To be called from shard_hooks.chunk_ready. */
void shard_server_chunk_ready(struct shard_server *server, uint64_t version, uint64_t offset);
/* The same from shard_hooks.rows_ready. */
void shard_server_rows_ready(struct shard_server *server, uint32_t table, uint64_t version);

#endif
