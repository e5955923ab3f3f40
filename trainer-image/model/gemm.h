/* gemm — matrix products through OpenBLAS, cut so that they are fast for blocks of few samples. Private to model.
 *
 * How a product is cut depends on its sizes alone, so the bits do not depend on who computes it.
 */
#ifndef THOLE_MODEL_GEMM_H
#define THOLE_MODEL_GEMM_H

#include <stddef.h>

enum gemm_form { GEMM_NN, GEMM_NT, GEMM_TN }; /* which operand is stored transposed */

/* c [m][n] = a·b + beta·c, beta 0 or 1, all row-major and without gaps:
 *   GEMM_NN  a [m][k], b [k][n]     GEMM_NT  a [m][k], b [n][k]     GEMM_TN  a [k][m], b [k][n] */
void gemm(enum gemm_form form, size_t m, size_t n, size_t k, const float *a, const float *b, float beta, float *c);

/* The same, with `lda`, `ldb` and `ldc` floats from a row of a, b and c, as they are stored, to the next. */
void gemm_stepped(enum gemm_form form, size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                  size_t ldb, float beta, float *c, size_t ldc);

#endif
