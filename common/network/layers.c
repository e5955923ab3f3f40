#include "common/network/layers.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const char *const type_names[LAYER_TYPES] = {
    [LAYER_DENSE] = "Dense",         [LAYER_CONV2D] = "Conv2D",       [LAYER_MAXPOOL] = "MaxPool",
    [LAYER_AVGPOOL] = "AvgPool",     [LAYER_BATCHNORM] = "BatchNorm", [LAYER_GLOBAL_AVGPOOL] = "GlobalAvgPool",
    [LAYER_DROPOUT] = "Dropout",     [LAYER_LAYERNORM] = "LayerNorm", [LAYER_ADD] = "Add",
    [LAYER_EMBEDDING] = "Embedding", [LAYER_CONCAT] = "Concat",       [LAYER_COLUMNS] = "Columns",
    [LAYER_FLATTEN] = "Flatten",     [LAYER_RELU] = "ReLU",           [LAYER_GELU] = "GELU",
    [LAYER_TANH] = "Tanh",           [LAYER_SIGMOID] = "Sigmoid",     [LAYER_SUM] = "Sum",
};

static const char *const loss_names[LOSS_TYPES] = {
    [LOSS_SOFTMAX_CROSS_ENTROPY] = "SoftmaxCrossEntropy",
    [LOSS_BINARY_CROSS_ENTROPY] = "BinaryCrossEntropy",
    [LOSS_MSE] = "MSE",
    [LOSS_HUBER] = "Huber",
};

const char *layer_type_name(enum layer_type type)
{
    return type_names[type];
}

const char *loss_type_name(enum loss_type type)
{
    return loss_names[type];
}

int layer_refused(const struct network_layer *layer, struct error *err, const char *format, ...)
{
    char why[512];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return error_set(err, "layer %s (%s): %s", layer->name, layer_type_name(layer->type), why);
}

int layer_list_new(struct layer_list *list, struct error *err)
{
    *list = (struct layer_list){.layers = calloc(NETWORK_LAYERS_MOST, sizeof *list->layers)};
    return list->layers == NULL ? error_set(err, "out of memory for the model's layers") : 0;
}

void layer_list_free(struct layer_list *list)
{
    free(list->layers);
    *list = (struct layer_list){0};
}

/* ---- members ---- */

enum { BIT_NONE = 0 };
#define TYPE(name) (1U << LAYER_##name)
#define POOLS      (TYPE(MAXPOOL) | TYPE(AVGPOOL))
#define MEMBER(at) offsetof(struct network_layer, at)

enum member_type { MEMBER_U32, MEMBER_F64, MEMBER_BOOL };

