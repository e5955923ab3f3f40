/* gauges — the newest epoch of each job that reports, under the names that KubeML's dashboards read. Of one thread.
 *
 *   kubeml_job_validation_loss, _validation_accuracy (percent), _train_loss, _parallelism, _epoch_duration_seconds
 *   {jobid="<job UID>"}
 */
#ifndef THOLE_OPERATOR_GAUGES_H
#define THOLE_OPERATOR_GAUGES_H

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/report/report.h"

enum { GAUGES_MOST = 10 * 1000 };

struct gauges; /* opaque */

struct gauges *gauges_new(struct error *err);
void gauges_free(struct gauges *gauges); /* NULL is fine */
CLEANUP_DEFINE(cleanup_gauges_pointer, struct gauges, gauges_free)
#define cleanup_gauges CLEANUP(cleanup_gauges_pointer)

/* Any report keeps a job's gauges; FINISHED drops them, and so does silence for ten minutes. */
void gauges_report(struct gauges *gauges, const char *job_uid, const struct report_message *message,
                   struct instant now);

/* Appends Prometheus text. */
void gauges_print(struct gauges *gauges, struct instant now, struct buffer *out);

#endif
