/* cel — the part of the Common Expression Language that our CRDs' rules use, evaluated on one value.
 *
 * Literals (numbers, strings, lists), members, indices, ! - + == != < <= > >= in && || ?:, has(), size(), string(),
 * matches(), startsWith(), contains(), split(), isQuantity(), quantity() with isLessThan() and isGreaterThan(), and the
 * macros all, exists, exists_one and map over lists and over the keys of objects. As in Kubernetes an error on one side
 * of && and || does not matter where the other side decides.
 */
#ifndef THOLE_COMMON_MANIFEST_CEL_H
#define THOLE_COMMON_MANIFEST_CEL_H

#include "common/error.h"
#include "common/json.h"

#include <stdbool.h>

/* Does the rule hold for `self`? -1 with a sentence where it cannot be said: a member that is missing, a type that does
 * not fit. */
int cel_holds(bool *holds, const char *rule, const cJSON *self, struct error *err);

/* -1, saying where, for what cel_holds() would not understand. */
int cel_understood(const char *rule, struct error *err);

#endif
