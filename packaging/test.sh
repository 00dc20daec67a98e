#!/bin/sh
# Every check of the project: format, lint, types, tests. Installs what is missing first.
#
#   packaging/test.sh [PYTEST ARGUMENT...]
#
# The tests run in three processes at once, more than a small machine has processors, since most
# of them wait. Each process has S3 servers of its own; the tests of a file stay together, as they
# share mounts. "-n 0" runs them one after the other, as "pytest" alone does.
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
# In order of their names, files that take long come early: no process is left with one at the end.
pytest -q -n 3 --dist loadfile --no-loadscope-reorder "$@" || failed=1
exit $failed
