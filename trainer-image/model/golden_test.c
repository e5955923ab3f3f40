/* Every layer and loss against PyTorch's numbers (hack/golden/layers.py), against central differences, and against what
 * it tells the engine of itself. */
#include "model/layer.h"

#include "common/cleanup.h"
#include "common/crypto.h"
#include "numerics/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct golden_layer {
    const char *name;
    uint32_t n;
    struct network_layer layer;
    struct shape shapes[NETWORK_INPUTS_MOST];
    const float *inputs[NETWORK_INPUTS_MOST];
    size_t parameters;
    const float *params, *y, *evaluated, *dy;
    const float *dinputs[NETWORK_INPUTS_MOST]; /* NULL: ids, which have none */
    const float *grad;
};

struct golden_loss {
    const char *name;
    enum loss_type loss;
    double delta;
    uint32_t n, outputs;
    const float *y, *targets;
    double sum;
    const float *dy;
};

#include "model/testdata/golden_layers.h"

enum {
    LAYERS = sizeof golden_layers / sizeof golden_layers[0],
    LOSSES = sizeof golden_losses / sizeof golden_losses[0],
    FLOATS_MOST = 1024, /* of any array here */
    SHIFTS = 16,
};

/* A layer's arrays, each in a place of its own with garbage before it was written. */
struct run {
    const struct golden_layer *golden;
    struct layer_call call;
    struct model_batch batch;
    struct model_rows rows;
    size_t in[NETWORK_INPUTS_MOST], out;
    float params[FLOATS_MOST + SHIFTS], grad[FLOATS_MOST + SHIFTS], scratch[8 * FLOATS_MOST];
    float inputs[NETWORK_INPUTS_MOST][FLOATS_MOST + SHIFTS], dinputs[NETWORK_INPUTS_MOST][FLOATS_MOST + SHIFTS];
    float output[FLOATS_MOST + SHIFTS], doutput[FLOATS_MOST + SHIFTS];
    double saved[FLOATS_MOST];
};

static void forward(const struct run *run)
{
    layer_kind(run->call.layer->type)->forward(&run->call);
}

static void backward(const struct run *run)
{
    layer_kind(run->call.layer->type)->backward(&run->call);
}

static bool has_flag(const struct golden_layer *golden, enum layer_flag flag)
{
    return (layer_kind(golden->layer.type)->flags & flag) != 0;
}

static void spoil(float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        values[i] = NAN;
}

/* Ready for forward; arrays begin `shift` floats into their places, each a different number of them. */
static struct run *run_of(const struct golden_layer *golden, size_t shift)
{
    struct run *run = malloc(sizeof *run);
    assert_non_null(run);
    memset(run, 0xff, sizeof *run); /* NaN everywhere */
    run->golden = golden;
    const struct layer_kind *kind = layer_kind(golden->layer.type);
    if (kind->scratch != NULL)
        assert_true(kind->scratch(&golden->layer, golden->n) <= sizeof run->scratch / sizeof(float));
    if (kind->saved != NULL)
        assert_true(kind->saved(&golden->layer, golden->n) <= sizeof run->saved);
    run->out = golden->n * shape_size(golden->layer.out);
    run->batch = (struct model_batch){.n = golden->n, .place = {1, 2, 3}};
    run->call = (struct layer_call){
        .layer = &golden->layer,
        .n = golden->n,
        .training = true,
        .params = run->params + shift,
        .output = run->output + (3 * shift + 1) % SHIFTS,
        .doutput = run->doutput + (5 * shift + 2) % SHIFTS,
        .grad = run->grad + (7 * shift + 3) % SHIFTS,
        .scratch = run->scratch,
        .saved = run->saved,
        .batch = &run->batch,
        .rows = &run->rows,
    };
    for (uint32_t k = 0; k < golden->layer.input_count; k++) {
        float *input = run->inputs[k] + (9 * shift + 4) % SHIFTS;
        run->in[k] = golden->n * shape_size(golden->shapes[k]);
        memcpy(input, golden->inputs[k], run->in[k] * sizeof *input);
        run->call.inputs[k] = input;
        run->call.shapes[k] = golden->shapes[k];
        run->call.dinputs[k] = golden->dinputs[k] == NULL ? NULL : run->dinputs[k] + (11 * shift + 5) % SHIFTS;
    }
    if (golden->params != NULL)
        memcpy(run->params + shift, golden->params, golden->parameters * sizeof(float));
    static const uint32_t ids[] = {0, 1, 2, 3, 4};
    if (golden->layer.type == LAYER_EMBEDDING)
        run->rows = (struct model_rows){5, ids, run->call.params, run->call.grad};
    memcpy(run->call.doutput, golden->dy, run->out * sizeof(float));
    return run;
}

