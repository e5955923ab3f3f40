#include "wire/net_internal.h"

#include <stdlib.h>

/* Few tiers: most payloads are chunks of one size, and a gradient, a parameter and a frame of text differ enough. */
static const uint32_t tier_capacity[POOL_TIERS] = {1024, 16 * 1024, 64 * 1024, WIRE_PAYLOAD_MOST};

static int tier_of(size_t capacity)
{
    int tier = 0;
    while (tier_capacity[tier] < capacity)
        tier++;
    return tier;
}

struct payload *payload_new(struct net *net, size_t capacity)
{
    if (capacity > WIRE_PAYLOAD_MOST)
        return NULL;
    struct pool *pool = &net->pool;
    int tier = tier_of(capacity);
    struct payload *payload = pool->free[tier];
    if (payload != NULL) {
        pool->free[tier] = payload->next_free;
        pool->free_bytes -= payload->capacity;
    } else {
        payload = aligned_alloc(_Alignof(struct payload), sizeof *payload + tier_capacity[tier]);
        if (payload == NULL)
            return NULL;
    }
    *payload = (struct payload){.references = 1, .length = (uint32_t)capacity, .capacity = tier_capacity[tier]};
    return payload;
}

struct payload *payload_of(void *data)
{
    return (struct payload *)((unsigned char *)data - offsetof(struct payload, data));
}

struct payload *payload_ref(struct payload *payload)
{
    payload->references++;
    return payload;
}

void payload_unref(struct net *net, struct payload *payload)
{
    if (payload == NULL || --payload->references > 0)
        return;
    struct pool *pool = &net->pool;
    if (pool->free_bytes + payload->capacity > POOL_FREE_MOST) {
        free(payload);
        return;
    }
    int tier = tier_of(payload->capacity);
    payload->next_free = pool->free[tier];
    pool->free[tier] = payload;
    pool->free_bytes += payload->capacity;
}

void pool_free(struct pool *pool)
{
    for (int tier = 0; tier < POOL_TIERS; tier++) {
        while (pool->free[tier] != NULL) {
            struct payload *payload = pool->free[tier];
            pool->free[tier] = payload->next_free;
            free(payload);
        }
    }
    pool->free_bytes = 0;
}
