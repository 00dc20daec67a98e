"""Real mounts for tests: started as child processes, looked at by child processes, always ended.

A mount that hangs must fail one test, not the suite. So the process of pytest never touches what
is mounted: every look goes through :func:`run`, whose child has a time-out. What a child prints
goes to files, since a pipe is held open by grandchildren. Processes are ended by their own id; a
child stuck in a request that nobody answers is freed when its mount's process is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import secrets
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DOMAIN = "alice.example.com"

TIMEOUT_S = 90.0
"""For a command, or for a mount to be ready: a second or two, but on a busy machine far more."""

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

ALARMING = re.compile(r" (ERROR|CRITICAL) |Traceback|^Exception ignored|^Fatal ", re.MULTILINE)


@dataclasses.dataclass
class Done:
    """How a command ended."""

    command: str
    code: int
    out: str
    err: str

    def check(self) -> Done:
        assert self.code == 0, f"{self.command}: exit code {self.code}\n{self.out}\n{self.err}"
        return self

    def json(self):
        return json.loads(self.out)


class Child:
    """A running command of its own process group."""

    def __init__(self, *command: object, env: dict[str, str] | None = None) -> None:
        self.command = " ".join(shlex.quote(str(word)) for word in command)
        self._out = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the child
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [os.fspath(word) if isinstance(word, Path) else str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            cwd="/",
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            start_new_session=True,
        )

    def wait(self, timeout_s: float = TIMEOUT_S) -> Done:
        """How it ended; kills it and fails after *timeout_s*."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.command}: still running after {timeout_s:g} s\n{self._text(self._err)}"
            ) from None
        return Done(
            self.command, self.process.returncode, self._text(self._out), self._text(self._err)
        )

    def kill(self) -> None:
        """Whole group; does not insist, since it may be stuck in a request to a mount."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        """What it has printed so far."""
        return self._text(self._out)

    @staticmethod
    def _text(file) -> str:
        # pread: the child writes at the same file's offset.
        return os.pread(file.fileno(), 1 << 26, 0).decode(errors="surrogateescape")


def run(*command: object, timeout_s: float = TIMEOUT_S, env: dict[str, str] | None = None) -> Done:
    """Run a command, however it ends."""
    return Child(*command, env=env).wait(timeout_s)


def sh(script: str, *args: object, timeout_s: float = TIMEOUT_S, env=None) -> str:
    """What a shell script, with *args* as $1 and so on, prints; it stops at the first error."""
    done = run("bash", "-euo", "pipefail", "-c", script, "sh", *args, timeout_s=timeout_s, env=env)
    return done.check().out


def python(script: str, *args: object, timeout_s: float = TIMEOUT_S) -> str:
    """What a Python program, with *args* in sys.argv, prints."""
    return run(sys.executable, "-c", script, *args, timeout_s=timeout_s).check().out


def eventually(condition, timeout_s: float = TIMEOUT_S, pause_s: float = 0.05) -> None:
    """Wait until *condition* is true, a look at something outside of this process."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(pause_s)


