#include "numerics/numerics.h"

enum { PHILOX_ROUNDS = 10 };
#define PHILOX_FACTOR0 0xD2511F53U
#define PHILOX_FACTOR1 0xCD9E8D57U
#define PHILOX_KEY0    0x9E3779B9U
#define PHILOX_KEY1    0xBB67AE85U

static inline void philox_block(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1,
                                uint32_t out[4])
{
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t product0 = (uint64_t)PHILOX_FACTOR0 * c0;
        uint64_t product1 = (uint64_t)PHILOX_FACTOR1 * c2;
        uint32_t next0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        uint32_t next2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)product1;
        c3 = (uint32_t)product0;
        c0 = next0;
        c2 = next2;
        k0 += PHILOX_KEY0;
        k1 += PHILOX_KEY1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    philox_block(counter[0], counter[1], counter[2], counter[3], key[0], key[1], out);
}

struct random_stream random_stream(uint64_t seed, enum random_purpose purpose, uint32_t layer, uint32_t epoch,
                                   uint64_t step)
{
    uint32_t out[4];
    /* The purpose shares a word with the layer; 24 bits of layers are more than a model can have tensors. */
    philox_block(epoch, (uint32_t)step, (uint32_t)(step >> 32), (uint32_t)purpose << 24 | (layer & 0xFFFFFFU),
                 (uint32_t)seed, (uint32_t)(seed >> 32), out);
    return (struct random_stream){{out[0], out[1]}};
}

uint32_t random_u32_at(struct random_stream stream, uint64_t position)
{
    uint32_t out[4];
    uint64_t block = position / 4;
    philox_block((uint32_t)block, (uint32_t)(block >> 32), 0, 0, stream.key[0], stream.key[1], out);
    return out[position % 4];
}

static inline float uniform(uint32_t word, float low, float width)
{
    return low + (float)(int32_t)(word >> 8) * 0x1p-24F * width;
}

enum { LANES = 16, WORDS = 4 * LANES };

/* `count` times WORDS values from those of `block` on: blocks side by side, so that they become vectors. */
VECTOR_CLONES static void uniform_blocks(struct random_stream stream, uint64_t block, size_t count, float low,
                                         float width, float *restrict out)
{
    for (; count > 0; count--, block += LANES, out += WORDS) {
        uint32_t c[4][LANES];
        for (uint32_t lane = 0; lane < LANES; lane++) {
            c[0][lane] = (uint32_t)(block + lane);
            c[1][lane] = (uint32_t)((block + lane) >> 32);
            c[2][lane] = c[3][lane] = 0;
        }
        uint32_t k0 = stream.key[0];
        uint32_t k1 = stream.key[1];
        for (int round = 0; round < PHILOX_ROUNDS; round++) {
#pragma GCC unroll 1
            for (uint32_t lane = 0; lane < LANES; lane++) {
                const uint64_t product0 = (uint64_t)PHILOX_FACTOR0 * c[0][lane];
                const uint64_t product1 = (uint64_t)PHILOX_FACTOR1 * c[2][lane];
                c[0][lane] = (uint32_t)(product1 >> 32) ^ c[1][lane] ^ k0;
                c[2][lane] = (uint32_t)(product0 >> 32) ^ c[3][lane] ^ k1;
                c[1][lane] = (uint32_t)product1;
                c[3][lane] = (uint32_t)product0;
            }
            k0 += PHILOX_KEY0;
            k1 += PHILOX_KEY1;
        }
        for (uint32_t lane = 0; lane < LANES; lane++)
            for (uint32_t word = 0; word < 4; word++)
                out[4 * lane + word] = uniform(c[word][lane], low, width);
    }
}

void random_uniform_range(struct random_stream stream, uint64_t begin, uint64_t end, float low, float high, float *out)
{
    const float width = high - low;
    uint32_t words[4] = {0};
    for (uint64_t position = begin; position < end;) {
        const uint64_t block = position / 4;
        const size_t whole = position % 4 == 0 ? (end - position) / WORDS : 0;
        if (whole > 0) {
            uniform_blocks(stream, block, whole, low, width, out);
            position += whole * WORDS;
            out += whole * WORDS;
            continue;
        }
        if (position == begin || position % 4 == 0)
            philox_block((uint32_t)block, (uint32_t)(block >> 32), 0, 0, stream.key[0], stream.key[1], words);
        *out++ = uniform(words[position % 4], low, width);
        position++;
    }
}
