/* Networks from lists of layers: what fits together, and what is said where it does not; and how shards cut one. */
#include "common/network/test_bed.h"

#include <string.h>

/* ---- lists ---- */

#define DENSE_FC "{\"name\":\"fc\",\"type\":\"Dense\"}"

/* "ok", or the sentence. */
static void check_list(const char *layers, struct network_sample sample, const char *sentence)
{
    cleanup_json cJSON *json = cJSON_Parse(layers);
    if (json == NULL)
        fail_msg("not JSON: %s", layers);
    struct error err = {0};
    cleanup_network struct network *network = NULL;
    int result = network_build(&network, &(struct network_spec){.layers = json}, &sample, &err);
    assert_string_equal(result == 0 ? "ok" : error_message(&err), sentence);
    assert_true((network != NULL) == (result == 0));
}

static void lists_that_do_not_fit_are_named_with_both_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *layers, *sentence;
    } images[] = {
        {"[{\"name\":\"flat\",\"type\":\"Flatten\"}," DENSE_FC "]", "ok"},
        {"[" DENSE_FC "]", "layer fc (Dense): takes a vector and gives 10×1×1, but its input is 6×12×12 (the sample): "
                           "put a Flatten before it"},
        {"[{\"name\":\"pool1\",\"type\":\"MaxPool\",\"kernel\":4},"
         "{\"name\":\"conv2\",\"type\":\"Conv2D\",\"filters\":4,\"kernel\":5}," DENSE_FC "]",
         "layer conv2 (Conv2D): its 5×5 kernel does not fit its input of 6×3×3 from layer pool1"},
        {"[{\"name\":\"c\",\"type\":\"Conv2D\",\"filters\":4,\"kernel\":15,\"padding\":1}," DENSE_FC "]",
         "layer c (Conv2D): its 15×15 kernel with padding 1 does not fit its input of 6×12×12 (the sample)"},
        {"[{\"name\":\"c\",\"type\":\"Conv2D\",\"filters\":4,\"kernel\":3,\"groups\":3}," DENSE_FC "]",
         "layer c (Conv2D): its 3 groups must divide its 4 filters and the channels of its input of 6×12×12 (the "
         "sample)"},
        {"[{\"name\":\"p\",\"type\":\"AvgPool\",\"kernel\":13}," DENSE_FC "]",
         "layer p (AvgPool): its 13×13 window does not fit its input of 6×12×12 (the sample)"},
        {"[{\"name\":\"p\",\"type\":\"AvgPool\",\"kernel\":15,\"padding\":1}," DENSE_FC "]",
         "layer p (AvgPool): its 15×15 window with padding 1 does not fit its input of 6×12×12 (the sample)"},
        {"[{\"name\":\"p\",\"type\":\"MaxPool\",\"kernel\":3,\"padding\":2}," DENSE_FC "]",
         "layer p (MaxPool): its padding 2 is more than half of its 3×3 window over its input of 6×12×12 (the sample): "
         "make it smaller"},
        {"[{\"name\":\"p\",\"type\":\"MaxPool\",\"kernel\":3,\"stride\":2,\"padding\":1},"
         "{\"name\":\"q\",\"type\":\"AvgPool\",\"kernel\":2,\"stride\":1,\"padding\":1},"
         "{\"name\":\"a\",\"type\":\"Add\",\"inputs\":[\"p\",\"q\"]}," DENSE_FC "]",
         "layer a (Add): its inputs differ in shape: 6×6×6 from layer p and 6×7×7 from layer q"},
        {"[{\"name\":\"c\",\"type\":\"Conv2D\",\"filters\":6,\"kernel\":3},"
         "{\"name\":\"a\",\"type\":\"Add\",\"inputs\":[\"c\",\"input\"]}," DENSE_FC "]",
         "layer a (Add): its inputs differ in shape: 6×10×10 from layer c and 6×12×12 (the sample)"},
        {"[{\"name\":\"c\",\"type\":\"Conv2D\",\"filters\":6,\"kernel\":3},"
         "{\"name\":\"a\",\"type\":\"Concat\",\"inputs\":[\"c\",\"input\"]}," DENSE_FC "]",
         "layer a (Concat): its inputs differ in height or width: 6×10×10 from layer c and 6×12×12 (the sample)"},
        {"[{\"name\":\"flat\",\"type\":\"Flatten\"},{\"name\":\"fc\",\"type\":\"Dense\",\"units\":12}]",
         "layer fc (Dense): is the last layer, but its output of 12×1×1 is not the 10×1×1 that loss "
         "SoftmaxCrossEntropy takes: leave units out"},
        {"[{\"name\":\"r\",\"type\":\"ReLU\"}]",
         "layer r (ReLU): is the last layer, but its output of 6×12×12 is not the 10×1×1 that loss "
         "SoftmaxCrossEntropy takes"},
        {"[{\"name\":\"p\",\"type\":\"GlobalAvgPool\"},{\"name\":\"s\",\"type\":\"Sum\",\"units\":4}]",
         "layer s (Sum): its output of 4×1×1 does not divide its input of 6×1×1 from layer p"},
        {"[{\"name\":\"p\",\"type\":\"GlobalAvgPool\"},{\"name\":\"s\",\"type\":\"Columns\",\"from\":3,\"to\":7}]",
         "layer s (Columns): there are no columns from 3 to 7 in its input of 6×1×1 from layer p"},
        {"[{\"name\":\"s\",\"type\":\"Columns\",\"to\":7}]",
         "layer s (Columns): takes a vector, but its input is 6×12×12 (the sample): put a Flatten before it"},
        {"[{\"name\":\"e\",\"type\":\"Embedding\",\"dim\":4}," DENSE_FC "]",
         "layer e (Embedding): takes ids of categories, but its input of 6×12×12 (the sample) holds none: name "
         "categorical columns in spec.csv.categorical of the Dataset"},
        {"[{\"name\":\"c\",\"type\":\"Conv2D\",\"filters\":65536,\"kernel\":1,\"padding\":4}," DENSE_FC "]",
         "layer c (Conv2D): an output of 65536×20×20 from its input of 6×12×12 (the sample) has more than 16777216 "
         "elements"},
        {"[{\"name\":\"flat\",\"type\":\"Flatten\"},{\"name\":\"big\",\"type\":\"Dense\",\"units\":16777216}," DENSE_FC
         "]",
         "layer big (Dense): its weight for an input of 864×1×1 from layer flat brings the model above 1073741824 "
         "parameters"},
    };
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++)
        check_list(images[i].layers, image(6, 12, 12, 10), images[i].sentence);
}

