/* reference — layers as their formulas stand, summed in double: slow, and what the fast versions are compared with. */
#ifndef THOLE_MODEL_REFERENCE_H
#define THOLE_MODEL_REFERENCE_H

#include "model/layer.h"

void dense_forward_reference(const struct network_layer *layer, const float *params, const float *x, float *y,
                             uint32_t n);
void dense_backward_reference(const struct network_layer *layer, const float *params, const float *x, const float *dy,
                              float *dx, float *grad, uint32_t n);
void conv2d_forward_reference(const struct network_layer *layer, const float *params, const float *x, float *y,
                              uint32_t n);
void conv2d_backward_reference(const struct network_layer *layer, const float *params, const float *x, const float *dy,
                               float *dx, float *grad, uint32_t n);

/* argmax: each window's place, row by row. */
void maxpool_forward_reference(const struct network_layer *layer, const float *x, float *y, uint32_t *argmax,
                               uint32_t n);
void maxpool_backward_reference(const struct network_layer *layer, const uint32_t *argmax, const float *dy, float *dx,
                                uint32_t n);

#endif
