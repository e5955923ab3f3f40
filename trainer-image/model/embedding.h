/* embedding — which of a sample's elements are ids of which table: what has to be known of a block before it can be
 * computed. An embedding layer reads the sample itself, or columns of it, so its ids need no computation.
 */
#ifndef THOLE_MODEL_EMBEDDING_H
#define THOLE_MODEL_EMBEDDING_H

#include "common/error.h"
#include "common/network/network.h"

/* Elements [from, from + count) of every sample are ids of a table. */
struct embedding_source {
    uint32_t from, count;
};

/* Of the table's layer. -1 where that reads something else than the sample, with a sentence that names the layer. */
int embedding_source(const struct network *network, uint32_t table, struct embedding_source *out, struct error *err);

/* The ids of samples x [n][sample], as they come: ids [n][source.count]. -1 where one is no row of the table. */
int embedding_ids(const struct network *network, uint32_t table, struct embedding_source source, const float *x,
                  uint32_t n, uint32_t *ids, struct error *err);

#endif
