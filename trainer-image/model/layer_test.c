#include "model/reference.h"

#include "common/cleanup.h"
#include "numerics/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* One layer's arrays, filled with random values. */
struct arrays {
    size_t parameters, in, out; /* floats, of n samples */
    float *params, *x, *y, *dy, *dx, *grad, *scratch;
    uint32_t *argmax;
};

static float *random_floats(size_t n, uint32_t layer)
{
    float *values = malloc((n == 0 ? 1 : n) * sizeof *values);
    assert_non_null(values);
    random_uniform_range(random_stream(21, RANDOM_CANARY, layer, 0, 0), 0, n, -1, 1, values);
    return values;
}

static size_t parameters_of(const struct network_layer *layer)
{
    if (layer->type == LAYER_DENSE)
        return shape_size(layer->in) * shape_size(layer->out) + (layer->bias ? layer->out.c : 0);
    if (layer->type == LAYER_CONV2D)
        return (size_t)layer->in.c / layer->groups * layer->out.c * layer->kernel * layer->kernel +
               (layer->bias ? layer->out.c : 0);
    return 0;
}

static size_t scratch_of(const struct network_layer *layer, uint32_t n)
{
    const struct layer_kind *kind = layer_kind(layer->type);
    return kind->scratch == NULL ? 0 : kind->scratch(layer, n);
}

static struct arrays arrays_of(const struct network_layer *layer, uint32_t n)
{
    struct arrays a = {
        .in = n * shape_size(layer->in), .out = n * shape_size(layer->out), .parameters = parameters_of(layer)};
    a.params = random_floats(a.parameters, 1);
    a.x = random_floats(a.in, 2);
    a.dy = random_floats(a.out, 3);
    a.y = random_floats(a.out, 4);
    a.dx = random_floats(a.in, 5);
    a.grad = random_floats(a.parameters, 6);
    a.argmax = malloc(a.out * sizeof *a.argmax);
    a.scratch = random_floats(scratch_of(layer, n), 7);
    assert_non_null(a.argmax);
    return a;
}

static void arrays_free(struct arrays *a)
{
    free(a->params);
    free(a->x);
    free(a->dy);
    free(a->y);
    free(a->dx);
    free(a->grad);
    free(a->argmax);
    free(a->scratch);
}

static struct network_layer dense_layer(uint32_t in, uint32_t out)
{
    return (struct network_layer){
        .type = LAYER_DENSE, .bias = true, .in = {in, 1, 1}, .out = {out, 1, 1}, .bias_at = (uint64_t)in * out};
}

static struct network_layer strided_layer(struct shape in, uint32_t channels, uint32_t kernel, uint32_t padding,
                                          uint32_t stride, uint32_t groups)
{
    return (struct network_layer){
        .type = LAYER_CONV2D,
        .in = in,
        .out = {channels, (in.h + 2 * padding - kernel) / stride + 1, (in.w + 2 * padding - kernel) / stride + 1},
        .kernel = kernel,
        .padding = padding,
        .stride = stride,
        .groups = groups,
        .bias = true,
        .bias_at = (uint64_t)in.c / groups * channels * kernel * kernel,
    };
}

static struct network_layer conv2d_layer(struct shape in, uint32_t channels, uint32_t kernel, uint32_t padding)
{
    return strided_layer(in, channels, kernel, padding, 1, 1);
}

static struct network_layer window_layer(struct shape in, uint32_t kernel, uint32_t stride, uint32_t padding)
{
    return (struct network_layer){
        .type = LAYER_MAXPOOL,
        .in = in,
        .out = {in.c, (in.h + 2 * padding - kernel) / stride + 1, (in.w + 2 * padding - kernel) / stride + 1},
        .kernel = kernel,
        .stride = stride,
        .padding = padding,
    };
}

static struct network_layer maxpool_layer(struct shape in)
{
    return window_layer(in, 2, 2, 0);
}

