/* dataset — the controller of Datasets: whether a Dataset may be used.
 *
 * Its files are looked at only when a job trains with them; what can be decided before is whether its source is one
 * that the operator's administrator allows. TrainJobs wait until their Dataset is Ready.
 * Calls kube, runtime and common.
 */
#ifndef THOLE_OPERATOR_DATASET_H
#define THOLE_OPERATOR_DATASET_H

#include "common/cleanup.h"
#include "common/error.h"
#include "common/json.h"
#include "common/log.h"
#include "kube/kube.h"
#include "runtime/controller.h"

#include <stdbool.h>
#include <stddef.h>

/* ---- hostPath: only where the administrator allows it ---- */

/* The values of --allowed-host-paths. */
struct host_paths {
    char **items;
    size_t count;
};

/* Reads "/a,/b/c". -1 with a sentence where one is not an absolute path, or holds "..". "" allows none. */
int host_paths_parse(struct host_paths *out, const char *text, struct error *err);
void host_paths_free(struct host_paths *paths);

/* Is `path` one of the allowed directories or below one, part by part? -1 with a sentence naming `field`, the flag and
 * the mend. */
int host_paths_check(const struct host_paths *paths, const char *path, const char *field, struct error *err);

/* ---- deciding; pure ---- */

/* The status `dataset` should have now, to be freed; NULL without memory. `now` in seconds since 1970. */
cJSON *dataset_status(const cJSON *dataset, const struct host_paths *allowed, int64_t now);

/* May jobs use it? Where not, *sentence (of `size` bytes) says what is waited for or wrong. */
bool dataset_is_ready(const cJSON *dataset, char *sentence, size_t size);

/* ---- the controller ---- */

/* Everything is borrowed for the controller's life. */
struct dataset_options {
    struct loop *loop;
    struct kube_client *client;
    const struct log *log;
    const char *namespace; /* NULL: all */
    const struct host_paths *allowed;
    int64_t resync; /* nanoseconds between looks at a Dataset that nothing happens to; 0: none */
};

struct dataset_controller; /* opaque */

/* Begins to watch. */
int dataset_start(struct dataset_controller **out, const struct dataset_options *options, struct error *err);
void dataset_stop(struct dataset_controller *controller); /* NULL is fine */
CLEANUP_DEFINE(cleanup_dataset_controller_pointer, struct dataset_controller, dataset_stop)
#define cleanup_dataset_controller CLEANUP(cleanup_dataset_controller_pointer)

/* Reconciles begin as soon as the first list is complete: from now on this operator acts. */
void dataset_begin(struct dataset_controller *controller);

/* `changed` is called when a Dataset came, changed or went. */
void dataset_on_change(struct dataset_controller *controller,
                       void (*changed)(void *arg, const char *namespace, const char *name), void *arg);

bool dataset_synced(const struct dataset_controller *controller);
/* The Dataset as last seen, to be freed; NULL where there is none. */
cJSON *dataset_get(const struct dataset_controller *controller, const char *namespace, const char *name);
/* For metrics, and to be stopped (controller_stop) at the end. */
struct controller *dataset_runtime(const struct dataset_controller *controller);
const struct kube_informer *dataset_informer(const struct dataset_controller *controller);

#endif
