"""What a running mount answers about thumbnails on its control socket: make them, remove them.

A request names a file or a directory by ``path``, from the root of the instance; a directory means
all images and notes below it, without the trash. What cannot be done for one file does not end the
rest: it is told in the last answer.
"""

from __future__ import annotations

from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any

import trio

from cozyfs.control import text_in
from cozyfs.errors import (
    CozyError,
    InvalidRequest,
    LeaseLost,
    NoSpace,
    NotFound,
    ReadOnly,
    StoreUnavailable,
)
from cozyfs.side.thumbnails import Outcome
from cozyfs.values import TRASH_INO, Ino, Inode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cozyfs.control import Send
    from cozyfs.index import Index
    from cozyfs.joined.thumbnailer import Thumbnailer

    _Job = Callable[[Ino], Awaitable[Outcome | None]]
    _Wanted = Callable[[bytes, Inode], bool]

PROGRESS_PAUSE_S = 0.5
"""Between signs of life."""

MOST_ERRORS = 20
"""Files that the answer names of those that could not be done."""

PAGE = 256

_FATAL = (StoreUnavailable, LeaseLost, ReadOnly, NoSpace)
"""What would only happen again with the next file."""


async def answer_build(thumbnailer: Thumbnailer, request: dict[str, Any], send: Send) -> None:
    """Make what is missing or stale at and below ``path``."""
    await _each(thumbnailer, request, send, thumbnailer.build, thumbnailer.can_build)


async def answer_remove(thumbnailer: Thumbnailer, request: dict[str, Any], send: Send) -> None:
    """Remove the thumbnails of all images, and of those in notes, at and below ``path``."""

    async def remove(ino: Ino) -> Outcome | None:
        await thumbnailer.remove(ino)
        return None

    await _each(thumbnailer, request, send, remove, thumbnailer.can_remove)


HANDLERS: Mapping[str, Callable[[Thumbnailer, dict[str, Any], Send], Awaitable[None]]] = {
    "thumbnails-build": answer_build,
    "thumbnails-remove": answer_remove,
}
"""By the name of the request (``op``)."""


class _Report:
    """How far it is: ``files`` were looked at, ``made`` got thumbnails, of ``failed`` none can
    be made."""

    def __init__(self) -> None:
        self.files = self.made = self.failed = self.errors = 0
        self.named: list[dict[str, str]] = []

    def count(self, outcome: Outcome | None) -> None:
        self.files += 1
        self.made += outcome is Outcome.MADE
        self.failed += outcome is Outcome.FAILED

    def refuse(self, path: bytes, exc: CozyError) -> None:
        self.files += 1
        self.errors += 1
        if len(self.named) < MOST_ERRORS:
            self.named.append({"path": path.decode(errors="replace"), "reason": str(exc)})

    def answer(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "made": self.made,
            "failed": self.failed,
            "errors": self.errors,
        }


async def _each(
    thumbnailer: Thumbnailer, request: dict[str, Any], send: Send, job: _Job, wanted: _Wanted
) -> None:
    """*job* for each file that is *wanted*; sends a report now and then, at last one with
    ``done``."""
    path, inode = _asked_for(thumbnailer, request)
    report = _Report()
    ended: list[CozyError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_show, report, send, nursery.cancel_scope)
        try:
            if S_ISDIR(inode.mode):
                await _each_below(thumbnailer.fs.index, inode.ino, path, report, job, wanted)
            else:
                report.count(await job(inode.ino))
        except CozyError as exc:
            ended.append(exc)  # not through the nursery, which would wrap it
        nursery.cancel_scope.cancel()
    if ended:
        raise ended[0]
    await send({**report.answer(), "named": report.named, "done": True})


async def _each_below(
    index: Index, directory: Ino, path: bytes, report: _Report, job: _Job, wanted: _Wanted
) -> None:
    stack = [(directory, path.rstrip(b"/"))]
    while stack:
        ino, above = stack.pop()
        after = b""
        while page := _page(index, ino, after):
            for name, inode in page:
                if S_ISDIR(inode.mode) and inode.ino != TRASH_INO:
                    stack.append((inode.ino, above + b"/" + name))
                elif wanted(name, inode):
                    await _one(inode.ino, above + b"/" + name, report, job)
            after = page[-1][0]
            await trio.lowlevel.checkpoint()


async def _one(ino: Ino, path: bytes, report: _Report, job: _Job) -> None:
    try:
        report.count(await job(ino))
    except NotFound:
        pass  # removed meanwhile
    except _FATAL:
        raise
    except CozyError as exc:
        report.refuse(path, exc)


def _page(index: Index, directory: Ino, after: bytes) -> list[tuple[bytes, Inode]]:
    try:
        return index.children(directory, after, PAGE)
    except NotFound:
        return []  # removed meanwhile


def _asked_for(thumbnailer: Thumbnailer, request: dict[str, Any]) -> tuple[bytes, Inode]:
    path = text_in(request, "path").encode("utf-8", "surrogateescape")
    if not path.startswith(b"/"):
        raise InvalidRequest("the request needs a path from the root")
    inode = thumbnailer.fs.index.resolve(path)
    if not S_ISDIR(inode.mode) and not S_ISREG(inode.mode):
        raise InvalidRequest("it is neither a file nor a directory")
    return path, inode


async def _show(report: _Report, send: Send, work: trio.CancelScope) -> None:
    """Until the work is done; a client that went away ends it."""
    while True:
        await trio.sleep(PROGRESS_PAUSE_S)
        try:
            await send(report.answer())
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            work.cancel()
