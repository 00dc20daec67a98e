"""Reads the versions of apps that are in the store: which there are, their files, their content.

Only versions with a marker are there; for all others, and for names that no file can have, the
answer is NotFound. An HTTP server (`cozyfs.side.apps.serving`) and a read-only view of a mount
are users of this. Sizes are known without reading.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cozyfs.errors import AppRefused, CorruptObject, NotFound, ObjectNotFound, UsageError
from cozyfs.side.apps import layout
from cozyfs.side.apps.encoding import ENCODING, decoder, original_size
from cozyfs.store.buckets import side_bucket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from datetime import datetime

    from cozyfs.side.apps.layout import Kind
    from cozyfs.store import ObjectInfo, Store
    from cozyfs.threads import Caller

_RANGE = 4 << 20
"""Bytes asked for at once."""


class StoredFile(NamedTuple):
    """A line of a listing, which does not tell a file's own size."""

    name: str
    stored: int  # bytes in the object
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class AppFile:
    """A file that is there; its content is read when it is asked for."""

    name: str
    info: ObjectInfo
    bucket: str
    store: Store
    caller: Caller

    @property
    def encoding(self) -> str:
        """``br``, ``gzip``, or nothing."""
        return self.info.metadata.get(ENCODING, "")

    @property
    def size(self) -> int | None:
        """Bytes of the content; None where the store was not told (:meth:`chunks` finds out)."""
        return original_size(self.info)

    async def raw(self) -> AsyncGenerator[bytes, None]:
        """What is stored, piece by piece. Raises StoreError."""
        for start in range(0, self.info.size, _RANGE):
            stop = min(start + _RANGE, self.info.size)
            data = await self.caller.store(self.store.get, self.bucket, self.info.key, start, stop)
            if len(data) != stop - start:
                raise CorruptObject(f"{self.name} changed while it was read")
            yield data

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The content, piece by piece, never more of it than ``size``. Raises CorruptObject when
        it cannot be decoded, or is not as long as it should be; StoreError."""
        decode = decoder(self.encoding)
        left = self.size
        async with aclosing(self.raw()) as raw:
            async for data in raw:
                pieces = decode.feed(data)
                while (piece := await self.caller.disk(_next, pieces)) is not None:
                    if left is not None:
                        left -= len(piece)
                        if left < 0:
                            raise CorruptObject(f"{self.name} is longer than it should be")
                    if piece:
                        yield piece
        decode.finish()
        if left:
            raise CorruptObject(f"{self.name} is shorter than it should be")


class AppFiles:
    """The versions of apps of one kind in a store. A version is named as in keys: with its
    checksum, if it has one (``layout.folder``)."""

    def __init__(self, store: Store, caller: Caller, bucket_prefix: str, kind: Kind) -> None:
        self.store = store
        self.caller = caller
        self.bucket = side_bucket(bucket_prefix, kind.bucket)
        self._kind = kind
        # Versions never go away, so a positive answer stays right.
        self._complete: set[tuple[str, str]] = set()

    async def slugs(self) -> list[str]:
        """All apps of which there is something, maybe no whole version."""
        prefixes = await self.caller.store(lambda: list(self.store.list_prefixes(self.bucket)))
        return [prefix.removesuffix("/") for prefix in prefixes]

    async def versions(self, slug: str) -> list[str]:
        """The whole versions of an app, in the order of keys; none for an unknown app."""
        prefix = f"{slug}/"
        prefixes = await self.caller.store(
            lambda: list(self.store.list_prefixes(self.bucket, prefix))
        )
        names = [name[len(prefix) : -1] for name in prefixes]
        return [name for name in names if await self._is_complete(slug, name)]

    async def list(self, slug: str, version: str) -> list[StoredFile]:
        """The files of a version, in the order of keys. Raises NotFound."""
        await self.check(slug, version)
        prefix = f"{layout.base(slug, version)}/"
        return await self.caller.store(
            lambda: [
                StoredFile(info.key[len(prefix) :], info.size, info.last_modified)
                for info in self.store.list(self.bucket, prefix)
                if not info.key.endswith("/")  # a folder, which some servers list
            ]
        )

    async def open(self, slug: str, version: str, name: str) -> AppFile:
        """A file, by its path; a leading ``/`` is ignored. Raises NotFound."""
        await self.check(slug, version)
        try:
            key = layout.file_key(slug, version, name.lstrip("/"))
            return AppFile(name, await self.head(key), self.bucket, self.store, self.caller)
        except (AppRefused, ObjectNotFound):
            raise NotFound(
                f"the {self._kind.noun} {slug} {version} has no file {name!a}"
            ) from None

    async def check(self, slug: str, version: str) -> None:
        """Raises NotFound unless the version is there, whole."""
        if not await self._is_complete(slug, version):
            raise NotFound(f"there is no version {version!a} of the {self._kind.noun} {slug!a}")

    async def head(self, key: str) -> ObjectInfo:
        """Raises ObjectNotFound."""
        return await self.caller.store(self.store.head, self.bucket, key)

    async def _is_complete(self, slug: str, version: str) -> bool:
        if (slug, version) not in self._complete:
            try:
                await self.head(layout.marker_key(slug, version))
            except (UsageError, AppRefused, ObjectNotFound):
                return False
            self._complete.add((slug, version))
        return True


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)