/* In the order of the canonical text. */
static const struct member {
    const char *name;
    size_t offset;
    enum member_type type;
    uint32_t taken, needed; /* by these types */
    double least, most;
    bool above, below; /* the bound itself is not fit */
    double fallback;   /* where absent */
} members[] = {
    {"units", MEMBER(units), MEMBER_U32, TYPE(DENSE) | TYPE(SUM), TYPE(SUM), .least = 1, .most = NETWORK_ELEMENTS_MOST},
    {"filters", MEMBER(filters), MEMBER_U32, TYPE(CONV2D), TYPE(CONV2D), .least = 1, .most = 65536},
    {"kernel", MEMBER(kernel), MEMBER_U32, TYPE(CONV2D) | POOLS, TYPE(CONV2D) | POOLS, .least = 1, .most = 4096},
    {"stride", MEMBER(stride), MEMBER_U32, TYPE(CONV2D) | POOLS, BIT_NONE, .least = 1, .most = 4096},
    {"padding", MEMBER(padding), MEMBER_U32, TYPE(CONV2D) | POOLS, BIT_NONE, .least = 0, .most = 4096},
    {"groups", MEMBER(groups), MEMBER_U32, TYPE(CONV2D), BIT_NONE, .least = 1, .most = 65536, .fallback = 1},
    {"bias", MEMBER(bias), MEMBER_BOOL, TYPE(DENSE) | TYPE(CONV2D), BIT_NONE, .fallback = true},
    {"rows", MEMBER(rows), MEMBER_U32, TYPE(EMBEDDING), BIT_NONE, .least = 1, .most = NETWORK_ROWS_MOST},
    {"dim", MEMBER(dim), MEMBER_U32, TYPE(EMBEDDING), TYPE(EMBEDDING), .least = 1, .most = NETWORK_DIM_MOST},
    {"from", MEMBER(from), MEMBER_U32, TYPE(COLUMNS), BIT_NONE, .least = 0, .most = NETWORK_ELEMENTS_MOST},
    {"to", MEMBER(to), MEMBER_U32, TYPE(COLUMNS), BIT_NONE, .least = 1, .most = NETWORK_ELEMENTS_MOST},
    {"rate", MEMBER(rate), MEMBER_F64, TYPE(DROPOUT), TYPE(DROPOUT), .least = 0, .most = 1, .below = true},
    {"momentum", MEMBER(momentum), MEMBER_F64, TYPE(BATCHNORM), BIT_NONE, .least = 0, .most = 1, .above = true,
     .fallback = 0.1},
    {"epsilon", MEMBER(epsilon), MEMBER_F64, TYPE(BATCHNORM) | TYPE(LAYERNORM), BIT_NONE, .least = 0, .most = 1,
     .above = true, .fallback = 1e-5},
};
enum { MEMBERS = sizeof members / sizeof members[0] };

static bool takes(const struct member *member, enum layer_type type)
{
    return (member->taken >> type & 1) != 0;
}

static void set_member(struct network_layer *layer, const struct member *member, double value)
{
    char *at = (char *)layer + member->offset;
    if (member->type == MEMBER_U32)
        *(uint32_t *)(void *)at = (uint32_t)value;
    else if (member->type == MEMBER_F64)
        *(double *)(void *)at = value;
    else
        *(bool *)at = value != 0;
}

static double get_member(const struct network_layer *layer, const struct member *member)
{
    const char *at = (const char *)layer + member->offset;
    if (member->type == MEMBER_U32)
        return *(const uint32_t *)(const void *)at;
    if (member->type == MEMBER_F64)
        return *(const double *)(const void *)at;
    return *(const bool *)at ? 1 : 0;
}

/* The stride of a pool is its kernel's size where none is given; of a convolution, 1. */
static void settle_stride(struct network_layer *layer)
{
    if (layer->stride == 0)
        layer->stride = layer->type == LAYER_CONV2D ? 1 : layer->kernel;
}

struct network_layer *layer_list_add(struct layer_list *list, enum layer_type type)
{
    struct network_layer *layer = &list->layers[list->count];
    *layer = (struct network_layer){.type = type, .input_count = 1, .inputs = {(int32_t)list->count - 1}};
    list->count++;
    for (size_t i = 0; i < MEMBERS; i++)
        if (takes(&members[i], type))
            set_member(layer, &members[i], members[i].fallback);
    return layer;
}

/* ---- decoding ---- */

static int decode_member(struct network_layer *layer, const struct member *member, const cJSON *item, struct error *err)
{
    if (member->type == MEMBER_BOOL) {
        if (!cJSON_IsBool(item))
            return layer_refused(layer, err, "%s: must be true or false", member->name);
        set_member(layer, member, cJSON_IsTrue(item) ? 1 : 0);
        return 0;
    }
    double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    bool fits = (member->above ? value > member->least : value >= member->least) &&
                (member->below ? value < member->most : value <= member->most) &&
                (member->type == MEMBER_F64 || trunc(value) == value);
    if (!fits)
        return layer_refused(layer, err, "%s: must be a %snumber %s %.15g and %s %.15g", member->name,
                             member->type == MEMBER_F64 ? "" : "whole ", member->above ? "above" : "at least",
                             member->least, member->below ? "below" : "at most", member->most);
    set_member(layer, member, value);
    return 0;
}

static bool is_common_member(const char *name)
{
    return strcmp(name, "name") == 0 || strcmp(name, "type") == 0 || strcmp(name, "inputs") == 0;
}

