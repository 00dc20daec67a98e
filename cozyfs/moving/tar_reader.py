"""Items from an archive of ours (`cozyfs.moving.archive`), read once from its start to its end."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import IO, TYPE_CHECKING, Any

import trio

from cozyfs.errors import ArchiveError
from cozyfs.moving import archive
from cozyfs.moving.contents import content_of, damage_told, read_exactly
from cozyfs.moving.items import Item, Kind
from cozyfs.moving.source import FORMAT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from _typeshed import WriteableBuffer

    from cozyfs.store.base import Store
    from cozyfs.threads import Caller

LONGEST_DOCUMENT = 64 << 20
"""Bytes: a file may have many extended attributes of 64 KiB."""

FETCH = 8 << 20

_KINDS = {
    "io.cozy.files.versions": Kind.VERSION,
    "cozyfs.entries": Kind.SPECIAL,
    "cozyfs.objects": Kind.OBJECT,
    "io.cozy.apps": Kind.APP,
    "io.cozy.konnectors": Kind.APP,
}


class TarReader:
    """*file* is read in threads of *caller*, one at a time. *name* is for people."""

    certified = True
    """A move of ours vouches for what it brings."""

    def __init__(self, file: IO[bytes], caller: Caller, name: str) -> None:
        self._file = file
        self._caller = caller
        self._name = name
        self._unpacked: gzip.GzipFile
        self._tar: tarfile.TarFile | None = None
        self._ahead: tarfile.TarInfo | None = None
        self._ended = False

    async def items(self) -> AsyncGenerator[Item, None]:
        """Raises ArchiveError, StoreError."""
        item = await self._caller.disk(self._next)
        if item is None or item.kind is not Kind.INSTANCE:
            raise ArchiveError(f"{self._name} is no export of an instance")
        version = item.document.get("format")
        if version != FORMAT:
            raise ArchiveError(
                f"{self._name} has format {version}; this version of cozyfs knows {FORMAT}"
            )
        while item is not None:
            yield item
            item = await self._caller.disk(self._next)

    # ---- inside, in a thread

    def _next(self) -> Item | None:
        with damage_told(self._name):
            if self._tar is None:
                self._unpacked = gzip.GzipFile(fileobj=self._file, mode="rb")
                self._tar = tarfile.open(  # noqa: SIM115 - lives as long as the reader
                    fileobj=self._unpacked, mode="r|", encoding="utf-8", errors="strict"
                )
            member = self._member()
            if member is None:
                raise EOFError
            if member.name == archive.END:
                while self._unpacked.read(FETCH):
                    pass  # the checksum of the last documents comes after them
                return None
            return self._item(member)

    def _member(self) -> tarfile.TarInfo | None:
        assert self._tar is not None
        if self._ahead is not None:
            member, self._ahead = self._ahead, None
            return member
        found = self._tar.next()
        self._tar.members = []  # type: ignore[attr-defined]  # it remembers all it has seen
        if found is not None:
            _check(found)
        return found

    def _item(self, member: tarfile.TarInfo) -> Item:
        name = member.name
        if name == archive.INSTANCE:
            return Item(Kind.INSTANCE, self._document(member))
        folder, _, rest = name.partition("/")
        if not rest.endswith(".json"):
            raise ArchiveError(f"{self._name} has {name!r} where a document should be")
        document = self._document(member)
        kind = _KINDS.get(folder)
        if folder == "io.cozy.files":
            kind = Kind.FILE if document.get("type") == "file" else Kind.DIRECTORY
        if kind is None:
            raise ArchiveError(f"{self._name} has {name!r}, which no export has")
        if kind not in archive.CONTENTS:
            return Item(kind, document, path=str(document.get("path") or document.get("name")))
        # Matched by name: a document whose content is missing must not get the next one's.
        found = self._member()
        if found is None:
            raise EOFError
        if not _belongs(kind, document, found.name):
            self._ahead = found
            return Item(kind, document, path=_label(kind, document))
        path = found.name.partition("/")[2]
        return Item(kind, document, self._content(found), path)

    def _document(self, member: tarfile.TarInfo) -> dict[str, Any]:
        assert self._tar is not None
        if member.size > LONGEST_DOCUMENT:
            raise ArchiveError(f"{self._name} has a document of {member.size} bytes")
        file = self._tar.extractfile(member)
        assert file is not None
        return parse_document(read_exactly(file, member.size, self._name), member.name)

    def _content(self, member: tarfile.TarInfo) -> Any:
        assert self._tar is not None
        file = self._tar.extractfile(member)
        assert file is not None
        return content_of(file, member.size, self._caller, member.name)


def parse_document(data: bytes, name: str) -> dict[str, Any]:
    """Raises ArchiveError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ArchiveError(f"{name} in the archive is no JSON") from exc
    if not isinstance(document, dict):
        raise ArchiveError(f"{name} in the archive is no document")
    return document


def _check(member: tarfile.TarInfo) -> None:
    """Nothing is ever unpacked by its name; but who made such names wants it to be."""
    parts = member.name.split("/")
    if not member.isreg() or member.name.startswith("/") or not {".", ".."}.isdisjoint(parts):
        raise ArchiveError(f"the archive has an entry {member.name[:200]!r}: it is not safe")


def _belongs(kind: Kind, document: dict[str, Any], name: str) -> bool:
    if kind is Kind.FILE:
        return name.startswith("Files/") and name.rpartition("/")[2] == document.get("name")
    return name == f"{archive.CONTENTS[kind]}/{_label(kind, document)}"


def _label(kind: Kind, document: dict[str, Any]) -> str:
    return str(document.get("_id" if kind is Kind.VERSION else "name"))


class StoredArchive(io.RawIOBase):
    """An archive in a bucket as a file to be read, in a thread that trio started."""

    def __init__(self, store: Store, caller: Caller, bucket: str, key: str, size: int) -> None:
        self._store = store
        self._caller = caller
        self._bucket = bucket
        self._key = key
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        stop = min(self._at + len(view), self._size)
        if stop <= self._at:
            return 0
        data = trio.from_thread.run(self._fetch, self._at, stop)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    async def _fetch(self, start: int, stop: int) -> bytes:
        return await self._caller.store(self._store.get, self._bucket, self._key, start, stop)


def stored_archive(store: Store, caller: Caller, bucket: str, key: str, size: int) -> IO[bytes]:
    """Fetched in ranges of :data:`FETCH` bytes, as far as they are read."""
    return io.BufferedReader(StoredArchive(store, caller, bucket, key, size), FETCH)
