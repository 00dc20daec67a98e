"""Whether the tree is one: every check of the index, each a scan of its rows.

Synchronous generators over a `Scan`, run in a worker thread while the event loop goes on. Each
sees the index at one moment; what is repaired while it runs, it does not see.

A Cozy's findings that cannot be here: ``conflict_in_index`` (there are no conflicting revisions),
``index_duplicate_name`` (names are a primary key; the NFC and NFD forms of a name are two names).
"""

from __future__ import annotations

from functools import partial
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any

from cozyfs.errors import CozyError
from cozyfs.index import MARKERS, Version
from cozyfs.values import ROOT_INO, TRASH_INO, TRASH_NAME, Ino, Inode
from cozyfs.vfs import fsck_repair as repair
from cozyfs.vfs.fsck_findings import (
    Finding,
    documents,
    facts,
    path_of,
    text,
    version_document,
)
from cozyfs.vfs.names import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cozyfs.index import Scan

INODE = ", ".join(f"i.{name}" for name in Inode._fields)
VERSION = ", ".join(f"v.{name}" for name in Version._fields)

_IS_DIRECTORY = "{0}.mode & 0xF000 = 0x4000"
_HAS_ENTRY = "EXISTS (SELECT 1 FROM entries e WHERE e.ino = i.ino)"


def is_held(row: str) -> str:
    """SQL: whether an inode or a version has the object that *row*, a table's alias, names."""
    cases = (
        f"{table} h WHERE {key} AND h.internal_id = {row}.internal_id"
        for table in ("inodes", "versions")
        for key in (
            f"h.doc_id = {row}.doc_id AND h.object_doc_id IS NULL",
            f"h.object_doc_id = {row}.doc_id",
        )
    )
    return "(" + " OR ".join(f"EXISTS (SELECT 1 FROM {case})" for case in cases) + ")"


def names_object(row: str) -> str:
    """SQL: whether *row* of the deletion queue names an object, not only what lies beside it."""
    return f"{row}.internal_id NOT IN ({', '.join(map(repr, MARKERS))})"


_ORPHANS_TEXT = "it comes back in /.cozy_orphans"

_BELOW = f"""
    INSERT OR IGNORE INTO temp.reached
    WITH RECURSIVE below (ino) AS (
        VALUES (?)
        UNION
        SELECT e.ino FROM below b JOIN inodes d ON d.ino = b.ino AND {_IS_DIRECTORY.format("d")}
        JOIN entries e ON e.parent = d.ino
    )
    SELECT ino FROM below
"""
_UNREACHED = f"""
    SELECT {INODE} FROM inodes i
    WHERE i.ino NOT IN (SELECT ino FROM temp.reached) AND (i.nlink > 0 OR {_HAS_ENTRY})
"""
_WITHOUT_PARENT = f"""
    {_UNREACHED} AND NOT EXISTS (
        SELECT 1 FROM entries e JOIN inodes d ON d.ino = e.parent
        WHERE e.ino = i.ino AND {_IS_DIRECTORY.format("d")}
    )
"""


def check_index(scan: Scan) -> Iterator[Finding]:
    """Everything, in the order in which repairs build on each other."""
    yield from integrity(scan)
    yield from first_inodes(scan)
    if scan.row("SELECT 1 FROM inodes WHERE ino = ?", (ROOT_INO,)) is None:
        return  # nothing can be said of a tree without a root
    for check in _CHECKS:
        with scan.moment():
            yield from check(scan)


def integrity(scan: Scan) -> Iterator[Finding]:
    """The SQLite file itself."""
    for (line,) in list(scan.rows("PRAGMA integrity_check(20)")):
        if line != "ok":
            yield Finding("index_damaged", f"SQLite says: {line}")


def first_inodes(scan: Scan) -> Iterator[Finding]:
    """The root, and the trash in its place."""
    fixed: dict[str, Any] = {"repair": "it is made again", "remedy": repair.put_back_first}
    rows = dict(scan.rows("SELECT ino, mode FROM inodes WHERE ino IN (1, 2)"))
    if ROOT_INO not in rows:
        yield Finding("index_missing_root", "the tree has no root", path="/", **fixed)
        if scan.row("SELECT 1 FROM inodes WHERE ino = ?", (ROOT_INO,)) is None:
            return
        rows = dict(scan.rows("SELECT ino, mode FROM inodes WHERE ino IN (1, 2)"))
    elif not S_ISDIR(rows[ROOT_INO]):
        yield Finding("type_mismatch", "the root is not a directory", path="/")
    entry = scan.row(
        "SELECT ino FROM entries WHERE parent = ? AND name = ?", (ROOT_INO, TRASH_NAME)
    )
    if TRASH_INO not in rows or entry is None:
        path = f"/{text(TRASH_NAME)}"
        yield Finding("index_missing_trash", "the tree has no trash", path=path, **fixed)


