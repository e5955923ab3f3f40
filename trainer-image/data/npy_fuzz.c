/* Any bytes as an NPY file. */
#include "data/array_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return array_fuzz(data, size, npy_header);
}
