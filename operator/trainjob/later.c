/* later — what a later version of the operator might do otherwise. Linked in place of the real thing into
 * thole-operator-later, to which e2e/plane/test_upgrade.py rolls from this version while jobs run. */
#include "trainjob/objects.h"

/* NOLINTBEGIN(bugprone-reserved-identifier): the names are the linker's */
cJSON *__real_object_deployment(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard);
cJSON *__wrap_object_deployment(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard);

/* Every Deployment has another pod template, and another label of its own. */
cJSON *__wrap_object_deployment(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard)
{
    cJSON *deployment = __real_object_deployment(view, role, shard);
    cJSON *metadata = (cJSON *)json_at(deployment, "spec.template.metadata");
    cJSON *annotations = cJSON_GetObjectItemCaseSensitive(metadata, "annotations");
    if (annotations == NULL)
        annotations = cJSON_AddObjectToObject(metadata, "annotations");
    cJSON_AddStringToObject(annotations, "example.com/made-by", "later");
    cJSON_AddStringToObject((cJSON *)json_at(deployment, "metadata.labels"), "example.com-made-by", "later");
    cJSON *spec = (cJSON *)json_at(deployment, "spec.template.spec");
    cJSON_ReplaceItemInObjectCaseSensitive(spec, "terminationGracePeriodSeconds", cJSON_CreateNumber(17));
    return deployment;
}
/* NOLINTEND(bugprone-reserved-identifier) */
