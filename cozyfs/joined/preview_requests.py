"""What a running mount answers when it is asked for the icon or the preview of a file.

A request names a file by ``path``, from the root of the instance, and the picture by ``name``. It
is taken from the cache that all instances of the store share, by the MD5 of the content, else made
of the content and kept there; a mount that only reads keeps none. Pieces of the picture follow
each other, in base64, since a line of the control socket is short.
"""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import aclosing
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, get_args

import trio

from cozyfs.control import text_in
from cozyfs.errors import InvalidRequest, NoPicture
from cozyfs.nurseries import background_tasks
from cozyfs.side.previews import Name
from cozyfs.side.render import kind_of
from cozyfs.vfs.names import decode, media_type

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cozyfs.control import Send
    from cozyfs.side.previews import Previews
    from cozyfs.side.render import Source
    from cozyfs.values import Ino
    from cozyfs.vfs.filesystem import FileSystem

PROGRESS_PAUSE_S = 0.5
"""Between signs of life."""

PIECE = 32 << 10
"""Bytes of the picture in one answer."""


async def answer_preview(
    fs: FileSystem, previews: Previews, request: dict[str, Any], send: Send
) -> None:
    """The picture ``name`` (icon, preview) of the file at ``path``: answers with ``data``, and a
    last one with ``size``, in bytes. Raises NoPicture, WrongContent, NotFound, InvalidRequest,
    and what reading the file raises."""
    name: Name = _name_in(request)
    path = text_in(request, "path").encode("utf-8", "surrogateescape")
    if not path.startswith(b"/"):
        raise InvalidRequest("the request needs a path from the root")
    inode = fs.index.resolve(path)
    if not S_ISREG(inode.mode):
        raise InvalidRequest("it is not a file")
    mime = media_type(decode(path.rpartition(b"/")[2]))
    with trio.CancelScope() as work:
        async with background_tasks() as nursery:
            nursery.start_soon(_show_life, send, work)
            picture = await _picture(fs, previews, name, inode.ino, mime)
    if work.cancelled_caught:
        return  # there is nobody to give it to
    for start in range(0, len(picture), PIECE):
        piece = base64.b64encode(picture[start : start + PIECE])
        await send({"data": piece.decode()})
    await send({"size": len(picture)})


async def _picture(fs: FileSystem, previews: Previews, name: Name, ino: Ino, mime: str) -> bytes:
    # A handle, so that a file that is removed meanwhile keeps its content.
    handle = await fs.files.open(ino, os.O_RDONLY, 0)
    try:
        if not fs.read_only:
            await fs.files.fsync(handle.fh)  # what was written and is not stored yet counts too
        inode = fs.index.get(ino)

        def pieces() -> AsyncGenerator[bytes, None]:
            return fs.files.pieces(handle.fh)

        md5 = inode.md5
        if md5 is None:
            if kind_of(mime, inode.size) is None:  # before all of it is read
                raise NoPicture(f"there is no {name} of files of this type or size")
            md5 = await _md5_of(pieces)
        return await previews.make(name, md5, mime, inode.size, pieces, keep=not fs.read_only)
    finally:
        with trio.CancelScope(shield=True):
            await fs.files.release(handle.fh)
        fs.released(ino)


async def _md5_of(source: Source) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    async with aclosing(source()) as pieces:
        async for piece in pieces:
            digest.update(piece)
    return digest.digest()


def _name_in(request: dict[str, Any]) -> Name:
    wanted = text_in(request, "name")
    for name in get_args(Name):
        if name == wanted:
            return name  # type: ignore[no-any-return]  # of what get_args gives
    raise InvalidRequest("there are icons and previews, no other pictures")


async def _show_life(send: Send, work: trio.CancelScope) -> None:
    """A client that went away ends the work."""
    while True:
        await trio.sleep(PROGRESS_PAUSE_S)
        try:
            await send({"working": True})
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            work.cancel()
