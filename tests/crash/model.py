"""What a tree must be after a crash: a model that replays the steps a worker logged.

A step is one request that the mount acknowledges by itself. :class:`Tree` says what it does, and
:class:`History` keeps what the tree was after each one. Contents are known by a name of theirs
(:func:`content_name`), so that looking at a mount costs one pass over it. Nothing is mounted here.

The trash has every file with content that lost its last name, as it was stored last; a file has a
version of each content that was replaced, but what its writer stored in between.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field, replace

ORPHANS = ".cozy_orphans"

STREAM_FROM = 16 << 20
"""Bytes from which on a file may be sent while it is written; what its object says of names and
modes is then of any moment since."""

BARRIERS = ("fsync", "fsyncdir")


def content_name(data: bytes) -> str:
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"


def random_bytes(seed: int, size: int) -> bytes:
    """What a step that carries only the two wrote."""
    return random.Random(seed).randbytes(size)


@dataclass
class Node:
    """An inode: ``d``, ``f`` or ``l``. *draft* is what was written and not stored yet."""

    kind: str
    mode: int = 0o755
    content: bytes = b""
    target: str = ""
    doc_id: str | None = None
    xattrs: dict[str, str] = field(default_factory=dict)
    draft: bytes | None = None
    writers: int = 0
    versions: list[str] = field(default_factory=list)
    """Names of contents: all that it had, since the mounts of the tests keep each one."""
    replaced: bool = False
    """Those who write it have stored something: what they store next replaces only that."""

    @property
    def size(self) -> int:
        return len(self.content if self.draft is None else self.draft)

    @property
    def shown(self) -> tuple:
        """What a look at a mount shows of it."""
        if self.kind == "l":
            return ("l", self.target)
        content = content_name(self.content) if self.kind == "f" else ""
        return (self.kind, self.mode, content, tuple(sorted(self.xattrs.items())))


@dataclass(frozen=True)
class Upload:
    """An object that was stored: for which inode, and what it says of it."""

    number: int
    doc_id: str | None
    content: str
    names: frozenset[tuple[int, str]]  # directory's number, and name
    modes: frozenset[int]
    doc_ids: frozenset[str | None]  # one of them, where it took another document over meanwhile


class Tree:
    """Names lead to numbers of nodes; the root is 0. Paths are relative, without a slash at the
    front."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {0: Node("d")}
        self.names: dict[str, int] = {}
        self.fds: dict[int, int] = {}
        self._next = 1
        self.trash: Counter[tuple[str | None, str]] = Counter()
        """Document and name of the content of each file there, but empty ones."""
        self._past: dict[int, tuple[set[tuple[int, str]], set[int], set[str | None]]] = {}
        """What open files were called, their modes and documents, since the stream of one may
        have begun."""

    def add(self, path: str, node: Node) -> int:
        number, self._next = self._next, self._next + 1
        self.nodes[number] = node
        self.names[path] = number
        return number

    def node(self, path: str) -> Node:
        return self.nodes[self.names[path] if path else 0]

    def paths(self, kind: str) -> list[str]:
        return sorted(
            path for path, number in self.names.items() if self.nodes[number].kind == kind
        )

    def is_empty(self, path: str) -> bool:
        return not any(other.startswith(path + "/") for other in self.names)

    def names_of(self, number: int) -> frozenset[tuple[int, str]]:
        found = set()
        for path, other in self.names.items():
            if other == number:
                directory, _, name = path.rpartition("/")
                found.add((self.names[directory] if directory else 0, name))
        return frozenset(found)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            {path: (number, self.nodes[number].shown) for path, number in self.names.items()},
            {number: node.doc_id for number, node in self.nodes.items()},
            {number: Counter(node.versions) for number, node in self.nodes.items()},
            Counter(self.trash),
        )

    # ---- steps

    def apply(self, step: list, doc_id: str | None = None) -> Upload | None:
        """What *step* does; returns the object that it stored, if it did."""
        name, *words = step
        upload = getattr(self, f"_{name}")(*words)
        if name == "creat":
            self.node(words[0]).doc_id = doc_id
        for number in self.fds.values():
            names, modes, doc_ids = self._past.setdefault(number, (set(), set(), set()))
            names |= self.names_of(number)
            modes.add(self.nodes[number].mode)
            doc_ids.add(self.nodes[number].doc_id)
        return upload

    def _mkdir(self, path, mode):
        self.add(path, Node("d", mode))

    def _rmdir(self, path):
        del self.names[path]

    def _symlink(self, target, path):
        self.add(path, Node("l", target=target))

    def _link(self, old, new):
        self.names[new] = self.names[old]

    def _unlink(self, path):
        self._throw(self.names[path])
        del self.names[path]

    def _throw(self, number):
        """A name of a file goes: with the last one it is trashed, as it was stored last."""
        node = self.nodes[number]
        if node.kind == "f" and node.content and len(self.names_of(number)) == 1:
            self.trash[node.doc_id, content_name(node.content)] += 1

    def _rename(self, old, new):
        if self.names.get(new) == self.names[old]:
            return  # rename(2): two names of one file, nothing happens
        moved = {p: n for p, n in self.names.items() if p == old or p.startswith(old + "/")}
        replaced = self.names.get(new)
        if replaced is not None:
            both = (self.names[old], replaced)
            heir, former = (self.nodes[number] for number in both)
            single = all(len(self.names_of(number)) == 1 for number in both)
            if heir.kind == former.kind == "f" and single:
                heir.doc_id = former.doc_id  # as whose new content it goes on
                if heir.writers or heir.content != former.content:
                    former.versions = [*former.versions, *_version(former.content)]
                heir.versions = former.versions + heir.versions
            else:
                self._throw(replaced)
        self.names.pop(new, None)
        for path in moved:
            del self.names[path]
        for path, number in moved.items():
            self.names[new + path[len(old) :]] = number

    def _chmod(self, path, mode):
        self.node(path).mode = mode

    def _setxattr(self, path, name, value):
        self.node(path).xattrs[name] = value

    def _removexattr(self, path, name):
        del self.node(path).xattrs[name]

    def _creat(self, path, fd, mode):
        self.fds[fd] = self.add(path, Node("f", mode, draft=b"", writers=1))

    def _open(self, path, fd, truncate):
        number = self.fds[fd] = self.names[path]
        self.nodes[number].writers += 1
        if truncate:
            self.nodes[number].draft = b""

    def _write(self, fd, offset, seed, size):
        node = self.nodes[self.fds[fd]]
        data = bytearray(node.content if node.draft is None else node.draft)
        data.extend(bytes(max(offset - len(data), 0)))
        data[offset : offset + size] = random_bytes(seed, size)
        node.draft = bytes(data)

    def _truncate(self, path, size):
        number = self.names[path]
        node = self.nodes[number]
        data = node.content if node.draft is None else node.draft
        if node.draft is None and size == len(data):
            return None
        node.draft = data[:size] + bytes(max(size - len(data), 0))
        return None if node.writers else self._store(number)

    def _fsync(self, fd):
        return self._store(self.fds[fd])

    def _fsyncdir(self, path):
        pass

    def _close(self, fd):
        number = self.fds.pop(fd)
        self.nodes[number].writers -= 1
        upload = self._store(number)
        if not self.nodes[number].writers:
            self.nodes[number].replaced = False
        self._past.pop(number, None)
        return upload

    def _store(self, number: int) -> Upload | None:
        node = self.nodes[number]
        names = self.names_of(number)
        if node.draft is None or not names:
            return None
        former, node.content, node.draft = node.content, node.draft, None
        if not node.replaced and former != node.content:
            node.versions = [*node.versions, *_version(former)]
            node.replaced = True
        node.replaced = node.replaced and node.writers > 0
        modes = frozenset({node.mode})
        doc_ids = frozenset({node.doc_id})
        if node.size >= STREAM_FROM and number in self._past:
            names |= self._past[number][0]
            modes |= self._past[number][1]
            doc_ids |= self._past[number][2]
        return Upload(number, node.doc_id, content_name(node.content), names, modes, doc_ids)