def unreachable(scan: Scan) -> Iterator[Finding]:
    """Inodes that no path from the root leads to: what hangs together is one finding."""
    scan.run("DROP TABLE IF EXISTS temp.reached")
    scan.run("CREATE TEMP TABLE reached (ino INTEGER PRIMARY KEY)")
    scan.run(_BELOW, (ROOT_INO,))
    for row in list(scan.rows(_WITHOUT_PARENT)):
        inode = Inode._make(row)
        yield _orphan(scan, inode, "no directory has it", has_cycle=False)
        scan.run(_BELOW, (inode.ino,))
    while (row := scan.row(f"{_UNREACHED} LIMIT 1")) is not None:
        inode = _in_cycle(scan, Inode._make(row))
        yield _orphan(scan, inode, "it lies below itself", has_cycle=True)
        scan.run(_BELOW, (inode.ino,))
        if scan.row("SELECT 1 FROM temp.reached WHERE ino = ?", (row[0],)) is None:
            scan.run(_BELOW, (row[0],))  # whatever the rows say, this comes to an end


def _orphan(scan: Scan, inode: Inode, why: str, *, has_cycle: bool) -> Finding:
    entry = scan.row("SELECT name FROM entries WHERE ino = ? LIMIT 1", (inode.ino,))
    shown = documents(scan, inode, is_orphan=True, has_cycle=has_cycle)
    return Finding(
        "index_orphan_tree",
        f"inode {inode.ino} cannot be reached: {why}",
        repair=_ORPHANS_TEXT,
        remedy=partial(repair.adopt, ino=inode.ino, name=entry[0] if entry else b""),
        **shown,
    )


def _in_cycle(scan: Scan, inode: Inode) -> Inode:
    """From an inode that a cycle leads to, to one that is in it."""
    passed: set[int] = set()
    ino: int = inode.ino
    while ino not in passed:
        passed.add(ino)
        row = scan.row(
            "SELECT e.parent FROM entries e JOIN inodes d ON d.ino = e.parent"
            f" WHERE e.ino = ? AND {_IS_DIRECTORY.format('d')} ORDER BY e.parent, e.name LIMIT 1",
            (ino,),
        )
        if row is None:
            break
        ino = row[0]
    row = scan.row(f"SELECT {INODE} FROM inodes i WHERE i.ino = ?", (ino,))
    return Inode._make(row)


def dangling_entries(scan: Scan) -> Iterator[Finding]:
    for parent, name, ino in scan.rows(
        "SELECT parent, name, ino FROM entries WHERE ino NOT IN (SELECT ino FROM inodes)"
    ):
        above = path_of(scan, parent)
        yield Finding(
            "index_dangling_entry",
            f"the name leads to inode {ino}, which is not there",
            path=None if above is None else f"{above.rstrip('/')}/{text(name)}",
            before={"parent": parent, "name": text(name), "ino": ino},
            repair="the name goes; a content of it is found by its object",
            remedy=partial(repair.remove_dangling, parent=parent, name=name),
        )


def entries_of_nothing(scan: Scan) -> Iterator[Finding]:
    """Names in what is no directory, of inodes that have another name."""
    is_directory = f"SELECT 1 FROM inodes d WHERE d.ino = e.parent AND {_IS_DIRECTORY.format('d')}"
    for parent, name, ino in scan.rows(
        f"SELECT e.parent, e.name, e.ino FROM entries e WHERE NOT EXISTS ({is_directory})"
        " AND (SELECT count(*) FROM entries o WHERE o.ino = e.ino) > 1"
    ):
        yield Finding(
            "index_dangling_entry",
            f"the name is in inode {parent}, which is no directory; inode {ino} has another one",
            before={"parent": parent, "name": text(name), "ino": ino},
            repair="the name goes",
            remedy=partial(repair.remove_name, parent=parent, name=name),
        )


def directories_with_two_names(scan: Scan) -> Iterator[Finding]:
    for ino, _ in scan.rows(
        "SELECT e.ino, count(*) FROM entries e JOIN inodes i ON i.ino = e.ino"
        f" WHERE {_IS_DIRECTORY.format('i')} GROUP BY e.ino HAVING count(*) > 1"
    ):
        names = list(
            scan.rows(
                "SELECT parent, name FROM entries WHERE ino = ? ORDER BY parent, name", (ino,)
            )
        )
        for parent, name in names[1:]:
            above = path_of(scan, parent)
            yield Finding(
                "index_directory_names",
                f"the directory has {len(names)} names",
                path=None if above is None else f"{above.rstrip('/')}/{text(name)}",
                expected_fullpath=path_of(scan, ino),
                before={"parent": parent, "name": text(name), "ino": ino},
                repair="this name goes, the first stays",
                remedy=partial(repair.remove_name, parent=parent, name=name),
            )


