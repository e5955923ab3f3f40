/* The models of the zoo: their layers, tensors and counts. */
#include "common/network/test_bed.h"

#include <math.h>
#include <string.h>

struct expected {
    const char *name;
    uint32_t rank, dims[4];
    uint32_t fan_in;
};

static void check_tensors(const struct network *network, const struct expected *expected, uint32_t count)
{
    assert_int_equal(network->tensor_count, count);
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct network_tensor *tensor = &network->tensors[i];
        assert_string_equal(tensor->name, expected[i].name);
        assert_int_equal(tensor->rank, expected[i].rank);
        assert_int_equal(tensor->offset, at);
        uint64_t size = 1;
        for (uint32_t j = 0; j < expected[i].rank; j++) {
            assert_int_equal(tensor->dims[j], expected[i].dims[j]);
            size *= expected[i].dims[j];
        }
        assert_int_equal(tensor->count, size);
        assert_int_equal(tensor->kind, strstr(tensor->name, ".bias") != NULL ? TENSOR_BIAS : TENSOR_WEIGHT);
        assert_true(tensor->bound == (float)(1.0 / sqrt(expected[i].fan_in)));
        at += size;
    }
    assert_int_equal(network->parameters, at);
}

/* Order, names and bounds decide initial values: a change here would change every model trained so far. */
static void mlp_and_lenet_are_what_they_were(void **state)
{
    (void)state;
    static const struct expected mlp[] = {
        {"fc1.weight", 2, {256, 784}, 784}, {"fc1.bias", 1, {256}, 784},       {"fc2.weight", 2, {128, 256}, 256},
        {"fc2.bias", 1, {128}, 256},        {"fc3.weight", 2, {10, 128}, 128}, {"fc3.bias", 1, {10}, 128},
    };
    static const struct expected lenet[] = {
        {"conv1.weight", 4, {6, 1, 5, 5}, 25},   {"conv1.bias", 1, {6}, 25},
        {"conv2.weight", 4, {16, 6, 5, 5}, 150}, {"conv2.bias", 1, {16}, 150},
        {"fc1.weight", 2, {120, 400}, 400},      {"fc1.bias", 1, {120}, 400},
        {"fc2.weight", 2, {84, 120}, 120},       {"fc2.bias", 1, {84}, 120},
        {"fc3.weight", 2, {10, 84}, 84},         {"fc3.bias", 1, {10}, 84},
    };
    cleanup_network struct network *first = build_zoo("mlp", image(1, 28, 28, 10));
    check_tensors(first, mlp, 6);
    assert_string_equal(first->name, "mlp");
    assert_int_equal(first->outputs, 10);
    cleanup_network struct network *second = build_zoo("lenet", image(1, 28, 28, 10));
    check_tensors(second, lenet, 10);
    static const char *const layers[] = {"conv1",   "pool1", "relu1", "conv2", "pool2", "relu2",
                                         "flatten", "fc1",   "relu3", "fc2",   "relu4", "fc3"};
    assert_int_equal(second->layer_count, 12);
    for (uint32_t i = 0; i < 12; i++) {
        assert_string_equal(second->layers[i].name, layers[i]);
        assert_int_equal(second->layers[i].inputs[0], (int32_t)i - 1);
    }
    assert_int_equal(second->layers[3].weight, 6 * 25 + 6);
    assert_int_equal(second->layers[3].bias_at, 6 * 25 + 6 + 16 * 150);
}

static uint64_t statistics(const struct network *network)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < network->tensor_count; i++)
        if (network->tensors[i].kind == TENSOR_STATISTIC)
            count += network->tensors[i].count;
    return count;
}

/* The counts that README.md documents ("Models"). */
static void the_zoo_has_its_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *zoo;
        uint32_t shape[3], categories, rows, classes;
        uint64_t trained, statistics, table_rows_size;
    } cases[] = {
        {"linear", {1, 28, 28}, 0, 0, 10, 7850, 0, 0},
        {"linear", {13, 1, 1}, 0, 0, 0, 14, 0, 0},
        {"linear", {5, 1, 1}, 2, 69, 0, 4, 0, 1},
        {"logistic", {5, 1, 1}, 2, 69, 3, 12, 0, 3},
        {"logistic", {1, 28, 28}, 0, 0, 10, 7850, 0, 0},
        {"logistic", {14, 1, 1}, 0, 0, 2, 15, 0, 0},
        {"mlp", {1, 28, 28}, 0, 0, 10, 235146, 0, 0},
        {"lenet", {1, 28, 28}, 0, 0, 10, 61706, 0, 0},
        {"resnet8", {1, 28, 28}, 0, 0, 10, 77754, 672, 0},
        {"resnet8", {3, 32, 32}, 0, 0, 10, 78042, 672, 0},
        {"resnet20", {1, 28, 28}, 0, 0, 10, 272186, 1568, 0},
        {"resnet20", {3, 32, 32}, 0, 0, 10, 272474, 1568, 0}, /* 0.27 million in the paper */
        {"widedeep", {14, 1, 1}, 8, 1000, 2, (70 * 64 + 64) + (64 * 32 + 32) + (32 * 2 + 2), 0, 10},
        {"widedeep", {14, 1, 1}, 8, 1000, 10, 6954, 0, 18},
        {"widedeep", {8, 1, 1}, 8, 1000, 0, (64 * 64 + 64) + (64 * 32 + 32) + 33, 0, 9},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct network_sample sample = {{cases[i].shape[0], cases[i].shape[1], cases[i].shape[2]},
                                        cases[i].categories,
                                        cases[i].rows,
                                        cases[i].classes};
        cleanup_network struct network *network = build_zoo(cases[i].zoo, sample);
        assert_int_equal(statistics(network), cases[i].statistics);
        assert_int_equal(network->parameters - statistics(network), cases[i].trained);
        uint64_t row = 0;
        for (uint32_t j = 0; j < network->table_count; j++) {
            assert_int_equal(network->tables[j].rows, cases[i].rows);
            row += network->tables[j].dim;
        }
        assert_int_equal(row, cases[i].table_rows_size);
    }
    uint32_t models = 0;
    while (network_zoo_name(models) != NULL)
        models++;
    assert_int_equal(models, 7);
}

