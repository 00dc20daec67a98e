"""What tells two index files apart, as one changeset: blocking, for worker threads.

For a tree that cannot go from change to change any more, because the changes are gone, and has to
become what another file says (`cozyfs.journal.rejoin`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw

from cozyfs.index.database import JOURNALED_TABLES, translated

if TYPE_CHECKING:
    from pathlib import Path


def difference(old: Path, new: Path) -> bytes:
    """What `Index.apply` turns the tree in *old* into that in *new* with. Both have our version of
    the schema, and nobody changes them meanwhile. Held in memory: some hundred bytes for each row
    that differs. Raises CozyError."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        connection = apsw.Connection(os.fspath(new), flags=flags)
        try:
            connection.execute("ATTACH ? AS old", (f"file:{quote(os.fspath(old))}?mode=ro",))
            session = apsw.Session(connection, "main")
            try:
                for table in JOURNALED_TABLES:
                    session.attach(table)
                    session.diff("old", table)
                return session.changeset()
            finally:
                session.close()
        finally:
            connection.close()
    except apsw.Error as exc:
        raise translated(exc, old) from exc
