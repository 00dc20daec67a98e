"""How much an index holds: counted by one scan, then kept in step with every change.

Plain arithmetic. Who calls it, and when, is in `cozyfs.index.rows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from stat import S_ISREG
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cozyfs.values import Inode

SCAN_INODES = """
    SELECT count(*),
           coalesce(sum(mode & 0xF000 = 0x8000), 0),
           coalesce(sum(iif(mode & 0xF000 = 0x8000, size, 0)), 0),
           coalesce(sum(iif(mode & 0xF000 = 0x8000, stored, 0)), 0)
    FROM inodes
"""
"""One row, the first four of :class:`Usage`. 0x8000 is S_IFREG."""

SCAN_VERSIONS = "SELECT count(*), coalesce(sum(size), 0) FROM versions"

# UNION and not UNION ALL: a file with two names counts once, a circle comes to an end.
SCAN_TRASH = """
    WITH RECURSIVE below (ino) AS (
        VALUES (2) UNION SELECT e.ino FROM entries e JOIN below b ON e.parent = b.ino
    )
    SELECT coalesce(sum(size), 0) FROM below JOIN inodes USING (ino) WHERE mode & 0xF000 = 0x8000
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes are logical sizes, as a Cozy counts them. Removed inodes that are still open count
    until they are dropped, as in ``df``."""

    inodes: int
    files: int  # regular files
    file_bytes: int
    stored_bytes: int  # of the objects of files
    versions: int = 0
    version_bytes: int = 0
    trash_bytes: int = 0  # a part of file_bytes

    @property
    def disk_bytes(self) -> int:
        """What the quota is compared with: files, in the trash or not, and versions."""
        return self.file_bytes + self.version_bytes


class UsageCounter:
    """Mutable counterpart of :class:`Usage`, with one step back. What was not counted yet, or
    changed in a way that only a scan can tell, is None."""

    __slots__ = ("_marked", "inodes", "trash", "versions")

    def __init__(self, inodes: tuple[int, int, int, int]) -> None:
        self.inodes = inodes
        self.versions: tuple[int, int] | None = None
        self.trash: int | None = None
        self.mark()

    def count(self, old: Inode | None, new: Inode | None) -> None:
        """*old* became *new*; None: there was, or is, no such row."""
        inodes, files, file_bytes, stored_bytes = self.inodes
        if old is not None:
            inodes -= 1
            if S_ISREG(old.mode):
                files -= 1
                file_bytes -= old.size
                stored_bytes -= old.stored
        if new is not None:
            inodes += 1
            if S_ISREG(new.mode):
                files += 1
                file_bytes += new.size
                stored_bytes += new.stored
        self.inodes = (inodes, files, file_bytes, stored_bytes)

    def count_version(self, number: int, size: int) -> None:
        """*number* more versions, of *size* bytes in all; negative for fewer."""
        if self.versions is not None:
            self.versions = (self.versions[0] + number, self.versions[1] + size)

    def count_trash(self, size: int) -> None:
        """So many bytes more are in the trash."""
        if self.trash is not None:
            self.trash += size

    def mark(self) -> None:
        self._marked = (self.inodes, self.versions, self.trash)

    def back_to_mark(self) -> None:
        self.inodes, self.versions, self.trash = self._marked
