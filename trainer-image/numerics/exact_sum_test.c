/* Sums against long arithmetic, bit by bit: in any order, in any parts, between the least and the largest double. */
#include "numerics/exact_sum.h"

#include "common/test/dice.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BITS = 2200, LEAST = -1074, SUMMANDS_MOST = 300, PARTS_MOST = 5, WORLDS = 4000 };

/* ---- the definition: bit i is of 2^(i − 1074) ---- */

struct number {
    bool bits[BITS];
};

static void number_add(struct number *number, double x)
{
    int exponent;
    uint64_t mantissa = (uint64_t)ldexp(frexp(x, &exponent), DBL_MANT_DIG);
    int at = exponent - DBL_MANT_DIG - LEAST;
    for (; at < 0; at++)
        mantissa >>= 1; /* a small number, which ends in zeros there */
    for (bool carry = false; mantissa > 0 || carry; mantissa >>= 1, at++) {
        int ones = number->bits[at] + (int)(mantissa & 1) + carry;
        number->bits[at] = ones % 2 != 0;
        carry = ones >= 2;
    }
}

static double number_value(const struct number *number)
{
    int end = BITS;
    while (end > 0 && !number->bits[end - 1])
        end--;
    const int begin = end > DBL_MANT_DIG ? end - DBL_MANT_DIG : 0;
    double mantissa = 0;
    for (int i = end; i-- > begin;)
        mantissa = 2 * mantissa + number->bits[i];
    bool more = false;
    for (int i = 0; i + 1 < begin; i++)
        more = more || number->bits[i];
    if (begin > 0 && number->bits[begin - 1] && (more || number->bits[begin]))
        mantissa++;
    return ldexp(mantissa, begin + LEAST);
}

/* ---- any order, any parts ---- */

/* Of all sizes, or of nearly the same; sometimes the last bits of a sum decide. */
static double summand(uint64_t *r, int kind)
{
    uint64_t bits = random_next(r) >> 1;
    if (kind == 0)
        bits = bits % ((uint64_t)0x7ff << 52);
    else if (kind == 1)
        bits = bits % ((uint64_t)3 << 52);
    else if (kind == 2)
        bits = (uint64_t)(1020 + bits % 8) << 52 | (bits >> 11);
    else
        return ldexp(1, (int)below(r, 120) - 60);
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void shuffle(uint64_t *r, double *x, uint32_t count)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t k = below(r, i);
        double last = x[i - 1];
        x[i - 1] = x[k];
        x[k] = last;
    }
}

static void expect_bits(double have, double want, const char *what, uint64_t seed)
{
    if (have != want || signbit(have) != signbit(want))
        fail_msg("world %llu, %s: %a and not %a", (unsigned long long)seed, what, have, want);
}

static double in_parts(uint64_t *r, const double *x, uint32_t count)
{
    struct exact_sum parts[PARTS_MOST] = {0}, sum = {0};
    struct error err = {0};
    for (uint32_t i = 0; i < count; i++)
        exact_sum_add(&parts[below(r, PARTS_MOST)], x[i]);
    for (uint32_t i = 0; i < PARTS_MOST; i++) {
        double written[EXACT_SUM_DOUBLES];
        exact_sum_write(&parts[i], written);
        if (exact_sum_read(&sum, written, &err) < 0)
            fail_msg("%s", error_message(&err));
    }
    return exact_sum_value(&sum);
}

static void no_order_and_no_parts_change_a_sum(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= WORLDS; seed++) {
        uint64_t r = seed * 7919;
        const int kind = (int)below(&r, 4);
        const uint32_t count = below(&r, SUMMANDS_MOST);
        double x[SUMMANDS_MOST];
        static struct number number;
        memset(&number, 0, sizeof number);
        for (uint32_t i = 0; i < count; i++) {
            x[i] = summand(&r, kind);
            number_add(&number, x[i]);
        }
        const double want = number_value(&number);
        for (int again = 0; again < 2; again++) {
            struct exact_sum sum = {0};
            for (uint32_t i = 0; i < count; i++)
                exact_sum_add(&sum, x[i]);
            expect_bits(exact_sum_value(&sum), want, "one after the other", seed);
            expect_bits(in_parts(&r, x, count), want, "in parts", seed);
            shuffle(&r, x, count);
        }
    }
}

/* ---- the edges ---- */

