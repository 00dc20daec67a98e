"""Small pictures of files, made by a child process with limits: `cozyfs.side.draw`.

The file is copied to a temporary file first, so that the child can seek in it and holds no more
of it in memory than a decoder needs. One child runs at a time. A file that crashes its decoder,
takes all memory or never ends costs its child, and gives NoPicture.

Async: to be called in the event loop of a mount or of a command. Whoever is cancelled ends the
child at once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

import trio

from cozyfs.errors import NoPicture, NoSpace, SideError, TooLarge, WrongContent
from cozyfs.side import draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cozyfs.side.draw import Target
    from cozyfs.threads import Caller

log = logging.getLogger(__name__)

Source = Callable[[], AsyncGenerator[bytes, None]]
"""Gives the content of a file in pieces, from its start; called once for each attempt."""

Kind = Literal["image", "pdf"]

_IMAGES = frozenset(
    f"image/{subtype}"
    for subtype in (
        *("avif", "bmp", "x-ms-bmp", "gif", "jpeg", "jpg", "pjpeg", "jp2", "jpx", "png", "apng"),
        *("tiff", "webp", "x-icon", "vnd.microsoft.icon", "vnd.adobe.photoshop", "x-tga"),
        *("x-portable-anymap", "x-portable-bitmap", "x-portable-graymap", "x-portable-pixmap"),
        *("x-pcx", "vnd.zbrush.pcx", "sgi", "x-sgi", "x-rgb"),
    )
)
_PHOTOSHOP = "image/vnd.adobe.photoshop"

SIZE_LIMIT = 100 << 20
PHOTOSHOP_SIZE_LIMIT = 5 << 20
"""Bytes; a file of this size gets no picture, as on the Cozy server."""

_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
"""No more than Python needs: the mount's own has credentials."""


_DISK_FULL = "the disk for temporary files is full"


@dataclass(frozen=True, slots=True)
class Limits:
    """For one child. *cpu_s* is that of the Cozy server, which counts by the clock: here the child
    runs with a low priority, and that the machine has other work is not the file's fault."""

    memory: int = 1536 << 20  # bytes of addresses
    pixels: int = 100_000_000  # after a JPEG was scaled down while it was decoded
    cpu_s: int = 30
    patience_s: int = 300  # by the clock
    output: int = 32 << 20  # bytes of all pictures


def kind_of(mime: str, size: int) -> Kind | None:
    """How pictures are made of a file of this type and size in bytes; None: not at all."""
    mime = mime.partition(";")[0].strip().lower()
    limit = PHOTOSHOP_SIZE_LIMIT if mime == _PHOTOSHOP else SIZE_LIMIT
    if not 0 < size < limit:
        return None
    if mime == "application/pdf":
        return "pdf"
    return "image" if mime in _IMAGES else None


