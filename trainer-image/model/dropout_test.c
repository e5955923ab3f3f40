#include "model/layer.h"

#include "common/cleanup.h"
#include "numerics/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { SAMPLES = 40, SIZE = 3 * 7 * 5, ELEMENTS = SAMPLES * SIZE };

/* Where a block lies, in which layer of which job. */
struct place {
    uint64_t seed;
    uint32_t layer, epoch;
    uint64_t first;
};

static struct network_layer layer_of(double rate)
{
    return (struct network_layer){
        .type = LAYER_DROPOUT, .input_count = 1, .in = {3, 7, 5}, .out = {3, 7, 5}, .rate = rate};
}

/* Samples [from, from + n) of a batch of ones, with gradients of 2. */
static void run(const struct network_layer *layer, const struct place *place, uint32_t n, float *y, float *dx)
{
    const struct model_batch batch = {.n = n, .place = {place->seed, place->epoch, place->first}};
    cleanup_free void *saved = malloc(dropout_kind.saved(layer, n) + 1);
    assert_non_null(saved);
    for (size_t i = 0; i < (size_t)n * SIZE; i++) {
        y[i] = 1;
        dx[i] = 2;
    }
    const struct layer_call call = {
        .layer = layer,
        .index = place->layer,
        .n = n,
        .training = true,
        .inputs = {y},
        .shapes = {layer->in},
        .output = y,
        .doutput = dx,
        .dinputs = {dx},
        .saved = saved,
        .batch = &batch,
    };
    dropout_kind.forward(&call);
    dropout_kind.backward(&call);
}

/* What is kept is scaled so that the mean stays; the gradient is dropped where the value is. */
static void as_much_is_dropped_as_asked(void **state)
{
    (void)state;
    static const double rates[] = {0, 0.1, 0.5, 0.9, 0.999};
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        const struct network_layer layer = layer_of(rates[r]);
        const struct place place = {.seed = 7};
        float y[ELEMENTS];
        float dx[ELEMENTS];
        size_t dropped = 0;
        run(&layer, &place, SAMPLES, y, dx);
        for (size_t i = 0; i < ELEMENTS; i++) {
            assert_true(y[i] == 0 || y[i] == (float)(1 / (1 - rates[r])));
            assert_true(dx[i] == 2 * y[i]);
            dropped += y[i] == 0 ? 1 : 0;
        }
        /* five deviations of a binomial distribution */
        assert_true(fabs((double)dropped - rates[r] * ELEMENTS) <= 5 * sqrt(ELEMENTS * rates[r] * (1 - rates[r])));
    }
}

/* The same element of the same epoch is dropped or not whatever block it is computed in. */
static void what_is_dropped_depends_on_its_place_alone(void **state)
{
    (void)state;
    const struct network_layer layer = layer_of(0.5);
    const uint64_t first = UINT64_C(5000000011);
    float whole[ELEMENTS];
    float dwhole[ELEMENTS];
    float part[ELEMENTS];
    float dpart[ELEMENTS];
    run(&layer, &(struct place){3, 2, 1, first}, SAMPLES, whole, dwhole);
    for (uint32_t size = 1; size <= 13; size += 3)
        for (uint32_t at = 0; at + size <= SAMPLES; at += size) {
            run(&layer, &(struct place){3, 2, 1, first + at}, size, part, dpart);
            assert_memory_equal(part, whole + (size_t)at * SIZE, (size_t)size * SIZE * sizeof(float));
            assert_memory_equal(dpart, dwhole + (size_t)at * SIZE, (size_t)size * SIZE * sizeof(float));
        }
    static const struct place others[] = {
        {4, 2, 1, 5000000011}, {3, 1, 1, 5000000011}, {3, 2, 0, 5000000011}, {3, 2, 1, 0}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        size_t equal = 0;
        run(&layer, &others[i], SAMPLES, part, dpart);
        for (size_t j = 0; j < ELEMENTS; j++)
            equal += part[j] == whole[j] ? 1 : 0;
        assert_true(fabs((double)equal - 0.5 * ELEMENTS) <= 2.5 * sqrt(ELEMENTS));
    }
}