static int decode_members(struct network_layer *layer, const cJSON *json, struct error *err)
{
    uint32_t given = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, json)
    {
        size_t i = 0;
        while (i < MEMBERS && strcmp(members[i].name, item->string) != 0)
            i++;
        if (i == MEMBERS && is_common_member(item->string))
            continue;
        if (i == MEMBERS || !takes(&members[i], layer->type))
            return layer_refused(layer, err, "this type of layer takes no member '%.40s'", item->string);
        if (decode_member(layer, &members[i], item, err) < 0)
            return -1;
        given |= 1U << i;
    }
    for (size_t i = 0; i < MEMBERS; i++)
        if ((members[i].needed >> layer->type & 1) != 0 && (given >> i & 1) == 0)
            return layer_refused(layer, err, "%s: is missing", members[i].name);
    settle_stride(layer);
    return 0;
}

/* A letter, then letters, digits, '_', '-', and dots as in PyTorch's names. */
static bool is_layer_name(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char others[] = "0123456789_-.";
    if (name[0] == '\0' || strchr(letters, name[0]) == NULL)
        return false;
    for (const char *at = name; *at != '\0'; at++)
        if (strchr(letters, *at) == NULL && strchr(others, *at) == NULL)
            return false;
    return strlen(name) < NETWORK_NAME_SIZE;
}

/* The earlier layer of this name; NETWORK_SAMPLE − 1 where there is none. */
static int32_t find_layer(const struct layer_list *list, const char *name, uint32_t before)
{
    if (strcmp(name, "input") == 0)
        return NETWORK_SAMPLE;
    for (uint32_t i = 0; i < before; i++)
        if (strcmp(list->layers[i].name, name) == 0)
            return (int32_t)i;
    return NETWORK_SAMPLE - 1;
}

static int decode_inputs(struct layer_list *list, struct network_layer *layer, const cJSON *json, struct error *err)
{
    const cJSON *inputs = cJSON_GetObjectItemCaseSensitive(json, "inputs");
    if (inputs != NULL && (!cJSON_IsArray(inputs) || inputs->child == NULL))
        return layer_refused(layer, err, "inputs: must be a list of names of earlier layers, or \"input\"");
    uint32_t count = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, inputs)
    {
        if (count == NETWORK_INPUTS_MOST)
            return layer_refused(layer, err, "inputs: there are more than %d", NETWORK_INPUTS_MOST);
        const char *name = cJSON_IsString(item) ? item->valuestring : "";
        int32_t input = find_layer(list, name, list->count - 1);
        if (input < NETWORK_SAMPLE)
            return layer_refused(layer, err,
                                 "inputs: there is no layer '%.31s' before it; name earlier layers, or \"input\" for "
                                 "the sample",
                                 name);
        layer->inputs[count++] = input;
    }
    if (count != 0)
        layer->input_count = count;
    bool many = layer->type == LAYER_ADD || layer->type == LAYER_CONCAT;
    if (many && layer->input_count < 2)
        return layer_refused(layer, err, "inputs: name at least two layers");
    if (!many && layer->input_count > 1)
        return layer_refused(layer, err, "inputs: this type of layer takes one; join several with Add or Concat");
    return 0;
}

static int decode_layer(struct layer_list *list, const cJSON *json, struct error *err)
{
    uint32_t number = list->count + 1;
    const char *name = json_string(json, "name", "");
    if (!is_layer_name(name))
        return error_set(err,
                         "layer %u of the list: name: must begin with a letter and have at most %d letters, digits, "
                         "'_', '-' and '.'",
                         number, NETWORK_NAME_SIZE - 1);
    if (find_layer(list, name, list->count) >= NETWORK_SAMPLE)
        return error_set(err, "layer %u of the list: name: '%s' is taken%s", number, name,
                         strcmp(name, "input") == 0 ? ": it means the sample" : " by an earlier layer");
    const char *type = json_string(json, "type", "");
    uint32_t i = 0;
    while (i < LAYER_TYPES && strcmp(type_names[i], type) != 0)
        i++;
    if (i == LAYER_TYPES)
        return error_set(err, "layer %s: type: there is no '%.40s'", name, type);
    struct network_layer *layer = layer_list_add(list, (enum layer_type)i);
    snprintf(layer->name, sizeof layer->name, "%s", name);
    if (decode_members(layer, json, err) < 0)
        return -1;
    return decode_inputs(list, layer, json, err);
}

