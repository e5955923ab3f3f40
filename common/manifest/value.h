/* value — what an expression of cel comes to, and what can be done with values; knows nothing of how rules are written.
 * Private to this folder.
 */
#ifndef THOLE_COMMON_MANIFEST_VALUE_H
#define THOLE_COMMON_MANIFEST_VALUE_H

#include "common/json.h"

#include <stdbool.h>

enum value_kind { VALUE_ERROR, VALUE_BOOL, VALUE_NUMBER, VALUE_QUANTITY, VALUE_TEXT, VALUE_TREE };

struct value {
    enum value_kind kind;
    bool absent; /* of an error: the last member selected is missing, nothing worse */
    bool truth;
    double number;
    const char *text;
    const cJSON *tree; /* a list or an object */
};

/* What an evaluation holds on to. */
struct value_pool {
    cJSON *made;     /* texts and lists made on the way: an array that owns them */
    const char *why; /* the first thing that is not understood, or NULL */
};

static const struct value no_value = {.kind = VALUE_ERROR};

struct value value_fault(struct value_pool *pool, const char *why); /* no_value */

struct value value_of_bool(bool truth);
struct value value_of_json(const cJSON *json); /* NULL: absent */
/* Takes `json` over for the time of the evaluation. */
struct value value_keep(struct value_pool *pool, cJSON *json);
cJSON *value_to_json(const struct value *value); /* NULL: it has none, or no memory */

/* All of these: no_value where the types do not fit. */
struct value value_equal(const struct value *a, const struct value *b);
struct value value_is_in(const struct value *a, const struct value *list); /* or a key of an object */
struct value value_member(const struct value *value, const char *name, size_t length);
struct value value_element(const struct value *value, const struct value *index);
struct value value_size(const struct value *value);
size_t value_text_length(const char *text); /* in code points */
/* name(argument), self.name(argument); a fault where the name is unknown. */
struct value value_call(struct value_pool *pool, const char *name, const struct value *argument);
struct value value_call_member(struct value_pool *pool, const char *name, const struct value *self,
                               const struct value *argument);

#endif
