#include "worker/parameters.h"

#include "ps/ps.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t NONE = UINT64_MAX;

struct half {
    float *values;
    uint64_t *versions; /* of each chunk */
    uint64_t newest;    /* of all chunks that came or are coming; NONE: none has */
    uint32_t current;   /* chunks that are here in that version */
};

struct parameters {
    uint64_t count;
    uint32_t chunk_count;
    struct chunk *chunks;
    uint64_t *asked; /* of each chunk, the version last asked for */
    struct half halves[2];
};

static uint32_t cut_range(uint64_t begin, uint64_t end, uint32_t shard, struct chunk *chunks)
{
    uint32_t count = 0;
    for (uint64_t offset = begin; offset < end; offset += WIRE_CHUNK_FLOATS) {
        uint64_t left = end - offset;
        if (chunks != NULL)
            chunks[count] = (struct chunk){
                .shard = shard,
                .offset = offset,
                .count = (uint32_t)(left < WIRE_CHUNK_FLOATS ? left : WIRE_CHUNK_FLOATS),
            };
        count++;
    }
    return count;
}

static uint32_t cut_all(uint64_t parameters, uint32_t shards, struct chunk *chunks)
{
    uint32_t count = 0;
    for (uint32_t shard = 0; shard < shards; shard++) {
        uint64_t begin = 0, end = 0;
        shard_range(parameters, shards, shard, &begin, &end);
        count += cut_range(begin, end, shard, chunks != NULL ? chunks + count : NULL);
    }
    return count;
}

int parameters_new(struct parameters **out, uint64_t count, uint32_t shards, struct error *err)
{
    cleanup_parameters struct parameters *parameters = calloc(1, sizeof *parameters);
    if (parameters == NULL)
        return error_set(err, "make room for the parameters: no memory");
    parameters->count = count;
    parameters->chunk_count = cut_all(count, shards, NULL);
    if (parameters->chunk_count == 0)
        return error_set(err, "a model without parameters cannot be trained");
    parameters->chunks = calloc(parameters->chunk_count, sizeof *parameters->chunks);
    parameters->asked = calloc(parameters->chunk_count, sizeof *parameters->asked);
    bool failed = parameters->chunks == NULL || parameters->asked == NULL;
    for (int i = 0; i < 2; i++) {
        struct half *half = &parameters->halves[i];
        half->values = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
        half->versions = calloc(parameters->chunk_count, sizeof *half->versions);
        failed = failed || half->values == NULL || half->versions == NULL;
    }
    if (failed)
        return error_set(err, "make room for twice %llu parameters: no memory", (unsigned long long)count);
    cut_all(count, shards, parameters->chunks);
    parameters_forget(parameters);
    *out = move(parameters);
    return 0;
}

void parameters_free(struct parameters *parameters)
{
    if (parameters == NULL)
        return;
    for (int i = 0; i < 2; i++) {
        free(parameters->halves[i].values);
        free(parameters->halves[i].versions);
    }
    free(parameters->chunks);
    free(parameters->asked);
    free(parameters);
}

void parameters_forget(struct parameters *parameters)
{
    for (int i = 0; i < 2; i++) {
        parameters->halves[i].newest = NONE;
        parameters->halves[i].current = 0;
    }
    for (uint32_t i = 0; i < parameters->chunk_count; i++)
        parameters->halves[0].versions[i] = parameters->halves[1].versions[i] = parameters->asked[i] = NONE;
}

uint32_t parameters_chunks(const struct parameters *parameters)
{
    return parameters->chunk_count;
}

const struct chunk *parameters_chunk(const struct parameters *parameters, uint32_t index)
{
    return &parameters->chunks[index];
}

const struct chunk *parameters_find(const struct parameters *parameters, uint64_t offset)
{
    uint32_t low = 0, high = parameters->chunk_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct chunk *chunk = &parameters->chunks[middle];
        if (chunk->offset == offset)
            return chunk;
        if (chunk->offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static bool is_newer(uint64_t version, uint64_t than)
{
    return than == NONE || version > than;
}

float *parameters_place(struct parameters *parameters, const struct chunk *chunk, uint64_t version)
{
    struct half *half = &parameters->halves[version % 2];
    uint64_t *held = &half->versions[chunk - parameters->chunks];
    if (!is_newer(version, *held))
        return NULL;
    if (*held != NONE && *held == half->newest)
        half->current--;
    *held = NONE;
    if (is_newer(version, half->newest)) {
        half->newest = version;
        half->current = 0;
    }
    return half->values + chunk->offset;
}

void parameters_placed(struct parameters *parameters, const struct chunk *chunk, uint64_t version)
{
    struct half *half = &parameters->halves[version % 2];
    half->versions[chunk - parameters->chunks] = version;
    if (version == half->newest)
        half->current++;
}

const float *parameters_at(const struct parameters *parameters, uint64_t version)
{
    const struct half *half = &parameters->halves[version % 2];
    return half->newest == version && half->current == parameters->chunk_count ? half->values : NULL;
}

bool parameters_over(const struct parameters *parameters, uint64_t version)
{
    const struct half *same = &parameters->halves[version % 2], *other = &parameters->halves[(version + 1) % 2];
    if (same->newest != NONE && same->newest > version)
        return true;
    return other->newest != NONE && other->newest > version &&
           (other->newest > version + 1 || other->current == parameters->chunk_count);
}

bool parameters_must_ask(struct parameters *parameters, uint32_t index, uint64_t version)
{
    const struct half *same = &parameters->halves[version % 2], *other = &parameters->halves[(version + 1) % 2];
    bool here = same->versions[index] == version;
    bool overtaken = other->versions[index] != NONE && other->versions[index] > version;
    if (here || !overtaken || parameters->asked[index] == version)
        return false;
    parameters->asked[index] = version;
    return true;
}

void parameters_ask_again(struct parameters *parameters, uint32_t shard)
{
    for (uint32_t i = 0; i < parameters->chunk_count; i++)
        if (parameters->chunks[i].shard == shard)
            parameters->asked[i] = NONE;
}
