"""What makes a mount quick and small that is not its own: the allocator and the
kernel's read-ahead."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path

_M_ARENA_MAX = -8  # of mallopt(3)

READ_AHEAD_KIB = 1024
"""What the kernel asks for at once of a sequential reader, where we may set it."""


def tame_memory() -> None:
    """What a long-lived process with many threads and large short-lived buffers wants of its
    allocators. Measured on a sequential read of 1 GiB: 240 MB at most without, 190 MB with."""
    # By default each thread gets an arena of its own, and freed buffers stay in all of them.
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    # Nearly nothing here forms cycles, and each full collection would walk every cached inode.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def raise_read_ahead(mountpoint: Path) -> None:
    """Let the kernel read ahead further than its default of 128 KiB; needs root, and is only
    speed. The device number comes from mountinfo, since a stat would ask ourselves."""
    wanted = os.fspath(mountpoint)
    with contextlib.suppress(OSError, IndexError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split(" ")
            if fields[4] == wanted:
                path = Path(f"/sys/class/bdi/{fields[2]}/read_ahead_kb")
                if int(path.read_text()) < READ_AHEAD_KIB:
                    path.write_text(f"{READ_AHEAD_KIB}\n")