/* What nobody reads has no gradient. */
static int check_outputs_are_read(const struct layer_list *list, struct error *err)
{
    bool read[NETWORK_LAYERS_MOST] = {false};
    for (uint32_t i = 0; i < list->count; i++)
        for (uint32_t j = 0; j < list->layers[i].input_count; j++)
            if (list->layers[i].inputs[j] >= 0)
                read[list->layers[i].inputs[j]] = true;
    for (uint32_t i = 0; i + 1 < list->count; i++)
        if (!read[i])
            return layer_refused(&list->layers[i], err,
                                 "no layer reads its output; name it in a later layer's inputs, or take it out");
    return 0;
}

int layers_decode(struct layer_list *list, const cJSON *json, struct error *err)
{
    if (!cJSON_IsArray(json) || json->child == NULL)
        return error_set(err, "spec.model.layers: must be a list of layers");
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, json)
    {
        if (list->count == NETWORK_LAYERS_MOST)
            return error_set(err, "spec.model.layers: there are more than %d layers", NETWORK_LAYERS_MOST);
        if (decode_layer(list, item, err) < 0)
            return -1;
    }
    return check_outputs_are_read(list, err);
}

int network_check_layers(const cJSON *layers, struct error *err)
{
    cleanup_layers struct layer_list list = {0};
    if (layer_list_new(&list, err) < 0)
        return -1;
    return layers_decode(&list, layers, err);
}

/* ---- the canonical text ---- */

static double default_of(const struct member *member, const struct network_layer *layer)
{
    if (member->offset == MEMBER(stride))
        return layer->type == LAYER_CONV2D ? 1 : layer->kernel;
    return member->fallback;
}

static void add_layer(cJSON *json, const struct layer_list *list, uint32_t index, bool *whole)
{
    const struct network_layer *layer = &list->layers[index];
    cJSON *object = json_add(json, NULL, cJSON_CreateObject(), whole);
    json_add_text(object, "name", layer->name, whole);
    json_add_text(object, "type", layer_type_name(layer->type), whole);
    if (layer->input_count != 1 || layer->inputs[0] != (int32_t)index - 1) {
        cJSON *inputs = json_add_list(object, "inputs", whole);
        for (uint32_t i = 0; i < layer->input_count; i++) {
            int32_t input = layer->inputs[i];
            const char *name = input == NETWORK_SAMPLE ? "input" : list->layers[input].name;
            json_add(inputs, NULL, cJSON_CreateString(name), whole);
        }
    }
    for (size_t i = 0; i < MEMBERS; i++) {
        double value = get_member(layer, &members[i]);
        bool needed = (members[i].needed >> layer->type & 1) != 0;
        if (!takes(&members[i], layer->type) || (!needed && value == default_of(&members[i], layer)))
            continue;
        cJSON *item = members[i].type == MEMBER_BOOL ? cJSON_CreateBool(value != 0) : json_exact_number(value);
        json_add(object, members[i].name, item, whole);
    }
}

char *network_layers_text(const cJSON *layers, struct error *err)
{
    cleanup_layers struct layer_list list = {0};
    if (layer_list_new(&list, err) < 0 || layers_decode(&list, layers, err) < 0)
        return NULL;
    bool whole = true;
    cleanup_json cJSON *json = cJSON_CreateArray();
    for (uint32_t i = 0; i < list.count; i++)
        add_layer(json, &list, i, &whole);
    char *text = whole && json != NULL ? json_print(json) : NULL;
    if (text == NULL)
        error_set(err, "out of memory for the model's layers");
    return text;
}