/* Jobs of before can be made again only while this stays: sample 1, elements 0 to 31 of epoch 0 with seed 1. */
static void what_is_dropped_stays_what_it_is(void **state)
{
    (void)state;
    const struct network_layer layer = layer_of(0.25);
    float y[SIZE];
    float dx[SIZE];
    run(&layer, &(struct place){.seed = 1, .first = 1}, 1, y, dx);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < 32; i++)
        kept |= (y[i] != 0 ? 1U : 0U) << i;
    const struct random_stream stream = random_stream(1, RANDOM_DROPOUT, 0, 0, 0);
    for (uint32_t i = 0; i < SIZE; i++)
        assert_int_equal(y[i] != 0, random_u32_at(stream, SIZE + i) >= UINT32_C(1) << 30);
    assert_int_equal(kept, 0xcbeeefe7);
}

static void nothing_is_dropped_in_evaluation(void **state)
{
    (void)state;
    const struct network_layer layer = layer_of(0.9);
    float x[2 * SIZE];
    float y[2 * SIZE];
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++)
        x[i] = (float)i;
    struct layer_call call = {.layer = &layer, .n = 2, .inputs = {x}, .shapes = {layer.in}, .output = y};
    dropout_kind.forward(&call);
    assert_memory_equal(x, y, sizeof x);
    call.inputs[0] = y;
    dropout_kind.forward(&call);
    assert_memory_equal(x, y, sizeof x);
}

/* ---- In a model ---- */

static struct model *dropping_model(void)
{
    static const char text[] =
        "[{\"name\":\"f\",\"type\":\"Flatten\"},{\"name\":\"d1\",\"type\":\"Dense\",\"units\":16},"
        "{\"name\":\"drop\",\"type\":\"Dropout\",\"rate\":0.5},{\"name\":\"d2\",\"type\":\"Dense\"}]";
    struct error err = {0};
    cleanup_json cJSON *json = json_parse(text, sizeof text - 1, "layers", &err);
    assert_non_null(json);
    struct model *model = NULL;
    const struct network_sample sample = {.shape = {3, 7, 5}, .classes = 4};
    if (model_make(&model, &(struct network_spec){.layers = json}, &sample, &err) < 0)
        fail_msg("%s", error_message(&err));
    return model;
}

/* A block's samples drop what they would drop in any other block; evaluated, they drop nothing. */
static void blocks_of_any_size_drop_the_same(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_model struct model *model = dropping_model();
    cleanup_workspace struct workspace *workspace = NULL;
    assert_int_equal(workspace_new(&workspace, model, SAMPLES, &err), 0);
    const uint64_t parameters = model_parameters(model);
    cleanup_free float *params = calloc(parameters, sizeof *params);
    cleanup_free float *grad = calloc(parameters, sizeof *grad);
    assert_true(params != NULL && grad != NULL);
    model_init_range(model, 1, 0, parameters, params);
    float x[ELEMENTS];
    float targets[SAMPLES];
    random_uniform_range(random_stream(2, RANDOM_CANARY, 0, 0, 0), 0, ELEMENTS, -2, 2, x);
    for (uint32_t i = 0; i < SAMPLES; i++)
        targets[i] = (float)(i % 4);

    struct model_batch batch = {.n = SAMPLES, .x = x, .targets = targets, .place = {7, 3, 1000}};
    const double whole = model_gradient(model, params, &batch, grad, workspace);
    const double evaluated = model_evaluate(model, params, &batch, workspace).loss_sum;
    double pieces = 0;
    for (uint32_t at = 0; at < SAMPLES; at += 5) {
        const struct model_batch piece = {5, x + (size_t)at * SIZE, targets + at, .place = {7, 3, 1000 + at}};
        pieces += model_gradient(model, params, &piece, grad, workspace);
    }
    assert_true(fabs(whole - pieces) < 1e-5);
    batch.place.epoch = 4;
    assert_true(fabs(whole - model_gradient(model, params, &batch, grad, workspace)) > 1e-2);
    assert_true(evaluated == model_evaluate(model, params, &batch, workspace).loss_sum);
    assert_true(fabs(whole - evaluated) > 1e-2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_much_is_dropped_as_asked),
        cmocka_unit_test(what_is_dropped_depends_on_its_place_alone),
        cmocka_unit_test(what_is_dropped_stays_what_it_is),
        cmocka_unit_test(nothing_is_dropped_in_evaluation),
        cmocka_unit_test(blocks_of_any_size_drop_the_same),
    };
    numerics_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
