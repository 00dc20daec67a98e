"""Names of files: which are legal, what a copy is called, and the media type a name implies.

The rules are those of the Cozy file system. Pure functions; names are bytes as the kernel gives
them, text (`str`) where people or documents are concerned, `decode` converts.
"""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING

from cozyfs.errors import IllegalName, NameNotUtf8, NameTooLong

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NAME = 255
"""Bytes, NAME_MAX of Linux."""

_FORBIDDEN = b"/\0\n\r"
_MAX_CONFLICTS = 1000

_OCTET_STREAM = "application/octet-stream"
_NOTE = "text/vnd.cozy.note+markdown"
_SHORTCUT = "application/internet-shortcut"

_CLASSES = {
    "files": [_OCTET_STREAM],
    "binary": ["application/x-apple-diskimage", "application/x-msdownload"],
    "code": [
        "text/html",
        "text/css",
        "text/xml",
        "application/js",
        "text/x-c",
        "text/x-go",
        "text/x-python",
        "application/x-ruby",
    ],
    "pdf": ["application/pdf"],
    "slide": [
        "application/vnd.ms-powerpoint",
        "application/x-iwork-keynote-sffkey",
        "application/vnd.oasis.opendocument.presentation",
        "application/vnd.oasis.opendocument.graphics",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ],
    "spreadsheet": [
        "application/vnd.ms-excel",
        "application/x-iwork-numbers-sffnumbers",
        "application/vnd.oasis.opendocument.spreadsheet",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ],
    "text": [
        "application/msword",
        "application/x-iwork-pages-sffpages",
        "application/vnd.oasis.opendocument.text",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ],
    "zip": [
        "application/x-7z-compressed",
        "application/x-rar-compressed",
        "application/zip",
        "application/gzip",
        "application/x-tar",
    ],
    "shortcut": [_SHORTCUT],
}
_CLASS_OF = {mime: name for name, mimes in _CLASSES.items() for mime in mimes}

# The table that comes with Python, without the host's files: the same name has the same type
# on every machine that mounts the instance.
_types = mimetypes.MimeTypes(filenames=())


def check_name(name: bytes) -> None:
    """Raise IllegalName, NameNotUtf8 or NameTooLong for a name no file may get."""
    if len(name) > MAX_NAME:
        raise NameTooLong("a name can have at most 255 bytes")
    if name in (b"", b".", b"..") or any(c in _FORBIDDEN for c in name):
        raise IllegalName("a name cannot be empty, . or .., nor contain /, NUL, CR or LF")
    if not name.isascii():
        decode(name)


def decode(name: bytes) -> str:
    """The text of a name. Raises NameNotUtf8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise NameNotUtf8("a name must be valid UTF-8") from None


def media_type(name: str) -> str:
    """The MIME type that a name implies; `application/octet-stream` when it implies none."""
    if name.endswith(".cozy-note"):
        return _NOTE
    if name.endswith(".url"):
        return _SHORTCUT
    dot = name.rfind(".")
    if dot < 0:
        return _OCTET_STREAM
    extension = name[dot:]
    for table in _types.types_map[True], _types.types_map[False]:
        found = table.get(extension) or table.get(extension.lower())
        if found:
            return found
    return {".gz": "application/gzip"}.get(extension.lower(), _OCTET_STREAM)


def media_class(mime: str) -> str:
    """The Cozy class of a MIME type: what it says before the slash, but for the listed ones."""
    return _CLASS_OF.get(mime) or mime.split("/", 1)[0]


def conflict_name(name: str, is_file: bool, taken: Callable[[str], bool]) -> str:
    """A free name like *name* with `` (2)``, `` (3)``, ... before its extension; the last one
    tried when all are *taken*."""
    base, extension = split_extension(name) if is_file else (name, "")
    number = 2
    if base.endswith(")") and (at := base.rfind(" (")) > 0:
        digits = base[at + 2 : -1]
        if _is_integer(digits):
            base, number = base[:at], int(digits) + 1
    for candidate in (f"{base} ({number + i}){extension}" for i in range(_MAX_CONFLICTS)):
        if not taken(candidate):
            return candidate
    return candidate


def copy_name(name: str, is_file: bool = True) -> str:
    """What a copy beside *name* is called before conflicts are looked at."""
    base, extension = split_extension(name) if is_file else (name, "")
    return f"{base} (copy){extension}"


def split_extension(name: str) -> tuple[str, str]:
    """``(base, extension)`` at the last dot, also when it is the first character."""
    dot = name.rfind(".")
    return (name, "") if dot < 0 else (name[:dot], name[dot:])


def _is_integer(text: str) -> bool:
    digits = text[1:] if text[:1] in "+-" else text
    return digits.isascii() and digits.isdigit()
