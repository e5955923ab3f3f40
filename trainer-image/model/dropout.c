#include "model/layer.h"

#include "numerics/numerics.h"

#include <string.h>

/* y = x/(1 − rate), or 0 with probability `rate`: by the random number of the element's place, which is the sample's
 * position in the epoch's order and the element in it. */

enum { PIECE = 256 };

/* Whether each element of the call is kept. */
static void draw(const struct layer_call *call, uint8_t *kept)
{
    const size_t size = shape_size(call->layer->out);
    const struct random_stream stream =
        random_stream(call->batch->place.seed, RANDOM_DROPOUT, call->index, call->batch->place.epoch, 0);
    const uint64_t first = call->batch->place.first * size;
    float numbers[PIECE];
    for (size_t at = 0; at < call->n * size; at += PIECE) {
        const size_t count = call->n * size - at < PIECE ? call->n * size - at : PIECE;
        random_uniform_range(stream, first + at, first + at + count, 0, 1, numbers);
        for (size_t i = 0; i < count; i++)
            kept[at + i] = (double)numbers[i] >= call->layer->rate;
    }
}

/* y = x·factor where kept, else 0; without a choice, so that the loop becomes vectors. y may be x. */
VECTOR_CLONES static void scale_kept(const uint8_t *kept, const float *x, float factor, float *y, size_t n)
{
    VECTOR_EACH_ALONE
    for (size_t i = 0; i < n; i++) {
        const float scaled = x[i] * factor;
        uint32_t bits;
        memcpy(&bits, &scaled, sizeof bits);
        bits &= 0 - (uint32_t)kept[i];
        memcpy(&y[i], &bits, sizeof bits);
    }
}

static float factor_of(const struct layer_call *call)
{
    return (float)(1 / (1 - call->layer->rate));
}

static void dropout_forward(const struct layer_call *call)
{
    const size_t size = call->n * shape_size(call->layer->out);
    if (call->training) {
        draw(call, call->saved);
        scale_kept(call->saved, call->inputs[0], factor_of(call), call->output, size);
    } else if (call->output != call->inputs[0])
        memcpy(call->output, call->inputs[0], size * sizeof(float));
}

static void dropout_backward(const struct layer_call *call)
{
    scale_kept(call->saved, call->doutput, factor_of(call), call->dinputs[0], call->n * shape_size(call->layer->out));
}

static size_t dropout_saved(const struct network_layer *layer, uint32_t n)
{
    return n * shape_size(layer->out);
}

const struct layer_kind dropout_kind = {
    .forward = dropout_forward,
    .backward = dropout_backward,
    .saved = dropout_saved,
    .flags = LAYER_OVER_INPUT | LAYER_OVER_GRADIENT,
};
