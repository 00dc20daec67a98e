"""How long moving an instance takes, and how much memory: python tests/bench/moving.py

By default an instance of 4 GiB in one file of 3 GiB, four of 128 MiB and 512 of 1 MiB; --files N
makes one of N small files with versions, four thumbnails each, links and attributes instead. It is
exported from S3 (juicefs's server), imported into a folder, and exported again; the commands are
processes of their own, whose largest resident memory the kernel counts. Contents repeat one random
MiB with a number in it: they cost the disk what they are, gzip cannot make them smaller.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import trio

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "moving")]

import servers  # noqa: E402
from moving_world import entries, fill  # noqa: E402

from cozyfs import instances  # noqa: E402
from cozyfs.config import parse_fs_url  # noqa: E402
from cozyfs.index import TrashItem  # noqa: E402
from cozyfs.store import open_store  # noqa: E402
from cozyfs.store.keys import new_internal_id, thumb_name  # noqa: E402
from cozyfs.values import ROOT_INO, TRASH_INO, Content  # noqa: E402

MIB = 1 << 20
BLOCK = os.urandom(MIB)
THUMBNAILS = {"tiny": 2_000, "small": 8_000, "medium": 16_000, "large": 32_000}


def large(filler):
    for size, count in ((3072, 1), (128, 4), (1, 512)):
        folder = filler.directory(ROOT_INO, f"{size} MiB".encode())
        for number in range(count):
            big_file(filler, folder, f"{number}".encode(), size)


def big_file(filler, folder, name, size):
    ino = filler.make(folder, name, 0o100644)
    doc_id, internal_id = filler.index.get(ino).doc_id, new_internal_id()
    key, store, bucket = (
        filler.objects.key(doc_id, internal_id),
        filler.store,
        filler.objects.bucket,
    )
    digest = hashlib.md5()
    upload = store.create_multipart(bucket, key, content_type="application/octet-stream")
    parts = []
    for start in range(0, size, 16):
        body = b"".join(
            number.to_bytes(8, "big") + BLOCK[8:] for number in range(start, min(start + 16, size))
        )
        digest.update(body)
        number = len(parts) + 1
        parts.append((number, store.upload_part(bucket, key, upload, number, body)))
    etag = store.complete_multipart(bucket, key, upload, parts)
    content = Content(internal_id, size * MIB, size * MIB, digest.digest(), etag, doc_id=doc_id)
    now = filler.tick()
    filler.index.set_content(ino, content, mtime_ns=now, ctime_ns=now, now_ns=now)


def small(count):
    def make(filler):
        prefix, bucket, store = filler.objects.db_prefix, filler.objects.bucket, filler.store
        thumbs = []

        def put(name):
            for form, size in THUMBNAILS.items():
                body, metadata = os.urandom(size), {"file-md5": "0" * 32}
                key = f"{name}-{form}"
                store.put(bucket, key, body, content_type="image/jpeg", metadata=metadata)

        filler.everything()
        for number in range(count - 10):
            if number % 100 == 0:
                folder = filler.directory(ROOT_INO, f"{number:06}".encode())
            ino = filler.file(folder, f"f{number}.jpg".encode(), os.urandom(number % 3000))
            if number % 5 == 1:
                filler.write(ino, os.urandom(100), keep=True)
            if number % 7 == 0:
                filler.index.set_xattr(ino, b"user.n", b"%d" % number, now_ns=filler.tick())
            if number % 11 == 0:
                filler.index.link(ino, folder, f"l{number}".encode(), filler.tick())
            thumbs.append(f"{prefix}/thumbs/{thumb_name(filler.index.get(ino).doc_id)}")
            if number % 50 == 0:
                thrown = filler.file(TRASH_INO, f"t{number}".encode(), b"thrown")
                filler.index.remember_trashed(TrashItem(thrown, filler.tick(), b"/", b"name"))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, thumbs))

    return make


def run(*args, url, state):
    environment = {**os.environ, "COZYFS_FS_URL": url, "COZYFS_STATE_DIR": str(state)}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "cozyfs", "instances", *map(str, args)],
        cwd=TESTS.parent,
        env=environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, args
    seconds = time.monotonic() - began
    print(f"{args[0]:8} {seconds:7.1f} s  {usage.ru_maxrss / 1024:6.0f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, servers.juicefs(Path(name) / "s3") as server:
        folder, url = Path(name), server.url()
        parsed = parse_fs_url(url)
        store = open_store(parsed)
        alice = instances.create(store, parsed.bucket_prefix, "alice.example.com")
        what = small(options.files) if options.files else large
        trio.run(fill, store, alice, folder / "made", what)
        store.close()
        other = f"file://{folder}/other"
        first, second = folder / "first.tgz", folder / "second.tgz"
        run("export", "alice.example.com", "-o", first, url=url, state=folder / "one")
        print(f"archive  {first.stat().st_size / MIB:7.1f} MiB")
        run("add", "bob.example.com", url=other, state=folder / "two")
        run("import", "bob.example.com", first, url=other, state=folder / "two")
        if options.files:
            run("export", "bob.example.com", "-o", second, url=other, state=folder / "two")
            assert entries(first) == entries(second)
            print("both exports are equal")
        else:
            first.unlink()
            run("export", "bob.example.com", "-o", second, url=other, state=folder / "two")


if __name__ == "__main__":
    main()
