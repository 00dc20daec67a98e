"""Whether tree and store agree: each content has its object, each object a content.

Synchronous generators over the listing (`cozyfs.vfs.fsck_listing`) and the rows of the index,
which are read after it. What they give are candidates only, since both go on changing: the caller
looks at the tree and the store again (:meth:`Candidate.confirm`) before anybody is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from cozyfs.errors import NotFound, ObjectNotFound
from cozyfs.index import Deletion, Version
from cozyfs.journal import rollforward
from cozyfs.store.keys import object_key
from cozyfs.values import Inode
from cozyfs.vfs import fsck_repair as repair
from cozyfs.vfs.fsck_findings import (
    Finding,
    documents,
    facts,
    md5_text,
    text,
    version_document,
)
from cozyfs.vfs.fsck_index import INODE, VERSION, is_held, names_object
from cozyfs.vfs.fsck_listing import THUMBNAIL_FORMATS
from cozyfs.vfs.fsck_measure import Measured, plain_md5
from cozyfs.vfs.names import media_class, media_type
from cozyfs.vfs.orphans import ORPHANS_NAME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from datetime import datetime

    from cozyfs.index import Scan

UPLOAD_AGE_S = 86_400.0
"""An upload that began longer ago, and that nobody here goes on with, is a leftover."""

LEFTOVER_S = 7 * 86_400.0
"""So much later than the retention an object should have been deleted, whatever was down."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be a finding. :attr:`confirm` looks again, and gives it or None."""

    name: str  # of the object
    confirm: Callable[[repair.Bench], Awaitable[Finding | None]]


# ---- contents and their objects


class Held(NamedTuple):
    """A row that has an object, and what the listing says of that."""

    row: Inode | Version
    name: str
    size: int | None  # None: not listed
    etag: str | None
    shown: dict[str, Any]


_INODES = f"""
    SELECT {INODE}, object_name(coalesce(i.object_doc_id, i.doc_id), i.internal_id) AS place,
           l.size, l.etag
    FROM inodes i LEFT JOIN temp.listed l ON l.name = place WHERE i.internal_id IS NOT NULL
"""
_VERSIONS = f"""
    SELECT {VERSION}, object_name(coalesce(v.object_doc_id, v.doc_id), v.internal_id) AS place,
           l.size, l.etag
    FROM versions v LEFT JOIN temp.listed l ON l.name = place WHERE 1
"""
_SUSPECT = """
    AND (l.name IS NULL OR l.size != {0}.stored OR {0}.etag IS NULL OR l.etag != {0}.etag
         OR ({0}.md5 IS NOT NULL AND {0}.extents IS NULL AND l.etag != lower(hex({0}.md5))
             AND length(l.etag) = 32))
"""


def suspects(scan: Scan) -> Iterator[Held]:
    """Contents whose object is missing or listed with something else than their row says."""
    for *values, name, size, etag in scan.rows(_INODES + _SUSPECT.format("i")):
        inode = Inode._make(values)
        yield Held(inode, name, size, etag, documents(scan, inode))
    for *values, name, size, etag in scan.rows(_VERSIONS + _SUSPECT.format("v")):
        version = Version._make(values)
        yield Held(version, name, size, etag, version_shown(version))


def held(scan: Scan) -> Iterator[Held]:
    """Every content whose object is listed. Page by page: to read them all takes hours, and a
    statement that is not at its end would keep SQLite from tidying up its log."""
    last: tuple[Any, ...] = (0,)
    while page := list(scan.rows(f"{_INODES} AND i.ino > ? ORDER BY i.ino LIMIT 256", last)):
        for *values, name, size, etag in page:
            inode = Inode._make(values)
            last = (inode.ino,)
            if size is not None:
                yield Held(inode, name, size, etag, documents(scan, inode))
    last = ("", "")
    paged = f"{_VERSIONS} AND (v.doc_id, v.internal_id) > (?, ?)"
    while page := list(scan.rows(f"{paged} ORDER BY v.doc_id, v.internal_id LIMIT 256", last)):
        for *values, name, size, etag in page:
            version = Version._make(values)
            last = (version.doc_id, version.internal_id)
            if size is not None:
                yield Held(version, name, size, etag, version_shown(version))