def illegal_names(scan: Scan) -> Iterator[Finding]:
    for parent, name in scan.rows("SELECT parent, name FROM entries"):
        try:
            check_name(name)
        except CozyError as exc:
            above = path_of(scan, parent)
            yield Finding(
                "index_illegal_name",
                str(exc),
                path=None if above is None else f"{above.rstrip('/')}/{text(name)}",
                repair="it is renamed",
                remedy=partial(repair.rename, parent=parent, name=name),
            )


def types(scan: Scan) -> Iterator[Finding]:
    """Columns that the type of an inode cannot have."""
    for row in scan.rows(
        f"""
        SELECT {INODE} FROM inodes i WHERE (i.mode & 0xF000 = 0xA000) != (i.target IS NOT NULL)
            OR (i.mode & 0xF000 != 0x8000 AND i.internal_id IS NOT NULL)
            OR i.mode & 0xF000 NOT IN (0x1000, 0x2000, 0x4000, 0x6000, 0x8000, 0xA000, 0xC000)
            OR i.size < 0 OR i.stored < 0
        """
    ):
        inode = Inode._make(row)
        detail = f"the columns of inode {inode.ino} do not fit its type {inode.mode:o}"
        yield Finding("type_mismatch", detail, before=facts(inode), **documents(scan, inode))


def link_counts(scan: Scan) -> Iterator[Finding]:
    for row in scan.rows(
        f"""
        SELECT {INODE}, n.counted FROM inodes i JOIN (
            SELECT ino, count(*) AS counted FROM entries GROUP BY ino
        ) n ON n.ino = i.ino
        WHERE NOT {_IS_DIRECTORY.format("i")} AND i.nlink != n.counted
        UNION ALL
        SELECT * FROM (
            SELECT {INODE}, 2 + (
                SELECT count(*) FROM entries e JOIN inodes c ON c.ino = e.ino
                WHERE e.parent = i.ino AND {_IS_DIRECTORY.format("c")}
            ) AS counted
            FROM inodes i
            WHERE {_IS_DIRECTORY.format("i")} AND (i.ino = 1 OR {_HAS_ENTRY})
        ) WHERE nlink != counted
        """
    ):
        inode, counted = Inode._make(row[:-1]), row[-1]
        yield Finding(
            "index_bad_links",
            f"the link count is {inode.nlink}, and should be {counted}",
            before={"ino": inode.ino, "nlink": inode.nlink},
            repair=f"it becomes {counted}",
            remedy=partial(repair.recount_links, ino=inode.ino),
            **documents(scan, inode),
        )


def trash_rows(scan: Scan) -> Iterator[Finding]:
    """What was put into the trash as such lies in it, and what lies in it was put there."""
    for row in scan.rows(
        f"SELECT {INODE} FROM trash t JOIN inodes i ON i.ino = t.ino"
        " WHERE NOT EXISTS (SELECT 1 FROM entries e WHERE e.ino = t.ino AND e.parent = ?)",
        (TRASH_INO,),
    ):
        inode = Inode._make(row)
        yield Finding(
            "trashed_not_in_trash",
            "it is remembered as put into the trash, and is not in it",
            repair="that is forgotten",
            remedy=partial(repair.forget_trashed, ino=inode.ino),
            **documents(scan, inode),
        )
    for row in scan.rows(
        f"SELECT {INODE}, e.name FROM entries e JOIN inodes i ON i.ino = e.ino"
        " WHERE e.parent = ? AND e.ino NOT IN (SELECT ino FROM trash)",
        (TRASH_INO,),
    ):
        inode = Inode._make(row[:-1])
        yield Finding(
            "not_trashed_in_trash",
            "it is in the trash, and nothing says since when and from where",
            repair="since now, from the root",
            remedy=partial(repair.remember_trashed, ino=inode.ino, name=row[-1]),
            **documents(scan, inode),
        )


