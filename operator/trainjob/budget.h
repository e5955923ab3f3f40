/* budget — when a status that changed may be written: turns and epochs at once, sentences and numbers seldom.
 *
 * One job's numbers are written every 15 s, its sentences every 5 s, and all jobs together no more often than
 * BUDGET_WRITES_PER_SECOND: each gets its turn, however many run. At 10,000 that is a turn every 200 s, and 50 writes a
 * second is what etcd does not notice. Pure: time is passed in.
 */
#ifndef THOLE_OPERATOR_TRAINJOB_BUDGET_H
#define THOLE_OPERATOR_TRAINJOB_BUDGET_H

#include "runtime/bucket.h"
#include "trainjob/status.h"

#define STATUS_INTERVAL   (15 * SECONDS)
#define SENTENCE_INTERVAL (5 * SECONDS)

enum { BUDGET_WRITES_PER_SECOND = 50, BUDGET_BURST = 100 };

struct budget {
    struct bucket bucket;
    uint64_t spent; /* writes that had to take a turn */
};
void budget_init(struct budget *budget, struct instant now);

/* Of one job; all 0 at first. */
struct budget_share {
    struct instant written; /* the last write of any kind */
    struct instant turn;    /* when it may write next, promised; 0: not asked for */
};

/* 0: write now. Else how long to wait (nanoseconds), INT64_MAX: there is nothing to write. */
int64_t budget_wait(struct budget *budget, struct budget_share *share, enum status_change change, struct instant now);
/* The status was written: all that waited went with it. */
void budget_written(struct budget_share *share, struct instant now);
/* Would a write of numbers be allowed now, or its turn be asked for? Where not, waking the job is in vain. */
bool budget_is_open(const struct budget_share *share, struct instant now);

#endif
