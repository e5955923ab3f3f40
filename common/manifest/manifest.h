/* manifest — the YAML a user applies, read without a cluster.
 *
 * Does what the API server would do with Datasets and TrainJobs: fills in the defaults of the CRDs' schemas (embedded
 * from crds/ when Thole is built) and refuses what does not fit, with the field's full path and the API server's
 * words. CEL rules are not evaluated here: plan_compile checks those that matter and says the same sentences.
 * May call common.
 */
#ifndef THOLE_COMMON_MANIFEST_MANIFEST_H
#define THOLE_COMMON_MANIFEST_MANIFEST_H

#include "common/error.h"
#include "common/json.h"

#include <stddef.h>

enum { MANIFEST_OBJECTS_MOST = 1000 };

/* The Datasets and TrainJobs of `text`, in its order, as an array of whole objects with defaults filled in, namespace
 * ("default") included; documents of other API groups are left out. NULL with *err naming `what`, object and field. */
cJSON *manifest_parse(const char *text, size_t length, const char *what, struct error *err);
cJSON *manifest_read_file(const char *path, struct error *err);

/* The object of that kind ("Dataset", "TrainJob"); `name_space` and `name` may be NULL for any. The first one
 * that fits; NULL where none does. */
const cJSON *manifest_find(const cJSON *objects, const char *kind, const char *name_space, const char *name);

/* Checks one object of our kinds and fills its defaults in. */
int manifest_check(cJSON *object, struct error *err);

#endif
