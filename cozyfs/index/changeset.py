"""What a changeset says, row by row, without a tree to apply it to. Pure; any thread."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from cozyfs.errors import JournalDamaged
from cozyfs.index.database import JOURNALED_TABLES, schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


class RowChange(NamedTuple):
    """One row made, changed or removed."""

    table: str
    op: str  # INSERT, UPDATE, DELETE
    old: Mapping[str, Any]  # by column; of an update the key and what is different
    new: Mapping[str, Any]  # of an update what is different


def rows_in(changeset: bytes, tables: Collection[str] = JOURNALED_TABLES) -> Iterator[RowChange]:
    """Of *tables*, in the order of the changeset, which has each row once. Raises JournalDamaged
    for what is no changeset."""
    columns = _columns()
    try:
        for change in apsw.Changeset.iter(changeset):
            if change.name in tables:
                names = columns[change.name]
                old, new = (_known(names, row) for row in (change.old, change.new))
                yield RowChange(change.name, change.op, old, new)
    except apsw.Error as exc:
        raise JournalDamaged(f"a change of the journal cannot be read: {exc}") from exc


def _known(names: tuple[str, ...], row: tuple[Any, ...] | None) -> dict[str, Any]:
    # A changeset of an older version has fewer columns.
    pairs = zip(names, row or (), strict=False)
    return {name: value for name, value in pairs if value is not apsw.no_change}


@cache
def _columns() -> Mapping[str, tuple[str, ...]]:
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(schema())
        return {
            table: tuple(
                str(name)
                for (name,) in connection.execute(
                    "SELECT name FROM pragma_table_info(?)", (table,)
                )
            )
            for table in JOURNALED_TABLES
        }
    finally:
        connection.close()
