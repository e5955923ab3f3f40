#include "numerics/numerics.h"

#include "common/cleanup.h"
#include "common/crypto.h"
#include "numerics/kernel.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- Philox: the known answers of the paper's own library, Random123 ("kat_vectors", philox4x32 10 rounds) ---- */

static void philox_gives_the_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t out[4];
        philox4x32(cases[i].counter, cases[i].key, out);
        assert_memory_equal(out, cases[i].expected, sizeof out);
    }
}

static void streams_differ_in_every_coordinate(void **state)
{
    (void)state;
    const struct random_stream streams[] = {
        random_stream(1, RANDOM_INIT, 0, 0, 0),
        random_stream(2, RANDOM_INIT, 0, 0, 0),
        random_stream(UINT64_C(1) << 32 | 1, RANDOM_INIT, 0, 0, 0),
        random_stream(1, RANDOM_ORDER, 0, 0, 0),
        random_stream(1, RANDOM_INIT, 1, 0, 0),
        random_stream(1, RANDOM_INIT, 0, 1, 0),
        random_stream(1, RANDOM_INIT, 0, 0, 1),
        random_stream(1, RANDOM_INIT, 0, 0, UINT64_C(1) << 32),
    };
    const size_t count = sizeof streams / sizeof streams[0];
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(&streams[i], &streams[j], sizeof streams[i]);
    struct random_stream stream = streams[0];
    assert_true(random_u32_at(stream, 0) != random_u32_at(stream, 1));
    assert_true(random_u32_at(stream, 0) != random_u32_at(stream, UINT64_C(1) << 34));
}

static void uniform_ranges_are_cut_anywhere(void **state)
{
    (void)state;
    enum { N = 333 };
    /* Some begin within a block, one where the block's number outgrows 32 bits. */
    static const uint64_t begins[] = {0, 1000, 1001, 1003, (UINT64_C(1) << 34) - 100};
    struct random_stream stream = random_stream(7, RANDOM_INIT, 3, 0, 0);
    for (size_t b = 0; b < sizeof begins / sizeof begins[0]; b++) {
        float whole[N];
        random_uniform_range(stream, begins[b], begins[b] + N, -0.5F, 0.5F, whole);
        double mean = 0;
        for (uint64_t i = 0; i < N; i++) {
            const uint64_t at = begins[b] + i;
            float one;
            random_uniform_range(stream, at, at + 1, -0.5F, 0.5F, &one);
            assert_memory_equal(&one, &whole[i], sizeof one);
            assert_true(one >= -0.5F && one < 0.5F);
            float expected = -0.5F + (float)(random_u32_at(stream, at) >> 8) * 0x1p-24F;
            assert_memory_equal(&one, &expected, sizeof one);
            mean += (double)one / N;
        }
        assert_true(fabs(mean) < 0.1);
    }
}

/* ---- Permutations ---- */

static void permutations_are_bijections(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1,  2,  3,   4,   5,    7,    8,    9,    15,    16,
                                     17, 99, 100, 101, 1000, 1023, 1024, 1025, 60000, 65537};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        cleanup_free uint8_t *seen = calloc(sizes[i], 1);
        assert_non_null(seen);
        struct permutation permutation = permutation_of_epoch(sizes[i], 42, (uint32_t)i);
        for (uint64_t index = 0; index < sizes[i]; index++) {
            uint64_t value = permutation_at(&permutation, index);
            assert_true(value < sizes[i]);
            assert_int_equal(seen[value]++, 0);
        }
    }
}

/* What a seed means may never change: models would no longer come out as they did. */
static void permutations_stay_what_they_are(void **state)
{
    (void)state;
    static const struct {
        uint64_t n, seed, expected[6];
        uint32_t epoch;
    } cases[] = {
        {60000U, 1U, {11567, 44025, 27493, 20124, 47074, 59310}, 0U},
        {60000U, 1U, {36483, 20649, 19475, 55984, 52152, 51821}, 1U},
        {60000U, 2U, {11551, 57600, 50223, 1586, 18246, 31763}, 0U},
        {10U, 7U, {2, 9, 5, 3, 7, 4}, 0U},
        {6U, 1U, {3, 0, 2, 1, 5, 4}, 3U},
        {1000003U, 18446744073709551615U, {486222, 480967, 349478, 931169, 401340, 305168}, 4000000000U},
        {1099511627776U,
         123456789U,
         {747765286762, 908850786009, 1046047899849, 20474605526, 403955273912, 673061349323},
         9U},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct permutation permutation = permutation_of_epoch(cases[i].n, cases[i].seed, cases[i].epoch);
        for (uint64_t index = 0; index < 6; index++)
            assert_int_equal(permutation_at(&permutation, index), cases[i].expected[index]);
    }
}

