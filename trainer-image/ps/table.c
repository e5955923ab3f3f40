#include "ps/table.h"

#include <stdlib.h>
#include <string.h>

enum {
    PAGE_BYTES = 64 * 1024, /* about; a page has at least one row */
    INDEX_LEAST = 64,       /* a power of two */
};

#define NO_SLOT UINT32_MAX

/* Of the index: an open-addressing hash with linear probing, at most three quarters full. */
struct entry {
    uint32_t id;
    uint32_t slot; /* NO_SLOT: free */
};

struct table {
    struct table_options options;
    uint32_t dim;
    uint64_t version;
    struct random_stream stream;

    struct entry *index;
    uint32_t index_size; /* a power of two */

    /* Slots in the order in which rows came to exist; each is its value, then the optimizer's state. */
    float **pages;
    uint32_t page_rows; /* a power of two */
    uint32_t page_count, page_capacity;
    size_t slot_floats;
    uint32_t slots;
    uint32_t slots_before; /* how many there were in the version before */

    struct sparse old; /* what the newest step changed, as it was before */

    uint32_t *order, *order_scratch; /* the first order_count slots' ids, sorted */
    uint32_t order_count, order_capacity;
};

int table_new(struct table **out, const struct table_options *options, struct error *err)
{
    cleanup_table struct table *table = calloc(1, sizeof *table);
    if (table == NULL)
        return error_errno(err, "make table %s", options->table->name);
    table->options = *options;
    table->dim = options->table->dim;
    table->old.dim = table->dim;
    table->stream = random_stream(options->seed, RANDOM_TABLE, options->number, 0, 0);
    table->slot_floats = (size_t)table->dim * (1 + options->states);
    table->page_rows = 1;
    while ((size_t)2 * table->page_rows * table->slot_floats * sizeof(float) <= PAGE_BYTES)
        table->page_rows *= 2;
    *out = move(table);
    return 0;
}

void table_free(struct table *table)
{
    if (table == NULL)
        return;
    for (uint32_t i = 0; i < table->page_count; i++)
        free(table->pages[i]);
    free(table->pages);
    free(table->index);
    free(table->order);
    free(table->order_scratch);
    sparse_free(&table->old);
    free(table);
}

bool table_owns(const struct table *table, uint32_t id)
{
    return id < table->options.table->rows && id % table->options.shards == table->options.shard;
}

uint32_t table_rows_most(const struct table *table)
{
    const struct table_options *options = &table->options;
    return options->table->rows / options->shards + (options->table->rows % options->shards > options->shard);
}

uint64_t table_version(const struct table *table)
{
    return table->version;
}

bool table_has(const struct table *table, uint64_t version)
{
    return version <= table->version && table->version - version <= 1;
}

uint32_t table_rows(const struct table *table)
{
    return table->slots;
}

size_t table_bytes(const struct table *table)
{
    size_t page = table->page_rows * table->slot_floats * sizeof(float);
    return sizeof *table + table->index_size * sizeof *table->index + table->page_capacity * sizeof *table->pages +
           table->page_count * page + table->old.capacity * (sizeof(uint32_t) + table->dim * sizeof(float)) +
           2 * (size_t)table->order_capacity * sizeof *table->order;
}

/* ---- Rows by id ---- */

static uint32_t first_place(const struct table *table, uint32_t id)
{
    /* Ids of one shard are `shards` apart: their quotients are spread by the golden ratio. */
    return (id / table->options.shards * 0x9E3779B1U) >> (uint32_t)(__builtin_clz(table->index_size) + 1);
}

/* Where the id is in the index, or where it would go. */
static struct entry *entry_of(const struct table *table, uint32_t id)
{
    uint32_t at = first_place(table, id);
    while (table->index[at].slot != NO_SLOT && table->index[at].id != id)
        at = (at + 1) & (table->index_size - 1);
    return &table->index[at];
}

static uint32_t slot_of(const struct table *table, uint32_t id)
{
    return table->index == NULL ? NO_SLOT : entry_of(table, id)->slot;
}

static float *slot_at(const struct table *table, uint32_t slot)
{
    return table->pages[slot / table->page_rows] + slot % table->page_rows * table->slot_floats;
}

static void initial_row(const struct table *table, uint32_t id, float *out)
{
    const float bound = table->options.table->bound;
    uint64_t begin = (uint64_t)id * table->dim;
    random_uniform_range(table->stream, begin, begin + table->dim, -bound, bound, out);
}

void table_read(const struct table *table, uint64_t version, const uint32_t *ids, uint32_t count, float *out)
{
    const size_t row_size = table->dim * sizeof(float);
    const bool before = version != table->version;
    for (uint32_t i = 0; i < count; i++, out += table->dim) {
        uint32_t changed = before ? sparse_find(table->old.ids, table->old.count, ids[i]) : table->old.count;
        uint32_t slot = slot_of(table, ids[i]);
        if (changed < table->old.count)
            memcpy(out, table->old.rows + (size_t)changed * table->dim, row_size);
        else if (slot != NO_SLOT)
            memcpy(out, slot_at(table, slot), row_size);
        else
            initial_row(table, ids[i], out);
    }
}

