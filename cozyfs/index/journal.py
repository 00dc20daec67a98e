"""The form of a journal object: encoding, decoding, keys, positions. No store, no tree, no time.

An object holds the changes of some transactions in a row, merged into one changeset::

    magic           4 bytes, "CZJ1"
    header          fixed size, see ``_HEADER``; all numbers big-endian
    changeset       a zstd frame
    checksum        SHA-256 over everything before it

Each object names the one it follows by epoch, sequence and checksum, so that objects form a
chain: what an overtaken writer still sends hangs off it at the side, and is ignored
(`cozyfs.journal.chain`). Sequences go on from epoch to epoch: the object after sequence n has
sequence n + 1, whoever wrote it.

Pure functions; any thread.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

import zstandard

from cozyfs.errors import JournalDamaged

MAGIC = b"CZJ1"

CHECKSUM_SIZE = 32
NO_CHECKSUM = bytes(CHECKSUM_SIZE)

_LEVEL = 3
"""Of zstd. Level 9 takes five times as long and saves a twentieth: ids and checksums are most of
it, and random."""

MAX_CHANGESET = 1 << 30
"""Bytes; a frame that claims more is not one of ours."""

# epoch, sequence; previous epoch, sequence, checksum; created_ns; schema version;
# origin, last outbox seq; transactions; size of the changeset before and after compression
_HEADER = struct.Struct(">IQ IQ32s Q I 16sQ I QQ")

START_SIZE = len(MAGIC) + _HEADER.size
"""Bytes at the start that say everything but the changes."""

_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{12})")


class Position(NamedTuple):
    """A place in the journal: after the object with this epoch and sequence."""

    epoch: int
    sequence: int
    checksum: bytes  # 32 bytes, of that object

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"

    @property
    def place(self) -> tuple[int, int]:
        return (self.epoch, self.sequence)

    def to_text(self) -> str:
        return f"{self.epoch} {self.sequence} {self.checksum.hex()}"

    @classmethod
    def from_text(cls, text: str) -> Position:
        epoch, sequence, checksum = text.split(" ")
        return cls(int(epoch), int(sequence), bytes.fromhex(checksum))


START = Position(0, 0, NO_CHECKSUM)
"""Before the first object: the state of the first snapshot."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one journal object says."""

    epoch: int
    sequence: int
    previous: Position
    created_ns: int  # by the writer's clock
    schema_version: int
    origin: bytes  # 16 bytes: the index it was written from
    outbox_seq: int  # the last row of that index's outbox in here
    transactions: int
    changeset: bytes


def encode(record: Record) -> bytes:
    """The whole object."""
    frame = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(
        record.changeset
    )
    header = _HEADER.pack(
        record.epoch,
        record.sequence,
        *record.previous,
        record.created_ns,
        record.schema_version,
        record.origin,
        record.outbox_seq,
        record.transactions,
        len(record.changeset),
        len(frame),
    )
    data = MAGIC + header + frame
    return data + hashlib.sha256(data).digest()


def decode(data: bytes) -> tuple[Record, Position]:
    """What :func:`encode` was given, and the position after it. Raises JournalDamaged for
    anything that :func:`encode` did not make, down to a single bit."""
    body, checksum = data[:-CHECKSUM_SIZE], data[-CHECKSUM_SIZE:]
    if hashlib.sha256(body).digest() != checksum:
        raise JournalDamaged("a journal object is damaged: its checksum is wrong")
    if len(body) < len(MAGIC) + _HEADER.size or body[: len(MAGIC)] != MAGIC:
        raise JournalDamaged("a journal object has a form that this cozyfs does not know")
    (
        epoch,
        sequence,
        previous_epoch,
        previous_sequence,
        previous_checksum,
        created_ns,
        schema_version,
        origin,
        outbox_seq,
        transactions,
        size,
        frame_size,
    ) = _HEADER.unpack_from(body, len(MAGIC))
    frame = body[len(MAGIC) + _HEADER.size :]
    if len(frame) != frame_size or size > MAX_CHANGESET:
        raise JournalDamaged("a journal object is damaged: its sizes are wrong")
    record = Record(
        epoch,
        sequence,
        Position(previous_epoch, previous_sequence, previous_checksum),
        created_ns,
        schema_version,
        origin,
        outbox_seq,
        transactions,
        _decompress(frame, size),
    )
    return record, Position(epoch, sequence, checksum)


def created_ns(start: bytes) -> int:
    """When an object was made, by its writer's clock, from its first ``START_SIZE`` bytes; not
    checked against the checksum. Raises JournalDamaged."""
    if len(start) < START_SIZE or start[: len(MAGIC)] != MAGIC:
        raise JournalDamaged("a journal object has a form that this cozyfs does not know")
    return int(_HEADER.unpack_from(start, len(MAGIC))[5])


def _decompress(frame: bytes, size: int) -> bytes:
    try:
        changeset = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size)
    except zstandard.ZstdError as exc:
        raise JournalDamaged("a journal object is damaged: it cannot be unpacked") from exc
    if len(changeset) != size:
        raise JournalDamaged("a journal object is damaged: its sizes are wrong")
    return changeset


# ---- keys


def journal_prefix(db_prefix: str) -> str:
    return f"{db_prefix}/.cozyfs/journal/"


def snapshot_prefix(db_prefix: str) -> str:
    return f"{db_prefix}/.cozyfs/snapshots/"


def object_name(epoch: int, sequence: int) -> str:
    """Sorts as (epoch, sequence) does."""
    return f"{epoch:08x}-{sequence:012x}"


def parse_name(name: str) -> tuple[int, int] | None:
    """(epoch, sequence); None for any other name."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1], 16), int(match[2], 16))
