"""Small helpers of the index tests: makers with the dull arguments filled in, and one check."""

from __future__ import annotations

from stat import S_IFDIR, S_IFLNK, S_IFREG, S_ISDIR

from cozyfs.index import JOURNALED_TABLES, Index
from cozyfs.values import Content, Ino

T0 = 1_700_000_000_000_000_000
"""When the indexes of the tests are made, in nanoseconds."""

NOW = T0 + 1_000
LATER = T0 + 2_000


def make_file(index, parent, name, *, now_ns=NOW, doc_id=None):
    return index.make(
        parent,
        name,
        S_IFREG | 0o644,
        uid=1000,
        gid=100,
        doc_id=doc_id or f"doc-{parent}-{name.decode()}",
        now_ns=now_ns,
    )


def make_directory(index, parent, name, *, now_ns=NOW):
    return index.make(
        parent,
        name,
        S_IFDIR | 0o755,
        uid=1000,
        gid=100,
        doc_id=f"doc-{parent}-{name.decode()}",
        now_ns=now_ns,
    )


def make_symlink(index, parent, name, target, *, now_ns=NOW):
    return index.make(
        parent,
        name,
        S_IFLNK | 0o777,
        uid=1000,
        gid=100,
        target=target,
        doc_id=f"doc-{parent}-{name.decode()}",
        now_ns=now_ns,
    )


def fill(index, ino, internal_id, size=10, *, now_ns=NOW):
    content = Content(internal_id=internal_id, size=size, stored=size, md5=b"m" * 16, etag="e")
    return index.set_content(ino, content, mtime_ns=now_ns, ctime_ns=now_ns, now_ns=now_ns)


def rename(index, parent, name, new_parent, new_name, *, flags=0, kept=(), now_ns=LATER):
    return index.rename(
        parent, name, new_parent, new_name, now_ns, flags=flags, keep=lambda ino: ino in kept
    )


def names(index, parent):
    return [name for name, _ in index.children(parent, b"", 1_000)]


def dump(connection, tables=JOURNALED_TABLES):
    """Every row of *tables*."""
    return {
        table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in tables
    }


def traced(index):
    """A list that grows by every statement the index executes from now on."""
    statements = []

    def trace(cursor, sql, bindings):
        statements.append(sql)
        return True

    index.connection.exec_trace = trace
    return statements


def all_pages(index, parent, limit=3):
    children, after = [], b""
    while page := index.children(parent, after, limit):
        children += page
        after = page[-1][0]
    return children


def check(index):
    """The tree holds together, and memory agrees with the file."""
    tables = dump(index.connection)
    entries, inodes = tables["entries"], {row[0]: row for row in tables["inodes"]}
    _check_links(index, entries, inodes)
    for table in ("xattrs", "documents"):
        assert {row[0] for row in tables[table]} <= inodes.keys()
    with Index.open(index.connection.filename, read_only=True) as reader:
        assert index.usage == reader.usage
        for ino in inodes:
            assert index.get(Ino(ino)) == reader.get(Ino(ino))
            if S_ISDIR(reader.get(Ino(ino)).mode):
                assert all_pages(index, ino) == all_pages(reader, ino)
                assert index.children(ino, b"", 1_000) == reader.children(ino, b"", 1_000)


def _check_links(index, entries, inodes):
    for parent, name, ino in entries:
        assert S_ISDIR(index.get(parent).mode), name
        assert ino in inodes, name
    for ino in inodes:
        inode = index.get(ino)
        if S_ISDIR(inode.mode):
            below = sum(parent == ino and S_ISDIR(index.get(i).mode) for parent, _, i in entries)
            assert inode.nlink in (0, 2 + below)
        else:
            assert inode.nlink == sum(i == ino for _, _, i in entries)
