/* batches — gradients as they come, in the types Asynchronous and Hogwild: each is applied to its chunk at once, and
 * each step of a task once, whoever brings it and how often (updates.h). Private to ps.
 *
 * A chunk's version is the number of its updates. A gradient's staleness is how many updates were made between the
 * parameters that it was computed from and its own. Asynchronous: the rate is multiplied by 1/(1 + staleness), and what
 * is staler than the plan's max_staleness is sent back to be computed again, from the parameters in the answer, so that
 * nothing is lost. Hogwild: whatever comes is applied, with the full rate. The schedule of the rate goes by the number
 * of updates.
 */
#ifndef THOLE_PS_BATCHES_H
#define THOLE_PS_BATCHES_H

#include "common/report/report.h"
#include "ps/ps.h"
#include "ps/tables.h"

/* Is this PUSH_BATCH header one that this plan can have? Called before a byte of its payload is read. */
int batches_check(const struct batches *batches, const struct frame *frame, struct error *err);

/* `frame` has passed batches_check(). -1 without memory: nothing has changed. */
int batches_push(struct batches *batches, const struct frame *frame, const struct payload *sum, enum taken *taken,
                 struct error *err);

/* The same of PUSH_BATCH_ROWS: a table is to its shard what a chunk is. `rows` are all of the step's; they go back to
 * the shard's tables, whatever comes of them. */
int batches_check_rows(const struct batches *batches, const struct frame *frame, struct error *err);
int batches_push_rows(struct batches *batches, const struct frame *frame, struct sparse *rows, enum taken *taken,
                      struct error *err);

#endif
