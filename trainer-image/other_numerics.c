/* For tests: a trainer whose optimizer's results differ in a last bit, as another library's or another CPU's might.
 * Linked in the place of the real function. */
#include "optimizer/kernels.h"

#include <string.h>

optimizer_kernel __real_kernel_momentum, __wrap_kernel_momentum; /* NOLINT(bugprone-reserved-identifier) */

void __wrap_kernel_momentum(const struct optimizer_step *step, float *next, /* NOLINT(bugprone-reserved-identifier) */
                            const float *theta, float *const states[], const float *sum, size_t n)
{
    uint32_t bits;
    __real_kernel_momentum(step, next, theta, states, sum, n);
    memcpy(&bits, &next[n / 2], sizeof bits);
    bits ^= 1;
    memcpy(&next[n / 2], &bits, sizeof bits);
}
