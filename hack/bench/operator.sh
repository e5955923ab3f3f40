#!/usr/bin/env bash
# The operator's speed, size and number of requests: see jobs.py beside this, which it calls (a script named operator.py
# would hide Python's own module of that name).

# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

python=$(ensure_venv e2e -r "$THOLE_ROOT/e2e/requirements.txt")/bin/python
if [[ " $* " != *" --help "* && " $* " != *" --binary "* ]]; then
    ensure_packages "${packages_build[@]}"
    step "building the release"
    (cd "$THOLE_ROOT" && cmake --preset release >/dev/null && cmake --build --preset release --target thole-operator) >&2
fi
exec "$python" "$THOLE_ROOT/hack/bench/jobs.py" "$@"
