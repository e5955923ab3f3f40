#include "model/model.h"

#include "model/naive.h"
#include "model/workspace.h"
#include "numerics/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- Models and blocks of random samples ---- */

static struct model *build(const struct network_spec *spec, const struct network_sample *sample)
{
    struct error err = {0};
    struct model *model = NULL;
    if (model_make(&model, spec, sample, &err) < 0)
        fail_msg("%s", error_message(&err));
    return model;
}

static struct model *zoo(const char *name, uint32_t side)
{
    return build(&(struct network_spec){.zoo = name},
                 &(struct network_sample){.shape = {1, side, side}, .classes = 10});
}

/* Of a list of layers (with apostrophes for quotes), for samples of 2×6×6 and 5 classes. */
static struct model *layers(const char *apostrophes)
{
    struct error err = {0};
    cleanup_free char *text = strdup(apostrophes);
    assert_non_null(text);
    for (char *at = text; *at != '\0'; at++)
        *at = *at == '\'' ? '"' : *at;
    cleanup_json cJSON *json = json_parse(text, strlen(text), "layers", &err);
    assert_non_null(json);
    return build(&(struct network_spec){.layers = json}, &(struct network_sample){.shape = {2, 6, 6}, .classes = 5});
}

static struct workspace *workspace_for(const struct model *model, uint32_t samples)
{
    struct error err = {0};
    struct workspace *workspace = NULL;
    assert_int_equal(workspace_new(&workspace, model, samples, &err), 0);
    return workspace;
}

enum { TABLE_ROWS = 12, SAMPLES_MOST = 64 };

/* A model, its parameters, and samples; the rows of its tables are 0 … TABLE_ROWS − 1. */
struct block {
    struct model *model;
    uint64_t parameters;
    float *params, *grad, *x;
    float targets[SAMPLES_MOST];
    uint32_t ids[TABLE_ROWS];
    float *row_values, *row_grads;
    size_t row_floats;
    struct model_rows rows[NETWORK_TABLES_MOST];
    struct model_batch batch;
};

static void make_rows(struct block *block)
{
    const struct network *network = model_network(block->model);
    for (uint32_t i = 0; i < network->table_count; i++)
        block->row_floats += (size_t)TABLE_ROWS * network->tables[i].dim;
    block->row_values = calloc(block->row_floats + 1, sizeof(float));
    block->row_grads = calloc(block->row_floats + 1, sizeof(float));
    assert_true(block->row_values != NULL && block->row_grads != NULL);
    random_uniform_range(random_stream(1, RANDOM_CANARY, 3, 0, 0), 0, block->row_floats, -1, 1, block->row_values);
    for (uint32_t i = 0; i < TABLE_ROWS; i++)
        block->ids[i] = i;
    size_t at = 0;
    for (uint32_t i = 0; i < network->table_count; i++) {
        block->rows[i] = (struct model_rows){TABLE_ROWS, block->ids, block->row_values + at, block->row_grads + at};
        at += (size_t)TABLE_ROWS * network->tables[i].dim;
    }
}

/* Takes the model over. */
static struct block *block_of(struct model *model, uint32_t n)
{
    struct block *block = calloc(1, sizeof *block);
    assert_non_null(block);
    const struct network_sample *sample = &model_network(model)->sample;
    const size_t size = model_sample_size(model);
    block->model = model;
    block->parameters = model_parameters(model);
    block->params = calloc(block->parameters + 1, sizeof(float));
    block->grad = calloc(block->parameters + 1, sizeof(float));
    block->x = calloc(n * size, sizeof(float));
    if (block->params == NULL || block->grad == NULL || block->x == NULL)
        abort();
    model_init_range(model, 3, 0, block->parameters, block->params);
    random_uniform_range(random_stream(1, RANDOM_CANARY, 1, 0, 0), 0, n * size, -1, 2, block->x);
    struct random_stream numbers = random_stream(1, RANDOM_CANARY, 2, 0, 0);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t number = random_u32_at(numbers, i);
        block->targets[i] = sample->classes > 0 ? (float)(number % sample->classes) : (float)number * 0x1p-31F;
        for (size_t j = size - sample->categories; j < size; j++)
            block->x[i * size + j] = (float)(random_u32_at(numbers, SAMPLES_MOST + i * size + j) % TABLE_ROWS);
    }
    make_rows(block);
    block->batch =
        (struct model_batch){.n = n, .x = block->x, .targets = block->targets, .place = {1, 0, 0}, .rows = block->rows};
    return block;
}

