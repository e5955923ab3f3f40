/* metrics — the operator's parts as Prometheus text. */
#ifndef THOLE_OPERATOR_METRICS_H
#define THOLE_OPERATOR_METRICS_H

#include "common/buffer.h"
#include "history/history.h"
#include "kube/kube.h"
#include "runtime/controller.h"
#include "trainjob/trainjob.h"

/* What it is read from; all borrowed. Members may be NULL while the operator starts. */
struct metrics_sources {
    const struct kube_client *client;
    const struct trainjob_controller *trainjobs;
    const struct dataset_controller *datasets;
    struct history *history;
};

/* Appends everything but the server's own and the gauges. */
void metrics_print(const struct metrics_sources *sources, struct buffer *out);

#endif