static struct network_layer relu_layer(uint32_t size)
{
    return (struct network_layer){.type = LAYER_RELU, .in = {size, 1, 1}, .out = {size, 1, 1}};
}

static struct layer_call call_of(const struct network_layer *layer, struct arrays *a, uint32_t n)
{
    return (struct layer_call){
        .layer = layer,
        .n = n,
        .training = true,
        .params = a->params,
        .inputs = {a->x},
        .shapes = {layer->in},
        .output = a->y,
        .doutput = a->dy,
        .dinputs = {a->dx},
        .grad = a->grad,
        .scratch = a->scratch,
        .saved = a->argmax,
    };
}

static void run_forward(const struct network_layer *layer, struct arrays *a, uint32_t n)
{
    const struct layer_call call = call_of(layer, a, n);
    layer_kind(layer->type)->forward(&call);
}

static void run_backward(const struct network_layer *layer, struct arrays *a, uint32_t n)
{
    const struct layer_call call = call_of(layer, a, n);
    layer_kind(layer->type)->backward(&call);
}

static const struct shape conv_inputs[] = {{1, 28, 28}, {6, 14, 14}, {1, 5, 5}, {3, 7, 9}, {2, 6, 33}, {5, 8, 3}};
enum { CONV_INPUTS = sizeof conv_inputs / sizeof conv_inputs[0] };

static void assert_close(const float *got, const float *expected, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)expected[i]) <= tolerance))
            fail_msg("element %zu of %zu is %.9g where %.9g is expected", i, n, (double)got[i], (double)expected[i]);
}

/* ---- Fast versions against the plain ones ---- */

static void compare_with_reference(const struct network_layer *layer, uint32_t n)
{
    struct arrays fast = arrays_of(layer, n);
    struct arrays plain = arrays_of(layer, n);
    run_forward(layer, &fast, n);
    run_backward(layer, &fast, n);
    if (layer->type == LAYER_DENSE) {
        dense_forward_reference(layer, plain.params, plain.x, plain.y, n);
        dense_backward_reference(layer, plain.params, plain.x, plain.dy, plain.dx, plain.grad, n);
    } else {
        conv2d_forward_reference(layer, plain.params, plain.x, plain.y, n);
        conv2d_backward_reference(layer, plain.params, plain.x, plain.dy, plain.dx, plain.grad, n);
    }
    assert_close(fast.y, plain.y, fast.out, 1e-4);
    assert_close(fast.dx, plain.dx, fast.in, 1e-4);
    assert_close(fast.grad, plain.grad, fast.parameters, 5e-4);
    arrays_free(&fast);
    arrays_free(&plain);
}

static void dense_equals_its_reference(void **state)
{
    (void)state;
    static const uint32_t sizes[][3] = {{1, 1, 1},    {7, 5, 3},      {784, 256, 16}, {256, 128, 17},
                                        {128, 10, 1}, {400, 120, 13}, {33, 65, 40}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct network_layer layer = dense_layer(sizes[i][0], sizes[i][1]);
        compare_with_reference(&layer, sizes[i][2]);
    }
}

static void conv2d_equals_its_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < CONV_INPUTS; i++)
        for (uint32_t kernel = 1; kernel <= 5; kernel += 2)
            for (uint32_t padding = 0; padding <= 3; padding++) {
                if (conv_inputs[i].h + 2 * padding < kernel || conv_inputs[i].w + 2 * padding < kernel)
                    continue;
                struct network_layer layer = conv2d_layer(conv_inputs[i], kernel == 5 ? 6 : 3, kernel, padding);
                compare_with_reference(&layer, 2);
            }
    struct network_layer conv1 = conv2d_layer((struct shape){1, 28, 28}, 6, 5, 2);
    struct network_layer conv2 = conv2d_layer((struct shape){6, 14, 14}, 16, 5, 0);
    compare_with_reference(&conv1, 5);
    compare_with_reference(&conv2, 5);
}

