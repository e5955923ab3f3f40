#!/usr/bin/env bash
# Runs a program against a real API server and etcd of its own, on loopback: seconds to start, no root.
#
#   hack/control-plane.sh [--crds] [--controllers] [--nodes N] [--toxiproxy] PROGRAM [ARGUMENT...]
#
#   --crds          with Thole's kinds (before the controllers: their garbage collector learns of new kinds slowly)
#   --controllers   also Kubernetes' controller manager: Deployments make pods, owners' deletion is carried on
#   --nodes N       also the scheduler and N nodes played by kwok: pods there become Running without running
#   --toxiproxy     also a proxy before the API server, "api", which can delay, cut and reset connections
#
# The program finds in its environment:
#   THOLE_TEST_KUBECONFIG   a kubeconfig: contexts "admin" (client certificate), "token" (tokenFile), "toxic" (admin, by
#                           way of the proxy)
#   THOLE_TEST_CONTROL      this script; `$THOLE_TEST_CONTROL control VERB` while the program runs:
#                           kill-api, start-api [FLAG...], freeze-api, thaw-api, compact, delete-key KEY (in etcd)
#   THOLE_TEST_DIRECTORY    where both keep their files, the daemons' logs too; it is removed afterwards
#   THOLE_TEST_AUDIT        the API server's audit log: every request, by its metadata, a line of JSON each
#   THOLE_TEST_TOXIPROXY    the proxy's own HTTP API
# Everything started here is ended here.

set -euo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
tools=$(dirname "$self")/tools.sh
crds_folder=$(dirname "$self")/../crds
stages=$(dirname "$self")/tools/kwok/stages.yaml

start() { # NAME COMMAND...: in the background, with its output in a file
    local name=$1
    shift
    "$@" >>"$THOLE_TEST_DIRECTORY/$name.log" 2>&1 &
    echo $! >"$THOLE_TEST_DIRECTORY/$name.pid"
    disown # nobody is told when it is killed
}

signal() { # NAME SIGNAL
    kill "-$2" "$(<"$THOLE_TEST_DIRECTORY/$1.pid")" 2>/dev/null || true
}

