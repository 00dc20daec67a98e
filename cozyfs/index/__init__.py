"""The index layer: one SQLite file holds an instance's tree of names and its queues.

What the layer above uses is named in ``__all__``; the tables are described in ``schema.sql``.
"""

from cozyfs.index.database import JOURNALED_TABLES, LOCAL_TABLES, SCHEMA_VERSION
from cozyfs.index.deletions import Deletion
from cozyfs.index.difference import difference
from cozyfs.index.outbox import NO_CHANGES, Batch, Changes, grouped
from cozyfs.index.renaming import EXCHANGE, NOREPLACE, RenameResult
from cozyfs.index.rows import MARKERS, MAX_LINKS, NO_OBJECT, NOTE_IMAGES, is_note
from cozyfs.index.scan import Scan
from cozyfs.index.trash import TrashItem
from cozyfs.index.tree import CACHE_SIZE, Index
from cozyfs.index.usage import Usage
from cozyfs.index.versions import Version

__all__ = [
    "CACHE_SIZE",
    "EXCHANGE",
    "JOURNALED_TABLES",
    "LOCAL_TABLES",
    "MARKERS",
    "MAX_LINKS",
    "NOREPLACE",
    "NOTE_IMAGES",
    "NO_CHANGES",
    "NO_OBJECT",
    "SCHEMA_VERSION",
    "Batch",
    "Changes",
    "Deletion",
    "Index",
    "RenameResult",
    "Scan",
    "TrashItem",
    "Usage",
    "Version",
    "difference",
    "grouped",
    "is_note",
]
