"""What a mount keeps on this machine: one directory per instance, and who holds it.

::

    <state dir>/<bucket>/<db_prefix>/     mode 0700
        index.db        the tree (cozyfs.index)
        staging/        drafts that memory does not hold (cozyfs.vfs)
        store           which store the tree belongs to, one line
        lock            held with flock(2) for the life of a mount
        mount.json      the live mount: pid, mount point, instance, store, since when
        control.sock    where that mount answers (cozyfs.control)
        mount.log       what a mount in the background says when no --log-file is given
        past/           mounts of the past (cozyfs.paststate)

The lock is what tells a live mount from a dead one: the kernel gives it back when the last
process that holds it ends, however it ends. It survives fork(2), since parent and child share
the open file. Nothing here reads the index or the drafts, or speaks to a store.

Threads: none; called by the command line and at the start and the end of a mount.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from cozyfs.errors import CozyError, InstanceError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Asking whether a lock is held takes it for an instant; a mount that starts just then must not
# believe that somebody else has the instance.
LOCK_PATIENCE_S = 0.3

PAST = "past"
"""The folder for mounts of the past, each with a directory of its own."""


@dataclass(frozen=True, slots=True)
class MountRecord:
    """One live mount of this machine, as in its ``mount.json``."""

    pid: int
    mountpoint: str
    instance: str  # the domain
    store: str  # for people, no credentials
    started_at: str  # RFC 3339, UTC
    directory: Path  # the instance's state directory, or that of this mount of the past
    at: str = ""  # of a mount of the past: the moment, RFC 3339

    @property
    def control_path(self) -> Path:
        return self.directory / "control.sock"


class InstanceState:
    """The state directory of one instance; :meth:`lock` makes it this process's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock_fd = -1
        self._record: MountRecord | None = None

    @classmethod
    def open(cls, state_dir: Path, bucket: str, db_prefix: str) -> InstanceState:
        """The state of an instance, its directories made when missing. Raises CozyError when
        they cannot be made or belong to somebody else."""
        directory = instance_directory(state_dir, bucket, db_prefix)
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in (directory.parent, directory, directory / "staging"):
                path.mkdir(mode=0o700, exist_ok=True)
            _insist_private(directory)
        except OSError as exc:
            raise CozyError(
                f"cannot use the state directory {state_dir}: {exc.strerror} ({exc.filename})"
            ) from exc
        return cls(directory)

    @property
    def index_path(self) -> Path:
        return self.directory / "index.db"

    @property
    def staging_dir(self) -> Path:
        return self.directory / "staging"

    @property
    def control_path(self) -> Path:
        return self.directory / "control.sock"

    @property
    def log_path(self) -> Path:
        return self.directory / "mount.log"

    @property
    def locked(self) -> bool:
        return self._lock_fd >= 0

    def hold(self, instance: str) -> None:
        """Take the lock. Raises InstanceError, naming the mount point and the process that has
        it, when *instance* is mounted already; it is kept until :meth:`unlock` or the end of
        this process and its forks."""
        path = self.directory / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A file that is not at its path any more was removed with the instance's state: a lock
        # on it locks nothing.
        if not _take(fd, LOCK_PATIENCE_S) or not _is_at(fd, path):
            os.close(fd)
            raise InstanceError(self._who_has_it(instance))
        self._lock_fd = fd

    def lock(self, mountpoint: Path, *, instance: str, store: str, at: str = "") -> None:
        """Make the instance ours, to be mounted at *mountpoint*: :meth:`hold` and
        :meth:`record`. *at* is the moment that a mount of the past shows.

        Raises InstanceError also when this directory's tree belongs to another store than
        *store* (its description): a tree shown over the wrong store would have no contents."""
        self.hold(instance)
        try:
            self.claim(store)
            self._record = MountRecord(
                pid=os.getpid(),
                mountpoint=os.fspath(mountpoint),
                instance=instance,
                store=store,
                started_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                directory=self.directory,
                at=at,
            )
            self.record()
        except BaseException:
            self.unlock()
            raise

    def record(self) -> None:
        """Write ``mount.json`` for this process; again after a fork, whose child has another
        pid."""
        if self._record is None:
            raise ValueError("record() before lock()")
        fields = asdict(self._record) | {"pid": os.getpid()}
        del fields["directory"]
        _write_atomically(self.directory / "mount.json", json.dumps(fields, indent=1) + "\n")

    def unlock(self) -> None:
        """The mount has ended: remove what tells of it, then let go of the lock."""
        if self._lock_fd < 0:
            return
        for path in (self.directory / "mount.json", self.control_path):
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(self._lock_fd)
        self._lock_fd = -1
        self._record = None

    def abandon(self) -> None:
        """Close this process's copy of the lock and leave the mount to the process that shares
        it: what the parent does after a fork to the background."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
            self._record = None

    def belongs_to(self, store: str) -> bool:
        """Whether the tree kept here is one of *store* (its description), or of none yet."""
        return self._store() in {None, store}

    def refuse_past_mounts(self) -> None:
        """Raises InstanceError while a mount of the past, which :meth:`hold` does not keep out,
        is there."""
        for path in (self.directory / PAST).glob("*/lock"):
            if is_held(path):
                record = _read_record(path.parent)
                where = f" at {record.mountpoint} (pid {record.pid})" if record else ""
                raise InstanceError(
                    f"the past of the instance is mounted{where}: unmount it first"
                )

    def claim(self, store: str) -> None:
        """The tree kept here is one of *store* from now on; the lock is held. Raises
        InstanceError when it is another's."""
        path = self.directory / "store"
        known = self._store()
        if known is None:
            _write_atomically(path, store + "\n")
        elif known != store:
            raise InstanceError(
                f"the state in {self.directory} belongs to {known}, not to {store}; use another "
                f"--state-dir, or remove {path} if both are the same store"
            )

    def remove(self) -> None:
        """Delete the directory with the tree and the drafts; the lock is held, and gone then."""
        if not self.locked:
            raise ValueError("remove() before hold()")
        shutil.rmtree(self.directory)
        self.unlock()
        with contextlib.suppress(OSError):  # other instances of the bucket are still there
            self.directory.parent.rmdir()

    def _who_has_it(self, instance: str) -> str:
        holder = _read_record(self.directory)
        if holder is None:
            return f"{instance} is being mounted by another process of this machine"
        return (
            f"{holder.instance} is mounted at {holder.mountpoint} (pid {holder.pid}); "
            f"unmount it there first"
        )

    def _store(self) -> str | None:
        try:
            return (self.directory / "store").read_text("utf-8").strip()
        except FileNotFoundError:
            return None