static void permutations_reach_large_sets(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - 1, UINT64_C(1) << 63, (UINT64_C(1) << 32) + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct permutation permutation = permutation_of_epoch(sizes[i], 1, 0);
        assert_true((unsigned __int128)permutation.left * permutation.right >= sizes[i]);
        assert_true(permutation.left <= UINT64_C(1) << 32 && permutation.right <= UINT64_C(1) << 32);
        assert_true(permutation_at(&permutation, 0) < sizes[i]);
        assert_true(permutation_at(&permutation, sizes[i] - 1) < sizes[i]);
        assert_true(permutation_at(&permutation, 0) != permutation_at(&permutation, sizes[i] - 1));
    }
}

/* Where an index goes over many epochs should be spread like fair dice: chi-square within 6 sigma of its mean. */
static void permutations_spread_evenly(void **state)
{
    (void)state;
    enum { N = 30, EPOCHS = 30000 };
    static uint32_t counts[N][N];
    memset(counts, 0, sizeof counts);
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        struct permutation permutation = permutation_of_epoch(N, 5, epoch);
        for (uint64_t index = 0; index < N; index += 7)
            counts[index][permutation_at(&permutation, index)]++;
    }
    const double expected = (double)EPOCHS / N;
    for (uint64_t index = 0; index < N; index += 7) {
        double chi_square = 0;
        for (int value = 0; value < N; value++)
            chi_square += (counts[index][value] - expected) * (counts[index][value] - expected) / expected;
        assert_true(fabs(chi_square - (N - 1)) < 6 * sqrt(2.0 * (N - 1)));
    }
}

/* ---- Vectors: whole calls against calls of one element each, at odd lengths and places ---- */

enum { ELEMENTS = 133, SLACK = 16 };

static void fill(float *values, size_t n, uint32_t layer)
{
    random_uniform_range(random_stream(11, RANDOM_CANARY, layer, 0, 0), 0, n, -2, 2, values);
    values[0] = -0.0F;
    values[1] = 0.0F;
    values[2] = (float)NAN;
    values[3] = (float)INFINITY;
    values[4] = 1e-42F;
}

static void vectors_do_not_depend_on_width_or_place(void **state)
{
    (void)state;
    for (size_t offset = 0; offset < SLACK; offset++)
        for (size_t n = ELEMENTS - 20; n <= ELEMENTS; n++) {
            float a_space[ELEMENTS + SLACK];
            float b_space[ELEMENTS + SLACK];
            float *a = a_space + offset;
            float *b = b_space + (SLACK - offset);
            float whole[2][6][ELEMENTS];
            uint16_t packed[2][3][ELEMENTS];
            fill(a, ELEMENTS, 1);
            fill(b, ELEMENTS, 2);
            for (int way = 0; way < 2; way++) {
                float(*out)[ELEMENTS] = whole[way];
                for (int i = 0; i < 6; i++)
                    memcpy(out[i], a, n * sizeof *a);
                size_t piece = way == 0 ? n : 1;
                for (size_t i = 0; i < n; i += piece) {
                    vector_add(out[0] + i, b + i, piece);
                    vector_sum(out[1] + i, a + i, b + i, piece);
                    vector_relu(out[2] + i, a + i, piece);
                    vector_relu_backward(out[3] + i, a + i, b + i, piece);
                    vector_bfloat16_add(out[4] + i, b + i, piece);
                    vector_bfloat16_sum(out[5] + i, a + i, b + i, piece);
                    vector_bfloat16_pack(packed[way][0] + i, a + i, piece);
                    vector_bfloat16_sum_pack(packed[way][1] + i, a + i, b + i, piece);
                    vector_bfloat16_pack(packed[way][2] + i, b + i, piece);
                    vector_bfloat16_sum_packed(packed[way][2] + i, packed[way][0] + i, packed[way][2] + i, piece);
                }
            }
            for (int i = 0; i < 6; i++)
                assert_memory_equal(whole[0][i], whole[1][i], n * sizeof *a);
            for (int i = 0; i < 3; i++)
                assert_memory_equal(packed[0][i], packed[1][i], n * sizeof packed[0][0][0]);
            /* All ways to a sum are one. */
            float sum[ELEMENTS];
            vector_bfloat16_unpack(sum, packed[0][1], n);
            assert_memory_equal(sum, whole[0][4], n * sizeof *sum);
            assert_memory_equal(sum, whole[0][5], n * sizeof *sum);
            assert_memory_equal(packed[0][2], packed[0][1], n * sizeof packed[0][0][0]);
        }
}

