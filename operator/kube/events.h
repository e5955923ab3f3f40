/* events — what `kubectl describe` and `kubectl events` show about an object.
 *
 * The same thing said again within ten minutes becomes one Event with a growing count, and so do many that differ only
 * in their note. Fire and forget: an Event that cannot be written is dropped, nothing waits for it. events.k8s.io/v1.
 */
#ifndef THOLE_OPERATOR_KUBE_EVENTS_H
#define THOLE_OPERATOR_KUBE_EVENTS_H

#include "kube/client.h"

struct kube_events; /* opaque */

/* `instance` names this process, e.g. the pod's name. */
struct kube_events *kube_events_new(struct loop *loop, struct kube_client *client, const struct log *log,
                                    const char *instance, struct error *err);
void kube_events_free(struct kube_events *events); /* NULL is fine */
CLEANUP_DEFINE(cleanup_kube_events_pointer, struct kube_events, kube_events_free)
#define cleanup_kube_events CLEANUP(cleanup_kube_events_pointer)

enum kube_event_type { KUBE_EVENT_NORMAL, KUBE_EVENT_WARNING };

/* `regarding` is the object (its kind, apiVersion and metadata are read). `reason` and `action` are CamelCase words of
 * at most 128 bytes; `note` is one sentence, cut at 1 kB. */
void kube_event(struct kube_events *events, const cJSON *regarding, enum kube_event_type type, const char *reason,
                const char *action, const char *note);

struct kube_events_metrics {
    uint64_t written, counted, dropped; /* new Events; repetitions; those that could not be written, or were too many */
    size_t remembered, waiting;
};
void kube_events_metrics(const struct kube_events *events, struct kube_events_metrics *out);

#endif
