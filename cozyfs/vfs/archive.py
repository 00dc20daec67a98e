"""Zip archives of files and directories, made while they are sent.

What holds any amount of content in bounded memory: a chunk of one file at a time, and a line per
entry for the directory at the archive's end. Compression runs in threads. HTTP is not known
here, but for the header that names a download.
"""

from __future__ import annotations

import contextlib
import io
import stat
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from cozyfs.errors import NotFound
from cozyfs.vfs.documents import Documents
from cozyfs.vfs.names import check_name, conflict_name, media_class, media_type
from cozyfs.vfs.paths import clean, split

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence

    from _typeshed import ReadableBuffer

    from cozyfs.values import Inode
    from cozyfs.vfs.paths import Paths

CONTENT_TYPE = "application/zip"

_COMPRESSED = frozenset({"image", "video", "audio", "zip"})
"""Classes of files that deflate would only make slower."""

_FIRST_YEAR, _LAST_YEAR = 1980, 2107  # what the format can date

# RFC 9110's tokens without what RFC 6266, appendix D, warns of.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&+-.^_`|~")


class Entry(NamedTuple):
    """One line of an archive; directories end in ``/``."""

    name: str
    inode: Inode


async def archive(
    paths: Paths, name: str, *, ids: Sequence[str] = (), files: Sequence[str] = ()
) -> AsyncGenerator[bytes, None]:
    """The bytes of a zip file with the folder *name*: the documents *ids*, then the paths
    *files*, directories with all that is in them.

    Symbolic links are kept as such; devices, fifos and sockets are left out. What vanishes on
    the way is left out as well; a file that grows is cut at the size it had, one whose content
    cannot be read ends the archive with the error. Raises NotFound before the first byte when
    one of those asked for is not there.
    """
    check_name(name.encode())
    entries = _entries(paths, name, _roots(paths, ids, files))
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as target:
        for entry in entries:
            # Closed inside out when nobody wants the rest: first the entry, then the archive.
            async with contextlib.aclosing(_add(paths, target, sink, entry)) as chunks:
                async for chunk in chunks:
                    yield chunk
    yield sink.take()


def archive_headers(name: str) -> dict[str, str]:
    """What a download of the archive *name* says of itself."""
    return {
        "Content-Type": CONTENT_TYPE,
        "Content-Disposition": content_disposition("attachment", f"{name}.zip"),
    }


def content_disposition(disposition: str, name: str) -> str:
    """The header for a file *name*; *disposition* is ``inline`` or ``attachment``. Clients that
    do not know ``filename*`` (RFC 6266) get what is left of the name in plain ASCII."""
    plain = "".join(char for char in name if char in _PLAIN)
    header = f'{disposition}; filename="{plain or "download"}"'
    if plain != name:
        header += f"; filename*=UTF-8''{quote(name, safe='!#$&+^`|')}"
    return header


class _Sink(io.RawIOBase):
    """What `zipfile` writes to: it cannot seek, and the bytes are taken out again."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _roots(paths: Paths, ids: Iterable[str], files: Iterable[str]) -> list[tuple[str, str]]:
    """``(name in the archive, path)`` of what was asked for: each once, under names that
    differ. Raises NotFound."""
    ids = list(ids)
    found = Documents(paths.fs).find(ids)
    for doc_id in ids:
        if doc_id not in found:
            raise NotFound(f"there is no document {doc_id}")
    wanted = [paths.path_of(found[doc_id]) for doc_id in ids] + [clean(path) for path in files]
    roots: list[tuple[str, str]] = []
    used: set[str] = set()
    for path in dict.fromkeys(wanted):
        name = split(path)[1]
        if name in used:
            is_file = not stat.S_ISDIR(paths.resolve(path).mode)
            name = conflict_name(name, is_file, used.__contains__)
        paths.resolve(path)
        used.add(name)
        roots.append((name, path))
    return roots


def _entries(paths: Paths, name: str, roots: Iterable[tuple[str, str]]) -> Iterator[Entry]:
    for root, path in roots:
        with contextlib.suppress(NotFound):  # removed since it was asked for
            for step in paths.walk(path):
                below = f"{root}{step.path[len(path.rstrip('/')) :]}".strip("/")
                if stat.S_ISDIR(step.inode.mode):
                    yield Entry(f"{name}/{below}/" if below else f"{name}/", step.inode)
                elif stat.S_ISREG(step.inode.mode) or stat.S_ISLNK(step.inode.mode):
                    yield Entry(f"{name}/{below}", step.inode)


async def _add(
    paths: Paths, target: zipfile.ZipFile, sink: _Sink, entry: Entry
) -> AsyncGenerator[bytes, None]:
    inode, info = entry.inode, _info(entry)
    if stat.S_ISDIR(inode.mode):
        target.writestr(info, b"")
    elif inode.target is not None:
        target.writestr(info, inode.target)
    else:
        disk = paths.fs.objects.caller.disk
        left = inode.size
        # Opened before the entry is begun: a file that has vanished must not leave half of one.
        async with contextlib.aclosing(paths.stream(inode.ino)) as stream:
            try:
                chunk = await anext(stream, b"")
            except NotFound:
                return
            with target.open(info, "w") as writer:
                while chunk and left:
                    await disk(writer.write, chunk[:left])
                    left -= min(left, len(chunk))
                    if taken := sink.take():
                        yield taken
                    chunk = await anext(stream, b"")
    if taken := sink.take():
        yield taken


def _info(entry: Entry) -> zipfile.ZipInfo:
    inode = entry.inode
    info = zipfile.ZipInfo(entry.name, _date(inode.mtime_ns))
    info.create_system = 3  # Unix: the upper half of external_attr is st_mode
    info.external_attr = inode.mode << 16
    if stat.S_ISDIR(inode.mode):
        info.external_attr |= 0x10  # MS-DOS: a directory
    elif inode.target is None:
        info.file_size = inode.size  # from 2 GiB on in the format's 64-bit form
        if media_class(media_type(entry.name)) not in _COMPRESSED:
            info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _date(time_ns: int) -> tuple[int, int, int, int, int, int]:
    """As the format has it: without a zone, here always UTC."""
    try:
        at = datetime.fromtimestamp(time_ns // 10**9, UTC)
    except (OverflowError, ValueError, OSError):
        return (_FIRST_YEAR, 1, 1, 0, 0, 0)
    if not _FIRST_YEAR <= at.year <= _LAST_YEAR:
        return (_FIRST_YEAR, 1, 1, 0, 0, 0)
    return (at.year, at.month, at.day, at.hour, at.minute, at.second)