static void ids_are_looked_up_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *layers, *sentence;
    } tables[] = {
        {"[{\"name\":\"ids\",\"type\":\"Columns\",\"from\":3},{\"name\":\"e\",\"type\":\"Embedding\",\"dim\":4},"
         "{\"name\":\"n\",\"type\":\"Columns\",\"to\":3,\"inputs\":[\"input\"]},"
         "{\"name\":\"all\",\"type\":\"Concat\",\"inputs\":[\"n\",\"e\"]}," DENSE_FC "]",
         "ok"},
        {"[{\"name\":\"late\",\"type\":\"Columns\",\"from\":2},{\"name\":\"one\",\"type\":\"Columns\",\"from\":2},"
         "{\"name\":\"e\",\"type\":\"Embedding\",\"dim\":4}," DENSE_FC "]",
         "ok"},
        {"[{\"name\":\"flat\",\"type\":\"Flatten\"}," DENSE_FC "]",
         "layer fc (Dense): columns 3 to 4 of its input of 5×1×1 from layer flat are ids of categories: take them out "
         "with Columns and look them up with Embedding"},
        {"[{\"name\":\"late\",\"type\":\"Columns\",\"from\":2},{\"name\":\"r\",\"type\":\"ReLU\"}," DENSE_FC "]",
         "layer r (ReLU): columns 1 to 2 of its input of 3×1×1 from layer late are ids of categories: take them out "
         "with Columns and look them up with Embedding"},
        {"[{\"name\":\"e\",\"type\":\"Embedding\",\"dim\":4}," DENSE_FC "]",
         "layer e (Embedding): takes ids of categories, but its input of 5×1×1 (the sample) holds other numbers too: "
         "take the last 2 columns of the sample with Columns"},
        {"[{\"name\":\"ids\",\"type\":\"Columns\",\"from\":3},"
         "{\"name\":\"e\",\"type\":\"Embedding\",\"dim\":4,\"rows\":99}," DENSE_FC "]",
         "layer e (Embedding): its 99 rows are too few for the samples' ids, which go up to 99: leave rows out, or "
         "raise it"},
        {"[{\"name\":\"ids\",\"type\":\"Columns\",\"from\":3},{\"name\":\"e\",\"type\":\"Embedding\",\"dim\":4},"
         "{\"name\":\"s\",\"type\":\"Sum\",\"units\":2}]",
         "the model has no parameters to train: give it a layer such as Dense"},
    };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        check_list(tables[i].layers, table(3, 2, 100, 2), tables[i].sentence);
}

