"""What every source of an app gives, and the limits on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from cozyfs.errors import AppRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_MANIFEST = 2 << 20
"""Bytes, as on the Cozy server."""

MAX_UNPACKED = 4 << 30
"""Bytes of all files of an app; each is one PUT, which takes 5 GiB."""

MAX_FILES = 20_000


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file; *reader* is good until the next file is asked for."""

    name: str
    size: int  # bytes
    reader: IO[bytes]


class Files(Protocol):
    """The files of a source, by names that were checked."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes by name."""

    def read(self) -> Iterator[SourceFile]:
        """Each file of ``sizes``, once. Raises AppRefused for what changed meanwhile, OSError."""


@dataclass(frozen=True, slots=True)
class Source:
    """An app that may be installed."""

    location: str  # as it is remembered: a URL without credentials
    manifest: bytes
    files: Files
    version_suffix: str = ""  # makes each install from a folder a version of its own


def check_manifest_size(name: str, size: int) -> None:
    if size > MAX_MANIFEST:
        raise AppRefused(f"{name} is too large: more than {MAX_MANIFEST >> 20} MiB")


def check_amount(count: int, size: int) -> None:
    """*count* files of together *size* bytes."""
    if count > MAX_FILES:
        raise AppRefused(f"the app has too many files: more than {MAX_FILES}")
    if size > MAX_UNPACKED:
        raise AppRefused(f"the app is too large: more than {MAX_UNPACKED >> 30} GiB")


def check_no_file_is_a_folder(names: Mapping[str, int]) -> None:
    for name in names:
        above = name
        while above := above.rpartition("/")[0]:
            if above in names:
                raise AppRefused(f"{above} is both a file and a folder of the app")
