#!/usr/bin/env bash
# Measurements, each with what it is compared to in the same run.
#
#   hack/bench.sh train [OPTION...]       samples/s of mlp and lenet; beside PyTorch DDP with --torch (fetches PyTorch) or
#                                         where torch is installed
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
elif [[ -f $here/bench/$name.py ]]; then
    ensure_packages "${packages_build[@]}" "${packages_samples[@]}"
    if [[ " $* " != *" --help "* ]]; then
        step "building the release"
        (cd "$THOLE_ROOT" && cmake --preset release >/dev/null && cmake --build --preset release) >&2
    fi
    python=python3
    arguments=()
    for argument in "$@"; do
        if [[ $argument == --torch ]]; then
            python=$(ensure_venv torch torch numpy)/bin/python
        else
            arguments+=("$argument")
        fi
    done
    cd "$THOLE_ROOT"
    exec "$python" "$here/bench/$name.py" "${arguments[@]}"
fi
die "there is no measurement '$name'; there are: $(cd "$here/bench" 2>/dev/null && printf '%s ' *)"
