/* gemm — matrix products, through OpenBLAS, cut so that they are fast for blocks of few samples, or over what is not
 * zero. Private to model.
 *
 * Which way a product goes and how it is cut depend on its sizes and zeros and on the kernel family, which is one for
 * all members of a job: the bits do not depend on who computes it.
 */
#ifndef THOLE_MODEL_GEMM_H
#define THOLE_MODEL_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gemm_form { GEMM_NN, GEMM_NT, GEMM_TN }; /* which operand is stored transposed */

/* c [m][n] = a·b + beta·c, beta 0 or 1, all row-major and without gaps:
 *   GEMM_NN  a [m][k], b [k][n]     GEMM_NT  a [m][k], b [n][k]     GEMM_TN  a [k][m], b [k][n] */
void gemm(enum gemm_form form, size_t m, size_t n, size_t k, const float *a, const float *b, float beta, float *c);

/* The same, with `lda`, `ldb` and `ldc` floats from a row of a, b and c, as they are stored, to the next. */
void gemm_stepped(enum gemm_form form, size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                  size_t ldb, float beta, float *c, size_t ldc);

/* What gemm_sparse() computes with; the bits are the same, but for which NaN a NaN is. */
enum gemm_unit { GEMM_NO_UNIT, GEMM_AVX2, GEMM_AVX512 };

/* The best that this CPU has. */
enum gemm_unit gemm_unit(void);

/* The operands of a product [m][n], as those of gemm_stepped(). */
struct gemm_factors {
    size_t k;
    const float *a;
    size_t lda;
    const float *b;
    size_t ldb;
};

enum { GEMM_SUM_MOST = 4 };

/* c = the sum of `count` products, one, or two, or four: (0 + 1) + (2 + 3); where `rounded`, added up as by
 * vector_bfloat16_add(). For an `a` with many zeros, such as what comes out of a ReLU or back through one: each element
 * of a product is the sum over the elements of a that are not zero, from the first to the last, by fused multiply-adds.
 * What those that are zero would meet is not read: infinity or NaN in b stays unseen there.
 * Returns false, and has done nothing, where a product of all elements is faster for one of them. That depends for each
 * on the sizes and on which elements of its a are zero (and on `unit`, where it is GEMM_NO_UNIT), not on those beside
 * it; only of many at once they may be too large, so that each has to be made by itself. */
bool gemm_sparse(enum gemm_unit unit, enum gemm_form form, size_t m, size_t n, const struct gemm_factors *factors,
                 uint32_t count, bool rounded, float *c, size_t ldc);

#endif
