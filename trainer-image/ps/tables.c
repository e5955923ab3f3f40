#include "ps/tables.h"

#include "model/embedding.h"
#include "ps/reduction.h"

#include <stdlib.h>

/* What came for a node itself survives its value. */
struct seen {
    bool known;
    uint32_t crc;
};

struct part {
    struct table *table;
    uint32_t rows, dim; /* of the whole table */
    uint32_t ids;       /* of it in a sample */
    struct sparse *values[REDUCTION_NODES];
    struct seen seen[REDUCTION_NODES];
    struct sparse scratch[SPARSE_SCRATCH];
    const struct sparse *sum; /* of the step, among these, when it is complete; the table has room for its rows */
};

struct tables {
    const struct plan *plan;
    const struct network *network;
    struct schedule schedule;
    struct tree tree;
    uint32_t count;
    struct sparse *spare[REDUCTION_NODES]; /* given back, to be taken again */
    uint32_t spare_count;
    struct part parts[];
};

static int part_init(struct tables *tables, uint32_t number, uint32_t shard, struct error *err)
{
    struct part *part = &tables->parts[number];
    const struct network_table *spec = &tables->network->tables[number];
    struct embedding_source source;
    if (embedding_source(tables->network, number, &source, err) < 0)
        return -1;
    *part = (struct part){.rows = spec->rows, .dim = spec->dim, .ids = source.count};
    for (int i = 0; i < SPARSE_SCRATCH; i++)
        part->scratch[i] = (struct sparse){.dim = spec->dim, .bfloat16 = tables->plan->wire == PLAN_BFLOAT16};
    return table_new(&part->table,
                     &(struct table_options){.table = spec,
                                             .number = number,
                                             .seed = model_rows_seed(tables->network, tables->plan),
                                             .shards = tables->plan->shards,
                                             .shard = shard,
                                             .states = optimizer_states(&tables->plan->training.optimizer)},
                     err);
}

int tables_new(struct tables **out, const struct plan *plan, const struct network *network, uint32_t shard,
               uint64_t train_samples, struct error *err)
{
    if (network->table_count > 0 && plan_check_tables(plan, err) < 0)
        return -1;
    struct tables *tables = calloc(1, sizeof *tables + network->table_count * sizeof tables->parts[0]);
    if (tables == NULL)
        return error_set(err, "no memory for %u tables", network->table_count);
    tables->plan = plan;
    tables->network = network;
    tables->schedule = schedule_of(plan, train_samples);
    tables->tree = tree_of(plan->blocks);
    for (; tables->count < network->table_count; tables->count++) {
        if (part_init(tables, tables->count, shard, err) < 0) {
            tables_free(tables);
            return -1;
        }
    }
    *out = tables;
    return 0;
}

static void free_rows(struct sparse *rows)
{
    if (rows == NULL)
        return;
    sparse_free(rows);
    free(rows);
}

void tables_free(struct tables *tables)
{
    if (tables == NULL)
        return;
    for (uint32_t i = 0; i < tables->count; i++) {
        struct part *part = &tables->parts[i];
        for (uint32_t node = 0; node < REDUCTION_NODES; node++)
            free_rows(part->values[node]);
        for (int k = 0; k < SPARSE_SCRATCH; k++)
            sparse_free(&part->scratch[k]);
        table_free(part->table);
    }
    while (tables->spare_count > 0)
        free_rows(tables->spare[--tables->spare_count]);
    free(tables);
}

uint32_t tables_count(const struct tables *tables)
{
    return tables == NULL ? 0 : tables->count;
}

struct table *tables_at(const struct tables *tables, uint32_t number)
{
    return tables->parts[number].table;
}

enum plan_wire tables_wire(const struct tables *tables)
{
    return tables->plan->wire;
}

uint32_t tables_dim(const struct tables *tables, uint32_t number)
{
    return tables->parts[number].dim;
}

/* Rows on this shard that `samples` samples can hold. */
static uint32_t rows_of(const struct part *part, uint64_t samples)
{
    uint64_t ids = samples * part->ids;
    uint32_t here = table_rows_most(part->table);
    return ids < here ? (uint32_t)ids : here;
}

