"""Read-only mounts show what the writer did, soon, whatever the kernel had cached of it."""

from __future__ import annotations

import contextlib
import time

import pytest
from mounting import Child, eventually, run, sh
from sharing_world import Machines, follow, fs_url_of, shows

READ_OPEN_FILES = r"""
import os, sys
# Opens files, and on each line of its input says what it reads of them from their start.
fds = [os.open(path, os.O_RDONLY) for path in sys.argv[2:]]
print("open", flush=True)
while not os.path.exists(sys.argv[1]):
    __import__("time").sleep(0.05)
for fd in fds:
    data = b""
    while piece := os.read(fd, 1 << 16):
        data += piece
    print(len(data), data[:1].decode(), len(set(data)), os.fstat(fd).st_nlink)
"""


@pytest.fixture(scope="module")
def pair(store, request, tmp_path_factory):
    """A writer and a mount on another machine that follows it."""
    folder = tmp_path_factory.mktemp("pair")
    with contextlib.ExitStack() as stack:
        machines = Machines(folder, fs_url_of(store, folder, request), stack)
        # Without the trash: a link count of 0 is to be seen.
        writer = machines("a").start("--journal-interval", "0.2", "-o", "notrash")
        yield writer, follow(machines("b"))


def test_a_name_that_was_not_there_is_seen_when_it_is(pair):
    writer, reader = pair
    assert run("stat", reader / "n1").code == 1  # the kernel remembers that
    assert "n1" not in sh('ls "$1"', reader.path)
    sh('mkdir "$1/n1"; echo text > "$1/n1/f"; ln -s f "$1/n1/s"', writer.path)
    shows(reader, "cat n1/f; readlink n1/s; ls n1", "text\nf\nf\ns\n")


def test_an_overwritten_file_is_read_anew(pair):
    writer, reader = pair
    for text in ("one", "another, longer", "3"):
        sh('printf %s "$2" > "$1/o"', writer.path, text)
        shows(reader, "cat o; stat -c ' %s' o", f"{text} {len(text)}\n")
    sh('printf more >> "$1/o"; truncate -s 3 "$1/o"', writer.path)
    shows(reader, "cat o", "3mo")


def test_a_renamed_a_replaced_and_a_removed_name(pair):
    writer, reader = pair
    sh('cd "$1"; mkdir r; echo a > r/a; echo b > r/b; echo c > r/c', writer.path)
    shows(reader, "ls r; cat r/a r/b r/c", "a\nb\nc\na\nb\nc\n")
    sh('cd "$1"; mv r/a r/b; rm r/c; mv r q', writer.path)
    shows(reader, "ls q; cat q/b; ls r 2> /dev/null || echo gone", "b\na\ngone\n")


def test_attributes_and_extended_attributes(pair):
    writer, reader = pair
    look = "stat -c '%a %h %Y' t; getfattr --only-values -n user.note t 2> /dev/null || echo none"
    sh('cd "$1"; echo > t; chmod 640 t; touch -d @1000000000 t', writer.path)
    shows(reader, look, "640 1 1000000000\nnone\n")
    sh('cd "$1"; chmod 600 t; ln t t2; setfattr -n user.note -v text t', writer.path)
    shows(reader, look, "600 2 1000000000\ntext")
    sh('cd "$1"; rm t2; setfattr -x user.note t; touch -d @1000000001 t', writer.path)
    shows(reader, look, "600 1 1000000001\nnone\n")


def test_a_reader_changes_nothing(pair):
    _, reader = pair
    done = run("touch", reader / "mine")
    assert "Read-only file system" in done.err


def test_who_has_a_file_open_goes_on_reading_the_old_content_whole(pair, tmp_path):
    writer, reader = pair
    size = 3_000_000
    fill = 'head -c "$2" /dev/zero | tr "\\0" "$3" > "$1"'
    names = ("shrunk", "grown", "replaced", "removed")
    for name in names:
        sh(fill, writer / name, size, "x")
    shows(reader, "stat -c %s shrunk grown replaced removed", f"{size}\n" * 4)
    go = tmp_path / "go"
    old = Child("python3", "-c", READ_OPEN_FILES, go, *(reader / name for name in names))
    eventually(lambda: "open" in old.output())
    sh(fill, writer / "shrunk", 1000, "y")
    sh(fill, writer / "grown", 2 * size, "y")
    sh(fill, writer / "new", 2000, "y")
    sh('cd "$1"; mv new replaced; rm removed; echo > marker', writer.path)
    shows(reader, "cat marker; ls removed 2> /dev/null || echo gone", "\ngone\n")
    # Others get the new content meanwhile.
    shows(reader, "head -c 1 shrunk; wc -c < replaced; cat shrunk | wc -c", "y2000\n1000\n")
    shows(reader, "cat grown | tr -d y | wc -c; cat grown | wc -c", f"0\n{2 * size}\n")
    go.touch()
    lines = old.wait().check().out.splitlines()[1:]
    assert [line.split()[:3] for line in lines] == [[str(size), "x", "1"]] * 4
    assert lines[3].split()[3] == "0"
    # Nobody has the old ones any more.
    shows(reader, "stat -c %s shrunk grown", f"1000\n{2 * size}\n")
    shows(reader, "cat grown | tr -d y | wc -c", "0\n")


def test_a_thousand_files_and_a_follower_that_comes_late(pair):
    writer, reader = pair
    sh('mkdir "$1/many"; cd "$1/many"; for i in $(seq 300); do echo $i > f$i; done', writer.path)
    shows(reader, "ls many | wc -l; cat many/* | sort -n | tail -1", "300\n300\n")
    before = time.monotonic()
    writer.mounts.cozyfs("flush", writer.path).check()
    assert time.monotonic() - before < 10
    assert reader.status()["journal_failing_since"] is None