def instance_directory(state_dir: Path, bucket: str, db_prefix: str) -> Path:
    """Where the state of an instance is kept. Old instances have their domain, or any other
    text, as ``db_prefix``: what a folder's name cannot hold is percent-encoded."""
    return state_dir / _folder_name(bucket) / _folder_name(db_prefix)


def mounts(state_dir: Path) -> list[MountRecord]:
    """The live mounts whose state is under *state_dir*, by mount point."""
    return sorted(_live_mounts(state_dir), key=lambda record: record.mountpoint)


def find_mount(state_dir: Path, mountpoint: Path) -> MountRecord | None:
    """The live mount at *mountpoint*, or None; the newest when one was mounted over another."""
    wanted = os.fspath(resolve_mountpoint(mountpoint))
    found = [record for record in _live_mounts(state_dir) if record.mountpoint == wanted]
    return max(found, key=lambda record: record.started_at, default=None)


def is_live(record: MountRecord) -> bool:
    """Whether the mount still runs, or another one of the same instance does by now."""
    return is_held(record.directory / "lock")


def resolve_mountpoint(path: Path) -> Path:
    """*path*, absolute and without symbolic links, as mounts record it.

    Never asks the file system that is mounted there: the answer would not come when that mount
    hangs, which is when people ask for its status. So no realpath(3) of the last component."""
    current = Path(os.path.abspath(path))
    for _ in range(40):
        current = Path(os.path.realpath(current.parent)) / current.name
        try:
            target = os.readlink(current)
        except OSError:
            break
        current = Path(os.path.normpath(current.parent / target))
    return current


def _live_mounts(state_dir: Path) -> Iterator[MountRecord]:
    for pattern in ("*/*/mount.json", f"*/*/{PAST}/*/mount.json"):
        for path in state_dir.glob(pattern):
            record = _read_record(path.parent)
            if record is not None and is_held(path.parent / "lock"):
                yield record


def _read_record(directory: Path) -> MountRecord | None:
    try:
        fields = json.loads((directory / "mount.json").read_text("utf-8"))
        return MountRecord(**fields, directory=directory)
    except (OSError, ValueError, TypeError):
        return None


def is_held(path: Path) -> bool:
    """Whether a process has the lock file *path*."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _take(fd: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _folder_name(text: str) -> str:
    name = quote(text, safe=" @+=,")
    if name in {".", ".."}:
        name = name.replace(".", "%2E")
    return name


def _insist_private(directory: Path) -> None:
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(1, "it belongs to another user", os.fspath(directory))
    if found.st_mode & 0o077:
        directory.chmod(0o700)


def _write_atomically(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(text, "utf-8")
    scratch.replace(path)
