#!/usr/bin/env bash
# Puts what the samples expect of every node on the nodes of a cluster that the user has: Fashion-MNIST's files in
# /usr/share/datasets, and the folder /var/lib/thole/models for user 65532. hack/demo.sh --existing calls this.
#
#   hack/demo/files.sh CONTEXT IMAGE        IMAGE: where the nodes find hack/image.sh's image `samples`

here=$(dirname "${BASH_SOURCE[0]}")/..
# shellcheck source=hack/lib.sh
source "$here/lib.sh"

case " $* " in *" --help "* | *" -h "*) usage "$0" && exit ;; esac
context=${1:?the context is missing; see --help}
image=${2:?the image is missing; see --help}
kube() { kubectl --context "$context" "$@"; }

step "copying the sample's data to the nodes"
kube apply -f - >/dev/null <<END
apiVersion: v1
kind: Namespace
metadata: {name: thole-samples}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: samples, namespace: thole-samples}
spec:
  selector: {matchLabels: {app: samples}}
  template:
    metadata: {labels: {app: samples}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      tolerations: [{operator: Exists}]
      initContainers:
      - name: copy
        image: $image
        imagePullPolicy: IfNotPresent
        args:
        - sh
        - -ec
        - |
          busybox cp -r /datasets/fashion-mnist /host/datasets/
          busybox chown 65532:65532 /host/models
        securityContext: {runAsUser: 0}
        volumeMounts:
        - {name: datasets, mountPath: /host/datasets}
        - {name: models, mountPath: /host/models}
      containers:
      - name: wait
        image: $image
        imagePullPolicy: IfNotPresent
        args: [sleep, "86400"]
      volumes:
      - name: datasets
        hostPath: {path: /usr/share/datasets, type: DirectoryOrCreate}
      - name: models
        hostPath: {path: /var/lib/thole/models, type: DirectoryOrCreate}
END
kube -n thole-samples rollout status daemonset/samples --timeout 180s >/dev/null ||
    die "the nodes did not get the data: kubectl --context $context -n thole-samples describe pods"
kube delete namespace thole-samples --wait=false >/dev/null
