/* Any bytes as an IDX file, plain or gzip: refused with a sentence that names the file, or all of it is there. */
#include "common/cleanup.h"
#include "common/test/fuzz.h"
#include "data/idx.h"

#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_fd int fd = memfd_create("idx", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) != 0)
        return 0;
    struct error err = {0};
    struct idx idx = {0};
    if (idx_read(&idx, fd, "fuzzed", 1, IDX_RANK_MOST, 1 << 24, &err) < 0) {
        require(strstr(error_message(&err), "'fuzzed'") != NULL && idx.data == NULL);
        return 0;
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < idx.rank; i++)
        elements *= idx.dims[i];
    require(elements == idx.size && elements > 0);
    volatile uint8_t last = idx.data[elements - 1]; /* all of it is there */
    (void)last;
    idx_free(&idx);
    return 0;
}
