#include "ps/rows_client.h"

#include "ps/shard.h"

#include <stdlib.h>
#include <string.h>

/* A worker asks ahead for one deal, which is a step at most; what it asked before is dropped. */
enum { STEPS_WAITING_MOST = 2 };

void rows_client_init(struct rows_client *client, struct net *net, struct conn *conn, struct shard *shard)
{
    *client = (struct rows_client){.net = net, .conn = conn, .shard = shard};
}

void rows_client_end(struct rows_client *client)
{
    payload_unref(client->net, client->incoming);
    tables_give(shard_tables(client->shard), client->part);
    for (uint32_t i = 0; i < client->waiting_count; i++)
        payload_unref(client->net, client->waiting[i].ids);
    free(client->waiting);
}

bool rows_client_takes(const struct frame *frame)
{
    return frame->type == FRAME_GET_ROWS || frame->type == FRAME_PUSH_ROWS || frame->type == FRAME_PUSH_BATCH_ROWS ||
           frame->type == FRAME_LIST_ROWS;
}

static size_t row_bytes(const struct rows_client *client, uint32_t dim)
{
    return (size_t)dim * layout_value_bytes(tables_wire(shard_tables(client->shard)));
}

/* ---- Rows out ---- */

/* Rows of the table's version, as they are handed out. */
static void put_rows(const struct rows_client *client, const struct table *table, uint64_t version, uint32_t dim,
                     const uint32_t *ids, uint32_t count, unsigned char *out)
{
    if (tables_wire(shard_tables(client->shard)) == PLAN_FLOAT32) {
        table_read(table, version, ids, count, (float *)(void *)out);
        return;
    }
    float row[NETWORK_DIM_MOST];
    for (uint32_t i = 0; i < count; i++) {
        table_read(table, version, ids + i, 1, row);
        vector_bfloat16_pack((uint16_t *)(void *)out + (size_t)i * dim, row, dim);
    }
}

static int answer(struct rows_client *client, const struct frame *frame, const struct payload *ids, struct error *err)
{
    const struct tables *tables = shard_tables(client->shard);
    const uint32_t number = (uint32_t)frame->offset, dim = tables_dim(tables, number);
    const struct frame rows_frame = {.type = FRAME_ROWS,
                                     .term = client->term,
                                     .node = frame->node,
                                     .step = frame->step,
                                     .offset = frame->offset,
                                     .count = frame->count};
    if (ids == NULL) {
        conn_send(client->conn, &rows_frame, NULL);
        return 0;
    }
    struct payload *rows = payload_new(client->net, frame->count * row_bytes(client, dim));
    if (rows == NULL)
        return error_set(err, "no memory to send %u rows", frame->count);
    put_rows(client, tables_at(tables, number), frame->step, dim, (const uint32_t *)(const void *)ids->data,
             frame->count, rows->data);
    conn_send(client->conn, &rows_frame, rows);
    payload_unref(client->net, rows);
    return 0;
}

static int wait_for_version(struct rows_client *client, const struct frame *frame, struct payload *ids,
                            struct error *err)
{
    const struct tables *tables = shard_tables(client->shard);
    uint64_t most = 0;
    for (uint32_t i = 0; i < tables_count(tables); i++)
        most += (uint64_t)STEPS_WAITING_MOST * (1 + tables_rows_most(tables, i));
    if (client->waiting_ids + 1 + frame->count > most)
        return error_set(err, "GET_ROWS asks ahead for more rows than steps can have");
    if (client->waiting_count == client->waiting_capacity) {
        uint32_t capacity = client->waiting_capacity == 0 ? 8 : 2 * client->waiting_capacity;
        struct rows_request *waiting = realloc(client->waiting, capacity * sizeof *waiting);
        if (waiting == NULL)
            return error_set(err, "no memory for a request of rows");
        client->waiting = waiting;
        client->waiting_capacity = capacity;
    }
    client->waiting[client->waiting_count++] = (struct rows_request){*frame, ids == NULL ? NULL : payload_ref(ids)};
    client->waiting_ids += 1 + frame->count;
    return 0;
}

static int check_get(const struct rows_client *client, const struct frame *frame, struct error *err)
{
    const struct tables *tables = shard_tables(client->shard);
    if (frame->offset >= tables_count(tables))
        return error_set(err, "GET_ROWS names table %llu; the model has %u, from 0", (unsigned long long)frame->offset,
                         tables_count(tables));
    if (frame->count > wire_rows_most(tables_dim(tables, (uint32_t)frame->offset)) ||
        frame->length != frame->count * sizeof(uint32_t))
        return error_set(err, "GET_ROWS asks for %u rows by %u bytes", frame->count, frame->length);
    return 0;
}