@dataclass(frozen=True)
class Snapshot:
    """The tree at one moment: path -> number and what it shows."""

    names: dict[str, tuple[int, tuple]]
    doc_ids: dict[int, str | None]
    versions: dict[int, Counter[str]]
    trash: Counter[tuple[str | None, str]]


def _version(content: bytes) -> list[str]:
    """Nothing, and nothing but zeros, becomes none."""
    return [content_name(content)] if content.strip(b"\0") else []


@dataclass(frozen=True)
class Seen:
    """One entry of a mount that was looked at."""

    doc_id: str
    shown: tuple
    links: int
    versions: Counter[str]


@dataclass(frozen=True)
class Look:
    """All of a mount: its entries by path, and the trash as `Tree` has it."""

    names: dict[str, Seen]
    trash: Counter[tuple[str | None, str]]


class History:
    """The tree after each step of a round, from a first tree that is in the bucket."""

    def __init__(self, first: Tree) -> None:
        self.tree = copy.deepcopy(first)
        self.snapshots = [first.snapshot()]
        self.uploads: list[Upload | None] = [None]
        self.steps: list[list] = [["start"]]
        self.contents = {content_name(n.content): n.content for n in first.nodes.values()}
        self.acknowledged = 0
        """The last step that was; there may be one more, that was under way."""
        self.safe = 0
        """The last one that an acknowledged fsync says is in the bucket."""

    def add(self, step: list, *, done: bool, doc_id: str | None) -> None:
        upload = self.tree.apply(step, doc_id)
        self.snapshots.append(self.tree.snapshot())
        self.uploads.append(upload)
        self.steps.append(step)
        if upload is not None:
            content = self.tree.nodes[upload.number].content
            self.contents[content_name(content)] = content
        if done:
            self.acknowledged = len(self.steps) - 1
            if step[0] in BARRIERS:
                self.safe = self.acknowledged

    def acknowledged_contents(self) -> list[bytes]:
        """Every one that a step stored which was."""
        uploads = self.uploads[: self.acknowledged + 1]
        return [self.contents[each.content] for each in uploads if each is not None]

    def check_kept(self, seen: Look) -> list[str]:
        """Problems of a tree that was mounted with the state of the one that was killed."""
        return _least(
            (f"after step {moment}", _differences(self.snapshots[moment], [], seen))
            for moment in range(self.acknowledged, len(self.steps))
        )

    def check_lost(self, seen: Look) -> list[str]:
        """Problems of a tree that came from the bucket alone."""
        return _least(
            (f"tree of step {moment}, files until step {end}", self._compare(moment, end, seen))
            for end in range(self.acknowledged, len(self.steps))
            for moment in range(end, self.safe - 1, -1)
        )

    def _compare(self, moment: int, end: int, seen: Look) -> list[str]:
        newer = [u for u in self.uploads[moment + 1 : end + 1] if u is not None]
        return _differences(self.snapshots[moment], newer, seen)


