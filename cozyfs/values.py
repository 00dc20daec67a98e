"""Values that cross a layer: immutable, parsed once on the way in, then trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, NewType

Ino = NewType("Ino", int)
"""An inode's number, the same on every machine, never reused."""

Fh = NewType("Fh", int)
"""One open file or directory of this mount."""

ROOT_INO = Ino(1)
TRASH_INO = Ino(2)

ROOT_DOC_ID = "io.cozy.files.root-dir"
TRASH_DOC_ID = "io.cozy.files.trash-dir"
TRASH_NAME = b".cozy_trash"

MAX_FILE_SIZE = 5 << 40
"""Bytes: the largest object that S3 keeps."""


class Inode(NamedTuple):
    """One row of the table ``inodes``. A NamedTuple, since rows become inodes on every lookup."""

    ino: Ino
    doc_id: str
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int  # bytes, logical
    stored: int  # bytes in the object; less than ``size`` when holes were left out
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    target: bytes | None  # of a symbolic link
    internal_id: str | None  # of the current object; None: no object, all zeros
    md5: bytes | None  # 16 raw bytes of the whole content; None: not known
    etag: str | None  # the store's, opaque
    extents: bytes | None  # encoded data extents of a sparse content; None: dense
    object_doc_id: str | None = None  # document id in the object's key; None: doc_id

    @property
    def content_doc_id(self) -> str:
        """The document id in the key of the object."""
        return self.object_doc_id or self.doc_id


@dataclass(frozen=True, slots=True)
class Content:
    """What a flush made of a draft: the object that an inode is about to point at."""

    internal_id: str | None
    size: int
    stored: int
    md5: bytes | None
    etag: str | None
    extents: bytes | None = None
    doc_id: str | None = None  # in the object's key; None: that of the inode


@dataclass(frozen=True, slots=True)
class AttributeChanges:
    """What setattr asks for; None leaves a field alone. Times in nanoseconds since 1970."""

    mode: int | None = None  # permission bits only
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class VersionRules:
    """Which former contents of files stay; the defaults are a Cozy's."""

    max_number: int = 20  # of contents of a file, the current one counts; 0: keep no version
    min_delay_s: float = 15 * 60.0


@dataclass(frozen=True, slots=True)
class Instance:
    """One person's Cozy, as kept in ``<db_prefix>/.cozyfs/instance.json`` of its bucket."""

    domain: str
    org: str  # "" when the instance has none
    db_prefix: str
    bucket: str
    context: str = ""
    quota: int = 0  # bytes; 0: unlimited
    created_at: str = ""  # RFC 3339, UTC
    max_versions: int | None = None  # as in VersionRules; None: as configured
    version_delay_s: float | None = None
    trash_age_s: int | None = None  # what is in the trash for longer goes; 0: never; None: default
    deleting: bool = False  # its destruction has begun
