"""Rounds of work, kill -9, mount again, compare. See `run.py` for the command.

A round begins on the tree that the one before left behind. What differs is told by
:class:`Differs`, and the folder of the round keeps the log of its steps and of its mounts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from cozyfs.config import parse_fs_url
from cozyfs.store import open_store
from tests.crash.model import History, Look, Node, Seen, Tree
from tests.fuse.mounting import DOMAIN, ROOT, Child, Mount, Mounts, eventually, mounted_at, run

MODES = ("kept", "lost")
"""What is there for the mount after the crash: the state directory, or the bucket alone."""

CHECK_EVERY = 10
"""Rounds, from one check by ``cozyfs fsck`` to the next."""

SENT_AS_ONE = 1 << 20
"""Bytes up to which a content is sent in one go: its ETag is its MD5."""

TRASH = ".cozy_trash"

LOOK = r"""
import base64, hashlib, json, os, stat, sys
root, found = sys.argv[1], []
def look(path):
    full = os.path.join(root, path)
    st = os.lstat(full)
    kind = {stat.S_IFDIR: "d", stat.S_IFLNK: "l"}.get(stat.S_IFMT(st.st_mode), "f")
    entry = {"path": path, "kind": kind, "mode": stat.S_IMODE(st.st_mode), "links": st.st_nlink}
    if kind == "l":
        entry["target"], entry["id"] = os.readlink(full), ""
    else:
        entry["id"] = os.getxattr(full, "user.cozy.id").decode()
        names = [n for n in os.listxattr(full) if n.startswith("user.t.")]
        entry["xattrs"] = {n[len("user.t."):]: os.getxattr(full, n).decode() for n in names}
    if kind == "f":
        data = read(full)
        assert len(data) == st.st_size, (path, len(data), st.st_size)
        entry["content"] = name_of(data)
        if not path.startswith(".cozy_trash/"):
            folder = os.path.join(root, ".cozy_versions", path)
            contents = [read(os.path.join(folder, name)) for name in versions(folder)]
            entry["versions"] = [name_of(data) for data in contents if data.strip(b"\0")]
    found.append(entry)
    return kind
def read(path):
    with open(path, "rb") as file:
        return file.read()
def name_of(data):
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"
def versions(folder):
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
def walk(path):
    for name in sorted(os.listdir(os.path.join(root, path))):
        below = os.path.join(path, name)
        if below != ".cozy_trash" and look(below) == "d":
            walk(below)
