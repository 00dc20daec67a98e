"""Which source of an app a text on the command line names.

A source is looked through when it is opened: all names, kinds and sizes, and the manifest. So
what is refused is refused before anything is stored. Blocking; for one thread at a time.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from cozyfs.errors import UsageError
from cozyfs.side.apps.contents import Source
from cozyfs.side.apps.download import download
from cozyfs.side.apps.folder import FolderFiles
from cozyfs.side.apps.tar import TarFiles
from cozyfs.store.keys import new_internal_id

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUFFIX_LETTERS = 10


@contextmanager
def open_source(text: str, manifest_name: str) -> Iterator[Source]:
    """What *text* names: a path, or a URL with file, http or https, these with ``#sha256``.
    Raises UsageError for other texts, AppRefused, OSError."""
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme in ("http", "https"):
        with download(text) as (file, location):
            yield _of_tar(file, location, manifest_name)
    elif scheme in ("", "file"):
        path = os.path.abspath(_file_path(text) if scheme else text)
        with _local(path, manifest_name) as source:
            yield source
    else:
        raise UsageError(
            f"an app cannot be installed from {scheme}://; "
            "give a tar file, a folder, or an http or https URL of a tar file"
        )


def _file_path(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UsageError(f"{url}: a file URL is file:///PATH")
    if parts.fragment or parts.query:
        raise UsageError(f"{url}: a file URL has no checksum; '#' and '?' in a path are %23, %3F")
    return unquote(parts.path)


@contextmanager
def _local(path: str, manifest_name: str) -> Iterator[Source]:
    location = "file://" + quote(os.fsencode(path))
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: no such file or folder") from None
    if stat.S_ISDIR(mode):
        folder = FolderFiles(path)
        # As the Cozy server does for folders, which change while an app is developed.
        suffix = "-" + new_internal_id()[:_SUFFIX_LETTERS]
        yield Source(location, folder.manifest(manifest_name), folder, suffix)
    elif stat.S_ISREG(mode):
        with open(path, "rb") as file:
            yield _of_tar(file, location, manifest_name)
    else:
        raise UsageError(f"{path} is neither a file nor a folder")


def _of_tar(file: IO[bytes], location: str, manifest_name: str) -> Source:
    files = TarFiles(file, manifest_name)
    return Source(location, files.manifest, files)
