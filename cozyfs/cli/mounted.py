"""Paths that users name on the command line, found in the mounts of cozyfs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cozyfs.cli import mountpoints
from cozyfs.errors import CozyError, UsageError

if TYPE_CHECKING:
    from cozyfs.control import ControlClient


class Located(NamedTuple):
    """A path in a mount."""

    client: ControlClient
    mountpoint: Path
    path: str  # from the root of the instance, as /a/b


def locate(path: str | Path, state_dir: Path) -> Located:
    """The mount that *path* is in; *path* itself need not exist, and is not followed if it is a
    symbolic link. Raises UsageError when no mount of ours is there."""
    from cozyfs.control import ControlClient
    from cozyfs.state import find_mount

    whole = Path(os.path.abspath(path))
    whole = Path(os.path.realpath(whole.parent)) / whole.name
    for mountpoint in mountpoints.with_device(_device(whole)):
        if whole.is_relative_to(mountpoint):
            record = find_mount(state_dir, mountpoint)
            if record is not None:
                inside = whole.relative_to(mountpoint).as_posix()
                return Located(
                    ControlClient(record.control_path),
                    mountpoint,
                    "/" if inside == "." else f"/{inside}",
                )
    raise UsageError(f"{path} is not in a mount of cozyfs (with this --state-dir)")


def find(path: str, state_dir: Path | None, wanted: int) -> Located:
    """Where *path* is, followed if it is a symbolic link, which the user may read or write as
    *wanted* says (os.R_OK, os.W_OK). Raises OSError, UsageError, CozyError."""
    from cozyfs.config import state_dir as default_state_dir

    os.stat(path)
    place = locate(os.path.realpath(path), default_state_dir(state_dir))
    if not os.access(path, wanted):
        raise CozyError(f"{path}: permission denied")
    return place


def control_of(device: int, state_dir: Path, source: str) -> ControlClient:
    """The mount whose files have *device*. Raises UsageError when it is none of ours."""
    from cozyfs.control import ControlClient
    from cozyfs.state import find_mount

    for mountpoint in mountpoints.with_device(device):
        record = find_mount(state_dir, mountpoint)
        if record is not None:
            return ControlClient(record.control_path)
    raise UsageError(f"{source} is not in a mount of cozyfs (with this --state-dir)")


def _device(path: Path) -> int:
    """Of the nearest part of the path that is there."""
    while True:
        try:
            return path.lstat().st_dev
        except (FileNotFoundError, NotADirectoryError):
            path = path.parent
