/* Any objects as a Dataset, with any --allowed-host-paths: a whole status, which once written needs no writing again.
 *
 * The input is {"dataset": …, "allowed": "/a,/b"}. */
#include "common/test/fuzz.h"
#include "dataset/dataset.h"

#include <string.h>

static void check_status(const cJSON *dataset, const struct host_paths *allowed)
{
    cleanup_json cJSON *status = dataset_status(dataset, allowed, 1769860800);
    require_with_memory(status != NULL);
    cleanup_json cJSON *written = cJSON_Duplicate(dataset, true);
    if (status == NULL || !cJSON_IsObject(written))
        return;
    const char *phase = json_string(status, "phase", "");
    require(strcmp(phase, "Ready") == 0 || strcmp(phase, "Failed") == 0);
    require(json_find(json_at(status, "conditions"), "type", "Ready") != NULL);
    require(json_find(json_at(status, "conditions"), "type", "Stalled") != NULL);

    (void)json_put(written, "status", cJSON_Duplicate(status, true), NULL);
    cleanup_json cJSON *later = dataset_status(written, allowed, 1769869999);
    require_with_memory(later != NULL && json_equal(status, later));
    char sentence[100];
    bool ready = dataset_is_ready(written, sentence, sizeof sentence);
    require_with_memory(!ready || strcmp(phase, "Ready") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    cleanup_json cJSON *input = cJSON_ParseWithLength((const char *)data, size);
    if (input != NULL)
        fuzz_make_unique(input);
    const cJSON *dataset = json_at(input, "dataset");
    struct host_paths allowed = {0};
    int result = host_paths_parse(&allowed, json_string(input, "allowed", "/data"), &err);
    require((result < 0) == (error_message(&err)[0] != '\0'));
    if (result < 0)
        return 0;
    char sentence[100] = "";
    require(dataset_is_ready(dataset, sentence, sizeof sentence) == (sentence[0] == '\0'));
    check_status(dataset, &allowed);
    host_paths_free(&allowed);
    return 0;
}
