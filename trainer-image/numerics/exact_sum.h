/* exact_sum — a sum of doubles that neither the order of its summands nor who adds which of them can change.
 *
 * A number in fixed point over everything that a double can be (Kulisch's accumulator: "Computer arithmetic and
 * validity", 2008), to which a double is added without rounding; it is rounded once, at the end. Sums of parts, from
 * other processes too, are added up as whole numbers. For what is spread over shards by something else than its order,
 * such as rows of embedding tables: elsewhere a fixed order is cheaper.
 *
 * There is room for 2^78 of the largest doubles, which is more than anybody can count to.
 */
#ifndef THOLE_NUMERICS_EXACT_SUM_H
#define THOLE_NUMERICS_EXACT_SUM_H

#include "common/error.h"

#include <stdint.h>

enum {
    EXACT_SUM_DIGITS = 68,                    /* of 32 bits: 2098 that doubles have, and those of their number */
    EXACT_SUM_DOUBLES = EXACT_SUM_DIGITS + 1, /* as which it travels */
};

/* Starts as {0}. */
struct exact_sum {
    uint64_t digits[EXACT_SUM_DIGITS]; /* digit i is of 2^(32·i − 1074); the upper halves are what is to be carried */
    uint32_t added;                    /* summands since it was carried */
    double other;                      /* what has no digits: 0, or infinity or NaN where a summand was */
};

/* Adds x ≥ 0; what is negative counts as NaN. */
void exact_sum_add(struct exact_sum *sum, double x);

/* The nearest double, ties to even: infinity above them all; as in any other sum, infinity where a summand was that and
 * NaN where one was NaN. */
double exact_sum_value(const struct exact_sum *sum);

/* The sum as doubles, each a whole number below 2^32 but for the last, which is 0, infinity or NaN. */
void exact_sum_write(const struct exact_sum *sum, double out[EXACT_SUM_DOUBLES]);
/* Adds what another one wrote; -1 with a sentence where that is none, and nothing has changed then. */
int exact_sum_read(struct exact_sum *sum, const double in[EXACT_SUM_DOUBLES], struct error *err);

#endif
