"""What a mount of the past keeps on this machine, for as long as it is mounted.

::

    <instance's state directory>/past/<random>/     as in the directory of an instance

Each such mount has a directory of its own, so that several live beside each other and beside the
mount that writes. It is removed at the end; what a mount left that was killed is removed by the
next one of the same instance.

Threads: none; called at the start and the end of a mount.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Self

from cozyfs.errors import CozyError
from cozyfs.state import PAST, InstanceState, is_held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class PastState(InstanceState):
    """A state directory that ends with :meth:`unlock`. Build with :meth:`begin`."""

    @classmethod
    def begin(
        cls, above: InstanceState, mountpoint: Path, *, instance: str, store: str, at: str
    ) -> Self:
        """A new one below the instance's, locked. Raises CozyError when it cannot be made."""
        past = above.directory / PAST
        try:
            past.mkdir(mode=0o700, exist_ok=True)
            # Nobody takes for dead what is being made.
            with _alone(past):
                _remove_dead(past)
                state = cls(past / secrets.token_hex(6))
                state.directory.mkdir(mode=0o700)
                state.staging_dir.mkdir(mode=0o700)
                state.lock(mountpoint, instance=instance, store=store, at=at)
        except OSError as exc:
            raise CozyError(f"cannot use the directory {past}: {exc.strerror}") from exc
        return state

    def unlock(self) -> None:
        """Remove everything, then let go of the lock."""
        if self.locked:
            shutil.rmtree(self.directory, ignore_errors=True)
        super().unlock()


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _remove_dead(past: Path) -> None:
    for directory in past.iterdir():
        if not is_held(directory / "lock"):
            shutil.rmtree(directory, ignore_errors=True)
