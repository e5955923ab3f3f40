#include "numerics/numerics.h"

#include <math.h>

enum { FEISTEL_ROUNDS = 6 };

/* The least side with side² ≥ n. */
static uint64_t side_of(uint64_t n)
{
    uint64_t side = (uint64_t)sqrt((double)n);
    while ((unsigned __int128)side * side < n)
        side++;
    while (side > 1 && (unsigned __int128)(side - 1) * (side - 1) >= n)
        side--;
    return side > 0 ? side : 1;
}

struct permutation permutation_of_epoch(uint64_t n, uint64_t seed, uint32_t epoch)
{
    uint64_t left = side_of(n);
    return (struct permutation){
        .n = n,
        .left = left,
        .right = (n - 1) / left + 1,
        .stream = random_stream(seed, RANDOM_ORDER, 0, epoch, 0),
    };
}

/* A pseudo-random value below `side`, for this round and the other half's value. */
static uint64_t round_value(struct random_stream stream, uint32_t round, uint64_t half, uint64_t side)
{
    const uint32_t counter[4] = {(uint32_t)half, (uint32_t)(half >> 32), round, 0};
    uint32_t out[4];
    philox4x32(counter, stream.key, out);
    uint64_t random = (uint64_t)out[1] << 32 | out[0];
    return (uint64_t)(((unsigned __int128)random * side) >> 64);
}

static uint64_t add_modulo(uint64_t a, uint64_t b, uint64_t modulus)
{
    uint64_t sum = a + b; /* sides are at most 2^32 */
    return sum >= modulus ? sum - modulus : sum;
}

uint64_t permutation_at(const struct permutation *permutation, uint64_t index)
{
    /* Rounds add to one half a function of the other, which can be undone: a bijection of [0, left·right). Values
     * from n on (fewer than `left` of them) are sent round again until they come out below n. */
    uint64_t value = index;
    do {
        uint64_t left = value / permutation->right;
        uint64_t right = value % permutation->right;
        for (uint32_t round = 0; round < FEISTEL_ROUNDS; round += 2) {
            left =
                add_modulo(left, round_value(permutation->stream, round, right, permutation->left), permutation->left);
            right = add_modulo(right, round_value(permutation->stream, round + 1, left, permutation->right),
                               permutation->right);
        }
        value = left * permutation->right + right;
    } while (value >= permutation->n);
    return value;
}