static const struct network_layer *layer_of(const struct network *network, const char *name)
{
    for (uint32_t i = 0; i < network->layer_count; i++)
        if (strcmp(network->layers[i].name, name) == 0)
            return &network->layers[i];
    fail_msg("no layer %s", name);
    return NULL;
}

static void check_out(const struct network *network, const char *name, uint32_t c, uint32_t h, uint32_t w)
{
    const struct network_layer *layer = layer_of(network, name);
    assert_int_equal(layer->out.c, c);
    assert_int_equal(layer->out.h, h);
    assert_int_equal(layer->out.w, w);
}

static void resnets_branch_and_join(void **state)
{
    (void)state;
    cleanup_network struct network *network = build_zoo("resnet20", image(3, 28, 28, 10));
    check_out(network, "layer1.2.relu2", 16, 28, 28);
    check_out(network, "layer2.0.conv1", 32, 14, 14);
    check_out(network, "layer2.0.downsample.0", 32, 14, 14);
    check_out(network, "layer3.2.add", 64, 7, 7);
    check_out(network, "avgpool", 64, 1, 1);
    const struct network_layer *add = layer_of(network, "layer2.0.add");
    assert_int_equal(add->input_count, 2);
    assert_string_equal(network->layers[add->inputs[0]].name, "layer2.0.bn2");
    assert_string_equal(network->layers[add->inputs[1]].name, "layer2.0.downsample.1");
    const struct network_layer *projection = layer_of(network, "layer2.0.downsample.0");
    assert_string_equal(network->layers[projection->inputs[0]].name, "layer1.2.relu2");
    assert_string_equal(network->layers[layer_of(network, "layer2.1.add")->inputs[1]].name, "layer2.0.relu2");

    static const struct {
        const char *name;
        enum tensor_kind kind;
        float constant, momentum;
    } norm[] = {{"bn1.weight", TENSOR_WEIGHT, 1, 0},
                {"bn1.bias", TENSOR_BIAS, 0, 0},
                {"bn1.running_mean", TENSOR_STATISTIC, 0, 0.1F},
                {"bn1.running_var", TENSOR_STATISTIC, 1, 0.1F}};
    const struct network_layer *bn1 = layer_of(network, "bn1");
    const uint64_t offsets[] = {bn1->weight, bn1->bias_at, bn1->mean_at, bn1->variance_at};
    for (size_t i = 0; i < 4; i++) {
        const struct network_tensor *tensor = &network->tensors[1 + i];
        assert_string_equal(tensor->name, norm[i].name);
        assert_int_equal(tensor->kind, norm[i].kind);
        assert_int_equal(tensor->offset, offsets[i]);
        assert_int_equal(tensor->count, 16);
        assert_true(tensor->bound == 0 && tensor->constant == norm[i].constant && tensor->momentum == norm[i].momentum);
    }
    assert_true(bn1->epsilon == 1e-5);
}

static void widedeep_splits_its_columns(void **state)
{
    (void)state;
    cleanup_network struct network *network = build_zoo("widedeep", table(6, 8, 1000, 3));
    assert_string_equal(network->tables[0].name, "wide.weight");
    assert_string_equal(network->tables[1].name, "deep.weight");
    assert_int_equal(layer_of(network, "deep")->table, 1);
    check_out(network, "ids", 8, 1, 1);
    check_out(network, "wide", 24, 1, 1);
    check_out(network, "wide_sum", 3, 1, 1);
    check_out(network, "deep", 64, 1, 1);
    check_out(network, "features", 70, 1, 1);
    check_out(network, "output", 3, 1, 1);
    assert_true(network->tables[0].bound == 0.05F);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mlp_and_lenet_are_what_they_were),
        cmocka_unit_test(the_zoo_has_its_parameters),
        cmocka_unit_test(resnets_branch_and_join),
        cmocka_unit_test(widedeep_splits_its_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
