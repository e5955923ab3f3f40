/* merge — JSON merge patches (RFC 7396), as tests write down what differs from an object, and as the API server takes
 * them. */
#ifndef THOLE_COMMON_TEST_MERGE_H
#define THOLE_COMMON_TEST_MERGE_H

#include "common/json.h"

/* `patch` is borrowed. What finds no memory is left out. */
static inline void merge_into(cJSON *target, const cJSON *patch)
{
    bool whole = true;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, patch)
    {
        cJSON *old = cJSON_GetObjectItemCaseSensitive(target, item->string);
        if (cJSON_IsObject(old) && cJSON_IsObject(item)) {
            merge_into(old, item);
            continue;
        }
        cJSON_DeleteItemFromObjectCaseSensitive(target, item->string);
        if (!cJSON_IsNull(item))
            json_add(target, item->string, cJSON_Duplicate(item, true), &whole);
    }
}

#endif
