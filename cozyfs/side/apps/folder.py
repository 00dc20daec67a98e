"""An app in a folder of this machine. Links are refused, not followed."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

from cozyfs.errors import AppRefused
from cozyfs.side.apps.contents import (
    MAX_MANIFEST,
    SourceFile,
    check_amount,
    check_manifest_size,
)
from cozyfs.side.apps.layout import check_name
from cozyfs.store.keys import MAX_KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator


class FolderFiles:
    """All files below a folder."""

    def __init__(self, path: str) -> None:
        """Raises AppRefused, OSError."""
        self._path = path
        self.sizes: dict[str, int] = {}
        total = 0
        for name, size in _walk(path, ""):
            total += size
            self.sizes[check_name(name)] = size
            check_amount(len(self.sizes), total)

    def manifest(self, name: str) -> bytes:
        if name not in self.sizes:
            raise AppRefused(f"there is no {name} at the top of the folder")
        check_manifest_size(name, self.sizes[name])
        with self._open(name) as reader:
            return reader.read(MAX_MANIFEST)

    def read(self) -> Iterator[SourceFile]:
        for name, size in self.sizes.items():
            with self._open(name) as reader:
                yield SourceFile(name, size, reader)

    def _open(self, name: str) -> IO[bytes]:
        """Not through a link that has taken the place of the file."""
        path = os.path.join(self._path, name)
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")


def _walk(folder: str, below: str) -> Iterator[tuple[str, int]]:
    """(name, bytes), sorted."""
    if len(below) > MAX_KEY_BYTES:
        raise AppRefused("the folders of the app are too deep")
    with os.scandir(os.path.join(folder, below)) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = f"{below}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder, f"{name}/")
        elif entry.is_file(follow_symlinks=False):
            yield name, entry.stat(follow_symlinks=False).st_size
        else:
            kind = "a link" if entry.is_symlink() else "neither a file nor a folder"
            raise AppRefused(f"{name!a} is {kind}, which an app cannot have")
