#include "coordinator/saver_rows.h"

#include "numerics/sparse.h"
#include "ps/layout.h"

#include <stdlib.h>
#include <string.h>

/* What one shard has said of one table. */
struct list {
    struct sparse rows;
    uint64_t next; /* the least id that is not known yet */
    bool whole;
};

struct saver_rows {
    const struct network *network;
    const struct plan *plan;
    uint64_t version;
    struct model_table tables[NETWORK_TABLES_MOST];
    struct list lists[PLAN_SHARDS_MOST][NETWORK_TABLES_MOST];
};

int saver_rows_new(struct saver_rows **out, const struct network *network, const struct plan *plan, uint64_t version,
                   struct error *err)
{
    struct saver_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL)
        return error_set(err, "fetch the model's tables: no memory");
    rows->network = network;
    rows->plan = plan;
    rows->version = version;
    for (uint32_t shard = 0; shard < plan->shards; shard++)
        for (uint32_t i = 0; i < rows->network->table_count; i++)
            rows->lists[shard][i].rows.dim = rows->network->tables[i].dim;
    *out = rows;
    return 0;
}

void saver_rows_free(struct saver_rows *rows)
{
    if (rows == NULL)
        return;
    for (uint32_t i = 0; i < rows->network->table_count; i++) {
        for (uint32_t shard = 0; shard < rows->plan->shards; shard++)
            sparse_free(&rows->lists[shard][i].rows);
        free(rows->tables[i].ids);
        free(rows->tables[i].values);
    }
    free(rows);
}

/* The first table of which the shard has not said all; table_count where there is none. */
static uint32_t first_open(const struct saver_rows *rows, uint32_t shard)
{
    uint32_t table = 0;
    while (table < rows->network->table_count && rows->lists[shard][table].whole)
        table++;
    return table;
}

bool saver_rows_ask(const struct saver_rows *rows, uint32_t shard, struct frame *frame)
{
    uint32_t table = first_open(rows, shard);
    if (table == rows->network->table_count)
        return false;
    *frame = (struct frame){.type = FRAME_LIST_ROWS,
                            .step = rows->version,
                            .offset = table,
                            .value.counter = rows->lists[shard][table].next};
    return true;
}

int saver_rows_check(const struct saver_rows *rows, uint32_t shard, const struct frame *frame, struct error *err)
{
    uint32_t table = first_open(rows, shard);
    if (frame->type != FRAME_LISTED || table == rows->network->table_count || frame->step != rows->version ||
        frame->offset != table || frame->value.counter != rows->lists[shard][table].next)
        return error_set(err, "shard %u sent something else than the rows that it was asked for", shard);
    const uint32_t dim = rows->network->tables[table].dim;
    const size_t size = sizeof(uint32_t) + (size_t)dim * layout_value_bytes(rows->plan->wire);
    if (frame->count > wire_rows_most(dim) || frame->length != frame->count * size)
        return error_set(err, "shard %u sent %u rows of table %s in %u bytes", shard, frame->count,
                         rows->network->tables[table].name, frame->length);
    return 0;
}

/* Room for more rows, and ids that can be the shard's next: they go up, so that the listing ends. */
static int make_room(struct saver_rows *rows, uint32_t shard, uint32_t table, const uint32_t *ids, uint32_t count,
                     struct error *err)
{
    const struct network_table *spec = &rows->network->tables[table];
    struct sparse *list = &rows->lists[shard][table].rows;
    uint64_t least = rows->lists[shard][table].next;
    for (uint32_t i = 0; i < count; least = (uint64_t)ids[i++] + 1)
        if (ids[i] < least || ids[i] >= spec->rows || ids[i] % rows->plan->shards != shard)
            return error_set(err, "shard %u listed row %u of table %s, which it cannot have there", shard, ids[i],
                             spec->name);
    if (sparse_reserve(list, list->count + count) < 0)
        return error_set(err, "fetch %u rows of table %s: no memory", list->count + count, spec->name);
    return 0;
}

static void added(struct list *list, uint32_t count)
{
    list->rows.count += count;
    list->whole = count == 0;
    if (count > 0)
        list->next = (uint64_t)list->rows.ids[list->rows.count - 1] + 1;
}

int saver_rows_take(struct saver_rows *rows, uint32_t shard, const struct frame *frame, const void *payload,
                    struct error *err)
{
    const uint32_t table = (uint32_t)frame->offset, count = frame->count;
    struct list *list = &rows->lists[shard][table];
    const uint32_t *ids = payload;
    if (count > 0) {
        if (make_room(rows, shard, table, ids, count, err) < 0)
            return -1;
        const size_t dim = list->rows.dim;
        float *out = list->rows.rows + list->rows.count * dim;
        memcpy(list->rows.ids + list->rows.count, ids, count * sizeof *ids);
        if (rows->plan->wire == PLAN_BFLOAT16)
            vector_bfloat16_unpack(out, (const uint16_t *)(const void *)(ids + count), count * dim);
        else
            memcpy(out, ids + count, count * dim * sizeof *out);
    }
    added(list, count);
    return 0;
}

int saver_rows_take_own(struct saver_rows *rows, uint32_t index, const struct shard *shard, struct error *err)
{
    for (uint32_t table = 0; table < rows->network->table_count; table++) {
        struct list *list = &rows->lists[index][table];
        const uint32_t dim = list->rows.dim, most = wire_rows_most(dim);
        while (!list->whole) {
            struct sparse *out = &list->rows;
            if (sparse_reserve(out, out->count + most) < 0)
                return error_set(err, "fetch rows of table %s: no memory", rows->network->tables[table].name);
            int64_t count = shard_list_rows(shard, table, rows->version, (uint32_t)list->next, out->ids + out->count,
                                            out->rows + (size_t)out->count * dim, most);
            if (count < 0)
                return error_set(err, "fetch rows of table %s: no memory", rows->network->tables[table].name);
            added(list, (uint32_t)count);
        }
    }
    return 0;
}

static int merge(struct saver_rows *rows, uint32_t table)
{
    struct model_table *out = &rows->tables[table];
    const size_t dim = rows->network->tables[table].dim;
    const uint32_t shards = rows->plan->shards;
    uint64_t total = 0;
    for (uint32_t shard = 0; shard < shards; shard++)
        total += rows->lists[shard][table].rows.count;
    free(out->ids);
    free(out->values);
    *out = (struct model_table){.ids = malloc((total + 1) * sizeof *out->ids), /* + 1: malloc(0) may be NULL */
                                .values = malloc((total * dim + 1) * sizeof *out->values)};
    if (out->ids == NULL || out->values == NULL)
        return -1;
    for (uint32_t at[PLAN_SHARDS_MOST] = {0}; out->count < total; out->count++) {
        const struct sparse *least = NULL;
        uint32_t of = 0;
        for (uint32_t shard = 0; shard < shards; shard++) {
            const struct sparse *list = &rows->lists[shard][table].rows;
            if (at[shard] == list->count || (least != NULL && list->ids[at[shard]] > least->ids[at[of]]))
                continue;
            least = list;
            of = shard;
        }
        out->ids[out->count] = least->ids[at[of]];
        memcpy(out->values + out->count * dim, least->rows + at[of] * dim, dim * sizeof *out->values);
        at[of]++;
    }
    return 0;
}

const struct model_table *saver_rows_tables(struct saver_rows *rows)
{
    for (uint32_t i = 0; i < rows->network->table_count; i++)
        if (merge(rows, i) < 0)
            return NULL;
    return rows->tables;
}
