"""What the store keeps beside a document, and what goes with it: thumbnails, images of a note."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cozyfs.side.note_images import NoteImages
    from cozyfs.side.thumbnails import Thumbnails


class Beside:
    """For `cozyfs.vfs.deletions.delete_due`."""

    def __init__(self, thumbnails: Thumbnails, images: NoteImages) -> None:
        self._thumbnails = thumbnails
        self._images = images

    async def __call__(self, doc_id: str, is_note: bool) -> list[str]:
        """Keys; only those of a note's images are asked for, and known to be there. Raises
        StoreError."""
        images = await self._images.keys(doc_id) if is_note else []
        return [*self._thumbnails.keys(doc_id), *images]
