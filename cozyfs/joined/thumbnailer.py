"""The thumbnails of a mount: made in the background of what changes, or when somebody asks.

`Thumbnailer.note` is told of each file that has another content. A while after the first change
its thumbnails are made from what the file has then, one file at a time. Who writes never waits
for that, and neither does the end of the mount: what is not made by then is made at the next
change, or by ``cozyfs thumbnails build``. What lies in the trash gets none, and keeps those that
it has.

Of a note, thumbs of its images are made and removed when somebody asks: nothing here writes notes
with images.

Thumbnails of removed files are not this module's: they go with the file's objects
(`cozyfs.vfs.deletions`), so that no crash leaves them behind.

On the event loop.
"""

from __future__ import annotations

import logging
from stat import S_ISREG
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import (
    CozyError,
    InvalidRequest,
    LeaseLost,
    NoPicture,
    NoSpace,
    NotFound,
    NotStored,
    ReadOnly,
    StoreUnavailable,
    WrongContent,
)
from cozyfs.index import is_note
from cozyfs.joined.thumbnail_view import is_picture, may_have
from cozyfs.side.render import kind_of
from cozyfs.side.thumbnails import TINY, Outcome
from cozyfs.values import Ino
from cozyfs.vfs.names import decode, media_type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cozyfs.side.note_images import NoteImages
    from cozyfs.side.render import Source
    from cozyfs.side.thumbnails import Thumbnails
    from cozyfs.values import Inode
    from cozyfs.vfs.filesystem import FileSystem

log = logging.getLogger(__name__)

DELAY_S = 1.0
"""From a change to the making: programs write a file several times, and rename it after."""

RETRY_PAUSE_S, MOST_PAUSE_S = 60.0, 600.0
"""While the store does not answer, or the disk for temporary files is full: the first pause, and
the longest, since each attempt may read a file of 100 MiB."""

MOST_WAITING = 100_000
"""Files, of some 150 bytes: a collection of photos, and a day of work. Beyond, changes are
forgotten."""


