/* headers — of files that are arrays: what idx.c and npy.c read. Private to data, and for fuzzing. */
#ifndef THOLE_DATA_HEADERS_H
#define THOLE_DATA_HEADERS_H

#include "data/content.h"

array_header_function idx_header, npy_header;

#endif
