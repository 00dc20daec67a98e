"""Bodies of a known size to send: from memory, from files, or from pieces of both.

Each can be read again from its start for another attempt, and none holds more than a block in
memory beside what it was given. A body may be read by several threads at once: every reader
has its own position, files are read with ``pread``.
"""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cozyfs.store.base import Body

CHUNK_SIZE = 1 << 20
"""Bytes of one piece given by ``chunks``."""


class _Reader(io.RawIOBase):
    """What ``open`` returns: :meth:`read` never gives more than asked, and b"" only at the end."""

    def readable(self) -> bool:
        return True


class _MemoryReader(_Reader):
    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        stop = len(self._view) if size < 0 else self._at + size
        data = bytes(self._view[self._at : stop])
        self._at += len(data)
        return data


class BytesBody:
    """Bytes in memory; not copied as long as ``chunks`` is used."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")
        self.size = len(self._view)

    def open(self) -> BinaryIO:
        return _MemoryReader(self._view)  # type: ignore[return-value]  # read and close suffice

    def chunks(self) -> Iterator[bytes | memoryview]:
        for start in range(0, self.size, CHUNK_SIZE):
            yield self._view[start : start + CHUNK_SIZE]


class _FileReader(_Reader):
    def __init__(self, fd: int, start: int, size: int, *, owned: bool) -> None:
        self._fd = fd
        self._at = start
        self._stop = start + size
        self._owned = owned

    def read(self, size: int = -1, /) -> bytes:
        left = self._stop - self._at
        data = os.pread(self._fd, left if size < 0 else min(size, left), self._at)
        self._at += len(data)
        return data

    def close(self) -> None:
        if self._owned and not self.closed:
            os.close(self._fd)
        super().close()


class FileBody:
    """*size* bytes of a file from *start*; the file is named by a path, or by a descriptor that
    stays open, and the caller's, for as long as the body is used. A file that turns out shorter
    ends the reader early; stores notice and refuse to send it."""

    def __init__(
        self, file: str | bytes | os.PathLike[str] | int, start: int = 0, size: int | None = None
    ) -> None:
        self._file = file
        self.start = start
        self.size = max(0, os.stat(file).st_size - start) if size is None else size

    def open(self) -> BinaryIO:
        if isinstance(self._file, int):
            reader = _FileReader(self._file, self.start, self.size, owned=False)
        else:
            fd = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
            reader = _FileReader(fd, self.start, self.size, owned=True)
        return reader  # type: ignore[return-value]  # read and close suffice

    def chunks(self) -> Iterator[bytes | memoryview]:
        return _chunks_of(self)


class _PiecesReader(_Reader):
    def __init__(self, pieces: Sequence[Body]) -> None:
        self._pieces = iter(pieces)
        self._current: BinaryIO | None = None

    def read(self, size: int = -1, /) -> bytes:
        """Gathers small pieces, so that many short extents do not become many short sends."""
        got: list[bytes] = []
        left = size
        while size < 0 or left > 0:
            if self._current is None:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._current = piece.open()
            data = self._current.read(left if size >= 0 else -1)
            if data:
                got.append(data)
                left -= len(data)
            else:
                self._current.close()
                self._current = None
        return got[0] if len(got) == 1 else b"".join(got)

    def close(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None
        super().close()


class PiecesBody:
    """Pieces of memory and of files, one after the other."""

    def __init__(self, pieces: Sequence[bytes | bytearray | memoryview | Body]) -> None:
        self._pieces = [
            BytesBody(piece) if isinstance(piece, bytes | bytearray | memoryview) else piece
            for piece in pieces
        ]
        self.size = sum(piece.size for piece in self._pieces)

    def open(self) -> BinaryIO:
        return _PiecesReader(self._pieces)  # type: ignore[return-value]  # read and close suffice

    def chunks(self) -> Iterator[bytes | memoryview]:
        for piece in self._pieces:
            yield from piece.chunks()


def _chunks_of(body: Body) -> Iterator[bytes | memoryview]:
    reader = body.open()
    try:
        while chunk := reader.read(CHUNK_SIZE):
            yield chunk
    finally:
        reader.close()


def md5_of(body: Body | bytes) -> bytes:
    """The 16 raw bytes of the MD5 of all of *body*."""
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(body, bytes):
        digest.update(body)
    else:
        for chunk in body.chunks():
            digest.update(chunk)
    return digest.digest()
