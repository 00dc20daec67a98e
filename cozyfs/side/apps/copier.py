"""Writes a version of an app: its files, and last the marker without which they do not count.

Files go directly to their final keys. What an install that failed or was killed has left there
is seen by nobody, is written over by the next install of the version, and what that does not
write it removes.

There is no lock between installers on several machines. Two that install the same files at once
both succeed. Where they disagree, :meth:`Copier.commit` sees files that it did not write, or
misses some, and puts no marker; a marker that has just been put is taken back.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import trio

from cozyfs.errors import AppRefused, CozyError, InvalidRequest, ObjectNotFound, StoreError
from cozyfs.nurseries import first_of
from cozyfs.side.apps import layout
from cozyfs.side.apps.encoding import pack
from cozyfs.store.buckets import side_bucket
from cozyfs.threads import Interruptible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cozyfs.side.apps.contents import SourceFile
    from cozyfs.side.apps.encoding import Packed
    from cozyfs.side.apps.layout import Kind
    from cozyfs.store import Store
    from cozyfs.threads import Caller

log = logging.getLogger(__name__)

T = TypeVar("T")

MARKER_TYPE = "text/plain"

_PARALLEL = 8
"""Files on their way to the store at once, each in a temporary file."""

_CLEANING_S = 30.0


class Copier:
    """One install of one version; not to be used again after ``commit`` or ``abort``."""

    def __init__(
        self,
        store: Store,
        caller: Caller,
        bucket_prefix: str,
        kind: Kind,
        slug: str,
        version: str,
        shasum: str = "",
    ) -> None:
        """Raises UsageError or AppRefused for a slug or a version that cannot be."""
        self._store = store
        self._caller = caller
        self._bucket = side_bucket(bucket_prefix, kind.bucket)
        self._slug = slug
        self.folder = layout.folder(version, shasum)
        self._base = layout.base(slug, self.folder)
        self._started = False
        self._written: dict[str, int] = {}  # key -> bytes stored; also when the put failed

    async def exist(self) -> bool:
        """Whether the version is there, whole."""
        try:
            await self._caller.store(
                self._store.head, self._bucket, layout.marker_key(self._slug, self.folder)
            )
        except ObjectNotFound:
            return False
        return True

    async def start(self) -> bool:
        """True when there is nothing to do, since the version is there; else get ready."""
        if await self.exist():
            return True
        await self._caller.store(self._store.ensure_bucket, self._bucket)
        self._written.clear()
        self._started = True
        return False

    async def copy(self, file: SourceFile) -> None:
        """Stores one file. Raises AppRefused for a name that leads out of the app, or when
        the file has not the size it should have."""
        await self._send(self._key(file), await self._pack(file))

    async def copy_all(self, files: Iterator[SourceFile]) -> None:
        """Stores *files*, several at once; they are read, in a thread, one after the other."""
        free = trio.Semaphore(_PARALLEL)

        async def send(key: str, packed: Packed) -> None:
            try:
                await self._send(key, packed)
            finally:
                free.release()

        try:
            async with trio.open_nursery() as nursery:
                while (file := await self._caller.disk(_next, files)) is not None:
                    await free.acquire()
                    key = self._key(file)
                    nursery.start_soon(send, key, await self._pack(file))
        except BaseExceptionGroup as group:
            raise first_of(group) from None

    def _key(self, file: SourceFile) -> str:
        if not self._started:
            raise InvalidRequest("an app is copied before its install was started")
        return layout.file_key(self._slug, self.folder, file.name)

    async def _pack(self, file: SourceFile) -> Packed:
        packed = await self._caller.disk(pack, file.name, Interruptible(file.reader))
        if packed.size != file.size:
            packed.file.close()
            raise AppRefused(
                f"{file.name} has {packed.size} bytes, not {file.size}: it changed while it was "
                "read, or is cut off"
            )
        return packed

    async def _send(self, key: str, packed: Packed) -> None:
        """Closes *packed*, whatever happens."""
        with packed.file:
            body = packed.body()
            self._written[key] = body.size
            await self._caller.store(
                self._store.put,
                self._bucket,
                key,
                body,
                md5=packed.md5,
                content_type=packed.content_type,
                metadata=packed.metadata,
            )

    async def abort(self) -> None:
        """Removes what was stored, and what a killed install had left before, unless another
        has completed the version meanwhile. What fails here is logged only: without the marker,
        nobody sees the rest."""
        self._started = False
        with trio.move_on_after(_CLEANING_S, shield=True):
            try:
                if self._written and not await self.exist():
                    # All, since a file that was left can be in the way of a folder.
                    await self._caller.store(
                        self._store.delete_prefix, self._bucket, f"{self._base}/"
                    )
            except StoreError as exc:
                log.warning("files of a failed install of %s were left: %s", self._base, exc)

    async def commit(self) -> None:
        """Makes the version visible; when it returns, it is there for good. Raises CozyError
        when another install has changed files of the same version; there is no marker then."""
        if not self._started:
            raise InvalidRequest("an install is completed before it was started")
        marker = layout.marker_key(self._slug, self.folder)
        stale = layout.tarball_key(self._slug, self.folder)
        left_over = [key for key in await self._listed() if key not in self._written]
        await self._caller.store(self._store.delete_many, self._bucket, [*left_over, stale])
        await self._verify()
        await self._caller.store(
            self._store.put, self._bucket, marker, b"", content_type=MARKER_TYPE
        )
        try:
            await self._verify()
        except CozyError:
            await self._caller.store(self._store.delete, self._bucket, marker)
            raise
        self._started = False

    async def _verify(self) -> None:
        if await self._listed() != self._written:
            raise CozyError(
                f"{self._base} is being installed by another at the same time, with other files; "
                "try again when it is done"
            )

    async def _listed(self) -> dict[str, int]:
        return await self._caller.store(
            lambda: {
                info.key: info.size
                for info in self._store.list(self._bucket, f"{self._base}/")
                if not info.key.endswith("/")  # a folder, which some servers list
            }
        )


def _next(files: Iterator[T]) -> T | None:
    return next(files, None)