def _least(tried) -> list[str]:
    best: tuple[str, list[str]] | None = None
    for what, problems in tried:
        if not problems:
            return []
        if best is None or len(problems) < len(best[1]):
            best = (what, problems)
    assert best is not None
    return [f"nearest is the {best[0]}, where {len(best[1])} differ:", *best[1]]


def _differences(was: Snapshot, newer: list[Upload], look: Look) -> list[str]:
    """Between *was* with the files of *newer* put into it, and what was seen."""
    problems = [f"not in the trash: {each}" for each in was.trash - look.trash]
    problems += [f"unexpected in the trash: {each}" for each in look.trash - was.trash]
    seen = look.names
    there = {_document(was, number) for number, _ in was.names.values()}
    latest = {upload.doc_id: upload for upload in (_settled(each, seen) for each in newer)}
    rest = dict(seen)
    ids: dict[int, str] = {}
    for path, (number, shown) in was.names.items():
        upload = latest.get(_document(was, number))
        versions = was.versions[number]
        if upload is not None:
            if not shown[2].startswith("0:"):
                versions = versions + Counter([shown[2]])  # zeros may be one here
            shown = (shown[0], shown[1], upload.content, *shown[3:])
        found = rest.pop(path, None)
        if found is None:
            problems.append(f"{path}: missing, was {shown}")
            continue
        if found.shown != shown:
            problems.append(f"{path}: is {found.shown}, was {shown}")
        if upload is None and found.versions != versions:
            problems.append(f"{path}: has the versions {found.versions}, not {versions}")
        elif missing := _more_than_zeros(versions - found.versions):
            problems.append(f"{path}: has not the versions {missing}")
        expected = was.doc_ids.get(number) or ids.setdefault(number, found.doc_id)
        if shown[0] == "f" and found.doc_id != expected:
            problems.append(f"{path}: is another file: {found.doc_id}, was {expected}")
    directories = {number: path for path, (number, _) in was.names.items()} | {0: ""}
    for doc_id, upload in latest.items():
        if doc_id not in there:
            problems += _attached(upload, was, directories, rest)
    if not newer or not any(path.startswith(ORPHANS + "/") for path in rest):
        rest = {path: found for path, found in rest.items() if path != ORPHANS}
    for path, found in rest.items():
        if not (path == ORPHANS and found.shown[0] == "d"):
            problems.append(f"{path}: unexpected, {found.shown}")
    return problems


def _more_than_zeros(contents: Counter[str]) -> list[str]:
    sizes = {name: int(name.split(":")[0]) for name in contents}
    return [name for name, size in sizes.items() if name != content_name(bytes(size))]


def _document(was: Snapshot, number: int) -> str:
    """What makes a file what it is for a mount that has only the bucket: not its number, since
    another file may have taken its document over."""
    return was.doc_ids.get(number) or f"number {number}"


def _settled(upload: Upload, seen: dict[str, Seen]) -> Upload:
    """Of which of its documents it was seen as the content."""
    for one in seen.values():
        if one.doc_id in upload.doc_ids and one.shown[2:3] == (upload.content,):
            return replace(upload, doc_id=one.doc_id)
    return upload


def _attached(
    upload: Upload, was: Snapshot, directories: dict[int, str], rest: dict[str, Seen]
) -> list[str]:
    """A file that the tree did not know: where its object says, or among the orphans."""
    places = set()
    for directory, name in upload.names:
        if directory in directories:
            above = directories[directory]
            places.add(f"{above}/{name}" if above else name)
    found = [path for path, one in rest.items() if one.doc_id == upload.doc_id]
    if len(found) != 1:
        return [f"{sorted(places) or ORPHANS}: the stored {upload} is at {found}"]
    path = found[0]
    one = rest.pop(path)
    taken = all(place in was.names or place in rest for place in places)
    in_orphans = path.startswith(ORPHANS + "/")
    problems = []
    if path not in places and not (in_orphans and (taken or len(upload.names) > 1)):
        # Another file that was attached before may have had the place.
        problems.append(f"{path}: should be at {sorted(places)}")
    kind, mode, content, xattrs = one.shown
    if kind != "f" or mode not in upload.modes or content != upload.content or xattrs:
        problems.append(f"{path}: is {one.shown}, was stored as {upload}")
    return problems
