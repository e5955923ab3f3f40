/* augment — images moved and mirrored at random, before the model sees them. Private to data.
 *
 * What becomes of a sample depends on the epoch's order (so on the seed and the epoch) and on the sample, not on who
 * fetches it when.
 */
#ifndef THOLE_DATA_AUGMENT_H
#define THOLE_DATA_AUGMENT_H

#include "numerics/numerics.h"

struct augment {
    bool flip;
    uint32_t padding;
};

struct augment_move {
    bool flip;
    int32_t down, right; /* where the image's first row and column come to stand, −padding … +padding */
};

static inline bool augment_any(const struct augment *augment)
{
    return augment->flip || augment->padding > 0;
}

struct augment_move augment_of(const struct augment *augment, const struct permutation *order, uint64_t sample);

/* First moved, then mirrored. x [C][H][W]; zero [C] is what comes in at the edges. */
void augment_apply(const struct augment_move *how, const uint32_t shape[3], const float *zero, float *x);

#endif
