/* leader — whether this operator acts, and what follows from it.
 *
 * Of several operators one leads: it holds a Lease, and only then the client's gate lets its writes through. The
 * leader's address is the one endpoint of the coordinators' Service, which has no selector. Without an election the
 * operator leads from the beginning.
 * May call kube. Knows nothing of jobs.
 */
#ifndef THOLE_OPERATOR_LEADER_H
#define THOLE_OPERATOR_LEADER_H

#include "kube/kube.h"

/* Called on the loop. */
struct leader_hooks {
    void *arg;
    void (*leading)(void *arg); /* once: this operator acts from now on */
    /* Another may act from now on. Nothing may be done any more, not even tidying up, for that writes to sockets. */
    void (*lost)(void *arg, const char *sentence);
    void (*resigned)(void *arg); /* after leader_resign() */
};

/* Borrowed during leader_start(), but `loop`, `client` and `log` for the leader's life. */
struct leader_options {
    struct loop *loop;
    struct kube_client *client;
    const struct log *log;
    bool elects;                   /* false: leads from leader_stand() on */
    const char *namespace, *name;  /* of the Lease */
    const char *instance;          /* this process, for people: the pod's name */
    const char *service_namespace; /* whose EndpointSlice is written … */
    const char *service;           /* … where there is an … */
    const char *address;           /* … address: this process' own IP; NULL or "": it is not written */
    unsigned port;
    struct election_timing timing;
    struct leader_hooks hooks;
};

struct leader; /* opaque */

/* Watches who leads; does not lead before leader_stand(). Closes the client's gate. */
int leader_start(struct leader **out, const struct leader_options *options, struct error *err);
void leader_stop(struct leader *leader); /* NULL is fine; before the client goes */
CLEANUP_DEFINE(cleanup_leader_pointer, struct leader, leader_stop)
#define cleanup_leader CLEANUP(cleanup_leader_pointer)

/* This operator could act: it leads as soon as nobody else does. */
void leader_stand(struct leader *leader);

bool leader_leads(const struct leader *leader);
const char *leader_other(const struct leader *leader); /* who leads, where we do not: "" when unknown */

/* Leads no more, and lets others lead at once. Nothing may be written any more when this is called, nor be under way.
 */
void leader_resign(struct leader *leader);

#endif
