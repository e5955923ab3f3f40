/* saver_rows — the rows of embedding tables on their way into the model's file: every shard lists what it has, frame by
 * frame, and all lists of a table become one. Private to coordinator.
 */
#ifndef THOLE_COORDINATOR_SAVER_ROWS_H
#define THOLE_COORDINATOR_SAVER_ROWS_H

#include "model/model.h"
#include "ps/ps.h"

struct saver_rows;

/* Network and plan are borrowed. */
int saver_rows_new(struct saver_rows **out, const struct network *network, const struct plan *plan, uint64_t version,
                   struct error *err);
void saver_rows_free(struct saver_rows *rows);

/* What a shard is to be asked next: type, step, offset and value of `frame`. False where it has said all. */
bool saver_rows_ask(const struct saver_rows *rows, uint32_t shard, struct frame *frame);

/* Is the LISTED frame the answer to that? */
int saver_rows_check(const struct saver_rows *rows, uint32_t shard, const struct frame *frame, struct error *err);
int saver_rows_take(struct saver_rows *rows, uint32_t shard, const struct frame *frame, const void *payload,
                    struct error *err);

/* All of a shard that is in this process. */
int saver_rows_take_own(struct saver_rows *rows, uint32_t index, const struct shard *shard, struct error *err);

/* When all have said all: the tables, borrowed; NULL without memory. */
const struct model_table *saver_rows_tables(struct saver_rows *rows);

#endif
