/* schema — the part of Kubernetes' structural schemas that our CRDs use, applied to one value.
 *
 * Keywords: type, properties, additionalProperties, required, enum, default, minimum, maximum, exclusiveMinimum,
 * exclusiveMaximum, minLength, maxLength, minItems, maxItems, maxProperties, items, x-kubernetes-int-or-string, the
 * unique keys of list maps, sets, and rules in CEL (cel.h), but for those of changes, which speak of oldSelf. Formats
 * and descriptions are passed over.
 */
#ifndef THOLE_COMMON_MANIFEST_SCHEMA_H
#define THOLE_COMMON_MANIFEST_SCHEMA_H

#include "common/error.h"
#include "common/json.h"

/* Fills defaults into `value` and checks it; `path` ("spec") names it in the sentence. What `schema` does not name is
 * refused. Defaults come first, as in the API server: they may complete what `required` asks for. */
int schema_apply(cJSON *value, const cJSON *schema, const char *path, struct error *err);

/* -1, naming the first keyword or rule in `schema`, at any depth, that schema_apply() would not understand. */
int schema_understood(const cJSON *schema, struct error *err);

#endif