def version_shown(version: Version) -> dict[str, Any]:
    return {"is_version": True, "version_doc": version_document(version)}


def contents(scan: Scan, doubtful: Callable[[Held], None]) -> Iterator[Candidate]:
    """Objects that are missing or differ. *doubtful* is told of those whose bytes have to be
    read to know."""
    with scan.moment():
        for each in suspects(scan):
            if each.size is None or each.etag is None:
                yield Candidate(each.name, partial(_missing, each))
                continue
            match compare(each.row, each.size, each.etag):
                case False:
                    yield Candidate(each.name, partial(_differs, each))
                case None:
                    doubtful(each)


def compare(row: Inode | Version, size: int, etag: str) -> bool | None:
    """Whether an object is the one that a row means, by what a listing says; None: only its
    bytes can tell."""
    if size != row.stored:
        return False
    md5 = plain_md5(etag)
    if row.extents is None and row.md5 is not None and md5 is not None and md5 != row.md5:
        # A server that encrypts with keys of its own has ETags that only look like an MD5.
        return None if etag == row.etag else False
    return row.etag is None or etag == row.etag


async def _missing(each: Held, bench: repair.Bench) -> Finding | None:
    row = each.row
    assert row.internal_id is not None
    if not is_current(bench, row):
        return None
    if await bench.is_there(bench.objects.key(row.content_doc_id, row.internal_id)):
        return None
    if not is_current(bench, row):  # replaced while we asked
        return None
    if isinstance(row, Version):
        fixed: dict[str, Any] = {
            "repair": "the version is forgotten",
            "remedy": partial(repair.forget_lost_version, version=row),
        }
    else:
        fixed = {
            "repair": "its newest version that is there becomes its content; without any, it"
            " goes to /.cozy_orphans, empty",
            "remedy": partial(
                repair.replace_lost_content, ino=row.ino, internal_id=row.internal_id
            ),
        }
    detail = "its object is not in the store"
    found = Finding("filesystem_missing", detail, object=each.name, before=facts(row), **fixed)
    return replace(found, **each.shown)


async def _differs(each: Held, bench: repair.Bench) -> Finding | None:
    if not is_current(bench, each.row):
        return None
    assert each.size is not None
    assert each.etag is not None
    return mismatch(each, each.size, each.etag, plain_md5(each.etag))


def judge(each: Held, seen: Measured, *, etags_are_md5s: bool) -> Finding | None:
    """By all bytes of the object. *etags_are_md5s*: of single PUTs, on this server."""
    row = each.row
    is_right = seen.size == row.stored and row.etag in (None, seen.etag)
    if row.extents is None and row.md5 is not None:
        is_right = is_right and seen.md5 == row.md5
    else:
        # Of parts whose lengths are not known nothing can be said: they are as they were sent.
        is_plain = etags_are_md5s and plain_md5(seen.etag) is not None
        is_right = is_right and (seen.proves_itself or not is_plain)
        is_right = is_right and (row.extents is None or seen.tail.endswith(row.extents))
    return None if is_right else mismatch(each, seen.size, seen.etag, seen.md5)