walk("")
walk(".cozy_trash")
print(json.dumps(found))
"""


class Differs(Exception):
    """What the mount shows is not what it may show."""


class Rounds:
    """Rounds on one store. *folder* is used for everything, and every mount ends with
    :meth:`end`."""

    def __init__(self, folder: Path, fs_url: str, seed: str, *, work_s: float = 1.0) -> None:
        self.folder = folder
        self.seed = seed
        self.work_s = work_s
        self.steps = 0
        self._mounts = Mounts(folder / "m", fs_url)
        self._fs_url = fs_url
        self._stored: set[str] = set()
        """MD5s of what was acknowledged: nothing is old enough to be deleted in these rounds."""
        self._path = self._mounts.new_path()
        self._mount: Mount | None = None
        self._tree = Tree()
        self._number = 0

    def end(self) -> None:
        """Whatever is still mounted is unmounted."""
        self._mounts.expected = [".*"]
        self._mounts.close()

    def round(self, mode: str) -> str:
        """One round; returns a line about it. Raises Differs."""
        number, self._number = self._number, self._number + 1
        dice = random.Random(f"{self.seed}/{number}")
        folder = self.folder / f"round{number}"
        folder.mkdir()
        mount = self._mount or self._start(dice)
        worker = self._work(mount, folder, f"{self.seed}/{number}/work")
        time.sleep(dice.uniform(0.1, 1.0) * self.work_s)
        if not worker.running:
            raise Differs(f"the worker ended by itself\n{worker.wait().err}{_tail(folder)}")
        mount.kill()
        self._unmount_path()
        done = worker.wait()
        history = self._history(folder, done.err)
        if mode == "lost":
            shutil.rmtree(self._mounts.folder / "state")
        interrupted = 0
        while dice.random() < 0.25:
            self._die_while_mounting(folder, dice.uniform(0.5, 2.0))
            interrupted += 1
            if mode == "lost" and dice.random() < 0.5:
                shutil.rmtree(self._mounts.folder / "state", ignore_errors=True)
        self._mount = mount = self._start(dice)
        seen, entries = self._look(mount)
        problems = history.check_kept(seen) if mode == "kept" else history.check_lost(seen)
        problems += _wrong_links(entries)
        problems += self._gone_from_the_store(history)
        if problems:
            shutil.copy(mount._log_file, folder)
            raise Differs("\n".join([*problems[:12], *_tail(folder), f"kept in {folder}"]))
        self._tree = _tree_of(entries, seen, history)
        if self._number % CHECK_EVERY == 0:
            self.check()
        elif dice.random() < 0.2:  # the next one begins after an end in order
            mount.unmount()
            self._mount = None
        self.steps += len(history.steps)
        shutil.rmtree(folder)
        return (
            f"{mode:4} {len(history.steps):4} steps, {history.acknowledged - history.safe:4} after"
            f" the last fsync, {len(seen.names):3} names, {seen.trash.total():4} in the trash,"
            f" {interrupted} mounts interrupted"
        )

    def check(self) -> None:
        """``cozyfs fsck`` finds nothing, neither beside the mount nor after it. Raises Differs."""
        if self._mount is not None:
            self._fsck()
            self._mount.unmount()
            self._mount = None
        self._fsck("--deep")

    # ---- inside

    def _fsck(self, *options: str) -> None:
        done = self._mounts.cozyfs("fsck", *options, DOMAIN, timeout_s=120)
        if done.code or done.out:
            raise Differs(f"fsck {' '.join(options)}: exit code {done.code}\n{done.out}{done.err}")

    def _gone_from_the_store(self, history: History) -> list[str]:
        acknowledged = history.acknowledged_contents()
        small = [each for each in acknowledged if 0 < len(each) <= SENT_AS_ONE]
        self._stored |= {hashlib.md5(each).hexdigest() for each in small}
        with contextlib.closing(open_store(parse_fs_url(self._fs_url))) as store:
            found = {
                info.etag for bucket in store.list_buckets() for info in store.list(bucket, "")
            }
        return [f"gone from the store: {etag}" for etag in sorted(self._stored - found)]

    def _start(self, dice: random.Random) -> Mount:
        interval = dice.choice((0.05, 0.3, 1.0, 5.0))
        options = ("--journal-interval", interval, "--force-lease", "--timeout", 10)
        options += ("--version-delay", 0, "--max-versions", 100_000)
        return self._mounts.start(*options, path=self._path)

    def _work(self, mount: Mount, folder: Path, seed: str) -> Child:
        (folder / "tree").write_bytes(pickle.dumps(self._tree))
        log = folder / "steps"
        program = Path(__file__).with_name("worker.py")
        child = Child(
            sys.executable, program, mount.path, log, folder / "tree", seed,
            env={"PYTHONPATH": os.fspath(ROOT)},
        )  # fmt: skip
        eventually(lambda: not child.running or (log.exists() and '["done"' in log.read_text()))
        return child

    def _history(self, folder: Path, errors: str) -> History:
        if errors:
            raise Differs(f"the worker failed:\n{errors}")
        history = History(self._tree)
        begun: list | None = None
        for line in (folder / "steps").read_text().splitlines():
            what, *words = json.loads(line)
            if what == "begin":
                begun = words
            elif what == "done":
                assert begun is not None
                history.add(begun, done=True, doc_id=words[0])
                begun = None
            elif what == "unexpected":
                raise Differs("\n".join([f"{begun}: {words}", *_tail(folder)]))
        if begun is not None:
            history.add(begun, done=False, doc_id=None)
        return history

    def _die_while_mounting(self, folder: Path, after_s: float) -> None:
        env = {**os.environ, **self._mounts.env}
        command = [sys.executable, "-m", "cozyfs", "mount", "--foreground", "--create"]
        command += ["--force-lease", DOMAIN, os.fspath(self._path)]
        with (folder / "interrupted.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd="/"
            )
        time.sleep(after_s)
        process.kill()
        process.wait(10)
        self._unmount_path()

    def _unmount_path(self) -> None:
        """Of a mount whose process is dead."""
        if mounted_at(self._path):
            tool = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
            run(*tool, self._path).check()

    def _look(self, mount: Mount) -> tuple[Look, list[dict]]:
        done = run(sys.executable, "-c", LOOK, mount.path)
        if done.code:
            raise Differs(f"the tree cannot be read:\n{done.err}\n{mount.log}")
        found = done.json()
        entries = [e for e in found if not e["path"].startswith(f"{TRASH}/")]
        trashed = [e for e in found if e["path"].startswith(f"{TRASH}/") and e["kind"] == "f"]
        trash = Counter((e["id"], e["content"]) for e in trashed)
        names = {
            e["path"]: Seen(e["id"], _shown(e), e["links"], Counter(e.get("versions", ())))
            for e in entries
        }
        return Look(names, Counter({k: n for k, n in trash.items() if k[1][:2] != "0:"})), entries


def _shown(entry: dict) -> tuple:
    if entry["kind"] == "l":
        return ("l", entry["target"])
    xattrs = tuple(sorted(entry["xattrs"].items()))
    return (entry["kind"], entry["mode"], entry.get("content", ""), xattrs)


def _wrong_links(entries: list[dict]) -> list[str]:
    ids = [entry["id"] for entry in entries if entry["kind"] == "f"]
    return [
        f"{e['path']}: {e['links']} links, {ids.count(e['id'])} names"
        for e in entries
        if e["kind"] == "f" and e["links"] != ids.count(e["id"])
    ]


def _tree_of(entries: list[dict], seen: Look, history: History) -> Tree:
    """The model of what was seen: what the next round begins with."""
    tree = Tree()
    tree.trash = seen.trash
    numbers: dict[str, int] = {}
    for entry in sorted(entries, key=lambda entry: entry["path"]):
        if entry["kind"] == "l":
            tree.add(entry["path"], Node("l", target=entry["target"]))
        elif entry["kind"] == "f" and entry["id"] in numbers:
            tree.names[entry["path"]] = numbers[entry["id"]]
        else:
            node = Node(entry["kind"], entry["mode"], xattrs=entry["xattrs"], doc_id=entry["id"])
            if entry["kind"] == "f":
                node.content = history.contents[entry["content"]]
                node.versions = entry["versions"]
            numbers[entry["id"]] = tree.add(entry["path"], node)
    return tree


def _tail(folder: Path) -> list[str]:
    log = folder / "steps"
    lines = log.read_text().splitlines()[-14:] if log.exists() else []
    return ["last steps:", *(f"  {line}" for line in lines)]
