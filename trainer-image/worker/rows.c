#include "worker/rows.h"

#include "model/embedding.h"
#include "numerics/exact_sum.h"
#include "numerics/sparse.h"
#include "ps/layout.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 64 }; /* samples fetched at a time to see their ids */

/* What one shard has of the wanted rows of one table. */
struct share {
    uint32_t begin, end; /* in the table's `order` */
    uint32_t asked, arrived;
    uint64_t version;             /* the oldest in which they came */
    bool empty_asked, empty_here; /* where there are none: only whether the shard is at the version */
};

struct part {
    const struct network_table *spec;
    struct embedding_source source;

    /* What is wanted. */
    uint32_t count, capacity;
    uint32_t *ids, *scratch; /* ascending; scratch as large */
    uint32_t *order;         /* places in ids, by shard */
    float *values;           /* [count][dim] */
    uint32_t values_capacity;
    struct share shares[PLAN_SHARDS_MOST];

    /* What is computed. */
    struct sparse block;                         /* its rows' values; ids are the leaf's */
    struct sparse *leaves[2 * PLAN_BLOCKS_MOST]; /* of this node; NULL: not computed */
    struct sparse memory[PLAN_BLOCKS_MOST];      /* of the leaves */
    struct sparse adding[SPARSE_SCRATCH];
};

struct rows {
    struct net *net;
    const struct plan *plan;
    const struct network *network;
    struct rows_hooks hooks;
    struct tree tree;

    bool wanting;
    struct rows_range range;
    uint32_t tag;     /* of what is wanted: answers repeat it */
    uint64_t missing; /* rows that have not come, and shares without rows */
    float *x;         /* [PIECE][sample] */
    float *targets;

    uint32_t count;
    struct model_rows given[NETWORK_TABLES_MOST];
    struct part parts[];
};

static int part_init(struct rows *rows, uint32_t number, struct error *err)
{
    struct part *part = &rows->parts[number];
    part->spec = &rows->network->tables[number];
    const uint32_t dim = part->spec->dim;
    const bool rounded = rows->plan->wire == PLAN_BFLOAT16;
    part->block.dim = dim;
    for (int i = 0; i < PLAN_BLOCKS_MOST; i++)
        part->memory[i].dim = dim;
    for (int i = 0; i < SPARSE_SCRATCH; i++)
        part->adding[i] = (struct sparse){.dim = dim, .bfloat16 = rounded};
    return embedding_source(rows->network, number, &part->source, err);
}

int rows_new(struct rows **out, struct net *net, const struct plan *plan, const struct model *model,
             const struct rows_hooks *hooks, struct error *err)
{
    const struct network *network = model_network(model);
    *out = NULL;
    if (network->table_count == 0)
        return 0;
    cleanup_rows struct rows *rows = calloc(1, sizeof *rows + network->table_count * sizeof rows->parts[0]);
    if (rows == NULL)
        return error_set(err, "make room for rows of embedding tables: no memory");
    rows->net = net;
    rows->plan = plan;
    rows->network = network;
    rows->hooks = *hooks;
    rows->tree = tree_of(plan->blocks);
    rows->count = network->table_count;
    rows->x = vector_new(PIECE * shape_size(network->sample.shape));
    rows->targets = malloc(PIECE * sizeof(float));
    if (rows->x == NULL || rows->targets == NULL)
        return error_set(err, "make room for rows of embedding tables: no memory");
    for (uint32_t i = 0; i < rows->count; i++)
        if (part_init(rows, i, err) < 0)
            return -1;
    *out = move(rows);
    return 0;
}

void rows_free(struct rows *rows)
{
    if (rows == NULL)
        return;
    for (uint32_t i = 0; i < rows->count; i++) {
        struct part *part = &rows->parts[i];
        free(part->ids);
        free(part->scratch);
        free(part->order);
        free(part->values);
        sparse_free(&part->block);
        for (int k = 0; k < PLAN_BLOCKS_MOST; k++)
            sparse_free(&part->memory[k]);
        for (int k = 0; k < SPARSE_SCRATCH; k++)
            sparse_free(&part->adding[k]);
    }
    free(rows->x);
    free(rows->targets);
    free(rows);
}

/* ---- What is wanted ---- */

static int grow(uint32_t **ids, uint32_t count)
{
    uint32_t *grown = realloc(*ids, count * sizeof *grown);
    if (grown == NULL)
        return -1;
    *ids = grown;
    return 0;
}

/* Room for `count` ids; where only some of it can be had, that is kept, unused. */
static int make_room(struct part *part, uint32_t count, struct error *err)
{
    if (count <= part->capacity)
        return 0;
    if (grow(&part->ids, count) < 0 || grow(&part->scratch, count) < 0 || grow(&part->order, count) < 0)
        return error_set(err, "make room for %u rows of table %s: no memory", count, part->spec->name);
    part->capacity = count;
    return 0;
}

