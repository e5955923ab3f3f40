/* naive — a whole network as its formulas stand, in double, layer after layer: what the engine is compared with. */
#ifndef THOLE_MODEL_NAIVE_H
#define THOLE_MODEL_NAIVE_H

#include "model/model.h"

/* The sum of the losses of the batch's samples as they are trained, without dropout.
 *   params [parameters]   rows: for each table the values of batch->rows, [count][dim] */
double naive_loss(const struct network *network, const double *params, const double *const *rows,
                  const struct model_batch *batch);

#endif
