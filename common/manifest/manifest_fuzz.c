/* Any bytes as a manifest: refused with a sentence, or whole objects that are accepted as they are. */
#include "common/manifest/manifest.h"
#include "common/test/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    cleanup_json cJSON *objects = manifest_parse((const char *)data, size, "f.yaml", &err);
    require((objects == NULL) == (error_message(&err)[0] != '\0'));
    if (objects == NULL)
        return 0;
    cleanup_free char *first = json_print(objects);
    cJSON *object = NULL;
    cJSON_ArrayForEach(object, objects)
    {
        require(json_string(object, "metadata.name", NULL) != NULL);
        require(json_string(object, "metadata.namespace", NULL) != NULL);
        int result = manifest_check(object, &err);
        require((result < 0) == (error_message(&err)[0] != '\0'));
        require_with_memory(result == 0);
    }
    cleanup_json cJSON *before = first == NULL ? NULL : cJSON_Parse(first);
    require_with_memory(before != NULL && json_equal(before, objects)); /* defaults are filled in once */
    return 0;
}
