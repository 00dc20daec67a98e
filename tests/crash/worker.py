"""The work that is interrupted: random steps on a mount, each one logged before and after.

``python worker.py MOUNTPOINT LOG TREE SEED``; TREE is a pickled `model.Tree` of what is there. A
line of LOG is flushed to its file before the next request, so it survives whatever happens to the
mount. Ends when the mount does, after the line "dead"; any other error of a request is an
"unexpected" line. Choices depend on the seed and the tree alone.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import sys
from pathlib import Path

from tests.crash.model import ORPHANS, Tree, random_bytes

DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
"""Of these EIO counts only where the mount is dead indeed: the log shows the difference."""

MOST_NAMES = 40
SIZES = (1, 100, 5000, 70_000, 300_000)
LARGE = 18 << 20  # sent while it is written
XATTR = "user.t."


class Worker:
    def __init__(self, root: Path, log: Path, tree: Tree, seed: str) -> None:
        self.root = root
        self.tree = tree
        self.dice = random.Random(seed)
        self.log = log.open("a", buffering=1)
        self.count = 0
        self.fds: dict[int, int] = {}  # number in the log -> descriptor
        self.writes_large = self.dice.random() < 0.25
        """Whether this run writes a large file."""

    def run(self) -> None:
        self.step("fsyncdir", "")
        while True:
            self.choose()

    def step(self, *step: object) -> None:
        self.say("begin", step)
        try:
            doc_id = self.do(list(step))
        except OSError as exc:
            self.say("dead" if exc.errno in DEAD else "unexpected", [str(exc)])
            raise SystemExit(0) from None
        self.say("done", [doc_id])
        self.tree.apply(list(step))

    def say(self, what: str, words) -> None:
        self.log.write(json.dumps([what, *words]) + "\n")

    # ---- doing

    def do(self, step: list) -> str | None:
        name, *words = step
        at = self.root.joinpath
        match name:
            case "mkdir":
                at(words[0]).mkdir(words[1])
            case "rmdir":
                at(words[0]).rmdir()
            case "symlink":
                os.symlink(words[0], at(words[1]))
            case "link":
                os.link(at(words[0]), at(words[1]))
            case "unlink":
                at(words[0]).unlink()
            case "rename":
                at(words[0]).rename(at(words[1]))
            case "chmod":
                at(words[0]).chmod(words[1])
            case "setxattr":
                os.setxattr(at(words[0]), XATTR + words[1], words[2].encode())
            case "removexattr":
                os.removexattr(at(words[0]), XATTR + words[1])
            case "truncate":
                os.truncate(at(words[0]), words[1])
            case "fsyncdir":
                fd = os.open(at(words[0]), os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            case "creat":
                path, number, mode = words
                fd = os.open(at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
                self.fds[number] = fd
                return os.getxattr(at(path), "user.cozy.id").decode()
            case "open":
                path, number, truncate = words
                fd = os.open(at(path), os.O_WRONLY | (os.O_TRUNC if truncate else 0))
                self.fds[number] = fd
            case "write":
                fd, offset, seed, size = words
                data = random_bytes(seed, size)
                done = 0
                while done < size:
                    done += os.pwrite(self.fds[fd], data[done:], offset + done)
            case "fsync":
                os.fsync(self.fds[words[0]])
            case "close":
                os.close(self.fds.pop(words[0]))
            case _:
                raise AssertionError(name)
        return None

    # ---- choosing

    def choose(self) -> None:
        dice, tree = self.dice, self.tree
        actions = {
            "save": 14,
            "overwrite": 8,
            "open_one": 4,
            "go_on": 12 if tree.fds else 0,
            "truncate": 4,
            "rename": 9,
            "link": 3,
            "unlink": 6 if len(tree.names) < MOST_NAMES else 30,
            "mkdir": 4,
            "rmdir": 3,
            "symlink": 2,
            "xattr": 5,
            "chmod": 4,
            "fsyncdir": 2,
            "big": 4 if self.writes_large else 0,
        }
        getattr(self, dice.choices(list(actions), list(actions.values()))[0])()

    def save(self) -> None:
        """As an editor does: a new file, mostly renamed over the one it replaces."""
        path, fd = self.new_path(), self.new_fd()
        if path is None or fd is None:
            return
        self.step("creat", path, fd, self.dice.choice((0o644, 0o600)))
        for _ in range(self.dice.randrange(4)):
            self.write(fd)
        if self.dice.random() < 0.15:
            self.step("fsync", fd)
        self.step("close", fd)
        old = self.pick("f")
        if self.dice.random() < 0.3 and old not in (None, path):
            self.step("rename", path, old)

    def overwrite(self) -> None:
        if fd := self.opened():
            self.write(fd)
            self.step("close", fd)

    def open_one(self) -> None:
        """Left open, so that what follows happens to an open file."""
        if self.dice.random() < 0.5:
            self.opened()
        elif (path := self.new_path()) and (fd := self.new_fd()):
            self.step("creat", path, fd, 0o644)

    def go_on(self) -> None:
        fd = self.dice.choice(sorted(self.tree.fds))
        what = self.dice.random()
        if what < 0.5:
            self.write(fd)
        else:
            self.step("fsync" if what < 0.65 else "close", fd)

    def truncate(self) -> None:
        if path := self.pick("f"):
            size = self.tree.node(path).size
            self.step("truncate", path, self.dice.choice((0, size // 2, size + 1000)))

    def rename(self) -> None:
        dice, tree = self.dice, self.tree
        kind = dice.choice("fffdl")
        old = self.pick(kind)
        new = self.pick(kind) if dice.random() < 0.3 else self.new_path()
        if old is None or new is None or new == old:
            return
        if kind == "d" and (
            new.startswith(old + "/") or (new in tree.names and not tree.is_empty(new))
        ):
            return
        self.step("rename", old, new)

    def link(self) -> None:
        old, new = self.pick("f"), self.new_path()
        if old and new:
            self.step("link", old, new)

    def unlink(self) -> None:
        if path := self.pick(self.dice.choice("fffl")):
            self.step("unlink", path)

    def mkdir(self) -> None:
        if path := self.new_path():
            self.step("mkdir", path, 0o755)

    def rmdir(self) -> None:
        path = self.pick("d")
        if path and self.tree.is_empty(path):
            self.step("rmdir", path)

    def symlink(self) -> None:
        if path := self.new_path():
            self.step("symlink", f"to-{self.count}", path)

    def xattr(self) -> None:
        path = self.pick(self.dice.choice("fd"))
        if path is None:
            return
        name = self.dice.choice("ab")
        if name in self.tree.node(path).xattrs and self.dice.random() < 0.4:
            self.step("removexattr", path, name)
        else:
            self.step("setxattr", path, name, str(self.dice.random()))

    def chmod(self) -> None:
        if path := self.pick(self.dice.choice("ffd")):
            self.step("chmod", path, self.dice.choice((0o700, 0o755, 0o711, 0o777)))

    def fsyncdir(self) -> None:
        self.step("fsyncdir", self.pick("d") or "")

    def big(self) -> None:
        """A file that leaves while it is written; its beginning may be changed after that."""
        path, fd = self.new_path(), self.new_fd()
        if path is None or fd is None:
            return
        self.writes_large = False
        self.step("creat", path, fd, 0o644)
        for start in range(0, LARGE, 1 << 20):
            self.step("write", fd, start, self.dice.getrandbits(32), 1 << 20)
        for _ in range(self.dice.randrange(3)):
            self.step("write", fd, self.dice.randrange(LARGE), self.dice.getrandbits(32), 1000)
        self.step("close", fd)
        self.step("truncate", path, 1000)

    # ---- helpers

    def write(self, fd: int) -> None:
        size = self.tree.nodes[self.tree.fds[fd]].size
        offset = self.dice.choice((size, size, 0, self.dice.randrange(size + 1)))
        self.step("write", fd, offset, self.dice.getrandbits(32), self.dice.choice(SIZES))

    def opened(self) -> int | None:
        path, fd = self.pick("f"), self.new_fd()
        if path is None or fd is None or self.tree.node(path).writers:
            return None
        self.step("open", path, fd, self.dice.random() < 0.4)
        return fd

    def new_fd(self) -> int | None:
        return next((fd for fd in range(1, 4) if fd not in self.tree.fds), None)

    def pick(self, kind: str) -> str | None:
        paths = [path for path in self.tree.paths(kind) if path != ORPHANS]
        return self.dice.choice(paths) if paths else None

    def new_path(self) -> str | None:
        """Names are few, so that they come again."""
        shallow = [path for path in self.tree.paths("d") if path.count("/") < 3]
        directory = self.dice.choice(["", *shallow])
        name = f"n{self.dice.randrange(25)}"
        path = f"{directory}/{name}" if directory else name
        self.count += 1
        return None if path in self.tree.names else path


def main() -> None:
    root, log, tree, seed = sys.argv[1:]
    os.umask(0)
    Worker(Path(root), Path(log), pickle.loads(Path(tree).read_bytes()), seed).run()


if __name__ == "__main__":
    main()
