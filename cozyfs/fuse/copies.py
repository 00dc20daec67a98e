"""Copies asked for on the control socket: made by the store, then shown to the kernel.

A copy from one mount into another takes two requests: the one lends its file, and the other makes
a copy of it meanwhile.

A client names the file and the directory by their inode numbers, which are those that stat(2)
gives on the mount: no path has to be taken apart here, whatever was mounted or bound where. The
socket is the mount owner's alone; what he may do elsewhere in the tree, the client has asked the
kernel.
"""

from __future__ import annotations

import base64
import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

from cozyfs.control import number_in, text_in
from cozyfs.errors import InvalidRequest
from cozyfs.nurseries import background_tasks
from cozyfs.values import Ino
from cozyfs.vfs.copying import Original, copy_file, copy_in, lend

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


async def answer_lend(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Tell what the file ``source`` is, as ``original`` for "copy-in" of another mount, and keep
    its object until the client goes away."""
    async with lend(fs, Ino(number_in(request, "source"))) as original:
        await send({"original": _told(original), "store": fs.objects.store.description})
        await _show_life(send)


async def answer_copy_in(fs: FileSystem, request: dict[str, Any], send: Send) -> None:
    """Copy the file ``original``, which another mount lends from the same ``store``, as ``name``
    into ``directory``, owned by ``uid`` and ``gid``; the last answer has ``ino``. Raises
    CozyError."""
    directory, uid, gid = (number_in(request, field) for field in ("directory", "uid", "gid"))
    encoded = text_in(request, "name").encode("utf-8", "surrogateescape")
    if text_in(request, "store") != fs.objects.store.description:
        raise InvalidRequest("the two mounts are not of one store: cp(1) copies between them")
    original = _understood(request.get("original"))
    async with background_tasks() as nursery:
        nursery.start_soon(_show_life, send)
        inode = await copy_in(fs, original, Ino(directory), encoded, uid=uid, gid=gid)
    await _show_kernel(fs, directory, encoded)
    await send({"ino": inode.ino})


def _told(original: Original) -> dict[str, Any]:
    """As JSON; bytes in base64."""
    return asdict(original) | {
        "name": _text(original.name),
        "md5": None if original.md5 is None else _text(original.md5),
        "extents": None if original.extents is None else _text(original.extents),
        "xattrs": [(_text(name), _text(value)) for name, value in original.xattrs],
    }


def _understood(told: Any) -> Original:
    try:
        optional = {name: told[name] and _bytes(told[name]) for name in ("md5", "extents")}
        pairs = tuple((_bytes(name), _bytes(value)) for name, value in told["xattrs"])
        return Original(**{**told, **optional, "name": _bytes(told["name"]), "xattrs": pairs})
    except (TypeError, ValueError, KeyError) as exc:
        raise InvalidRequest("the request does not say what to copy") from exc


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


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
