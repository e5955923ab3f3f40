#include "model/model.h"

#include "model/network.h"
#include "numerics/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct model *build(enum plan_model zoo, uint32_t c, uint32_t h, uint32_t w, uint32_t classes)
{
    struct error err = {0};
    struct model *model = NULL;
    if (model_build(&model, zoo, (const uint32_t[]){c, h, w}, classes, &err) < 0)
        fail_msg("%s", error_message(&err));
    return model;
}

static struct workspace *workspace_for(const struct model *model, uint32_t samples)
{
    struct error err = {0};
    struct workspace *workspace = NULL;
    assert_int_equal(workspace_new(&workspace, model, samples, &err), 0);
    return workspace;
}

/* ---- Shapes ---- */

struct expected_tensor {
    const char *name;
    uint32_t rank, dims[4];
};

static void check_tensors(const struct model *model, const struct expected_tensor *expected, uint32_t count)
{
    uint32_t found;
    const struct model_tensor *tensors = model_tensors(model, &found);
    assert_int_equal(found, count);
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        assert_string_equal(tensors[i].name, expected[i].name);
        assert_int_equal(tensors[i].rank, expected[i].rank);
        assert_int_equal(tensors[i].offset, at);
        uint64_t size = 1;
        for (uint32_t j = 0; j < expected[i].rank; j++) {
            assert_int_equal(tensors[i].dims[j], expected[i].dims[j]);
            size *= expected[i].dims[j];
        }
        assert_int_equal(tensors[i].count, size);
        at += size;
    }
    assert_int_equal(model_parameters(model), at);
}

static void the_zoo_has_its_shapes(void **state)
{
    (void)state;
    static const struct expected_tensor mlp[] = {
        {"fc1.weight", 2, {256, 784}}, {"fc1.bias", 1, {256}},       {"fc2.weight", 2, {128, 256}},
        {"fc2.bias", 1, {128}},        {"fc3.weight", 2, {10, 128}}, {"fc3.bias", 1, {10}},
    };
    static const struct expected_tensor lenet[] = {
        {"conv1.weight", 4, {6, 1, 5, 5}},  {"conv1.bias", 1, {6}},
        {"conv2.weight", 4, {16, 6, 5, 5}}, {"conv2.bias", 1, {16}},
        {"fc1.weight", 2, {120, 400}},      {"fc1.bias", 1, {120}},
        {"fc2.weight", 2, {84, 120}},       {"fc2.bias", 1, {84}},
        {"fc3.weight", 2, {10, 84}},        {"fc3.bias", 1, {10}},
    };
    cleanup_model struct model *model = build(PLAN_MODEL_MLP, 1, 28, 28, 10);
    check_tensors(model, mlp, 6);
    assert_int_equal(model_parameters(model), 235146);
    assert_int_equal(model_sample_size(model), 784);
    assert_string_equal(model_name(model), "mlp");
    cleanup_model struct model *other = build(PLAN_MODEL_LENET, 1, 28, 28, 10);
    check_tensors(other, lenet, 10);
    assert_int_equal(model_parameters(other), 61706);
    cleanup_model struct model *colour = build(PLAN_MODEL_LENET, 3, 32, 32, 100);
    assert_int_equal(model_parameters(colour),
                     (6 * 75 + 6) + (16 * 150 + 16) + (120 * 576 + 120) + (84 * 120 + 84) + 8500);
}