static void vectors_compute_what_they_say(void **state)
{
    (void)state;
    const float x[] = {1, -2, 0.5F, (float)NAN};
    const float y[] = {10, 20, -30, 40};
    float out[4];
    vector_relu(out, x, 4);
    assert_true(out[0] == 1 && out[1] == 0 && out[2] == 0.5F && isnan(out[3]));
    vector_relu_backward(out, x, y, 4);
    assert_true(out[0] == 10 && out[1] == 0 && out[2] == -30);
}

static void bfloat16_rounds_to_the_nearest(void **state)
{
    (void)state;
    static const struct {
        uint32_t in;
        uint16_t out;
    } cases[] = {
        {0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x3f800000, 0x3f80}, /* 0, −0, 1 */
        {0x3f807fff, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81}, /* around a tie whose even side is below */
        {0x3f817fff, 0x3f81}, {0x3f818000, 0x3f82}, {0x3f818001, 0x3f82}, /* and above */
        {0xbf818000, 0xbf82}, {0x3fffffff, 0x4000},                       /* into the next power of two */
        {0x7f7f7fff, 0x7f7f}, {0x7f7f8000, 0x7f80}, {0x7f7fffff, 0x7f80}, /* the largest, and what is beyond it */
        {0x7f800000, 0x7f80}, {0xff800000, 0xff80},                       /* infinities */
        {0x7f800001, 0x7fc0}, {0x7fffffff, 0x7fc0}, {0xffc00000, 0x7fc0}, {0xff80ffff, 0x7fc0}, /* NaN stays NaN */
        {0x00000001, 0x0000}, {0x00008000, 0x0000}, {0x00008001, 0x0001}, {0x007fffff, 0x0080}, /* subnormal ones */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float x;
        uint16_t packed;
        memcpy(&x, &cases[i].in, sizeof x);
        vector_bfloat16_pack(&packed, &x, 1);
        if (bfloat16_of(x) != cases[i].out || packed != cases[i].out)
            fail_msg("%08x becomes %04x and %04x, not %04x", cases[i].in, bfloat16_of(x), packed, cases[i].out);
    }
    /* What is bfloat16 already stays as it is, NaN's payload aside. */
    for (uint32_t bits = 0; bits <= UINT16_MAX; bits++) {
        float value = bfloat16_value((uint16_t)bits);
        assert_int_equal(bfloat16_of(value), isnan(value) ? 0x7fc0 : bits);
    }
}

static void totals_are_added_in_fixed_lanes(void **state)
{
    (void)state;
    float space[ELEMENTS + SLACK];
    random_uniform_range(random_stream(12, RANDOM_CANARY, 0, 0, 0), 0, ELEMENTS + SLACK, -2, 2, space);
    for (size_t n = 0; n <= ELEMENTS; n++) {
        float lanes[16] = {0};
        for (size_t i = 0; i < n; i++)
            lanes[i % 16] += space[i];
        for (int half = 8; half > 0; half /= 2)
            for (int lane = 0; lane < half; lane++)
                lanes[lane] += lanes[lane + half];
        const float expected = lanes[0];
        float values[ELEMENTS + SLACK];
        for (size_t offset = 0; offset < SLACK; offset++) {
            memcpy(values + offset, space, n * sizeof *values);
            float total = vector_total(values + offset, n);
            assert_memory_equal(&total, &expected, sizeof total);
        }
    }
}

/* ---- exp and log against the C library's 64-bit significand ---- */

static double error_in_ulps(double got, long double exact)
{
    double rounded = (double)exact;
    if (got == rounded)
        return (double)(fabsl((long double)got - exact) /
                        (long double)(nextafter(fabs(rounded), INFINITY) - fabs(rounded)));
    int exponent;
    (void)frexp(rounded, &exponent);
    double ulp = ldexp(1, exponent - 53 < -1074 ? -1074 : exponent - 53);
    return (double)(fabsl((long double)got - exact) / (long double)ulp);
}