/* The ids of the range, ascending and each once. */
static int collect(struct rows *rows, const struct rows_range *range, struct error *err)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        struct part *part = &rows->parts[i];
        uint64_t most = range->count * part->source.count;
        if (most > UINT32_MAX || make_room(part, (uint32_t)most, err) < 0)
            return most > UINT32_MAX
                       ? error_set(err, "%llu samples are too many at once", (unsigned long long)range->count)
                       : -1;
        part->count = 0;
    }
    for (uint64_t done = 0; done < range->count; done += PIECE) {
        uint32_t n = range->count - done < PIECE ? (uint32_t)(range->count - done) : PIECE;
        dataset_fetch(range->dataset, range->order, range->first + done, n, rows->x, rows->targets);
        for (uint32_t i = 0; i < rows->count; i++) {
            struct part *part = &rows->parts[i];
            if (embedding_ids(rows->network, i, part->source, rows->x, n, part->ids + part->count, err) < 0)
                return -1;
            part->count += n * part->source.count;
        }
    }
    for (uint32_t i = 0; i < rows->count; i++)
        rows->parts[i].count = sparse_unique(rows->parts[i].ids, rows->parts[i].count, rows->parts[i].scratch);
    return 0;
}

/* Which of the table's wanted rows each shard has. */
static int share_out(const struct rows *rows, struct part *part, struct error *err)
{
    const uint32_t shards = rows->plan->shards;
    const size_t size = (size_t)part->count * part->spec->dim * sizeof(float);
    if (part->count > part->values_capacity) {
        float *values = realloc(part->values, size);
        if (values == NULL)
            return error_set(err, "make room for %u rows of table %s: no memory", part->count, part->spec->name);
        part->values = values;
        part->values_capacity = part->count;
    }
    uint32_t at = 0;
    for (uint32_t shard = 0; shard < shards; shard++) {
        uint32_t begin = at;
        for (uint32_t i = 0; i < part->count; i++)
            if (part->ids[i] % shards == shard)
                part->order[at++] = i;
        part->shares[shard] = (struct share){.begin = begin, .end = at, .asked = begin, .arrived = begin};
    }
    return 0;
}

/* Asks a shard for what it has not been asked for. */
static int ask(struct rows *rows, uint32_t number, uint32_t shard)
{
    struct part *part = &rows->parts[number];
    struct share *share = &part->shares[shard];
    struct frame frame = {.type = FRAME_GET_ROWS, .step = rows->range.version, .node = rows->tag, .offset = number};
    if (share->begin == share->end && !share->empty_here && !share->empty_asked) {
        share->empty_asked = true;
        rows->hooks.send(rows->hooks.arg, shard, &frame, NULL);
    }
    while (share->asked < share->end) {
        uint32_t left = share->end - share->asked, most = wire_rows_most(part->spec->dim);
        uint32_t count = left < most ? left : most;
        struct payload *payload = payload_new(rows->net, count * sizeof(uint32_t));
        if (payload == NULL)
            return -1;
        uint32_t *ids = (uint32_t *)(void *)payload->data;
        for (uint32_t i = 0; i < count; i++)
            ids[i] = part->ids[part->order[share->asked + i]];
        frame.count = count;
        rows->hooks.send(rows->hooks.arg, shard, &frame, payload);
        payload_unref(rows->net, payload);
        share->asked += count;
    }
    return 0;
}

static bool is_wanted(const struct rows *rows, const struct rows_range *range)
{
    const struct rows_range *now = &rows->range;
    return rows->wanting && now->dataset == range->dataset && (now->order == NULL) == (range->order == NULL) &&
           now->epoch == range->epoch && now->first == range->first && now->count == range->count &&
           now->version == range->version && now->attempt == range->attempt;
}

int rows_want(struct rows *rows, const struct rows_range *range, struct error *err)
{
    if (is_wanted(rows, range))
        return 0;
    rows->wanting = false;
    rows->tag++;
    rows->missing = 0;
    if (collect(rows, range, err) < 0)
        return -1;
    rows->range = *range;
    for (uint32_t i = 0; i < rows->count; i++) {
        if (share_out(rows, &rows->parts[i], err) < 0)
            return -1;
        rows->missing += rows->parts[i].count;
        for (uint32_t shard = 0; shard < rows->plan->shards; shard++)
            rows->missing += rows->parts[i].shares[shard].begin == rows->parts[i].shares[shard].end;
    }
    for (uint32_t i = 0; i < rows->count; i++)
        for (uint32_t shard = 0; shard < rows->plan->shards; shard++)
            if (ask(rows, i, shard) < 0)
                return error_set(err, "ask for rows of table %s: no memory", rows->parts[i].spec->name);
    rows->wanting = true;
    return 0;
}