static void assert_close(const struct golden_layer *golden, const char *what, const float *got, const float *expected,
                         size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)expected[i]) <= tolerance * fmax(1, fabs((double)expected[i]))))
            fail_msg("%s: %s %zu is %.9g where %.9g is expected", golden->name, what, i, (double)got[i],
                     (double)expected[i]);
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void assert_same(const struct golden_layer *golden, const char *what, const float *got, const float *expected,
                        size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bits_of(got[i]) != bits_of(expected[i]))
            fail_msg("%s: %s %zu is %a where %a is expected", golden->name, what, i, (double)got[i],
                     (double)expected[i]);
}

/* Gradients of both are equal bits. */
static void assert_same_gradients(const struct run *got, const struct run *expected)
{
    for (uint32_t k = 0; k < got->call.layer->input_count; k++)
        if (got->call.dinputs[k] != NULL)
            assert_same(got->golden, "dx", got->call.dinputs[k], expected->call.dinputs[k], got->in[k]);
    assert_same(got->golden, "gradient", got->call.grad, expected->call.grad, got->golden->parameters);
}

static struct run *finished(const struct golden_layer *golden)
{
    struct run *run = run_of(golden, 0);
    forward(run);
    backward(run);
    return run;
}

/* ---- PyTorch's numbers ---- */

static const double tolerance = 3e-6;

static void layers_are_pytorchs(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYERS; i++) {
        const struct golden_layer *golden = &golden_layers[i];
        cleanup_free struct run *run = run_of(golden, 0);
        run->call.training = false;
        forward(run);
        assert_close(golden, "evaluated y", run->call.output, golden->evaluated, run->out, tolerance);
        run->call.training = true;
        forward(run);
        assert_close(golden, "y", run->call.output, golden->y, run->out, tolerance);
        backward(run);
        for (uint32_t k = 0; k < golden->layer.input_count; k++)
            if (golden->dinputs[k] != NULL)
                assert_close(golden, "dx", run->call.dinputs[k], golden->dinputs[k], run->in[k], tolerance);
        assert_close(golden, "gradient", run->call.grad, golden->grad, golden->parameters, tolerance);
    }
}

static void losses_are_pytorchs(void **state)
{
    (void)state;
    for (size_t i = 0; i < LOSSES; i++) {
        const struct golden_loss *golden = &golden_losses[i];
        const struct network network = {.loss = golden->loss, .outputs = golden->outputs, .huber_delta = golden->delta};
        float dy[FLOATS_MOST];
        uint64_t correct = 0;
        const double sum = loss_gradient(&network, golden->y, golden->targets, golden->n, dy);
        assert_true(fabs(sum - golden->sum) < 1e-7 * golden->sum);
        assert_true(sum == loss_evaluate(&network, golden->y, golden->targets, golden->n, &correct));
        for (uint32_t j = 0; j < golden->n * golden->outputs; j++)
            if (!(fabs((double)dy[j] - (double)golden->dy[j]) <= 1e-6 * fmax(1, fabs((double)golden->dy[j]))))
                fail_msg("%s: gradient %u is %.9g, not %.9g", golden->name, j, (double)dy[j], (double)golden->dy[j]);
        /* The gradient may lie where the outputs do. */
        float in_place[FLOATS_MOST];
        memcpy(in_place, golden->y, sizeof(float) * golden->n * golden->outputs);
        assert_true(sum == loss_gradient(&network, in_place, golden->targets, golden->n, in_place));
        assert_memory_equal(in_place, dy, sizeof(float) * golden->n * golden->outputs);
    }
}

/* Of two classes the second is the answer where the output is above zero. */
static void two_classes_are_told_apart(void **state)
{
    (void)state;
    const struct network network = {.loss = LOSS_BINARY_CROSS_ENTROPY, .outputs = 1};
    const float outputs[] = {0.5F, 0.5F, -2, -2, 0, 0, NAN, 1000, -1000};
    const float targets[] = {1, 0, 0, 1, 0, 1, 1, 1, 0};
    uint64_t correct = 0;
    (void)loss_evaluate(&network, outputs, targets, 9, &correct);
    assert_int_equal(correct, 5);
    assert_true(loss_evaluate(&network, outputs + 7, targets + 7, 2, &correct) == 0);
}

/* ---- Central differences: dL/dv against (L(v + h) − L(v − h))/2h with L = Σ y·dy ---- */

static double weighted(const struct run *run)
{
    forward(run);
    double sum = 0;
    for (size_t i = 0; i < run->out; i++)
        sum += (double)run->call.output[i] * (double)run->golden->dy[i];
    return sum;
}

