/* lease — leader election over a Lease of the API server: takes it, keeps it, gives it back.
 *
 * What is decided is kube/election's; here are its requests, on a connection of their own (KUBE_LANE_LEASE), its watch,
 * by which a Lease that was given back is noticed at once, and its clock.
 */
#ifndef THOLE_OPERATOR_KUBE_LEASE_H
#define THOLE_OPERATOR_KUBE_LEASE_H

#include "kube/client.h"
#include "kube/election.h"

/* Called on the loop. The lease must not be stopped inside. */
struct kube_lease_hooks {
    void *arg;
    void (*leading)(void *arg);
    /* Others may lead from now on. May be called inside kube_lease_held(). Never after a release. */
    void (*lost)(void *arg, const char *sentence);
    void (*released)(void *arg); /* after kube_lease_release(): it is free, or could not be given back */
};

/* Strings are copied. */
struct kube_lease_options {
    const char *namespace, *name;
    const char *identity; /* nobody else's, and not that of an earlier process */
    struct election_timing timing;
    struct kube_lease_hooks hooks;
};

struct kube_lease; /* opaque */

/* Looks at the Lease from now on, but does not take it. */
int kube_lease_start(struct kube_lease **out, struct loop *loop, struct kube_client *client, const struct log *log,
                     const struct kube_lease_options *options, struct error *err);
void kube_lease_stop(struct kube_lease *lease); /* NULL is fine; no hook is called again */
CLEANUP_DEFINE(cleanup_kube_lease_pointer, struct kube_lease, kube_lease_stop)
#define cleanup_kube_lease CLEANUP(cleanup_kube_lease_pointer)

/* Takes it as soon as it is free. */
void kube_lease_stand(struct kube_lease *lease);

/* Is it ours now, by the clock of this moment? Where its time has just run out, `lost` is called first. */
bool kube_lease_held(struct kube_lease *lease);

/* Gives it back; nothing may be written afterwards, and nothing be under way. */
void kube_lease_release(struct kube_lease *lease);

/* The holder as last seen, "" where there is none. */
const char *kube_lease_holder(const struct kube_lease *lease);

#endif