class Thumbnailer:
    """Of one mount. *confirm* raises unless this process may still write."""

    def __init__(
        self,
        fs: FileSystem,
        thumbnails: Thumbnails,
        images: NoteImages,
        confirm: Callable[[], Awaitable[None]],
    ) -> None:
        self.fs = fs
        self._thumbnails = thumbnails
        self._images = images
        self._confirm = confirm
        self._waiting: dict[Ino, float] = {}  # when its time comes, in that order
        self._arrived = trio.Event()
        self._overflowed = False
        self._making = False

    @property
    def waiting(self) -> int:
        """How many files have changed whose thumbnails were not made anew yet."""
        return len(self._waiting) + self._making

    # ---- in the background

    def note(self, ino: Ino) -> None:
        """The file has another content, or another name."""
        if ino in self._waiting or not self._is_picture(ino):
            return
        if len(self._waiting) >= MOST_WAITING:
            if not self._overflowed:
                log.warning(
                    "more files change than thumbnails can be made;"
                    " those left out are made by 'cozyfs thumbnails build'"
                )
            self._overflowed = True
            return
        self._overflowed = False
        self._waiting[ino] = trio.current_time() + DELAY_S
        self._arrived.set()

    async def run(self) -> None:
        """Make what was noted, until cancelled."""
        pause_s = 0.0  # after the last attempt
        while True:
            await self._arrived.wait()
            ino, due = next(iter(self._waiting.items()))
            await trio.sleep_until(due)
            del self._waiting[ino]
            if not self._waiting:
                self._arrived = trio.Event()
            last_pause_s, pause_s = pause_s, 0.0
            self._making = True
            try:
                await self._after_change(ino)
            except (StoreUnavailable, NoSpace) as exc:
                if not last_pause_s:
                    log.warning("no thumbnails can be made now: %s; trying again", exc)
                pause_s = min(max(2 * last_pause_s, RETRY_PAUSE_S), MOST_PAUSE_S)
                self.note(ino)  # after the others: it may be the one that does not fit
            except (NotFound, ReadOnly, LeaseLost, WrongContent) as exc:
                # It is gone, not ours any more, or has changed, of which we were told.
                log.debug("inode %d gets no thumbnails: %s", ino, exc)
            except CozyError as exc:
                log.warning("the thumbnails of inode %d could not be made: %s", ino, exc)
            except Exception:
                log.exception("the thumbnails of inode %d could not be made", ino)
            finally:
                self._making = False
            await trio.sleep(pause_s)

    async def _after_change(self, ino: Ino) -> None:
        inode, mime = self._file(ino)
        if self.fs.files.state(ino) != "clean" or self.fs.index.is_trashed(ino):
            return  # of the content that comes we are told again
        if await self._is_shown(inode):
            return  # only its name is new
        if kind_of(mime, inode.size) is None and inode.md5 is None:
            return  # a Cozy server may have made some, and nobody can tell of which content
        await self._make(inode, mime)

    # ---- when somebody asks

    async def build(self, ino: Ino) -> Outcome | None:
        """Make the thumbnails of a file where one is missing, or is of another content; of a note
        those of its images. None where none is missing. Raises InvalidRequest for a file that can
        have none, NotFound, ReadOnly, SideError, StoreError, NoSpace."""
        inode, mime = self._file(ino)
        if self.fs.read_only:
            raise ReadOnly("the mount is read-only")
        if self.fs.index.is_trashed(ino):
            raise InvalidRequest("what lies in the trash gets no thumbnails")
        if self._is_note(ino):
            return await self._build_note(inode)
        if kind_of(mime, inode.size) is None:
            raise InvalidRequest(f"a file of type {mime} and of this size can have no thumbnail")
        missing = await self._thumbnails.missing(inode.doc_id, inode.md5, mime, inode.size)
        if not missing and await self._is_shown(inode):
            return None
        return await self._make(inode, mime)

    async def remove(self, ino: Ino) -> None:
        """The thumbnails of a file, in all formats; of a note those of its images, which stay.
        Raises NotFound, ReadOnly, StoreError."""
        inode, _ = self._file(ino)
        if self.fs.read_only:
            raise ReadOnly("the mount is read-only")
        await self._confirm()
        if self._is_note(ino):
            await self._images.remove_thumbs(inode.doc_id)
        else:
            await self._thumbnails.remove(inode.doc_id)

    @staticmethod
    def can_build(name: bytes, inode: Inode) -> bool:
        """Whether :meth:`build` takes the file *inode*, which is called *name*."""
        if may_have(name, inode):
            return kind_of(media_type(decode(name)), inode.size) is not None
        return S_ISREG(inode.mode) and is_note(name)

    @staticmethod
    def can_remove(name: bytes, inode: Inode) -> bool:
        """The same of :meth:`remove`."""
        return may_have(name, inode) or (S_ISREG(inode.mode) and is_note(name))

    # ---- inside

    def _is_picture(self, ino: Ino) -> bool:
        try:
            names = self.fs.index.entries_of(ino)
        except CozyError:
            return False
        return bool(names) and is_picture(names[0][1])

    def _is_note(self, ino: Ino) -> bool:
        return any(is_note(name) for _, name in self.fs.index.entries_of(ino))

    async def _build_note(self, note: Inode) -> Outcome | None:
        await self._confirm()
        outcome = None
        images = await self._images.of(note.doc_id)
        for image in [key for key, stored in images.items() if stored.thumb is None]:
            try:
                if await self._images.resize(image):
                    outcome = Outcome.MADE
            except NoPicture as exc:
                log.debug("an image of note %d gets no thumb: %s", note.ino, exc)
                outcome = outcome or Outcome.FAILED
            except NotStored:
                continue  # removed meanwhile
            if not self.fs.index.is_wanted(note.doc_id):
                await self._images.remove(image)  # nobody would come back here
        return outcome

    def _file(self, ino: Ino) -> tuple[Inode, str]:
        """With its media type. Raises NotFound, also for a removed one."""
        inode, names = self.fs.index.get(ino), self.fs.index.entries_of(ino)
        if not names:
            raise NotFound("the file was removed")
        return inode, media_type(decode(names[0][1]))

    async def _is_shown(self, inode: Inode) -> bool:
        """Whether there is a picture of the content that the file has now. The tiny one is made
        last: where it is, the others are. A marker does not count: it does not tell of which
        content it is."""
        if inode.md5 is None:
            return False
        try:
            await self._thumbnails.find(inode.doc_id, TINY.name, inode.md5)
        except (NotStored, NoPicture):
            return False
        return True

    async def _make(self, inode: Inode, mime: str) -> Outcome:
        await self._confirm()
        outcome = await self._thumbnails.build(
            inode.doc_id, inode.md5, mime, inode.size, self._source(inode)
        )
        if inode.doc_id not in self.fs.index.with_doc_ids([inode.doc_id]):
            # Removed for good meanwhile, maybe with its objects: nobody would come back here.
            await self._thumbnails.remove(inode.doc_id)
        log.debug("thumbnails of inode %d: %s", inode.ino, outcome.value)
        return outcome

    def _source(self, inode: Inode) -> Source:
        """The content as *inode* has it, whatever happens to the file meanwhile."""
        return lambda: self.fs.files.content(inode._replace(ino=Ino(0)))
