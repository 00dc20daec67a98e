"""Contents that come out of an archive: small ones whole, large ones as a stream."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from cozyfs.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cozyfs.moving.items import Content
    from cozyfs.threads import Caller

WHOLE = 1 << 20
"""Bytes up to which a content is read with its document, in one call of a thread."""


class BytesContent:
    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    async def read(self, start: int, stop: int) -> bytes:
        return self._data[start:stop]


class StreamContent:
    """Read from its start to its end, once."""

    def __init__(self, file: IO[bytes], size: int, caller: Caller, name: str) -> None:
        self.size = size
        self._file = file
        self._caller = caller
        self._name = name
        self._at = 0

    async def read(self, start: int, stop: int) -> bytes:
        if start != self._at:
            raise ArchiveError(f"{self._name}: its content cannot be read twice")
        data = await self._caller.disk(read_exactly, self._file, stop - start, self._name)
        self._at = stop
        return data


def content_of(file: IO[bytes], size: int, caller: Caller, name: str) -> Content:
    """Blocking. Raises ArchiveError."""
    if size <= WHOLE:
        return BytesContent(read_exactly(file, size, name))
    return StreamContent(file, size, caller, name)


def read_exactly(file: IO[bytes], size: int, name: str) -> bytes:
    """Blocking. Raises ArchiveError."""
    with damage_told(name):
        data = file.read(size)
        if len(data) < size:
            raise EOFError
        return data


@contextmanager
def damage_told(name: str) -> Iterator[None]:
    """What the libraries raise for damaged archives, in our words."""
    try:
        yield
    except (
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        tarfile.TarError,
        zipfile.BadZipFile,
        NotImplementedError,  # a way of compression that zipfile does not know
        RuntimeError,  # an encrypted zip
        UnicodeDecodeError,
    ) as exc:
        raise ArchiveError(f"{name} is damaged or cut short") from exc