/* ---- Growing ---- */

static int grow_index(struct table *table, uint32_t slots)
{
    uint32_t size = table->index_size < INDEX_LEAST ? INDEX_LEAST : table->index_size;
    while (size / 4 * 3 < slots)
        size *= 2;
    if (size == table->index_size)
        return 0;
    struct entry *before = table->index;
    uint32_t size_before = table->index_size;
    struct entry *index = malloc(size * sizeof *index);
    if (index == NULL)
        return -1;
    memset(index, 0xFF, size * sizeof *index);
    table->index = index;
    table->index_size = size;
    for (uint32_t i = 0; i < size_before; i++)
        if (before[i].slot != NO_SLOT)
            *entry_of(table, before[i].id) = before[i];
    free(before);
    return 0;
}

static int grow_pages(struct table *table, uint32_t slots)
{
    uint32_t pages = (uint32_t)(((uint64_t)slots + table->page_rows - 1) / table->page_rows);
    if (pages > table->page_capacity) {
        uint32_t capacity = pages < 2 * table->page_capacity ? 2 * table->page_capacity : pages;
        float **grown = realloc(table->pages, capacity * sizeof *grown);
        if (grown == NULL)
            return -1;
        table->pages = grown;
        table->page_capacity = capacity;
    }
    for (; table->page_count < pages; table->page_count++) {
        table->pages[table->page_count] = malloc(table->page_rows * table->slot_floats * sizeof(float));
        if (table->pages[table->page_count] == NULL)
            return -1;
    }
    return 0;
}

/* Room for what is new among ascending ids. */
static int make_room(struct table *table, const uint32_t *ids, uint32_t count, struct error *err)
{
    uint32_t slots = table->slots;
    for (uint32_t i = 0; i < count; i++)
        slots += slot_of(table, ids[i]) == NO_SLOT;
    if (grow_index(table, slots) < 0 || grow_pages(table, slots) < 0)
        return error_set(err, "no memory for %u rows of table %s, of which this shard holds %zu bytes now", slots,
                         table->options.table->name, table_bytes(table));
    return 0;
}

/* The row's slot; made, with its initial value, where it does not exist. There is room for it. */
static float *make_row(struct table *table, uint32_t id)
{
    struct entry *entry = entry_of(table, id);
    if (entry->slot != NO_SLOT)
        return slot_at(table, entry->slot);
    *entry = (struct entry){id, table->slots++};
    float *row = slot_at(table, entry->slot);
    initial_row(table, id, row);
    memset(row + table->dim, 0, (table->slot_floats - table->dim) * sizeof(float));
    return row;
}

int table_reserve(struct table *table, const uint32_t *ids, uint32_t count, struct error *err)
{
    if (make_room(table, ids, count, err) < 0)
        return -1;
    if (sparse_reserve(&table->old, count) < 0)
        return error_set(err, "no memory for %u old rows of table %s", count, table->options.table->name);
    return 0;
}

void table_apply(struct table *table, const struct sparse *sum, table_update *update, void *arg)
{
    const size_t dim = table->dim;
    table->slots_before = table->slots;
    table->old.count = sum->count;
    for (uint32_t i = 0; i < sum->count; i++) {
        float *row = make_row(table, sum->ids[i]);
        table->old.ids[i] = sum->ids[i];
        memcpy(table->old.rows + i * dim, row, dim * sizeof(float));
        update(arg, row, row + dim, sum->rows + i * dim, dim);
    }
    table->version++;
}

int table_set(struct table *table, const uint32_t *ids, const float *rows, uint32_t count, struct error *err)
{
    if (make_room(table, ids, count, err) < 0)
        return -1;
    for (uint32_t i = 0; i < count; i++)
        memcpy(make_row(table, ids[i]), rows + (size_t)i * table->dim, table->dim * sizeof(float));
    table->slots_before = table->slots;
    return 0;
}

/* ---- All of them ---- */

/* Rows never go, so the order holds until there are more of them. */
static int sort_all(struct table *table)
{
    if (table->order_count == table->slots)
        return 0;
    if (table->slots > table->order_capacity) {
        uint32_t *order = realloc(table->order, table->slots * sizeof *order);
        if (order == NULL)
            return -1;
        table->order = order;
        uint32_t *scratch = realloc(table->order_scratch, table->slots * sizeof *scratch);
        if (scratch == NULL)
            return -1;
        table->order_scratch = scratch;
        table->order_capacity = table->slots;
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < table->index_size; i++)
        if (table->index[i].slot != NO_SLOT)
            table->order[count++] = table->index[i].id;
    table->order_count = sparse_unique(table->order, count, table->order_scratch);
    return 0;
}

int64_t table_list(struct table *table, uint64_t version, uint32_t from, uint32_t *ids, uint32_t most)
{
    if (sort_all(table) < 0)
        return -1;
    const uint32_t existed = version == table->version ? table->slots : table->slots_before;
    uint32_t count = 0;
    for (uint32_t i = sparse_lower_bound(table->order, table->order_count, from);
         i < table->order_count && count < most; i++)
        if (slot_of(table, table->order[i]) < existed)
            ids[count++] = table->order[i];
    return count;
}
