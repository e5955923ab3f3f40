#include "ps/shard_state.h"

#include <string.h>

enum { PIECE = 2048 }; /* floats of a rounded gradient that are unpacked at a time, to stay in the first-level cache */

/* ---- chunks ---- */

uint32_t shard_chunks(const struct shard *shard)
{
    return shard->chunk_count;
}

struct shard_chunk shard_chunk(const struct shard *shard, uint32_t chunk)
{
    const struct held *of = &shard->chunks[chunk];
    return (struct shard_chunk){of->offset, of->version, of->params[0]};
}

uint32_t shard_chunk_at(const struct shard *shard, uint64_t offset)
{
    uint32_t low = 0;
    uint32_t high = shard->chunk_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (shard->chunks[middle].offset == offset)
            return middle;
        if (shard->chunks[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return SHARD_NO_CHUNK;
}

uint32_t shard_check_chunk(const struct shard *shard, const struct frame *frame, const char *what, struct error *err)
{
    uint32_t index = shard_chunk_at(shard, frame->offset);
    if (index == SHARD_NO_CHUNK) {
        error_set(err, "%s names parameters from %llu on, where no chunk of this shard begins", what,
                  (unsigned long long)frame->offset);
        return SHARD_NO_CHUNK;
    }
    uint32_t length = shard->chunks[index].params[0]->length;
    if (frame->length == length)
        return index;
    error_set(err, "%s has %u bytes for parameters from %llu on; they are %u", what, frame->length,
              (unsigned long long)frame->offset, length);
    return SHARD_NO_CHUNK;
}

int shard_check_push(const struct shard *shard, const struct frame *frame, struct error *err)
{
    if (shard_check_chunk(shard, frame, "PUSH", err) == SHARD_NO_CHUNK)
        return -1;
    if (frame->step >= shard->schedule.steps)
        return error_set(err, "PUSH names step %llu; the job has %llu, from 0", (unsigned long long)frame->step,
                         (unsigned long long)shard->schedule.steps);
    uint64_t samples = schedule_step(&shard->schedule, frame->step).count;
    if (!tree_is_node(shard->tree, frame->node) || tree_node_empty(shard->tree, samples, frame->node))
        return error_set(err, "PUSH names node %u, which has no samples in step %llu with %u blocks", frame->node,
                         (unsigned long long)frame->step, shard->plan->blocks);
    return 0;
}

/* ---- the next parameters ---- */

void shard_begin_step(struct shard *shard, struct held *chunk)
{
    /* After the last step nothing is waited for; its pushes are refused before they get here. */
    uint64_t samples =
        chunk->version < shard->schedule.steps ? schedule_step(&shard->schedule, chunk->version).count : 1;
    reduction_begin(&chunk->reduction, shard->net, shard->tree, shard->plan->wire, samples);
}

static void begin_optimizer_step(struct shard *shard, uint64_t step)
{
    if (shard->step_of == step)
        return;
    shard->step_of = step;
    shard->squares = (struct exact_sum){0};
    shard->step = optimizer_step(&shard->plan->training.optimizer, &shard->schedule, step, step + 1,
                                 schedule_step(&shard->schedule, step).count, 1);
}

static void states_at(const struct shard *shard, uint64_t offset, float *states[OPTIMIZER_STATES_MOST])
{
    for (uint32_t i = 0; i < OPTIMIZER_STATES_MOST; i++)
        states[i] = shard->states[i] == NULL ? NULL : shard->states[i] + (offset - shard->begin);
}

/* A piece at a time from what was rounded to what is rounded, in one pass over the memory of what is not. */
static void apply_rounded(const struct shard *shard, const struct held *chunk, const uint16_t *sum, uint16_t *next)
{
    float *theta = shard_theta(shard, chunk);
    for (uint32_t done = 0; done < chunk->floats; done += PIECE) {
        uint32_t count = chunk->floats - done < PIECE ? chunk->floats - done : PIECE;
        uint64_t at = chunk->offset + done;
        float piece[PIECE];
        float *states[OPTIMIZER_STATES_MOST];
        states_at(shard, at, states);
        vector_bfloat16_unpack(piece, sum + done, count);
        optimizer_apply(shard->optimizer, &shard->step, at, at + count, theta + done, theta + done, states, piece);
        vector_bfloat16_pack(next + done, theta + done, count);
    }
}

/* A chunk or a table has a new version: have all of them now? */
static void count_chunk(struct shard *shard)
{
    if (--shard->at_oldest > 0)
        return;
    shard->at_oldest = shard->chunk_count + tables_count(shard->tables);
    uint64_t step = shard->version++;
    if (shard->hooks.step_done != NULL)
        shard->hooks.step_done(shard->hooks.arg, step, shard->loss);
}

static int make_room(struct shard *shard, struct held *chunk, struct error *err)
{
    chunk->next = payload_new(shard->net, chunk->params[0]->length);
    if (chunk->next == NULL)
        return error_set(err, "no memory for parameters from %llu on", (unsigned long long)chunk->offset);
    return 0;
}

/* θ of `next` from a step's sum. */
static void step_to(const struct shard *shard, const struct held *chunk, const struct payload *sum,
                    struct payload *next)
{
    if (shard->masters != NULL) {
        apply_rounded(shard, chunk, (const uint16_t *)sum->data, (uint16_t *)next->data);
        return;
    }
    float *states[OPTIMIZER_STATES_MOST];
    states_at(shard, chunk->offset, states);
    optimizer_apply(shard->optimizer, &shard->step, chunk->offset, chunk->offset + chunk->floats, (float *)next->data,
                    shard_theta(shard, chunk), states, (const float *)sum->data);
}

/* Takes `next` over as the chunk's next version. */
static void publish(struct shard *shard, struct held *chunk, struct payload *next)
{
    payload_unref(shard->net, chunk->params[1]);
    chunk->params[1] = chunk->params[0];
    chunk->params[0] = next;
    chunk->version++;
    shard_begin_step(shard, chunk);
    if (shard->hooks.chunk_ready != NULL)
        shard->hooks.chunk_ready(shard->hooks.arg, chunk->version, chunk->offset);
    count_chunk(shard);
}

/* The root is there, and room: θ of the next version. */
static void apply(struct shard *shard, struct held *chunk, const struct node *root)
{
    struct payload *next = move(chunk->next);
    begin_optimizer_step(shard, chunk->version);
    step_to(shard, chunk, root->value, next);
    if (chunk == &shard->chunks[0])
        shard->loss = root->loss;
    publish(shard, chunk, next);
}

/* ---- parameters of the other types ---- */

int shard_update(struct shard *shard, uint32_t index, const struct optimizer_step *step, const struct payload *sum,
                 struct error *err)
{
    struct held *chunk = &shard->chunks[index];
    /* What nobody is being sent can be changed where it is. */
    struct payload *next = chunk->params[0]->references == 1 ? payload_ref(chunk->params[0])
                                                             : payload_new(shard->net, chunk->params[0]->length);
    if (next == NULL)
        return error_set(err, "no memory for parameters from %llu on", (unsigned long long)chunk->offset);
    shard->step = *step;
    step_to(shard, chunk, sum, next);
    payload_unref(shard->net, chunk->params[0]);
    next->crc_known = false;
    chunk->params[0] = next;
    chunk->version++;
    return 0;
}

void shard_replace(struct shard *shard, uint32_t index, struct payload *params, double loss)
{
    struct held *chunk = &shard->chunks[index];
    if (index == 0)
        shard->loss = loss;
    publish(shard, chunk, payload_ref(params));
}

/* ---- rounds ---- */

static void measure(struct shard *shard, const struct held *chunk)
{
    const struct payload *root = reduction_root(&chunk->reduction)->value;
    const float *sum = (const float *)root->data;
    if (shard->masters != NULL) {
        vector_bfloat16_unpack(shard->unpacked, (const uint16_t *)root->data, chunk->floats);
        sum = shard->unpacked;
    }
    float *states[OPTIMIZER_STATES_MOST];
    states_at(shard, chunk->offset, states);
    uint64_t first = optimizer_chunks(shard->optimizer, chunk->offset) - shard->first_measure;
    begin_optimizer_step(shard, chunk->version);
    optimizer_measure(shard->optimizer, &shard->step, shard->round, chunk->offset, chunk->offset + chunk->floats,
                      shard_theta(shard, chunk), states, sum,
                      shard->measures + first * optimizer_measures(shard->optimizer, shard->round));
    shard->measured++;
}

static bool is_measured(const struct shard *shard)
{
    bool rows = shard->rows_wait && shard->round == 0;
    return shard->measured == shard->chunk_count + (rows ? tables_count(shard->tables) : 0);
}

/* The last thing that is done: the hook may commit, and so come back here. */
static void tell_if_measured(struct shard *shard)
{
    if (!is_measured(shard))
        return;
    uint64_t count = (optimizer_chunks(shard->optimizer, shard->end) - shard->first_measure) *
                     optimizer_measures(shard->optimizer, shard->round);
    if (shard->rows_wait && shard->round == 0) {
        exact_sum_write(&shard->squares, shard->measures + count);
        count += EXACT_SUM_DOUBLES;
    }
    shard->hooks.measured(shard->hooks.arg, shard->round_of, shard->round, shard->measures, (uint32_t)count);
}

static void apply_rows(struct shard *shard, uint32_t number)
{
    const struct table *table = tables_at(shard->tables, number);
    begin_optimizer_step(shard, table_version(table));
    tables_apply(shard->tables, number, &shard->step);
    if (shard->hooks.rows_ready != NULL)
        shard->hooks.rows_ready(shard->hooks.arg, number, table_version(table));
    count_chunk(shard);
}

/* All of a table's gradient is there. */
static void take_rows(struct shard *shard, uint32_t number)
{
    if (!shard->rows_wait) {
        apply_rows(shard, number);
        return;
    }
    begin_optimizer_step(shard, table_version(tables_at(shard->tables, number)));
    tables_measure(shard->tables, number, &shard->step, &shard->squares);
    shard->measured++;
    tell_if_measured(shard);
}

int shard_commit(struct shard *shard, uint64_t step, uint32_t round, const double *scalars, uint32_t count,
                 struct error *err)
{
    if (step < shard->round_of || (step == shard->round_of && round < shard->round))
        return 0;
    if (shard->rounds == 0 || step > shard->round_of || round > shard->round || !is_measured(shard))
        return error_set(err, "COMMIT names round %u of step %llu, which this shard has not measured yet", round,
                         (unsigned long long)step);
    if (count != optimizer_scalars(shard->optimizer, round))
        return error_set(err, "COMMIT has %u numbers for round %u; they are %u", count, round,
                         optimizer_scalars(shard->optimizer, round));
    memcpy(shard->scalars, scalars, count * sizeof *scalars);
    optimizer_commit(shard->optimizer, round, shard->scalars, &shard->step);
    shard->measured = 0;
    for (uint32_t i = 0; shard->rows_wait && round == 0 && i < tables_count(shard->tables); i++)
        apply_rows(shard, i);
    if (round + 1 < shard->rounds) {
        shard->round++;
        for (uint32_t i = 0; i < shard->chunk_count; i++)
            measure(shard, &shard->chunks[i]);
        tell_if_measured(shard);
        return 0;
    }
    shard->round = 0;
    shard->round_of++;
    for (uint32_t i = 0; i < shard->chunk_count; i++)
        apply(shard, &shard->chunks[i], reduction_root(&shard->chunks[i].reduction));
    return 0;
}

/* ---- gradients ---- */

static int take_root(struct shard *shard, struct held *chunk, const struct node *root, struct error *err)
{
    if (chunk->next != NULL)
        return 0; /* measured, and waits for the others */
    if (make_room(shard, chunk, err) < 0)
        return -1;
    if (shard->rounds == 0) {
        apply(shard, chunk, root);
        return 0;
    }
    measure(shard, chunk);
    tell_if_measured(shard);
    return 0;
}

/* `of`: "parameters from", "table number". */
static int conflict(struct shard *shard, const struct frame *frame, const char *of, struct error *err)
{
    error_set(err,
              "two members computed different gradients for node %u of step %llu (%s %llu): their CPUs or "
              "libraries differ in a way that the canary did not show; run the job's pods on equal nodes",
              frame->node, (unsigned long long)frame->step, of, (unsigned long long)frame->offset);
    if (shard->hooks.failed != NULL)
        shard->hooks.failed(shard->hooks.arg, error_message(err));
    return -1;
}

int shard_push(struct shard *shard, const struct frame *frame, struct payload *gradient, enum push_result *result,
               struct error *err)
{
    struct held *chunk = &shard->chunks[shard_chunk_at(shard, frame->offset)];
    *result = frame->step > shard->version ? PUSH_TOO_EARLY : PUSH_DUPLICATE;
    if (frame->step > shard->version || frame->step < chunk->version)
        return 0;
    if (!gradient->crc_known) {
        gradient->crc = crc32c(0, gradient->data, gradient->length);
        gradient->crc_known = true;
    }
    switch (reduction_add(&chunk->reduction, shard->net, frame->node, gradient, frame->value.loss)) {
    case REDUCTION_ADDED:
        *result = PUSH_ADDED;
        break;
    case REDUCTION_DUPLICATE:
        break;
    case REDUCTION_CONFLICT:
        return conflict(shard, frame, "parameters from", err);
    case REDUCTION_NO_MEMORY:
        return error_set(err, "no memory to add gradients of step %llu", (unsigned long long)frame->step);
    }
    const struct node *root = reduction_root(&chunk->reduction);
    return root == NULL ? 0 : take_root(shard, chunk, root, err);
}

struct tables *shard_tables(const struct shard *shard)
{
    return shard->tables;
}

int64_t shard_list_rows(const struct shard *shard, uint32_t table, uint64_t version, uint32_t from, uint32_t *ids,
                        float *rows, uint32_t most)
{
    if (!table_has(tables_at(shard->tables, table), version))
        return -1;
    return tables_list(shard->tables, table, version, from, ids, rows, most);
}

int shard_push_rows(struct shard *shard, const struct frame *frame, struct sparse *rows, enum push_result *result,
                    struct error *err)
{
    const uint32_t number = (uint32_t)frame->offset;
    const struct table *table = tables_at(shard->tables, number);
    *result = frame->step > shard->version ? PUSH_TOO_EARLY : PUSH_DUPLICATE;
    if (frame->step > shard->version || frame->step < table_version(table)) {
        tables_give(shard->tables, rows);
        return 0;
    }
    switch (tables_push(shard->tables, number, frame->node, rows, err)) {
    case TABLES_ADDED:
        *result = PUSH_ADDED;
        return 0;
    case TABLES_DUPLICATE:
        return 0;
    case TABLES_CONFLICT:
        return conflict(shard, frame, "table number", err);
    case TABLES_NO_MEMORY:
        return -1;
    case TABLES_COMPLETE:
        break;
    }
    *result = PUSH_ADDED;
    take_rows(shard, number);
    return 0;
}

struct payload *shard_params(const struct shard *shard, uint64_t version, uint64_t offset)
{
    uint32_t place = shard_chunk_at(shard, offset);
    if (place == SHARD_NO_CHUNK)
        return NULL;
    const struct held *chunk = &shard->chunks[place];
    if (version > chunk->version || chunk->version - version > 1)
        return NULL;
    return chunk->params[chunk->version - version];
}

uint64_t shard_version(const struct shard *shard)
{
    return shard->version;
}
