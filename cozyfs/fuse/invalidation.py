"""Telling the kernel what changed behind its back: on a mount that follows another one, and where
what was written to a file was given up."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyfuse3

if TYPE_CHECKING:
    from cozyfs.index import Changes


def tell_kernel(changes: Changes) -> None:
    """Have the kernel forget attributes, pages and names. Blocks until it has: in a thread, since
    it may wait for requests that the event loop answers. What it does not know is not an error."""
    for ino in changes.inodes:
        with suppress(OSError):
            pyfuse3.invalidate_inode(ino)
    for parent, name in changes.entries:
        with suppress(OSError):
            pyfuse3.invalidate_entry(parent, name)
