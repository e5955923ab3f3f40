#include "model/gemm.h"

#include <cblas.h>
#include <stdbool.h>

/* OpenBLAS's AVX-512 families compute small products without packing the operands first, which for a block of few
 * samples is half of the time. These are their limits (kernel/x86_64/sgemm_small_kernel_permit_skylakex.c); families
 * without such a way lose a few percent by the cut. */
enum { SMALL_WORK = 1000000, SMALL_NT_RESULT = 1200, SMALL_NT_DEPTH = 32, PARTS_MOST = 8 };

static bool is_small(enum gemm_form form, size_t m, size_t n, size_t k)
{
    if ((double)m * (double)n * (double)k > SMALL_WORK)
        return false;
    return form != GEMM_NT || (m * n <= SMALL_NT_RESULT && k >= SMALL_NT_DEPTH);
}

/* Into how many parts of its n columns the product is cut: the fewest that are small, or one where that takes many. */
static size_t parts_of(enum gemm_form form, size_t m, size_t n, size_t k)
{
    for (size_t parts = 1; parts <= PARTS_MOST; parts++)
        if (is_small(form, m, (n + parts - 1) / parts, k))
            return parts;
    return 1;
}

void gemm_stepped(enum gemm_form form, size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
                  size_t ldb, float beta, float *c, size_t ldc)
{
    const size_t parts = parts_of(form, m, n, k);
    const size_t width = (n + parts - 1) / parts;
    for (size_t column = 0; column < n; column += width) {
        size_t columns = n - column < width ? n - column : width;
        cblas_sgemm(CblasRowMajor, form == GEMM_TN ? CblasTrans : CblasNoTrans,
                    form == GEMM_NT ? CblasTrans : CblasNoTrans, (int)m, (int)columns, (int)k, 1, a, (int)lda,
                    form == GEMM_NT ? b + column * ldb : b + column, (int)ldb, beta, c + column, (int)ldc);
    }
}

void gemm(enum gemm_form form, size_t m, size_t n, size_t k, const float *a, const float *b, float beta, float *c)
{
    gemm_stepped(form, m, n, k, a, form == GEMM_TN ? m : k, b, form == GEMM_NT ? k : n, beta, c, n);
}