static void check_difference(const struct run *run, float *value, float got, const char *what, size_t at)
{
    const float h = 0x1p-7F;
    const float kept = *value;
    *value = kept + h;
    const double above = weighted(run);
    *value = kept - h;
    const double below = weighted(run);
    *value = kept;
    const double expected = (above - below) / (2 * (double)h);
    if (!(fabs(expected - (double)got) <= 2e-3 * fmax(1, fabs(expected))))
        fail_msg("%s: %s %zu is %.9g, numerically %.9g", run->golden->name, what, at, (double)got, expected);
}

static void gradients_are_numerical_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYERS; i++) {
        const struct golden_layer *golden = &golden_layers[i];
        cleanup_free struct run *run = finished(golden);
        for (uint32_t k = 0; k < golden->layer.input_count; k++)
            for (size_t j = 0; golden->dinputs[k] != NULL && j < run->in[k]; j++)
                check_difference(run, &run->inputs[k][j + 4], run->call.dinputs[k][j], "dx", j);
        const size_t trained = golden->layer.type == LAYER_BATCHNORM ? golden->layer.mean_at : golden->parameters;
        for (size_t j = 0; j < trained; j++)
            check_difference(run, &run->params[j], run->call.grad[j], "gradient", j);
    }
}

/* ---- What PyTorch refuses: one value a channel. Its variance is the biased one, 0. ---- */

static void one_value_is_normalized_to_the_shift(void **state)
{
    (void)state;
    const struct network_layer layer = {.type = LAYER_BATCHNORM,
                                        .input_count = 1,
                                        .in = {2, 1, 1},
                                        .out = {2, 1, 1},
                                        .bias_at = 2,
                                        .mean_at = 4,
                                        .variance_at = 6,
                                        .epsilon = 1e-5};
    const struct golden_layer golden = {.name = "one value",
                                        .n = 1,
                                        .layer = layer,
                                        .shapes = {layer.in},
                                        .inputs = {(const float[]){5, -3}},
                                        .parameters = 8,
                                        .params = (const float[]){2, 3, 0.5F, 0.25F, 0, 0, 1, 1},
                                        .dy = (const float[]){1, 10},
                                        .dinputs = {(const float[]){0, 0}}};
    cleanup_free struct run *run = finished(&golden);
    assert_same(&golden, "y", run->call.output, (const float[]){0.5F, 0.25F}, 2);
    assert_close(&golden, "dx", run->call.dinputs[0], (const float[]){0, 0}, 2, 0);
    assert_close(&golden, "gradient", run->call.grad, (const float[]){0, 0, 1, 10, 5, -3, 0, 0}, 8, 0);
}

/* ---- What layers tell the engine ---- */

static void results_do_not_depend_on_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYERS; i++) {
        cleanup_free struct run *expected = finished(&golden_layers[i]);
        for (size_t shift = 1; shift < SHIFTS; shift++) {
            cleanup_free struct run *run = run_of(&golden_layers[i], shift);
            forward(run);
            assert_same(run->golden, "y", run->call.output, expected->call.output, run->out);
            backward(run);
            assert_same_gradients(run, expected);
        }
    }
}

static void layers_compute_in_place_where_they_say_so(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYERS; i++) {
        const struct golden_layer *golden = &golden_layers[i];
        cleanup_free struct run *expected = finished(golden);
        cleanup_free struct run *run = run_of(golden, 0);
        if (run->in[0] != run->out)
            continue;
        if (has_flag(golden, LAYER_OVER_INPUT)) {
            run->call.inputs[0] = memcpy(run->call.output, run->call.inputs[0], run->out * sizeof(float));
            forward(run);
            assert_same(golden, "y in place", run->call.output, expected->call.output, run->out);
        } else
            forward(run);
        if (has_flag(golden, LAYER_OVER_GRADIENT)) {
            run->call.dinputs[0] = run->call.doutput;
            backward(run);
            assert_same_gradients(run, expected);
        }
    }
}

/* What backward does not say it reads may be gone by then. */
static void backward_reads_what_it_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYERS; i++) {
        const struct golden_layer *golden = &golden_layers[i];
        cleanup_free struct run *expected = finished(golden);
        cleanup_free struct run *run = run_of(golden, 0);
        forward(run);
        for (uint32_t k = 0; !has_flag(golden, LAYER_READS_INPUT) && k < golden->layer.input_count; k++)
            spoil(run->inputs[k], FLOATS_MOST);
        if (!has_flag(golden, LAYER_READS_OUTPUT))
            spoil(run->output, FLOATS_MOST);
        memset(run->scratch, 0xff, sizeof run->scratch);
        backward(run);
        assert_same_gradients(run, expected);
    }
}

