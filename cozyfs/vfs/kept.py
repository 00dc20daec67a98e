"""Drafts that an earlier process could not store and kept on this machine, taken up again.

Another machine may have written meanwhile. A file that it changed gets the draft as a file
beside it; one that it removed comes back among the orphans: what a program wrote is never dropped
for what another machine did. What cannot be taken up whole is put aside in the state directory.

On the loop, before requests are answered; only a draft that goes on from an object of a removed
file is taken up a moment later, when the store has said that the object is there.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from cozyfs.errors import CozyError, NotFound, ObjectNotFound
from cozyfs.store.keys import new_doc_id
from cozyfs.vfs.draft import Draft, Owned
from cozyfs.vfs.orphans import free_name, place_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from cozyfs.index import Index
    from cozyfs.values import Ino, Inode
    from cozyfs.vfs.draft import Workshop

log = logging.getLogger(__name__)

ASIDE = ".unreadable"
"""Ends the names of what a start could not take up."""

PAUSE_S = 5.0
"""Between attempts to ask a store that does not answer."""


class KeptDrafts:
    """*take_up* makes a draft the one of its inode."""

    def __init__(
        self,
        index: Index,
        shop: Workshop,
        clock: Callable[[], int],
        take_up: Callable[[Ino, Draft], None],
    ) -> None:
        self.bases: set[str] = set()
        """Keys of objects that drafts may go on from, once the store was asked."""
        self._index = index
        self._shop = shop
        self._clock = clock
        self._take_up = take_up

    def recover(self) -> None:
        """All of them; staging files that belong to none are removed."""
        staged = set()
        for ino, blob in self._index.drafts():
            try:
                staged.add(f"{self._recover(ino, blob)}.draft")
            except (OSError, ValueError, KeyError):
                log.exception("what was kept of inode %d cannot be read; it is put aside", ino)
                self._put_aside(ino, blob)
        for path in self._shop.staging_dir.iterdir():
            if path.name not in staged and path.suffix != ASIDE:
                path.unlink(missing_ok=True)

    def _recover(self, ino: Ino, blob: bytes) -> Ino:
        """Whose staging file is needed now. Raises ValueError, OSError, KeyError."""
        try:
            inode = self._index.get(ino)
        except NotFound:
            return self._recover_removed(ino, blob)
        if Draft.is_outdated(inode, blob):
            return self._move_beside(inode, blob)
        self._take_up(ino, Draft.restore(self._shop, inode, blob))
        return ino

    def _move_beside(self, inode: Inode, blob: bytes) -> Ino:
        parent, name = self._index.entries_of(inode.ino)[0]
        beside = free_name(self._index, parent, name)
        owned = Owned(beside, inode.mode, inode.uid, inode.gid)
        draft = self._move(inode.ino, blob, parent, owned)
        self._take_up(draft.ino, draft)
        log.warning(
            "%r was changed by another machine: what was written here and not stored is %r",
            name,
            beside,
        )
        return draft.ino

    def _recover_removed(self, ino: Ino, blob: bytes) -> Ino:
        _refuse_parts(blob)
        base = Draft.base_key(blob)
        if base is None:
            return self._move_to_orphans(ino, blob)
        self.bases.add(base)
        self._shop.nursery.start_soon(self._move_when_whole, ino, blob, base)
        return ino

    async def _move_when_whole(self, ino: Ino, blob: bytes, base: str) -> None:
        objects = self._shop.objects
        while True:
            try:
                await objects.caller.store(objects.store.head, objects.bucket, base)
                self._move_to_orphans(ino, blob)
                (self._shop.staging_dir / f"{ino}.draft").unlink(missing_ok=True)
            except (ObjectNotFound, OSError, ValueError, KeyError):
                log.exception("inode %d was removed, and its draft is not whole: put aside", ino)
                self._put_aside(ino, blob)
            except CozyError as exc:
                log.warning("the draft of inode %d, which was removed, has to wait: %s", ino, exc)
                await trio.sleep(PAUSE_S)
                continue
            break
        self.bases.discard(base)

    def _move_to_orphans(self, ino: Ino, blob: bytes) -> Ino:
        uid, gid = os.getuid(), os.getgid()
        owned = Draft.owned(blob) or Owned(b"inode %d" % ino, 0o100600, uid, gid)
        with self._index.transaction(durable=True):
            parent, name = place_for(
                self._index, owned.name, uid=uid, gid=gid, now_ns=self._clock()
            )
            draft = self._move(ino, blob, parent, owned._replace(name=name))
        self._take_up(draft.ino, draft)
        log.warning(
            "%r was removed by another machine: what was written here and not stored is %r",
            owned.name,
            self._index.path_of(draft.ino),
        )
        return draft.ino

    def _move(self, ino: Ino, blob: bytes, parent: Ino, owned: Owned) -> Draft:
        """Make it the draft of a new file."""
        _refuse_parts(blob)
        now = self._clock()
        folder = self._shop.staging_dir
        with self._index.transaction(durable=True):
            new = self._index.make(
                parent,
                owned.name,
                owned.mode,
                uid=owned.uid,
                gid=owned.gid,
                doc_id=new_doc_id(now),
                now_ns=now,
            )
            # Linked before a record names it; who recovers removes the old name.
            target = folder / f"{new.ino}.draft"
            target.unlink(missing_ok=True)
            if (folder / f"{ino}.draft").exists():
                os.link(folder / f"{ino}.draft", target)
            self._index.save_draft(new.ino, Draft.moved(blob))
            self._index.remove_draft(ino)
            return Draft.restore(self._shop, new, Draft.moved(blob))

    def _put_aside(self, ino: Ino, blob: bytes) -> None:
        """Keep an unreadable draft for people to look at, out of the way of the next one."""
        folder = self._shop.staging_dir
        (folder / f"{ino}.record{ASIDE}").write_bytes(blob)
        draft = folder / f"{ino}.draft"
        if draft.exists():
            draft.rename(folder / f"{ino}.draft{ASIDE}")
        self._index.remove_draft(ino)


def _refuse_parts(blob: bytes) -> None:
    if not Draft.can_move(blob):
        raise ValueError("parts of it belong to a file that another machine has changed")
