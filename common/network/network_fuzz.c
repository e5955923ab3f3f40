/* Any JSON as {zoo | layers, shape, categories, rows, classes}: a network that hangs together, or a sentence. */
#include "common/network/network.h"
#include "common/test/fuzz.h"

#include <string.h>

static void check_layers(const struct network *network)
{
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        require(layer->input_count >= 1 && layer->input_count <= NETWORK_INPUTS_MOST);
        for (uint32_t j = 0; j < layer->input_count; j++)
            require(layer->inputs[j] >= NETWORK_SAMPLE && layer->inputs[j] < (int32_t)i);
        require(shape_size(layer->out) >= 1 && shape_size(layer->out) <= NETWORK_ELEMENTS_MOST);
        require(layer->type != LAYER_EMBEDDING || layer->table < network->table_count);
    }
    require(shape_size(network->layers[network->layer_count - 1].out) == network->outputs);
}

static void check_tensors(const struct network *network)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < network->tensor_count; i++) {
        const struct network_tensor *tensor = &network->tensors[i];
        uint64_t size = 1;
        for (uint32_t j = 0; j < tensor->rank; j++)
            size *= tensor->dims[j];
        require(tensor->offset == at && tensor->count == size && size >= 1);
        at += size;
    }
    require(at == network->parameters && at >= 1 && at <= NETWORK_PARAMETERS_MOST);
    uint64_t begin;
    uint64_t end;
    network_shard_range(network, 3, 1, &begin, &end);
    require(begin <= end && end <= network->parameters);
}

static void check_text(const cJSON *layers)
{
    struct error err = {0};
    cleanup_free char *text = network_layers_text(layers, &err);
    require((text == NULL) == (error_message(&err)[0] != '\0'));
    if (text == NULL)
        return;
    cleanup_json cJSON *again = cJSON_Parse(text);
    cleanup_free char *twice = network_layers_text(again, &err);
    require_with_memory(twice != NULL && strcmp(text, twice) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_json cJSON *json = cJSON_ParseWithLength((const char *)data, size);
    if (json == NULL)
        return 0;
    const cJSON *shape = json_at(json, "shape");
    uint32_t dims[3];
    for (int i = 0; i < 3; i++) {
        const cJSON *item = cJSON_GetArrayItem(shape, i);
        double value = cJSON_IsNumber(item) ? item->valuedouble : 0;
        dims[i] = value >= 0 && value <= UINT32_MAX ? (uint32_t)value : 0;
    }
    const struct network_sample sample = {.shape = {dims[0], dims[1], dims[2]},
                                          .categories = (uint32_t)json_int(json, "categories", 0),
                                          .rows = (uint32_t)json_int(json, "rows", 0),
                                          .classes = (uint32_t)json_int(json, "classes", 0)};
    const struct network_spec spec = {.zoo = json_string(json, "zoo", NULL), .layers = json_at(json, "layers")};
    struct error err = {0};
    cleanup_network struct network *network = NULL;
    int built = network_build(&network, &spec, &sample, &err);
    require((built < 0) == (error_message(&err)[0] != '\0') && (built < 0) == (network == NULL));
    if (network != NULL) {
        check_layers(network);
        check_tensors(network);
    }
    if (spec.layers != NULL)
        check_text(spec.layers);
    return 0;
}
