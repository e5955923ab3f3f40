#include "model/dense.h"
#include "model/graph.h"

#include "numerics/numerics.h"

#include <stdlib.h>

int model_build(struct model **out, struct network *network, struct error *err)
{
    cleanup_network struct network *owned = network;
    cleanup_model struct model *model = calloc(1, sizeof *model);
    if (model == NULL)
        return error_set(err, "out of memory for the model's description");
    model->network = move(owned);
    model->nodes = calloc(network->layer_count, sizeof *model->nodes);
    if (model->nodes == NULL)
        return error_set(err, "out of memory for the model's description");
    if (graph_plan(network, model->nodes, err) < 0)
        return -1;
    for (uint32_t i = 0; i < network->layer_count; i++) {
        const struct network_layer *layer = &network->layers[i];
        model->nodes[i].kept_at = model->kept;
        if (dense_is_large(layer))
            model->kept += shape_size(layer->in) + shape_size(layer->out);
    }
    model->unit = numerics_kernel_fuses() ? gemm_unit() : GEMM_NO_UNIT;
    *out = move(model);
    return 0;
}

int model_make(struct model **out, const struct network_spec *spec, const struct network_sample *sample,
               struct error *err)
{
    struct network *network = NULL;
    return network_build(&network, spec, sample, err) < 0 ? -1 : model_build(out, network, err);
}

void model_free(struct model *model)
{
    if (model == NULL)
        return;
    network_free(model->network);
    free(model->nodes);
    free(model);
}

const struct network *model_network(const struct model *model)
{
    return model->network;
}

uint64_t model_parameters(const struct model *model)
{
    return model->network->parameters;
}

uint64_t model_sample_size(const struct model *model)
{
    return shape_size(model->network->sample.shape);
}

uint64_t model_rows_seed(const struct network *network, const struct plan *plan)
{
    return network->has_rows_seed ? network->rows_seed : plan->training.seed;
}

static void init_tensor(const struct network_tensor *tensor, uint32_t index, uint64_t seed, uint64_t begin,
                        uint64_t end, float *out)
{
    if (tensor->bound != 0)
        random_uniform_range(random_stream(seed, RANDOM_INIT, index, 0, 0), begin, end, -tensor->bound, tensor->bound,
                             out);
    else
        for (uint64_t i = 0; i < end - begin; i++)
            out[i] = tensor->constant;
}

void model_init_range(const struct model *model, uint64_t seed, uint64_t begin, uint64_t end, float *out)
{
    for (uint32_t i = 0; i < model->network->tensor_count; i++) {
        const struct network_tensor *tensor = &model->network->tensors[i];
        uint64_t tensor_end = tensor->offset + tensor->count;
        uint64_t from = begin > tensor->offset ? begin : tensor->offset;
        uint64_t to = end < tensor_end ? end : tensor_end;
        if (from < to)
            init_tensor(tensor, i, seed, from - tensor->offset, to - tensor->offset, out + (from - begin));
    }
}
