"""Where assets come from: files, and HTTP servers that answer or do not."""

from __future__ import annotations

import http.server
import threading

import pytest

from cozyfs.errors import SideError, TooLarge, UsageError
from cozyfs.side import asset_source
from cozyfs.side.asset_source import fetch


class Handler(http.server.BaseHTTPRequestHandler):
    """/200, /404, /big, /to/<n>: n redirects, /cut: less than was announced."""

    def do_GET(self):
        kind, _, count = self.path[1:].partition("/")
        if kind == "to":
            target = f"/to/{int(count) - 1}" if int(count) > 1 else "/200"
            self._answer(302, b"", Location=target)
        elif kind == "big":
            self._answer(200, b"x" * 2000)
        elif kind == "cut":
            self._answer(200, b"half", **{"Content-Length": "8"})
        else:
            self._answer(int(kind), b"content of an asset")

    def _answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "logo é.svg"
    path.write_bytes(b"<svg/>")
    return path


def test_a_path_is_read(path, monkeypatch):
    assert fetch(str(path)) == b"<svg/>"
    monkeypatch.chdir(path.parent)
    assert fetch(path.name) == b"<svg/>"


def test_a_file_url_is_read(path):
    assert fetch(path.as_uri()) == b"<svg/>"
    assert fetch(path.as_uri().replace("file:///", "file://localhost/")) == b"<svg/>"
    assert fetch(path.as_uri().replace("file:///", "FILE:/")) == b"<svg/>"


def test_a_name_with_a_colon_is_a_name(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    (path.parent / "a:b").write_bytes(b"colon")
    assert fetch("a:b") == b"colon"


@pytest.mark.parametrize("url", ["file://elsewhere/x", "file:x", "ftp://h/x", "s3://h/x"])
def test_a_url_of_another_kind_is_bad_input(url):
    with pytest.raises(UsageError):
        fetch(url)


@pytest.mark.parametrize("url", ["http://", "http://[x/", "http:///a", "https://h:port/"])
def test_a_url_that_is_none_is_bad_input(url):
    with pytest.raises(UsageError):
        fetch(url)


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        fetch(str(tmp_path / "nothing"))


def test_a_url_is_fetched(server):
    assert fetch(f"{server}/200") == b"content of an asset"


def test_redirects_are_followed_up_to_ten(server):
    assert fetch(f"{server}/to/10") == b"content of an asset"
    with pytest.raises(SideError, match="too many redirects"):
        fetch(f"{server}/to/12")


@pytest.mark.parametrize("status", [201, 404, 500, 503])
def test_any_answer_but_200_is_refused(server, status):
    with pytest.raises(SideError) as caught:
        fetch(f"{server}/{status}")
    assert str(caught.value) == f"{server} answered {status} instead of the asset"


def test_an_answer_that_is_cut_is_no_asset(server):
    with pytest.raises(SideError, match="the connection was cut"):
        fetch(f"{server}/cut")


def test_more_than_an_asset_can_have_is_not_kept(server, path, monkeypatch):
    monkeypatch.setattr(asset_source, "MAX_ASSET_SIZE", 1000)
    with pytest.raises(TooLarge):
        fetch(f"{server}/big")
    path.write_bytes(b"x" * 1001)
    with pytest.raises(TooLarge):
        fetch(str(path))


def test_a_server_that_takes_too_long_is_given_up(server, monkeypatch):
    monkeypatch.setattr(asset_source, "FETCH_TIMEOUT_S", -1.0)
    with pytest.raises(SideError, match="took longer than"):
        fetch(f"{server}/200")


def test_a_server_that_is_not_there_is_one_line_without_credentials():
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as gone:
        port = gone.server_port
    with pytest.raises(SideError) as caught:
        fetch(f"http://user:pass@127.0.0.1:{port}/x?token=abc")
    assert str(caught.value) == (
        f"the asset cannot be fetched from http://127.0.0.1:{port}: no connection"
    )