freeze() { # NAME: and none of its threads runs when this returns
    local state
    signal "$1" STOP
    while state=$(sed 's/.*) //; s/ .*//' "/proc/$(<"$THOLE_TEST_DIRECTORY/$1.pid")"/task/*/stat | sort -u); [[ $state != T ]]; do
        sleep 0.01
    done
}

end() { # NAME: now, and gone when this returns
    local pid
    [[ -f $THOLE_TEST_DIRECTORY/$1.pid ]] || return 0
    pid=$(<"$THOLE_TEST_DIRECTORY/$1.pid")
    kill -KILL "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
    rm -f "$THOLE_TEST_DIRECTORY/$1.pid"
}

wait_ready() { # URL NAME
    local i
    for ((i = 0; i < 1800; i++)); do
        if curl --silent --fail --max-time 5 --output /dev/null --cacert ca.crt --cert admin.crt --key admin.key "$1"; then
            return 0
        fi
        kill -0 "$(<"$2.pid")" 2>/dev/null || break
        sleep 0.1
    done
    echo "$2 did not start:" >&2
    tail -n 20 "$2.log" >&2
    return 1
}

start_api() {
    start api "$THOLE_TEST_KUBERNETES/kube-apiserver" \
        --etcd-servers "http://127.0.0.1:$THOLE_TEST_ETCD_PORT" --secure-port "$THOLE_TEST_API_PORT" \
        --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --service-cluster-ip-range 10.96.0.0/16 \
        --endpoint-reconciler-type none --authorization-mode RBAC --token-auth-file tokens.csv \
        --client-ca-file ca.crt --tls-cert-file server.crt --tls-private-key-file server.key \
        --service-account-issuer https://kubernetes.default.svc --service-account-key-file service.pub \
        --service-account-signing-key-file service.key --etcd-compaction-interval 0 \
        --disable-admission-plugins ServiceAccount --watch-cache-sizes '' --profiling=false \
        --audit-policy-file audit-policy.yaml --audit-log-path "$THOLE_TEST_AUDIT" --audit-log-format json \
        --audit-log-maxsize 0 --audit-log-mode blocking "$@"
    wait_ready "https://127.0.0.1:$THOLE_TEST_API_PORT/readyz" api
}

kubectl() { "$THOLE_TEST_KUBERNETES/kubectl" --kubeconfig kubeconfig "$@" >/dev/null; }

apply_crds() {
    kubectl apply --server-side -k "$crds_folder"
    kubectl wait --for=condition=Established --timeout=60s crd trainjobs.thole.dev datasets.thole.dev
    # Established is not yet served: the first list of a new kind makes its storage.
    local kind i
    for kind in trainjobs datasets; do
        for ((i = 0; i < 300; i++)); do
            if kubectl get "$kind.thole.dev" 2>/dev/null; then break; fi
            sleep 0.1
        done
    done
}

start_controllers() {
    start controllers "$THOLE_TEST_KUBERNETES/kube-controller-manager" --kubeconfig kubeconfig --leader-elect=false \
        --secure-port 0 --use-service-account-credentials=false --service-account-private-key-file service.key \
        --root-ca-file ca.crt --kube-api-qps 1000 --kube-api-burst 2000 --concurrent-deployment-syncs 20 \
        --concurrent-replicaset-syncs 20 --concurrent-gc-syncs 40 --concurrent-namespace-syncs 20
}

start_nodes() { # COUNT
    local i
    start scheduler "$THOLE_TEST_KUBERNETES/kube-scheduler" --config scheduler.yaml --secure-port 0
    start kwok "$THOLE_TEST_KWOK/kwok" --kubeconfig kubeconfig --config "$stages" --manage-all-nodes=true \
        --node-lease-duration-seconds 40 --server-address 127.0.0.1:0
    for ((i = 1; i <= $1; i++)); do
        cat <<END
{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "kwok-$i", "labels": {"kubernetes.io/hostname": "kwok-$i"}},
 "status": {"allocatable": {"cpu": "10k", "memory": "100Ti", "pods": "100k"},
            "capacity": {"cpu": "10k", "memory": "100Ti", "pods": "100k"}}}
---
END
    done | kubectl create -f -
    kubectl wait --for=condition=Ready --timeout=120s nodes --all
}

start_toxiproxy() {
    local i
    start toxiproxy "$THOLE_TEST_TOXIPROXY_PROGRAM/toxiproxy" -host 127.0.0.1 -port "${THOLE_TEST_TOXIPROXY##*:}"
    for ((i = 0; i < 300; i++)); do
        if curl --silent --fail --output /dev/null -X POST "$THOLE_TEST_TOXIPROXY/proxies" -d "{\"name\": \"api\",
            \"listen\": \"127.0.0.1:$toxic_port\", \"upstream\": \"127.0.0.1:$THOLE_TEST_API_PORT\"}"; then return; fi
        sleep 0.1
    done
    echo "toxiproxy did not start:" >&2
    tail -n 20 toxiproxy.log >&2
    return 1
}

# Everything that etcd keeps of the past goes, as it does by itself every five minutes.
compact() {
    local revision
    revision=$(curl --silent --fail -X POST -d '{"key":"AA=="}' "http://127.0.0.1:$THOLE_TEST_ETCD_PORT/v3/kv/range" |
        sed 's/.*"revision":"\([0-9]*\)".*/\1/')
    curl --silent --fail --output /dev/null -X POST -d "{\"revision\":$revision,\"physical\":true}" \
        "http://127.0.0.1:$THOLE_TEST_ETCD_PORT/v3/kv/compaction"
}

# Behind the API server's back, as if another one had done it.
delete_key() {
    curl --silent --fail --output /dev/null -X POST -d "{\"key\":\"$(printf %s "$1" | base64 --wrap=0)\"}" \
        "http://127.0.0.1:$THOLE_TEST_ETCD_PORT/v3/kv/deleterange"
}

control() {
    cd "$THOLE_TEST_DIRECTORY"
    case $1 in
        kill-api) end api ;;
        start-api) start_api "${@:2}" ;;
        freeze-api) freeze api ;;
        thaw-api) signal api CONT ;;
        compact) compact ;;
        delete-key) delete_key "$2" ;;
        *) echo "no such verb: $1" >&2 && return 1 ;;
    esac
}

certificate() { # NAME SUBJECT [EXTENSIONS]
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -subj "$2" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out "$1.crt" \
        -extfile <(printf '%s\n' "${3:-keyUsage=digitalSignature}")
}

