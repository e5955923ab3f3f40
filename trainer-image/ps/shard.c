#include "ps/shard.h"

#include "common/plan/schedule.h"
#include "numerics/numerics.h"
#include "optimizer/optimizer.h"
#include "ps/reduction.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 2048 }; /* floats of a rounded gradient that are unpacked at a time, to stay in the first-level cache */

/* A chunk as the shard holds it. */
struct held {
    uint64_t offset; /* in the model's flat vector */
    uint32_t floats;
    uint64_t version;          /* of params[0]; its tree waits for the step of this number */
    struct payload *params[2]; /* θ of `version`, and of the one before (NULL at first), as they are handed out */
    struct payload *next;      /* room for θ of the next version, from when its step is measured */
    struct reduction reduction;
};

struct shard {
    struct net *net;
    const struct plan *plan;
    struct shard_hooks hooks;
    struct tree tree;
    struct schedule schedule;
    struct optimizer *optimizer;
    struct tables *tables; /* NULL: none */
    uint64_t begin, end;
    uint64_t version;   /* the oldest of the chunks' and tables' */
    uint32_t at_oldest; /* how many of them have it */
    double loss;        /* of the step that chunk 0 has just applied: the chunks are never more than a step apart */

    float *states[OPTIMIZER_STATES_MOST]; /* each [end − begin], or NULL */
    float *masters;                       /* [end − begin]; NULL where what is handed out is not rounded */

    struct optimizer_step step; /* of `step_of`, with what has been committed of it */
    uint64_t step_of;
    uint32_t rounds, round;
    uint64_t round_of;        /* the step that the round is of: all chunks have applied those before */
    bool rows_wait;           /* for the first of them, which clips: tables, where there are any */
    uint32_t measured;        /* chunks and, where they wait, tables, in this round */
    struct exact_sum squares; /* of the rows' gradients that are measured */
    uint64_t first_measure;
    double *measures; /* of the shard's canonical chunks, then of its rows */
    double *scalars;  /* of the newest commit */
    float *unpacked;  /* a chunk's gradient that is being measured */

    uint32_t chunk_count;
    struct held chunks[];
};

/* ---- making ---- */

static void begin_step(struct shard *shard, struct held *chunk)
{
    /* After the last step nothing is waited for; its pushes are refused before they get here. */
    uint64_t samples =
        chunk->version < shard->schedule.steps ? schedule_step(&shard->schedule, chunk->version).count : 1;
    reduction_begin(&chunk->reduction, shard->net, shard->tree, shard->plan->wire, samples);
}

static int chunk_init(struct shard *shard, struct held *chunk, const struct chunk *place, struct error *err)
{
    chunk->offset = place->offset;
    chunk->floats = place->count;
    chunk->params[0] = payload_new(shard->net, (size_t)chunk->floats * layout_value_bytes(shard->plan->wire));
    if (chunk->params[0] == NULL)
        return error_set(err, "no memory for parameters from %llu on", (unsigned long long)chunk->offset);
    memset(chunk->params[0]->data, 0, chunk->params[0]->length);
    begin_step(shard, chunk);
    return 0;
}

static int allocate(struct shard *shard, const struct shard_cut *cut, struct error *err)
{
    const struct plan_optimizer *plan = &shard->plan->training.optimizer;
    const bool rounded = shard->plan->wire == PLAN_BFLOAT16;
    const uint64_t count = shard->end - shard->begin;
    bool failed = false;
    const uint32_t states = shard->plan->sync == PLAN_KAVERAGE ? 0 : optimizer_states(plan); /* workers have them */
    for (uint32_t i = 0; i < states; i++) {
        shard->states[i] = calloc(count, sizeof(float));
        failed = failed || shard->states[i] == NULL;
    }
    if (rounded) {
        shard->masters = calloc(count, sizeof(float));
        failed = failed || shard->masters == NULL;
    }
    if (shard->rounds > 0) {
        shard->first_measure = optimizer_chunks(shard->optimizer, shard->begin);
        uint64_t chunks = optimizer_chunks(shard->optimizer, shard->end) - shard->first_measure;
        shard->measures = calloc(chunks * OPTIMIZER_MEASURES_MOST + EXACT_SUM_DOUBLES, sizeof(double));
        shard->scalars = calloc(cut->tensor_count, sizeof(double));
        shard->unpacked = rounded ? calloc(WIRE_CHUNK_FLOATS, sizeof(float)) : NULL;
        failed = failed || shard->measures == NULL || shard->scalars == NULL || (rounded && shard->unpacked == NULL);
    }
    if (failed)
        return error_set(err, "make a shard of %llu parameters with what its optimizer keeps of each: no memory",
                         (unsigned long long)count);
    return 0;
}

