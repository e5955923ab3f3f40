/* Runs wire_fuzz.c without a fuzzer: on the files that are named, or on frames that are made and changed here, the same
 * ones every time. */
#include "wire/net_internal.h"

#include "common/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROUNDS = 4000, SIZE_MOST = 6000 };

static uint64_t random_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Frames of known types with small payloads; then some bits, bytes and lengths are changed. */
static size_t make_input(uint64_t *seed, uint8_t out[SIZE_MOST])
{
    static const uint8_t types[] = {1, 2, 3, 4, 5, 16, 17, 18, 19, 20, 21, 22, 23, 32, 33, 34, 48, 49, 50, 51, 0, 255};
    static const uint32_t words[] = {0, 0, 0, 1, 0xfa11, 0xc105e, UINT32_MAX};
    out[0] = (uint8_t)random_next(seed);
    out[1] = (uint8_t)random_next(seed);
    size_t size = 2;
    for (uint64_t frames = 1 + random_next(seed) % 5; frames > 0; frames--) {
        struct frame frame = {.type = types[random_next(seed) % sizeof types],
                              .node = words[random_next(seed) % 7],
                              .step = words[random_next(seed) % 7]};
        static const uint32_t lengths[] = {0, 0, 4, 11, 32, 80, 104, 1000};
        frame.length = lengths[random_next(seed) % 8];
        uint8_t *payload = out + size + WIRE_HEADER_SIZE;
        for (uint32_t i = 0; i < frame.length; i++)
            payload[i] = (uint8_t)random_next(seed);
        frame_encode(&frame, frame.length > 0 ? crc32c(0, payload, frame.length) : 0, out + size);
        size += WIRE_HEADER_SIZE + frame.length;
    }
    for (uint64_t changes = random_next(seed) % 4; changes > 0; changes--) {
        size_t at = 2 + random_next(seed) % (size - 2);
        if (random_next(seed) % 2 == 0)
            out[at] ^= (uint8_t)(1U << random_next(seed) % 8);
        else
            memset(out + at, (int)(random_next(seed) % 256), random_next(seed) % 8 < size - at ? 1 : size - at);
    }
    return random_next(seed) % 4 == 0 ? 2 + random_next(seed) % (size - 1) : size;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        cleanup_buffer struct buffer buffer;
        buffer_init(&buffer, 1 << 20);
        struct error err = {0};
        if (buffer_read_file(&buffer, argv[i], &err) < 0) {
            fprintf(stderr, "%s\n", error_message(&err));
            return 1;
        }
        LLVMFuzzerTestOneInput((const uint8_t *)buffer.data, buffer.length);
    }
    uint64_t seed = 1;
    for (int i = 0; argc == 1 && i < ROUNDS; i++) {
        static uint8_t bytes[SIZE_MOST];
        LLVMFuzzerTestOneInput(bytes, make_input(&seed, bytes));
    }
    printf("%d inputs\n", argc == 1 ? ROUNDS : argc - 1);
    return 0;
}
