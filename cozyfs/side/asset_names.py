"""Names, keys and types of dynamic assets: the Cozy server's formulas. Pure functions.

A name is made absolute and clean before anything else is done with it, when an asset is read or
removed as much as when it is added: the Cozy server does so for adding alone, and so ``../`` of
a request reaches the assets of another context.
"""

from __future__ import annotations

import mimetypes
import posixpath
import unicodedata

from cozyfs.errors import UsageError

SUM_LENGTH = 10
"""Characters of the SHA-256 that stand in ETags and in names."""

_OCTET_STREAM = "application/octet-stream"

# Without the host's files: the same name has the same type everywhere.
_types = mimetypes.MimeTypes(filenames=())

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"wOF2", "font/woff2"),
    (b"wOFF", "font/woff"),
    (b"%PDF-", "application/pdf"),
    (b"\x1f\x8b\x08", "application/gzip"),
)


def check_context(context: str) -> str:
    """*context* itself; UsageError for what cannot be one."""
    if not context:
        raise UsageError("the context of an asset cannot be empty")
    if "/" in context or context in (".", "..") or _has_control(context):
        raise UsageError(f"{context!r} cannot be a context")
    return context


def normalised(name: str) -> str:
    """*name* as it is kept: ``foo`` is ``/foo``, ``/../x`` is ``/x``. UsageError for none."""
    clean = posixpath.normpath("/" + name.lstrip("/"))
    if clean == "/":
        raise UsageError("the name of an asset cannot be empty")
    if _has_control(clean):
        raise UsageError("the name of an asset cannot contain control characters")
    return clean


def _has_control(text: str) -> bool:
    return any(unicodedata.category(char) in ("Cc", "Cs") for char in text)


def asset_key(context: str, name: str) -> str:
    return f"{check_context(context)}{normalised(name)}"


def parse_asset_key(key: str) -> tuple[str, str] | None:
    """(context, name), or None for an object that is no asset."""
    context, slash, rest = key.partition("/")
    return (context, f"/{rest}") if slash and context and rest else None


def name_with_sum(name: str, shasum: str) -> str:
    """The sum stands before the first dot: ``/a/b.tar.gz`` is ``/a/b.<sum>.tar.gz``. A name
    without a dot stays."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extensions = base.partition(".")
    if not dot:
        return name
    return f"{folder}{slash}{stem}.{shasum[:SUM_LENGTH]}.{extensions}"


def media_type(name: str, data: bytes) -> str:
    """What the extension says, else what the content looks like."""
    extension = posixpath.splitext(name)[1].lower()
    found = _types.types_map[True].get(extension) or _types.types_map[False].get(extension)
    return found or _sniffed(data)


def _sniffed(data: bytes) -> str:
    for magic, mime in _MAGIC:
        if data.startswith(magic):
            return mime
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    start = data[:512]
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in start):
        return _OCTET_STREAM
    if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "text/html; charset=utf-8"
    try:
        # A character that the cut has split is no error.
        start.decode(errors="strict" if len(data) <= 512 else "ignore")
    except UnicodeDecodeError:
        return _OCTET_STREAM
    return "text/plain; charset=utf-8"
