#include "ps/layout.h"

#include "wire/wire.h"

#include <stdlib.h>

/* The tensor that holds parameter `at`. */
static const struct network_tensor *tensor_at(const struct network *network, uint64_t at)
{
    uint32_t low = 0;
    uint32_t high = network->tensor_count - 1;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct network_tensor *tensor = &network->tensors[middle];
        if (at < tensor->offset + tensor->count)
            high = middle;
        else
            low = middle + 1;
    }
    return &network->tensors[low];
}

uint64_t layout_cut(const struct network *network, uint32_t canonical, uint64_t begin, uint64_t end, uint64_t most)
{
    if (end - begin <= most)
        return end;
    uint64_t tensor = tensor_at(network, begin + most)->offset;
    return tensor + (begin + most - tensor) / canonical * canonical;
}

static uint32_t cut_shard(const struct network *network, uint32_t shards, uint32_t shard, struct chunk *chunks)
{
    uint64_t begin;
    uint64_t end;
    network_shard_range(network, shards, shard, &begin, &end);
    uint32_t count = 0;
    while (begin < end) {
        uint64_t until = layout_cut(network, network_chunk(network), begin, end, WIRE_CHUNK_FLOATS);
        if (chunks != NULL)
            chunks[count] = (struct chunk){.shard = shard, .count = (uint32_t)(until - begin), .offset = begin};
        count++;
        begin = until;
    }
    return count;
}

int layout_new(struct layout **out, const struct network *network, uint32_t shards, struct error *err)
{
    uint32_t count = 0;
    for (uint32_t shard = 0; shard < shards; shard++)
        count += cut_shard(network, shards, shard, NULL);
    if (count == 0)
        return error_set(err, "a model without parameters cannot be trained");
    struct layout *layout = calloc(1, sizeof *layout + count * sizeof layout->chunks[0]);
    if (layout == NULL)
        return error_set(err, "lay out %llu parameters: no memory", (unsigned long long)network->parameters);
    layout->parameters = network->parameters;
    layout->shards = shards;
    for (uint32_t shard = 0; shard < shards; shard++)
        layout->first[shard + 1] =
            layout->first[shard] + cut_shard(network, shards, shard, layout->chunks + layout->first[shard]);
    *out = layout;
    return 0;
}

void layout_free(struct layout *layout)
{
    free(layout);
}

const struct chunk *layout_find(const struct layout *layout, uint64_t offset)
{
    uint32_t low = 0;
    uint32_t high = layout_chunks(layout);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct chunk *chunk = &layout->chunks[middle];
        if (chunk->offset == offset)
            return chunk;
        if (chunk->offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
