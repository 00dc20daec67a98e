"""A large file of an app cannot take a process down. Measured in processes of their own, since
the most that a process ever used is what the system tells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]

PROGRAM = r"""
import io, re, sys
import trio
from cozyfs.instances import create
from cozyfs.side.apps import WEBAPPS, AppFiles, Copier, Request, SourceFile, code_tarball, serve
from cozyfs.store import LocalStore
from cozyfs.threads import Caller

SIZE = 256 << 20

class Zeros(io.RawIOBase):
    left = SIZE
    def read(self, size=-1):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)

async def main():
    place = LocalStore(sys.argv[1], durable=False), Caller(), "t", WEBAPPS
    copier = Copier(*place, "drive", "1")
    await copier.start()
    await copier.copy(SourceFile("zeros", SIZE, Zeros()))
    await copier.commit()
    files = AppFiles(*place)
    read = 0
    async for chunk in (await serve(files, "drive", "1", "zeros", Request())).body:
        read += len(chunk)
    assert read == SIZE, read
    async with code_tarball(files, "drive", "1", Request()) as response:
        async for chunk in response.body:
            pass
    print(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1])

trio.run(main)
"""


def test_a_file_of_256_mib_is_stored_served_and_archived_in_less_than_100_mib(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "store"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100 << 10
