/* average — the type KAverage: a round's shares, and what they come to. Private to ps.
 *
 * A chunk's version is the number of rounds that it has seen. A share of the round that it waits for is kept whole
 * until all are there; whoever brings one that is there already brings nothing new. Then θ_{r+1} = Σ θ_share · n_share
 * / Σ n, in double, in the order of the shares, so that it does not depend on which came when: batch norm's statistics,
 * too.
 */
#ifndef THOLE_PS_AVERAGE_H
#define THOLE_PS_AVERAGE_H

#include "common/report/report.h"
#include "ps/ps.h"

/* Is this PUSH_SHARE header one that this plan can have? Called before a byte of its payload is read. */
int average_check(const struct average *average, const struct frame *frame, struct error *err);

/* `frame` has passed average_check(). A reference of `params` is taken where it is kept. Hooks of the shard may be
 * called. -1 without memory, or where the shares of a round do not fit each other. */
int average_push(struct average *average, const struct frame *frame, struct payload *params, struct error *err);

#endif
