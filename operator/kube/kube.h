/* kube — the Kubernetes API as Thole uses it.
 *
 *   config    where the API server is and who we are: a kubeconfig or a pod's service account
 *   client    one request, one answer; connections, credentials, retries of reads
 *   watch     one resource's list and watch, for ever
 *   cache     what a watch has shown, packed, with indexes and our own fresh writes laid over it
 *   informer  a watch feeding a cache: what reconcilers read and are woken by
 *   apply     the writes: create, patch, apply, delete, with their preconditions
 *   lease     leader election, decided by election
 *   events    events.k8s.io/v1 for people who run `kubectl describe`
 *
 * May call common and loop. Knows nothing of TrainJobs, and nothing of queues.
 */
#ifndef THOLE_OPERATOR_KUBE_H
#define THOLE_OPERATOR_KUBE_H

#include "kube/apply.h"
#include "kube/cache.h"
#include "kube/client.h"
#include "kube/config.h"
#include "kube/events.h"
#include "kube/informer.h"
#include "kube/lease.h"
#include "kube/resource.h"
#include "kube/watch.h"

#endif