uint32_t tables_rows_most(const struct tables *tables, uint32_t number)
{
    return rows_of(&tables->parts[number], tables->plan->training.batch_size);
}

int tables_check_ids(const struct tables *tables, uint32_t number, const uint32_t *ids, uint32_t count, int64_t after,
                     struct error *err)
{
    const struct part *part = &tables->parts[number];
    for (uint32_t i = 0; i < count; after = ids[i++])
        if (ids[i] <= after || !table_owns(part->table, ids[i]))
            return error_set(err, "row %u of table %s came to a shard that does not have it, or out of order", ids[i],
                             tables->network->tables[number].name);
    return 0;
}

int64_t tables_list(const struct tables *tables, uint32_t number, uint64_t version, uint32_t from, uint32_t *ids,
                    float *rows, uint32_t most)
{
    const struct part *part = &tables->parts[number];
    int64_t count = table_list(part->table, version, from, ids, most);
    if (count <= 0)
        return count;
    const size_t floats = (size_t)count * part->dim;
    table_read(part->table, version, ids, (uint32_t)count, rows);
    for (size_t i = 0; i < floats && tables->plan->wire == PLAN_BFLOAT16; i++)
        rows[i] = bfloat16_value(bfloat16_of(rows[i]));
    return count;
}

/* ---- Memory: a sparse is as large as the largest node that was ever in it ---- */

struct sparse *tables_take(struct tables *tables, uint32_t number, uint32_t count)
{
    const uint32_t dim = tables->parts[number].dim;
    struct sparse *rows = NULL;
    for (uint32_t i = tables->spare_count; i-- > 0 && rows == NULL;) {
        if (tables->spare[i]->dim != dim)
            continue;
        rows = tables->spare[i];
        tables->spare[i] = tables->spare[--tables->spare_count];
    }
    if (rows == NULL && (rows = calloc(1, sizeof *rows)) == NULL)
        return NULL;
    rows->dim = dim;
    rows->count = 0;
    if (sparse_reserve(rows, count) == 0)
        return rows;
    free_rows(rows);
    return NULL;
}

void tables_give(struct tables *tables, struct sparse *rows)
{
    if (rows != NULL && tables->spare_count < REDUCTION_NODES)
        tables->spare[tables->spare_count++] = rows;
    else
        free_rows(rows);
}

/* ---- Pushes ---- */

static uint64_t samples_of(const struct tables *tables, uint64_t step)
{
    return schedule_step(&tables->schedule, step).count;
}

int tables_check_push(const struct tables *tables, const struct frame *frame, struct error *err)
{
    if (frame->offset >= tables_count(tables))
        return error_set(err, "PUSH_ROWS names table %llu; the model has %u, from 0", (unsigned long long)frame->offset,
                         tables_count(tables));
    if (frame->step >= tables->schedule.steps)
        return error_set(err, "PUSH_ROWS names step %llu; the job has %llu, from 0", (unsigned long long)frame->step,
                         (unsigned long long)tables->schedule.steps);
    uint64_t samples = samples_of(tables, frame->step);
    if (!tree_is_node(tables->tree, frame->node) || tree_node_empty(tables->tree, samples, frame->node))
        return error_set(err, "PUSH_ROWS names node %u, which has no samples in step %llu with %u blocks", frame->node,
                         (unsigned long long)frame->step, tables->plan->blocks);
    uint32_t first, end;
    tree_node_blocks(tables->tree, frame->node, &first, &end);
    uint64_t below = tree_block(tables->tree, samples, end - 1).end - tree_block(tables->tree, samples, first).begin;
    uint32_t most = rows_of(&tables->parts[frame->offset], below);
    if (frame->count > most)
        return error_set(err, "PUSH_ROWS brings %u rows for node %u of step %llu, which can have %u here", frame->count,
                         frame->node, (unsigned long long)frame->step, most);
    return 0;
}

static bool is_covered(const struct part *part, uint32_t node)
{
    if (part->sum != NULL)
        return true;
    for (; node >= TREE_ROOT; node /= 2)
        if (part->values[node] != NULL)
            return true;
    return false;
}

