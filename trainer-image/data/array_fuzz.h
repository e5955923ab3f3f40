/* array_fuzz — any bytes as a file that is an array, plain or gzip: refused with a sentence that names the file, or all
 * of it is there. */
#ifndef THOLE_DATA_ARRAY_FUZZ_H
#define THOLE_DATA_ARRAY_FUZZ_H

#include "common/test/fuzz.h"
#include "data/headers.h"

#include <string.h>
#include <sys/mman.h>

static inline int array_fuzz(const uint8_t *data, size_t size, array_header_function *header)
{
    cleanup_fd int fd = memfd_create("array", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) != 0)
        return 0;
    struct error err = {0};
    cleanup_source struct source source = {0};
    cleanup_array struct array array = {0};
    if (source_open(&source, fd, "fuzzed", &err) < 0 || header(&array, &source, &err) < 0 ||
        array_measure(&array, "fuzzed", 1 << 24, &err) < 0 || array_load(&array, &source, &err) < 0) {
        require(strstr(error_message(&err), "'fuzzed'") != NULL && array.data == NULL);
        return 0;
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < array.rank; i++)
        elements *= array.dims[i];
    require(elements > 0 && elements * element_size(array.element) == array.size);
    float last;
    array_normalise(&array, elements - 1, 1, 1, 0, 1, &last); /* all of it is there */
    const float value = (float)array_value(&array, elements - 1);
    require(last == value || (last != last && value != value));
    return 0;
}

#endif
