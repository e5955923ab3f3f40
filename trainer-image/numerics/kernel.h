/* The parts of kernel pinning that can be tested without the CPUs in question. Private to numerics. */
#ifndef THOLE_NUMERICS_KERNEL_H
#define THOLE_NUMERICS_KERNEL_H

#include "common/error.h"

enum {
    CPU_SSE3 = 1 << 0,
    CPU_SSE42 = 1 << 1,
    CPU_AVX = 1 << 2,
    CPU_FMA = 1 << 3,
    CPU_FMA4 = 1 << 4,
    CPU_AVX2 = 1 << 5,
    CPU_AVX512 = 1 << 6, /* F, BW, DQ and VL */
    CPU_AVX512_BF16 = 1 << 7,
};

unsigned kernel_cpu_features(void);

/* 0 where a CPU with these features can run OpenBLAS's kernel family. */
int kernel_check(const char *family, unsigned features, struct error *err);

#endif