class Renderer:
    """Makes pictures. *folder* is where the temporary copies are; default: that of the system,
    which may be memory."""

    def __init__(
        self, caller: Caller, folder: Path | None = None, limits: Limits | None = None
    ) -> None:
        self._caller = caller
        self._folder = folder
        self._limits = limits or Limits()
        self._turn = trio.CapacityLimiter(1)

    async def draw(
        self, kind: Kind, source: Source, targets: Sequence[Target], *, md5: bytes | None = None
    ) -> dict[str, bytes]:
        """A JPEG for each of *targets*, by their names; each is made from the one before. None
        at all of an image that fits into the first as it is, if that is not made ``always``.

        Raises NoPicture when none can be made of this content, ever; WrongContent when it has
        not the given *md5*; TooLarge; NoSpace; SideError when this machine is at fault; and what
        *source* raises.
        """
        async with self._turn:
            with (
                _unnamed_file(self._folder) as staged,
                _unnamed_file(self._folder) as output,
                _unnamed_file(self._folder) as complaints,
            ):
                await self._stage(source, staged, md5)
                try:
                    await self._run(kind, staged, output, complaints, targets)
                finally:
                    _log_end_of(complaints)
                answer = await self._caller.disk(_read_all, output, self._limits.output)
        return _pictures(answer, targets)

    async def _stage(self, source: Source, staged: IO[bytes], md5: bytes | None) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        size = 0
        async with contextlib.aclosing(source()) as pieces:
            async for piece in pieces:
                size += len(piece)
                if size >= SIZE_LIMIT:
                    raise TooLarge("the file is too large for a picture of it")
                digest.update(piece)
                await self._caller.disk(_write, staged, piece)
        if md5 is not None and digest.digest() != md5:
            raise WrongContent("the file changed while a picture of it was to be made")
        await self._caller.disk(staged.seek, 0)

    async def _run(
        self,
        kind: Kind,
        staged: IO[bytes],
        output: IO[bytes],
        complaints: IO[bytes],
        targets: Sequence[Target],
    ) -> None:
        limits = self._limits
        request = {
            "kind": kind,
            "targets": targets,
            "pixels": limits.pixels,
            "memory": limits.memory,
            "cpu": limits.cpu_s,
            "patience": limits.patience_s,
            "output": limits.output,
        }
        with trio.move_on_after(limits.patience_s) as scope:
            done = await trio.run_process(
                # By its path, and without that path's folder among those of modules.
                [sys.executable, "-P", os.fspath(draw.__file__), json.dumps(request)],
                stdin=staged.fileno(),
                stdout=output.fileno(),
                stderr=complaints.fileno(),
                env=_environment(os.environ),
                check=False,
                deliver_cancel=_kill,
            )
        if scope.cancelled_caught:
            raise SideError(
                f"a picture of the file was not made in {limits.patience_s} s: the machine is busy"
            )
        if done.returncode == draw.DISK_FULL:
            raise NoSpace(_DISK_FULL)
        if done.returncode > 0 or done.returncode == -signal.SIGKILL:
            # Python or a library is missing, or the machine has no memory left.
            log.warning("the program that makes pictures ended with %d", done.returncode)
            raise SideError("the program that makes pictures does not work on this machine now")
        if done.returncode != 0:
            log.debug("the program that makes pictures was ended by %d", -done.returncode)
            raise NoPicture("the file ended the program that was to make a picture of it")


async def _kill(process: trio.Process) -> None:
    process.kill()


def _environment(whole: Mapping[str, str]) -> dict[str, str]:
    kept = {name: whole[name] for name in _KEPT_ENVIRONMENT if name in whole}
    # Decoders start a thread for each CPU, and each would take 64 MiB of addresses for its heap.
    return kept | {"MALLOC_ARENA_MAX": "1"}


@contextlib.contextmanager
def _unnamed_file(folder: Path | None) -> Iterator[IO[bytes]]:
    """Gone with its last descriptor, whatever happens to this process."""
    with _full_disk_named(), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        yield file


@contextlib.contextmanager
def _full_disk_named() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(_DISK_FULL) from exc
        raise


def _write(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read_all(file: IO[bytes], limit: int) -> bytes:
    file.seek(0)
    return file.read(limit + 1)


def _log_end_of(complaints: IO[bytes]) -> None:
    if log.isEnabledFor(logging.DEBUG) and (size := complaints.seek(0, os.SEEK_END)):
        complaints.seek(max(0, size - 1000))
        log.debug("the process that draws said: %s", complaints.read().decode(errors="replace"))


def _pictures(answer: bytes, targets: Sequence[Target]) -> dict[str, bytes]:
    """What the child said; nothing in it is trusted."""
    line, _, rest = answer.partition(b"\n")
    try:
        header = json.loads(line)
        if (refused := header.get("refused")) is not None:
            raise NoPicture(_REASONS.get(refused, _REASONS["unreadable"]))
        sizes = [int(size) for size in header["sizes"]]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise NoPicture(_REASONS["unreadable"]) from exc
    if not sizes and not rest and not targets[0].always:
        return {}
    if len(sizes) != len(targets) or sum(sizes) != len(rest) or min(sizes) <= 0:
        raise NoPicture(_REASONS["unreadable"])
    pictures = {}
    for target, size in zip(targets, sizes, strict=True):
        pictures[target.name], rest = rest[:size], rest[size:]
    return pictures


_REASONS = {
    "unreadable": "the file is damaged, or no image of a known format",
    "pixels": "the image has too many pixels",
    "memory": "the image, or a picture of it, takes too much memory",
}
