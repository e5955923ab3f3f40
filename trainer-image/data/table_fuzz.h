/* table_fuzz — any bytes as a file of text with samples: refused with a sentence that names the file, or every pass
 * over it finds the same samples, all of them in their bounds. */
#ifndef THOLE_DATA_TABLE_FUZZ_H
#define THOLE_DATA_TABLE_FUZZ_H

#include "common/test/fuzz.h"
#include "data/content.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

typedef void table_check_function(const struct plan *plan, const struct content *content);

static inline void table_fuzz(const uint8_t *data, size_t size, const struct plan *plan, content_function *read,
                              table_check_function *check)
{
    cleanup_fd int fd = memfd_create("table", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) != 0)
        return;
    const struct content_files files = {.plan = plan, fd, -1, "fuzzed", NULL, -1, NULL};
    cleanup_content struct content described = {0};
    cleanup_content struct content content = {0};
    struct error err = {0};
    int result = read(&described, &files, CONTENT_DESCRIBED, &err);
    if (result < 0)
        require(strstr(error_message(&err), "'fuzzed'") != NULL);
    require(lseek(fd, 0, SEEK_SET) == 0);
    int again = read(&content, &files, CONTENT_READ, &err);
    require_with_memory(result == again);
    if (result < 0 || again < 0)
        return;
    require(content.samples == described.samples && content.samples > 0 && content.samples <= size);
    require(memcmp(content.shape, described.shape, sizeof content.shape) == 0);
    const float *targets = (const float *)(const void *)content.targets.base;
    for (uint64_t i = 0; i < content.samples; i++)
        require(plan->dataset.classes == 0 ? isfinite(targets[i]) != 0
                                           : targets[i] >= 0 && targets[i] < (float)plan->dataset.classes);
    check(plan, &content);
}

#endif
