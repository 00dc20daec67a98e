"""What files, their versions and the trash must be after each step: plain Python, no index.

Nothing here asks the system what it has; only numbers of inodes and names that the system chooses
are told to it. See `test_history_model.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

PASSING = b"c.tmp"
TAG = ["kept"]


@dataclass(frozen=True)
class OldContent:
    """A version."""

    data: bytes
    tagged: bool
    number: int  # grows with each that is made
    made_ns: int


@dataclass
class Document:
    """What a file is beyond its inode: renaming over a file takes it on."""

    versions: list[OldContent] = field(default_factory=list)
    tagged: bool = False


@dataclass(eq=False)
class File:
    ino: int
    doc: Document
    stored: bytes = b""
    draft: bytes | None = None
    kept: bytes | None = None
    """The draft as it was when its upload failed last: what outlives the process."""
    writers: int = 0
    handles: int = 0
    replaced: bool = False
    is_new: bool = False
    before: tuple[bytes, OldContent | None] | None = None
    refused: set[int] = field(default_factory=set)

    @property
    def data(self) -> bytes:
        return self.stored if self.draft is None else self.draft


@dataclass(eq=False)
class Dir:
    ino: int
    children: dict[bytes, File | Dir] = field(default_factory=dict)


@dataclass
class Row:
    """What the trash remembers of an inode."""

    directory: bytes
    name: bytes


@dataclass
class Saved:
    """A passing file that was removed, to come along with its directory."""

    name: bytes
    stored: bytes
    tagged: bool


class Model:
    def __init__(self, max_contents: int, min_delay_ns: int) -> None:
        self.root, self.trash = Dir(1), Dir(2)
        self.rows: dict[int, Row] = {}
        self.memory: dict[tuple[int, Dir], tuple[list[int], list[Saved]]] = {}
        self.max_contents, self.min_delay_ns = max_contents, min_delay_ns
        self._numbers = count()

    # ---- looking

    def files(self, at: Dir | None = None, path: bytes = b"") -> dict[bytes, File]:
        found = {}
        for name, node in (at or self.root).children.items():
            if isinstance(node, Dir):
                found |= self.files(node, path + b"/" + name)
            else:
                found[path + b"/" + name] = node
        return found

    def all_files(self) -> dict[bytes, File]:
        """Those in the trash as well."""
        return self.files() | self.files(self.trash, b"/.cozy_trash")

    def links(self, file: File) -> int:
        return sum(each is file for each in self.all_files().values())

    def place(self, path: bytes) -> tuple[Dir, bytes]:
        at, (*above, name) = self.root, path.split(b"/")[1:]
        if above[:1] == [b".cozy_trash"]:
            at, above = self.trash, above[1:]
        for each in above:
            at = at.children[each]
        return at, name

    # ---- contents

    def commit(self, file: File, now_ns: int, *, closing: bool = False) -> None:
        """The draft of *file* was stored."""
        changed = True
        former, file.stored = file.stored, file.draft
        versions = list(file.doc.versions)
        if not file.replaced:
            changed = self.file_former(file.doc, former, file.stored == former, now_ns)
        made = [each for each in file.doc.versions if each not in versions]
        file.draft = file.kept = None
        file.replaced = file.writers > 0 and (file.replaced or changed)
        if closing and not file.stored:
            if file.before is None:
                file.before = (former, made[0] if made else None)
        else:
            file.before, file.is_new = None, False

    def file_former(self, doc: Document, former: bytes, same: bool, now_ns: int) -> bool:
        """*former* is replaced in *doc*, by the *same* bytes or not; whether it was changed."""
        if not former:
            return True
        untagged = [each for each in doc.versions if not each.tagged]
        if self.max_contents <= 1:
            doc.versions = [each for each in doc.versions if each.tagged]
            return not same
        last = max((each.made_ns for each in doc.versions), default=None)
        keep = not same
        if last is not None and not doc.tagged:
            keep = keep and now_ns >= last + self.min_delay_ns
        excess = len(doc.versions) + keep + 1 - self.max_contents
        gone = untagged[: max(excess, 0)] if doc.versions else []
        doc.versions = [each for each in doc.versions if each not in gone]
        if keep:
            self.add_version(doc, former, doc.tagged, now_ns)
        return not same

    def add_version(self, doc: Document, data: bytes, tagged: bool, now_ns: int) -> None:
        doc.versions.append(OldContent(data, tagged, next(self._numbers), now_ns))

    def restore_version(self, file: File, version: OldContent, now_ns: int) -> None:
        if file.stored:
            self.add_version(file.doc, file.stored, file.doc.tagged, now_ns)
        file.doc.versions.remove(version)
        file.stored, file.doc.tagged = version.data, version.tagged
        file.replaced, file.before = False, None

    def give_up(self, file: File) -> None:
        """The last writer closes a file of which a write was refused."""
        file.refused.clear()
        if file.kept is not None:
            return
        before, file.before, file.draft = file.before, None, None
        if not self.links(file):
            return
        if file.is_new and not file.doc.versions:
            for path, each in self.all_files().items():
                if each is file:
                    directory, name = self.place(path)
                    del directory.children[name]
            self.rows.pop(file.ino, None)
        elif before is not None:
            file.stored, version = before
            file.doc.versions = [each for each in file.doc.versions if each is not version]

    # ---- removing

    def is_kept(self, name: bytes, file: File) -> bool:
        data = file.stored if file.handles else file.data
        return name != PASSING and bool(data or file.doc.versions)

    def into_trash(self, directory: Dir, name: bytes, path: bytes) -> File:
        """A file whose last name this is; what is open goes on without one. The inode of a file
        made for that is to be told, and so is its name in the trash."""
        file = directory.children.pop(name)
        if file.handles:
            file = File(0, file.doc, file.stored)
        self.trash.children[b"new"] = file
        self.rows[file.ino] = Row(path, name)
        return file

    def restart(self) -> None:
        """The process died: what was kept is there, other drafts are not."""
        self.memory.clear()
        for file in self.all_files().values():
            file.draft = file.kept
            file.writers = file.handles = 0
            file.replaced = file.is_new = False
            file.before = None
            file.refused.clear()