make_credentials() {
    openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 2 \
        -subj /CN=thole-test
    certificate server /CN=kube-apiserver 'subjectAltName=IP:127.0.0.1,DNS:kubernetes.default.svc'
    certificate admin /O=system:masters/CN=admin
    openssl ecparam -name prime256v1 -genkey -noout -out service.key
    openssl ec -in service.key -pubout -out service.pub
    echo 'good-token,admin,1,system:masters' >tokens.csv
    echo good-token >token
    cat >kubeconfig <<END
apiVersion: v1
kind: Config
current-context: admin
clusters:
- name: live
  cluster: {server: "https://127.0.0.1:$THOLE_TEST_API_PORT", certificate-authority: ca.crt}
- name: toxic
  cluster: {server: "https://127.0.0.1:$toxic_port", certificate-authority: ca.crt}
users:
- name: admin
  user: {client-certificate: admin.crt, client-key: admin.key}
- name: token
  user: {tokenFile: token}
contexts:
- name: admin
  context: {cluster: live, user: admin}
- name: token
  context: {cluster: live, user: token}
- name: toxic
  context: {cluster: toxic, user: admin}
END
    cat >scheduler.yaml <<END
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {kubeconfig: kubeconfig, qps: 1000, burst: 2000}
leaderElection: {leaderElect: false}
END
    cat >audit-policy.yaml <<END
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules: [{level: Metadata}]
END
}

# COUNT: different ones, below the range from which outgoing connections take theirs.
free_ports() {
    local port ports=()
    while ((${#ports[@]} < $1)); do
        port=$((10000 + RANDOM % 20000))
        if [[ " ${ports[*]} " == *" $port "* ]] || (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue; fi
        ports+=("$port")
    done
    echo "${ports[@]}"
}

clean_up() {
    local status=$?
    local name
    for name in kwok scheduler controllers toxiproxy api etcd; do end "$name"; done
    if ((status != 0 && status != 77)); then
        rm -f "$THOLE_TEST_AUDIT" # the others' last lines say more
        tail -n 5 "$THOLE_TEST_DIRECTORY"/*.log >&2
        echo "$1 ended with $status" >&2
    fi
    rm -rf "$THOLE_TEST_DIRECTORY"
}

if [[ ${1:-} == control ]]; then
    control "${@:2}"
    exit
fi
crds='' controllers='' nodes=0 toxiproxy=''
while (($#)); do
    case $1 in
        --crds) crds=yes ;;
        --controllers) controllers=yes ;;
        --nodes) nodes=${2:?--nodes wants a number} controllers=yes && shift ;;
        --toxiproxy) toxiproxy=yes ;;
        *) break ;;
    esac
    shift
done
case ${1:-} in '' | -*) sed -n '2,/^$/s/^# \{0,1\}//p' "$self" >&2 && exit 2 ;; esac

wanted=(kubernetes etcd)
if ((nodes > 0)); then wanted+=(kwok); fi
if [[ -n $toxiproxy ]]; then wanted+=(toxiproxy); fi
"$tools" "${wanted[@]}" >/dev/null
THOLE_TEST_KUBERNETES=$("$tools" --where kubernetes)
THOLE_TEST_ETCD=$("$tools" --where etcd)
THOLE_TEST_KWOK=$("$tools" --where kwok)
THOLE_TEST_TOXIPROXY_PROGRAM=$("$tools" --where toxiproxy)
THOLE_TEST_DIRECTORY=$(mktemp -d -t thole-live-XXXXXX)
THOLE_TEST_AUDIT=$THOLE_TEST_DIRECTORY/audit.log
read -r THOLE_TEST_ETCD_PORT THOLE_TEST_API_PORT toxic_port proxy_port < <(free_ports 4)
THOLE_TEST_TOXIPROXY=http://127.0.0.1:$proxy_port
export THOLE_TEST_KUBERNETES THOLE_TEST_DIRECTORY THOLE_TEST_ETCD_PORT THOLE_TEST_API_PORT THOLE_TEST_TOXIPROXY
export THOLE_TEST_AUDIT THOLE_TEST_CONTROL=$self THOLE_TEST_KUBECONFIG=$THOLE_TEST_DIRECTORY/kubeconfig
trap 'clean_up "$1"' EXIT

pushd "$THOLE_TEST_DIRECTORY" >/dev/null
make_credentials 2>openssl.log
start etcd "$THOLE_TEST_ETCD/etcd" --data-dir etcd --unsafe-no-fsync --listen-peer-urls http://127.0.0.1:0 \
    --listen-client-urls "http://127.0.0.1:$THOLE_TEST_ETCD_PORT" \
    --advertise-client-urls "http://127.0.0.1:$THOLE_TEST_ETCD_PORT"
start_api
if [[ -n $toxiproxy ]]; then start_toxiproxy; fi
if [[ -n $crds ]]; then apply_crds; fi
if [[ -n $controllers ]]; then start_controllers; fi
if ((nodes > 0)); then start_nodes "$nodes"; fi
popd >/dev/null
"$@"
