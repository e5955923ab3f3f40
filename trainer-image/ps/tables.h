/* tables — a shard's parts of all embedding tables, and what has come of the step that each waits for; private to ps.
 *
 * A table is to its shard what a chunk is (ps.h): it has its own version and its own tree, its nodes come in any order
 * and overlapping, an ancestor replaces what is below it, equal bits are all that can come twice, and when its root is
 * made up the optimizer can be applied to the rows in it. A node's part for a shard may be without rows, and is sent
 * all the same: only then is it known that there are none.
 */
#ifndef THOLE_PS_TABLES_H
#define THOLE_PS_TABLES_H

#include "common/plan/schedule.h"
#include "numerics/exact_sum.h"
#include "optimizer/optimizer.h"
#include "ps/ps.h"
#include "ps/table.h"

struct tables;

/* Network and plan are borrowed. What such a plan cannot have is refused. */
int tables_new(struct tables **out, const struct plan *plan, const struct network *network, uint32_t shard,
               uint64_t train_samples, struct error *err);
void tables_free(struct tables *tables);

uint32_t tables_count(const struct tables *tables); /* 0 in most networks; of NULL too */
struct table *tables_at(const struct tables *tables, uint32_t number);
enum plan_wire tables_wire(const struct tables *tables);
uint32_t tables_dim(const struct tables *tables, uint32_t number);
/* The most rows that a step can ask of a table, or have gradients of, on this shard. */
uint32_t tables_rows_most(const struct tables *tables, uint32_t number);

/* Are they this shard's, ascending and each once, and all above `after` (−1: any)? */
int tables_check_ids(const struct tables *tables, uint32_t number, const uint32_t *ids, uint32_t count, int64_t after,
                     struct error *err);

/* Rows that exist, as table_list() gives them, with their values as they are handed out: ids [most], rows [most][dim].
 * -1 without memory. */
int64_t tables_list(const struct tables *tables, uint32_t number, uint64_t version, uint32_t from, uint32_t *ids,
                    float *rows, uint32_t most);

/* Rows in memory of the tables', with room for `count`; NULL without any. Goes back by tables_give() (NULL is fine). */
struct sparse *tables_take(struct tables *tables, uint32_t number, uint32_t count);
void tables_give(struct tables *tables, struct sparse *rows);

/* Is this PUSH_ROWS header one that the plan can have? Table, step, node, and how many rows all of its frames bring. */
int tables_check_push(const struct tables *tables, const struct frame *frame, struct error *err);

enum tables_result {
    TABLES_ADDED,
    TABLES_COMPLETE, /* … and that made up the step, which waits for tables_apply() */
    TABLES_DUPLICATE,
    TABLES_CONFLICT, /* other bits came for this node before */
    TABLES_NO_MEMORY /* with *err set; nothing is lost: the same push will do again */
};

/* One node's whole part for the step that the table waits for. `rows` come from tables_take() and go back to `tables`,
 * whatever the result; their ids have been checked. */
enum tables_result tables_push(struct tables *tables, uint32_t number, uint32_t node, struct sparse *rows,
                               struct error *err);

/* Of the step that is complete: adds ‖g‖² of each row that it has a gradient for. */
void tables_measure(const struct tables *tables, uint32_t number, const struct optimizer_step *step,
                    struct exact_sum *squares);
/* Applies the step that is complete: the table has a new version. */
void tables_apply(struct tables *tables, uint32_t number, const struct optimizer_step *step);

/* One step of the optimizer with a gradient of rows, at once: the types Asynchronous and Hogwild. -1 without memory. */
int tables_update(struct tables *tables, uint32_t number, const struct sparse *rows, const struct optimizer_step *step,
                  struct error *err);

#endif
