/* layers — a list of layers before their shapes are known: decoded from JSON, or laid down by the zoo. Private to
 * network. */
#ifndef THOLE_COMMON_NETWORK_LAYERS_H
#define THOLE_COMMON_NETWORK_LAYERS_H

#include "common/network/network.h"

/* Begin as {0}. */
struct layer_list {
    struct network_layer *layers; /* room for NETWORK_LAYERS_MOST */
    uint32_t count;
};
int layer_list_new(struct layer_list *list, struct error *err);
void layer_list_free(struct layer_list *list);
#define cleanup_layers CLEANUP(layer_list_free)

/* The next layer, with its type's defaults and the layer before it as input. */
struct network_layer *layer_list_add(struct layer_list *list, enum layer_type type);

/* Everything that can be said without shapes: names, members and their bounds, inputs, and that every output is read.
 */
int layers_decode(struct layer_list *list, const cJSON *json, struct error *err);

/* Lays down zoo model `name` for such samples. */
int zoo_layers(struct layer_list *list, const char *name, const struct network_sample *sample, uint32_t outputs,
               struct error *err);

/* The loss that a zoo model takes where the job names none; false: as any other. */
bool zoo_loss(const char *name, const struct network_sample *sample, enum loss_type *loss);

/* "layer conv1 (Conv2D): …" and what cannot be; returns −1. */
int layer_refused(const struct network_layer *layer, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
