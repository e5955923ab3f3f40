/* Any bytes as a message: refused with a sentence, or written as a message that is read as the same. */
#include "common/report/report.h"
#include "common/test/fuzz.h"

#include <string.h>

static char *read_and_write(const char *text, size_t length)
{
    struct error err = {0};
    struct report_message message;
    int result = report_decode(&message, text, length, &err);
    require((result < 0) == (error_message(&err)[0] != '\0'));
    if (result < 0)
        return NULL;
    char *written = report_encode(&message);
    require_with_memory(written != NULL);
    require(written == NULL || strlen(written) <= REPORT_MESSAGE_MOST);
    return written;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_free char *first = read_and_write((const char *)data, size);
    if (first == NULL)
        return 0;
    cleanup_free char *second = read_and_write(first, strlen(first));
    require_with_memory(second != NULL);
    require(second == NULL || strcmp(first, second) == 0);
    return 0;
}
