"""The moment when what was written becomes the content of a file.

The order that makes a crash harmless: the object first, then one index transaction that points
the inode at it and queues the former object for deletion. If the process dies between the two,
the tree still has the old content and the new object is unreferenced.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from cozyfs.errors import CozyError, LeaseLost, NotFound, QuotaExceeded, UploadFailed
from cozyfs.store.keys import new_internal_id
from cozyfs.vfs.upload import upload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cozyfs.index import Index
    from cozyfs.values import Content, Ino, Inode
    from cozyfs.vfs.cache import BlockCache
    from cozyfs.vfs.draft import Draft, Target
    from cozyfs.vfs.nodes import Node
    from cozyfs.vfs.objects import Objects
    from cozyfs.vfs.quota import Quota
    from cozyfs.vfs.versions import Versions

log = logging.getLogger(__name__)


class Storing:
    """Of the drafts of *nodes*. *current* gives an inode with what its draft says, *describe* the
    object that a draft is to become; *confirm* raises unless this process may still write; *tell*
    is called with each file that has got another content."""

    def __init__(
        self,
        nodes: dict[Ino, Node],
        index: Index,
        objects: Objects,
        cache: BlockCache,
        quota: Quota,
        versions: Versions,
        *,
        current: Callable[[Inode], Inode],
        describe: Callable[[Inode, str], Target],
        confirm: Callable[[], Awaitable[None]] | None,
        tell: Callable[[Ino], None] | None,
        clock: Callable[[], int],
    ) -> None:
        self._nodes = nodes
        self._index = index
        self._objects = objects
        self._cache = cache
        self._quota = quota
        self._versions = versions
        self._current = current
        self._describe = describe
        self._confirm = confirm
        self._tell = tell
        self._clock = clock
        self.uploads = 0
        """Drafts being stored right now."""
        self.upload_errors = 0

    async def flush(self, node: Node, *, closing: bool = False) -> None:
        """Store the node's draft and commit it. On failure the draft is kept, and made durable
        in the state directory, before the error goes to the caller. Where a write was refused
        nothing is stored, and nothing is kept either."""
        async with node.lock:
            draft = node.draft
            if node.refused:
                raise QuotaExceeded("a part of the file did not fit into the quota")
            if draft is None:
                return
            if not draft.dirty:
                await self._settle(node, draft)
                return
            self.uploads += 1
            try:
                inode = self._index.get(node.ino)
                if inode.nlink == 0:
                    return  # nobody can open it again; the draft goes with the last handle
                target = self._describe(self._current(inode), new_internal_id())
                if self._confirm is not None:
                    await self._confirm()  # before, too: nothing is stored that has no place
                try:
                    with self._quota.storing(node.ino, draft.size):
                        content = await upload(draft, target, self._objects, self._cache)
                        if self._confirm is not None:
                            await self._confirm()
                        used = self._index.disk_bytes
                        self._commit(node, draft, content)
                except QuotaExceeded:
                    raise  # before anything was stored
                except (CozyError, OSError):
                    if draft.stream is None:
                        # It may be in the store all the same: an answer that was lost, or an
                        # index that could not take it. A stream goes on under its own id.
                        with contextlib.suppress(CozyError):
                            self._index.queue_deletion(
                                target.doc_id, target.internal_id, self._clock()
                            )
                    raise
            except NotFound:
                return  # unlinked and forgotten meanwhile; dropped() has seen to the draft
            except (CozyError, OSError) as exc:  # OSError: the disk under the staging file
                if node.draft is not draft:
                    return  # the same
                await self.keep(node, draft)
                if isinstance(exc, QuotaExceeded):
                    raise  # the quota was lowered, or used up by others, since it was written
                self.upload_errors += 1
                if isinstance(exc, LeaseLost):
                    raise  # it is not tried again, and EROFS says so
                raise UploadFailed("the file could not be stored; it is kept and retried") from exc
            finally:
                self.uploads -= 1
            draft.stream = None
            draft.dirty = False
            if closing and draft.size == 0:
                self._remember(node, inode, max(used - self._index.disk_bytes, 0))
            else:
                self.settle_for(node)
                node.is_new = False
            await self._settle(node, draft)

    async def keep(self, node: Node, draft: Draft) -> None:
        """Make a draft that is not in the store outlive the process."""
        node.failures += 1
        try:
            await draft.spill()
            if draft.stream is not None:
                await draft.stream.all_done()
                await draft.spill()
            inode, names = self._index.get(node.ino), self._index.entries_of(node.ino)
            record = draft.record(inode, names[0][1] if names else None)
            self._index.save_draft(node.ino, record)
        except (CozyError, OSError) as exc:
            log.error("inode %d is kept in memory only: %s", node.ino, exc)

    def settle_for(self, node: Node) -> None:
        """What is stored now is what the file goes back to, if it has to."""
        node.before = None
        self._quota.release((node.ino, "before"))

    def has_new_content(self, ino: Ino) -> None:
        """Tells it on."""
        if self._tell is not None:
            self._tell(ino)

    # ---- inside

    def _commit(self, node: Node, draft: Draft, content: Content) -> None:
        """Point the inode at what was stored. Raises NotFound when it is gone."""
        with self._index.transaction():
            former, now = self._index.get(node.ino), self._clock()
            changed = True
            if former.nlink and not node.replaced:
                changed = self._versions.file_former(former, content.md5, now)
            self._index.set_content(
                node.ino,
                content,
                mtime_ns=draft.mtime_ns,
                ctime_ns=max(draft.ctime_ns, former.ctime_ns),
                now_ns=now,
            )
            if content.internal_id is not None:
                doc_id = content.doc_id or self._index.get(node.ino).doc_id
                self._index.keep_object(doc_id, content.internal_id)
            if node.failures:
                self._index.remove_draft(node.ino)
        node.failures = 0
        node.replaced = node.writers > 0 and (node.replaced or changed)
        self.has_new_content(node.ino)

    async def _settle(self, node: Node, draft: Draft) -> None:
        """The draft equals what the index says: go on from there."""
        node.draft = None
        self._quota.release(node.ino)
        self._quota.tell()
        if node.handles == 0:
            self._nodes.pop(node.ino, None)
        await draft.discard()

    def _remember(self, node: Node, inode: Inode, freed: int) -> None:
        """close(2) stored that the file, which was *inode*, is empty. Whoever emptied it may have
        other descriptors, and be about to write: until the handle is closed there is a way back.
        The room that got free stays reserved for that."""
        if node.before is None:
            node.before = inode
            self._quota.restore((node.ino, "before"), freed, shortened=False)
