/* state — what a worker is made of; private to this folder. */
#ifndef THOLE_WORKER_STATE_H
#define THOLE_WORKER_STATE_H

#include "worker/gradient.h"
#include "worker/leases.h"
#include "worker/parameters.h"
#include "worker/rows.h"
#include "worker/shares.h"
#include "worker/validate.h"
#include "worker/work.h"
#include "worker/worker.h"

enum { ADDRESS_MOST = 300 };

/* The DATA connection to one shard. */
struct link {
    struct worker *worker;
    uint32_t shard;
    char address[ADDRESS_MOST + 1]; /* "": not known yet */
    uint64_t boot;
    struct conn *conn;
    bool ready;
    const struct chunk *receiving; /* straight into its place; NULL: into scratch, to be forgotten */
    struct timer *retry;
};

struct worker {
    struct worker_options options;
    struct parameters *parameters; /* NULL with leases, and so is gradient */
    struct gradient *gradient;
    struct shares *shares;       /* KAverage; else NULL; gradient is then, too */
    struct leases *leases;       /* NULL: blocks are dealt */
    struct rows *rows;           /* NULL: the model has no tables */
    struct validator *validator; /* NULL: nothing to validate with */
    struct work work;
    uint64_t asked_step; /* for which all chunks were looked through; UINT64_MAX: none */
    struct {
        uint64_t step;
        uint32_t first;
    } likely;            /* what will probably be dealt next */
    uint64_t generation; /* grows when what is being computed is no longer to be sent as it is */

    struct conn *control;
    bool joined;
    char waiting_for[256];     /* why the coordinator could not be reached, as last logged */
    uint64_t coordinator_boot; /* 0: never seen one */
    uint32_t term;
    struct timer *dial, *heartbeat;
    struct link links[PLAN_SHARDS_MOST];

    bool finished; /* the job is */
    bool ended;    /* worker_run() returns */
    bool failed;   /* with `failure` */
    struct error failure;
};

#define WORKER_RETRY (300 * MILLISECONDS)

void worker_fail(struct worker *worker, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Parameters have come: what is over is dropped, what was overtaken is asked for. */
void worker_parameters_came(struct worker *worker, const struct chunk *chunk);
/* Looks at the sockets in the middle of a computation: is it to go on? `generation` is from its beginning. */
bool worker_is_wanted(struct worker *worker, uint64_t generation);
void worker_validate(struct worker *worker, const struct deal *deal, const float *params);
/* link.c */
int link_init(struct link *link, struct worker *worker, uint32_t shard, struct error *err);
/* Where the shard is now; a connection to elsewhere is closed. */
void link_set(struct link *link, const char *address, uint64_t boot);
void link_drop(struct link *link); /* closed, and nowhere until link_set() */
void link_ask(struct link *link, const struct chunk *chunk, uint64_t version);

/* deal_rows.c: rows of embedding tables. Where the model has none, worker->rows is NULL, and all are here. */
int deal_rows_init(struct worker *worker, struct error *err);
/* Are the rows of the deal's samples here? They are asked for where they are not. */
bool deal_rows_here(struct worker *worker, const struct deal *deal);
const struct model_rows *deal_rows_block(struct worker *worker, uint32_t block, const float *x, uint32_t n);
void deal_rows_push(struct worker *worker, uint64_t step, uint32_t node);
/* The same of a leased step, among the job's: at the newest version, anew with every attempt. */
bool deal_rows_step_here(struct worker *worker, uint64_t step, uint64_t attempt);
const struct model_rows *deal_rows_next_block(struct worker *worker, const float *x, uint32_t n);
/* Pushes a shard's part of a table; `frame` has task and sequence. False where that failed, and the worker has. */
bool deal_rows_push_part(struct worker *worker, const struct frame *frame, uint32_t table, uint32_t shard);
void *deal_rows_place(struct link *link, struct conn *conn, const struct frame *frame, struct error *err);
int deal_rows_received(struct link *link, const struct frame *frame, const void *payload, struct error *err);

/* control.c */
int control_init(struct worker *worker, struct error *err);
void control_dial(void *worker);

#endif
