/* objects — the objects that make up a job in the cluster, as they are posted. Pure. */
#ifndef THOLE_OPERATOR_TRAINJOB_OBJECTS_H
#define THOLE_OPERATOR_TRAINJOB_OBJECTS_H

#include "trainjob/job.h"

/* Where the trainer finds things: the other half of this contract is in trainer-image. */
#define TRAINER_JOB_DIR    "/etc/thole/job" /* plan.json and token */
#define TRAINER_DATA_DIR   "/data"
#define TRAINER_OUTPUT_DIR "/output"
#define TRAINER_START_DIR  "/start" /* with the model to begin from, where there is one: model.safetensors */

enum { OBJECT_NAME_SIZE = 64 };
/* With the beginning of the job's UID in it: a job that is applied again under its name must not be given the plan and
 * the token of the one before, which kubelet keeps for as long as a pod of it is still ending (the Secret is
 * immutable, and kubelet knows Secrets by name). */
void object_secret_name(const struct trainjob *job, char out[OBJECT_NAME_SIZE]);
void object_deployment_name(const struct trainjob *job, enum trainjob_role role, uint32_t shard,
                            char out[OBJECT_NAME_SIZE]);

/* All are whole objects, to be freed, with the job as their controller; NULL without memory or, for the Secret, where
 * the job cannot be planned (*err says why). */
cJSON *object_secret(const struct trainjob_view *view, struct error *err);
cJSON *object_service(const struct trainjob_view *view);
cJSON *object_policy(const struct trainjob_view *view);
cJSON *object_deployment(const struct trainjob_view *view, enum trainjob_role role, uint32_t shard);

/* "thole.dev/job-uid=…,thole.dev/role=worker", for the scale subresource. */
void object_worker_selector(const struct trainjob *job, char *out, size_t size);

#endif
