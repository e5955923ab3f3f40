#include "numerics/kernel.h"

#include "numerics/numerics.h"

#include <cblas.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Set for the program that a restart begins: which family that restart was to bring. */
static const char restart_marker[] = "THOLE_KERNEL_RESTART";

void numerics_setup(void)
{
    openblas_set_num_threads(1);
}

const char *numerics_kernel(void)
{
    return openblas_get_corename();
}

/* What OpenBLAS's families use on x86-64 beyond the baseline. It does not check them itself when told a family, and
 * the process would die of an illegal instruction in its first product. */
static const struct {
    const char *family;
    unsigned needs;
} families[] = {
    {"Prescott", CPU_SSE3},
    {"Core2", CPU_SSE3},
    {"Penryn", CPU_SSE3},
    {"Dunnington", CPU_SSE3},
    {"Nano", CPU_SSE3},
    {"Atom", CPU_SSE3},
    {"Bobcat", CPU_SSE3},
    {"Opteron", 0},
    {"Opteron_SSE3", CPU_SSE3},
    {"Barcelona", CPU_SSE3},
    {"Nehalem", CPU_SSE3 | CPU_SSE42},
    {"Sandybridge", CPU_SSE3 | CPU_SSE42 | CPU_AVX},
    {"Bulldozer", CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_FMA4},
    {"Piledriver", CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_FMA},
    {"Steamroller", CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_FMA},
    {"Excavator", CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_FMA | CPU_AVX2},
    {"Haswell", CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_FMA | CPU_AVX2},
    {"Zen", CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_FMA | CPU_AVX2},
    {"SkylakeX", CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_FMA | CPU_AVX2 | CPU_AVX512},
    {"Cooperlake", CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_FMA | CPU_AVX2 | CPU_AVX512 | CPU_AVX512_BF16},
    {"SapphireRapids", CPU_SSE3 | CPU_SSE42 | CPU_AVX | CPU_FMA | CPU_AVX2 | CPU_AVX512 | CPU_AVX512_BF16},
};

bool numerics_kernel_fuses(void)
{
#if defined(__x86_64__)
    const unsigned needs = CPU_FMA | CPU_AVX2;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(families[i].family, numerics_kernel()) == 0)
            return (families[i].needs & needs) == needs;
#endif
    return false;
}

unsigned kernel_cpu_features(void)
{
    unsigned features = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    features |= __builtin_cpu_supports("sse3") ? CPU_SSE3 : 0;
    features |= __builtin_cpu_supports("sse4.2") ? CPU_SSE42 : 0;
    features |= __builtin_cpu_supports("avx") ? CPU_AVX : 0;
    features |= __builtin_cpu_supports("fma") ? CPU_FMA : 0;
    features |= __builtin_cpu_supports("fma4") ? CPU_FMA4 : 0;
    features |= __builtin_cpu_supports("avx2") ? CPU_AVX2 : 0;
    features |= __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
                    ? CPU_AVX512
                    : 0;
    features |= __builtin_cpu_supports("avx512bf16") ? CPU_AVX512_BF16 : 0;
#endif
    return features;
}

int kernel_check(const char *family, unsigned features, struct error *err)
{
#if defined(__x86_64__)
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(families[i].family, family) == 0) {
            if ((families[i].needs & ~features) == 0)
                return 0;
            return error_set(err,
                             "this CPU cannot run the OpenBLAS kernel family %s that the job started with; run the "
                             "job's pods on nodes that can, by spec.template.spec.nodeSelector",
                             family);
        }
    return error_set(err, "'%.64s' is no OpenBLAS kernel family that this program knows on x86-64", family);
#else
    (void)family;
    (void)features;
    (void)err;
    return 0;
#endif
}

int numerics_pin_kernel(const char *family, char *const argv[], struct error *err)
{
    if (strcmp(numerics_kernel(), family) == 0)
        return 0;
    const char *restarted = getenv(restart_marker);
    if (restarted != NULL && strcmp(restarted, family) == 0)
        return error_set(err,
                         "the OpenBLAS here uses its kernel family %s although %s, which the job started with, was "
                         "asked for; run the job's pods on nodes of one CPU family and with one trainer image",
                         numerics_kernel(), family);
    if (kernel_check(family, kernel_cpu_features(), err) < 0)
        return -1;
    if (setenv("OPENBLAS_CORETYPE", family, 1) < 0 || setenv("OPENBLAS_NUM_THREADS", "1", 1) < 0 ||
        setenv(restart_marker, family, 1) < 0)
        return error_set(err, "out of memory for the environment");
    execv("/proc/self/exe", argv);
    return error_errno(err, "start this program again with the OpenBLAS kernel family %s", family);
}
