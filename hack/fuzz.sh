#!/usr/bin/env bash
# Fuzzes: libFuzzer with ASan and UBSan looks for bytes that make a target (x_fuzz.c) fall over.
#
#   hack/fuzz.sh                       every target, ten minutes each
#   hack/fuzz.sh TARGET [SECONDS]      one of them (kube_decoder_fuzz), 600 seconds
#   hack/fuzz.sh --list                which there are
#
# Begins with the corpus beside the target (testdata/fuzz-x) and what earlier runs found (build/fuzz/found/TARGET, where
# the smallest set of inputs that reach the same code is left). What makes it fall over is in build/fuzz/crashes: mend
# it, and keep the bytes as a named file in the corpus, which ctest replays (bytes that are no text: xxd -p, name.hex).

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=hack/lib.sh
source "$here/lib.sh"

build=$THOLE_ROOT/build/fuzz

build_targets() {
    ensure_packages "${packages_build[@]}" "${packages_fuzz[@]}"
    step "building the fuzz targets"
    cmake --preset fuzz -S "$THOLE_ROOT" -B "$build" >"$build.log" || { cat "$build.log" && die "cmake cannot configure"; }
    cmake --build "$build" ${1:+--target "$1"} >"$build.log" || { tail -n 40 "$build.log" && die "it does not compile"; }
}

targets() { find "$build/targets" -name '*_fuzz' -type f -executable -printf '%f\n' | sort; }

# seeds TARGET FOLDER: its corpus as plain bytes.
seeds() {
    local file name
    for file in "$build/targets/$1.corpus"/*; do
        name=$(basename "$file" .hex)
        if [[ $file == *.hex ]]; then xxd -r -p "$file" "$2/$name"; else cp "$file" "$2/$name"; fi
    done
}

# fuzz TARGET SECONDS
fuzz() {
    local target=$1 seconds=$2 found=$build/found/$1 before=$build/before/$1 result=0
    rm -rf "$before"
    mkdir -p "$found" "$before" "$build/crashes"
    seeds "$target" "$before"
    step "$target, $seconds s"
    ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 \
        "$build/targets/$target" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$build/crashes/$target-" "$found" "$before" >"$build/$target.log" 2>&1 || result=$?
    grep -E 'cov:' "$build/$target.log" | tail -n 1
    grep -E 'stat::(number_of_executed_units|average_exec_per_sec)' "$build/$target.log" || true
    if ((result)); then
        tail -n 60 "$build/$target.log"
        warn "$target fell over: see $build/$target.log and $build/crashes"
        return 1
    fi
    minimise "$target"
}

minimise() {
    local found=$build/found/$1 small=$build/small/$1
    rm -rf "$small"
    mkdir -p "$small"
    "$build/targets/$1" -merge=1 -max_len=4096 "$small" "$build/before/$1" "$found" >>"$build/$1.log" 2>&1 || return 0
    rm -rf "$found"
    mv "$small" "$found"
}

case ${1:-} in
    -h | --help) usage "$0" && exit ;;
    --list) build_targets && targets && exit ;;
    -*) die "fuzz.sh does not know '$1'; see --help" ;;
esac
build_targets "${1:-}"
failed=()
for target in ${1:-$(targets)}; do
    fuzz "$target" "${2:-600}" || failed+=("$target")
done
((${#failed[@]} == 0)) || die "fell over: ${failed[*]}"