def mismatch(each: Held, size: int, etag: str, md5: bytes | None) -> Finding:
    row = each.row
    differing = [
        what
        for what, differs in (
            ("size", size != row.stored),
            ("MD5", row.extents is None and None not in (md5, row.md5) and md5 != row.md5),
            ("ETag", row.etag is not None and etag != row.etag),
        )
        if differs
    ]
    found = Finding(
        "content_mismatch",
        f"the object differs from what the tree says: {', '.join(differing) or 'its bytes'}",
        object=each.name,
        content_mismatch={
            "size_index": row.stored,
            "size_file": size,
            "md5sum_index": md5_text(row.md5),
            "md5sum_file": md5_text(md5),
            "etag_index": row.etag,
            "etag_file": etag,
        },
        before=facts(row),
        repair="if the object proves to be whole, the tree says what it is",
        remedy=partial(repair.adopt_facts, row=row, found_etag=etag),
    )
    return replace(found, **each.shown)


def is_current(bench: repair.Bench, row: Inode | Version) -> bool:
    """Whether the tree still has that content, as it was seen."""
    if isinstance(row, Version):
        return row in bench.index.versions_of(row.doc_id)
    try:
        now = bench.index.get(row.ino)
    except NotFound:
        return False
    return (now.internal_id, now.stored, now.etag, now.md5) == (
        *(row.internal_id, row.stored, row.etag, row.md5),
    )


# ---- objects without a content


def unreferenced(scan: Scan, before: float) -> Iterator[Candidate]:
    """Objects that nothing has and that do not wait for their deletion, of those stored before
    *before* (by the store's clock)."""
    with scan.moment():
        for name, doc_id, internal_id in scan.rows(
            "SELECT l.name, l.doc_id, l.internal_id FROM temp.listed l"
            " WHERE l.kind = 'content' AND coalesce(l.modified, 0) <= ?"
            f" AND NOT {is_held('l')} AND NOT EXISTS (SELECT 1 FROM deletions d"
            " WHERE d.doc_id = l.doc_id AND d.internal_id = l.internal_id)",
            (before,),
        ):
            yield Candidate(name, partial(_unreferenced, doc_id, internal_id, name))


async def _unreferenced(
    doc_id: str, internal_id: str, name: str, bench: repair.Bench
) -> Finding | None:
    index, objects = bench.index, bench.objects
    key = object_key(objects.db_prefix, doc_id, internal_id)

    def is_known() -> bool:
        return (
            index.is_held(doc_id, internal_id)
            or index.is_queued(doc_id, internal_id)
            or key in bench.in_use()
        )

    if is_known():
        return None
    found = await rollforward.identify(bench.journal, doc_id, internal_id)
    if isinstance(found, str):  # of a Cozy server, whose objects do not say what they are
        try:
            info = await objects.caller.store(objects.store.head, objects.bucket, key)
        except ObjectNotFound:
            return None
        found = rollforward.Found(doc_id, internal_id, info)
    if found is None or is_known():
        return None
    new = repair.planned(index, found, bench.clock())
    mime = found.info.content_type or media_type(text(new.name))
    return Finding(
        "index_missing",
        "no file and no version has this object",
        object=name,
        is_file=True,
        file_doc={
            "type": "file",
            "_id": doc_id,
            "name": text(new.name),
            "path": f"/{text(ORPHANS_NAME)}/{text(new.name)}",
            "size": str(found.info.size),
            "md5sum": md5_text(found.content.md5),
            "mime": mime,
            "class": media_class(mime),
            "updated_at": _date(found.info.last_modified),
            "internal_vfs_id": internal_id,
        },
        repair="it becomes a file again: where its metadata say, if that is free, else in"
        " /.cozy_orphans",
        remedy=partial(repair.attach, found=found),
    )


def _date(modified: datetime | None) -> str | None:
    if modified is None:
        return None
    return modified.isoformat(timespec="seconds").replace("+00:00", "Z")


