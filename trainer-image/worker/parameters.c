#include "worker/parameters.h"

#include "numerics/numerics.h"

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
    struct layout *layout;
    uint32_t chunk_count;
    enum plan_wire wire;
    bool has_tables;
    uint64_t *asked; /* of each chunk, the version last asked for */
    struct half halves[2];
};

int parameters_new(struct parameters **out, const struct network *network, uint32_t shards, enum plan_wire wire,
                   struct error *err)
{
    cleanup_parameters struct parameters *parameters = calloc(1, sizeof *parameters);
    if (parameters == NULL)
        return error_set(err, "make room for the parameters: no memory");
    if (layout_new(&parameters->layout, network, shards, err) < 0)
        return -1;
    parameters->chunk_count = layout_chunks(parameters->layout);
    parameters->wire = wire;
    parameters->has_tables = network->table_count > 0;
    parameters->asked = calloc(parameters->chunk_count, sizeof *parameters->asked);
    bool failed = parameters->asked == NULL;
    for (int i = 0; i < 2; i++) {
        struct half *half = &parameters->halves[i];
        half->values = vector_new(network->parameters);
        half->versions = calloc(parameters->chunk_count, sizeof *half->versions);
        failed = failed || half->values == NULL || half->versions == NULL;
    }
    if (failed)
        return error_set(err, "make room for twice %llu parameters: no memory",
                         (unsigned long long)network->parameters);
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
    layout_free(parameters->layout);
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
    return &parameters->layout->chunks[index];
}

const struct chunk *parameters_find(const struct parameters *parameters, uint64_t offset)
{
    return layout_find(parameters->layout, offset);
}

uint32_t parameters_bytes(const struct parameters *parameters, const struct chunk *chunk)
{
    return chunk->count * layout_value_bytes(parameters->wire);
}

static bool is_newer(uint64_t version, uint64_t than)
{
    return than == NONE || version > than;
}

/* What is to become floats is received into the latter half of their place: unpacked from the front, it is always
 * read before it is written over. */
static uint16_t *packed_place(const struct half *half, const struct chunk *chunk)
{
    return (uint16_t *)(half->values + chunk->offset) + chunk->count;
}

void *parameters_place(struct parameters *parameters, const struct chunk *chunk, uint64_t version)
{
    struct half *half = &parameters->halves[version % 2];
    uint64_t *held = &half->versions[chunk - parameters->layout->chunks];
    if (!is_newer(version, *held))
        return NULL;
    if (*held != NONE && *held == half->newest)
        half->current--;
    *held = NONE;
    if (is_newer(version, half->newest)) {
        half->newest = version;
        half->current = 0;
    }
    return parameters->wire == PLAN_BFLOAT16 ? (void *)packed_place(half, chunk) : half->values + chunk->offset;
}

static void unpack(const struct half *half, const struct chunk *chunk)
{
    enum { PIECE = 2048 };
    uint16_t piece[PIECE];
    for (uint32_t done = 0; done < chunk->count; done += PIECE) {
        uint32_t count = chunk->count - done < PIECE ? chunk->count - done : PIECE;
        memcpy(piece, packed_place(half, chunk) + done, count * sizeof *piece);
        vector_bfloat16_unpack(half->values + chunk->offset + done, piece, count);
    }
}

void parameters_placed(struct parameters *parameters, const struct chunk *chunk, uint64_t version)
{
    struct half *half = &parameters->halves[version % 2];
    if (parameters->wire == PLAN_BFLOAT16)
        unpack(half, chunk);
    half->versions[chunk - parameters->layout->chunks] = version;
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
           (other->newest > version + 1 || (other->current == parameters->chunk_count && !parameters->has_tables));
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
        if (parameters->layout->chunks[i].shard == shard)
            parameters->asked[i] = NONE;
}
