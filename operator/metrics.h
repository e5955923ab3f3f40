/* metrics — the operator's parts as Prometheus text, under the names that dashboards for controller-runtime read
 * (workqueue_*, controller_runtime_*, rest_client_*, leader_election_*, process_*), and thole_* for the rest.
 */
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
    const struct kube_events *events;
    const struct trainjob_controller *trainjobs;
    const struct dataset_controller *datasets;
    struct history *history;
    const char *lease; /* its name; NULL: this operator stands in no election */
    bool leads;
    int64_t started; /* seconds since 1970 */
};

/* Appends everything but the server's own and the gauges. On the loop's thread. */
void metrics_print(const struct metrics_sources *sources, struct buffer *out);

#endif
