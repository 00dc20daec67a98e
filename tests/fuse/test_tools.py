"""Ordinary tools on a mount: they work as they do on any disk."""

from __future__ import annotations

import json

from mounting import Child, python, root_only, run, sh

TREE = r"""
cd "$1"
mkdir -p tree/sub/deep tree/empty "tree/with space"
echo one > tree/one; echo two > tree/sub/two; : > tree/nothing
head -c 3000000 /dev/urandom > tree/sub/deep/big
printf 'umlauts' > "tree/with space/äöü €"
ln -s ../one tree/sub/link; ln -s nowhere tree/dangling
ln tree/one tree/sub/hard
chmod 640 tree/one; chmod 4755 tree/sub/two; chmod 2750 tree/sub; chmod 1777 tree/empty
setfattr -n user.colour -v green tree/one
setfattr -n user.colour -v blue tree/sub
touch -d '2001-02-03 04:05:06.123456789' tree/one tree/nothing
touch -h -d '2011-02-03 04:05:06.5' tree/dangling
touch -d '1999-12-31 23:59:59.999999999' tree/sub tree/empty
"""

DESCRIBE = r"""
cd "$1"
find . -type d -printf '%p %y %m %U %G %T@\n' -o -printf '%p %y %m %n %U %G %s %T@ %l\n' | sort
find . -type f -exec md5sum {} + | sort
getfattr -R -P -h -d . | sort
"""


def describe(path):
    """All that cp -a keeps, as text."""
    return sh(DESCRIBE, path)


def make_tree(outside):
    sh(TREE, outside)
    return outside / "tree"


def test_cp_a_keeps_modes_times_links_and_attributes(place, outside):
    tree = make_tree(outside)
    sh('cp -a "$1" "$2"; diff -r --no-dereference "$1" "$2/tree"', tree, place)
    assert describe(place / "tree") == describe(tree)


def test_cp_a_within_the_mount_and_back_changes_nothing(place, outside):
    tree = make_tree(outside)
    sh('cp -a "$1" "$2/a"; cp -a "$2/a" "$2/b"; cp -a "$2/b" "$3/back"', tree, place, outside)
    assert describe(outside / "back") == describe(tree)


def test_rsync_a_second_time_transfers_nothing(place, outside):
    tree = make_tree(outside)
    rsync = 'rsync -aHX --itemize-changes "$1/" "$2/"'
    assert sh(rsync, tree, place)
    assert sh(rsync, tree, place) == ""
    assert sh('rsync -aHXc --itemize-changes "$1/" "$2/"', tree, place) == ""


def test_rsync_in_place_and_delete_follow_changes(place, outside):
    tree = make_tree(outside)
    sh('rsync -a "$1/" "$2/"', tree, place)
    sh('cd "$1"; echo more >> sub/deep/big; rm one sub/hard; echo new > new', tree)
    sh('rsync -a --inplace --no-whole-file --delete "$1/" "$2/"', tree, place)
    sh('diff -r --no-dereference "$1" "$2"', tree, place)


def test_git_works_in_the_mount(place, outside):
    script = r"""
    export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a
    export GIT_COMMITTER_EMAIL=a@b
    cd "$1"
    git init -q -b main repo; cd repo
    for i in $(seq 30); do echo "$i" > "file$i"; done
    git add .; git commit -q -m first
    git checkout -q -b other; git mv file1 file31; echo x >> file2; git commit -q -a -m second
    git checkout -q main; git merge -q other; git gc -q
    cd ..; git clone -q repo clone
    git -C clone fsck --strict 2>/dev/null; git -C repo status --porcelain
    git -C clone log --format=%s
    """
    assert sh(script, place).split() == ["second", "first"]


def test_tar_packs_and_unpacks(place, outside):
    tree = make_tree(outside)
    sh(
        'tar --xattrs -C "$1" -czf "$2/t.tgz" tree; cd "$2"; tar --xattrs -xzpf t.tgz',
        outside,
        place,
    )
    assert describe(place / "tree") == describe(tree)


def test_dd_with_fsync_writes_what_was_read(place, outside):
    sh(
        'dd if=/dev/urandom of="$1/in" bs=1M count=10 status=none;'
        'dd if="$1/in" of="$2/out" bs=64k conv=fsync status=none; cmp "$1/in" "$2/out"',
        outside,
        place,
    )


def test_dd_without_truncation_changes_the_middle_of_a_file(place, outside):
    script = r"""
    head -c 8000000 /dev/urandom > "$1/f"; cp "$1/f" "$2/f"
    for d in "$1" "$2"; do
        printf hello | dd of="$d/f" bs=1 seek=5000001 conv=notrunc status=none
        truncate -s 7000000 "$d/f"; truncate -s 7500000 "$d/f"
    done
    cmp "$1/f" "$2/f"
    """
    sh(script, outside, place)


def test_mv_moves_folders_with_what_is_in_them(place, outside):
    tree = make_tree(outside)
    script = 'cp -a "$1" "$2/a"; mkdir "$2/b"; mv "$2/a" "$2/b/c"; mv "$2/b" "$2/d"'
    sh(script + '; mv "$2/d/c" "$2/c"; test ! -e "$2/a"', tree, place)
    assert describe(place / "c") == describe(tree)


