#include "model/layer.h"

#include <string.h>

void maxpool_forward(const struct layer *layer, const float *x, float *y, uint8_t *argmax, uint32_t n)
{
    const size_t w = layer->in.w;
    const size_t oh = layer->out.h;
    const size_t ow = layer->out.w;
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++, x += layer->in.h * w)
        for (size_t i = 0; i < oh; i++) {
            const float *top = x + 2 * i * w;
            const float *bottom = top + w;
            for (size_t j = 0; j < ow; j++) {
                float best = top[2 * j];
                uint8_t which = 0;
                which = top[2 * j + 1] > best ? 1 : which;
                best = top[2 * j + 1] > best ? top[2 * j + 1] : best;
                which = bottom[2 * j] > best ? 2 : which;
                best = bottom[2 * j] > best ? bottom[2 * j] : best;
                which = bottom[2 * j + 1] > best ? 3 : which;
                best = bottom[2 * j + 1] > best ? bottom[2 * j + 1] : best;
                *y++ = best;
                *argmax++ = which;
            }
        }
}

void maxpool_backward(const struct layer *layer, const uint8_t *argmax, const float *dy, float *dx, uint32_t n)
{
    const size_t w = layer->in.w;
    const size_t oh = layer->out.h;
    const size_t ow = layer->out.w;
    if (layer->in.h % 2 != 0 || layer->in.w % 2 != 0)
        memset(dx, 0, n * shape_size(layer->in) * sizeof *dx);
    for (size_t plane = 0; plane < (size_t)n * layer->in.c; plane++, dx += layer->in.h * w)
        for (size_t i = 0; i < oh; i++) {
            float *top = dx + 2 * i * w;
            float *bottom = top + w;
            for (size_t j = 0; j < ow; j++, dy++, argmax++) {
                top[2 * j] = *argmax == 0 ? *dy : 0;
                top[2 * j + 1] = *argmax == 1 ? *dy : 0;
                bottom[2 * j] = *argmax == 2 ? *dy : 0;
                bottom[2 * j + 1] = *argmax == 3 ? *dy : 0;
            }
        }
}
