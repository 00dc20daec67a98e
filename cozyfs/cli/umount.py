"""``cozyfs umount``: first everything into the store, then the mount goes, then its process."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from typing import TYPE_CHECKING

import click

from cozyfs.cli import mountpoints, output
from cozyfs.cli.parameters import DURATION, MOUNTPOINT, state_option
from cozyfs.cli.status import not_found
from cozyfs.errors import CozyError, InstanceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cozyfs.state import MountRecord

ANSWER_TIMEOUT_S = 30.0
"""For the next line of progress; the mount sends one every second or so."""

PLAIN_INTERVAL_S = 5.0
"""Between lines of progress where there is no terminal."""

POLL_S = 0.05


@click.command(short_help="Store what is not stored yet, then unmount.")
@click.argument("mountpoint", type=MOUNTPOINT)
@state_option
@click.option(
    "--timeout",
    type=DURATION,
    metavar="SECONDS",
    help="Give up waiting after this long, and stay mounted. [default: wait for ever]",
)
def command(mountpoint: Path, state_dir: Path | None, timeout: float | None) -> None:
    """Unmount MOUNTPOINT: wait until all its content is in the store, with progress, unmount,
    and wait until the mount's process has ended.

    A mount whose process has died is cleared away. Exit code 1 when MOUNTPOINT is in use, is
    not mounted, or when content could not be stored; it is then still mounted.

    \b
      cozyfs umount ~/alice
      cozyfs umount --timeout 5m /mnt/alice
    """
    from cozyfs.config import state_dir as default_state_dir
    from cozyfs.state import find_mount, resolve_mountpoint

    path = resolve_mountpoint(mountpoint)
    folder = default_state_dir(state_dir)
    record = find_mount(folder, path)
    if record is None:
        clear_away(path, folder)
        return
    deadline = time.monotonic() + timeout if timeout is not None else math.inf
    if mountpoints.kernel_mount(path) is not None:
        if not _has_lost_its_lease(record):
            flush(record, deadline)
        mountpoints.unmount(path)
    wait_for_end(record, deadline)


def _has_lost_its_lease(record: MountRecord) -> bool:
    """Then what is not stored never will be, and there is nothing to wait for: says so."""
    from cozyfs.control import ControlClient, NoAnswer

    try:
        status = ControlClient(record.control_path).request("status", ANSWER_TIMEOUT_S)
    except NoAnswer:
        return False  # flush() finds the words
    if status.get("lease") != "lost":
        return False
    files, changes = status.get("pending_files", 0), status.get("journal_pending", 0)
    if files or changes:
        click.echo(
            f"cozyfs: another machine has taken the instance over: {files} files and {changes}"
            f" changes of the tree stay in {record.directory}",
            err=True,
        )
    return True


def clear_away(path: Path, state_dir: Path) -> None:
    """Unmount what a process that died left at *path*. Raises InstanceError for anything else."""
    mounted = mountpoints.kernel_mount(path)
    if mounted is None or not mounted.is_cozyfs or not mountpoints.is_dead(path):
        raise not_found(path, state_dir)
    mountpoints.unmount_lazily(path)
    click.echo(f"cozyfs: cleared away the mount at {path}, whose process had ended", err=True)


def flush(record: MountRecord, deadline: float) -> None:
    """Have the mount store everything; returns when it is done. Raises CozyError when content
    could not be stored or *deadline* (of time.monotonic) has passed."""
    from cozyfs.control import ControlClient, NoAnswer

    try:
        with _progress() as show:
            for answer in ControlClient(record.control_path).stream("flush", ANSWER_TIMEOUT_S):
                if answer.get("done"):
                    return
                show(int(answer.get("pending", 0)), int(answer.get("dirty_bytes", 0)))
                if time.monotonic() > deadline:
                    raise InstanceError(
                        f"{record.mountpoint} still has content to store; it stays mounted"
                    )
    except NoAnswer as exc:
        raise CozyError(
            f"{record.mountpoint} (pid {record.pid}): {exc}; it stays mounted"
        ) from exc
    raise CozyError(f"the mount at {record.mountpoint} ended before all was stored")


def wait_for_end(record: MountRecord, deadline: float) -> None:
    """Wait until the mount's process has let go of the instance."""
    from cozyfs.state import is_live

    while is_live(record):
        if time.monotonic() > deadline:
            raise InstanceError(
                f"{record.mountpoint} is unmounted, but its process (pid {record.pid}) still runs"
            )
        time.sleep(POLL_S)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A function that shows (files pending, bytes not stored): a bar on a terminal, a line now
    and then elsewhere. Nothing is shown when there is nothing to wait for."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
        return
    next_line = 0.0

    def show_line(pending: int, dirty_bytes: int) -> None:
        nonlocal next_line
        if (pending or dirty_bytes) and time.monotonic() >= next_line:
            click.echo(_to_do(pending, dirty_bytes), err=True)
            next_line = time.monotonic() + PLAIN_INTERVAL_S

    yield show_line


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TransferSpeedColumn

    most = 0
    columns = (TextColumn("{task.description}"), BarColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("storing", total=None)

        def show(pending: int, dirty_bytes: int) -> None:
            nonlocal most
            most = max(most, dirty_bytes)
            progress.update(
                task,
                description=_to_do(pending, dirty_bytes),
                total=most or None,
                completed=most - dirty_bytes,
            )

        yield show


def _to_do(pending: int, dirty_bytes: int) -> str:
    files = "1 file" if pending == 1 else f"{pending} files"
    return f"storing {files}, {output.size(dirty_bytes)}"
