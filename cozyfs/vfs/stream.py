"""A multipart upload that starts while the file is still being written.

For sequential writes that outgrow the buffer: parts leave memory as soon as they are whole, in
parallel. Part boundaries follow from the offset alone (`part_size_at`), so a part that failed
can be sent again later under the same number.

Concurrency: methods run on the event loop, under the node's lock but for the part tasks. A
part task owns its slices; the table says SENT for their range, so nobody changes or reads them.
When a part fails for good its slices are handed back through ``take_back``.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, NamedTuple

import trio

from cozyfs.errors import CozyError
from cozyfs.store.multipart import part_size_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from cozyfs.store.base import Body
    from cozyfs.vfs.objects import Objects

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """One dispatched part: ``[start, stop)`` of the content, its bytes, and what undoes it."""

    number: int
    start: int
    stop: int
    body: Body
    sent: Callable[[], None]  # called on the loop when the part is in the store
    take_back: Callable[[], None]  # called on the loop when it will not get there


class Ending(NamedTuple):
    """What the upload is to be completed with. Once there has been an attempt, the object may be
    there although the answer was lost, so that every further attempt has to be the same."""

    size: int  # bytes of the object
    parts: list[tuple[int, str]]  # number and ETag
    md5: bytes | None


class StreamUpload:
    """One multipart upload under the key of *doc_id* and *internal_id*."""

    def __init__(
        self,
        objects: Objects,
        nursery: trio.Nursery,
        doc_id: str,
        internal_id: str,
        key: str,
        content_type: str,
        metadata: dict[str, str],
    ) -> None:
        self.doc_id = doc_id
        self.internal_id = internal_id
        self.key = key
        self._objects = objects
        self._nursery = nursery
        self._content_type = content_type
        self._metadata = metadata
        self.upload_id: str | None = None
        self._creating = trio.Lock()
        self.etags: dict[int, str] = {}
        self.dispatched = 0
        """Bytes from 0 on that were given to parts."""
        self.next_number = 1
        self.in_flight = 0
        self.failed: CozyError | OSError | None = None
        self.ending: Ending | None = None
        """Not None from the first attempt to complete the upload on."""
        self._hash: hashlib._Hash | None = hashlib.md5()
        self._hashed = trio.Event()
        self._hashed.set()
        self._changed = trio.Event()

    @property
    def next_size(self) -> int:
        """Bytes of the part to dispatch next."""
        return part_size_at(self.dispatched)

    def resume(
        self,
        upload_id: str,
        etags: dict[int, str],
        dispatched: int,
        number: int,
        ending: Ending | None,
    ) -> None:
        """Continue what an earlier process began; its hash is gone."""
        self.upload_id, self.etags = upload_id, etags
        self.dispatched, self.next_number = dispatched, number
        self.ending = ending
        self._hash = None

    def dispatch(self, part: Part) -> None:
        """Send a part in the background. It takes the next number, or one that failed before."""
        before: trio.Event | None = None
        mine: trio.Event | None = None
        if part.number == self.next_number:
            self.dispatched = part.stop
            self.next_number += 1
            before, mine = self._hashed, trio.Event()
            self._hashed = mine
        self.in_flight += 1
        self._nursery.start_soon(self._send, part, before, mine)

    async def any_done(self) -> None:
        """Wait until a part in flight has arrived or failed."""
        await self._changed.wait()

    async def all_done(self) -> None:
        while self.in_flight:
            await self._changed.wait()

    async def finish(self, tail: Body | None = None) -> tuple[str, Ending]:
        """Send *tail*, which follows what was dispatched, and turn all into the object; returns
        its ETag and what it is. All parts must have arrived. The tail stays the caller's, since
        all this may fail; with an ending there is nothing to send any more."""
        objects = self._objects
        upload_id = await self._create()
        if self.ending is None:
            etags, size = dict(self.etags), self.dispatched
            whole = self._hash.copy() if self._hash is not None else None
            if tail is not None and tail.size:
                md5 = await objects.caller.disk(_hash_both, whole, tail)
                etags[self.next_number] = await objects.caller.store(
                    objects.store.upload_part,
                    objects.bucket,
                    self.key,
                    upload_id,
                    self.next_number,
                    tail,
                    md5=md5,
                )
                size += tail.size
            digest = whole.digest() if whole is not None else None
            self.ending = Ending(size, sorted(etags.items()), digest)
        etag = await objects.caller.store(
            objects.store.complete_multipart,
            objects.bucket,
            self.key,
            upload_id,
            self.ending.parts,
        )
        return etag, self.ending

    async def abort(self) -> None:
        """Leave nothing behind; best effort."""
        await self.all_done()
        if self.upload_id is not None:
            await self._objects.abort_upload(self.key, self.upload_id)

    async def _send(self, part: Part, before: trio.Event | None, mine: trio.Event | None) -> None:
        objects = self._objects
        arrived = False
        try:
            if before is not None and mine is not None:
                await before.wait()
                # A call in a thread is not cut by cancellation, so the chain stays whole.
                md5 = await objects.caller.disk(_hash_both, self._hash, part.body)
                mine.set()
            else:
                md5 = await objects.caller.disk(_hash_both, None, part.body)
            etag = await objects.caller.store(
                objects.store.upload_part,
                objects.bucket,
                self.key,
                await self._create(),
                part.number,
                part.body,
                md5=md5,
            )
            self.etags[part.number] = etag
            arrived = True
        except (CozyError, OSError) as exc:  # OSError: the disk under the staging file
            log.warning("a part of an upload failed: %s", exc)
            self.failed = exc
        finally:
            if mine is not None and not mine.is_set():
                self._hash = None  # later parts must not be hashed as if this one had been
                mine.set()
            self.in_flight -= 1
            (part.sent if arrived else part.take_back)()
            self._changed.set()
            self._changed = trio.Event()

    async def _create(self) -> str:
        async with self._creating:
            if self.upload_id is None:
                self.upload_id = await self._objects.caller.store(
                    self._objects.store.create_multipart,
                    self._objects.bucket,
                    self.key,
                    content_type=self._content_type,
                    metadata=self._metadata,
                )
            return self.upload_id


def _hash_both(whole: hashlib._Hash | None, body: Body) -> bytes:
    """The part's MD5, and the whole content's carried on; in a thread."""
    own = hashlib.md5()
    for chunk in body.chunks():
        own.update(chunk)
        if whole is not None:
            whole.update(chunk)
    return own.digest()
