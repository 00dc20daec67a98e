"""How much memory the commands about apps take with a large file, which cannot be compressed.

    python tests/bench/apps.py [MIB] [FOLDER]

Installs an app with a file of MIB (default: 1024) random MiB in a folder and in an S3 server (that
of juicefs), prints the file, lists it and takes the version as an archive, each in a process of
its own: `COMMAND: S s, M MiB at most`. Needs about six times MIB of room in FOLDER.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, os.fspath(PROJECT / "tests"))

DOMAIN = "bench.example.com"
DRIVE = (DOMAIN, "drive")
VERSION = (*DRIVE, "1")


def make_app(folder: Path, mib: int) -> Path:
    """A tar file; the random MiB are all different."""
    source = folder / "source"
    source.mkdir()
    (source / "manifest.webapp").write_text('{"version": "1"}')
    with (source / "large").open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    with tarfile.open(folder / "app.tar", "w") as tar:
        for name in ("manifest.webapp", "large"):
            tar.add(source / name, name)
    shutil.rmtree(source)
    return folder / "app.tar"


def measured(environment: dict[str, str], *args: object) -> None:
    """Run one command. What this process has had is far less than any of them takes."""
    command = [sys.executable, "-m", "cozyfs", *map(str, args)]
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=PROJECT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    took = time.monotonic() - began
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{args[:2]} failed")
    print(f"  {args[0]} {args[1]}: {took:.0f} s, {used.ru_maxrss >> 10} MiB at most", flush=True)


def bench(folder: Path, app: Path, fs_url: str) -> None:
    environment = {"COZYFS_FS_URL": fs_url, "COZYFS_STATE_DIR": os.fspath(folder / "state")}
    measured(environment, "instances", "add", DOMAIN)
    measured(environment, "apps", "install", *DRIVE, app)
    measured(environment, "apps", "files", *VERSION)
    measured(environment, "apps", "cat", *VERSION, "large")
    measured(environment, "apps", "tarball", *VERSION, "-o", "/dev/null")


def main() -> None:
    import servers

    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        folder = Path(name)
        app = make_app(folder, mib)
        print("a folder")
        bench(folder, app, f"file://{folder}/store")
        shutil.rmtree(folder / "store")
        with servers.juicefs(folder / "s3") as server:
            print(server.name)
            bench(folder, app, server.url())


if __name__ == "__main__":
    main()