static void conv2d_steps_and_groups_equal_their_reference(void **state)
{
    (void)state;
    for (uint32_t stride = 1; stride <= 3; stride++)
        for (uint32_t kernel = 1; kernel <= 4; kernel++)
            for (uint32_t padding = 0; padding <= 2; padding++)
                for (uint32_t groups = 1; groups <= 4; groups += groups) {
                    const struct network_layer square =
                        strided_layer((struct shape){4, 9, 8}, 8, kernel, padding, stride, groups);
                    compare_with_reference(&square, 2);
                    struct network_layer wide =
                        strided_layer((struct shape){8, 4, 21}, 4, kernel, padding, stride, groups);
                    wide.bias = false;
                    compare_with_reference(&wide, 3);
                }
}

/* A padding so wide that some taps see nothing but zeros. */
static void conv2d_takes_any_padding(void **state)
{
    (void)state;
    struct network_layer layer = conv2d_layer((struct shape){2, 3, 2}, 3, 3, 6);
    compare_with_reference(&layer, 2);
}

/* dx = dx + value, in the same bits as adding afterwards. */
static void gradients_are_added_where_asked(void **state)
{
    (void)state;
    const struct network_layer layers[] = {
        conv2d_layer((struct shape){3, 9, 11}, 5, 3, 1),
        conv2d_layer((struct shape){6, 5, 7}, 4, 1, 0),
        strided_layer((struct shape){4, 8, 8}, 6, 1, 0, 2, 2),
    };
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        struct arrays written = arrays_of(&layers[i], 2);
        struct arrays added = arrays_of(&layers[i], 2);
        run_backward(&layers[i], &written, 2);
        for (size_t j = 0; j < written.in; j++)
            written.dx[j] = added.dx[j] + written.dx[j];
        struct layer_call call = call_of(&layers[i], &added, 2);
        call.add[0] = true;
        layer_kind(layers[i].type)->backward(&call);
        assert_memory_equal(added.dx, written.dx, written.in * sizeof(float));
        arrays_free(&written);
        arrays_free(&added);
    }
}

static void relu_on_the_way_is_relu_behind(void **state)
{
    (void)state;
    const struct network_layer layers[] = {dense_layer(33, 21), conv2d_layer((struct shape){3, 9, 11}, 5, 3, 1)};
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        struct arrays apart = arrays_of(&layers[i], 3);
        struct arrays fused = arrays_of(&layers[i], 3);
        run_forward(&layers[i], &apart, 3);
        vector_relu(apart.y, apart.y, apart.out);
        vector_relu_backward(apart.dy, apart.y, apart.dy, apart.out);
        run_backward(&layers[i], &apart, 3);
        struct layer_call call = call_of(&layers[i], &fused, 3);
        call.relu = true;
        layer_kind(layers[i].type)->forward(&call);
        layer_kind(layers[i].type)->backward(&call);
        assert_memory_equal(fused.y, apart.y, apart.out * sizeof(float));
        assert_memory_equal(fused.dx, apart.dx, apart.in * sizeof(float));
        assert_memory_equal(fused.grad, apart.grad, apart.parameters * sizeof(float));
        arrays_free(&apart);
        arrays_free(&fused);
    }
}

static void maxpool_by_example(void **state)
{
    (void)state;
    struct network_layer layer = maxpool_layer((struct shape){1, 5, 5});
    const float x[25] = {
        1,  2,  5, 5, 9, /* */
        3,  0,  5, 5, 9, /* */
        -1, -2, 0, 0, 9, /* */
        -3, -1, 0, 7, 9, /* */
        9,  9,  9, 9, 9,
    };
    float y[4];
    uint32_t argmax[4];
    float dx[25];
    memset(dx, 0x55, sizeof dx);
    const struct layer_call call = {
        .layer = &layer,
        .n = 1,
        .inputs = {x},
        .output = y,
        .doutput = (float[]){10, 20, 30, 40},
        .dinputs = {dx},
        .saved = argmax,
    };
    maxpool_kind.forward(&call);
    assert_memory_equal(y, ((const float[]){3, 5, -1, 7}), sizeof y);
    assert_memory_equal(argmax, ((const uint32_t[]){2, 0, 0, 3}), sizeof argmax);

    maxpool_kind.backward(&call);
    const float expected[25] = {[5] = 10, [2] = 20, [10] = 30, [18] = 40};
    assert_memory_equal(dx, expected, sizeof dx);
}