static double uniform_double(struct random_stream stream, uint64_t position, double low, double high)
{
    uint64_t bits = (uint64_t)random_u32_at(stream, 2 * position) << 32 | random_u32_at(stream, 2 * position + 1);
    return low + (double)(bits >> 11) * 0x1p-53 * (high - low);
}

static void exp_and_log_are_within_their_error(void **state)
{
    (void)state;
    static const struct {
        double low, high;
    } ranges[] = {{-1, 1}, {-20, 20}, {-745, 709.7}, {-1e-8, 1e-8}, {-745, -700}};
    struct random_stream stream = random_stream(3, RANDOM_CANARY, 0, 0, 0);
    double worst_exp = 0;
    double worst_log = 0;
    double worst_log_near_one = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        double x = uniform_double(stream, i, ranges[i % 5].low, ranges[i % 5].high);
        worst_exp = fmax(worst_exp, error_in_ulps(numerics_exp(x), expl((long double)x)));
        double y = numerics_exp(uniform_double(stream, i, -744, 709));
        worst_log = fmax(worst_log, error_in_ulps(numerics_log(y), logl((long double)y)));
        double near_one = uniform_double(stream, i, 0.5, 2);
        worst_log_near_one =
            fmax(worst_log_near_one, error_in_ulps(numerics_log(near_one), logl((long double)near_one)));
    }
    print_message("worst errors in ulps: exp %.3f, log %.3f, log near 1 %.3f\n", worst_exp, worst_log,
                  worst_log_near_one);
    assert_true(worst_exp < 0.85);
    assert_true(worst_log < 0.8);
    assert_true(worst_log_near_one < 0.8);
}

