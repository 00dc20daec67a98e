"""The names of apps: kinds, slugs, versions, and the keys of their objects. Pure functions.

Names of files are refused here, for all who write; who reads gets "not found" for the same.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from dataclasses import dataclass

from cozyfs.errors import AppRefused, UsageError
from cozyfs.store.keys import MAX_KEY_BYTES

MARKER_SUFFIX = ".cozy-installed"
TARBALL_SUFFIX = ".tgz"

_SLUG = re.compile(r"[a-z0-9-]+")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]*")
_SHASUM = re.compile(r"[0-9A-Za-z]*")
_MAX_WORD = 128
_MAX_PART = 255  # bytes: what a local store, and a mount, can have as the name of a file


@dataclass(frozen=True, slots=True)
class Kind:
    """Webapps or konnectors: what differs between the two."""

    name: str  # of the commands, and of the folder of documents
    noun: str  # in messages
    doctype: str
    bucket: str  # one of cozyfs.store.buckets.SIDE_BUCKETS
    manifest: str  # the file at the top of every version


WEBAPPS = Kind("apps", "app", "io.cozy.apps", "apps-web", "manifest.webapp")
KONNECTORS = Kind(
    "konnectors", "konnector", "io.cozy.konnectors", "apps-konnectors", "manifest.konnector"
)
KINDS = (WEBAPPS, KONNECTORS)


def check_slug(slug: str) -> str:
    """*slug* itself; UsageError for others than ``[a-z0-9-]+``."""
    if not _SLUG.fullmatch(slug) or len(slug) > _MAX_WORD:
        raise UsageError(
            f"{slug!r} is not the slug of an app: only a-z, 0-9 and '-', at most {_MAX_WORD}"
        )
    return slug


def check_version(version: str) -> str:
    """*version* itself; AppRefused for what cannot stand between the slashes of a key, or would
    be mistaken for the marker or the tarball of another."""
    if (
        not _VERSION.fullmatch(version)
        or len(version) > _MAX_WORD
        or version.endswith((MARKER_SUFFIX, TARBALL_SUFFIX))
    ):
        raise AppRefused(f"{version!r} cannot be the version of an app")
    return version


def folder(version: str, shasum: str = "") -> str:
    """A version as it stands in keys: ``<version>[-<shasum>]``. Raises AppRefused."""
    if not _SHASUM.fullmatch(shasum) or len(shasum) > _MAX_WORD:
        raise AppRefused(f"{shasum!r} cannot be the checksum of an app")
    return check_version(f"{version}-{shasum}" if shasum else version)


def base(slug: str, folder: str) -> str:
    return f"{check_slug(slug)}/{check_version(folder)}"


def marker_key(slug: str, folder: str) -> str:
    return base(slug, folder) + MARKER_SUFFIX


def tarball_key(slug: str, folder: str) -> str:
    return base(slug, folder) + TARBALL_SUFFIX


def file_key(slug: str, folder: str, name: str) -> str:
    """The key of the file *name*. Raises AppRefused, as :func:`check_name`."""
    key = f"{base(slug, folder)}/{check_name(name)}"
    if len(key.encode()) > MAX_KEY_BYTES:
        raise AppRefused(f"{_shown(name)}: the name of the file is too long")
    return key


def check_name(name: str) -> str:
    """*name* in its shortest form (``./a//b`` is ``a/b``). AppRefused for what would lead out of
    the app's folder, or cannot be the path of a file in every store."""
    if name.startswith("/"):
        raise AppRefused(f"{_shown(name)}: the name of a file is absolute")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise AppRefused(f"{_shown(name)}: the name of a file leads out of the app")
    if not parts:
        raise AppRefused("the name of a file is empty")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        raise AppRefused(
            f"{_shown(name)}: the name of a file has a control character or is not UTF-8"
        )
    if max(len(part.encode()) for part in parts) > _MAX_PART:
        raise AppRefused(f"{_shown(name)}: the name of the file is too long")
    return posixpath.join(*parts)


def _shown(name: str) -> str:
    text = name if len(name) <= 80 else name[:77] + "..."
    return text if text.isprintable() else ascii(text)
