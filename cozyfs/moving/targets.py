"""Where an archive goes: the exports bucket, a file, or a stream that nobody can go on with.

A target takes members in order. One that can be gone on with writes down, in the work folder of
the export, how far the archive is safe; what came after that is written again. The archive
appears under its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

from cozyfs.durable import sync
from cozyfs.errors import ArchiveError, NoSpace, StoreError
from cozyfs.store.multipart import part_size_at

if TYPE_CHECKING:
    from pathlib import Path

    from cozyfs.store.base import Store
    from cozyfs.threads import Caller

CONTENT_TYPE = "application/tar+gzip"

SYNC_EVERY = 32 << 20
"""Bytes of a file between two records of how far it is."""


@dataclass(slots=True)
class Record:
    """How far an export is. Kept in ``progress.json`` of its work folder."""

    id: str
    store: str  # description of the instance's
    created_at: str  # RFC 3339, UTC
    bucket: str = ""  # where the archive goes; or
    path: str = ""  # absolute
    offset: int = 0  # bytes of tar that are safe
    written: int = 0  # bytes of the archive that are safe
    upload_id: str = ""
    parts: list[tuple[int, str]] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        path = folder / "progress.json"
        scratch = path.with_name("progress.json.new")
        with open(scratch, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)

    @classmethod
    def load(cls, folder: Path) -> Record | None:
        """None where there is none that can be read."""
        try:
            fields = json.loads((folder / "progress.json").read_text("utf-8"))
            fields["parts"] = [(int(number), str(etag)) for number, etag in fields["parts"]]
            return cls(**fields)
        except (OSError, ValueError, TypeError, KeyError):
            return None


class Target(Protocol):
    """Begins, or goes on, when it is entered; what is left of it is removed by :meth:`discard`."""

    async def open(self) -> None:
        """Ready for what follows ``record.offset``. Raises ArchiveError when what was written
        before is gone."""

    async def add(self, member: bytes, offset: int) -> None:
        """The tar has *offset* bytes with it."""

    async def finish(self) -> None:
        """The archive is whole and under its name when this returns."""

    async def discard(self) -> None:
        """Nothing of it is left."""

    async def close(self) -> None:
        """This process is done with it; it can be gone on with."""


class BucketTarget:
    """A multipart upload: as much is safe as whole parts are."""

    def __init__(
        self, store: Store, caller: Caller, bucket: str, key: str, record: Record, folder: Path
    ) -> None:
        self._store = store
        self._caller = caller
        self._bucket = bucket
        self._key = key
        self._record = record
        self._folder = folder
        self._buffer: list[bytes] = []
        self._size = 0
        self._offset = record.offset

    async def open(self) -> None:
        record = self._record
        if record.upload_id:
            return
        await self._caller.store(self._store.ensure_bucket, self._bucket)
        record.upload_id = await self._caller.store(
            self._store.create_multipart, self._bucket, self._key, content_type=CONTENT_TYPE
        )
        await self._caller.disk(record.save, self._folder)

    async def add(self, member: bytes, offset: int) -> None:
        self._buffer.append(member)
        self._size += len(member)
        self._offset = offset
        if self._size >= part_size_at(self._record.written):
            await self._send()

    async def finish(self) -> None:
        if self._buffer:
            await self._send()
        record = self._record
        await self._caller.store(
            self._store.complete_multipart,
            self._bucket,
            self._key,
            record.upload_id,
            record.parts,
        )

    async def discard(self) -> None:
        if self._record.upload_id:
            await self._caller.store(
                self._store.abort_multipart, self._bucket, self._key, self._record.upload_id
            )

    async def close(self) -> None:
        self._buffer.clear()

    async def _send(self) -> None:
        record, body = self._record, b"".join(self._buffer)
        number = len(record.parts) + 1
        try:
            etag = await self._caller.store(
                self._store.upload_part,
                self._bucket,
                self._key,
                record.upload_id,
                number,
                body,
            )
        except StoreError as exc:
            if record.parts:
                raise type(exc)(f"{exc}; run the export again to go on with it") from exc
            raise
        self._buffer.clear()
        self._size = 0
        record.parts.append((number, etag))
        record.written += len(body)
        record.offset = self._offset
        await self._caller.disk(record.save, self._folder)


class FileTarget:
    """A file beside the wanted one, renamed at the end."""

    def __init__(self, path: Path, caller: Caller, record: Record, folder: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{record.id}.part")
        self._caller = caller
        self._record = record
        self._folder = folder
        self._file: BinaryIO | None = None
        self._offset = record.offset

    async def open(self) -> None:
        await self._caller.disk(self._open)

    async def add(self, member: bytes, offset: int) -> None:
        await self._caller.disk(self._write, member)
        self._offset = offset
        assert self._file is not None
        if self._file.tell() - self._record.written >= SYNC_EVERY:
            await self._caller.disk(self._sync)

    async def finish(self) -> None:
        await self._caller.disk(self._finish)

    async def discard(self) -> None:
        await self.close()
        await self._caller.disk(self._part.unlink, missing_ok=True)

    async def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk; what is safe was synced
                self._file.close()
            self._file = None

    def _open(self) -> None:
        written = self._record.written
        try:
            self._file = open(self._part, "r+b" if written else "wb", buffering=0)  # noqa: SIM115
            if os.fstat(self._file.fileno()).st_size < written:
                raise FileNotFoundError(2, "it is shorter than it was")
            self._file.truncate(written)
            self._file.seek(written)
        except FileNotFoundError as exc:
            if written:
                raise ArchiveError(f"what was written of {self._path} before is gone") from exc
            raise

    def _write(self, member: bytes) -> None:
        assert self._file is not None
        view = memoryview(member)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as exc:
            raise NoSpace(f"{self._path} cannot be written: {exc.strerror}") from exc

    def _sync(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._record.written = self._file.tell()
        self._record.offset = self._offset
        self._record.save(self._folder)

    def _finish(self) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        self._part.rename(self._path)
        sync(self._path.parent)


class StreamTarget:
    """Standard output: what is gone is gone."""

    def __init__(self, stream: BinaryIO, caller: Caller) -> None:
        self._stream = stream
        self._caller = caller

    async def open(self) -> None: ...

    async def add(self, member: bytes, offset: int) -> None:
        await self._caller.disk(self._stream.write, member)

    async def finish(self) -> None:
        await self._caller.disk(self._stream.flush)

    async def discard(self) -> None: ...

    async def close(self) -> None: ...
