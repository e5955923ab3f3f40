#!/usr/bin/env bash
# Measurements, each with what it is compared to in the same run.
#
#   hack/bench.sh train [OPTION...]       samples/s, time to accuracy, accuracy of the sync types, bytes/s; beside PyTorch
#                                         DDP with --torch and MXNet's kvstore with --mxnet (which fetch them), and iperf3
#   hack/bench.sh operator [OPTION...]    the operator: jobs/s, latency, memory, API requests; against a real API server
#
# Needs: a machine that does nothing else. `hack/bench.sh NAME --help` says more. Figures of different machines do not
# compare.

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=hack/lib.sh
source "$here/lib.sh"

name=${1:-}
case $name in '' | -h | --help | help) usage "$0" && exit ;; esac
shift

if [[ -f $here/bench/$name.sh ]]; then
    exec bash "$here/bench/$name.sh" "$@"
elif [[ $name == train ]]; then
    ensure_packages "${packages_build[@]}" "${packages_samples[@]}" iperf3
    if [[ " $* " != *" --help "* ]]; then
        step "building the release"
        (cd "$THOLE_ROOT" && cmake --preset release >/dev/null && cmake --build --preset release) >&2
    fi
    python=python3
    arguments=()
    for argument in "$@"; do
        case $argument in
            --torch) python=$(ensure_venv torch torch numpy)/bin/python ;;
            --mxnet) arguments+=(--mxnet-python "$(ensure_venv mxnet mxnet 'numpy<1.24')/bin/python") ;;
            *) arguments+=("$argument") ;;
        esac
    done
    cd "$THOLE_ROOT"
    exec "$python" "$here/bench/train.py" "${arguments[@]}"
fi
die "there is no measurement '$name'; there are: train operator"