/* What waits under another number is no longer wanted. */
static void drop_overtaken(struct rows_client *client, uint32_t number)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < client->waiting_count; i++) {
        struct rows_request request = client->waiting[i];
        if (request.frame.node == number) {
            client->waiting[kept++] = request;
            continue;
        }
        client->waiting_ids -= 1 + request.frame.count;
        payload_unref(client->net, request.ids);
    }
    client->waiting_count = kept;
}

/* `ids`: NULL where it asks for none, but for when the version is there. */
static int get(struct rows_client *client, const struct frame *frame, struct payload *ids, struct error *err)
{
    if (check_get(client, frame, err) < 0)
        return -1;
    drop_overtaken(client, frame->node);
    const struct tables *tables = shard_tables(client->shard);
    const uint32_t number = (uint32_t)frame->offset;
    const struct table *table = tables_at(tables, number);
    if (ids != NULL &&
        tables_check_ids(tables, number, (const uint32_t *)(const void *)ids->data, frame->count, -1, err) < 0)
        return -1;
    struct frame newest = *frame;
    newest.step = frame->step == WIRE_NEWEST ? table_version(table) : frame->step;
    if (table_has(table, newest.step))
        return answer(client, &newest, ids, err);
    if (frame->step < table_version(table))
        return 0; /* over: newer parameters say so */
    if (frame->step > table_version(table) + 1)
        return error_set(err, "GET_ROWS asks for version %llu, and the newest is %llu", (unsigned long long)frame->step,
                         (unsigned long long)table_version(table));
    return wait_for_version(client, frame, ids, err);
}

void rows_client_ready(struct rows_client *client, uint32_t table, uint64_t version)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < client->waiting_count; i++) {
        struct rows_request request = client->waiting[i];
        if (request.frame.offset != table || request.frame.step > version) {
            client->waiting[kept++] = request;
            continue;
        }
        struct error err = {0};
        if (request.frame.step == version && answer(client, &request.frame, request.ids, &err) < 0)
            conn_close(client->conn, error_message(&err)); /* it comes again, and asks again */
        client->waiting_ids -= 1 + request.frame.count;
        payload_unref(client->net, request.ids);
    }
    client->waiting_count = kept;
}

static int list(struct rows_client *client, const struct frame *frame, struct error *err)
{
    struct tables *tables = shard_tables(client->shard);
    const uint32_t number = (uint32_t)frame->offset;
    if (frame->offset >= tables_count(tables))
        return error_set(err, "LIST_ROWS names table %llu; the model has %u, from 0", (unsigned long long)frame->offset,
                         tables_count(tables));
    struct table *table = tables_at(tables, number);
    if (!table_has(table, frame->step))
        return 0; /* as with GET */
    const uint32_t dim = tables_dim(tables, number);
    struct payload *out = payload_new(client->net, WIRE_PAYLOAD_MOST);
    if (out == NULL)
        return error_set(err, "no memory to list rows");
    uint32_t *ids = (uint32_t *)(void *)out->data;
    int64_t count = frame->value.counter > NETWORK_ROWS_MOST
                        ? 0
                        : table_list(table, frame->step, (uint32_t)frame->value.counter, ids, wire_rows_most(dim));
    if (count >= 0)
        put_rows(client, table, frame->step, dim, ids, (uint32_t)count, (unsigned char *)(ids + count));
    out->length = count <= 0 ? 0 : (uint32_t)((size_t)count * (sizeof *ids + row_bytes(client, dim)));
    struct frame listed = *frame;
    listed.type = FRAME_LISTED;
    listed.term = client->term;
    listed.count = count <= 0 ? 0 : (uint32_t)count;
    if (count >= 0)
        conn_send(client->conn, &listed, count == 0 ? NULL : out);
    payload_unref(client->net, out);
    return count < 0 ? error_set(err, "no memory to list rows") : 0;
}

/* ---- Gradients in ---- */

static void drop_part(struct rows_client *client)
{
    tables_give(shard_tables(client->shard), client->part);
    client->part = NULL;
}

static const char *name_of(const struct frame *frame)
{
    return frame->type == FRAME_PUSH_ROWS ? "PUSH_ROWS" : "PUSH_BATCH_ROWS";
}

/* Rows in the frames before. */
static uint64_t rows_before(const struct frame *frame)
{
    return frame->type == FRAME_PUSH_ROWS ? frame->value.counter : (uint32_t)frame->value.counter;
}

static int check_plan(const struct rows_client *client, const struct frame *frame, struct error *err)
{
    bool is_batch = frame->type == FRAME_PUSH_BATCH_ROWS;
    if (is_batch != (client->batches != NULL))
        return error_set(err, "%s came to a shard whose plan has none (spec.sync.type)", name_of(frame));
    return is_batch ? batches_check_rows(client->batches, frame, err)
                    : tables_check_push(shard_tables(client->shard), frame, err);
}

