#!/bin/sh
# Every check of the project: format, lint, types, tests. Installs what is missing first.
#
#   packaging/test.sh [PYTEST ARGUMENT...]
#
# Ends with pytest's closing line; the exit code is 0 only when every check passed.
set -eu
. "$(dirname -- "$0")/setup.sh"

set_up "[test]" git rsync attr acl groff-base
cd "$project"
PATH=$venv/bin:$PATH
export PATH

failed=0
check() {
    check_log=$(mktemp)
    if ! "$@" >"$check_log" 2>&1; then
        failed=1
        say "FAILED: $*"
        cat "$check_log" >&2
    fi
    rm -f "$check_log"
}
check ruff format --check .
check ruff check .
check mypy
pytest -q "$@" || failed=1
exit $failed