bool rows_here(const struct rows *rows)
{
    return rows->wanting && rows->missing == 0;
}

void rows_forget(struct rows *rows)
{
    rows->wanting = false;
    rows->tag++;
}

void rows_ask_again(struct rows *rows, uint32_t shard)
{
    for (uint32_t i = 0; rows->wanting && i < rows->count; i++) {
        struct share *share = &rows->parts[i].shares[shard];
        share->asked = share->arrived;
        share->empty_asked = false;
        if (ask(rows, i, shard) < 0)
            rows->wanting = false; /* and wanted anew when it is looked for */
    }
}

/* ---- What comes ---- */

int rows_check(const struct rows *rows, uint32_t shard, const struct frame *frame, bool *wanted, struct error *err)
{
    *wanted = false;
    if (frame->offset >= rows->count)
        return error_set(err, "shard %u sent rows of table %llu; the model has %u", shard,
                         (unsigned long long)frame->offset, rows->count);
    const struct part *part = &rows->parts[frame->offset];
    const uint32_t dim = part->spec->dim;
    if (frame->count > wire_rows_most(dim) ||
        frame->length != (uint64_t)frame->count * dim * layout_value_bytes(rows->plan->wire))
        return error_set(err, "shard %u sent %u rows of table %s in %u bytes", shard, frame->count, part->spec->name,
                         frame->length);
    if (!rows->wanting || frame->node != rows->tag ||
        (frame->step != rows->range.version && rows->range.version != WIRE_NEWEST))
        return 0; /* to what was asked before */
    const struct share *share = &part->shares[shard];
    if (frame->count > share->asked - share->arrived ||
        (frame->count == 0 && (!share->empty_asked || share->empty_here)))
        return error_set(err, "shard %u sent more rows of table %s than it was asked for", shard, part->spec->name);
    *wanted = true;
    return 0;
}

void rows_received(struct rows *rows, uint32_t shard, const struct frame *frame, const void *payload)
{
    struct part *part = &rows->parts[frame->offset];
    struct share *share = &part->shares[shard];
    const uint32_t dim = part->spec->dim;
    if (share->arrived == share->begin || frame->step < share->version)
        share->version = frame->step;
    share->empty_here = share->empty_here || frame->count == 0;
    for (uint32_t i = 0; i < frame->count; i++) {
        float *row = part->values + (size_t)part->order[share->arrived++] * dim;
        if (rows->plan->wire == PLAN_BFLOAT16)
            vector_bfloat16_unpack(row, (const uint16_t *)payload + (size_t)i * dim, dim);
        else
            memcpy(row, (const float *)payload + (size_t)i * dim, dim * sizeof(float));
    }
    rows->missing -= frame->count == 0 ? 1 : frame->count;
}

const struct model_rows *rows_all(struct rows *rows)
{
    for (uint32_t i = 0; i < rows->count; i++)
        rows->given[i] = (struct model_rows){
            .count = rows->parts[i].count, .ids = rows->parts[i].ids, .values = rows->parts[i].values};
    return rows->given;
}

/* ---- Gradients ---- */

void rows_begin(struct rows *rows)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        memset(rows->parts[i].leaves, 0, sizeof rows->parts[i].leaves);
        rows->parts[i].adding[0].count = 0;
    }
}

/* The block's ids into its leaf, their values beside. */
static int take_block(struct rows *rows, uint32_t number, uint32_t block, const float *x, uint32_t n)
{
    struct part *part = &rows->parts[number];
    struct sparse *leaf = &part->memory[block];
    const uint32_t dim = part->spec->dim, ids = n * part->source.count;
    struct error err = {0};
    if (sparse_reserve(leaf, ids) < 0 || sparse_reserve(&part->block, ids) < 0 ||
        embedding_ids(rows->network, number, part->source, x, n, leaf->ids, &err) < 0)
        return -1;
    leaf->count = sparse_unique(leaf->ids, ids, part->scratch);
    uint32_t at = 0;
    for (uint32_t i = 0; i < leaf->count; i++) {
        at += sparse_find(part->ids + at, part->count - at, leaf->ids[i]);
        memcpy(part->block.rows + (size_t)i * dim, part->values + (size_t)at * dim, dim * sizeof(float));
    }
    part->leaves[tree_leaf(rows->tree, block)] = leaf;
    rows->given[number] = (struct model_rows){leaf->count, leaf->ids, part->block.rows, leaf->rows};
    return 0;
}

const struct model_rows *rows_block(struct rows *rows, uint32_t block, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < rows->count; i++)
        if (take_block(rows, i, block, x, n) < 0)
            return NULL;
    return rows->given;
}

