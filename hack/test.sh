#!/usr/bin/env bash
# All tests: shellcheck, the unit tests under ASan and UBSan, and the end-to-end tests against a real Kubernetes.
#
#   hack/test.sh            everything
#   hack/test.sh --unit     the quick half: no cluster, no root once the packages are installed
#   hack/test.sh --e2e      the other half
#   -k EXPR                 only the end-to-end tests that match (pytest's -k)
#   --keep                  leave the cluster and what the tests made in it
#
# Needs: root, 6 GiB of memory, 12 GiB of disk. --unit takes two minutes; all of it about fifteen, and the first time
# fifteen more, to build Kubernetes. A cluster that is up is used and stays; one that this brings up goes at the end.
# On a failure the logs are in build/e2e-logs. May be interrupted and repeated at any moment.

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=hack/lib.sh
source "$here/lib.sh"
# shellcheck source=hack/cluster/state.sh
source "$here/cluster/state.sh"

unit=yes e2e=yes keep='' select=() child='' server='' ours='' failed=()
reports=$THOLE_ROOT/build/test-reports

while (($#)); do
    case $1 in
        -h | --help) usage "$0" && exit ;;
        --unit) e2e='' ;;
        --e2e) unit='' ;;
        -k) select=(-k "${2:?-k wants an expression}") && shift ;;
        --keep) keep=yes ;;
        *) die "test.sh does not know '$1'; see --help" ;;
    esac
    shift
done

# run COMMAND...: beside the shell, so that a signal is answered while it runs.
run() {
    local result=0
    env --default-signal=INT "$@" &
    child=$!
    wait "$child" || result=$?
    child=''
    return "$result"
}

# report NAME COMMAND...: what it prints is also kept; a failure is remembered and the rest goes on.
report() {
    local name=$1 output printer
    shift
    exec {output}> >(exec tee "$reports/$name.txt")
    printer=$!
    run "$@" >&"$output" 2>&1 {output}>&- || failed+=("$name")
    exec {output}>&-
    wait "$printer"
}

unit_tests() {
    step "shellcheck"
    report shellcheck shellcheck "$here"/*.sh "$here"/*/*.sh "$THOLE_ROOT/trainer-image/completion.sh" "$THOLE_ROOT/.ci/run"
    step "unit tests with AddressSanitizer and UndefinedBehaviorSanitizer"
    run cmake --preset asan >"$reports/cmake.txt" || { cat "$reports/cmake.txt" && die "cmake cannot configure"; }
    run cmake --build --preset asan || die "it does not compile"
    report ctest ctest --preset asan
}

# The unit tests whose other side is a server: here it is the real one, started on loopback for them.
live_tests() {
    local folder venv address=127.0.0.1:27717
    run "$here/tools.sh" >/dev/null
    run cmake --preset asan >"$reports/cmake.txt" || { cat "$reports/cmake.txt" && die "cmake cannot configure"; }
    run cmake --build --preset asan || die "it does not compile"
    step "the Kubernetes client against a real API server"
    report kube-live "$here/control-plane.sh" "$THOLE_ROOT/build/asan/operator/kube/kube_live_test"
    report kube-churn "$here/control-plane.sh" --toxiproxy "$THOLE_ROOT/build/asan/operator/kube/kube_live_churn_test"
    step "the history against a real server of MongoDB's protocol"
    folder=$(mktemp -d)
    "$("$here/tools.sh" --where ferretdb)/ferretdb" --listen "$address" --dir "$folder" >"$reports/ferretdb.txt" 2>&1 &
    server=$!
    wait_for 120 "MongoDB's protocol on $address" bash -c "exec 3<>/dev/tcp/${address/://}" ||
        { cat "$reports/ferretdb.txt" && die "FerretDB does not start"; }
    report history-live env "THOLE_TEST_MONGODB_URI=mongodb://$address" \
        "$THOLE_ROOT/build/asan/operator/history/history_test"
    stop_server
    rm -rf "$folder"
    step "the operator against a control plane without nodes"
    venv=$(ensure_venv e2e -r "$THOLE_ROOT/e2e/requirements.txt")
    report plane "$venv/bin/pytest" "$THOLE_ROOT/e2e/plane"
}

stop_server() {
    [[ -n $server ]] || return 0
    kill "$server" 2>/dev/null || true
    wait "$server" || true
    server=''
}

