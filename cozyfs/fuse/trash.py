"""The trash as asked for on the control socket: listed, restored from, emptied.

Paths are those of the instance, from its root. What changes is shown to the kernel before the
answer, so that who was told of it finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from cozyfs.control import number_in, text_in
from cozyfs.errors import InvalidRequest
from cozyfs.fuse.invalidation import tell_news
from cozyfs.nurseries import background_tasks
from cozyfs.vfs.names import decode
from cozyfs.vfs.trashcan import destroy, empty, restore, trashed

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from cozyfs.control import Send
    from cozyfs.vfs.filesystem import FileSystem

PROGRESS_PAUSE_S = 0.5
"""Between signs of life while much is removed."""


async def answer_list(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """One answer with ``name``, ``path``, ``trashed_ns`` (or null), ``kind`` and ``size`` for
    each item; the last has ``done``."""
    async for item in trashed(fs):
        await send(item._asdict())
    await send({"done": True})


async def answer_restore(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Restore the item at ``path``; the answer has the ``path`` that it has then."""
    path = restore(fs, _path(request))
    await tell_news(fs)
    await send({"path": decode(path)})


async def answer_remove(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Remove the item at ``path`` for good; the last answer has ``done``."""
    await _with_signs_of_life(destroy(fs, _path(request)), fs, send)
    await send({"done": True})


async def answer_empty(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Remove for good what was trashed before ``before_ns``, without it all; the last answer
    has ``removed``, how many items."""
    before = number_in(request, "before_ns") if "before_ns" in request else None
    removed = await _with_signs_of_life(empty(fs, before), fs, send)
    await send({"removed": removed})


async def _with_signs_of_life(job: Awaitable[int | None], fs: FileSystem, send: Send) -> int:
    async with background_tasks() as nursery:
        nursery.start_soon(_show_life, send)
        try:
            return await job or 0
        finally:
            await tell_news(fs)


async def _show_life(send: Send) -> None:
    while True:
        await trio.sleep(PROGRESS_PAUSE_S)
        await send({"removing": True})


def _path(request: dict[str, Any]) -> bytes:
    try:
        return text_in(request, "path").encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the path is not valid UTF-8") from None
