#include "ps/shard.h"

#include "common/plan/schedule.h"
#include "numerics/numerics.h"
#include "ps/reduction.h"

#include <stdlib.h>
#include <string.h>

struct chunk {
    uint64_t offset; /* in the model's flat vector */
    uint32_t floats;
    uint64_t version;          /* of params[0]; its tree waits for the step of this number */
    struct payload *params[2]; /* θ of `version`, and of the one before (NULL at first) */
    float *velocity;           /* inside the shard's */
    struct reduction reduction;
};

struct shard {
    struct net *net;
    const struct plan *plan;
    struct shard_hooks hooks;
    struct tree tree;
    struct schedule schedule;
    uint64_t begin, end;
    uint64_t version;   /* the oldest of the chunks' */
    uint32_t at_oldest; /* how many chunks have it */
    double loss;        /* of the step that chunk 0 has just applied: the chunks are never more than a step apart */
    float *velocity;    /* [end − begin] */
    uint32_t chunk_floats, chunk_count;
    struct chunk chunks[];
};

void shard_range(uint64_t parameters, uint32_t shards, uint32_t index, uint64_t *begin, uint64_t *end)
{
    *begin = parameters * index / shards / 16 * 16;
    *end = index + 1 == shards ? parameters : parameters * (index + 1) / shards / 16 * 16;
}

static void begin_step(struct shard *shard, struct chunk *chunk)
{
    /* After the last step nothing is waited for; its pushes are refused before they get here. */
    if (chunk->version < shard->schedule.steps)
        reduction_begin(&chunk->reduction, shard->net, shard->tree,
                        schedule_step(&shard->schedule, chunk->version).count);
    else
        reduction_begin(&chunk->reduction, shard->net, shard->tree, 1);
}

static int chunk_init(struct shard *shard, struct chunk *chunk, struct error *err)
{
    uint64_t left = shard->end - chunk->offset;
    chunk->floats = left < shard->chunk_floats ? (uint32_t)left : shard->chunk_floats;
    chunk->velocity = shard->velocity + (chunk->offset - shard->begin);
    chunk->params[0] = payload_new(shard->net, chunk->floats * sizeof(float));
    if (chunk->params[0] == NULL)
        return error_set(err, "no memory for parameters from %llu on", (unsigned long long)chunk->offset);
    memset(chunk->params[0]->data, 0, chunk->params[0]->length);
    begin_step(shard, chunk);
    return 0;
}

int shard_make(struct shard **out, struct net *net, const struct plan *plan, uint64_t begin, uint64_t end,
               uint32_t chunk_floats, uint64_t train_samples, const struct shard_hooks *hooks, struct error *err)
{
    uint32_t chunks = (uint32_t)((end - begin + chunk_floats - 1) / chunk_floats);
    cleanup_shard struct shard *shard = calloc(1, sizeof *shard + chunks * sizeof shard->chunks[0]);
    if (shard == NULL)
        return error_errno(err, "make a shard of %llu parameters", (unsigned long long)(end - begin));
    shard->net = net;
    shard->plan = plan;
    shard->hooks = *hooks;
    shard->tree = tree_of(plan->blocks);
    shard->schedule = schedule_of(plan, train_samples);
    shard->begin = begin;
    shard->end = end;
    shard->chunk_floats = chunk_floats;
    shard->at_oldest = chunks;
    shard->velocity = calloc(end - begin, sizeof(float));
    if (shard->velocity == NULL)
        return error_errno(err, "make a shard of %llu parameters", (unsigned long long)(end - begin));
    for (; shard->chunk_count < chunks; shard->chunk_count++) {
        struct chunk *chunk = &shard->chunks[shard->chunk_count];
        chunk->offset = begin + (uint64_t)shard->chunk_count * chunk_floats;
        if (chunk_init(shard, chunk, err) < 0)
            return -1;
    }
    *out = move(shard);
    return 0;
}

int shard_new(struct shard **out, struct net *net, const struct plan *plan, const struct model *model, uint32_t index,
              uint64_t train_samples, const struct shard_hooks *hooks, struct error *err)
{
    uint64_t parameters = model_parameters(model), begin, end;
    shard_range(parameters, plan->shards, index, &begin, &end);
    if (begin >= end)
        return error_set(err,
                         "shard %u has no parameters: spec.parameterServers.shards is %u for a model of %llu "
                         "parameters; make it smaller",
                         index, plan->shards, (unsigned long long)parameters);
    if (train_samples == 0)
        return error_set(err, "the data set has no training samples");
    if (shard_make(out, net, plan, begin, end, WIRE_CHUNK_FLOATS, train_samples, hooks, err) < 0)
        return -1;
    for (uint32_t i = 0; i < (*out)->chunk_count; i++) {
        const struct chunk *chunk = &(*out)->chunks[i];
        model_init_range(model, plan->training.seed, chunk->offset, chunk->offset + chunk->floats,
                         (float *)chunk->params[0]->data);
    }
    return 0;
}

void shard_free(struct shard *shard)
{
    if (shard == NULL)
        return;
    for (uint32_t i = 0; i < shard->chunk_count; i++) {
        struct chunk *chunk = &shard->chunks[i];
        reduction_begin(&chunk->reduction, shard->net, shard->tree, 1);
        payload_unref(shard->net, chunk->params[0]);
        payload_unref(shard->net, chunk->params[1]);
    }
    free(shard->velocity);
    free(shard);
}

