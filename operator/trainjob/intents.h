/* intents — what is to be done for a job, as values: the plan returns them, the reconcile carries them out. */
#ifndef THOLE_OPERATOR_TRAINJOB_INTENTS_H
#define THOLE_OPERATOR_TRAINJOB_INTENTS_H

#include "common/cleanup.h"
#include "common/json.h"
#include "kube/kube.h"
#include "trainjob/reasons.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern const struct kube_resource trainjob_resource, deployment_resource, service_resource, policy_resource,
    secret_resource, pod_resource, event_resource;

enum intent_type {
    INTENT_CREATE,     /* POST `body` */
    INTENT_SCALE,      /* merge patch spec.replicas, for this UID only */
    INTENT_DELETE,     /* for this UID only */
    INTENT_FREEZE,     /* merge patch of the job's status, for this resourceVersion only: the start */
    INTENT_FINALIZERS, /* merge patch of the job's metadata, for this resourceVersion only */
};

struct intent {
    enum intent_type type;
    const struct kube_resource *resource;
    char name[KUBE_NAME_SIZE];
    char uid[64];
    cJSON *body;            /* owned: the object, or the patch */
    enum reason event;      /* of a change of the job: told when it is done; REASON_NONE: nothing */
    const char *event_note; /* a constant */
};

enum { INTENTS_MOST = 64 };

struct intents {
    struct intent items[INTENTS_MOST];
    size_t count;
    int64_t after; /* look again in so many seconds; 0: when something happens */
};

void intents_free(struct intents *intents);
static inline void cleanup_intents_value(struct intents *intents)
{
    intents_free(intents);
}
#define cleanup_intents CLEANUP(cleanup_intents_value)

/* Adds one and returns it; NULL where there are too many, or where what is to be sent is NULL for want of memory: they
 * come in the next round. `body` is taken over. */
struct intent *intents_add(struct intents *intents, enum intent_type type, const struct kube_resource *resource,
                           const char *name, const char *uid, cJSON *body);
/* Look again in at most `seconds` (at least 1). */
void intents_look_again(struct intents *intents, int64_t seconds);

const char *intent_name(enum intent_type type); /* "create", "scale", … */

/* For tests. */
cJSON *intents_json(const struct intents *intents);

#endif
