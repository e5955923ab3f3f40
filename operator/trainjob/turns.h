/* turns — which Events a change of the status is worth. Pure. */
#ifndef THOLE_OPERATOR_TRAINJOB_TURNS_H
#define THOLE_OPERATOR_TRAINJOB_TURNS_H

#include "common/json.h"
#include "trainjob/reasons.h"

#include <stddef.h>

enum { TURNS_MOST = 3 };

struct turn {
    enum reason reason;
    char note[1024]; /* one sentence */
};

/* What people read in `kubectl describe`: phases, what keeps the job from going on, and processes that ended.
 * Either status may be NULL. Returns how many of `out` are filled. */
size_t trainjob_turns(const cJSON *before, const cJSON *now, struct turn out[TURNS_MOST]);

#endif
