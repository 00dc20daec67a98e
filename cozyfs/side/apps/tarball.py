"""A version of an app as one tar.gz, made once and kept beside the version.

The object is a cache: that it cannot be written is no error. Files go through temporary files,
one at a time, since a tar wants to know each size first.
"""

from __future__ import annotations

import logging
import tarfile
import time
from contextlib import aclosing, asynccontextmanager
from typing import IO, TYPE_CHECKING, cast

from cozyfs.errors import ObjectNotFound, StoreError
from cozyfs.side.apps import layout
from cozyfs.side.apps.encoding import PIECE_SIZE, no_space, temporary_file, write_all
from cozyfs.side.apps.files import AppFile
from cozyfs.side.apps.serving import OK, Request, Response, answer
from cozyfs.store import FileBody, md5_of
from cozyfs.threads import Interruptible

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from cozyfs.side.apps.files import AppFiles

log = logging.getLogger(__name__)

_MODE = 0o640
_TYPE = "application/gzip"


@asynccontextmanager
async def code_tarball(
    files: AppFiles, slug: str, version: str, request: Request
) -> AsyncIterator[Response]:
    """The answer to a request for the whole version; its body is good inside the block. Raises
    NotFound, NoSpace, StoreError."""
    await files.check(slug, version)
    key = layout.tarball_key(slug, version)
    kept = await _kept(files, key)
    if kept is not None:
        yield answer(kept, request)
        return
    with temporary_file() as file, file:
        await _build(files, slug, version, file)
        if await _keep(files, key, file):
            kept = await _kept(files, key)
        if kept is not None:
            yield answer(kept, request)
            return
        body = FileBody(file.fileno())
        headers = {"Content-Type": _TYPE, "Content-Length": str(body.size)}
        yield Response(OK, headers, None if request.method == "HEAD" else _read(files, file))


async def _kept(files: AppFiles, key: str) -> AppFile | None:
    try:
        return AppFile(key, await files.head(key), files.bucket, files.store, files.caller)
    except ObjectNotFound:
        return None


async def _keep(files: AppFiles, key: str, file: IO[bytes]) -> bool:
    body = FileBody(file.fileno())
    try:
        md5 = await files.caller.disk(md5_of, body)
        await files.caller.store(
            files.store.put, files.bucket, key, body, md5=md5, content_type=_TYPE
        )
    except StoreError as exc:
        log.warning("the archive of an app is not kept: %s", exc)
        return False
    return True


async def _build(files: AppFiles, slug: str, version: str, target: IO[bytes]) -> None:
    disk = files.caller.disk
    # Buffered, since gzip does not look at how much was written.
    with (
        no_space(),
        await disk(open, target.fileno(), "wb", closefd=False) as buffered,
        tarfile.open(fileobj=buffered, mode="w:gz") as tar,
    ):
        for stored in await files.list(slug, version):
            with temporary_file() as content, content:
                await _spool(await files.open(slug, version, stored.name), content)
                await disk(_add, tar, stored.name, content)
        await disk(tar.close)
        await disk(buffered.flush)


async def _spool(file: AppFile, target: IO[bytes]) -> None:
    async with aclosing(file.chunks()) as chunks:
        async for chunk in chunks:
            await file.caller.disk(write_all, target, chunk)


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size = content.tell()
    info.mode = _MODE
    info.mtime = int(time.time())
    content.seek(0)
    tar.addfile(info, cast("IO[bytes]", Interruptible(content)))  # it reads, no more


async def _read(files: AppFiles, file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    await files.caller.disk(file.seek, 0)
    while piece := await files.caller.disk(file.read, PIECE_SIZE):
        yield piece
