"""What an instance consists of while it moves, and the contents that come along."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from cozyfs.errors import CorruptObject, ObjectNotFound

if TYPE_CHECKING:
    from cozyfs.vfs.objects import Objects


class Kind(Enum):
    """In the order in which they come; versions follow their file."""

    INSTANCE = "instance"
    DIRECTORY = "directory"
    SPECIAL = "special"  # a symbolic link, fifo, socket or device
    FILE = "file"
    VERSION = "version"
    APP = "app"  # the document of one that is installed
    OBJECT = "object"  # a thumbnail, an image of a note, the avatar


class Content(Protocol):
    """The bytes of one item."""

    size: int

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes of ``[start, stop)``, all of them. Where the source is a stream, ranges are
        asked for one after the other, from the first byte on, before the next item is taken.
        Raises ArchiveError, StoreError."""


@dataclass(frozen=True, slots=True)
class Item:
    """One of them. *document* is JSON as it stands in an archive."""

    kind: Kind
    document: dict[str, Any]
    content: Content | None = None
    """None: it has none, or the archive lost it."""
    path: str = ""
    """For people, and the name of the content in an archive of ours."""


@dataclass(slots=True)
class StoredContent:
    """An object in a store, or the start of one; ranges may be read in any order, at once."""

    objects: Objects
    key: str
    size: int
    stored: int  # bytes of the object; more than *size* where a list of extents follows the data
    path: str = field(default="", compare=False)

    async def read(self, start: int, stop: int) -> bytes:
        objects = self.objects
        try:
            data = await objects.caller.store(
                objects.store.get, objects.bucket, self.key, start, stop
            )
        except ObjectNotFound as exc:
            raise ObjectNotFound(
                f"the content of {self.path} is not in the store (see cozyfs fsck)"
            ) from exc
        if len(data) != stop - start:
            raise CorruptObject(
                f"the content of {self.path} is shorter than the tree says (see cozyfs fsck)"
            )
        return data
