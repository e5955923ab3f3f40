/* Any bytes as YAML: refused with a sentence, or a tree whose JSON, which is YAML too, gives the same tree. */
#include "common/json.h"
#include "common/test/fuzz.h"
#include "common/yaml.h"

#include <string.h>

static void check_as_json(const cJSON *document)
{
    cleanup_free char *text = json_print(document);
    require_with_memory(text != NULL);
    if (text == NULL)
        return;
    struct error err = {0};
    cleanup_json cJSON *again = yaml_parse(text, strlen(text), "its JSON", &err);
    /* JSON that is no YAML: keys of more than 1024 bytes, control characters that stand for themselves. */
    bool differs = strlen(text) > 1000 || strstr(error_message(&err), "control characters") != NULL;
    if (again == NULL && differs)
        return;
    require_with_memory(again != NULL);
    if (again == NULL)
        return;
    require(cJSON_GetArraySize(again) == (cJSON_IsNull(document) ? cJSON_GetArraySize(again) : 1));
    cleanup_free char *second = again->child == NULL ? NULL : json_print(again->child);
    if (second != NULL)
        require(strcmp(text, second) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    cleanup_json cJSON *documents = yaml_parse((const char *)data, size, "the input", &err);
    require((documents == NULL) == (error_message(&err)[0] != '\0'));
    if (documents == NULL)
        return 0;
    require(cJSON_IsArray(documents));
    const cJSON *document = NULL;
    cJSON_ArrayForEach(document, documents) check_as_json(document);
    return 0;
}
