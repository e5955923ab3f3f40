/* The CRDs as bytes; the arrays are generated from crds/ by embed.cmake. */
#ifndef THOLE_COMMON_MANIFEST_EMBEDDED_H
#define THOLE_COMMON_MANIFEST_EMBEDDED_H

#include <stddef.h>

struct embedded_file {
    const char *name; /* NULL ends the table */
    const unsigned char *bytes;
    size_t length;
};

extern const struct embedded_file embedded_crds[];

#endif
