"""Versions asked for on the control socket: listed, restored, removed, imported, tagged.

A client names the file by its inode number (``file``), as stat(2) gives it, and a version by its
name (``version``; empty: the last one). What the user may do with the file, the client has asked
the kernel. Every request raises CozyError for a refusal.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

from cozyfs.control import number_in, text_in
from cozyfs.errors import CozyError, InvalidRequest
from cozyfs.nurseries import background_tasks
from cozyfs.values import Ino
from cozyfs.vfs.history import History

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cozyfs.control import Send
    from cozyfs.index import Version
    from cozyfs.vfs.filesystem import FileSystem

PROGRESS_PAUSE_S = 0.5
"""Between signs of life while the store works."""


async def answer_versions(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """One answer for each version of ``file``, the oldest first: its name and its document."""
    history = History(fs)
    for name, version in history.of(_file_in(request)):
        await send({"version": name, "document": history.document(version)})


async def answer_restore(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Give ``file`` the content of ``version`` again."""
    history, ino = History(fs), _file_in(request)
    async with _life(send):
        await history.restore(ino, _find(history, ino, request))
        # The kernel must not go on with the other content because the client went away.
        with trio.CancelScope(shield=True), contextlib.suppress(FileNotFoundError):
            # In a thread, since it may wait for a request that we have to answer.
            await fs.objects.caller.disk(pyfuse3.invalidate_inode, ino)
    await send({"restored": ino})


async def answer_remove(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Remove ``version`` of ``file``."""
    history, ino = History(fs), _file_in(request)
    history.remove(_find(history, ino, request))
    await send({"removed": 1})


async def answer_clear(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Remove all versions of ``file``; the answer says how many there were."""
    await send({"removed": History(fs).clear(_file_in(request))})


async def answer_import(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Make the file ``source`` of this machine a version of ``file``, dated ``updated_ns`` and
    tagged with ``tags``; the answer has its name."""
    history, ino = History(fs), _file_in(request)
    source = Path(text_in(request, "source"))
    try:
        async with _life(send):
            version = await history.add(
                ino, source, updated_ns=number_in(request, "updated_ns"), tags=_tags_in(request)
            )
    except OSError as exc:
        raise CozyError(f"{source}: {exc.strerror}") from exc
    for name, each in history.of(ino):
        if each.internal_id == version.internal_id:
            await send({"version": name})


async def answer_tag(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Give ``version`` of ``file`` the tags ``tags`` and no others."""
    history, ino = History(fs), _file_in(request)
    history.set_tags(_find(history, ino, request), _tags_in(request))
    await send({"tagged": 1})


def _file_in(request: dict[str, Any]) -> Ino:
    return Ino(number_in(request, "file"))


def _find(history: History, ino: Ino, request: dict[str, Any]) -> Version:
    return history.find(ino, text_in(request, "version"))


def _tags_in(request: dict[str, Any]) -> list[str]:
    tags = request.get("tags")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidRequest("the request needs a list of texts as tags")
    return tags


@contextlib.asynccontextmanager
async def _life(send: Send) -> AsyncIterator[None]:
    """Signs of life to the client, while what is inside runs."""
    async with background_tasks() as nursery:

        async def show() -> None:
            while True:
                await trio.sleep(PROGRESS_PAUSE_S)
                await send({"working": True})

        nursery.start_soon(show)
        yield
