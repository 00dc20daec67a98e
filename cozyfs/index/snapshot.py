"""A snapshot of the tree as one file: making it from a live index, making an index from it.

::

    magic       4 bytes, "CZS1"
    header      see ``_HEADER``, big-endian: the position in the journal that is in it
    database    a zstd frame: an index with its journaled tables, without SQL indexes and without
                any fact of the machine that made it
    checksum    SHA-256 over everything before it

The live index goes on being written meanwhile: a read transaction of a connection of its own sees
one moment. What the outbox held at that moment is taken back in the copy, so that the snapshot is
the tree exactly at its position, and the journal after it can be applied.

Blocking, minutes for millions of files: for worker threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

import apsw
import zstandard

from cozyfs.errors import InstanceError, JournalDamaged, JournalNewer, NoSpace
from cozyfs.index.database import (
    APPLICATION_ID,
    JOURNALED_TABLES,
    SCHEMA_VERSION,
    Database,
    schema,
    translated,
)
from cozyfs.index.journal import CHECKSUM_SIZE, Position

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAGIC = b"CZS1"

_HEADER = struct.Struct(">IQ32s Q I Q")  # position, created_ns, schema version, database's size

_LEVEL = 3
_CHUNK = 1 << 20
_MAX_WINDOW = 1 << 27

START_SIZE = len(MAGIC) + _HEADER.size
"""Bytes at the start that say everything but the tree."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What a snapshot says of itself."""

    position: Position
    created_ns: int  # by its writer's clock
    schema_version: int
    database_size: int  # bytes, unpacked


def write_snapshot(index_path: Path, target: Path, *, created_ns: int) -> SnapshotInfo:
    """Make the file *target* from the index at *index_path*, which may be in use. A file beside
    *target* holds the database meanwhile. Raises InstanceError, NoSpace."""
    scratch = target.with_name(target.name + ".db")
    _remove(scratch)
    try:
        position = _copy_tables(index_path, scratch)
        info = SnapshotInfo(position, created_ns, SCHEMA_VERSION, scratch.stat().st_size)
        with open(scratch, "rb") as source, open(target, "wb") as sink:
            _pack(info, source, sink)
    except apsw.Error as exc:
        raise translated(exc, index_path) from exc
    except OSError as exc:
        raise NoSpace(f"a snapshot cannot be written to {target.parent}: {exc.strerror}") from exc
    finally:
        _remove(scratch)
    return info


def parse_start(data: bytes) -> SnapshotInfo:
    """The first ``START_SIZE`` bytes; not checked against the checksum. Raises JournalDamaged."""
    if len(data) < START_SIZE or data[: len(MAGIC)] != MAGIC:
        raise JournalDamaged("a snapshot has a form that this cozyfs does not know")
    epoch, sequence, checksum, created_ns, version, size = _HEADER.unpack_from(data, len(MAGIC))
    return SnapshotInfo(Position(epoch, sequence, checksum), created_ns, version, size)


def read_snapshot(chunks: Iterable[bytes], target: Path | None) -> SnapshotInfo:
    """Make an index of a whole snapshot; its position is in its settings. None for *target*: only
    verify. Nothing is left at *target* after an error. Raises JournalDamaged, InstanceError,
    NoSpace, and what *chunks* raises."""
    if target is None:
        with open(os.devnull, "wb") as nowhere:
            return _unpack(chunks, nowhere)
    try:
        with open(target, "xb") as sink:
            info = _unpack(chunks, sink)
            if info.schema_version > SCHEMA_VERSION:
                raise JournalNewer(
                    "the snapshot was written by a newer cozyfs: use that one here too"
                )
        _complete(target, info.position)
    except apsw.Error as exc:
        _remove(target)
        raise translated(exc, target) from exc
    except FileExistsError as exc:
        raise InstanceError(f"{target} exists already") from exc
    except OSError as exc:
        _remove(target)
        raise NoSpace(f"the tree cannot be written to {target.parent}: {exc.strerror}") from exc
    except BaseException:
        _remove(target)
        raise
    return info


# ---- the database inside