def mounted_at(path: Path) -> bool:
    """As the kernel says it, without asking what is mounted."""
    points = (line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return os.fspath(path) in points


def require_fuse() -> None:
    """Fails, and says what is missing, where nothing can be mounted."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as exc:
        raise AssertionError(f"these tests mount for real: /dev/fuse: {exc.strerror}") from exc
    if os.geteuid() != 0:
        assert run("fusermount3", "--version").code == 0, "these tests need root or fusermount3"


class Mounts:
    """Mounts of one store from one state directory: a machine of its own, as it were.

    *expected* are patterns of alarming log lines that the test causes on purpose.
    """

    def __init__(self, folder: Path, fs_url: str) -> None:
        self.folder = folder
        self.env = {
            "PYTHONPATH": os.fspath(ROOT),
            "HOME": os.fspath(folder / "home"),
            "COZYFS_FS_URL": fs_url,
            "COZYFS_STATE_DIR": os.fspath(folder / "state"),
            "COZYFS_CONFIG": "",
            "XDG_CONFIG_HOME": os.fspath(folder / "home"),
        }
        (folder / "home").mkdir(parents=True)
        self.expected: list[str] = []
        self._all: list[Mount] = []
        self._numbers = itertools.count()

    def cozyfs(self, *args: object, timeout_s: float = TIMEOUT_S, **env: str) -> Done:
        """Run the command ``cozyfs`` on this machine."""
        command = (sys.executable, "-m", "cozyfs", *args)
        return run(*command, timeout_s=timeout_s, env={**self.env, **env})

    def new_path(self) -> Path:
        path = self.folder / f"mnt{next(self._numbers)}"
        path.mkdir()
        return path

    def start(
        self,
        *options: object,
        path: Path | None = None,
        domain: str = DOMAIN,
        background: bool = False,
        create: bool = True,
        fs_url: str | None = None,
    ) -> Mount:
        """Mount, and return when it answers."""
        mount = Mount(self, path or self.new_path())
        self._all.append(mount)
        words = [*options, *(["--create"] if create else []), domain, mount.path]
        env = {**self.env, **({"COZYFS_FS_URL": fs_url} if fs_url else {})}
        mount.start(words, env, background=background)
        return mount

    @contextlib.contextmanager
    def mounted(self, *options: object, **named):
        """A mount for a block, unmounted and checked at its end."""
        mount = self.start(*options, **named)
        yield mount
        mount.unmount()

    def close(self) -> None:
        """End all, then fail if one of them did not end in order or had something to say."""
        problems = [problem for mount in self._all for problem in mount.end()]
        problems += [line for mount in self._all for line in self._alarms(mount)]
        assert not problems, "\n".join(problems)

    def _alarms(self, mount: Mount) -> list[str]:
        found = []
        for line in mount.log.splitlines():
            if ALARMING.search(line) and not any(re.search(e, line) for e in self.expected):
                found.append(f"{mount.path.name}: unexpected in the log: {line}")
        return found


class Mount:
    """One run of ``cozyfs mount``. Its files are reached at *path*, in children only."""

    def __init__(self, mounts: Mounts, path: Path) -> None:
        self.mounts = mounts
        self.path = path
        self.pid = 0
        self._log_file = mounts.folder / f"{path.name}-{secrets.token_hex(3)}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._pid_fd = -1
        self.ended = False

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def start(self, words: list[object], env: dict[str, str], *, background: bool) -> None:
        # A service manager is told when the mount is ready, and by whom: that is what we are.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            address = f"cozyfs-test-{secrets.token_hex(8)}"
            ready.bind("\0" + address)
            ready.settimeout(0.1)
            form = ["--log-file", self._log_file] if background else ["--foreground"]
            with self._log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "cozyfs", "mount", *map(str, [*form, *words])],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env={**os.environ, **env, "NOTIFY_SOCKET": "@" + address},
                    start_new_session=True,
                )
            self._await(ready, background)
        if background:
            assert self._process.wait(TIMEOUT_S) == 0, self.log

    def _await(self, ready: socket.socket, background: bool) -> None:
        assert self._process is not None
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                message = ready.recv(1000).decode()
                break
            except TimeoutError:
                code = self._process.poll()
                if code not in (None, 0) or (code == 0 and not background):
                    raise AssertionError(f"mount: exit code {code}\n{self.log}") from None
                assert time.monotonic() < deadline, f"mount: not ready in time\n{self.log}"
        fields = dict(line.split("=", 1) for line in message.split())
        assert fields["READY"] == "1"
        self.pid = int(fields["MAINPID"])
        self._pid_fd = os.pidfd_open(self.pid)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def status(self) -> dict:
        return self.mounts.cozyfs("status", "--json", self.path).check().json()

    def signal(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._pid_fd, number)

    @property
    def running(self) -> bool:
        if self._process is not None and self._process.pid == self.pid:
            return self._process.poll() is None
        return not _has_ended(self._pid_fd, 0)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int | None:
        """Until its process has ended; its exit code where it is known (in the foreground)."""
        assert _has_ended(self._pid_fd, timeout_s), f"the mount does not end\n{self.log}"
        self.ended = True
        if self._process is not None and self._process.pid == self.pid:
            return self._process.wait(5)
        return None

    def unmount(self) -> None:
        """``cozyfs umount``; everything is stored after."""
        self.mounts.cozyfs("umount", self.path, timeout_s=60).check()
        assert self.wait() in (0, None), self.log
        assert not mounted_at(self.path)

    def kill(self) -> None:
        """kill -9: what a crash does. The mount point stays, dead."""
        self.signal(signal.SIGKILL)
        self.wait()

    def peak_memory(self) -> int:
        """Bytes: the most memory its process has had."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) << 10

    def end(self) -> list[str]:
        """Whatever state it is in: afterwards there is no process and no mount. Returns what
        did not go as it should."""
        problems = []
        if self._pid_fd >= 0 and not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGTERM)
            if not _has_ended(self._pid_fd, TIMEOUT_S):
                problems.append(f"{self.path.name}: had to be killed\n{self.log}")
                self.signal(signal.SIGKILL)
                _has_ended(self._pid_fd, 10)
        if self._process is not None:
            if self._process.poll() is None and self._pid_fd < 0:
                self._process.kill()
            self._process.wait(10)
        if self._pid_fd >= 0:
            os.close(self._pid_fd)
            self._pid_fd = -1
        for _ in range(3):  # mounted over one another
            if mounted_at(self.path):
                tool = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
                run(*tool, self.path)
        self.ended = True
        return problems


def _has_ended(pid_fd: int, timeout_s: float) -> bool:
    return bool(select.select([pid_fd], [], [], timeout_s)[0])
