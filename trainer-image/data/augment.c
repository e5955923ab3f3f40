#include "data/augment.h"

#include <string.h>

/* An order's key is a function of (seed, epoch) that no other purpose has: it serves as the seed of what happens to the
 * epoch's samples. */
static struct random_stream stream_of(const struct permutation *order)
{
    const uint32_t *key = order->stream.key;
    return random_stream((uint64_t)key[1] << 32 | key[0], RANDOM_AUGMENT, 0, 0, 0);
}

/* −padding … +padding, each as likely. */
static int32_t shift_of(uint32_t padding, uint32_t random)
{
    return (int32_t)((uint64_t)random * (2 * (uint64_t)padding + 1) >> 32) - (int32_t)padding;
}

struct augment_move augment_of(const struct augment *augment, const struct permutation *order, uint64_t sample)
{
    enum { WORDS = 4 }; /* of a sample; the last is not used */
    const struct random_stream stream = stream_of(order);
    return (struct augment_move){
        .flip = augment->flip && random_u32_at(stream, WORDS * sample) >> 31,
        .down = shift_of(augment->padding, random_u32_at(stream, WORDS * sample + 1)),
        .right = shift_of(augment->padding, random_u32_at(stream, WORDS * sample + 2)),
    };
}

static void fill(float *x, uint64_t n, float value)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] = value;
}

/* Rows or columns: where `size` elements in units of `unit` floats come to stand when they move by `by`. */
static void shift(float *x, uint32_t size, uint64_t unit, int32_t by, float zero)
{
    const uint32_t distance = (uint32_t)(by < 0 ? -by : by);
    const uint64_t gone = (distance < size ? distance : size) * unit;
    const uint64_t left = size * unit - gone;
    if (by >= 0) {
        memmove(x + gone, x, left * sizeof *x);
        fill(x, gone, zero);
    } else {
        memmove(x, x + gone, left * sizeof *x);
        fill(x + left, gone, zero);
    }
}

static void mirror(float *x, uint32_t width)
{
    for (uint32_t i = 0; i < width / 2; i++) {
        const float left = x[i];
        x[i] = x[width - 1 - i];
        x[width - 1 - i] = left;
    }
}

void augment_apply(const struct augment_move *how, const uint32_t shape[3], const float *zero, float *x)
{
    const uint32_t height = shape[1], width = shape[2];
    for (uint32_t c = 0; c < shape[0]; c++, x += (uint64_t)height * width) {
        if (how->down != 0)
            shift(x, height, width, how->down, zero[c]);
        for (uint32_t row = 0; row < height; row++) {
            if (how->right != 0)
                shift(x + (uint64_t)row * width, width, 1, how->right, zero[c]);
            if (how->flip)
                mirror(x + (uint64_t)row * width, width);
        }
    }
}