def _copy_tables(index_path: Path, scratch: Path) -> Position:
    connection = apsw.Connection(
        os.fspath(scratch),
        flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI,
    )
    try:
        # Lost with the machine, it is made again.
        connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        connection.execute(schema())
        for name, _ in _indexes(connection):
            connection.execute(f"DROP INDEX {name}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        live = f"file:{quote(os.fspath(index_path))}?mode=ro"
        connection.execute("ATTACH ? AS live", (live,))
        connection.execute("BEGIN")
        for table in JOURNALED_TABLES:
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM live.{table}")
        position = _position(connection)
        for (changeset,) in connection.execute(
            "SELECT changeset FROM live.outbox ORDER BY seq DESC"
        ):
            apsw.Changeset.apply(apsw.Changeset.invert(changeset), connection, conflict=_refuse)
        connection.execute("COMMIT")
    finally:
        connection.close()
    return position


def _position(connection: apsw.Connection) -> Position:
    rows = connection.execute(
        "SELECT value FROM live.settings WHERE name = 'journal.position'"
    ).fetchall()
    if not rows:
        raise InstanceError("an index that knows of no journal has no snapshot")
    return Position.from_text(str(rows[0][0]))


def _refuse(reason: int, change: apsw.TableChange) -> int:
    raise InstanceError(f"the outbox does not fit the tree: {change.op} of {change.name}")


def _indexes(connection: apsw.Connection) -> list[tuple[str, str]]:
    """(name, SQL) of what CREATE INDEX made."""
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    )
    return [(str(name), str(sql)) for name, sql in rows]


def _complete(path: Path, position: Position) -> None:
    """Bring the database to our version, with its SQL indexes and its position."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        connection.execute(
            "INSERT INTO settings (name, value) VALUES ('journal.position', ?)",
            (position.to_text(),),
        )
    finally:
        connection.close()
    database = Database.open(path)  # migrates
    try:
        whole = apsw.Connection(":memory:")
        whole.execute(schema())
        there = {name for name, _ in _indexes(database.connection)}
        for name, sql in _indexes(whole):
            if name not in there:
                database.connection.execute(sql)
        whole.close()
    finally:
        database.close()


# ---- the file


def _pack(info: SnapshotInfo, source: BinaryIO, sink: BinaryIO) -> None:
    digest = hashlib.sha256()

    def write(data: bytes) -> None:
        digest.update(data)
        sink.write(data)

    header = _HEADER.pack(*info.position, info.created_ns, info.schema_version, info.database_size)
    write(MAGIC + header)
    packer = zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=info.database_size)
    while chunk := source.read(_CHUNK):
        write(packer.compress(chunk))
    write(packer.flush())
    sink.write(digest.digest())


def _unpack(chunks: Iterable[bytes], sink: BinaryIO) -> SnapshotInfo:
    digest = hashlib.sha256()
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
    info: SnapshotInfo | None = None
    size = 0
    held = b""  # the end of what came so far: the start at first, maybe the checksum later
    for chunk in chunks:
        held += chunk
        if info is None:
            if len(held) < START_SIZE:
                continue
            info = parse_start(held)
            digest.update(held[:START_SIZE])
            held = held[START_SIZE:]
        data, held = held[:-CHECKSUM_SIZE], held[-CHECKSUM_SIZE:]
        digest.update(data)
        size += _write(unpacker, data, sink)
        if size > info.database_size:
            raise JournalDamaged("a snapshot is damaged: its sizes are wrong")
    if info is None or digest.digest() != held:
        raise JournalDamaged("a snapshot is damaged: its checksum is wrong")
    if size != info.database_size:
        raise JournalDamaged("a snapshot is damaged: its sizes are wrong")
    return info


def _write(unpacker: zstandard.ZstdDecompressionObj, data: bytes, sink: BinaryIO) -> int:
    if not data:
        return 0
    try:
        return sink.write(unpacker.decompress(data))
    except zstandard.ZstdError as exc:
        raise JournalDamaged("a snapshot is damaged: it cannot be unpacked") from exc


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")
