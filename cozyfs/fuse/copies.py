"""Copies asked for on the control socket: made by the store, then shown to the kernel.

A client names the file and the directory by their inode numbers, which are those that stat(2)
gives on the mount: no path has to be taken apart here, whatever was mounted or bound where. The
socket is the mount owner's alone; what he may do elsewhere in the tree, the client has asked the
kernel.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

from cozyfs.control import number_in, text_in
from cozyfs.nurseries import background_tasks
from cozyfs.values import Ino
from cozyfs.vfs.copying import copy_file

if TYPE_CHECKING:
    from cozyfs.control import Send
    from cozyfs.vfs.filesystem import FileSystem

PROGRESS_PAUSE_S = 0.5
"""Between signs of life while the store copies."""


async def answer_copy(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Copy the file ``source`` as ``name`` into ``directory``, owned by ``uid`` and ``gid``; the
    last answer has ``ino``. Raises CozyError. A client that goes away cancels the copy."""
    source, directory, uid, gid = (
        number_in(request, field) for field in ("source", "directory", "uid", "gid")
    )
    encoded = text_in(request, "name").encode("utf-8", "surrogateescape")
    async with background_tasks() as nursery:
        nursery.start_soon(_show_life, send)
        inode = await copy_file(fs, Ino(source), Ino(directory), encoded, uid=uid, gid=gid)
    await _show_kernel(fs, directory, encoded)
    await send({"ino": inode.ino})


async def _show_life(send: Send) -> None:
    while True:
        await trio.sleep(PROGRESS_PAUSE_S)
        await send({"copying": True})


async def _show_kernel(fs: FileSystem, directory: int, name: bytes) -> None:
    """The kernel may remember that the name is not there, and what the directory holds.

    In threads, since it may wait for a request that we have to answer; not by
    invalidate_entry_async, so that who was told of the copy finds it."""
    disk = fs.objects.caller.disk
    with contextlib.suppress(FileNotFoundError):  # the kernel does not know the name
        await disk(pyfuse3.invalidate_entry, directory, name)
    with contextlib.suppress(FileNotFoundError):  # nor the directory
        await disk(pyfuse3.invalidate_inode, directory)