def test_a_folder_cannot_be_moved_into_itself(place):
    code = "import os, sys; os.rename(sys.argv[1], sys.argv[1] + '/b')"
    sh('mkdir "$1/a"', place)
    done = run("python3", "-c", code, place / "a")
    assert "Errno 22" in done.err


def test_find_sees_each_file_once(place):
    sh('cd "$1"; mkdir d{1..10}; touch d{1..10}/f{1..10}', place)
    assert sh('find "$1" -type f | sort -u | wc -l', place) == "100\n"
    assert sh('find "$1" | wc -l', place) == "111\n"


def test_a_sparse_file_takes_no_room_for_its_holes(place):
    sh('truncate -s 1G "$1/sparse"; printf end | dd of="$1/sparse" seek=1G bs=1 oflag=seek_bytes '
       "conv=notrunc status=none", place)  # fmt: skip
    assert sh('stat -c %s "$1/sparse"', place) == f"{(1 << 30) + 3}\n"
    assert int(sh('du -k "$1/sparse" | cut -f1', place)) < 1024
    assert sh('tail -c 3 "$1/sparse"; head -c 100000 "$1/sparse" | tr -d "\\0"', place) == "end"


def test_chmod_and_touch_set_what_they_are_told(place):
    script = r"""
    cd "$1"; touch f; chmod 4711 f; stat -c '%a' f
    touch -d '2020-02-29 12:00:00.987654321 UTC' f; stat -c '%a %.9Y' f
    touch -a -d '1960-01-01 00:00:00.25 UTC' f; stat -c '%.9X %.9Y' f
    """
    assert sh(script, place).splitlines() == [
        "4711",
        "4711 1582977600.987654321",
        "-315619199.750000000 1582977600.987654321",
    ]


@root_only
def test_chown_sets_the_owner_and_takes_the_set_user_id_bit(place):
    script = 'cd "$1"; touch f; chmod 4711 f; chown 12:34 f; stat -c "%a %u %g" f'
    assert sh(script, place) == "711 12 34\n"


NAMES = r"""
import errno, json, os, sys
os.chdir(sys.argv[1])
def of(name):
    try:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    except OSError as exc:
        return errno.errorcode[exc.errno]
    os.stat(name)
    return "fine"
names = {"cr": b"a\rb", "lf": b"a\nb", "latin1": b"caf\xe9", "long": b"x" * 256,
         "longest": b"x" * 255, "utf8": "\u65e5\u672c\U0001f600".encode(), "blank": b" ",
         "dots": b"...", "back": b"a\\b"}
print(json.dumps({key: of(name) for key, name in names.items()}))
"""


def test_names_that_a_cozy_cannot_have_are_refused(place):
    assert json.loads(python(NAMES, place)) == {
        "cr": "EINVAL",
        "lf": "EINVAL",
        "latin1": "EILSEQ",
        "long": "ENAMETOOLONG",
        "longest": "fine",
        "utf8": "fine",
        "blank": "fine",
        "dots": "fine",
        "back": "fine",
    }


RENAME = r"""
import ctypes, errno, os, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def rename(old, new, flags):
    if libc.renameat2(-100, old, -100, new, flags):
        return errno.errorcode[ctypes.get_errno()]
    return "fine"
NOREPLACE, EXCHANGE = 1, 2
for name in "ab":
    with open(name, "w") as file:
        file.write(name)
os.mkdir("d")
print(rename(b"a", b"b", NOREPLACE), rename(b"a", b"c", NOREPLACE), rename(b"c", b"a", NOREPLACE))
print(rename(b"a", b"b", EXCHANGE), open("a").read(), open("b").read())
print(rename(b"a", b"d", EXCHANGE), os.path.isdir("a"), open("d").read())
print(rename(b"a", b"missing", EXCHANGE), rename(b"a", b"x", NOREPLACE | EXCHANGE))
"""


def test_renameat2_refuses_to_replace_and_exchanges(place):
    assert python(RENAME, place).splitlines() == [
        "EEXIST fine fine",
        "fine b a",
        "fine True b",
        "ENOENT EINVAL",
    ]


def test_a_file_renamed_over_another_replaces_it_for_new_readers_only(place):
    code = r"""
import os, sys
os.chdir(sys.argv[1])
open("old", "w").write("old"); open("new", "w").write("new")
reader = open("old")
os.rename("new", "old")
print(reader.read(), open("old").read(), os.listdir())
"""
    assert python(code, place) == "old new ['old']\n"


def test_an_unlinked_file_lives_until_its_last_close(place):
    code = r"""
import os, sys
os.chdir(sys.argv[1])
with open("f", "w+b") as file:
    file.write(b"x" * 100000); file.flush()
    os.unlink("f")
    file.write(b"y"); file.flush()
    os.fsync(file.fileno())
    file.seek(0)
    print(len(file.read()), os.fstat(file.fileno()).st_nlink, os.listdir())
    open("f", "w").close()
print(os.path.getsize("f"))
"""
    assert python(code, place) == "100001 0 []\n0\n"