/* Does the frame go on where the part stands? */
static bool follows(const struct rows_client *client, const struct frame *frame)
{
    const struct frame *first = &client->first;
    return frame->type == first->type && frame->step == first->step && frame->node == first->node &&
           frame->offset == first->offset && frame->count == first->count &&
           frame->value.counter == first->value.counter + client->part->count;
}

/* How many rows the frame brings, where it is the next of its node. */
static int check_push(struct rows_client *client, const struct frame *frame, uint32_t *rows, struct error *err)
{
    if (check_plan(client, frame, err) < 0)
        return -1;
    const uint32_t dim = tables_dim(shard_tables(client->shard), (uint32_t)frame->offset);
    const size_t size = sizeof(uint32_t) + row_bytes(client, dim);
    const uint64_t before = rows_before(frame);
    *rows = (uint32_t)(frame->length / size);
    if (client->part == NULL ? before != 0 : !follows(client, frame))
        return error_set(err, "%s comes out of order: rows from %llu on of node %u", name_of(frame),
                         (unsigned long long)before, frame->node);
    if (frame->length != *rows * size || *rows > frame->count - before || (*rows == 0) != (frame->count == 0))
        return error_set(err, "%s has %u bytes for rows from %llu on, of %u in all", name_of(frame), frame->length,
                         (unsigned long long)before, frame->count);
    return 0;
}

static int push(struct rows_client *client, const struct frame *frame, struct error *err)
{
    enum push_result result;
    struct sparse *part = move(client->part);
    if (shard_push_rows(client->shard, frame, part, &result, err) < 0)
        return -1;
    if (result == PUSH_TOO_EARLY)
        return error_set(err,
                         "PUSH_ROWS is of step %llu, for which this shard has no parameters yet: it is at step %llu",
                         (unsigned long long)frame->step, (unsigned long long)shard_version(client->shard));
    return 0;
}

static int push_batch(struct rows_client *client, struct error *err)
{
    struct frame answer = client->first;
    enum taken taken;
    if (batches_push_rows(client->batches, &client->first, move(client->part), &taken, err) < 0)
        return -1;
    answer.type = FRAME_TAKEN_ROWS;
    answer.term = client->term;
    answer.count = taken;
    answer.value.counter = table_version(tables_at(shard_tables(client->shard), (uint32_t)answer.offset));
    conn_send(client->conn, &answer, NULL);
    return 0;
}

/* The frame's rows behind those that came before. */
static int add_to_part(struct rows_client *client, const struct frame *frame, const unsigned char *payload,
                       struct error *err)
{
    struct tables *tables = shard_tables(client->shard);
    uint32_t rows;
    if (check_push(client, frame, &rows, err) < 0)
        return -1;
    const uint32_t number = (uint32_t)frame->offset, dim = tables_dim(tables, number);
    if (client->part == NULL) {
        client->part = tables_take(tables, number, frame->count);
        client->first = *frame;
    }
    struct sparse *part = client->part;
    if (part == NULL)
        return error_set(err, "no memory for %u rows of gradients", frame->count);
    if (payload != NULL) {
        const uint32_t *ids = (const uint32_t *)(const void *)payload;
        int64_t after = part->count == 0 ? -1 : (int64_t)part->ids[part->count - 1];
        if (tables_check_ids(tables, number, ids, rows, after, err) < 0)
            return -1;
        float *out = part->rows + (size_t)part->count * dim;
        memcpy(part->ids + part->count, ids, rows * sizeof *ids);
        if (tables_wire(shard_tables(client->shard)) == PLAN_BFLOAT16)
            vector_bfloat16_unpack(out, (const uint16_t *)(const void *)(ids + rows), (size_t)rows * dim);
        else
            memcpy(out, ids + rows, (size_t)rows * dim * sizeof *out);
        part->count += rows;
    }
    if (part->count < frame->count)
        return 0;
    return frame->type == FRAME_PUSH_ROWS ? push(client, frame, err) : push_batch(client, err);
}

/* ---- Frames ---- */

void *rows_client_place(struct rows_client *client, const struct frame *frame, struct error *err)
{
    uint32_t rows;
    int checked = frame->type == FRAME_GET_ROWS ? check_get(client, frame, err) : check_push(client, frame, &rows, err);
    if (checked < 0)
        return NULL;
    payload_unref(client->net, client->incoming);
    client->incoming = payload_new(client->net, frame->length);
    return client->incoming == NULL ? NULL : client->incoming->data;
}

int rows_client_received(struct rows_client *client, const struct frame *frame, struct error *err)
{
    if (frame->type == FRAME_LIST_ROWS)
        return list(client, frame, err);
    struct payload *payload = move(client->incoming);
    int result = frame->type == FRAME_GET_ROWS
                     ? get(client, frame, payload, err)
                     : add_to_part(client, frame, payload == NULL ? NULL : payload->data, err);
    payload_unref(client->net, payload);
    if (result < 0)
        drop_part(client);
    return result;
}