/* The next rows of `sum` that are the shard's, from *at on, as many as a frame holds. */
static struct payload *pack(const struct rows *rows, const struct sparse *sum, uint32_t shard, uint32_t *at,
                            uint32_t *packed)
{
    const uint32_t dim = sum->dim, most = wire_rows_most(dim), shards = rows->plan->shards;
    const size_t value_bytes = layout_value_bytes(rows->plan->wire);
    uint32_t count = 0;
    for (uint32_t i = *at; i < sum->count && count < most; i++)
        count += sum->ids[i] % shards == shard;
    struct payload *payload = payload_new(rows->net, count * (sizeof(uint32_t) + dim * value_bytes));
    if (payload == NULL)
        return NULL;
    uint32_t *ids = (uint32_t *)(void *)payload->data;
    unsigned char *values = (unsigned char *)(ids + count);
    *packed = count;
    for (uint32_t i = 0; i < count; (*at)++) {
        if (sum->ids[*at] % shards != shard)
            continue;
        const float *row = sum->rows + (size_t)*at * dim;
        ids[i] = sum->ids[*at];
        if (rows->plan->wire == PLAN_BFLOAT16)
            vector_bfloat16_pack((uint16_t *)(void *)values + (size_t)i * dim, row, dim);
        else
            memcpy(values + (size_t)i * dim * value_bytes, row, dim * value_bytes);
        i++;
    }
    return payload;
}

/* `of` has all but the table, and the number of rows. */
static int push_part(struct rows *rows, const struct frame *of, uint32_t number, const struct sparse *sum,
                     uint32_t shard)
{
    struct frame frame = *of;
    frame.offset = number;
    frame.count = 0;
    for (uint32_t i = 0; i < sum->count; i++)
        frame.count += sum->ids[i] % rows->plan->shards == shard;
    if (frame.count == 0)
        rows->hooks.send(rows->hooks.arg, shard, &frame, NULL);
    for (uint32_t at = 0, sent = 0, packed; sent < frame.count; sent += packed) {
        struct payload *payload = pack(rows, sum, shard, &at, &packed);
        if (payload == NULL)
            return -1;
        rows->hooks.send(rows->hooks.arg, shard, &frame, payload);
        payload_unref(rows->net, payload);
        frame.value.counter += packed;
    }
    return 0;
}

int rows_push(struct rows *rows, const struct frame *frame, uint64_t samples, struct error *err)
{
    struct frame of = *frame;
    of.type = FRAME_PUSH_ROWS;
    of.value.counter = 0;
    for (uint32_t i = 0; i < rows->count; i++) {
        struct part *part = &rows->parts[i];
        const struct sparse *sum = sparse_tree_value(rows->tree, samples, frame->node, part->leaves, part->adding);
        if (sum == NULL)
            return error_set(err, "add gradients of table %s: no memory", part->spec->name);
        for (uint32_t shard = 0; shard < rows->plan->shards; shard++)
            if (push_part(rows, &of, i, sum, shard) < 0)
                return error_set(err, "push gradients of table %s: no memory", part->spec->name);
    }
    return 0;
}

/* ---- Without a tree: the block that is the tree's first, added to what came before ---- */

static int add_last_block(struct rows *rows)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        struct part *part = &rows->parts[i];
        struct sparse **leaf = &part->leaves[tree_leaf(rows->tree, 0)];
        struct sparse *sum = &part->adding[0], *next = &part->adding[1];
        if (*leaf == NULL)
            continue;
        if (sparse_sum(next, sum, *leaf) < 0)
            return -1;
        struct sparse swapped = *sum;
        *sum = *next;
        *next = swapped;
        *leaf = NULL;
    }
    return 0;
}

const struct model_rows *rows_next_block(struct rows *rows, const float *x, uint32_t n)
{
    return add_last_block(rows) < 0 ? NULL : rows_block(rows, 0, x, n);
}

int rows_end(struct rows *rows)
{
    return add_last_block(rows);
}

double rows_squares(const struct rows *rows, const struct optimizer_step *step)
{
    struct exact_sum squares = {0};
    for (uint32_t i = 0; i < rows->count; i++)
        optimizer_add_row_squares(step, &rows->parts[i].adding[0], &squares);
    return exact_sum_value(&squares);
}

void rows_clip(struct rows *rows, const struct optimizer_step *step)
{
    for (uint32_t i = 0; i < rows->count; i++) {
        struct sparse *sum = &rows->parts[i].adding[0];
        optimizer_clip_row(step, sum->rows, (size_t)sum->count * sum->dim);
    }
}

int rows_push_part(struct rows *rows, const struct frame *frame, uint32_t table, uint32_t shard)
{
    struct frame of = *frame;
    of.type = FRAME_PUSH_BATCH_ROWS;
    of.value.counter = rows->parts[table].shares[shard].version << 32;
    return push_part(rows, &of, table, &rows->parts[table].adding[0], shard);
}