static void block_free(struct block *block)
{
    if (block == NULL)
        return;
    model_free(block->model);
    free(block->params);
    free(block->grad);
    free(block->x);
    free(block->row_values);
    free(block->row_grads);
    free(block);
}
CLEANUP_DEFINE(cleanup_block_pointer, struct block, block_free)
#define cleanup_block CLEANUP(cleanup_block_pointer)

static double gradient(struct block *block, uint32_t n, struct workspace *workspace)
{
    struct model_batch batch = block->batch;
    batch.n = n;
    return model_gradient(block->model, block->params, &batch, block->grad, workspace);
}

/* ---- Initial values ---- */

static void initial_values_are_made_anywhere(void **state)
{
    (void)state;
    cleanup_model struct model *model = zoo("lenet", 28);
    const uint64_t n = model_parameters(model);
    cleanup_free float *whole = calloc(n, sizeof *whole);
    cleanup_free float *pieces = calloc(n, sizeof *pieces);
    model_init_range(model, 1, 0, n, whole);
    for (uint64_t at = 0; at < n; at += 997)
        model_init_range(model, 1, at, at + 997 < n ? at + 997 : n, pieces + at);
    assert_memory_equal(whole, pieces, n * sizeof *whole);

    const struct network_tensor *tensors = model_network(model)->tensors;
    const uint32_t count = model_network(model)->tensor_count;
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

/* ---- Gradients against central differences of the network in double ---- */

struct numerical {
    struct block *block;
    double *params;
    double *row_values;
    const double *rows[NETWORK_TABLES_MOST];
};

static double central_difference(const struct numerical *numerical, double *value)
{
    const struct block *block = numerical->block;
    const double h = 1e-6;
    const double kept = *value;
    *value = kept + h;
    double above = naive_loss(model_network(block->model), numerical->params, numerical->rows, &block->batch);
    *value = kept - h;
    double below = naive_loss(model_network(block->model), numerical->params, numerical->rows, &block->batch);
    *value = kept;
    return (above - below) / (2 * h);
}

static bool is_statistic(const struct network *network, uint64_t at)
{
    for (uint32_t i = 0; i < network->tensor_count; i++)
        if (at - network->tensors[i].offset < network->tensors[i].count)
            return network->tensors[i].kind == TENSOR_STATISTIC;
    return false;
}

static void compare(const struct numerical *numerical, double *value, float got, const char *what, uint64_t at)
{
    const double expected = central_difference(numerical, value);
    if (!(fabs(expected - (double)got) <= 2e-5 * numerical->block->batch.n + 2e-4 * fabs(expected)))
        fail_msg("%s %llu of %s: gradient %.9g, numerically %.9g", what, (unsigned long long)at,
                 model_network(numerical->block->model)->name, (double)got, expected);
}

/* Gradients of `checked` parameters and rows' elements, or of all where these are fewer. Takes the model over. */
static void check_gradients(struct model *model, uint32_t n, uint64_t checked)
{
    cleanup_block struct block *block = block_of(model, n);
    cleanup_workspace struct workspace *workspace = workspace_for(model, n);
    const struct network *network = model_network(model);
    cleanup_free double *params = calloc(block->parameters + 1, sizeof *params);
    cleanup_free double *row_values = calloc(block->row_floats + 1, sizeof *row_values);
    struct numerical numerical = {.block = block, .params = params, .row_values = row_values};
    for (uint64_t i = 0; i < block->parameters; i++)
        params[i] = (double)block->params[i];
    for (size_t i = 0; i < block->row_floats; i++)
        row_values[i] = (double)block->row_values[i];
    for (uint32_t i = 0; i < network->table_count; i++)
        numerical.rows[i] = row_values + (block->rows[i].values - block->row_values);

    double loss = gradient(block, n, workspace);
    double expected = naive_loss(network, params, numerical.rows, &block->batch);
    if (!(fabs(loss - expected) <= 2e-5 * n))
        fail_msg("the loss of %s is %.9g, in double %.9g", network->name, loss, expected);
    struct permutation order = permutation_of_epoch(block->parameters, 4, 0);
    for (uint64_t i = 0; i < block->parameters && i < checked; i++) {
        const uint64_t at = permutation_at(&order, i);
        if (!is_statistic(network, at))
            compare(&numerical, &params[at], block->grad[at], "parameter", at);
    }
    for (uint64_t i = 0; i < block->row_floats && i < checked; i++)
        compare(&numerical, &row_values[i], block->row_grads[i], "row element", i);
}

static void the_zoo_has_numerical_gradients(void **state)
{
    (void)state;
    check_gradients(zoo("mlp", 3), 2, 1000);
    check_gradients(zoo("mlp", 28), 3, 30);
    check_gradients(zoo("lenet", 12), 2, 500);
    check_gradients(zoo("lenet", 28), 3, 30);
    check_gradients(zoo("linear", 6), 4, 100);
    check_gradients(zoo("resnet8", 9), 2, 25);
    check_gradients(zoo("resnet20", 8), 2, 5);
    const struct network_sample two = {.shape = {1, 3, 3}, .classes = 2};
    check_gradients(build(&(struct network_spec){.zoo = "logistic"}, &two), 5, 100);
    const struct network_sample columns = {.shape = {7, 1, 1}, .classes = 3, .categories = 3, .rows = TABLE_ROWS};
    check_gradients(build(&(struct network_spec){.zoo = "widedeep"}, &columns), 5, 100);
}

/* What branches, joins, overwrites and adds. */
static const char *const graphs[] = {
    /* steps and groups, and a ReLU that is computed on the way */
    "[{'name':'c','type':'Conv2D','filters':4,'kernel':3,'stride':2,'padding':1,'groups':2},{'name':'r','type':'ReLU'},"
    "{'name':'f','type':'Flatten'},{'name':'d','type':'Dense','bias':false}]",
    /* three readers of one output; one of them overwrites its input, which it may not here */
    "[{'name':'c','type':'Conv2D','filters':2,'kernel':3,'padding':1},{'name':'r','type':'ReLU'},"
    "{'name':'t','type':'Tanh','inputs':['c']},{'name':'s','type':'Sigmoid','inputs':['c']},"
    "{'name':'a','type':'Add','inputs':['s','r','t','c']},{'name':'d','type':'Concat','inputs':['a','c','input']},"
    "{'name':'f','type':'Flatten'},{'name':'fc','type':'Dense'}]",
    /* the same output twice, and a shape that another reader has overwritten in its own way */
    "[{'name':'f','type':'Flatten'},{'name':'d1','type':'Dense','units':6},{'name':'a','type':'Add','inputs':['d1','d1'"
    "]},"
    "{'name':'g','type':'Flatten'},{'name':'r','type':'ReLU'},{'name':'h','type':'Flatten','inputs':['a']},"
    "{'name':'c','type':'Concat','inputs':['r','h','r']},{'name':'u','type':'Sum','units':6},"
    "{'name':'k','type':'Columns','from':1,'to':4},{'name':'k2','type':'Columns','inputs':['u']},"
    "{'name':'j','type':'Concat','inputs':['k','k2']},{'name':'fc','type':'Dense'}]",
    /* norms and pools, with a ReLU behind a norm, an addition and a maximum */
    "[{'name':'c','type':'Conv2D','filters':4,'kernel':3,'padding':1,'bias':false},{'name':'b','type':'BatchNorm'},"
    "{'name':'r','type':'ReLU'},{'name':'l','type':'LayerNorm'},{'name':'a','type':'Add','inputs':['l','r']},"
    "{'name':'r2','type':'ReLU'},{'name':'p','type':'AvgPool','kernel':3,'stride':2},"
    "{'name':'m','type':'MaxPool','kernel':3,'stride':2,'inputs':['r2']},{'name':'r3','type':'ReLU'},"
    "{'name':'a2','type':'Add','inputs':['p','r3']},{'name':'g','type':'GlobalAvgPool'},{'name':'b2','type':'BatchNorm'"
    "},"
    "{'name':'e','type':'GELU'},{'name':'fc','type':'Dense'}]",
    /* pools over padding */
    "[{'name':'c','type':'Conv2D','filters':3,'kernel':3,'padding':1},{'name':'p','type':'AvgPool','kernel':4,'stride':"
    "3,"
    "'padding':2},{'name':'m','type':'MaxPool','kernel':4,'stride':3,'padding':2,'inputs':['c']},"
    "{'name':'j','type':'Concat','inputs':['p','m']},{'name':'f','type':'Flatten'},{'name':'fc','type':'Dense'}]",
    /* nothing is trained on one side */
    "[{'name':'p','type':'AvgPool','kernel':2},{'name':'r','type':'ReLU'},{'name':'c','type':'Conv2D','filters':2,"
    "'kernel':1,'stride':2,'inputs':['input']},{'name':'a','type':'Add','inputs':['r','c']},{'name':'g','type':'ReLU'},"
    "{'name':'f','type':'Flatten'},{'name':'fc','type':'Dense'}]",
};
enum { GRAPHS = sizeof graphs / sizeof graphs[0] };

static void losses_have_numerical_gradients(void **state)
{
    (void)state;
    const struct network_sample values = {.shape = {1, 2, 2}};
    struct network_spec spec = {.zoo = "mlp", .has_loss = true, .loss = LOSS_HUBER, .huber_delta = 0.4};
    check_gradients(build(&spec, &values), 6, 100);
    spec.loss = LOSS_MSE;
    check_gradients(build(&spec, &values), 6, 100);
}

static void graphs_have_numerical_gradients(void **state)
{
    (void)state;
    for (size_t i = 0; i < GRAPHS; i++)
        check_gradients(layers(graphs[i]), 3, 100);
}

/* ---- What results may not depend on ---- */

static const char *const images[] = {"mlp", "lenet", "resnet8"};
enum { IMAGES = sizeof images / sizeof images[0] };

/* Takes the model over. */
static void check_bits(struct model *model, uint32_t n)
{
    cleanup_block struct block *block = block_of(model, n);
    const uint64_t parameters = block->parameters;
    cleanup_workspace struct workspace *small = workspace_for(model, n);
    cleanup_workspace struct workspace *large = workspace_for(model, SAMPLES_MOST);
    cleanup_free float *grad = calloc(parameters + 16, sizeof *grad);
    cleanup_free float *params = calloc(parameters + 16, sizeof *params);
    cleanup_free float *row_grads = calloc(block->row_floats + 1, sizeof *row_grads);
    const double loss = gradient(block, n, small);
    memcpy(row_grads, block->row_grads, block->row_floats * sizeof *row_grads);
    for (size_t shift = 1; shift < 16; shift += 5) {
        /* another place, another workspace, and one that holds nothing that may be read: all of it is no number */
        memcpy(params + shift, block->params, parameters * sizeof *params);
        memset(large->memory, 0xFF, large->size);
        memset(grad, 0xFF, (parameters + 16) * sizeof *grad);
        double again = model_gradient(model, params + shift, &block->batch, grad + shift, large);
        assert_true(loss == again);
        assert_memory_equal(grad + shift, block->grad, parameters * sizeof *grad);
        assert_memory_equal(row_grads, block->row_grads, block->row_floats * sizeof *row_grads);
    }
}

/* Outputs that backward reads must stay: of resnet20 the convolutions' inputs and the norms'. Nothing more is kept. */
static void workspaces_share_memory(void **state)
{
    (void)state;
    cleanup_model struct model *model = zoo("resnet20", 28);
    cleanup_workspace struct workspace *workspace = workspace_for(model, 16);
    const struct network *network = model_network(model);
    size_t read = 0;
    for (uint32_t i = 0; i < network->layer_count; i++)
        if (network->layers[i].type == LAYER_CONV2D || network->layers[i].type == LAYER_RELU)
            read += 16 * shape_size(network->layers[i].out) * sizeof(float);
    assert_true(workspace->size < read + read / 20);
}

static void gradients_depend_on_their_arguments_alone(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 17; n += 8) {
        for (size_t i = 0; i < IMAGES; i++)
            check_bits(zoo(images[i], 28), n);
        for (size_t i = 0; i < GRAPHS; i++)
            check_bits(layers(graphs[i]), n);
    }
}