static void what_does_not_fit_is_said(void **state)
{
    (void)state;
    static const struct {
        enum plan_model zoo;
        uint32_t shape[3], classes;
        const char *message;
    } cases[] = {
        {PLAN_MODEL_LENET,
         {1, 8, 8},
         10,
         "layer conv2 of model lenet: its 5×5 kernel with padding 0 does not fit its input of 6×4×4"},
        {PLAN_MODEL_LENET,
         {1, 10, 10},
         10,
         "layer pool2 of model lenet: its 2×2 windows do not fit its input of 16×1×1"},
        {PLAN_MODEL_LENET,
         {1, 1, 28},
         10,
         "layer pool1 of model lenet: its 2×2 windows do not fit its input of 6×1×28"},
        {PLAN_MODEL_MLP,
         {1, 0, 28},
         10,
         "model mlp: samples of shape 1×0×28 cannot be: each of channels, height and width must be from 1 to 16777216"},
        {PLAN_MODEL_MLP,
         {3, 5000, 5000},
         10,
         "model mlp: a sample of shape 3×5000×5000 has more than 16777216 elements"},
        {PLAN_MODEL_MLP,
         {4294967295, 4294967295, 4294967295},
         10,
         "model mlp: samples of shape 4294967295×4294967295×4294967295 cannot be: each of channels, height and width "
         "must be from 1 to 16777216"},
        {PLAN_MODEL_MLP,
         {1, 4096, 4096},
         10,
         "layer fc1 of model mlp: its weight brings the model above 1073741824 parameters"},
        {PLAN_MODEL_LENET,
         {1, 4096, 4096},
         10,
         "layer conv1 of model lenet: an output of 6×4096×4096 from an input of 1×4096×4096 has more than 16777216 "
         "elements"},
        {PLAN_MODEL_MLP, {1, 28, 28}, 1, "model mlp: the number of classes must be from 2 to 65536, not 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        struct model *model = NULL;
        assert_int_equal(model_build(&model, cases[i].zoo, cases[i].shape, cases[i].classes, &err), -1);
        assert_string_equal(error_message(&err), cases[i].message);
        assert_null(model);
    }
}

static void dense_needs_a_vector(void **state)
{
    (void)state;
    struct error err = {0};
    struct model model;
    assert_int_equal(network_begin(&model, PLAN_MODEL_MLP, (const uint32_t[]){1, 28, 28}, 10, &err), 0);
    assert_int_equal(network_dense(&model, "fc1", 7, &err), -1);
    assert_string_equal(error_message(&err), "layer fc1 of model mlp takes a vector and gives 7×1×1, but its input is "
                                             "1×28×28: flatten it first");
}

/* ---- Initial values ---- */

static void initial_values_are_made_anywhere(void **state)
{
    (void)state;
    cleanup_model struct model *model = build(PLAN_MODEL_LENET, 1, 28, 28, 10);
    const uint64_t n = model_parameters(model);
    cleanup_free float *whole = calloc(n, sizeof *whole);
    cleanup_free float *pieces = calloc(n, sizeof *pieces);
    model_init_range(model, 1, 0, n, whole);
    for (uint64_t at = 0; at < n; at += 997)
        model_init_range(model, 1, at, at + 997 < n ? at + 997 : n, pieces + at);
    assert_memory_equal(whole, pieces, n * sizeof *whole);

    uint32_t count;
    const struct model_tensor *tensors = model_tensors(model, &count);
    const double fan_in[] = {25, 25, 150, 150, 400, 400, 120, 120, 84, 84};
    for (uint32_t i = 0; i < count; i++) {
        double bound = 1 / sqrt(fan_in[i]);
        double sum = 0;
        double most = 0;
        for (uint64_t j = 0; j < tensors[i].count; j++) {
            double value = (double)whole[tensors[i].offset + j];
            sum += value;
            most = fmax(most, fabs(value));
        }
        assert_true(most <= bound * 1.0000001 && most > 0.5 * bound);
        /* the mean of k uniform values has deviation bound/√(3k) */
        assert_true(fabs(sum) / (double)tensors[i].count < 5 * bound / sqrt(3 * (double)tensors[i].count));
    }
    model_init_range(model, 2, 0, n, pieces);
    assert_memory_not_equal(whole, pieces, n * sizeof *whole);
}

/* ---- The same network in double, as its definition: values of all layers, one sample at a time ---- */

static void layer_in_double(const struct layer *layer, const double *params, const double *x, double *y)
{
    const struct shape in = layer->in;
    const struct shape out = layer->out;
    size_t o = 0;
    for (size_t c = 0; c < out.c; c++)
        for (size_t i = 0; i < out.h; i++)
            for (size_t j = 0; j < out.w; j++, o++) {
                double value = 0;
                if (layer->type == LAYER_DENSE) {
                    value = params[layer->bias + c];
                    for (size_t k = 0; k < in.c; k++)
                        value += x[k] * params[layer->weight + c * in.c + k];
                } else if (layer->type == LAYER_CONV2D) {
                    const size_t k = layer->kernel;
                    value = params[layer->bias + c];
                    for (size_t p = 0; p < in.c; p++)
                        for (size_t u = 0; u < k; u++)
                            for (size_t v = 0; v < k; v++) {
                                size_t row = i + u - layer->padding;
                                size_t column = j + v - layer->padding;
                                if (row < in.h && column < in.w)
                                    value += x[(p * in.h + row) * in.w + column] *
                                             params[layer->weight + ((c * in.c + p) * k + u) * k + v];
                            }
                } else if (layer->type == LAYER_MAXPOOL) {
                    const double *at = x + (c * in.h + 2 * i) * in.w + 2 * j;
                    value = fmax(fmax(at[0], at[1]), fmax(at[in.w], at[in.w + 1]));
                } else {
                    value = layer->type == LAYER_RELU ? fmax(x[o], 0) : x[o];
                }
                y[o] = value;
            }
}

static double loss_in_double(const struct model *model, const double *params, const float *x, const float *targets,
                             uint32_t n)
{
    enum { MOST = 6 * 28 * 28 };
    static double buffers[2][MOST];
    double loss = 0;
    for (uint32_t s = 0; s < n; s++) {
        const size_t size = model_sample_size(model);
        for (size_t i = 0; i < size; i++)
            buffers[0][i] = (double)x[s * size + i];
        for (uint32_t i = 0; i < model->layer_count; i++)
            layer_in_double(&model->layers[i], params, buffers[i % 2], buffers[(i + 1) % 2]);
        const double *logits = buffers[model->layer_count % 2];
        double sum = 0;
        for (uint32_t c = 0; c < model->classes; c++)
            sum += exp(logits[c]);
        loss += log(sum) - logits[(size_t)targets[s]];
    }
    return loss;
}

/* Gradients of `checked` parameters (all when 0) against central differences of the network in double. */
static void check_model_gradients(enum plan_model zoo, uint32_t side, uint32_t n, uint64_t checked)
{
    cleanup_model struct model *model = build(zoo, 1, side, side, 10);
    cleanup_workspace struct workspace *workspace = workspace_for(model, n);
    const uint64_t parameters = model_parameters(model);
    const size_t size = model_sample_size(model);
    cleanup_free float *params = calloc(parameters, sizeof *params);
    cleanup_free float *grad = calloc(parameters, sizeof *grad);
    cleanup_free double *exact = calloc(parameters, sizeof *exact);
    cleanup_free float *x = calloc(n * size, sizeof *x);
    float targets[64];
    model_init_range(model, 3, 0, parameters, params);
    random_uniform_range(random_stream(3, RANDOM_CANARY, 0, 0, 0), 0, n * size, -1, 2, x);
    for (uint32_t i = 0; i < n; i++)
        targets[i] = (float)(i * 3 % 10);
    for (uint64_t i = 0; i < parameters; i++)
        exact[i] = (double)params[i];

    double loss =
        model_gradient(model, params, &(struct model_batch){.n = n, .x = x, .targets = targets}, grad, workspace);
    assert_true(fabs(loss - loss_in_double(model, exact, x, targets, n)) < 1e-5 * n);

    struct permutation order = permutation_of_epoch(parameters, 4, 0);
    const double h = 1e-6;
    for (uint64_t i = 0; i < (checked == 0 ? parameters : checked); i++) {
        uint64_t at = permutation_at(&order, i);
        const double kept = exact[at];
        exact[at] = kept + h;
        double above = loss_in_double(model, exact, x, targets, n);
        exact[at] = kept - h;
        double below = loss_in_double(model, exact, x, targets, n);
        exact[at] = kept;
        double numerical = (above - below) / (2 * h);
        if (fabs(numerical - (double)grad[at]) > 1e-5 * n + 1e-4 * fabs(numerical))
            fail_msg("parameter %llu of %s: gradient %.9g, numerically %.9g", (unsigned long long)at, model_name(model),
                     (double)grad[at], numerical);
    }
}

static void mlp_gradients_are_numerical_ones(void **state)
{
    (void)state;
    check_model_gradients(PLAN_MODEL_MLP, 3, 2, 1000);
    check_model_gradients(PLAN_MODEL_MLP, 28, 3, 30);
}

static void lenet_gradients_are_numerical_ones(void **state)
{
    (void)state;
    check_model_gradients(PLAN_MODEL_LENET, 12, 2, 500);
    check_model_gradients(PLAN_MODEL_LENET, 28, 3, 30);
}

/* ---- What results may not depend on ---- */

struct block {
    struct model *model;
    uint32_t n;
    float *params, *x, *grad;
    float targets[64];
};

static struct block block_of(enum plan_model zoo, uint32_t n)
{
    struct block block = {.model = build(zoo, 1, 28, 28, 10), .n = n};
    const uint64_t parameters = model_parameters(block.model);
    block.params = calloc(parameters, sizeof(float));
    block.grad = calloc(parameters, sizeof(float));
    block.x = calloc(n * model_sample_size(block.model), sizeof(float));
    assert_true(block.params != NULL && block.grad != NULL && block.x != NULL);
    model_init_range(block.model, 1, 0, parameters, block.params);
    random_uniform_range(random_stream(1, RANDOM_CANARY, 1, 0, 0), 0, n * model_sample_size(block.model), -1, 2,
                         block.x);
    for (uint32_t i = 0; i < n; i++)
        block.targets[i] = (float)(random_u32_at(random_stream(1, RANDOM_CANARY, 2, 0, 0), i) % 10);
    return block;
}

static void block_free(struct block *block)
{
    model_free(block->model);
    free(block->params);
    free(block->x);
    free(block->grad);
}

static void gradients_depend_on_their_arguments_alone(void **state)
{
    (void)state;
    for (enum plan_model zoo = PLAN_MODEL_MLP; zoo <= PLAN_MODEL_LENET; zoo++)
        for (uint32_t n = 1; n <= 17; n += 4) {
            struct block block = block_of(zoo, n);
            const uint64_t parameters = model_parameters(block.model);
            cleanup_workspace struct workspace *small = workspace_for(block.model, n);
            cleanup_workspace struct workspace *large = workspace_for(block.model, 64);
            cleanup_free float *grad = calloc(parameters + 16, sizeof *grad);
            cleanup_free float *params = calloc(parameters + 16, sizeof *params);
            double loss = model_gradient(block.model, block.params,
                                         &(struct model_batch){.n = n, .x = block.x, .targets = block.targets},
                                         block.grad, small);
            for (size_t shift = 1; shift < 16; shift += 5) {
                /* another place, another workspace, and one that holds other numbers */
                memcpy(params + shift, block.params, parameters * sizeof *params);
                (void)model_gradient(block.model, block.params,
                                     &(struct model_batch){.n = 1, .x = block.x, .targets = block.targets}, grad,
                                     large);
                (void)model_evaluate(block.model, block.params, block.x, block.targets, n, large);
                double again = model_gradient(block.model, params + shift,
                                              &(struct model_batch){.n = n, .x = block.x, .targets = block.targets},
                                              grad + shift, large);
                assert_true(loss == again);
                assert_memory_equal(grad + shift, block.grad, parameters * sizeof *grad);
            }
            block_free(&block);
        }
}

static void evaluation_agrees_with_training(void **state)
{
    (void)state;
    for (enum plan_model zoo = PLAN_MODEL_MLP; zoo <= PLAN_MODEL_LENET; zoo++) {
        struct block block = block_of(zoo, 50);
        cleanup_workspace struct workspace *workspace = workspace_for(block.model, 1);
        struct evaluation whole = model_evaluate(block.model, block.params, block.x, block.targets, 50, workspace);
        struct evaluation pieces = {0, 0};
        double loss = 0;
        for (uint32_t i = 0; i < 50; i += 5) {
            const float *x = block.x + i * model_sample_size(block.model);
            struct evaluation piece = model_evaluate(block.model, block.params, x, block.targets + i, 5, workspace);
            pieces.loss_sum += piece.loss_sum;
            pieces.correct += piece.correct;
            loss += model_gradient(block.model, block.params,
                                   &(struct model_batch){.n = 5, .x = x, .targets = block.targets + i}, block.grad,
                                   workspace);
        }
        assert_true(fabs(whole.loss_sum - pieces.loss_sum) < 1e-4);
        assert_true(loss == pieces.loss_sum);
        assert_int_equal(whole.correct, pieces.correct);
        block_free(&block);
    }
}

/* The whole of it learns: noise in which two bright rows tell the class. */
static void training_learns(void **state)
{
    (void)state;
    for (enum plan_model zoo = PLAN_MODEL_MLP; zoo <= PLAN_MODEL_LENET; zoo++) {
        struct block block = block_of(zoo, 48);
        for (size_t i = 0; i < 48; i++)
            for (size_t j = 0; j < (size_t)2 * 28; j++)
                block.x[i * 784 + (size_t)block.targets[i] * 56 + j] += 2;
        const uint64_t parameters = model_parameters(block.model);
        cleanup_workspace struct workspace *workspace = workspace_for(block.model, 48);
        cleanup_free float *velocity = calloc(parameters, sizeof *velocity);
        const struct sgd sgd = sgd_of(0.05, 0.9, 0, 48);
        double first = 0;
        double last = 0;
        for (int step = 0; step < 60; step++) {
            last = model_gradient(block.model, block.params,
                                  &(struct model_batch){.n = 48, .x = block.x, .targets = block.targets}, block.grad,
                                  workspace);
            first = step == 0 ? last : first;
            vector_sgd(&sgd, block.params, block.params, velocity, block.grad, parameters);
        }
        assert_true(last < 0.1 * first);
        block_free(&block);
    }
}

/* ---- The canary ---- */

static void canaries_tell_plans_apart(void **state)
{
    (void)state;
    static const struct {
        enum plan_model zoo;
        uint32_t batch, blocks;
        uint64_t samples;
    } cases[] = {
        {PLAN_MODEL_MLP, 32, 8, 640}, {PLAN_MODEL_LENET, 32, 8, 640}, {PLAN_MODEL_MLP, 32, 4, 640},
        {PLAN_MODEL_MLP, 33, 8, 660}, {PLAN_MODEL_MLP, 32, 8, 650},   {PLAN_MODEL_MLP, 3, 8, 2},
    };
    enum { CASES = sizeof cases / sizeof cases[0] };
    uint8_t digests[CASES][SHA256_SIZE];
    for (size_t i = 0; i < CASES; i++) {
        cleanup_model struct model *model = build(cases[i].zoo, 1, 12, 12, 10);
        struct error err = {0};
        uint8_t again[SHA256_SIZE];
        assert_int_equal(model_canary(model, cases[i].batch, cases[i].blocks, cases[i].samples, digests[i], &err), 0);
        assert_int_equal(model_canary(model, cases[i].batch, cases[i].blocks, cases[i].samples, again, &err), 0);
        assert_memory_equal(digests[i], again, sizeof again);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(digests[i], digests[j], sizeof digests[i]);
    }
}

static void too_large_a_block_is_said(void **state)
{
    (void)state;
    cleanup_model struct model *model = build(PLAN_MODEL_MLP, 1, 2, 2, 2);
    struct error err = {0};
    struct workspace *workspace = NULL;
    assert_int_equal(workspace_new(&workspace, model, MODEL_WORKSPACE_SAMPLES_MOST + 1, &err), -1);
    assert_string_equal(error_message(&err),
                        "a block of 1048577 samples is more than 1048576: raise blocks or lower batchSize");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_zoo_has_its_shapes),
        cmocka_unit_test(what_does_not_fit_is_said),
        cmocka_unit_test(dense_needs_a_vector),
        cmocka_unit_test(initial_values_are_made_anywhere),
        cmocka_unit_test(mlp_gradients_are_numerical_ones),
        cmocka_unit_test(lenet_gradients_are_numerical_ones),
        cmocka_unit_test(gradients_depend_on_their_arguments_alone),
        cmocka_unit_test(evaluation_agrees_with_training),
        cmocka_unit_test(training_learns),
        cmocka_unit_test(canaries_tell_plans_apart),
        cmocka_unit_test(too_large_a_block_is_said),
    };
    numerics_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
