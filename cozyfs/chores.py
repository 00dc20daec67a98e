"""What a mount does now and then, beside its requests."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import trio

from cozyfs.ending import RETRY_PAUSE_S
from cozyfs.errors import CozyError
from cozyfs.fuse.invalidation import tell_kernel, tell_news
from cozyfs.index import NO_CHANGES
from cozyfs.rereading import reread_now_and_then
from cozyfs.vfs.deletions import delete_due
from cozyfs.vfs.trashcan import empty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cozyfs.joined.beside import Beside
    from cozyfs.tree import ReaderTree
    from cozyfs.vfs.filesystem import FileSystem

log = logging.getLogger(__name__)

DELETION_PAUSE_S = 60.0
"""Between looks at the deletion queue."""

CLEANING_PAUSE_S = 3600.0
"""Between looks for what has been in the trash for too long."""

NEWS_PAUSE_S = 0.05
"""Between two messages to the kernel of what changed by itself, each a trip to a thread: `rm -r`
would cost one for each file."""


class Chores:
    """Of the mount of *fs*. *confirm* raises unless this process may still write."""

    def __init__(
        self,
        fs: FileSystem,
        nursery: trio.Nursery,
        confirm: Callable[[], Awaitable[None]],
    ) -> None:
        self._fs = fs
        self._nursery = nursery
        self._confirm = confirm
        nursery.start_soon(reread_now_and_then, fs)

    def of_writer(self, beside: Beside, retention_s: float, trash_age_s: float) -> None:
        """Retry, delete, clean up, tell the kernel. *trash_age_s* 0: the trash keeps all."""
        self._fs.news.listen()
        self._start(NEWS_PAUSE_S, self._tell_news)
        self._start(RETRY_PAUSE_S, self._fs.files.retry_failed)
        pause_s = max(min(DELETION_PAUSE_S, retention_s), 1.0)
        self._start(pause_s, lambda: self._delete_due(beside, retention_s))
        if trash_age_s:
            pause_s = max(min(CLEANING_PAUSE_S, trash_age_s), 1.0)
            self._start(pause_s, lambda: self._clean_trash(trash_age_s))

    def of_reader(self, reader: ReaderTree, refresh_s: float) -> None:
        """Follow the one who writes."""
        self._start(refresh_s, lambda: self._follow(reader))

    def _start(self, pause_s: float, job: Callable[[], Awaitable[object]]) -> None:
        self._nursery.start_soon(self._again, pause_s, job)

    async def _again(self, pause_s: float, job: Callable[[], Awaitable[object]]) -> None:
        """Run *job* now and then; what goes wrong in one run must not end the mount."""
        while True:
            try:
                await job()
            except CozyError as exc:
                log.warning("background work failed: %s", exc)
            except Exception:
                log.exception("background work failed")
            await trio.sleep(pause_s)

    async def _follow(self, reader: ReaderTree) -> None:
        changes = await reader.refresh()
        if changes != NO_CHANGES:
            await trio.to_thread.run_sync(tell_kernel, changes)

    async def _delete_due(self, beside: Beside, retention_s: float) -> None:
        fs = self._fs
        await self._confirm()  # whoever lost the lease deletes nothing any more
        await delete_due(fs.index, fs.objects, retention_s, lambda: fs.objects_in_use, beside)

    async def _tell_news(self) -> None:
        await self._fs.news.wait()
        await tell_news(self._fs)

    async def _clean_trash(self, age_s: float) -> None:
        await self._confirm()
        removed = await empty(self._fs, time.time_ns() - int(age_s * 1e9))
        if removed:
            log.info("%d items were removed from the trash, by their age", removed)
