"""The images of notes in the view of thumbnails: ``/.thumbs/notes/<path of a note>/<id>``.

Directories of the tree and the notes in them are directories; in that of a note are its images, as
wide as it shows them: the thumb where there is one, else what was uploaded. The store is asked
about a note when somebody looks into it, and believed for `REMEMBERED_S`.
"""

from __future__ import annotations

from stat import S_IFREG, S_ISDIR, S_ISREG
from typing import TYPE_CHECKING

import trio
from cachetools import TTLCache

from cozyfs.errors import NotFound, NotStored
from cozyfs.index import is_note
from cozyfs.values import ROOT_INO
from cozyfs.vfs.view_access import as_directory, readable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cozyfs.side.note_images import NoteImages, Stored
    from cozyfs.side.served import Served
    from cozyfs.values import Inode
    from cozyfs.vfs.filesystem import FileSystem
    from cozyfs.vfs.views import Names

PAGE = 128

REMEMBERED_S = 1.0

_REMEMBERED = 256


class NoteImageView:
    """See the module; paths begin below ``notes``."""

    def __init__(self, fs: FileSystem, images: NoteImages) -> None:
        self._fs = fs
        self._images = images
        self._seen: TTLCache[str, Mapping[str, Stored]] = TTLCache(
            _REMEMBERED, REMEMBERED_S, timer=trio.current_time
        )

    async def look(self, path: Names) -> Inode:
        """Raises NotFound, StoreError."""
        inode, image = self._resolve(path)
        if image is None:
            return as_directory(self._fs.index, inode)
        stored = (await self._of(inode)).get(image)
        if stored is None:
            raise NotFound("the note has no such image")
        return self._file(inode, stored)

    async def children(self, path: Names) -> list[tuple[bytes, Inode]]:
        """Raises NotFound, StoreError."""
        inode, image = self._resolve(path)
        if image is not None:
            raise NotFound("an image is no directory")
        if not S_ISDIR(inode.mode):
            images = await self._of(inode)
            return [(id_.encode(), self._file(inode, images[id_])) for id_ in sorted(images)]
        index, found, after = self._fs.index, [], b""
        while page := index.children(inode.ino, after, PAGE):
            found += [
                (name, as_directory(index, each)) for name, each in page if _is_in(name, each)
            ]
            after = page[-1][0]
        return found

    async def find(self, path: Names) -> Served:
        """Raises NotFound, StoreError."""
        inode, image = self._resolve(path)
        if image is None:
            raise NotFound("it is a directory")
        try:
            return await self._images.open(f"{inode.doc_id}/{image}")
        except NotStored as exc:
            raise NotFound("the note has no such image") from exc
        finally:
            # The kernel asks for the size again before it reads beyond the one it knows: it has
            # to be that of what is read.
            self._seen.pop(inode.doc_id, None)

    # ---- inside

    def _resolve(self, path: Names) -> tuple[Inode, str | None]:
        """The directory or note of the tree, and the name of an image of the latter."""
        inode = self._fs.index.get(ROOT_INO)
        for depth, name in enumerate(path):
            if S_ISDIR(inode.mode):
                inode = self._fs.index.lookup(inode.ino, name)
                if not _is_in(name, inode):
                    raise NotFound("only notes have images")
            elif depth == len(path) - 1:
                return inode, name.decode(errors="replace")
            else:
                raise NotFound("there is nothing below an image")
        return inode, None

    async def _of(self, note: Inode) -> Mapping[str, Stored]:
        """By their ids in the note."""
        images = self._seen.get(note.doc_id)
        if images is None:
            found = await self._images.of(note.doc_id)
            images = {key.partition("/")[2]: found[key] for key in found if found[key].size}
            self._seen[note.doc_id] = images
        return images

    def _file(self, note: Inode, stored: Stored) -> Inode:
        mode = S_IFREG | readable(self._fs.index, note)
        return note._replace(mode=mode, nlink=1, size=stored.size, stored=stored.size)


def _is_in(name: bytes, inode: Inode) -> bool:
    return S_ISDIR(inode.mode) or (S_ISREG(inode.mode) and is_note(name))
