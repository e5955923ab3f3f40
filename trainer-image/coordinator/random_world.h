/* random_world — what is around a coordinator in the random tests: workers that come, go, fall silent and wake up
 * again, time, validations, and the order in which it all happens. What the work is and where it arrives is the test's.
 */
#ifndef THOLE_COORDINATOR_RANDOM_WORLD_H
#define THOLE_COORDINATOR_RANDOM_WORLD_H

#include "common/test/dice.h"
#include "coordinator/coordinator.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

enum { WORLD_WORKERS_MOST = 12, WORLD_SHARDS_MOST = 3 };

struct world;

/* Of the test. `rank` is a worker's. */
struct world_hooks {
    void (*joined)(struct world *world, uint32_t rank);
    /* DEAL, SHARE and LEASE, to a worker that is present and welcome. */
    void (*given)(struct world *world, const struct coordinator_action *action);
    /* A bit more work; where the worker dies meanwhile, its push reaches only some of the shards. */
    void (*compute)(struct world *world, uint32_t rank, bool dies);
    /* The coordinator hears of something that the shard has done, if there is anything. */
    void (*tell)(struct world *world, uint32_t shard);
    /* Before it says how much it has settled; may be NULL. */
    void (*settle)(struct world *world, uint32_t rank);
    /* A validation is of this version: is it the right one, and everywhere? */
    void (*check_version)(const struct world *world, uint64_t version);
    /* Grows for as long as there is hope that the job comes to its end. */
    uint64_t (*progress)(const struct world *world);
};

struct worker {
    bool present, welcome, mute; /* mute: neither heard nor computing, and not closed either */
    uint64_t settled;            /* of what was dealt to it */
    uint64_t validate, version;  /* blocks not computed yet, with these parameters */
};

/* The test's own follows behind it, in a struct of which this is the first member. */
struct world {
    const struct world_hooks *hooks;
    uint64_t seed, random;
    struct plan plan;
    uint64_t samples, test_samples;
    struct coordinator *coordinator;
    struct instant now;
    struct worker workers[COORDINATOR_MEMBERS_MOST];
    uint32_t present;
    uint32_t epochs; /* that are over */
    uint64_t saved;  /* the version */
    bool over;
    bool mutes_stay; /* who is mute stays so, and its connection never closes: only silence tells */
};

/* Begins a world (all zero, but for what the test has put into its own): what it trains is chosen, but for the sync
 * type, the batch size and the samples, which the test then sets. */
void world_choose(struct world *world, const struct world_hooks *hooks, uint64_t seed);
/* All shards register, and a first worker joins. */
void world_start(struct world *world);
/* Until the model is saved; fails the test where that never comes. */
void world_run(struct world *world);
/* The job has ended as it should; frees the coordinator. */
void world_end(struct world *world);

#endif