/* Without layers that evaluation computes in another way. */
static void evaluation_agrees_with_training(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        cleanup_block struct block *block = block_of(zoo(images[k], 28), 50);
        cleanup_workspace struct workspace *workspace = workspace_for(block->model, 1);
        struct evaluation whole = model_evaluate(block->model, block->params, &block->batch, workspace);
        struct evaluation pieces = {0, 0};
        double loss = 0;
        for (uint32_t i = 0; i < 50; i += 5) {
            struct model_batch batch = block->batch;
            batch.n = 5;
            batch.x += i * model_sample_size(block->model);
            batch.targets += i;
            struct evaluation piece = model_evaluate(block->model, block->params, &batch, workspace);
            pieces.loss_sum += piece.loss_sum;
            pieces.correct += piece.correct;
            loss += model_gradient(block->model, block->params, &batch, block->grad, workspace);
        }
        assert_true(fabs(whole.loss_sum - pieces.loss_sum) < 1e-4);
        assert_true(loss == pieces.loss_sum);
        assert_int_equal(whole.correct, pieces.correct);
    }
}

/* ---- Ranges of the gradient as they become final ---- */

struct finals {
    uint64_t below; /* all from here on is final */
    const float *grad;
    float *seen;
    uint32_t calls;
};

static void note_final(void *arg, uint64_t begin, uint64_t end)
{
    struct finals *finals = arg;
    assert_true(begin < end && end == finals->below);
    memcpy(finals->seen + begin, finals->grad + begin, (end - begin) * sizeof(float));
    finals->below = begin;
    finals->calls++;
}