def kept_documents(scan: Scan) -> Iterator[Finding]:
    """Fields that are kept beside the tree must not say what the tree says."""
    for row in scan.rows(
        f"SELECT {INODE} FROM documents d JOIN inodes i ON i.ino = d.ino"
        " WHERE NOT json_valid(d.fields)"
    ):
        inode = Inode._make(row)
        yield Finding(
            "index_bad_document", "the kept fields are not JSON", **documents(scan, inode)
        )
    for row in scan.rows(
        f"SELECT {INODE}, json_extract(d.fields, '$.path') FROM documents d"
        " JOIN inodes i ON i.ino = d.ino"
        " WHERE json_valid(d.fields) AND json_type(d.fields, '$.path') IS NOT NULL"
    ):
        inode, kept = Inode._make(row[:-1]), row[-1]
        shown = documents(scan, inode)
        fixed: dict[str, Any] = {
            "before": {"path": kept},
            "repair": "the kept path goes: the tree says where it is",
            "remedy": partial(repair.drop_field, ino=inode.ino, field="path"),
        }
        if not S_ISDIR(inode.mode):
            yield Finding("index_file_with_path", "the document keeps a path", **shown, **fixed)
        elif kept != shown["path"]:
            yield Finding(
                "index_bad_fullpath",
                f"the document says that it is at {kept}",
                expected_fullpath=shown["path"],
                **shown,
                **fixed,
            )


def versions_without_file(scan: Scan) -> Iterator[Finding]:
    for row in scan.rows(
        f"SELECT {VERSION} FROM versions v WHERE v.doc_id NOT IN (SELECT doc_id FROM inodes)"
        " ORDER BY v.doc_id, v.created_ns DESC, v.internal_id DESC"
    ):
        version = Version._make(row)
        yield Finding(
            "file_missing",
            "there is no file that this was a version of",
            is_version=True,
            version_doc=version_document(version),
            before=facts(version),
            repair="the newest becomes a file in /.cozy_orphans, with the others as versions",
            remedy=partial(_file_for_version, doc_id=version.doc_id),
        )


async def _file_for_version(bench: repair.Bench, doc_id: str) -> None:
    """The first version of a document brings its file back, for all of them."""
    if not bench.index.with_doc_ids([doc_id]):
        await repair.make_file_of_versions(bench, doc_id)


def strays(scan: Scan) -> Iterator[Finding]:
    for table in ("xattrs", "documents", "trash"):
        for (ino,) in scan.rows(
            f"SELECT DISTINCT ino FROM {table} WHERE ino NOT IN (SELECT ino FROM inodes)"
        ):
            yield Finding(
                "index_stray_row",
                f"a row of {table} belongs to inode {ino}, which is not there",
                repair="it goes",
                remedy=partial(repair.remove_stray, table=table, ino=Ino(ino)),
            )


def removed_leftovers(scan: Scan) -> Iterator[Finding]:
    """Inodes without names, which somebody had open: whether somebody still has, the caller asks
    (``before["ino"]``)."""
    for row in scan.rows(f"SELECT {INODE} FROM inodes i WHERE i.nlink = 0 AND NOT {_HAS_ENTRY}"):
        inode = Inode._make(row)
        yield Finding(
            "index_removed_leftover",
            f"inode {inode.ino} was removed while it was open, and nobody has it open",
            before={"ino": inode.ino} | facts(inode),
            repair="it goes; its object waits for deletion",
            remedy=partial(repair.drop_removed, ino=inode.ino),
            **documents(scan, inode),
        )


def queued_but_held(scan: Scan) -> Iterator[Finding]:
    """An object in use that is going to be deleted."""
    for doc_id, internal_id in scan.rows(
        f"SELECT d.doc_id, d.internal_id FROM deletions d"
        f" WHERE {names_object('d')} AND {is_held('d')}"
    ):
        yield Finding(
            "queued_but_used",
            f"the content {internal_id} of {doc_id} is used, and waits for its deletion",
            repair="it does not wait any more",
            remedy=partial(repair.keep_object, doc_id=doc_id, internal_id=internal_id),
        )


def inode_numbers(scan: Scan) -> Iterator[Finding]:
    """No number is given out twice."""
    (highest,) = scan.row("SELECT max(ino) FROM inodes")
    row = scan.row("SELECT value FROM facts WHERE name = 'ino_limit'")
    if row is None or row[0] <= highest:
        yield Finding(
            "index_bad_counter",
            f"the numbers of new inodes begin at {row[0] if row else 'nothing'},"
            f" and {highest} is taken",
            repair="they begin after it",
            remedy=repair.raise_ino_limit,
        )


_CHECKS: tuple[Callable[[Scan], Iterator[Finding]], ...] = (
    queued_but_held,
    inode_numbers,
    dangling_entries,
    unreachable,
    entries_of_nothing,
    directories_with_two_names,
    illegal_names,
    types,
    link_counts,
    removed_leftovers,
    trash_rows,
    kept_documents,
    versions_without_file,
    strays,
)