APPEND = r"""
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(200):
    os.write(fd, f"{sys.argv[2]} {number:04} {'.' * 50}\n".encode())
os.close(fd)
"""


def test_four_processes_append_without_losing_a_line(place):
    writers = [Child("python3", "-c", APPEND, place / "log", name) for name in "abcd"]
    for writer in writers:
        writer.wait().check()
    lines = sh('cat "$1/log"', place).splitlines()
    assert len(lines) == 800
    for name in "abcd":
        mine = [line for line in lines if line.startswith(name)]
        assert mine == [f"{name} {number:04} {'.' * 50}" for number in range(200)]


def test_what_is_appended_goes_to_the_end_wherever_the_reader_is(place):
    code = r"""
import os, sys
fd = os.open(sys.argv[1] + "/f", os.O_RDWR | os.O_APPEND | os.O_CREAT)
os.write(fd, b"abc"); os.lseek(fd, 0, 0); os.write(fd, b"def"); os.lseek(fd, 0, 0)
print(os.read(fd, 100).decode(), os.path.getsize(sys.argv[1] + "/f"))
"""
    assert python(code, place) == "abcdef 6\n"


def test_what_a_memory_map_wrote_is_in_the_file(place):
    code = r"""
import mmap, os, sys
path = sys.argv[1] + "/f"
with open(path, "wb") as file:
    file.write(bytes(1 << 20))
with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
    mapped[500000:500005] = b"hello"
    mapped[-3:] = b"end"
    mapped.flush()
with open(path, "rb") as file:
    data = file.read()
print(len(data), data[500000:500005], data[-3:], data.count(0) == (1 << 20) - 8)
"""
    assert python(code, place) == "1048576 b'hello' b'end' True\n"


def test_shared_writers_see_each_others_bytes_at_once(place):
    code = r"""
import os, sys
path = sys.argv[1] + "/f"
a = os.open(path, os.O_RDWR | os.O_CREAT); b = os.open(path, os.O_RDWR)
os.write(a, b"hello"); print(os.read(b, 10))
os.pwrite(b, b"J", 0); print(os.pread(a, 10, 0), os.fstat(a).st_size)
os.ftruncate(b, 2); print(os.pread(a, 10, 0), os.fstat(a).st_size, os.stat(path).st_size)
"""
    assert python(code, place).splitlines() == ["b'hello'", "b'Jello' 5", "b'Je' 2 2"]


def test_df_shows_room(place):
    used, free = sh('df -B1 --output=used,avail "$1" | tail -1', place).split()
    sh('head -c 2000000 /dev/zero > "$1/f"', place)
    assert int(free) > 1 << 30
    block = 4096  # df counts in whole ones
    now = int(sh('df -B1 --output=used "$1" | tail -1', place))
    assert now > int(used) + 2000000 - block


def test_a_large_folder_is_listed_while_it_is_being_emptied(file_mounts):
    place = file_mounts.start() / "large"
    sh('mkdir "$1"', place)
    code = r"""
import os, sys
os.chdir(sys.argv[1])
for number in range(5000):
    os.symlink("x", f"f{number:05}")
seen = []
with os.scandir() as entries:
    for entry in entries:
        seen.append(entry.name)
        number = int(entry.name[1:])
        if number % 2 and number < 4998:
            os.unlink(entry.name)
        if number == 100:
            for later in range(4000, 4500):
                os.unlink(f"f{later:05}") if later % 2 == 0 else None
stayed = {f"f{n:05}" for n in range(5000) if (n % 2 == 0 and not 4000 <= n < 4500) or n >= 4998}
print(len(seen) == len(set(seen)), stayed <= set(seen), set(os.listdir()) == stayed)
"""
    assert python(code, place) == "True True True\n"
    assert int(sh('ls "$1" | wc -l', place)) == 2251
    sh('rm -rf "$1"/*; rmdir "$1"', place)


def test_directories_count_their_links(place):
    sh('mkdir -p "$1/a/b" "$1/a/c"; touch "$1/a/f"', place)
    assert sh('stat -c %h "$1/a"; rmdir "$1/a/b"; stat -c %h "$1/a"', place) == "4\n3\n"


def test_special_files_are_kept(place):
    assert sh('cd "$1"; mkfifo p; stat -c %F p; (echo hi > p &); cat p', place) == "fifo\nhi\n"


def test_locks_exclude_each_other(place):
    script = 'cd "$1"; touch f; flock f flock -n f true && echo both || echo refused'
    assert sh(script, place) == "refused\n"


def test_sqlite_keeps_a_database_in_the_mount(place):
    code = r"""
import sqlite3, sys
for _ in range(2):
    with sqlite3.connect(sys.argv[1] + "/db") as db:
        db.execute("create table if not exists t (n)")
        db.executemany("insert into t values (?)", [(n,) for n in range(100)])
    db.close()
db = sqlite3.connect(sys.argv[1] + "/db")
print(*db.execute("select count(*), sum(n) from t").fetchone())
print(*db.execute("pragma integrity_check").fetchone())
"""
    assert python(code, place) == "200 9900\nok\n"
