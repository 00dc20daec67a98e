"""The command line run as people run it, with a store and a state directory of its own."""

import dataclasses
import functools
import http.server
import json
import os
import threading

import pytest

from cozyfs import logs
from cozyfs.cli import run


@dataclasses.dataclass
class Outcome:
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """Nothing of this machine's own configuration counts, and nothing of it is changed."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COZYFS_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("COZYFS_FS_URL", f"file://{tmp_path}/store")
    monkeypatch.setenv("COZYFS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(logs, "set_up", lambda *_, **__: None)  # pytest's own handlers stay


@pytest.fixture(params=["file", "s3"])
def both_stores(request, environment, monkeypatch):  # after the environment, which it changes
    """The commands work on a folder, and once more on the S3 server; this is the fs URL."""
    if request.param == "s3":
        monkeypatch.setenv("COZYFS_FS_URL", request.getfixturevalue("s3_url"))
    return os.environ["COZYFS_FS_URL"]


@pytest.fixture
def web(tmp_path):
    """A folder and its URL, at an HTTP server."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def cozyfs(capsys):
    def call(*args):
        code = run([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def mountpoint(tmp_path):
    path = tmp_path / "mnt"
    path.mkdir()
    return path


def is_one_line(text):
    return text.startswith("cozyfs: ") and text.count("\n") == 1 and text.endswith("\n")
