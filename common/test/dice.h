/* dice — random choices for tests: the same in every run for the same seed, and good enough from any. */
#ifndef THOLE_COMMON_TEST_DICE_H
#define THOLE_COMMON_TEST_DICE_H

#include <stdint.h>

/* splitmix64 */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* In [0, most), or 0. */
static inline uint32_t below(uint64_t *state, uint32_t most)
{
    return most == 0 ? 0 : (uint32_t)(random_next(state) % most);
}

#endif