static void drop_below(struct tables *tables, struct part *part, uint32_t node)
{
    uint32_t first = node;
    for (uint32_t count = 2; (first *= 2) < 2 * tables->tree.leaves; count *= 2) {
        for (uint32_t i = first; i < first + count; i++) {
            tables_give(tables, part->values[i]);
            part->values[i] = NULL;
        }
    }
}

static void forget_step(struct tables *tables, struct part *part)
{
    part->sum = NULL;
    for (uint32_t node = 0; node < 2 * tables->tree.leaves; node++) {
        tables_give(tables, part->values[node]);
        part->values[node] = NULL;
        part->seen[node].known = false;
    }
}

struct update {
    const struct plan_optimizer *plan;
    const struct optimizer_step *step;
};

static void update_row(void *arg, float *theta, float *state, const float *sum, size_t n)
{
    const struct update *update = arg;
    float *states[OPTIMIZER_STATES_MOST];
    for (uint32_t i = 0; i < OPTIMIZER_STATES_MOST; i++)
        states[i] = state + i * n; /* those that it has; the others are not looked at */
    optimizer_apply_row(update->plan, update->step, theta, states, sum, n);
}

/* With room for what it makes of the table, so that nothing can fail that others wait for. */
static int add_up(const struct tables *tables, struct part *part, uint64_t samples, struct error *err)
{
    const struct sparse *sum = sparse_tree_value(tables->tree, samples, TREE_ROOT, part->values, part->scratch);
    if (sum == NULL)
        return error_set(err, "no memory to add gradients of step %llu",
                         (unsigned long long)table_version(part->table));
    if (table_reserve(part->table, sum->ids, sum->count, err) < 0)
        return -1;
    part->sum = sum;
    return 0;
}

void tables_measure(const struct tables *tables, uint32_t number, const struct optimizer_step *step,
                    struct exact_sum *squares)
{
    optimizer_add_row_squares(step, tables->parts[number].sum, squares);
}

void tables_apply(struct tables *tables, uint32_t number, const struct optimizer_step *step)
{
    struct part *part = &tables->parts[number];
    struct update update = {&tables->plan->training.optimizer, step};
    table_apply(part->table, part->sum, update_row, &update);
    forget_step(tables, part);
}

int tables_update(struct tables *tables, uint32_t number, const struct sparse *rows, const struct optimizer_step *step,
                  struct error *err)
{
    struct table *table = tables->parts[number].table;
    struct update update = {&tables->plan->training.optimizer, step};
    if (table_reserve(table, rows->ids, rows->count, err) < 0)
        return -1;
    table_apply(table, rows, update_row, &update);
    return 0;
}

static uint32_t crc_of(const struct sparse *rows)
{
    uint32_t crc = crc32c(0, rows->ids, rows->count * sizeof *rows->ids);
    return crc32c(crc, rows->rows, (size_t)rows->count * rows->dim * sizeof *rows->rows);
}

enum tables_result tables_push(struct tables *tables, uint32_t number, uint32_t node, struct sparse *rows,
                               struct error *err)
{
    struct part *part = &tables->parts[number];
    struct seen *seen = &part->seen[node];
    uint32_t crc = crc_of(rows);
    bool agrees = !seen->known || seen->crc == crc;
    bool covered = is_covered(part, node);
    *seen = agrees ? (struct seen){true, crc} : *seen;
    if (covered || !agrees) {
        tables_give(tables, rows);
    } else {
        drop_below(tables, part, node);
        part->values[node] = rows;
    }
    if (!agrees)
        return TABLES_CONFLICT;
    if (part->sum != NULL)
        return TABLES_DUPLICATE;
    /* Also after a duplicate: memory may have run out when the last node came. */
    uint64_t samples = samples_of(tables, table_version(part->table));
    if (!sparse_tree_complete(tables->tree, samples, TREE_ROOT, part->values))
        return covered ? TABLES_DUPLICATE : TABLES_ADDED;
    return add_up(tables, part, samples, err) < 0 ? TABLES_NO_MEMORY : TABLES_COMPLETE;
}
