"""An app in a tar file, plain or gzipped: looked through first, then read in order.

`tarfile` parses; what it would hold in memory on the word of a header, or read without end, is
bounded below it.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from cozyfs.errors import AppRefused
from cozyfs.side.apps.contents import (
    MAX_MANIFEST,
    MAX_UNPACKED,
    SourceFile,
    check_amount,
    check_manifest_size,
    check_no_file_is_a_folder,
)
from cozyfs.side.apps.encoding import PIECE_SIZE
from cozyfs.side.apps.layout import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_GZIP = b"\x1f\x8b"

_MAX_READ = 4 << 20
"""Bytes that a header can make `tarfile` read at once: a long name is less."""

_END = bytes(tarfile.BLOCKSIZE)


class TarFiles:
    """The files of a tar, without the folder that the manifest is in (``package/`` in what npm
    packs). Of entries with the same name the last counts, as for tar(1)."""

    def __init__(self, file: IO[bytes], manifest_name: str) -> None:
        """*file* stays the caller's, and open. Raises AppRefused."""
        self._file = file
        self.sizes: dict[str, int] = {}
        self._numbers: dict[str, int] = {}  # which entry of the tar a name is
        found = self._look_through(manifest_name)
        self.manifest, self._prefix = found
        self._name_files()
        check_no_file_is_a_folder(self.sizes)

    def _look_through(self, manifest_name: str) -> tuple[bytes, str]:
        """The manifest and the folder it is in: the highest one, of several the first."""
        self._entries: list[tuple[str, int]] = []
        best: tuple[int, bytes, str] | None = None
        total = 0
        with self._opened() as tar:
            for entry in _entries(tar):
                name = check_name(entry.name)
                total += entry.size
                self._entries.append((name, entry.size))
                check_amount(len(self._entries), total)
                above, _, last = name.rpartition("/")
                depth = name.count("/")
                if last == manifest_name and (best is None or depth < best[0]):
                    check_manifest_size(manifest_name, entry.size)
                    best = (depth, _reader(tar, entry).read(MAX_MANIFEST), above)
        if best is None:
            raise AppRefused(f"there is no {manifest_name} in the archive")
        return best[1], f"{best[2]}/" if best[2] else ""

    def _name_files(self) -> None:
        for number, (name, size) in enumerate(self._entries):
            name = name.removeprefix(self._prefix)
            self.sizes[name] = size
            self._numbers[name] = number

    def read(self) -> Iterator[SourceFile]:
        with self._opened() as tar:
            for number, entry in enumerate(_entries(tar)):
                name = check_name(entry.name).removeprefix(self._prefix)
                if self._numbers[name] == number:
                    yield SourceFile(name, entry.size, _reader(tar, entry))

    @contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        self._file.seek(0)
        zipped = self._file.read(len(_GZIP)) == _GZIP
        self._file.seek(0)
        raw = gzip.GzipFile(fileobj=self._file) if zipped else self._file
        with (
            _refusing_damage(),
            tarfile.open(fileobj=cast("IO[bytes]", _Bounded(raw)), mode="r:") as tar,
        ):
            yield tar


def _entries(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files; AppRefused for all others but folders, and for a tar without its end."""
    while (entry := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # it would keep them all
        if entry.size < 0:
            raise AppRefused("the archive is damaged: a file in it has a negative size")
        if entry.isreg():
            yield entry
        elif not entry.isdir():
            kind = "a link" if entry.issym() or entry.islnk() else "neither a file nor a folder"
            raise AppRefused(f"{entry.name!a} is {kind}, which an app cannot have")
    file = cast("IO[bytes]", tar.fileobj)
    file.seek(tar.offset)
    if file.read(len(_END)) != _END:
        raise AppRefused("the archive is cut off, or damaged")
    while file.read(PIECE_SIZE):  # gzip has its checksum at the end
        pass


@contextmanager
def _refusing_damage() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as exc:
        raise AppRefused(f"the archive is not a good tar file: {exc}") from exc
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise AppRefused(f"the archive is not a good gzip file: {exc}") from exc


def _reader(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    reader = tar.extractfile(entry)
    assert reader is not None  # it is regular
    return cast("IO[bytes]", _Reader(reader))


class _Reader(io.RawIOBase):
    """One file of an archive. What is damaged may show only here."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with _refusing_damage():
            return self._file.read(size)


class _Bounded(io.RawIOBase):
    """What tarfile reads from, and no further than an app may be large."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        # The headers of 20,000 files take 40 MB; half a GiB is for padding and long names.
        self._limit = MAX_UNPACKED + (1 << 29)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > self._limit:
            raise AppRefused(f"the app is too large: more than {MAX_UNPACKED >> 30} GiB")
        return self._file.seek(offset)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise AppRefused("the archive is damaged: it has a header of absurd size")
        data = self._file.read(size)
        if self._file.tell() > self._limit:
            raise AppRefused(f"the app is too large: more than {MAX_UNPACKED >> 30} GiB")
        return data
