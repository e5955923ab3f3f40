/* fuzz — what the fuzz targets (x_fuzz.c) share.
 *
 * A target is libFuzzer's LLVMFuzzerTestOneInput: it takes any bytes, and aborts where an answer is wrong.
 * `hack/fuzz.sh` lets libFuzzer look for such bytes; under ctest fuzz_replay.c runs the corpus beside the target
 * (testdata/fuzz-x), and the same with some bytes changed, and the same while memory runs out.
 */
#ifndef THOLE_COMMON_TEST_FUZZ_H
#define THOLE_COMMON_TEST_FUZZ_H

#include "common/test/scarce.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libFuzzer's, and fuzz_replay.c's own: changes some bytes, and returns the new size, which is at most `most`. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

/* Leaves the first of members with the same name, as in everything that an API server says (fuzz_json.c). */
void fuzz_make_unique(cJSON *json);

#define require(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: it does not hold that %s\n", __FILE__, __LINE__, #condition);                      \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* What need only hold while there was memory for everything. */
#define require_with_memory(condition) require((condition) || scarce_refused())

#endif