int shard_make(struct shard **out, struct net *net, const struct plan *plan, const struct shard_cut *cut,
               uint64_t train_samples, const struct shard_hooks *hooks, struct error *err)
{
    const struct chunk *last = &cut->chunks[cut->chunk_count - 1];
    const uint64_t begin = cut->chunks[0].offset;
    const uint64_t end = last->offset + last->count;
    cleanup_shard struct shard *shard = calloc(1, sizeof *shard + cut->chunk_count * sizeof shard->chunks[0]);
    if (shard == NULL)
        return error_errno(err, "make a shard of %llu parameters", (unsigned long long)(end - begin));
    shard->net = net;
    shard->plan = plan;
    shard->hooks = *hooks;
    shard->tree = tree_of(plan->blocks);
    shard->schedule = schedule_of(plan, train_samples);
    shard->begin = begin;
    shard->end = end;
    shard->at_oldest = cut->chunk_count;
    shard->step_of = UINT64_MAX;
    shard->rounds = plan->sync == PLAN_SYNCHRONOUS ? optimizer_rounds(&plan->training.optimizer) : 0;
    if (optimizer_new(&shard->optimizer, &plan->training.optimizer, cut->tensors, cut->tensor_count, cut->canonical,
                      err) < 0 ||
        allocate(shard, cut, err) < 0)
        return -1;
    for (; shard->chunk_count < cut->chunk_count; shard->chunk_count++)
        if (chunk_init(shard, &shard->chunks[shard->chunk_count], &cut->chunks[shard->chunk_count], err) < 0)
            return -1;
    *out = move(shard);
    return 0;
}

/* θ as the optimizer reads it. */
static float *theta_of(const struct shard *shard, const struct held *chunk)
{
    return shard->masters != NULL ? shard->masters + (chunk->offset - shard->begin) : (float *)chunk->params[0]->data;
}

static void round_handed_out(const struct shard *shard, const struct held *chunk)
{
    if (shard->masters != NULL)
        vector_bfloat16_pack((uint16_t *)chunk->params[0]->data, theta_of(shard, chunk), chunk->floats);
}

int shard_new(struct shard **out, struct net *net, const struct plan *plan, const struct model *model, uint32_t index,
              uint64_t train_samples, const struct shard_hooks *hooks, struct error *err)
{
    const struct network *network = model_network(model);
    cleanup_layout struct layout *layout = NULL;
    if (layout_new(&layout, network, plan->shards, err) < 0)
        return -1;
    const struct shard_cut cut = {
        .chunks = layout->chunks + layout->first[index],
        .chunk_count = layout->first[index + 1] - layout->first[index],
        .tensors = network->tensors,
        .tensor_count = network->tensor_count,
        .canonical = network_chunk(network),
    };
    if (cut.chunk_count == 0)
        return error_set(err,
                         "shard %u has no parameters: spec.parameterServers.shards is %u for a model of %llu "
                         "parameters; make it smaller",
                         index, plan->shards, (unsigned long long)network->parameters);
    if (train_samples == 0)
        return error_set(err, "the data set has no training samples");
    if (shard_make(out, net, plan, &cut, train_samples, hooks, err) < 0)
        return -1;
    if (shard_add_tables(*out, network, index, err) < 0) {
        shard_free(*out);
        *out = NULL;
        return -1;
    }
    for (uint32_t i = 0; i < (*out)->chunk_count; i++) {
        const struct held *chunk = &(*out)->chunks[i];
        model_init_range(model, plan->training.seed, chunk->offset, chunk->offset + chunk->floats,
                         theta_of(*out, chunk));
        round_handed_out(*out, chunk);
    }
    return 0;
}

int shard_add_tables(struct shard *shard, const struct network *network, uint32_t index, struct error *err)
{
    if (network->table_count == 0)
        return 0;
    if (tables_new(&shard->tables, shard->plan, network, index, shard->schedule.samples, err) < 0)
        return -1;
    shard->at_oldest += network->table_count;
    shard->rows_wait = shard->rounds > 0 && optimizer_row_measures(shard->optimizer, 0) > 0;
    return 0;
}

void shard_start_from(struct shard *shard, const float *theta)
{
    for (uint32_t i = 0; i < shard->chunk_count; i++) {
        const struct held *chunk = &shard->chunks[i];
        memcpy(theta_of(shard, chunk), theta + (chunk->offset - shard->begin), chunk->floats * sizeof(float));
        round_handed_out(shard, chunk);
    }
}

int shard_start_rows(struct shard *shard, uint32_t table, const uint32_t *ids, const float *rows, uint32_t count,
                     struct error *err)
{
    struct table *of = tables_at(shard->tables, table);
    const size_t dim = tables_dim(shard->tables, table);
    for (uint32_t i = 0; i < count; i++)
        if (table_owns(of, ids[i]) && table_set(of, &ids[i], rows + i * dim, 1, err) < 0)
            return -1;
    return 0;
}

void shard_free(struct shard *shard)
{
    if (shard == NULL)
        return;
    for (uint32_t i = 0; i < shard->chunk_count; i++) {
        struct held *chunk = &shard->chunks[i];
        reduction_begin(&chunk->reduction, shard->net, shard->tree, shard->plan->wire, 1);
        payload_unref(shard->net, chunk->params[0]);
        payload_unref(shard->net, chunk->params[1]);
        payload_unref(shard->net, chunk->next);
    }
    for (uint32_t i = 0; i < OPTIMIZER_STATES_MOST; i++)
        free(shard->states[i]);
    free(shard->masters);
    free(shard->measures);
    free(shard->scalars);
    free(shard->unpacked);
    optimizer_free(shard->optimizer);
    tables_free(shard->tables);
    free(shard);
}

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
    float *theta = theta_of(shard, chunk);
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
                    theta_of(shard, chunk), states, (const float *)sum->data);
}

/* Takes `next` over as the chunk's next version. */
static void publish(struct shard *shard, struct held *chunk, struct payload *next)
{
    payload_unref(shard->net, chunk->params[1]);
    chunk->params[1] = chunk->params[0];
    chunk->params[0] = next;
    chunk->version++;
    begin_step(shard, chunk);
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
                      theta_of(shard, chunk), states, sum,
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