static void ranges_become_final_from_the_end(void **state)
{
    (void)state;
    cleanup_block struct block *block = block_of(zoo("lenet", 28), 4);
    cleanup_workspace struct workspace *workspace = workspace_for(block->model, 4);
    cleanup_free float *seen = calloc(block->parameters, sizeof *seen);
    struct finals finals = {.below = block->parameters, .grad = block->grad, .seen = seen};
    block->batch.ready = note_final;
    block->batch.ready_arg = &finals;
    (void)gradient(block, 4, workspace);
    assert_int_equal(finals.below, 0);
    assert_int_equal(finals.calls, 5);
    assert_memory_equal(seen, block->grad, block->parameters * sizeof *seen);
}

/* ---- Training ---- */

/* The whole of it learns: noise in which two bright rows tell the class. Takes the model over. */
static void check_learning(struct model *model, uint32_t n, int steps)
{
    cleanup_block struct block *block = block_of(model, n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < (size_t)2 * 28; j++)
            block->x[i * 784 + (size_t)block->targets[i] * 56 + j] += 2;
    cleanup_workspace struct workspace *workspace = workspace_for(model, n);
    cleanup_free float *velocity = calloc(block->parameters, sizeof *velocity);
    double first = 0;
    double last = 0;
    for (int step = 0; step < steps; step++) {
        last = gradient(block, n, workspace);
        first = step == 0 ? last : first;
        for (uint64_t i = 0; i < block->parameters; i++) {
            velocity[i] = 0.9F * velocity[i] + block->grad[i] / (float)n;
            block->params[i] -= 0.05F * velocity[i];
        }
    }
    if (!(last < 0.1 * first))
        fail_msg("%s: loss %g after %g", model_network(model)->name, last, first);
}