static void gradients_are_added_or_left_out_where_asked(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYERS; i++) {
        const struct golden_layer *golden = &golden_layers[i];
        cleanup_free struct run *expected = finished(golden);
        cleanup_free struct run *none = run_of(golden, 0);
        forward(none);
        for (uint32_t k = 0; k < golden->layer.input_count; k++)
            none->call.dinputs[k] = NULL;
        if (has_flag(golden, LAYER_TRAINS) || golden->layer.input_count > 1) {
            backward(none);
            assert_same_gradients(none, expected);
        }
        if (!has_flag(golden, LAYER_ADDS))
            continue;
        cleanup_free struct run *added = run_of(golden, 0);
        forward(added);
        for (uint32_t k = 0; k < golden->layer.input_count; k++) {
            added->call.add[k] = true;
            for (size_t j = 0; j < added->in[k]; j++) {
                added->call.dinputs[k][j] = j % 5 == 0 ? -0.0F : 0.37F * (float)j;
                expected->call.dinputs[k][j] = added->call.dinputs[k][j] + expected->call.dinputs[k][j];
            }
        }
        backward(added);
        assert_same_gradients(added, expected);
    }
}

static void relu_on_the_way_is_relu_behind(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYERS; i++) {
        const struct golden_layer *golden = &golden_layers[i];
        if (!has_flag(golden, LAYER_TAKES_RELU))
            continue;
        for (int training = 0; training <= 1; training++) {
            cleanup_free struct run *apart = run_of(golden, 0);
            cleanup_free struct run *fused = run_of(golden, 0);
            apart->call.training = fused->call.training = training != 0;
            fused->call.relu = true;
            forward(apart);
            vector_relu(apart->call.output, apart->call.output, apart->out);
            forward(fused);
            assert_same(golden, "relu(y)", fused->call.output, apart->call.output, apart->out);
            if (training == 0)
                continue;
            vector_relu_backward(apart->call.doutput, apart->call.output, apart->call.doutput, apart->out);
            backward(apart);
            backward(fused);
            assert_same_gradients(fused, apart);
        }
    }
}

/* Evaluated, a sample's output is a function of that sample. */
static void samples_are_evaluated_by_themselves(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYERS; i++) {
        const struct golden_layer *golden = &golden_layers[i];
        cleanup_free struct run *whole = run_of(golden, 0);
        cleanup_free struct run *single = run_of(golden, 0);
        whole->call.training = single->call.training = false;
        forward(whole);
        const size_t out = shape_size(golden->layer.out);
        single->call.n = 1;
        for (uint32_t sample = 0; sample < golden->n; sample++) {
            for (uint32_t k = 0; k < golden->layer.input_count; k++)
                single->call.inputs[k] = whole->call.inputs[k] + sample * shape_size(golden->shapes[k]);
            forward(single);
            assert_close(golden, "y of one sample", single->call.output, whole->call.output + sample * out, out, 1e-6);
        }
    }
}

/* Models of before can be made again only while these stay, whatever the vector unit; without the layers whose bits
 * depend on OpenBLAS's kernel. */
static void bits_stay_what_they_are(void **state)
{
    (void)state;
    static float bits[LAYERS * 4 * FLOATS_MOST];
    size_t count = 0;
    for (size_t i = 0; i < LAYERS; i++) {
        const struct golden_layer *golden = &golden_layers[i];
        if (golden->layer.type == LAYER_DENSE || golden->layer.type == LAYER_CONV2D)
            continue;
        cleanup_free struct run *run = finished(golden);
        memcpy(bits + count, run->call.output, run->out * sizeof *bits);
        count += run->out;
        for (uint32_t k = 0; k < golden->layer.input_count && golden->dinputs[k] != NULL; k++) {
            memcpy(bits + count, run->call.dinputs[k], run->in[k] * sizeof *bits);
            count += run->in[k];
        }
        memcpy(bits + count, run->call.grad, golden->parameters * sizeof *bits);
        count += golden->parameters;
    }
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE];
    sha256(bits, count * sizeof *bits, digest);
    hex_encode(digest, sizeof digest, hex);
    assert_string_equal(hex, "72c4a4ceafec257aa02350931b308c1cf28f15b398efe4f492601ed691e15400");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_are_pytorchs),
        cmocka_unit_test(losses_are_pytorchs),
        cmocka_unit_test(two_classes_are_told_apart),
        cmocka_unit_test(gradients_are_numerical_ones),
        cmocka_unit_test(one_value_is_normalized_to_the_shift),
        cmocka_unit_test(results_do_not_depend_on_place),
        cmocka_unit_test(layers_compute_in_place_where_they_say_so),
        cmocka_unit_test(backward_reads_what_it_says),
        cmocka_unit_test(gradients_are_added_or_left_out_where_asked),
        cmocka_unit_test(relu_on_the_way_is_relu_behind),
        cmocka_unit_test(samples_are_evaluated_by_themselves),
        cmocka_unit_test(bits_stay_what_they_are),
    };
    numerics_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