/* A compiler that fuses, reorders or keeps more digits would give others. */
static void bits_stay_what_they_are(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct random_stream stream = random_stream(9, RANDOM_CANARY, 1, 2, 3);
    static double elementary[N][2];
    static float floats[N];
    for (uint64_t i = 0; i < N; i++) {
        double x = uniform_double(stream, i, -700, 700);
        elementary[i][0] = numerics_exp(x);
        elementary[i][1] = numerics_log(elementary[i][0]);
    }
    random_uniform_range(stream, 5, 5 + N, -0.3F, 0.3F, floats);
    static const struct {
        const void *data;
        size_t length;
        const char *expected;
    } cases[] = {
        {elementary, sizeof elementary, "67a26384004b030c5097a222bc066df17530c5225648d473d3a9190d9741808c"},
        {floats, sizeof floats, "0e88e0328ea98213b40a0fc05a1436d53856f35d58f7cfee103f86e70e85d788"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t digest[SHA256_SIZE];
        char hex[SHA256_HEX_SIZE];
        sha256(cases[i].data, cases[i].length, digest);
        hex_encode(digest, sizeof digest, hex);
        assert_string_equal(hex, cases[i].expected);
    }
}

static void exp_and_log_of_the_special(void **state)
{
    (void)state;
    assert_true(numerics_exp(0) == 1 && numerics_exp(-0.0) == 1);
    assert_true(numerics_exp(INFINITY) == INFINITY && numerics_exp(-INFINITY) == 0);
    assert_true(isnan(numerics_exp(NAN)) && isnan(numerics_log(NAN)) && isnan(numerics_log(-1)));
    assert_true(numerics_exp(709.78) > 1.7e308 && numerics_exp(709.78) < INFINITY);
    assert_true(numerics_exp(709.785) == INFINITY && numerics_exp(1e300) == INFINITY);
    assert_true(numerics_exp(-745.13) == 0x1p-1074 && numerics_exp(-745.2) == 0 && numerics_exp(-1e300) == 0);
    assert_true(numerics_exp(1e-320) == 1);
    assert_true(numerics_log(1) == 0 && !signbit(numerics_log(1)));
    assert_true(numerics_log(0) == -INFINITY && numerics_log(-0.0) == -INFINITY);
    assert_true(numerics_log(INFINITY) == INFINITY);
    assert_true(fabs(numerics_log(0x1p-1074) + 744.4400719213812) < 1e-12);
}

/* ---- Kernel families ---- */

static void families_are_checked_against_the_cpu(void **state)
{
    (void)state;
    const unsigned haswell = CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_AVX2 | CPU_FMA;
    struct error err = {0};
    assert_int_equal(kernel_check("Haswell", haswell, &err), 0);
    assert_int_equal(kernel_check("Zen", haswell, &err), 0);
#if defined(__x86_64__)
    assert_int_equal(kernel_check("SkylakeX", haswell, &err), -1);
    assert_string_equal(error_message(&err),
                        "this CPU cannot run the OpenBLAS kernel family SkylakeX that the job started with; run the "
                        "job's pods on nodes that can, by spec.template.spec.nodeSelector");
    assert_int_equal(kernel_check("Cooperlake", haswell | CPU_AVX512, &err), -1);
    assert_int_equal(kernel_check("Haswell", 0, &err), -1);
    assert_int_equal(kernel_check("Pentium", haswell, &err), -1);
    assert_string_equal(error_message(&err),
                        "'Pentium' is no OpenBLAS kernel family that this program knows on x86-64");
#endif
    assert_int_equal(kernel_check(numerics_kernel(), kernel_cpu_features(), &err), 0);
}

/* Runs this program as `--pin FAMILY` with extra environment; returns what it printed. */
static void run_pin(const char *environment, const char *family, char *out, size_t size)
{
    char self[512];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = '\0';
    char command[1024];
    assert_true(snprintf(command, sizeof command, "env %s '%s' --pin %s", environment, self, family) <
                (int)sizeof command);
    FILE *pipe = popen(command, "r"); /* NOLINT(cert-env33-c): fixed words and our own path */
    assert_non_null(pipe);
    size_t got = fread(out, 1, size - 1, pipe);
    out[got] = '\0';
    assert_int_equal(pclose(pipe), 0);
}

static void a_process_starts_again_with_the_jobs_family(void **state)
{
    (void)state;
    struct error err = {0};
    if (kernel_check("Haswell", kernel_cpu_features(), &err) < 0 ||
        kernel_check("Nehalem", kernel_cpu_features(), &err) < 0)
        skip();
    char out[1024];
    run_pin("-u OPENBLAS_CORETYPE", "Nehalem", out, sizeof out);
    assert_string_equal(out, "Nehalem 1\n");
    run_pin("OPENBLAS_CORETYPE=Haswell", "Haswell", out, sizeof out);
    assert_string_equal(out, "Haswell 1 fuses\n");
    /* What a restart for another family left in the environment is no obstacle. */
    run_pin("OPENBLAS_CORETYPE=Haswell THOLE_KERNEL_RESTART=Haswell", "Nehalem", out, sizeof out);
    assert_string_equal(out, "Nehalem 1\n");
}

static void a_restart_in_vain_is_not_repeated(void **state)
{
    (void)state;
    struct error err = {0};
    if (kernel_check("Nehalem", kernel_cpu_features(), &err) < 0)
        skip();
    char out[1024];
    run_pin("OPENBLAS_CORETYPE=Nehalem THOLE_KERNEL_RESTART=Haswell", "Haswell", out, sizeof out);
    assert_string_equal(out, "the OpenBLAS here uses its kernel family Nehalem although Haswell, which the job started "
                             "with, was asked for; run the job's pods on nodes of one CPU family and with one trainer "
                             "image\n");
}

static int pin_main(char *const argv[])
{
    struct error err = {0};
    numerics_setup();
    if (numerics_pin_kernel(argv[2], argv, &err) < 0)
        printf("%s\n", error_message(&err));
    else
        printf("%s 1%s\n", numerics_kernel(), numerics_kernel_fuses() ? " fuses" : "");
    return 0;
}

int main(int argc, char *argv[])
{
    if (argc == 3 && strcmp(argv[1], "--pin") == 0)
        return pin_main(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(streams_differ_in_every_coordinate),
        cmocka_unit_test(uniform_ranges_are_cut_anywhere),
        cmocka_unit_test(permutations_are_bijections),
        cmocka_unit_test(permutations_stay_what_they_are),
        cmocka_unit_test(permutations_reach_large_sets),
        cmocka_unit_test(permutations_spread_evenly),
        cmocka_unit_test(vectors_do_not_depend_on_width_or_place),
        cmocka_unit_test(vectors_compute_what_they_say),
        cmocka_unit_test(bfloat16_rounds_to_the_nearest),
        cmocka_unit_test(totals_are_added_in_fixed_lanes),
        cmocka_unit_test(exp_and_log_are_within_their_error),
        cmocka_unit_test(bits_stay_what_they_are),
        cmocka_unit_test(exp_and_log_of_the_special),
        cmocka_unit_test(families_are_checked_against_the_cpu),
        cmocka_unit_test(a_process_starts_again_with_the_jobs_family),
        cmocka_unit_test(a_restart_in_vain_is_not_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