static void training_learns(void **state)
{
    (void)state;
    check_learning(zoo("mlp", 28), 48, 60);
    check_learning(zoo("lenet", 28), 48, 60);
    check_learning(zoo("resnet8", 28), 12, 20);
}

/* ---- The canary ---- */

static void canaries_tell_plans_apart(void **state)
{
    (void)state;
    static const struct {
        const char *zoo;
        uint32_t batch, blocks;
        uint64_t samples;
    } cases[] = {
        {"mlp", 32, 8, 640}, {"lenet", 32, 8, 640}, {"mlp", 32, 4, 640},
        {"mlp", 33, 8, 660}, {"mlp", 32, 8, 650},   {"mlp", 3, 8, 2},
    };
    enum { CASES = sizeof cases / sizeof cases[0] };
    uint8_t digests[CASES][SHA256_SIZE];
    for (size_t i = 0; i < CASES; i++) {
        cleanup_model struct model *model = zoo(cases[i].zoo, 12);
        struct error err = {0};
        uint8_t again[SHA256_SIZE];
        assert_int_equal(model_canary(model, cases[i].batch, cases[i].blocks, cases[i].samples, digests[i], &err), 0);
        assert_int_equal(model_canary(model, cases[i].batch, cases[i].blocks, cases[i].samples, again, &err), 0);
        assert_memory_equal(digests[i], again, sizeof again);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(digests[i], digests[j], sizeof digests[i]);
    }
}