static void compare_maxpool(const struct network_layer *layer)
{
    struct arrays fast = arrays_of(layer, 2);
    struct arrays plain = arrays_of(layer, 2);
    for (size_t i = 0; i < fast.in; i++)
        fast.x[i] = plain.x[i] = roundf(fast.x[i] * 3);
    run_forward(layer, &fast, 2);
    run_backward(layer, &fast, 2);
    maxpool_forward_reference(layer, plain.x, plain.y, plain.argmax, 2);
    maxpool_backward_reference(layer, plain.argmax, plain.dy, plain.dx, 2);
    assert_memory_equal(fast.y, plain.y, fast.out * sizeof(float));
    assert_memory_equal(fast.argmax, plain.argmax, fast.out * sizeof(uint32_t));
    assert_memory_equal(fast.dx, plain.dx, fast.in * sizeof(float));
    arrays_free(&fast);
    arrays_free(&plain);
}

/* Every width around the vector's, with many equal values. */
static void maxpool_equals_its_reference(void **state)
{
    (void)state;
    for (uint32_t w = 2; w <= 40; w++) {
        const struct network_layer layer = maxpool_layer((struct shape){3, 2 + w % 5, w});
        compare_maxpool(&layer);
    }
    for (uint32_t kernel = 1; kernel <= 4; kernel++)
        for (uint32_t stride = 1; stride <= 4; stride++)
            for (uint32_t padding = 0; padding <= kernel / 2; padding++) {
                const struct network_layer layer = window_layer((struct shape){2, 6, 9}, kernel, stride, padding);
                compare_maxpool(&layer);
            }
}

/* ---- Numerical gradients: dL/dv against (L(v + h) − L(v − h)) / 2h with L = Σ y·dy ---- */

static double weighted(const struct network_layer *layer, struct arrays *a, uint32_t n)
{
    run_forward(layer, a, n);
    double sum = 0;
    for (size_t i = 0; i < a->out; i++)
        sum += (double)a->y[i] * (double)a->dy[i];
    return sum;
}

/* `value` is one of the layer's inputs or parameters. */
static double central_difference(const struct network_layer *layer, struct arrays *a, uint32_t n, float *value, float h)
{
    const float kept = *value;
    *value = kept + h;
    double above = weighted(layer, a, n);
    *value = kept - h;
    double below = weighted(layer, a, n);
    *value = kept;
    return (above - below) / (2 * (double)h);
}

static void check_gradients(const struct network_layer *layer, struct arrays *a, uint32_t n, float h, double tolerance)
{
    run_forward(layer, a, n);
    run_backward(layer, a, n);
    for (size_t i = 0; i < a->in; i++)
        assert_true(fabs(central_difference(layer, a, n, &a->x[i], h) - (double)a->dx[i]) < tolerance);
    for (size_t i = 0; i < a->parameters; i++)
        assert_true(fabs(central_difference(layer, a, n, &a->params[i], h) - (double)a->grad[i]) < tolerance);
}

/* Linear in inputs and in parameters, so a large h brings no error of its own. */
static void dense_gradients_are_numerical_ones(void **state)
{
    (void)state;
    struct network_layer layer = dense_layer(9, 7);
    struct arrays a = arrays_of(&layer, 3);
    check_gradients(&layer, &a, 3, 0.5F, 1e-4);
    arrays_free(&a);
}

