"""What the store has under an instance's prefix: one listing, kept in a temporary table.

In a table and not in memory, so that a hundred million objects take disk, not memory; and looked
up by name, so that no server has to list in order of keys. Synchronous, for a worker thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from cozyfs.index import MARKERS
from cozyfs.store.keys import object_name, parse_object_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cozyfs.index import Scan
    from cozyfs.store.base import ObjectInfo
    from cozyfs.vfs.objects import Objects

CONTENT, THUMBNAIL, OWN, AVATAR, UNKNOWN = "content", "thumbnail", "own", "avatar", "unknown"

THUMBNAIL_FORMATS = frozenset({"tiny", "small", "medium", "large"})
"""Made from a file's content, and again when they are missing."""

NOTE_FORMATS = frozenset({"original", "thumb"})
"""Of the images of a note, which are nowhere else."""

BATCH = 1_000

_TABLE = """
    CREATE TEMP TABLE listed (
        name        TEXT NOT NULL PRIMARY KEY,  -- without the prefix of the instance
        kind        TEXT NOT NULL,
        doc_id      TEXT NOT NULL,
        internal_id TEXT NOT NULL,  -- of a content; the format of a thumbnail
        size        INTEGER NOT NULL,
        etag        TEXT NOT NULL,
        modified    REAL  -- seconds since 1970, by the store's clock
    ) WITHOUT ROWID
"""
_INSERT = "INSERT OR REPLACE INTO temp.listed VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Listed:
    """Of a listing as a whole."""

    objects: int
    newest: float  # when the last object was stored, by the store's clock


def fill(scan: Scan, objects: Objects, on_count: Callable[[int], None]) -> Listed:
    """List the prefix into ``temp.listed``; *on_count* is called with how many there are so far.
    Raises StoreError: to be called again, from the start."""
    scan.run("DROP TABLE IF EXISTS temp.listed")
    scan.run(_TABLE)
    scan.define("object_name", object_name)
    prefix = f"{objects.db_prefix}/"
    found = iter(objects.store.list(objects.bucket, prefix))
    count = 0
    while batch := list(islice(found, BATCH)):
        with scan.moment():
            scan.run_many(_INSERT, (_row(info, prefix) for info in batch))
        count += len(batch)
        on_count(count)
    (number, newest) = scan.row("SELECT count(*), max(modified) FROM temp.listed")
    return Listed(number, newest or 0.0)


def _row(info: ObjectInfo, prefix: str) -> tuple[str, str, str, str, int, str, float | None]:
    name = info.key.removeprefix(prefix)
    modified = info.last_modified
    return (
        name,
        *classify(name),
        info.size,
        info.etag,
        None if modified is None else modified.timestamp(),
    )


def classify(name: str) -> tuple[str, str, str]:
    """Kind, document id, and internal id or format, of an object's name."""
    if name == "avatar":
        return AVATAR, "", ""
    if name.startswith(".cozyfs/"):
        return OWN, "", ""
    if name.startswith("thumbs/"):
        return _thumbnail(name.removeprefix("thumbs/"))
    doc_id, internal_id = parse_object_name(name)
    whole = doc_id and internal_id and "/" not in internal_id and internal_id not in MARKERS
    if whole and object_name(doc_id, internal_id) == name:  # else no row leads to this key
        return CONTENT, doc_id, internal_id
    return UNKNOWN, "", ""


def _thumbnail(name: str) -> tuple[str, str, str]:
    """By the rule of thumbnails, which have no internal id: the Cozy server takes them for
    contents, and so misses every document whose id is split."""
    base, dash, kind = name.rpartition("-")
    if dash and kind in THUMBNAIL_FORMATS:
        return THUMBNAIL, _joined(base), kind
    note, slash, image = base.rpartition("/")
    if dash and kind in NOTE_FORMATS and slash and image:
        return THUMBNAIL, _joined(note), kind
    return UNKNOWN, "", ""


def _joined(text: str) -> str:
    """The reverse of `cozyfs.store.keys.thumb_name`."""
    if len(text) == 34 and text[22] == text[28] == "/" and text.count("/") == 2:
        return text.replace("/", "")
    return text


def own_names(scan: Scan) -> Iterator[tuple[str, int, float | None]]:
    """Name, size and date of everything below .cozyfs."""
    yield from scan.rows("SELECT name, size, modified FROM temp.listed WHERE kind = 'own'")