static void sums_are_rounded_once(void **state)
{
    (void)state;
    static const struct {
        double x[4], sum;
    } cases[] = {
        {{0}, 0},
        {{-0.0, -0.0}, 0},
        {{1, 0x1p-53}, 1}, /* a tie, to even */
        {{1, 0x1p-53, 0x1p-1074}, 1 + 0x1p-52},
        {{1 + 0x1p-52, 0x1p-53}, 1 + 0x1p-51},
        {{0x1p-1074, 0x1p-1074, 0x1p-1074}, 0x3p-1074},
        {{0x1.ffffffffffffep-1023, 0x1p-1074}, 0x1p-1022}, /* from the numbers without a first bit to those with one */
        {{0x1.fffffffffffffp-1, 0x1p-54}, 1},              /* up past the mantissa's end */
        {{DBL_MAX, 0x1p969}, DBL_MAX},
        {{DBL_MAX, 0x1p970}, (double)INFINITY},
        {{DBL_MAX, DBL_MAX, DBL_MAX, DBL_MAX}, (double)INFINITY},
        {{1, (double)INFINITY, 2}, (double)INFINITY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct exact_sum sum = {0};
        for (int k = 0; k < 4; k++)
            exact_sum_add(&sum, cases[i].x[k]);
        expect_bits(exact_sum_value(&sum), cases[i].sum, "by hand", i);
        uint64_t r = i + 1;
        expect_bits(in_parts(&r, cases[i].x, 4), cases[i].sum, "by hand, in parts", i);
    }
}

static void what_is_no_number_stays(void **state)
{
    (void)state;
    static const double cases[][2] = {{(double)NAN, 1},
                                      {(double)INFINITY, (double)NAN},
                                      {-1, 5},
                                      {-(double)INFINITY, (double)INFINITY},
                                      {0x1p-1074, -0x1p-1074}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct exact_sum sum = {0};
        uint64_t r = i + 1;
        exact_sum_add(&sum, cases[i][0]);
        exact_sum_add(&sum, cases[i][1]);
        exact_sum_add(&sum, 1);
        assert_true(isnan(exact_sum_value(&sum)));
        assert_true(isnan(in_parts(&r, cases[i], 2)));
    }
}

/* A sum as of 2^30 summands, which nobody waits for: what comes then needs that it is carried. */
static void many_summands_are_carried(void **state)
{
    (void)state;
    struct exact_sum sum = {.added = (UINT32_C(1) << 30) - 1};
    static struct number number;
    const size_t digit = 33;
    sum.digits[digit] = UINT64_MAX;
    memset(&number, 0, sizeof number);
    for (uint32_t bit = 0; bit < 64; bit++)
        number.bits[digit * 32 + bit] = true;
    sum.digits[digit]--; /* room for the one summand that comes before */
    number.bits[digit * 32] = false;
    for (int i = 0; i < 9; i++) {
        const double x = i == 0 ? ldexp(1, (int)digit * 32 + LEAST) : ldexp(0xffffffff, (int)digit * 32 + LEAST);
        exact_sum_add(&sum, x);
        number_add(&number, x);
    }
    assert_int_equal(sum.added, 8);
    expect_bits(exact_sum_value(&sum), number_value(&number), "many", 0);
}

static void what_is_no_sum_is_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t place;
        double value;
        const char *sentence;
    } cases[] = {
        {0, -1, "digit 0 of a sum is -1 and no whole number below 2^32"},
        {67, 0.5, "digit 67 of a sum is 0.5 and"},
        {5, 4294967296.0, "digit 5 of a sum is 4.29497e+09 and"},
        {6, 1e300, "digit 6 of a sum is 1e+300 and"},
        {7, (double)NAN, "digit 7 of a sum is nan and"},
        {8, (double)INFINITY, "digit 8 of a sum is inf and"},
        {68, 1, "a sum ends with 1 and not with 0, infinity or NaN"},
        {68, -(double)INFINITY, "a sum ends with -inf and"},
        {3, 4294967295.0, NULL},
        {68, (double)INFINITY, NULL},
        {68, (double)NAN, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct exact_sum sum = {0};
        struct error err = {0};
        double written[EXACT_SUM_DOUBLES];
        exact_sum_add(&sum, 3);
        exact_sum_write(&sum, written);
        written[cases[i].place] = cases[i].value;
        assert_int_equal(exact_sum_read(&sum, written, &err), cases[i].sentence == NULL ? 0 : -1);
        if (cases[i].sentence == NULL)
            continue;
        if (strstr(error_message(&err), cases[i].sentence) == NULL)
            fail_msg("'%s' does not say '%s'", error_message(&err), cases[i].sentence);
        assert_true(exact_sum_value(&sum) == 3);
    }
    /* All digits as large as they can be, from as many shards as there can be: past all doubles, and within the memory.
     */
    struct exact_sum sum = {0};
    double written[EXACT_SUM_DOUBLES] = {0};
    for (uint32_t i = 0; i < EXACT_SUM_DIGITS; i++)
        written[i] = UINT32_MAX;
    for (int shard = 0; shard < 16; shard++) {
        struct error err = {0};
        assert_int_equal(exact_sum_read(&sum, written, &err), 0);
        assert_true(isinf(exact_sum_value(&sum)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_order_and_no_parts_change_a_sum),
        cmocka_unit_test(sums_are_rounded_once),
        cmocka_unit_test(what_is_no_number_stays),
        cmocka_unit_test(many_summands_are_carried),
        cmocka_unit_test(what_is_no_sum_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
