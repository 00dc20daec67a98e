"""The images in notes: what was uploaded, and a version of it as wide as a note shows it.

``<db_prefix>/thumbs/<note id>/<uuid>-original`` and ``-thumb``. An image id is
``<note id>/<uuid>``, as in the documents of io.cozy.notes.images, which are not kept here.

Async, in one event loop.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cozyfs.errors import NoPicture, NotStored, UsageError
from cozyfs.side import objects
from cozyfs.side.draw import Target
from cozyfs.side.objects import OCTET_STREAM
from cozyfs.side.render import kind_of
from cozyfs.side.served import Served
from cozyfs.store.keys import check_db_prefix

if TYPE_CHECKING:
    from cozyfs.side.render import Renderer
    from cozyfs.store import Body, Store
    from cozyfs.threads import Caller

WIDTH = 768
"""Pixels: a wider image is to have a ``thumb`` of this width (:meth:`NoteImages.resize`)."""

THUMB = Target("thumb", WIDTH, None, 82, enlarge=False)
ORIGINAL = "original"


class NoteImages:
    """The images of the notes of one instance."""

    def __init__(
        self, store: Store, caller: Caller, bucket: str, db_prefix: str, renderer: Renderer
    ) -> None:
        self._store = store
        self._caller = caller
        self._bucket = bucket
        self._folder = f"{check_db_prefix(db_prefix)}/thumbs"
        self._renderer = renderer

    def key(self, image_id: str, name: str) -> str:
        """UsageError for what is not the id of a note's image."""
        note_id, slash, uuid = image_id.partition("/")
        if not (note_id and slash and uuid) or "/" in uuid:
            raise UsageError(f"{image_id!r} is not the id of an image in a note")
        return f"{self._folder}/{image_id}-{name}"

    async def put(self, image_id: str, body: Body | bytes, mime: str) -> None:
        """Stores an original."""
        await self._caller.store(
            self._store.put,
            self._bucket,
            self.key(image_id, ORIGINAL),
            body,
            content_type=mime or OCTET_STREAM,
        )

    async def resize(self, image_id: str) -> None:
        """Makes the thumb from the original. Raises NotStored without one, NoPicture where none
        can be made: the original is served then."""
        original = await self._open(image_id, ORIGINAL)
        if kind_of(original.content_type, original.size) != "image":
            raise NoPicture("the image of the note is of no known format, or too large")
        pictures = await self._renderer.draw("image", original.pieces, [THUMB])
        await self._caller.store(
            self._store.put,
            self._bucket,
            self.key(image_id, THUMB.name),
            pictures[THUMB.name],
            content_type="image/jpeg",
        )
        try:
            await self._open(image_id, ORIGINAL)
        except NotStored:  # removed meanwhile: nobody would remove what was just made
            await self.remove(image_id)
            raise

    async def open(self, image_id: str) -> Served:
        """The thumb, else the original. Raises NotStored."""
        with contextlib.suppress(NotStored):
            thumb = await self._open(image_id, THUMB.name)
            if thumb.size:  # not a marker that making it has failed
                return thumb
        return await self._open(image_id, ORIGINAL)

    async def remove(self, image_id: str) -> None:
        """Both. Absent is not an error."""
        keys = [self.key(image_id, name) for name in (THUMB.name, ORIGINAL)]
        await self._caller.store(self._store.delete_many, self._bucket, keys)

    async def _open(self, image_id: str, name: str) -> Served:
        what = "image of the note"
        key = self.key(image_id, name)
        info = await self._caller.store(objects.head, self._store, self._bucket, key, what)
        return Served(self._store, self._caller, self._bucket, info, what)
