/* Any bytes as an IDX file. */
#include "data/array_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return array_fuzz(data, size, idx_header);
}
