/* address — keeps one address in the EndpointSlice of a Service without a selector; private to leader.
 *
 * Level-triggered: whatever the slice is changed to, or if it is deleted, it is made to be as it should again. Written
 * only on the version that was seen, so that of two operators who both believe to lead the later look wins.
 */
#ifndef THOLE_OPERATOR_LEADER_ADDRESS_H
#define THOLE_OPERATOR_LEADER_ADDRESS_H

#include "kube/kube.h"

struct address_options {
    struct loop *loop;
    struct kube_client *client;
    const struct log *log;
    const char *namespace, *service; /* copied; the slice has the Service's name */
    const char *address;             /* IPv4 or IPv6, copied */
    unsigned port;
};

struct address; /* opaque */

/* Watches the slice, and writes nothing before address_publish(). -1 where `address` is none. */
int address_start(struct address **out, const struct address_options *options, struct error *err);
void address_stop(struct address *address); /* NULL is fine */
CLEANUP_DEFINE(cleanup_address_pointer, struct address, address_stop)
#define cleanup_address CLEANUP(cleanup_address_pointer)

void address_publish(struct address *address);
void address_retire(struct address *address); /* writes no more; what is there stays until the next leader's */

#endif
