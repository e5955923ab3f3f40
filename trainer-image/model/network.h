/* network — what a built model is made of. Private to model. */
#ifndef THOLE_MODEL_NETWORK_H
#define THOLE_MODEL_NETWORK_H

#include "model/model.h"
#include "model/old_layer.h"

enum { LAYERS_MOST = 32, TENSORS_MOST = 2 * LAYERS_MOST };

struct model {
    enum plan_model zoo;
    uint32_t shape[3], classes;
    uint64_t parameters;
    struct layer layers[LAYERS_MOST];
    uint32_t layer_count;
    struct model_tensor tensors[TENSORS_MOST];
    uint32_t tensor_count;
};

/* Adds layers behind what is there; -1 with *err naming the layer and the shapes where it does not fit. */
int network_begin(struct model *model, enum plan_model zoo, const uint32_t shape[3], uint32_t classes,
                  struct error *err);
int network_conv2d(struct model *model, const char *name, uint32_t channels, uint32_t kernel, uint32_t padding,
                   struct error *err);
int network_dense(struct model *model, const char *name, uint32_t out, struct error *err);
int network_maxpool(struct model *model, const char *name, struct error *err);
int network_relu(struct model *model, const char *name, struct error *err);
int network_flatten(struct model *model, const char *name, struct error *err);

#endif
