"""The images in notes: what was uploaded, and a version of it as wide as a note shows it.

``<db_prefix>/thumbs/<note id>/<uuid>-original`` and ``-thumb``, the latter only of what is wider
than a note. An image id is ``<note id>/<uuid>``, as in documents of io.cozy.notes.images; those
are not kept here: which images a note has, the store says.

Async, in one event loop.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from cozyfs.errors import NoPicture, NotStored, UsageError
from cozyfs.side import objects
from cozyfs.side.draw import Target
from cozyfs.side.objects import OCTET_STREAM
from cozyfs.side.render import kind_of
from cozyfs.side.served import Served
from cozyfs.store.keys import check_db_prefix

if TYPE_CHECKING:
    from cozyfs.side.render import Renderer
    from cozyfs.store import Body, ObjectInfo, Store
    from cozyfs.threads import Caller

WIDTH = 768
"""Pixels: a wider image is to have a ``thumb`` of this width (:meth:`NoteImages.resize`)."""

THUMB = Target("thumb", WIDTH, None, 82, enlarge=False, always=False)
ORIGINAL = "original"


class Stored(NamedTuple):
    """What the store has of one image; sizes in bytes, None: not there."""

    original: int | None
    thumb: int | None

    @property
    def size(self) -> int:
        """Of what :meth:`NoteImages.open` gives: an empty thumb is a marker that making it has
        failed."""
        return self.thumb or self.original or 0


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

    async def of(self, note_id: str) -> dict[str, Stored]:
        """What there is of the images of a note, by their ids."""
        return await self._caller.store(self._list, note_id)

    async def keys(self, note_id: str) -> list[str]:
        """Of all objects of a note's images."""
        images = await self.of(note_id)
        return [self.key(image, name) for image in images for name in (THUMB.name, ORIGINAL)]

    async def put(self, image_id: str, body: Body | bytes, mime: str) -> None:
        """Stores an original."""
        await self._caller.store(
            self._store.put,
            self._bucket,
            self.key(image_id, ORIGINAL),
            body,
            content_type=mime or OCTET_STREAM,
        )

    async def resize(self, image_id: str) -> bool:
        """Makes the thumb from the original; False where that is not wider than one, and is
        served itself. Raises NotStored without one, NoPicture where none can be made: the
        original is served then too."""
        original = await self._open(image_id, ORIGINAL)
        if kind_of(original.content_type, original.size) != "image":
            raise NoPicture("the image of the note is of no known format, or too large")
        pictures = await self._renderer.draw("image", original.pieces, [THUMB])
        if THUMB.name not in pictures:
            return False
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
        return True

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

    async def remove_thumbs(self, note_id: str) -> None:
        """Of all images of a note; the originals, which are nowhere else, are served then."""
        keys = [self.key(image, THUMB.name) for image in await self.of(note_id)]
        await self._caller.store(self._store.delete_many, self._bucket, keys)

    def _list(self, note_id: str) -> dict[str, Stored]:
        folder = self.key(f"{note_id}/x", ORIGINAL).removesuffix(f"x-{ORIGINAL}")
        found: dict[str, dict[str, ObjectInfo]] = {}
        for info in self._store.list(self._bucket, folder):
            uuid, _, name = info.key.removeprefix(folder).rpartition("-")
            # With a slash it is a thumbnail of a file, whose id is split.
            if uuid and "/" not in uuid and name in (ORIGINAL, THUMB.name):
                found.setdefault(f"{note_id}/{uuid}", {})[name] = info
        return {image: _stored(objects) for image, objects in found.items()}

    async def _open(self, image_id: str, name: str) -> Served:
        what = "image of the note"
        key = self.key(image_id, name)
        info = await self._caller.store(objects.head, self._store, self._bucket, key, what)
        return Served(self._store, self._caller, self._bucket, info, what)


def _stored(objects: dict[str, ObjectInfo]) -> Stored:
    original, thumb = objects.get(ORIGINAL), objects.get(THUMB.name)
    return Stored(
        None if original is None else original.size,
        None if thumb is None else thumb.size,
    )
