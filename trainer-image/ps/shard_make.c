#include "ps/shard_state.h"

#include <stdlib.h>
#include <string.h>

static int chunk_init(struct shard *shard, struct held *chunk, const struct chunk *place, struct error *err)
{
    chunk->offset = place->offset;
    chunk->floats = place->count;
    chunk->params[0] = payload_new(shard->net, (size_t)chunk->floats * layout_value_bytes(shard->plan->wire));
    if (chunk->params[0] == NULL)
        return error_set(err, "no memory for parameters from %llu on", (unsigned long long)chunk->offset);
    memset(chunk->params[0]->data, 0, chunk->params[0]->length);
    shard_begin_step(shard, chunk);
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
static void round_handed_out(const struct shard *shard, const struct held *chunk)
{
    if (shard->masters != NULL)
        vector_bfloat16_pack((uint16_t *)chunk->params[0]->data, shard_theta(shard, chunk), chunk->floats);
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
                         shard_theta(*out, chunk));
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
        memcpy(shard_theta(shard, chunk), theta + (chunk->offset - shard->begin), chunk->floats * sizeof(float));
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
