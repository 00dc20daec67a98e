"""Which former contents of a file stay as versions, and when that is decided.

The rule is a pure function, :func:`find_versions_to_clean`; `Versions` applies it inside the index
transaction in which a file gets another content, or is replaced by another file. A version is a
row: its object is the former current object, which is never copied or moved.

An empty content, and one that is nothing but zeros and has no object, is never a version: nothing
would be lost with it.

What people do with versions (list, restore, remove, ...) is in `cozyfs.vfs.history`. Plain calls
on the event loop.
"""

from __future__ import annotations

import enum
import json
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from cozyfs.errors import NotFound
from cozyfs.index import Version
from cozyfs.vfs.documents import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cozyfs.index import Index
    from cozyfs.values import Ino, Inode, VersionRules


class Action(enum.Enum):
    """What becomes of a content that was replaced."""

    KEEP = "keep"
    CLEAN = "clean"
    NOTHING = "do nothing"  # it is a version already


def find_versions_to_clean(
    candidate: Version, olds: Sequence[Version], rules: VersionRules, *, same_content: bool = False
) -> tuple[Action, list[Version]]:
    """What to do with *candidate*, a content that was just replaced, and which of the versions
    that its file has to remove, the oldest first.

    As a Cozy decides, but that versions with tags stay also where no versions are wanted, that a
    number of 1 means the current content alone, that a content which was replaced by the same one
    (*same_content*) does not push an older version out, and that a version from the future, made
    while a clock was wrong, does not keep others from being made until then.
    """
    untagged = [old for old in sorted(olds, key=lambda old: old.created_ns) if not _tags(old)]
    if rules.max_number <= 1:
        return Action.CLEAN, untagged
    if any(old.internal_id == candidate.internal_id for old in olds):
        return Action.NOTHING, []
    action = Action.KEEP
    if olds and not _tags(candidate):
        last_ns = max(old.created_ns for old in olds)
        delay_ns = round(rules.min_delay_s * 1e9)
        if last_ns <= candidate.created_ns < last_ns + delay_ns:
            action = Action.CLEAN
    if same_content:
        action = Action.CLEAN
    excess = len(olds) + 1 - rules.max_number + (action is Action.KEEP)
    return action, untagged[: max(excess, 0)] if olds else []


class Versions:
    """The rule at work on one index. Every method belongs in a transaction of the caller."""

    def __init__(self, index: Index, rules: VersionRules) -> None:
        self._index = index
        self.rules = rules

    def file_former(self, inode: Inode, new_md5: bytes | None, now_ns: int) -> bool:
        """*inode* is about to get another content, whose MD5 is *new_md5* where it is known: let
        the one it has become a version, if the rules want it. False: the new content is the same
        as the one that goes."""
        if not has_content(inode):
            return True
        same = inode.md5 is not None and inode.md5 == new_md5
        candidate = version_of(inode, self._index.document(inode.ino), now_ns)
        olds = self._index.versions_of(inode.doc_id)
        action, cleaned = find_versions_to_clean(candidate, olds, self.rules, same_content=same)
        if action is Action.KEEP:
            self._index.add_version(candidate)
        for old in cleaned:
            self._index.remove_version(old, now_ns)
        return not same

    def inherit(self, heir: Inode, former: Inode, heir_md5: bytes | None, now_ns: int) -> bool:
        """The file *heir*, whose content has *heir_md5* if that is known, is about to be renamed
        over *former*, as editors and rsync save: the content of *former* becomes a version, and
        *heir* goes on as its document. Nothing happens, and False is returned, where other names
        of one of the two would be concerned, or one is no regular file."""
        for inode in (heir, former):
            if not S_ISREG(inode.mode) or inode.nlink != 1:
                return False
        if heir.ino == former.ino:
            return False
        self.file_former(former, heir_md5, now_ns)
        self._index.inherit(heir.ino, former.ino)
        return True


def keep_former(index: Index, ino: Ino, now_ns: int) -> None:
    """Let the content of a file become a version, whatever the rules: in the transaction that
    gives the file another one. Raises NotFound."""
    inode = index.get(ino)
    if not has_content(inode):
        return
    version = version_of(inode, index.document(ino), now_ns)
    if all(old.internal_id != version.internal_id for old in index.versions_of(inode.doc_id)):
        index.add_version(version)


def has_content(inode: Inode) -> bool:
    """Whether there is something that a version could keep."""
    return inode.size > 0 and inode.internal_id is not None


def version_of(inode: Inode, fields: dict[str, Any], now_ns: int) -> Version:
    """The version that the content of *inode*, whose document has *fields*, would be if it became
    one at *now_ns*. Raises NotFound when there is no object."""
    if inode.internal_id is None:
        raise NotFound(f"inode {inode.ino} has no object")
    return Version(
        doc_id=inode.doc_id,
        internal_id=inode.internal_id,
        created_ns=now_ns,
        updated_ns=inode.mtime_ns,
        size=inode.size,
        stored=inode.stored,
        md5=inode.md5,
        etag=inode.etag,
        extents=inode.extents,
        object_doc_id=inode.object_doc_id,
        fields=encode_fields(version_fields(fields, inode.mtime_ns, now_ns)),
    )


def version_fields(fields: dict[str, Any], updated_ns: int, now_ns: int) -> dict[str, Any]:
    """The fields of a version that no column says, from those of its file."""
    of_file = fields.get("cozyMetadata") or {}
    metadata: dict[str, Any] = {
        "doctypeVersion": "1",
        "metadataVersion": 1,
        "createdAt": format_time(now_ns),
        "updatedAt": format_time(now_ns),
        "uploadedAt": of_file.get("uploadedAt") or format_time(updated_ns),
    }
    if uploaded_on := of_file.get("uploadedOn"):
        metadata |= {"createdOn": uploaded_on, "uploadedOn": uploaded_on}
    if uploaded_by := of_file.get("uploadedBy"):
        metadata["uploadedBy"] = uploaded_by
    made = {"tags": list(fields.get("tags") or []), "cozyMetadata": metadata}
    return made | ({"metadata": fields["metadata"]} if fields.get("metadata") else {})


def encode_fields(fields: dict[str, Any]) -> str:
    """As `Version.fields` has them: the same fields are always the same text."""
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _tags(version: Version) -> list[str]:
    return version.document.get("tags") or []
