#!/bin/sh
# Try cozyfs: install what is missing, mount an instance on a folder, put a file in and take
# it out. The store is a folder of this machine; no server and no account are needed.
#
#   packaging/try.sh [FOLDER]        (default: ~/cozy)
set -eu
. "$(dirname -- "$0")/setup.sh"

folder=${1:-$HOME/cozy}
instance=alice.cozy.localhost
set_up ""
cozyfs=$venv/bin/cozyfs

mkdir -p "$folder"
if "$cozyfs" status "$folder" >/dev/null 2>&1; then
    say "$folder is mounted already"
else
    "$cozyfs" mount --create "$instance" "$folder"
fi

show() { printf '\n$ %s\n' "$*"; "$@"; }
show cp "$project/README.md" "$folder/"
show ls -l "$folder"
show cmp "$project/README.md" "$folder/README.md"
echo "  (the same)"
show "$cozyfs" status "$folder"

cat <<END

$instance is mounted on $folder: work there as in any folder.
Unmount it with:
    $cozyfs umount $folder
END
