#!/usr/bin/env bash
# Runs a program against a real API server and etcd of its own, on loopback, without nodes or controllers.
#
#   operator/kube/live.sh PROGRAM [ARGUMENT...]
#
# The program finds in its environment:
#   THOLE_TEST_KUBECONFIG   a kubeconfig: context "admin" (client certificate), context "token" (tokenFile)
#   THOLE_TEST_CONTROL      this script; `$THOLE_TEST_CONTROL control VERB` while the program runs:
#                           kill-api, start-api [FLAG...], freeze-api, thaw-api, compact, delete-key KEY (in etcd)
#   THOLE_TEST_DIRECTORY    where both keep their files; it is removed afterwards
# Needs the binaries that hack/tools.sh builds, and openssl. Everything started here is ended here.

set -euo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
tools=$(dirname "$self")/../../hack/tools.sh

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
        --disable-admission-plugins ServiceAccount --watch-cache-sizes '' "$@"
    wait_ready "https://127.0.0.1:$THOLE_TEST_API_PORT/readyz" api
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
        freeze-api) signal api STOP ;;
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
END
}

free_port() { # below the range from which outgoing connections take theirs
    local port
    while :; do
        port=$((10000 + RANDOM % 20000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    done
    echo "$port"
}

clean_up() {
    local status=$?
    end api
    end etcd
    if ((status != 0 && status != 77)); then
        tail -n 5 "$THOLE_TEST_DIRECTORY"/*.log >&2
        echo "$1 ended with $status" >&2
    fi
    rm -rf "$THOLE_TEST_DIRECTORY"
}

if [[ ${1:-} == control ]]; then
    control "${@:2}"
    exit
fi
(($# > 0)) || { sed -n '2,/^$/s/^# \{0,1\}//p' "$self" >&2 && exit 2; }

THOLE_TEST_KUBERNETES=$("$tools" --where kubernetes)
THOLE_TEST_ETCD=$("$tools" --where etcd)
THOLE_TEST_DIRECTORY=$(mktemp -d -t thole-live-XXXXXX)
THOLE_TEST_ETCD_PORT=$(free_port)
THOLE_TEST_API_PORT=$THOLE_TEST_ETCD_PORT
while [[ $THOLE_TEST_API_PORT == "$THOLE_TEST_ETCD_PORT" ]]; do THOLE_TEST_API_PORT=$(free_port); done
export THOLE_TEST_KUBERNETES THOLE_TEST_DIRECTORY THOLE_TEST_ETCD_PORT THOLE_TEST_API_PORT
export THOLE_TEST_CONTROL=$self THOLE_TEST_KUBECONFIG=$THOLE_TEST_DIRECTORY/kubeconfig
trap 'clean_up "$1"' EXIT

pushd "$THOLE_TEST_DIRECTORY" >/dev/null
make_credentials 2>openssl.log
start etcd "$THOLE_TEST_ETCD/etcd" --data-dir etcd --unsafe-no-fsync --listen-peer-urls http://127.0.0.1:0 \
    --listen-client-urls "http://127.0.0.1:$THOLE_TEST_ETCD_PORT" \
    --advertise-client-urls "http://127.0.0.1:$THOLE_TEST_ETCD_PORT"
start_api
popd >/dev/null
"$@"
