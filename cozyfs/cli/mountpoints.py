"""What the kernel says about mount points, and the tools that unmount them.

Everything here works on mounts whose process is dead or hangs: ``/proc/self/mountinfo`` is
read, the mounted file system is not asked.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cozyfs.errors import CozyError

MOUNTINFO = Path("/proc/self/mountinfo")
TOOL_TIMEOUT_S = 60.0


class MountBusy(CozyError):
    """Somebody has a file open or works in the mount."""


@dataclass(frozen=True, slots=True)
class KernelMount:
    """One line of mountinfo, see proc(5)."""

    mountpoint: Path
    fstype: str
    source: str

    @property
    def is_cozyfs(self) -> bool:
        return self.fstype == "fuse.cozyfs"


def kernel_mount(path: Path) -> KernelMount | None:
    """The topmost mount at exactly *path* (absolute, no symbolic links), or None."""
    found = None
    for line in MOUNTINFO.read_text("utf-8", "surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        mountpoint = Path(_unescape(fields.split(" ")[4]))
        if mountpoint == path:
            fstype, source = rest.split(" ")[:2]
            found = KernelMount(mountpoint, fstype, _unescape(source))
    return found


def with_device(device: int) -> list[Path]:
    """Where cozyfs mounts whose files have ``st_dev`` *device* are to be seen."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = []
    for line in MOUNTINFO.read_text("utf-8", "surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        _, _, number, _, mountpoint = fields.split(" ")[:5]
        if number == wanted and rest.split(" ")[0] == "fuse.cozyfs":
            found.append(Path(_unescape(mountpoint)))
    return found


def is_dead(path: Path) -> bool:
    """Whether the process behind the mount at *path* has ended: "Transport endpoint is not
    connected"."""
    try:
        os.statvfs(path)  # stat would be answered from what the kernel remembers
    except OSError as exc:
        return exc.errno == errno.ENOTCONN
    return False


def unmount(path: Path) -> None:
    """Unmount *path*. Raises MountBusy while it is in use, CozyError when it cannot be done."""
    _run_tool(path, ["umount", "-c", "-i", "--"] if os.geteuid() == 0 else _fusermount("-u"))


def unmount_lazily(path: Path) -> None:
    """Take *path* out of the tree now, whoever uses it: for mounts that are dead."""
    lazily = ["umount", "-c", "-i", "-l", "--"] if os.geteuid() == 0 else _fusermount("-u", "-z")
    _run_tool(path, lazily)


def _fusermount(*options: str) -> list[str]:
    tool = shutil.which("fusermount3") or shutil.which("fusermount")
    if tool is None:
        raise CozyError("fusermount3 is missing: install fuse3")
    return [tool, *options, "--"]


def _run_tool(path: Path, command: list[str]) -> None:
    try:
        done = subprocess.run(
            [*command, os.fspath(path)],
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TOOL_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as exc:
        raise CozyError(f"{command[0]} is missing") from exc
    except subprocess.TimeoutExpired as exc:
        raise CozyError(f"{command[0]} does not end: is {path} in use?") from exc
    if done.returncode == 0:
        return
    said = " ".join(done.stderr.split())
    if "busy" in said.lower():
        raise MountBusy(
            f"{path} is busy: a program has a file open or works in it (fuser -vm {path} shows)"
        )
    raise CozyError(f"cannot unmount {path}: {said or f'{command[0]} failed'}")


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
