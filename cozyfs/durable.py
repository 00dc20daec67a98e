"""Making what is on a disk of this machine outlive it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath


def sync(path: StrOrBytesPath) -> None:
    """What the file *path* holds, or the names that the folder *path* holds, is on the disk when
    this returns. Blocks. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
