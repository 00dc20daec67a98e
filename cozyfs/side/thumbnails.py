"""Thumbnails of images and PDF files, in the keys and by the rules of the Cozy server.

Each is an object ``<db_prefix>/thumbs/<id>-<format>``, a JPEG, whose metadata name the MD5 of the
file that it shows: one of another content counts as none. Where no picture can be made of a file
its thumbnails are markers: empty, of no particular type; they say not to try again before the
content changes.

Async, in one event loop. What concerns one file happens one after the other, so that removing
the thumbnails of a file which is being drawn removes those too. Files that nobody can draw here
(SVG, HEIC, ...) get no marker: a Cozy server which shares the bucket may know how.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import logging
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import NoPicture, NotStored, StoreError
from cozyfs.side import objects
from cozyfs.side.draw import Target
from cozyfs.side.objects import OCTET_STREAM
from cozyfs.side.render import Kind, kind_of
from cozyfs.side.served import Served
from cozyfs.store.keys import check_db_prefix, thumb_name

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from cozyfs.side.render import Renderer, Source
    from cozyfs.store import Store
    from cozyfs.threads import Caller

log = logging.getLogger(__name__)

TINY = Target("tiny", 96, 96, 99, enlarge=True)
TARGETS = (
    Target("large", 1920, 1080, 82, enlarge=False),
    Target("medium", 1280, 720, 82, enlarge=False),
    Target("small", 640, 480, 82, enlarge=False),
    TINY,
)
"""In the order of making; each from the one before."""

FORMATS = tuple(target.name for target in reversed(TARGETS))
"""tiny, small, medium, large."""

_OF_KIND: Mapping[Kind, tuple[Target, ...]] = {"image": TARGETS, "pdf": (TINY,)}

JPEG = "image/jpeg"


class Outcome(enum.Enum):
    """What came of :meth:`Thumbnails.build`."""

    MADE = "made"
    FAILED = "failed"  # markers were stored
    SKIPPED = "skipped"  # of no type, or too large: there are none


class Thumbnails:
    """The thumbnails of one instance, whose files are in *bucket* under *db_prefix*."""

    def __init__(
        self, store: Store, caller: Caller, bucket: str, db_prefix: str, renderer: Renderer
    ) -> None:
        self._store = store
        self._caller = caller
        self._bucket = bucket
        self._folder = f"{check_db_prefix(db_prefix)}/thumbs"
        self._renderer = renderer
        self._locks: dict[str, trio.Lock] = {}

    def key(self, doc_id: str, name: str) -> str:
        """ValueError for a format that there is not."""
        if name not in FORMATS:
            raise ValueError(name)
        return f"{self._folder}/{thumb_name(doc_id)}-{name}"

    def keys(self, doc_id: str) -> list[str]:
        """Of all formats."""
        return [self.key(doc_id, name) for name in FORMATS]

    async def build(
        self, doc_id: str, md5: bytes | None, mime: str, size: int, source: Source
    ) -> Outcome:
        """Makes all thumbnails of a file, in place of those that it has. *md5* is of its
        content, 16 raw bytes; None where nobody knows it: then it is computed on the way. *size*
        in bytes; *source* gives the content.

        Raises WrongContent or TooLarge when the content is another one (it changed), SideError
        when this machine cannot draw now, StoreError, NoSpace, and what *source* raises: then
        trying again later is right. Thumbnails that are there stay, and are told apart by
        their MD5.
        """
        async with self._alone(doc_id):
            kind = kind_of(mime, size)
            if kind is None:
                await self._remove(doc_id)
                return Outcome.SKIPPED
            targets = _OF_KIND[kind]
            hashed = _Hashed(source)
            try:
                pictures = await self._renderer.draw(
                    kind, source if md5 else hashed.pieces, targets, md5=md5
                )
            except NoPicture as exc:
                log.info("no thumbnails of document %s: %s", doc_id, exc)
                for target in targets:
                    await self._put(doc_id, target.name, b"", OCTET_STREAM, {})
                outcome = Outcome.FAILED
            else:
                metadata = {"file-md5": (md5 or hashed.digest).hex()}
                for name, picture in pictures.items():
                    await self._put(doc_id, name, picture, JPEG, metadata)
                outcome = Outcome.MADE
            await self._remove(doc_id, [name for name in FORMATS if name not in _names(targets)])
            return outcome

    async def missing(self, doc_id: str, md5: bytes | None, mime: str, size: int) -> list[str]:
        """The formats that :meth:`build` would make and that do not exist."""
        kind = kind_of(mime, size)
        names = _names(_OF_KIND[kind]) if kind else []
        return [name for name in names if not await self.exists(doc_id, name, md5)]

    async def exists(self, doc_id: str, name: str, md5: bytes | None) -> bool:
        """Whether there is a thumbnail of this content (None: of any), or a marker that there
        can be none."""
        with contextlib.suppress(NotStored):
            await self._fresh(doc_id, name, md5)
            return True
        return False

    async def open(self, doc_id: str, name: str, md5: bytes | None = None) -> Served:
        """The thumbnail to serve; with *md5*, only one of that content. Raises NotStored where
        one is to be made, NoPicture where none can be. Removes what is damaged."""
        try:
            return await self.find(doc_id, name, md5)
        except _Damaged:
            # As on the Cozy server, all are to be made anew.
            try:
                await self.remove(doc_id)
            except StoreError as exc:  # these credentials may be for reading alone
                log.info("the thumbnails of document %s are damaged and stay: %s", doc_id, exc)
            raise

    async def find(self, doc_id: str, name: str, md5: bytes | None = None) -> Served:
        """As :meth:`open`, but changes nothing."""
        served = await self._fresh(doc_id, name, md5)
        if served.content_type != OCTET_STREAM:
            return served
        if served.size == 0:
            raise NoPicture("no thumbnail can be made of the file")
        raise _Damaged(f"there is no {name} thumbnail of the file")

    async def remove(self, doc_id: str) -> None:
        """All formats; after what is being drawn of this file. Absent is not an error."""
        async with self._alone(doc_id):
            await self._remove(doc_id)

    # ---- inside

    async def _fresh(self, doc_id: str, name: str, md5: bytes | None) -> Served:
        what = f"{name} thumbnail of the file"
        key = self.key(doc_id, name)
        info = await self._caller.store(objects.head, self._store, self._bucket, key, what)
        drawn = _md5_of(info.metadata)
        if md5 is not None and drawn is not None and drawn != md5:
            raise NotStored(f"there is no {what} as it is now")
        return Served(self._store, self._caller, self._bucket, info, what)

    async def _put(
        self, doc_id: str, name: str, data: bytes, mime: str, metadata: Mapping[str, str]
    ) -> None:
        await self._caller.store(
            self._store.put,
            self._bucket,
            self.key(doc_id, name),
            data,
            content_type=mime,
            metadata=metadata,
        )

    async def _remove(self, doc_id: str, names: list[str] | None = None) -> None:
        keys = self.keys(doc_id) if names is None else [self.key(doc_id, n) for n in names]
        if keys:
            await self._caller.store(self._store.delete_many, self._bucket, keys)

    @contextlib.asynccontextmanager
    async def _alone(self, doc_id: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(doc_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():  # nor does anybody wait for it
                self._locks.pop(doc_id, None)


class _Damaged(NotStored):
    """Something is stored there, but nothing that a thumbnail can be."""


class _Hashed:
    """A source whose MD5 is known when it has been read to its end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.digest = b""

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        md5 = hashlib.md5(usedforsecurity=False)
        async with contextlib.aclosing(self._source()) as pieces:
            async for piece in pieces:
                md5.update(piece)
                yield piece
        self.digest = md5.digest()


def _names(targets: tuple[Target, ...]) -> list[str]:
    return [target.name for target in targets]


def _md5_of(metadata: Mapping[str, str]) -> bytes | None:
    try:
        md5 = bytes.fromhex(metadata.get("file-md5", ""))
    except ValueError:
        return None
    return md5 if len(md5) == 16 else None