e2e_tests() {
    local venv settings
    # A cluster that was whole in this boot is somebody's; what an interrupted run or another boot left is nobody's.
    if ! grep -qsf /proc/sys/kernel/random/boot_id "$cluster/whole"; then
        "$here/cluster.sh" down 2>/dev/null
        ours=yes
        if ((${#select[@]} == 0)); then
            step "the cluster's own tests"
            run "$here/tools.sh" >/dev/null
            report cluster "$here/cluster/test.sh"
        fi
    fi
    run "$here/cluster.sh" up || { collect_logs && die "the cluster does not come up"; }
    run "$here/install.sh" || { collect_logs && die "Thole cannot be installed"; }
    settings=$("$here/cluster.sh" env)
    eval "$settings"
    venv=$(ensure_venv e2e -r "$THOLE_ROOT/e2e/requirements.txt")
    step "end-to-end tests"
    report pytest "$venv/bin/pytest" "$THOLE_ROOT/e2e" --ignore "$THOLE_ROOT/e2e/plane" "${select[@]}" ${keep:+--keep}
    if [[ " ${failed[*]} " == *" pytest "* ]]; then collect_logs; fi
}

collect_logs() {
    local to=$THOLE_ROOT/build/e2e-logs node
    step "collecting logs in $to"
    rm -rf "$to"
    mkdir -p "$to"
    kubectl get all,trainjobs.thole.dev,datasets.thole.dev --all-namespaces -o wide >"$to/objects.txt" 2>&1 || true
    kubectl get trainjobs.thole.dev --all-namespaces -o yaml >"$to/trainjobs.yaml" 2>&1 || true
    kubectl get events --all-namespaces --sort-by .lastTimestamp >"$to/events.txt" 2>&1 || true
    kubectl -n thole-system logs -l app.kubernetes.io/name=thole-operator --prefix --tail -1 --timestamps >"$to/operator.log" 2>&1 || true
    kubectl -n thole-system logs -l app.kubernetes.io/name=thole-operator --prefix --tail -1 --previous >"$to/operator-previous.log" 2>&1 || true
    cp -r "$logs" "$to/cluster" || true
    for node in "$cluster"/node-*; do
        cp -r "$node/pod-logs" "$to/pods-of-${node##*/}" || true
    done
}

# However it ends: nothing keeps running, and a cluster of our own goes.
clean_up() {
    trap '' INT TERM
    if [[ -n $child ]]; then
        kill -INT "$child" 2>/dev/null || true
        wait "$child" || true
    fi
    stop_server
    if [[ -n $tools_build ]]; then kill "$tools_build" 2>/dev/null || true; fi
    if [[ -n $ours && -z $keep ]]; then "$here/cluster.sh" down; fi
}

closing_lines() {
    local name
    step "results"
    for name in shellcheck ctest kube-live history-live plane cluster pytest; do
        [[ -f $reports/$name.txt ]] || continue
        printf -- '---- %s\n' "$name"
        if [[ " ${failed[*]} " == *" $name "* ]]; then # everything that a person needs is at the end of the output
            tail -n 60 "$reports/$name.txt"
            continue
        fi
        case $name in
            shellcheck) { grep -c '^In ' "$reports/$name.txt" || true; } | sed 's/$/ findings/' ;;
            ctest) sed -n '/tests passed/,$p' "$reports/$name.txt" ;;
            *-live) tail -n 1 "$reports/$name.txt" ;;
            cluster | plane | pytest) tail -n 1 "$reports/$name.txt" ;;
        esac
    done
}

cd "$THOLE_ROOT"
rm -rf "$reports"
mkdir -p "$reports"
tools_build=''
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

packages=("${packages_check[@]}" "${packages_build[@]}" "${packages_samples[@]}")
if [[ -n $e2e ]]; then
    say "needs root, 6 GiB of memory, 12 GiB of disk; about fifteen minutes"
    need_root "the end-to-end tests"
    packages+=("${packages_cluster[@]}")
else
    say "needs 2 GiB of memory and two minutes; root only if a package is missing"
fi
ensure_packages "${packages[@]}"
if [[ -n $e2e && ! -d $("$here/tools.sh" --where kubernetes) ]]; then
    say "building Kubernetes beside the unit tests, about fifteen minutes this first time: build/tools.log"
    "$here/tools.sh" >build/tools.log 2>&1 &
    tools_build=$!
fi
if [[ -n $unit ]]; then unit_tests; fi
if [[ -n $e2e ]]; then
    if ((${#select[@]} == 0)); then live_tests; fi
    e2e_tests
fi
closing_lines
((${#failed[@]} == 0)) || die "failed: ${failed[*]}"
say "all passed"
