/* workspace — where everything that one computation makes lies. Private to model.
 *
 * All sizes and lifetimes are known when it is made: buffers that are not needed at the same time share memory.
 */
#ifndef THOLE_MODEL_WORKSPACE_H
#define THOLE_MODEL_WORKSPACE_H

#include "model/graph.h"

/* Of each layer; NULL where it has none. */
struct places {
    float *output;   /* NULL: the sample's */
    float *gradient; /* with respect to the output */
    float *extra;    /* what the engine adds, see node_adds_apart() */
    void *saved;
};

struct workspace {
    uint32_t samples;
    struct places *places; /* [layer_count] */
    float *scratch;
    void *memory; /* where all of them point … */
    size_t size;  /* … and its bytes */
};

#endif
