"""POSIX access control lists as the kernel passes them: little-endian extended attributes.

The kernel evaluates them (FUSE_POSIX_ACL); what it leaves to the file system is here: keeping
the permission bits in step (acl(5), "Correspondence between ACL entries and file permission
bits") and inheriting a directory's default list.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from cozyfs.errors import InvalidRequest

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")

_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


class Entry(NamedTuple):
    tag: int
    permissions: int
    id: int


def parse(value: bytes) -> list[Entry]:
    """Raises InvalidRequest for what no kernel would send."""
    body = len(value) - _HEADER.size
    if body < 0 or body % _ENTRY.size or _HEADER.unpack_from(value)[0] != _VERSION:
        raise InvalidRequest("malformed access control list")
    return [Entry(*fields) for fields in _ENTRY.iter_unpack(value[_HEADER.size :])]


def encode(entries: list[Entry]) -> bytes:
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def is_minimal(entries: list[Entry]) -> bool:
    """Whether the list says nothing that permission bits cannot."""
    return all(entry.tag in (_USER_OBJ, _GROUP_OBJ, _OTHER) for entry in entries)


def permissions(entries: list[Entry], mode: int) -> int:
    """*mode* with the permission bits that the list implies: the mask, where there is one,
    stands for the group."""
    by_tag = {entry.tag: entry.permissions for entry in entries}
    group = by_tag.get(_MASK, by_tag.get(_GROUP_OBJ, 0))
    return mode & ~0o777 | by_tag.get(_USER_OBJ, 0) << 6 | group << 3 | by_tag.get(_OTHER, 0)


def with_permissions(entries: list[Entry], mode: int) -> list[Entry]:
    """The list after a chmod to *mode*."""
    has_mask = any(entry.tag == _MASK for entry in entries)
    shifts = {_USER_OBJ: 6, _MASK if has_mask else _GROUP_OBJ: 3, _OTHER: 0}
    return [
        entry._replace(permissions=mode >> shifts[entry.tag] & 7) if entry.tag in shifts else entry
        for entry in entries
    ]


def inherited(default: list[Entry], mode: int) -> tuple[list[Entry], int]:
    """The access list of a new file in a directory with *default*, and its permission bits: the
    list cut by the bits the creator asked for (acl(5), "Object creation and default ACLs")."""
    asked = {_USER_OBJ: mode >> 6, _MASK: mode >> 3, _OTHER: mode}
    if not any(entry.tag == _MASK for entry in default):
        asked[_GROUP_OBJ] = mode >> 3
    entries = [
        entry._replace(permissions=entry.permissions & asked.get(entry.tag, 7) & 7)
        for entry in default
    ]
    return entries, permissions(entries, mode)
