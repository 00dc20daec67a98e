"""Icons and previews of files, kept by the MD5 of the file for all instances of a store.

``icon-<md5>.jpg`` and ``<md5>.jpg`` in the bucket of previews. They never expire; a picture that
cannot be kept is given all the same.

Async, in one event loop.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from cozyfs.errors import NoPicture, NotStored, StoreError
from cozyfs.side.draw import Target
from cozyfs.side.objects import put_making_bucket, read_whole
from cozyfs.side.render import kind_of
from cozyfs.store.buckets import side_bucket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cozyfs.side.render import Renderer, Source
    from cozyfs.store import Store
    from cozyfs.threads import Caller

log = logging.getLogger(__name__)

Name = Literal["icon", "preview"]

TARGETS = (
    Target("preview", 1080, 1920, 82, enlarge=False),
    Target("icon", 96, 96, 99, enlarge=True),
)

MAX_SIZE = 16 << 20
"""Bytes that are read of a picture: none of ours has so many."""

_MIME = "image/jpg"  # sic: what a Cozy server writes


class Previews:
    """The cache in the bucket of previews, and the making of what is not in it."""

    def __init__(
        self, store: Store, caller: Caller, bucket_prefix: str, renderer: Renderer
    ) -> None:
        self._store = store
        self._caller = caller
        self._bucket = side_bucket(bucket_prefix, "previews")
        self._renderer = renderer

    def key(self, name: Name, md5: bytes) -> str:
        if len(md5) != 16:
            raise ValueError(md5)
        return f"icon-{md5.hex()}.jpg" if name == "icon" else f"{md5.hex()}.jpg"

    async def get(self, name: Name, md5: bytes) -> bytes:
        """The kept picture of the content with this MD5 (16 raw bytes). Raises NotStored, also
        where there is no bucket, and TooLarge."""
        key = self.key(name, md5)
        _, data = await self._caller.store(
            read_whole, self._store, self._bucket, key, MAX_SIZE, f"{name} of the file"
        )
        return data

    async def set(self, name: Name, md5: bytes, picture: bytes) -> None:
        """Keeps a picture; the bucket is made when it is not there."""
        key = self.key(name, md5)
        await self._caller.store(
            put_making_bucket, self._store, self._bucket, key, picture, content_type=_MIME
        )

    async def make(
        self,
        name: Name,
        md5: bytes,
        mime: str,
        size: int,
        source: Source,
        *,
        keep: bool = True,
    ) -> bytes:
        """The kept picture; else both are made, of an image or of a PDF file's first page, and
        kept if *keep* says so. *size* in bytes. Raises NoPicture, WrongContent when *source*
        gives something else than *md5* says, and what *source* raises."""
        try:
            return await self.get(name, md5)
        except NotStored:
            kind = kind_of(mime, size)
        if kind is None:
            raise NoPicture(f"there is no {name} of files of this type or size")
        pictures = await self._renderer.draw(kind, source, TARGETS, md5=md5)
        if keep:
            await self._keep(md5, pictures)
        return pictures[name]

    async def _keep(self, md5: bytes, pictures: Mapping[str, bytes]) -> None:
        made: Name
        for made in ("preview", "icon"):
            try:
                await self.set(made, md5, pictures[made])
            except StoreError as exc:
                log.warning("a %s was made and cannot be kept: %s", made, exc)
