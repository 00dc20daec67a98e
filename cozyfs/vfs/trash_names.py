"""Names and the trash: what is called like a passing file, how a taken name becomes a free one.

Pure functions over bytes. The patterns are listed in cozyfs-semantics(7) as well.
"""

from __future__ import annotations

import random
import re
from fnmatch import translate
from typing import TYPE_CHECKING

from cozyfs.errors import AlreadyExists, CozyError
from cozyfs.vfs.names import MAX_NAME, check_name

if TYPE_CHECKING:
    from collections.abc import Callable

PASSING = (
    # backups, swap and lock files of editors and office suites
    *("*~", ".*.sw?", ".*.un~", ".#*", "#*#", "4913", ".~lock.*#", "~$*"),
    *(".goutputstream-*", ".*.kate-swp", "*___jb_tmp___", "*___jb_old___", "*.tmp", "*.TMP"),
    # downloads that are not complete
    *("*.part", "*.crdownload", "*.partial", "*.filepart", "*.opdownload", ".com.google.Chrome.*"),
    # what file systems rename open files to
    *(".nfs*", ".fuse_hidden*", ".smbdelete*"),
    # git's locks (others end alike and are worth keeping: Cargo.lock) and unfinished objects
    *("index.lock", "HEAD.lock", "ORIG_HEAD.lock", "config.lock", "packed-refs.lock"),
    *("shallow.lock", "main.lock", "master.lock", "tmp_obj_*", "tmp_pack_*", "tmp_idx_*"),
    *("tmp_rev_*", ".tmp-*-pack-*"),
    # SQLite's journals
    *("*.db-journal", "*.db-wal", "*.db-shm", "*.sqlite*-journal", "*.sqlite*-wal"),
    *("*.sqlite*-shm",),
)
"""Patterns of fnmatch(3) for names of files that programs make in passing."""

_RSYNC = r"\..+\.[A-Za-z0-9]{6}"
"""rsync's and mkstemp(3)'s ``.name.XXXXXX``; of the six characters one has to be upper case or a
digit, or ``.config.backup`` would be one."""

_PASSING = re.compile("|".join(translate(pattern) for pattern in PASSING).encode())
_MKSTEMP = re.compile(_RSYNC.encode())
_UNLIKE_A_WORD = re.compile(rb"[A-Z0-9]")

_SUFFIX = re.compile(rb"(.+) \(\d{9}\)", re.DOTALL)
_SUFFIX_SIZE = len(" (123456789)")
_ATTEMPTS = 1000


def is_passing(name: bytes) -> bool:
    """Whether programs make files of such names only for a moment: not worth keeping."""
    if _PASSING.fullmatch(name):
        return True
    return bool(_MKSTEMP.fullmatch(name) and _UNLIKE_A_WORD.search(name[-6:]))


def free_name(
    wanted: bytes,
    taken: Callable[[bytes], bool],
    number: Callable[[], int] = lambda: random.randrange(10**9),
) -> bytes:
    """*wanted* where that is free, else with a Cozy's suffix of the trash: `` (031415926)`` after
    the whole name, which is cut where it would get too long. Raises AlreadyExists when a thousand
    of them are taken."""
    if not taken(wanted):
        return wanted
    for _ in range(_ATTEMPTS):
        candidate = _cut(wanted, MAX_NAME - _SUFFIX_SIZE) + b" (%09d)" % number()
        if not taken(candidate):
            return candidate
    raise AlreadyExists("no free name was found")


def without_suffix(name: bytes) -> bytes:
    """*name* without the suffix that a Cozy's trash appends, as far as the rest is a name."""
    match = _SUFFIX.fullmatch(name)
    if match is None:
        return name
    try:
        check_name(match[1])
    except CozyError:
        return name
    return match[1]


def _cut(name: bytes, size: int) -> bytes:
    """At most *size* bytes, whole characters."""
    return name[:size].decode(errors="ignore").encode()
