# Sourced by try.sh and test.sh: installs what is missing, and only that.
#
#   set_up EXTRAS PACKAGE...   leaves a virtual environment with cozyfs in $venv
#
# EXTRAS is "" or "[test]"; each PACKAGE is a Debian package wanted beside those that cozyfs
# itself needs. Environment: PYTHON (default python3), COZYFS_VENV (where the virtual
# environment is kept; default a folder of the cache).

project=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}
venv=${COZYFS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/cozyfs/venv}

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename -- "$0"): $*"; exit 1; }

# Run a command without its chatter; show all of it when it fails.
quietly() {
    quiet_log=$(mktemp)
    if "$@" >"$quiet_log" 2>&1; then
        rm -f "$quiet_log"
    else
        cat "$quiet_log" >&2
        rm -f "$quiet_log"
        die "failed: $*"
    fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "root is needed for: $*"
    fi
}

install_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install: $*"
    say "installing with apt: $*"
    export DEBIAN_FRONTEND=noninteractive
    quietly as_root apt-get update -qq
    quietly as_root apt-get install -qq -y --no-install-recommends "$@"
}

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# Whether the virtual environment is what this project asks for; changed only if not. One made
# with the extras serves without them as well.
is_current() {
    [ -x "$venv/bin/cozyfs" ] && grep -qsxF "$(made_from "$extras")" "$venv/made-from"
}

made_from() {
    { "$python" -VV; echo "$project $1"; cat "$project/setup.cfg"; } 2>&1 | sha256sum
}

make_current() {
    say "installing cozyfs$extras into $venv"
    mkdir -p "$venv"
    clear=--clear
    [ "$(cat "$venv/python" 2>/dev/null)" != "$("$python" -VV)" ] || clear=
    quietly "$python" -m venv $clear "$venv"
    quietly "$venv/bin/pip" install --quiet --disable-pip-version-check \
        --editable "$project$extras"
    "$python" -VV >"$venv/python"
    { made_from ""; made_from "$extras"; } >"$venv/made-from"
}

# What runs cozyfs; and, as pyfuse3 comes as source, what compiles it.
missing_packages() {
    command -v "$python" >/dev/null || echo python3
    "$python" -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
    command -v fusermount3 >/dev/null || echo fuse3
    if ! is_current; then
        command -v gcc >/dev/null || echo gcc libc6-dev
        command -v pkg-config >/dev/null || echo pkg-config
        pkg-config --exists fuse3 2>/dev/null || echo libfuse3-dev
        "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null \
            || echo python3-dev
        [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    fi
}

set_up() {
    extras=$1
    shift
    wanted=$(missing_packages)
    for package in "$@"; do
        installed "$package" || wanted="$wanted $package"
    done
    # shellcheck disable=SC2086  # one word per package
    install_packages $wanted

    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || die "cozyfs needs Python 3.11 or later; name one with PYTHON=..."
    is_current || make_current
    [ -e /dev/fuse ] || quietly as_root modprobe fuse
}