uint32_t shard_chunks(const struct shard *shard)
{
    return shard->chunk_count;
}

struct shard_chunk shard_chunk(const struct shard *shard, uint32_t chunk)
{
    const struct chunk *of = &shard->chunks[chunk];
    return (struct shard_chunk){of->offset, of->version, of->params[0]};
}

uint32_t shard_chunk_at(const struct shard *shard, uint64_t offset)
{
    if (offset < shard->begin || offset >= shard->end || (offset - shard->begin) % shard->chunk_floats != 0)
        return SHARD_NO_CHUNK;
    return (uint32_t)((offset - shard->begin) / shard->chunk_floats);
}

int shard_check_push(const struct shard *shard, const struct frame *frame, struct error *err)
{
    uint32_t place = shard_chunk_at(shard, frame->offset);
    if (place == SHARD_NO_CHUNK)
        return error_set(err, "PUSH names parameters from %llu on, where no chunk of this shard begins",
                         (unsigned long long)frame->offset);
    const struct chunk *chunk = &shard->chunks[place];
    if (frame->step >= shard->schedule.steps)
        return error_set(err, "PUSH names step %llu; the job has %llu, from 0", (unsigned long long)frame->step,
                         (unsigned long long)shard->schedule.steps);
    if (frame->length != chunk->floats * sizeof(float))
        return error_set(err, "PUSH has %u bytes for parameters from %llu on; they are %zu", frame->length,
                         (unsigned long long)frame->offset, chunk->floats * sizeof(float));
    uint64_t samples = schedule_step(&shard->schedule, frame->step).count;
    if (!tree_is_node(shard->tree, frame->node) || tree_node_empty(shard->tree, samples, frame->node))
        return error_set(err, "PUSH names node %u, which has no samples in step %llu with %u blocks", frame->node,
                         (unsigned long long)frame->step, shard->plan->blocks);
    return 0;
}

/* A chunk has a new version: have all of them now? */
static void count_chunk(struct shard *shard)
{
    if (--shard->at_oldest > 0)
        return;
    shard->at_oldest = shard->chunk_count;
    uint64_t step = shard->version++;
    if (shard->hooks.step_done != NULL)
        shard->hooks.step_done(shard->hooks.arg, step, shard->loss);
}

/* The root is there: θ of the next version. */
static int apply(struct shard *shard, struct chunk *chunk, const struct node *root, struct error *err)
{
    struct payload *next = payload_new(shard->net, chunk->floats * sizeof(float));
    if (next == NULL)
        return error_set(err, "no memory for parameters from %llu on", (unsigned long long)chunk->offset);
    const struct plan *plan = shard->plan;
    struct sgd sgd = sgd_of(plan->training.optimizer.learning_rate, plan->training.optimizer.momentum,
                            plan->training.optimizer.weight_decay, chunk->reduction.samples);
    vector_sgd(&sgd, (float *)next->data, (const float *)chunk->params[0]->data, chunk->velocity,
               (const float *)root->value->data, chunk->floats);
    if (chunk == &shard->chunks[0])
        shard->loss = root->loss;

    payload_unref(shard->net, chunk->params[1]);
    chunk->params[1] = chunk->params[0];
    chunk->params[0] = next;
    chunk->version++;
    begin_step(shard, chunk);
    if (shard->hooks.chunk_ready != NULL)
        shard->hooks.chunk_ready(shard->hooks.arg, chunk->version, chunk->offset);
    count_chunk(shard);
    return 0;
}

static int conflict(struct shard *shard, const struct frame *frame, struct error *err)
{
    error_set(err,
              "two members computed different gradients for node %u of step %llu (parameters from %llu on): their CPUs "
              "or libraries differ in a way that the canary did not show; run the job's pods on equal nodes",
              frame->node, (unsigned long long)frame->step, (unsigned long long)frame->offset);
    if (shard->hooks.failed != NULL)
        shard->hooks.failed(shard->hooks.arg, error_message(err));
    return -1;
}

int shard_push(struct shard *shard, const struct frame *frame, struct payload *gradient, enum push_result *result,
               struct error *err)
{
    struct chunk *chunk = &shard->chunks[shard_chunk_at(shard, frame->offset)];
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
        return conflict(shard, frame, err);
    case REDUCTION_NO_MEMORY:
        return error_set(err, "no memory to add gradients of step %llu", (unsigned long long)frame->step);
    }
    const struct node *root = reduction_root(&chunk->reduction);
    return root == NULL ? 0 : apply(shard, chunk, root, err);
}

struct payload *shard_params(const struct shard *shard, uint64_t version, uint64_t offset)
{
    uint32_t place = shard_chunk_at(shard, offset);
    if (place == SHARD_NO_CHUNK)
        return NULL;
    const struct chunk *chunk = &shard->chunks[place];
    if (version > chunk->version || chunk->version - version > 1)
        return NULL;
    return chunk->params[chunk->version - version];
}

uint64_t shard_version(const struct shard *shard)
{
    return shard->version;
}
