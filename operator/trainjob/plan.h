/* plan — what is to be done for a job now. Pure: everything observed comes in, intents come out. */
#ifndef THOLE_OPERATOR_TRAINJOB_PLAN_H
#define THOLE_OPERATOR_TRAINJOB_PLAN_H

#include "trainjob/intents.h"
#include "trainjob/job.h"

/* `out` is initialised here and to be freed. */
void trainjob_plan(const struct trainjob_view *view, struct intents *out);

/* With MongoDB configured, how long a deleted job waits for its record to be written. */
enum { TRAINJOB_HISTORY_WAIT = 600 };

#endif