static struct model *table_model(void)
{
    const struct network_sample columns = {.shape = {7, 1, 1}, .classes = 3, .categories = 3, .rows = 1000};
    return build(&(struct network_spec){.zoo = "widedeep"}, &columns);
}

static struct model *value_model(void)
{
    const struct network_sample values = {.shape = {1, 2, 2}};
    return build(&(struct network_spec){.zoo = "mlp"}, &values);
}

/* Of tables' rows, of values to predict, of what is random and of what is normalised. */
static void every_kind_of_model_has_a_canary(void **state)
{
    (void)state;
    struct model *models[] = {
        table_model(),
        value_model(),
        zoo("resnet8", 8),
        layers("[{'name':'f','type':'Flatten'},{'name':'d','type':'Dropout','rate':0.5},{'name':'fc','type':'Dense'}]"),
        layers("[{'name':'f','type':'Flatten'},{'name':'d','type':'Dropout','rate':0.4},{'name':'fc','type':'Dense'}]"),
    };
    enum { MODELS = sizeof models / sizeof models[0] };
    uint8_t digests[MODELS][SHA256_SIZE];
    for (size_t i = 0; i < MODELS; i++) {
        struct error err = {0};
        uint8_t again[SHA256_SIZE];
        assert_int_equal(model_canary(models[i], 32, 8, 640, digests[i], &err), 0);
        assert_int_equal(model_canary(models[i], 32, 8, 640, again, &err), 0);
        assert_memory_equal(digests[i], again, sizeof again);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(digests[i], digests[j], sizeof digests[i]);
        model_free(models[i]);
    }
}

static void too_large_a_block_is_said(void **state)
{
    (void)state;
    cleanup_model struct model *model = zoo("mlp", 2);
    struct error err = {0};
    struct workspace *workspace = NULL;
    assert_int_equal(workspace_new(&workspace, model, MODEL_WORKSPACE_SAMPLES_MOST + 1, &err), -1);
    assert_string_equal(error_message(&err),
                        "a block of 1048577 samples is more than 1048576: raise blocks or lower batchSize");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(initial_values_are_made_anywhere),
        cmocka_unit_test(the_zoo_has_numerical_gradients),
        cmocka_unit_test(graphs_have_numerical_gradients),
        cmocka_unit_test(losses_have_numerical_gradients),
        cmocka_unit_test(workspaces_share_memory),
        cmocka_unit_test(gradients_depend_on_their_arguments_alone),
        cmocka_unit_test(evaluation_agrees_with_training),
        cmocka_unit_test(ranges_become_final_from_the_end),
        cmocka_unit_test(training_learns),
        cmocka_unit_test(canaries_tell_plans_apart),
        cmocka_unit_test(every_kind_of_model_has_a_canary),
        cmocka_unit_test(too_large_a_block_is_said),
    };
    numerics_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
