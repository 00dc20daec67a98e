"""Sources of apps: what is accepted, and what is refused before anything is stored."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading

import pytest
from app_builders import DRIVE, MANIFEST, entry, manifest, tar_bytes

from cozyfs.errors import AppRefused, CozyError, UsageError
from cozyfs.side.apps import contents, download
from cozyfs.side.apps.sources import open_source

NAME = "manifest.webapp"


def read(source):
    return {file.name: file.reader.read() for file in source.files.read()}


def opened(text):
    with open_source(str(text), NAME) as source:
        return source.manifest, read(source)


@pytest.fixture
def refusal(tmp_path):
    """A function: what is said of a tar file with these bytes."""

    def refuse(data):
        (tmp_path / "bad.tar").write_bytes(data)
        with pytest.raises(AppRefused) as caught:
            opened(tmp_path / "bad.tar")
        return str(caught.value)

    return refuse


# ---- tar files


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("prefix", ["", "./", "package/", "drive-1.2.3/build/"])
def test_a_tar_is_read_without_the_folder_of_its_manifest(tmp_path, mode, prefix):
    (tmp_path / "app").write_bytes(tar_bytes(DRIVE, mode=mode, prefix=prefix))
    assert opened(tmp_path / "app") == (MANIFEST, DRIVE)


def test_the_highest_manifest_counts(tmp_path):
    files = {f"p/lib/x/{NAME}": b"other", f"p/{NAME}": MANIFEST, f"q/{NAME}": b"other"}
    (tmp_path / "app").write_bytes(tar_bytes(files))
    found, read_files = opened(tmp_path / "app")
    assert found == MANIFEST
    assert set(read_files) == {NAME, f"lib/x/{NAME}", f"q/{NAME}"}


def test_a_folder_whose_name_only_begins_like_the_prefix_is_kept(tmp_path):
    (tmp_path / "app").write_bytes(tar_bytes({f"p/{NAME}": MANIFEST, "pq/a": b"1"}))
    assert set(opened(tmp_path / "app")[1]) == {NAME, "pq/a"}


def test_folders_in_a_tar_are_no_files(tmp_path):
    folders = [entry("empty", tarfile.DIRTYPE), entry("a/", tarfile.DIRTYPE)]
    (tmp_path / "app").write_bytes(tar_bytes(DRIVE, entries=folders))
    assert opened(tmp_path / "app")[1] == DRIVE


def test_of_two_entries_of_one_name_the_last_counts(tmp_path):
    files = {NAME: MANIFEST, "./a": b"first", "a": b"last"}
    (tmp_path / "app").write_bytes(tar_bytes(files))
    assert opened(tmp_path / "app")[1] == {NAME: MANIFEST, "a": b"last"}


def test_names_of_any_language_are_read(tmp_path):
    files = {NAME: MANIFEST, "é/⚡" + "x" * 200: b"1"}
    (tmp_path / "app").write_bytes(tar_bytes(files))
    assert opened(tmp_path / "app")[1] == files


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry("../../etc/cron"), "../../etc/cron: the name of a file leads out of the app"),
        (entry("a/../../b"), "a/../../b: the name of a file leads out of the app"),
        (entry("/etc/passwd"), "/etc/passwd: the name of a file is absolute"),
        (entry("x", tarfile.SYMTYPE, "/etc/passwd"), "'x' is a link, which an app cannot have"),
        (entry("x", tarfile.LNKTYPE, NAME), "'x' is a link, which an app cannot have"),
        (entry("x", tarfile.CHRTYPE), "'x' is neither a file nor a folder"),
        (entry("x", tarfile.BLKTYPE), "'x' is neither a file nor a folder"),
        (entry("x", tarfile.FIFOTYPE), "'x' is neither a file nor a folder"),
        (entry("manifest.webapp/x"), "manifest.webapp is both a file and a folder"),
        (entry("a\nb"), "'a\\nb': the name of a file has a control character"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_a_tar_with_what_an_app_cannot_have_is_refused(refusal, bad, message):
    assert message in refusal(tar_bytes(DRIVE, entries=[bad]))


def test_a_tar_without_a_manifest_is_refused(refusal):
    assert refusal(tar_bytes({"index.html": b"x"})) == f"there is no {NAME} in the archive"


def test_a_manifest_of_more_than_2_mib_is_refused(refusal):
    message = refusal(tar_bytes({NAME: bytes((2 << 20) + 1)}))
    assert message == f"{NAME} is too large: more than 2 MiB"


def test_a_manifest_of_2_mib_is_not_too_large(tmp_path):
    (tmp_path / "app").write_bytes(tar_bytes({NAME: bytes(2 << 20)}))
    assert len(opened(tmp_path / "app")[0]) == 2 << 20


def test_an_app_that_unpacks_to_too_much_is_refused_by_its_headers(refusal):
    bomb = entry("zeros")
    bomb.size = 5 << 30
    head = tar_bytes(DRIVE, mode="w").rstrip(b"\0")
    head += bytes(-len(head) % 512)
    assert "too large: more than 4 GiB" in refusal(head + bomb.tobuf() + bytes(1024))


def test_an_app_with_too_many_files_is_refused(refusal, monkeypatch):
    monkeypatch.setattr(contents, "MAX_FILES", 4)
    assert refusal(tar_bytes(DRIVE)) == "the app has too many files: more than 4"


def test_a_header_that_would_fill_the_memory_is_refused(refusal):
    absurd = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    absurd.size = 1 << 40
    assert "header of absurd size" in refusal(absurd.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>" * 100,
        bytes(1024),
        gzip.compress(b"no tar"),
        b"\x1f\x8b garbage",
    ],
    ids=["empty", "html", "zeros", "gzip of text", "no gzip"],
)
def test_what_is_no_archive_is_refused(refusal, data):
    assert refusal(data)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_was_cut_anywhere_is_refused(refusal, mode):
    whole = tar_bytes({NAME: MANIFEST, "a": os.urandom(3000)}, mode=mode)
    if mode == "w":  # what follows the first block of the end is padding
        whole = whole[: len(whole.rstrip(b"\0")) // 512 * 512 + 512]
    for size in range(0, len(whole) - 8, 256):
        assert refusal(whole[:size])


def test_a_gzip_whose_content_is_damaged_is_refused(refusal):
    data = bytearray(tar_bytes({NAME: MANIFEST, "a": os.urandom(5000)}))
    data[2000] ^= 0xFF
    assert refusal(bytes(data))


# ---- folders


@pytest.fixture
def folder(tmp_path):
    for name, content in DRIVE.items():
        path = tmp_path / "drive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "drive"


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_folder_is_read(folder, form):
    assert opened(form.format(folder)) == (MANIFEST, DRIVE)


def test_each_install_of_a_folder_is_a_version_of_its_own(folder):
    with open_source(str(folder), NAME) as one, open_source(str(folder), NAME) as two:
        assert one.version_suffix != two.version_suffix
        assert len(one.version_suffix) == 11
        assert one.location == f"file://{folder}"


@pytest.mark.parametrize("target", ["/etc/passwd", "index.html", ".", "missing"])
def test_a_folder_with_a_link_is_refused(folder, target):
    (folder / "assets" / "link").symlink_to(target)
    with pytest.raises(AppRefused, match="'assets/link' is a link"):
        opened(folder)


def test_a_folder_with_a_fifo_is_refused(folder):
    os.mkfifo(folder / "fifo")
    with pytest.raises(AppRefused, match="'fifo' is neither a file nor a folder"):
        opened(folder)


def test_a_link_that_takes_the_place_of_a_file_is_not_followed(folder):
    with open_source(str(folder), NAME) as source:
        (folder / "icon").unlink()
        (folder / "icon").symlink_to("/etc/passwd")
        with pytest.raises(OSError, match="symbolic link"):
            read(source)


def test_a_folder_without_a_manifest_is_refused(folder):
    (folder / NAME).unlink()
    with pytest.raises(AppRefused, match=r"no manifest\.webapp at the top of the folder"):
        opened(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/nowhere/at/all", "no such file or folder"),
        ("/dev/null", "neither a file nor a folder"),
        ("registry://drive/stable", "cannot be installed from registry://"),
        ("git://example.com/drive.git", "cannot be installed from git://"),
        ("file://example.com/x", "a file URL is file:///PATH"),
        ("file:///x.tar#" + "0" * 64, "a file URL has no checksum"),
        ("http://", "has no host"),
        ("http://example.com:x/", "not valid"),
        ("https://example.com/x.tar#abc", "is not a SHA-256"),
    ],
)
def test_what_names_no_source_is_bad_input(text, message):
    with pytest.raises(UsageError, match=message):
        opened(text)


# ---- URLs


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self)
        self.server.answers[self.path](self)

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.requests, server.answers = [], {}
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def answer(data, status=200, *, length=None, **headers):
    def send(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return send


def test_a_url_is_read(web):
    web.answers["/drive.tar.gz"] = answer(tar_bytes(DRIVE, prefix="package/"))
    assert opened(f"{web.url}/drive.tar.gz") == (MANIFEST, DRIVE)


def test_a_url_may_lead_to_another(web):
    web.answers["/latest"] = answer(b"", 302, Location="/drive.tar.gz")
    web.answers["/drive.tar.gz"] = answer(tar_bytes(DRIVE))
    assert opened(f"{web.url}/latest") == (MANIFEST, DRIVE)


def test_urls_that_lead_round_in_a_circle_are_given_up(web):
    web.answers["/a"] = answer(b"", 302, Location="/a")
    with pytest.raises(CozyError, match="too many redirects"):
        opened(f"{web.url}/a")


def test_the_right_checksum_is_accepted(web):
    data = tar_bytes(DRIVE)
    web.answers["/a"] = answer(data)
    assert opened(f"{web.url}/a#{hashlib.sha256(data).hexdigest().upper()}")[1] == DRIVE


def test_a_bad_checksum_is_refused_and_says_which_it_is(web):
    data = tar_bytes(DRIVE)
    web.answers["/a"] = answer(data)
    with pytest.raises(AppRefused) as caught:
        opened(f"{web.url}/a#{'0' * 64}")
    actual = hashlib.sha256(data).hexdigest()
    assert str(caught.value) == (
        f"{web.url}/a has a bad checksum: SHA-256 {actual}, not {'0' * 64}"
    )


@pytest.mark.parametrize("status", [201, 204, 206, 403, 404, 500, 503])
def test_an_answer_other_than_200_is_an_error(web, status):
    web.answers["/a"] = answer(tar_bytes(DRIVE) if status != 204 else b"", status)
    with pytest.raises(CozyError, match=rf"/a cannot be fetched: the server answered {status}"):
        opened(f"{web.url}/a")


def test_a_download_that_is_cut_is_an_error(web):
    data = tar_bytes(DRIVE)
    web.answers["/a"] = answer(data, length=len(data) + 1)
    with pytest.raises(CozyError, match="the connection was cut"):
        opened(f"{web.url}/a")


def test_a_server_that_is_not_there_is_an_error(web):
    url = web.url
    web.shutdown()
    web.server_close()
    with pytest.raises(CozyError, match="no connection"):
        opened(f"{url}/a")


def test_a_download_that_is_too_large_is_refused(web):
    web.answers["/a"] = answer(bytes(2 << 20))
    with (
        pytest.raises(AppRefused, match="/a is too large: more than 1 MiB"),
        download.download(f"{web.url}/a", limit=1 << 20),
    ):
        pass


def test_a_download_that_takes_too_long_is_given_up(web):
    web.answers["/a"] = answer(bytes(1 << 20))
    with (
        pytest.raises(CozyError, match=r"cannot be fetched within 0 seconds|in time"),
        download.download(f"{web.url}/a", timeout_s=0.0001),
    ):
        pass


def test_a_server_that_falls_silent_is_given_up(web):
    done = threading.Event()
    web.answers["/a"] = lambda handler: done.wait(30)
    with (
        pytest.raises(CozyError, match="the server does not answer in time"),
        download.download(f"{web.url}/a", timeout_s=0.2),
    ):
        pass
    done.set()


def test_credentials_are_sent_but_neither_shown_nor_remembered(web):
    url = web.url.replace("//", "//user:s3cre%74@")
    web.answers["/a?token=t0ken"] = answer(tar_bytes(DRIVE))
    with open_source(f"{url}/a?token=t0ken", NAME) as source:
        assert source.location == f"{web.url}/a?token=t0ken"
    assert web.requests[-1].headers["Authorization"] == "Basic dXNlcjpzM2NyZXQ="
    web.answers["/a?token=t0ken"] = answer(b"", 404)
    with pytest.raises(CozyError) as caught:
        opened(f"{url}/a?token=t0ken")
    assert "s3cret" not in str(caught.value)
    assert "t0ken" not in str(caught.value)


def test_nothing_is_left_of_a_source_that_is_closed(web, tmp_path):
    web.answers["/a"] = answer(tar_bytes({NAME: manifest(), "a": bytes(5000)}))
    before = set(os.listdir("/proc/self/fd"))
    with open_source(f"{web.url}/a", NAME) as source:
        next(source.files.read())
    del source
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1  # the listing's own, at most


def test_a_file_longer_than_the_archive_is_found_out(refusal):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        info = tarfile.TarInfo(NAME)
        info.size = len(MANIFEST)
        tar.addfile(info, io.BytesIO(MANIFEST))
    liar = entry("a")
    liar.size = 10_000
    assert "not a good tar" in refusal(sink.getvalue()[:1024] + liar.tobuf() + bytes(512))
