/* test_bed — a coordinator that is told one thing after the other, and whose actions are compared as text: what the
 * tests of its rules share.
 */
#ifndef THOLE_COORDINATOR_TEST_BED_H
#define THOLE_COORDINATOR_TEST_BED_H

#include "coordinator/coordinator.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

/* 10 samples in batches of 4: 3 steps an epoch, the last one short. 1200 test samples: 3 validation blocks. */
enum { SAMPLES = 10, TEST_SAMPLES = 1200, STEPS_PER_EPOCH = 3 };

struct world {
    struct plan plan;
    struct coordinator *coordinator;
    struct instant now;
    char said[4096]; /* actions since the last look, as text */
};

/* Two epochs of them. */
struct plan small_plan(uint32_t blocks, uint32_t shards);
void begin(struct world *world, uint32_t blocks, uint32_t shards);
/* The same with all shards, and workers a, b, … of ranks 0, 1, … */
void begin_with(struct world *world, uint32_t blocks, uint32_t shards, uint32_t workers);
void begin_plan(struct world *world, const struct plan *plan);
void end(struct world *world);

uint32_t join(struct world *world, const char *name);
void shard_joins(struct world *world, uint32_t shard);
void done(struct world *world, uint32_t shard, uint64_t step);
void task_done(struct world *world, uint32_t shard, uint64_t task);
void validated(struct world *world, uint32_t rank, uint64_t version, uint32_t block, uint32_t correct);
/* Time goes on in ticks, as it does in the server. */
void wait_for(struct world *world, int64_t time);

/* Adds the actions to `said`: "deal 0 1:0+8; " is blocks [0, 8) of step 1 for rank 0. */
void take_all(struct world *world);
void forget(struct world *world);
/* What was said since the last of these. */
#define expect(world, text)                                                                                            \
    do {                                                                                                               \
        take_all(world);                                                                                               \
        assert_string_equal((world)->said, text);                                                                      \
        (world)->said[0] = '\0';                                                                                       \
    } while (0)

/* Of the progress. */
void expect_message(struct world *world, const char *text);

#endif
