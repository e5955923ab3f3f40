#include "ps/average.h"

#include "numerics/numerics.h"
#include "ps/shard.h"

#include <stdlib.h>
#include <string.h>

enum {
    SHARES_MOST = PLAN_BLOCKS_MOST,
    PIECE = 1024, /* parameters averaged at a time, to stay in the first-level cache */
};

struct share {
    struct payload *params;
    uint32_t samples;
    double loss;
};

/* What a chunk has of the round that it waits for. */
struct round {
    uint32_t shares, here; /* shares 0: none has come */
    struct share of[SHARES_MOST];
};

struct average {
    struct net *net;
    struct shard *shard;
    enum plan_wire wire;
    uint64_t train_samples;
    struct report_sync sync;
    struct round *rounds; /* [chunks] */
};

int average_new(struct average **out, struct net *net, struct shard *shard, const struct plan *plan,
                uint64_t train_samples, struct error *err)
{
    cleanup_average struct average *average = calloc(1, sizeof *average);
    if (average == NULL)
        return error_set(err, "make room for averages: no memory");
    average->net = net;
    average->shard = shard;
    average->wire = plan->wire;
    average->train_samples = train_samples;
    average->sync.known = true;
    average->rounds = calloc(shard_chunks(shard), sizeof *average->rounds);
    if (average->rounds == NULL)
        return error_set(err, "make room for averages of %u chunks: no memory", shard_chunks(shard));
    *out = move(average);
    return 0;
}

static void forget(struct average *average, struct round *round)
{
    for (uint32_t i = 0; i < round->shares; i++)
        payload_unref(average->net, round->of[i].params);
    *round = (struct round){0};
}

void average_free(struct average *average)
{
    if (average == NULL)
        return;
    for (uint32_t i = 0; average->rounds != NULL && i < shard_chunks(average->shard); i++)
        forget(average, &average->rounds[i]);
    free(average->rounds);
    free(average);
}

const struct report_sync *average_sync(const struct average *average)
{
    return &average->sync;
}

static uint32_t share_of(const struct frame *frame)
{
    return frame->node & 0xffff;
}

static uint32_t shares_of(const struct frame *frame)
{
    return frame->node >> 16;
}

int average_check(const struct average *average, const struct frame *frame, struct error *err)
{
    uint32_t index = shard_check_chunk(average->shard, frame, "PUSH_SHARE", err);
    if (index == SHARD_NO_CHUNK)
        return -1;
    struct shard_chunk chunk = shard_chunk(average->shard, index);
    if (share_of(frame) >= shares_of(frame) || shares_of(frame) > SHARES_MOST)
        return error_set(err, "PUSH_SHARE names share %u of %u; there are at most %d", share_of(frame),
                         shares_of(frame), SHARES_MOST);
    if (frame->count == 0 || frame->count > average->train_samples)
        return error_set(err, "PUSH_SHARE is of %u samples; the data set has %llu", frame->count,
                         (unsigned long long)average->train_samples);
    if (frame->step > chunk.version)
        return error_set(err, "PUSH_SHARE is of round %llu, and round %llu is not over",
                         (unsigned long long)frame->step, (unsigned long long)chunk.version);
    return 0;
}

/* y += weight·x over `count` parameters of a payload from `at` on. */
static void add_weighted(double *y, double weight, const struct payload *params, enum plan_wire wire, uint32_t at,
                         uint32_t count)
{
    float unpacked[PIECE];
    const float *x = (const float *)(const void *)params->data + at;
    if (wire == PLAN_BFLOAT16) {
        vector_bfloat16_unpack(unpacked, (const uint16_t *)(const void *)params->data + at, count);
        x = unpacked;
    }
    for (uint32_t i = 0; i < count; i++)
        y[i] += weight * (double)x[i];
}

static void write_mean(struct payload *out, const double *mean, enum plan_wire wire, uint32_t at, uint32_t count)
{
    float rounded[PIECE];
    for (uint32_t i = 0; i < count; i++)
        rounded[i] = (float)mean[i];
    if (wire == PLAN_BFLOAT16)
        vector_bfloat16_pack((uint16_t *)(void *)out->data + at, rounded, count);
    else
        memcpy((float *)(void *)out->data + at, rounded, count * sizeof(float));
}

static void mean_of(const struct average *average, const struct round *round, uint64_t samples, struct payload *out)
{
    uint32_t floats = out->length / layout_value_bytes(average->wire);
    for (uint32_t at = 0; at < floats; at += PIECE) {
        uint32_t count = floats - at < PIECE ? floats - at : PIECE;
        double mean[PIECE] = {0};
        for (uint32_t i = 0; i < round->shares; i++)
            add_weighted(mean, (double)round->of[i].samples / (double)samples, round->of[i].params, average->wire, at,
                         count);
        write_mean(out, mean, average->wire, at, count);
    }
}

static int close_round(struct average *average, uint32_t index, struct error *err)
{
    struct round *round = &average->rounds[index];
    struct payload *mean = payload_new(average->net, round->of[0].params->length);
    if (mean == NULL)
        return error_set(err, "average a round: no memory");
    uint64_t samples = 0;
    double loss = 0;
    for (uint32_t i = 0; i < round->shares; i++) {
        samples += round->of[i].samples;
        loss += round->of[i].loss;
    }
    mean->length = round->of[0].params->length;
    mean_of(average, round, samples, mean);
    forget(average, round);
    average->sync.samples += index == 0 ? samples : 0;
    shard_replace(average->shard, index, mean, loss);
    payload_unref(average->net, mean);
    return 0;
}

int average_push(struct average *average, const struct frame *frame, struct payload *params, struct error *err)
{
    uint32_t index = shard_chunk_at(average->shard, frame->offset);
    struct round *round = &average->rounds[index];
    bool over = frame->step < shard_chunk(average->shard, index).version;
    if (!over && round->shares != 0 && round->shares != shares_of(frame))
        return error_set(err, "PUSH_SHARE is of a round of %u shares, and others said that it has %u", shares_of(frame),
                         round->shares);
    if (over || round->of[share_of(frame)].params != NULL) {
        average->sync.duplicates += index == 0;
        return over || round->here < round->shares ? 0 : close_round(average, index, err);
    }
    round->shares = shares_of(frame);
    round->of[share_of(frame)] = (struct share){payload_ref(params), frame->count, frame->value.loss};
    return ++round->here < round->shares ? 0 : close_round(average, index, err);
}
