#include "numerics/numerics.h"

#include "common/crypto.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { ELEMENTS = 4096, SLACK = 16 };

/* A function over vectors, and what it should be. */
struct curve {
    const char *name;
    void (*compute)(float *y, const float *x, size_t n);
    long double (*exact)(long double x);
    double absolute; /* an error that is allowed wherever it is more than 0.51 ulp */
};

static void slope_alone(float *y, const float *x, size_t n)
{
    float values[ELEMENTS];
    vector_gelu_slope(values, y, x, n);
}

static long double exact_sigmoid(long double x)
{
    return 1 / (1 + expl(-x));
}

static long double normal_below(long double x)
{
    return 0.5L * erfcl(-x * sqrtl(0.5L));
}

static long double exact_gelu(long double x)
{
    return x * normal_below(x);
}

static long double exact_slope(long double x)
{
    return normal_below(x) + x * expl(-0.5L * x * x) / sqrtl(2 * acosl(-1));
}

static const struct curve curves[] = {
    {"tanh", vector_tanh, tanhl, 0},
    {"sigmoid", vector_sigmoid, exact_sigmoid, 0},
    {"GELU", vector_gelu, exact_gelu, 0},
    {"slope of GELU", slope_alone, exact_slope, 0x1p-40},
};
enum { CURVES = sizeof curves / sizeof curves[0] };

/* In units in the last place of what is expected; 0 where within `absolute`. */
static double error_of(float got, long double exact, double absolute)
{
    const double error = (double)fabsl((long double)got - exact);
    int exponent;
    (void)frexp((double)exact, &exponent);
    return error <= absolute ? 0 : error / ldexp(1, exponent - 24 < -149 ? -149 : exponent - 24);
}

/* Returns the worst error of x[ELEMENTS]. */
static double worst_of(const struct curve *curve, const float *x)
{
    float y[ELEMENTS];
    double worst = 0;
    curve->compute(y, x, ELEMENTS);
    for (size_t i = 0; i < ELEMENTS; i++) {
        const double error = error_of(y[i], curve->exact((long double)x[i]), curve->absolute);
        if (!(error < 0.51))
            fail_msg("%s of %a is %a: an error of %g units in the last place", curve->name, (double)x[i], (double)y[i],
                     error);
        worst = fmax(worst, error);
    }
    return worst;
}

static void curves_are_within_their_error(void **state)
{
    (void)state;
    static const float ranges[] = {1, 0.01F, 6, 20, 120};
    for (size_t c = 0; c < CURVES; c++) {
        double worst = 0;
        float x[ELEMENTS];
        for (uint32_t r = 0; r < 5; r++) {
            random_uniform_range(random_stream(31, RANDOM_CANARY, r, 0, 0), 0, ELEMENTS, -ranges[r], ranges[r], x);
            worst = fmax(worst, worst_of(&curves[c], x));
        }
        /* Every exponent, both signs, among them the subnormal ones. */
        const struct random_stream stream = random_stream(32, RANDOM_CANARY, 0, 0, 0);
        for (uint32_t i = 0; i < ELEMENTS; i++) {
            const uint32_t bits = random_u32_at(stream, i) & 0x807fffff;
            const uint32_t whole = bits | (i % 255) << 23;
            memcpy(&x[i], &whole, sizeof x[i]);
        }
        worst = fmax(worst, worst_of(&curves[c], x));
        assert_true(worst > 0.49); /* else this test does not look at what it should */
    }
}

static void curves_of_the_special(void **state)
{
    (void)state;
    const float x[] = {0, -0.0F, INFINITY, -INFINITY, NAN};
    float y[5];
    float slope[5];
    vector_tanh(y, x, 5);
    assert_true(y[0] == 0 && y[1] == 0 && signbit(y[1]) && y[2] == 1 && y[3] == -1 && isnan(y[4]));
    vector_sigmoid(y, x, 5);
    assert_true(y[0] == 0.5F && y[1] == 0.5F && y[2] == 1 && y[3] == 0 && isnan(y[4]));
    vector_gelu_slope(y, slope, x, 5);
    assert_true(y[0] == 0 && signbit(y[1]) && y[2] == INFINITY && isnan(y[4]));
    assert_true(slope[0] == 0.5F && slope[1] == 0.5F && isnan(slope[4]));
}

/* In place, from any address, cut anywhere; and with its slope or without. */
static void curves_do_not_depend_on_width_or_place(void **state)
{
    (void)state;
    float x[ELEMENTS];
    float expected[ELEMENTS];
    float space[ELEMENTS + SLACK];
    random_uniform_range(random_stream(33, RANDOM_CANARY, 0, 0, 0), 0, ELEMENTS, -8, 8, x);
    for (size_t c = 0; c < CURVES; c++) {
        for (size_t i = 0; i < ELEMENTS; i++)
            curves[c].compute(expected + i, x + i, 1);
        for (size_t offset = 0; offset < SLACK; offset++) {
            const size_t n = ELEMENTS - 13 * offset;
            memcpy(space + offset, x, n * sizeof *x);
            curves[c].compute(space + offset, space + offset, n);
            assert_memory_equal(space + offset, expected, n * sizeof *x);
        }
    }
    float slope[ELEMENTS];
    vector_gelu(expected, x, ELEMENTS);
    vector_gelu_slope(space, slope, x, ELEMENTS);
    assert_memory_equal(space, expected, sizeof expected);
}

/* Models of before can be made again only while these stay. */
static void bits_stay_what_they_are(void **state)
{
    (void)state;
    static const char *const expected[CURVES] = {
        "a280148760418c8d44fc99b5d3ac4e700a0848333e68d766a4d921b47eee46d1",
        "0abf21e119552f8a351f16bad13e6e994e2515721342a5c7c548ac95b36d3492",
        "9daa0d6e8d8a9399749c7ffe839627a1f3ecb5ba9f266bc27fbaafc26a5ec830",
        "1b57a85704e9578348f7151830e7248004e803863a042bcb73c2cd049c21d858",
    };
    float x[ELEMENTS];
    float y[ELEMENTS];
    random_uniform_range(random_stream(34, RANDOM_CANARY, 0, 0, 0), 0, ELEMENTS, -10, 10, x);
    for (size_t c = 0; c < CURVES; c++) {
        uint8_t digest[SHA256_SIZE];
        char hex[SHA256_HEX_SIZE];
        curves[c].compute(y, x, ELEMENTS);
        sha256(y, sizeof y, digest);
        hex_encode(digest, sizeof digest, hex);
        assert_string_equal(hex, expected[c]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(curves_are_within_their_error),
        cmocka_unit_test(curves_of_the_special),
        cmocka_unit_test(curves_do_not_depend_on_width_or_place),
        cmocka_unit_test(bits_stay_what_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
