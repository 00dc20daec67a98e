"""The end of a mount, in the order that makes it safe.

First everything that was written goes into the store while requests are still answered, then the
kernel lets go, then what came in between is stored too. A signal starts that; a second one gives
up waiting, and the state directory keeps what is left for the next mount.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import pyfuse3
import trio

from cozyfs.errors import LeaseLost, UploadFailed

if TYPE_CHECKING:
    from cozyfs.tree import WriterTree
    from cozyfs.vfs.filesystem import FileSystem

log = logging.getLogger(__name__)

RETRY_PAUSE_S = 5.0
"""Between attempts to store what could not be stored."""


class Ending:
    """Of the mount of *fs*, whose tree is *writer*'s unless others write it."""

    def __init__(self, fs: FileSystem, writer: WriterTree | None) -> None:
        self._fs = fs
        self._writer = writer
        self.unmounted = False
        """To be set when the kernel has let go."""
        self._signals = 0
        self._first_signal = trio.Event()
        self._waits: set[trio.CancelScope] = set()  # cancelled when waiting is given up
        self._gave_up = False

    async def watch_signals(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """SIGINT and SIGTERM: the first asks for the end, another gives up waiting."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for number in received:
                self._signals += 1
                name = signal.Signals(number).name
                # The first asks for the end; where that is under way already, it is meant to
                # end the waiting.
                if self._signals > 1 or self.unmounted:
                    log.info("%s: no longer waiting for the store", name)
                    self._gave_up = True
                    for wait in self._waits:
                        wait.cancel()
                else:
                    log.info("%s: unmounting", name)
                    self._first_signal.set()

    async def end_on_signal(self) -> None:
        """Store everything, then have the requests end."""
        await self._first_signal.wait()
        await self.store_everything()
        if not self.unmounted:
            pyfuse3.terminate()

    async def store_everything(self) -> None:
        """Until it is done, or waiting is given up."""
        if self._writer is None or self._gave_up:
            return
        with trio.CancelScope() as wait:
            self._waits.add(wait)
            while True:
                try:
                    await self._fs.files.flush_all()
                    await self._writer.writer.flush()
                    return
                except LeaseLost as exc:
                    log.error("%s", exc)
                    return
                except UploadFailed as exc:
                    log.error("%s; trying again (a signal gives up)", exc)
                    await trio.sleep(RETRY_PAUSE_S)

    async def keep_the_rest(self) -> None:
        """What could not be stored outlives this process."""
        if self._fs.files.pending:
            await self._fs.files.keep_all()
            log.error(
                "%d files are not stored yet; the next mount stores them", self._fs.files.pending
            )