static void conv2d_gradients_are_numerical_ones(void **state)
{
    (void)state;
    for (uint32_t padding = 0; padding <= 2; padding++) {
        struct network_layer layer = conv2d_layer((struct shape){2, 6, 5}, 3, 3, padding);
        struct arrays a = arrays_of(&layer, 2);
        check_gradients(&layer, &a, 2, 0.5F, 2e-4);
        arrays_free(&a);
    }
}

/* Values at least 0.01 apart and away from zero, so that h = 0.002 crosses no kink. */
static void spread(float *x, size_t n)
{
    struct permutation order = permutation_of_epoch(n, 9, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = ((float)permutation_at(&order, i) - (float)n * 0.5F + 0.25F) * 0.01F;
}

static void maxpool_gradients_are_numerical_ones(void **state)
{
    (void)state;
    struct network_layer layer = maxpool_layer((struct shape){3, 6, 13});
    struct arrays a = arrays_of(&layer, 2);
    spread(a.x, a.in);
    check_gradients(&layer, &a, 2, 0.002F, 1e-3);
    arrays_free(&a);
}

static void relu_gradients_are_numerical_ones(void **state)
{
    (void)state;
    struct network_layer layer = relu_layer(50);
    struct arrays a = arrays_of(&layer, 2);
    spread(a.x, a.in);
    check_gradients(&layer, &a, 2, 0.002F, 1e-3);
    arrays_free(&a);
}

static void loss_gradients_are_numerical_ones(void **state)
{
    (void)state;
    enum { N = 5, CLASSES = 7 };
    const struct network network = {.loss = LOSS_SOFTMAX_CROSS_ENTROPY, .outputs = CLASSES};
    cleanup_free float *logits = random_floats((size_t)N * CLASSES, 8);
    const float targets[N] = {0, 6, 3, 3, 1};
    float dlogits[N * CLASSES];
    double loss = loss_gradient(&network, logits, targets, N, dlogits);
    uint64_t correct = 0;
    assert_true(loss == loss_evaluate(&network, logits, targets, N, &correct));
    for (int i = 0; i < N * CLASSES; i++) {
        const float kept = logits[i];
        const float h = 0x1p-10F;
        logits[i] = kept + h;
        double above = loss_evaluate(&network, logits, targets, N, &correct);
        logits[i] = kept - h;
        double below = loss_evaluate(&network, logits, targets, N, &correct);
        logits[i] = kept;
        assert_true(fabs((above - below) / (2 * (double)h) - (double)dlogits[i]) < 1e-6);
    }
}

static void losses_by_example(void **state)
{
    (void)state;
    const struct network network = {.loss = LOSS_SOFTMAX_CROSS_ENTROPY, .outputs = 4};
    const float logits[] = {0, 0, 0, 0, /* */ 1000, 0, 0, 0, /* */ -1000, 1000, 1000, 0};
    const float targets[] = {3, 0, 2};
    float dlogits[12];
    uint64_t correct = 0;
    double loss = loss_gradient(&network, logits, targets, 3, dlogits);
    /* ln 4 for ignorance, 0 for certainty, ln 2 for a tie */
    assert_true(fabs(loss - (log(4) + log(2))) < 1e-12);
    const float expected[] = {0.25F, 0.25F, 0.25F, -0.75F, 0, 0, 0, 0, 0, 0.5F, -0.5F, 0};
    assert_close(dlogits, expected, 12, 1e-7);
    (void)loss_evaluate(&network, logits, targets, 3, &correct);
    assert_int_equal(correct, 1); /* of equal logits the first is the answer */
}

/* ---- Memory: the same bits wherever arrays lie ---- */

enum { SHIFTS = 16 };

static float *shifted(const float *values, size_t n, size_t shift, float **owner)
{
    *owner = aligned_alloc(64, (n + SHIFTS + 16) * sizeof(float) / 64 * 64 + 64);
    assert_non_null(*owner);
    if (values != NULL)
        memcpy(*owner + shift, values, n * sizeof *values);
    return *owner + shift;
}

static void check_shifts(const struct network_layer *layer, uint32_t n)
{
    struct arrays plain = arrays_of(layer, n);
    run_forward(layer, &plain, n);
    run_backward(layer, &plain, n);
    for (size_t shift = 0; shift < SHIFTS; shift++) {
        float *owners[7];
        struct arrays a = plain;
        /* Each array by another amount; every one goes through all of them. */
        a.params = shifted(plain.params, a.parameters, shift, &owners[0]);
        a.x = shifted(plain.x, a.in, (shift * 3 + 1) % SHIFTS, &owners[1]);
        a.dy = shifted(plain.dy, a.out, (shift * 5 + 2) % SHIFTS, &owners[2]);
        a.y = shifted(NULL, a.out, (shift * 7 + 3) % SHIFTS, &owners[3]);
        a.dx = shifted(NULL, a.in, (shift * 9 + 4) % SHIFTS, &owners[4]);
        a.grad = shifted(NULL, a.parameters, (shift * 11 + 5) % SHIFTS, &owners[5]);
        a.scratch = shifted(NULL, scratch_of(layer, n), (shift * 13 + 6) % SHIFTS, &owners[6]);
        run_forward(layer, &a, n);
        run_backward(layer, &a, n);
        assert_memory_equal(a.y, plain.y, a.out * sizeof(float));
        assert_memory_equal(a.dx, plain.dx, a.in * sizeof(float));
        assert_memory_equal(a.grad, plain.grad, a.parameters * sizeof(float));
        for (int i = 0; i < 7; i++)
            free(owners[i]);
    }
    arrays_free(&plain);
}

static void results_do_not_depend_on_alignment(void **state)
{
    (void)state;
    static const uint32_t samples[] = {1, 4, 13, 16, 33};
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        const struct network_layer layers[] = {
            dense_layer(784, 256),
            dense_layer(256, 128),
            dense_layer(128, 10),
            dense_layer(400, 120),
            dense_layer(120, 84),
            dense_layer(84, 10),
            dense_layer(784, 1),
            conv2d_layer((struct shape){1, 28, 28}, 6, 5, 2),
            conv2d_layer((struct shape){6, 14, 14}, 16, 5, 0),
            conv2d_layer((struct shape){3, 9, 11}, 5, 3, 1),
            conv2d_layer((struct shape){16, 28, 28}, 16, 3, 1),
            strided_layer((struct shape){16, 28, 28}, 32, 3, 1, 2, 1),
            strided_layer((struct shape){16, 28, 28}, 32, 1, 0, 2, 1),
            conv2d_layer((struct shape){64, 7, 7}, 64, 3, 1),
            maxpool_layer((struct shape){6, 28, 28}),
            relu_layer(77),
        };
        for (size_t j = 0; j < sizeof layers / sizeof layers[0]; j++)
            check_shifts(&layers[j], samples[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_equals_its_reference),
        cmocka_unit_test(conv2d_equals_its_reference),
        cmocka_unit_test(conv2d_steps_and_groups_equal_their_reference),
        cmocka_unit_test(conv2d_takes_any_padding),
        cmocka_unit_test(gradients_are_added_where_asked),
        cmocka_unit_test(relu_on_the_way_is_relu_behind),
        cmocka_unit_test(maxpool_by_example),
        cmocka_unit_test(maxpool_equals_its_reference),
        cmocka_unit_test(dense_gradients_are_numerical_ones),
        cmocka_unit_test(conv2d_gradients_are_numerical_ones),
        cmocka_unit_test(maxpool_gradients_are_numerical_ones),
        cmocka_unit_test(relu_gradients_are_numerical_ones),
        cmocka_unit_test(loss_gradients_are_numerical_ones),
        cmocka_unit_test(losses_by_example),
        cmocka_unit_test(results_do_not_depend_on_alignment),
    };
    numerics_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