def thumbnails(scan: Scan, before: float) -> Iterator[Candidate]:
    """Of documents that are no files and whose contents do not wait for their deletion, with
    which these go; those stored before *before*. A document of which only a content is left, in a
    file that was saved by renaming over another, has them until that content goes."""
    with scan.moment():
        for name, doc_id, kind in scan.rows(
            "SELECT l.name, l.doc_id, l.internal_id FROM temp.listed l"
            " WHERE l.kind = 'thumbnail' AND coalesce(l.modified, 0) <= ? AND NOT EXISTS"
            " (SELECT 1 FROM inodes i WHERE i.doc_id = l.doc_id AND i.nlink > 0)"
            " AND NOT EXISTS (SELECT 1 FROM deletions d WHERE d.doc_id = l.doc_id)"
            " AND NOT EXISTS (SELECT 1 FROM inodes i WHERE i.object_doc_id = l.doc_id)"
            " AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.object_doc_id = l.doc_id)",
            (before,),
        ):
            yield Candidate(name, partial(_thumbnail, doc_id, kind, name))


async def _thumbnail(doc_id: str, kind: str, name: str, bench: repair.Bench) -> Finding | None:
    key = f"{bench.objects.db_prefix}/{name}"
    if bench.index.is_wanted(doc_id) or not await bench.is_there(key):
        return None
    if bench.index.is_wanted(doc_id):  # by now
        return None
    fixed: dict[str, Any] = {}
    if kind in THUMBNAIL_FORMATS:  # images of notes are nowhere else: they stay
        fixed = {
            "repair": "it is deleted",
            "remedy": partial(repair.remove_thumbnail, doc_id=doc_id, key=key),
        }
    return Finding(
        "thumbnail_with_no_file",
        "there is no file that it was made from",
        object=name,
        is_file=True,
        file_doc={"type": "file", "_id": doc_id, "name": name},
        **fixed,
    )


def unknown(scan: Scan) -> Iterator[Finding]:
    """Objects whose names nothing here makes."""
    for (name,) in scan.rows("SELECT name FROM temp.listed WHERE kind = 'unknown'"):
        yield Finding("unknown_object", "cozyfs does not know what it is", object=name)


def leftovers(scan: Scan, queued_before_ns: int) -> Iterator[Candidate]:
    """Objects that should have been deleted long ago."""
    for *values, name in scan.rows(
        "SELECT d.doc_id, d.internal_id, d.queued_ns, l.name FROM deletions d JOIN temp.listed l"
        " ON l.name = object_name(d.doc_id, d.internal_id)"
        f" WHERE d.queued_ns < ? AND {names_object('d')} AND NOT {is_held('d')}",
        (queued_before_ns,),
    ):
        yield Candidate(name, partial(_leftover, Deletion._make(values), name))


async def _leftover(row: Deletion, name: str, bench: repair.Bench) -> Finding | None:
    key = object_key(bench.objects.db_prefix, row.doc_id, row.internal_id)
    if key in bench.in_use() or not bench.index.is_queued(row.doc_id, row.internal_id):
        return None
    if not await bench.is_there(key):
        return None  # only the queue does not know yet
    return Finding(
        "deletion_leftover",
        "it should have been deleted long ago",
        object=name,
        before=row._asdict(),
        repair="it is deleted",
        remedy=partial(repair.finish_deletion, row=row, key=key),
    )


async def unfinished_uploads(bench: repair.Bench, now_s: float) -> list[Finding]:
    """Multipart uploads that began long ago and that nobody here goes on with. Raises
    StoreError."""
    objects = bench.objects
    prefix = f"{objects.db_prefix}/"
    # Asked for the whole bucket: MinIO knows no other prefixes than whole keys.
    found = await objects.caller.store(
        lambda: list(objects.store.list_multipart(objects.bucket, ""))
    )
    used = bench.in_use()
    return [
        Finding(
            "unfinished_upload",
            f"a multipart upload that began {_date(upload.initiated)} was never completed",
            object=upload.key.removeprefix(prefix),
            repair="its parts are dropped",
            remedy=partial(repair.abort_upload, upload=upload),
        )
        for upload in found
        if upload.key.startswith(prefix)
        and upload.key not in used
        and upload.initiated is not None
        and upload.initiated.timestamp() < now_s - UPLOAD_AGE_S
    ]