#define RELU(name) "{\"name\":\"" name "\",\"type\":\"ReLU\"}"

static void lists_are_checked_without_samples(void **state)
{
    (void)state;
    static const struct {
        const char *layers, *sentence;
    } cases[] = {
        {"[" DENSE_FC "]", ""},
        {"[]", "spec.model.layers: must be a list of layers"},
        {"{}", "spec.model.layers: must be a list of layers"},
        {"[{}]", "layer 1 of the list: name: must begin with a letter and have at most 31 letters, digits, '_', '-' "
                 "and '.'"},
        {"[3]", "layer 1 of the list: name: must begin with a letter and have at most 31 letters, digits, '_', '-' "
                "and '.'"},
        {"[" RELU("a/b") "]", "layer 1 of the list: name: must begin with a letter and have at most 31 letters, "
                              "digits, '_', '-' and '.'"},
        {"[" RELU("abcdefghijklmnopqrstuvwxyz012345") "]",
         "layer 1 of the list: name: must begin with a letter and have at most 31 letters, digits, '_', '-' and '.'"},
        {"[" RELU("a") "," RELU("a") "]", "layer 2 of the list: name: 'a' is taken by an earlier layer"},
        {"[" RELU("input") "]", "layer 1 of the list: name: 'input' is taken: it means the sample"},
        {"[{\"name\":\"a\",\"type\":\"Relu\"}]", "layer a: type: there is no 'Relu'"},
        {"[{\"name\":\"a\",\"type\":\"ReLU\",\"units\":3}]", "layer a (ReLU): this type of layer takes no member "
                                                             "'units'"},
        {"[{\"name\":\"a\",\"type\":\"ReLU\",\"colour\":3}]", "layer a (ReLU): this type of layer takes no member "
                                                              "'colour'"},
        {"[{\"name\":\"a\",\"type\":\"Conv2D\",\"kernel\":3}]", "layer a (Conv2D): filters: is missing"},
        {"[{\"name\":\"a\",\"type\":\"Dropout\"}]", "layer a (Dropout): rate: is missing"},
        {"[{\"name\":\"a\",\"type\":\"Dropout\",\"rate\":1}]",
         "layer a (Dropout): rate: must be a number at least 0 and below 1"},
        {"[{\"name\":\"a\",\"type\":\"Dense\",\"units\":1.5}]",
         "layer a (Dense): units: must be a whole number at least 1 and at most 16777216"},
        {"[{\"name\":\"a\",\"type\":\"Dense\",\"units\":\"3\"}]",
         "layer a (Dense): units: must be a whole number at least 1 and at most 16777216"},
        {"[{\"name\":\"a\",\"type\":\"Dense\",\"bias\":1}]", "layer a (Dense): bias: must be true or false"},
        {"[{\"name\":\"a\",\"type\":\"BatchNorm\",\"momentum\":0}]",
         "layer a (BatchNorm): momentum: must be a number above 0 and at most 1"},
        {"[" RELU("a") ",{\"name\":\"b\",\"type\":\"Add\",\"inputs\":[\"a\",\"c\"]}," RELU("c") "]",
         "layer b (Add): inputs: there is no layer 'c' before it; name earlier layers, or \"input\" for the sample"},
        {"[" RELU("a") ",{\"name\":\"b\",\"type\":\"ReLU\",\"inputs\":[\"b\"]}]",
         "layer b (ReLU): inputs: there is no layer 'b' before it; name earlier layers, or \"input\" for the sample"},
        {"[" RELU("a") ",{\"name\":\"b\",\"type\":\"Add\"}]", "layer b (Add): inputs: name at least two layers"},
        {"[" RELU("a") ",{\"name\":\"b\",\"type\":\"ReLU\",\"inputs\":[\"a\",\"input\"]}]",
         "layer b (ReLU): inputs: this type of layer takes one; join several with Add or Concat"},
        {"[" RELU("a") ",{\"name\":\"b\",\"type\":\"ReLU\",\"inputs\":[]}]",
         "layer b (ReLU): inputs: must be a list of names of earlier layers, or \"input\""},
        {"[" RELU("a") ",{\"name\":\"b\",\"type\":\"Add\",\"inputs\":[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\","
                       "\"a\"]}]",
         "layer b (Add): inputs: there are more than 8"},
        {"[" RELU("a") ",{\"name\":\"b\",\"type\":\"ReLU\",\"inputs\":[\"input\"]}]",
         "layer a (ReLU): no layer reads its output; name it in a later layer's inputs, or take it out"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cleanup_json cJSON *json = cJSON_Parse(cases[i].layers);
        assert_non_null(json);
        struct error err = {0};
        int result = network_check_layers(json, &err);
        assert_string_equal(error_message(&err), cases[i].sentence);
        assert_int_equal(result, cases[i].sentence[0] == '\0' ? 0 : -1);
    }
}

static void too_many_layers_are_refused(void **state)
{
    (void)state;
    cleanup_json cJSON *json = cJSON_CreateArray();
    for (int i = 0; i < NETWORK_LAYERS_MOST + 1; i++) {
        char layer[64];
        snprintf(layer, sizeof layer, "{\"name\":\"r%d\",\"type\":\"ReLU\"}", i);
        cJSON_AddItemToArray(json, cJSON_Parse(layer));
        struct error err = {0};
        assert_int_equal(network_check_layers(json, &err), i < NETWORK_LAYERS_MOST ? 0 : -1);
    }
}

static void lists_that_mean_the_same_are_the_same_text(void **state)
{
    (void)state;
    static const char *const lists[] = {
        "[{\"name\":\"c\",\"type\":\"Conv2D\",\"filters\":4,\"kernel\":3,\"bias\":false},"
        "{\"name\":\"n\",\"type\":\"BatchNorm\",\"epsilon\":0.001},{\"name\":\"p\",\"type\":\"MaxPool\",\"kernel\":2},"
        "{\"name\":\"a\",\"type\":\"Add\",\"inputs\":[\"p\",\"p\"]},"
        "{\"name\":\"s\",\"type\":\"ReLU\",\"inputs\":[\"input\"]}]",
        "[{\"bias\":false,\"kernel\":3,\"filters\":4.0,\"type\":\"Conv2D\",\"name\":\"c\",\"stride\":1,\"padding\":0,"
        "\"groups\":1,\"inputs\":[\"input\"]},{\"name\":\"n\",\"type\":\"BatchNorm\",\"epsilon\":1e-3,"
        "\"momentum\":0.1},{\"name\":\"p\",\"type\":\"MaxPool\",\"kernel\":2,\"stride\":2,\"inputs\":[\"n\"]},"
        "{\"name\":\"a\",\"type\":\"Add\",\"inputs\":[\"p\",\"p\"]},"
        "{\"name\":\"s\",\"type\":\"ReLU\",\"inputs\":[\"input\"]}]",
    };
    for (size_t i = 0; i < 2; i++) {
        struct error err = {0};
        cleanup_json cJSON *json = cJSON_Parse(lists[i]);
        cJSON_DeleteItemFromArray(json, 4);
        cleanup_free char *text = network_layers_text(json, &err);
        assert_string_equal(error_message(&err), "");
        assert_string_equal(text, "[{\"name\":\"c\",\"type\":\"Conv2D\",\"filters\":4,\"kernel\":3,\"bias\":false},"
                                  "{\"name\":\"n\",\"type\":\"BatchNorm\",\"epsilon\":0.001},"
                                  "{\"name\":\"p\",\"type\":\"MaxPool\",\"kernel\":2},"
                                  "{\"name\":\"a\",\"type\":\"Add\",\"inputs\":[\"p\",\"p\"]}]");
        cleanup_json cJSON *again = cJSON_Parse(text);
        cleanup_free char *twice = network_layers_text(again, &err);
        assert_string_equal(twice, text);
    }
}

/* ---- samples and losses ---- */

static void samples_and_losses_must_suit(void **state)
{
    (void)state;
    static const struct {
        const char *zoo;
        bool has_loss;
        enum loss_type loss;
        struct network_sample sample;
        const char *sentence; /* or the loss's name */
    } cases[] = {
        {"mlp", false, 0, {.shape = {4, 1, 1}, .classes = 3}, "SoftmaxCrossEntropy"},
        {"mlp", false, 0, {.shape = {4, 1, 1}, .classes = 2}, "SoftmaxCrossEntropy"},
        {"mlp", false, 0, {.shape = {4, 1, 1}}, "MSE"},
        {"logistic", false, 0, {.shape = {4, 1, 1}, .classes = 2}, "BinaryCrossEntropy"},
        {"logistic", false, 0, {.shape = {4, 1, 1}, .classes = 3}, "SoftmaxCrossEntropy"},
        {"mlp", true, LOSS_BINARY_CROSS_ENTROPY, {.shape = {4, 1, 1}, .classes = 2}, "BinaryCrossEntropy"},
        {"linear", true, LOSS_HUBER, {.shape = {4, 1, 1}}, "Huber"},
        {"linear",
         true,
         LOSS_HUBER,
         {.shape = {4, 1, 1}, .classes = 2},
         "loss Huber is of values, but the samples have 2 classes: take SoftmaxCrossEntropy"},
        {"linear",
         true,
         LOSS_SOFTMAX_CROSS_ENTROPY,
         {.shape = {4, 1, 1}},
         "loss SoftmaxCrossEntropy is of classes, but the Dataset names none: set its spec.classes, or take MSE"},
        {"mlp",
         true,
         LOSS_BINARY_CROSS_ENTROPY,
         {.shape = {4, 1, 1}, .classes = 3},
         "loss BinaryCrossEntropy is of two classes, but the samples have 3: take SoftmaxCrossEntropy"},
        {"logistic",
         true,
         LOSS_MSE,
         {.shape = {4, 1, 1}},
         "model logistic: tells classes apart, but the Dataset has values to predict: set spec.classes in the "
         "Dataset, or take model linear"},
        {"widedeep",
         false,
         0,
         {.shape = {4, 1, 1}, .classes = 2},
         "model widedeep: the samples have no categories: name them in spec.csv.categorical of the Dataset, or take "
         "model mlp"},
        {"widedeep",
         false,
         0,
         {.shape = {4, 1, 1}, .categories = 2, .rows = 9, .classes = 1025},
         "model widedeep: takes at most 1024 classes with categories, not 1025"},
        {"mlp",
         false,
         0,
         {.shape = {4, 1, 1}, .categories = 2, .rows = 9, .classes = 2},
         "layer fc1 (Dense): columns 2 to 3 of its input of 4×1×1 from layer flatten are ids of categories: take them "
         "out with Columns and look them up with Embedding"},
        {"linear",
         false,
         0,
         {.shape = {2, 1, 1}, .categories = 2, .rows = 9},
         "model linear: all columns of the samples are categories; it needs one of numbers, too"},
        {"resnet8",
         false,
         0,
         {.shape = {3, 7, 9}, .classes = 2},
         "model resnet8: needs images of at least 8×8, but a sample is 3×7×9"},
        {"resnet",
         false,
         0,
         {.shape = {3, 7, 9}, .classes = 2},
         "spec.model.zoo: there is no model 'resnet'; there are linear, logistic, mlp, lenet, resnet8, resnet20, "
         "widedeep"},
        {"lenet",
         false,
         0,
         {.shape = {1, 8, 8}, .classes = 10},
         "layer conv2 (Conv2D): its 5×5 kernel does not fit its input of 6×4×4 from layer relu1"},
        {"lenet",
         false,
         0,
         {.shape = {1, 1, 28}, .classes = 10},
         "layer pool1 (MaxPool): its 2×2 window does not fit its input of 6×1×28 from layer conv1"},
        {"mlp",
         false,
         0,
         {.shape = {1, 0, 28}, .classes = 10},
         "samples of shape 1×0×28 cannot be: each of channels, height and width must be from 1 to 16777216"},
        {"mlp",
         false,
         0,
         {.shape = {UINT32_MAX, UINT32_MAX, UINT32_MAX}, .classes = 10},
         "samples of shape 4294967295×4294967295×4294967295 cannot be: each of channels, height and width must be "
         "from 1 to 16777216"},
        {"mlp",
         false,
         0,
         {.shape = {3, 5000, 5000}, .classes = 10},
         "a sample of shape 3×5000×5000 has more than 16777216 elements"},
        {"mlp",
         false,
         0,
         {.shape = {1, 4096, 4096}, .classes = 10},
         "layer fc1 (Dense): its weight for an input of 16777216×1×1 from layer flatten brings the model above "
         "1073741824 parameters"},
        {"mlp", false, 0, {.shape = {4, 1, 1}, .classes = 1}, "the number of classes must be from 2 to 65536, not 1"},
        {"mlp",
         false,
         0,
         {.shape = {4, 1, 1}, .categories = 5, .rows = 5, .classes = 2},
         "a sample of shape 4×1×1 cannot have 5 categories with 5 ids"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct network_spec spec = {.zoo = cases[i].zoo, .has_loss = cases[i].has_loss, .loss = cases[i].loss};
        struct error err = {0};
        cleanup_network struct network *network = NULL;
        int result = network_build(&network, &spec, &cases[i].sample, &err);
        assert_string_equal(result == 0 ? loss_type_name(network->loss) : error_message(&err), cases[i].sentence);
        if (network != NULL) {
            assert_true(network->huber_delta == (network->loss == LOSS_HUBER ? 1 : 0));
            bool softmax = network->loss == LOSS_SOFTMAX_CROSS_ENTROPY;
            assert_int_equal(network->outputs, softmax ? cases[i].sample.classes : 1);
        }
    }
    struct error err = {0};
    struct network *network = NULL;
    struct network_sample sample = image(1, 1, 1, 2);
    assert_int_equal(network_build(&network, &(struct network_spec){0}, &sample, &err), -1);
    assert_string_equal(error_message(&err), "spec.model: set exactly one of zoo and layers");
}

/* ---- shards ---- */

static bool begins_chunk(const struct network *network, uint64_t at)
{
    for (uint32_t i = 0; i < network->tensor_count; i++) {
        const struct network_tensor *tensor = &network->tensors[i];
        if (at >= tensor->offset && at < tensor->offset + tensor->count)
            return (at - tensor->offset) % network_chunk(network) == 0;
    }
    return at == network->parameters;
}

static void shards_begin_at_chunks(void **state)
{
    (void)state;
    static const struct {
        const char *zoo;
        uint32_t shape[3];
        uint32_t classes, chunk, shards;
    } cases[] = {
        {"mlp", {1, 28, 28}, 10, 256, 16},    {"resnet20", {3, 32, 32}, 10, 4096, 16},
        {"linear", {4095, 1, 1}, 0, 256, 16}, {"linear", {4094, 1, 1}, 0, 16, 16},
        {"linear", {255, 1, 1}, 0, 16, 16},   {"logistic", {13, 1, 1}, 17, 1, 16},
        {"logistic", {3, 1, 1}, 4, 1, 16},    {"linear", {3, 1, 1}, 0, 1, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cleanup_network struct network *network =
            build_zoo(cases[i].zoo, image(cases[i].shape[0], cases[i].shape[1], cases[i].shape[2], cases[i].classes));
        assert_int_equal(network_chunk(network), cases[i].chunk);
        for (uint32_t shards = 1; shards <= cases[i].shards; shards++) {
            uint64_t at = 0;
            for (uint32_t shard = 0; shard < shards; shard++) {
                uint64_t begin;
                uint64_t end;
                network_shard_range(network, shards, shard, &begin, &end);
                assert_int_equal(begin, at);
                assert_true(end > begin && begins_chunk(network, begin));
                uint64_t even = network->parameters / shards;
                assert_true(end - begin <= even + cases[i].chunk && end - begin + cases[i].chunk >= even);
                at = end;
            }
            assert_int_equal(at, network->parameters);
        }
        uint64_t at = 0;
        while (at < network->parameters) {
            uint64_t end = network_chunk_end(network, at);
            assert_true(end > at && end - at <= cases[i].chunk && begins_chunk(network, end));
            assert_int_equal(network_chunk_end(network, end - 1), end);
            at = end;
        }
        assert_int_equal(at, network->parameters);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_that_do_not_fit_are_named_with_both_shapes),
        cmocka_unit_test(ids_are_looked_up_and_nothing_else),
        cmocka_unit_test(lists_are_checked_without_samples),
        cmocka_unit_test(too_many_layers_are_refused),
        cmocka_unit_test(lists_that_mean_the_same_are_the_same_text),
        cmocka_unit_test(samples_and_losses_must_suit),
        cmocka_unit_test(shards_begin_at_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
