"""``cozyfs apps`` and ``cozyfs konnectors`` over both stores."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from mounting import eventually

from cozyfs.config import parse_fs_url
from cozyfs.side.apps import KONNECTORS, WEBAPPS
from cozyfs.store import open_store
from cozyfs.store.buckets import side_bucket

from .conftest import is_one_line

PROJECT = Path(__file__).parents[2]
ALICE = "alice.example.com"
MANIFESTS = {"apps": "manifest.webapp", "konnectors": "manifest.konnector"}
KIND_OF = {"apps": WEBAPPS, "konnectors": KONNECTORS}


@pytest.fixture(params=MANIFESTS)
def group(request):
    return request.param


@pytest.fixture(autouse=True)
def alice(cozyfs, both_stores):
    return cozyfs("instances", "add", ALICE)


@pytest.fixture
def archive(tmp_path, group):
    """A function: a tar file of this version."""

    def make(version="1.2.3", **files):
        path = tmp_path / "drive.tar.gz"
        files = {MANIFESTS[group]: json.dumps({"version": version}), "index.html": "<h>"} | files
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(f"package/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
        return path

    return make


def test_an_app_that_was_installed_is_listed_and_shown(cozyfs, group, archive):
    done = cozyfs(group, "install", ALICE, "drive", archive())
    assert (done.code, done.err) == (0, "")
    assert done.out == "installed drive 1.2.3: 2 files, 23 B\n"

    (listed,) = cozyfs(group, "ls", ALICE, "--json").json()
    assert (listed["slug"], listed["version"], listed["state"]) == ("drive", "1.2.3", "ready")
    assert listed["source"].endswith("/drive.tar.gz")
    assert cozyfs(group, "show", ALICE, "drive", "--json").json() == listed
    assert "1.2.3" in cozyfs(group, "show", ALICE, "drive").out
    assert cozyfs(group, "ls", ALICE).out.splitlines()[1].split()[:3] == [
        "drive",
        "1.2.3",
        "ready",
    ]


def test_installing_tells_what_it_did_as_json(cozyfs, group, archive):
    first = cozyfs(group, "install", ALICE, "drive", archive(), "--json").json()
    second = cozyfs(group, "install", ALICE, "drive", archive(), "--json").json()
    assert (first["copied"], second["copied"]) == (True, False)
    assert first["created_at"] == second["created_at"]


def test_a_version_that_is_in_the_store_is_not_copied_again(cozyfs, group, archive):
    cozyfs(group, "install", ALICE, "drive", archive())
    done = cozyfs(group, "install", ALICE, "drive", archive())
    assert done.out == "installed drive 1.2.3, whose files are in the store already\n"


def test_an_app_is_upgraded(cozyfs, group, archive):
    cozyfs(group, "install", ALICE, "drive", archive())
    cozyfs(group, "install", ALICE, "drive", archive("2.0.0"))
    assert cozyfs(group, "show", ALICE, "drive", "--json").json()["version"] == "2.0.0"


def test_a_folder_is_installed(cozyfs, group, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / MANIFESTS[group]).write_text('{"version": "1"}')
    assert cozyfs(group, "install", ALICE, "drive", tmp_path / "src").code == 0
    version = cozyfs(group, "show", ALICE, "drive", "--json").json()["version"]
    assert version.startswith("1-")


def test_a_file_is_printed(cozyfs, group, archive):
    cozyfs(group, "install", ALICE, "drive", archive())
    done = cozyfs(group, "cat", ALICE, "drive", "1.2.3", "index.html")
    assert (done.code, done.out, done.err) == (0, "<h>", "")


@pytest.mark.parametrize(
    ("version", "path", "message"),
    [
        ("1.2.3", "nothing", "the {} drive 1.2.3 has no file 'nothing'"),
        ("1.2.3", "../1.2.3/index.html", "the {} drive 1.2.3 has no file '../1.2.3/index.html'"),
        ("9", "index.html", "there is no version '9' of the {} 'drive'"),
    ],
)
def test_a_file_that_is_not_there_is_one_line(cozyfs, group, archive, version, path, message):
    cozyfs(group, "install", ALICE, "drive", archive())
    done = cozyfs(group, "cat", ALICE, "drive", version, path)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"cozyfs: {message.format(group.removesuffix('s'))}\n"


def test_an_uninstalled_app_is_gone_from_its_instance_only(cozyfs, group, archive, tmp_path):
    cozyfs("instances", "add", "bob.example.com")
    for domain in (ALICE, "bob.example.com"):
        cozyfs(group, "install", domain, "drive", archive())
    done = cozyfs(group, "uninstall", ALICE, "drive")
    assert (done.code, done.out) == (0, "uninstalled drive 1.2.3\n")
    assert cozyfs(group, "ls", ALICE, "--json").json() == []
    assert cozyfs(group, "cat", "bob.example.com", "drive", "1.2.3", "index.html").out == "<h>"


@pytest.mark.parametrize(
    "args",
    [
        ["show"],
        ["uninstall"],
        ["cat", "1.2.3", "index.html"],
        ["files", "1.2.3"],
        ["tarball", "1.2.3", "-o", "-"],
    ],
)
def test_what_is_not_installed_is_one_line(cozyfs, group, args):
    name, *rest = args
    done = cozyfs(group, name, ALICE, "drive", *rest)
    assert done.code == 1
    noun = group.removesuffix("s")
    assert done.err == f"cozyfs: the {noun} drive is not installed on {ALICE}\n"


def test_an_instance_without_apps_has_an_empty_list(cozyfs, group):
    assert cozyfs(group, "ls", ALICE, "--json").json() == []
    plain = cozyfs(group, "ls", ALICE)
    assert (plain.code, plain.out, plain.err) == (0, "", f"{ALICE} has no {group}\n")


def test_apps_are_no_konnectors(cozyfs, archive, group):
    cozyfs(group, "install", ALICE, "drive", archive())
    (other,) = set(MANIFESTS) - {group}
    assert cozyfs(other, "ls", ALICE, "--json").json() == []
    assert cozyfs(other, "install", ALICE, "drive", archive()).code == 1


@pytest.mark.parametrize("name", ["install", "ls", "show", "uninstall"])
def test_an_unknown_instance_is_one_line(cozyfs, group, name, archive):
    rest = {"install": ["drive", archive()], "ls": []}.get(name, ["drive"])
    done = cozyfs(group, name, "nobody.example.com", *rest)
    assert done.code == 1
    assert is_one_line(done.err)


@pytest.mark.parametrize(
    ("slug", "source", "message"),
    [
        (
            "Drive",
            "x.tar",
            "'Drive' is not the slug of an app: only a-z, 0-9 and '-', at most 128",
        ),
        ("drive", "/nowhere/x.tar", "/nowhere/x.tar: no such file or folder"),
        (
            "drive",
            "registry://drive/stable",
            "an app cannot be installed from registry://; "
            "give a tar file, a folder, or an http or https URL of a tar file",
        ),
        (
            "drive",
            "https://example.com/x#abc",
            "what follows '#' in the URL of the app is not a SHA-256 in hexadecimal",
        ),
    ],
)
def test_bad_input_is_exit_code_2(cozyfs, group, slug, source, message):
    done = cozyfs(group, "install", ALICE, slug, source)
    assert (done.code, done.err) == (2, f"cozyfs: {message}\n")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("../../evil", tarfile.REGTYPE, "../../evil: the name of a file leads out of the app"),
        ("/etc/cron", tarfile.REGTYPE, "/etc/cron: the name of a file is absolute"),
        ("way", tarfile.SYMTYPE, "'way' is a link, which an app cannot have"),
        ("way", tarfile.LNKTYPE, "'way' is a link, which an app cannot have"),
        ("tty", tarfile.CHRTYPE, "'tty' is neither a file nor a folder, which an app cannot have"),
        ("sda", tarfile.BLKTYPE, "'sda' is neither a file nor a folder, which an app cannot have"),
        ("fifo", tarfile.FIFOTYPE, "'fifo' is neither a file nor a folder, which an app cannot"),
    ],
)
def test_an_unsafe_archive_is_one_line_and_installs_nothing(
    cozyfs, group, archive, name, kind, message
):
    path = archive()
    with gzip.open(path) as packed, tarfile.open(path.with_name("bad.tar"), "w") as bad:
        with tarfile.open(fileobj=packed) as good:
            for entry in good:
                bad.addfile(entry, good.extractfile(entry))
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "index.html"
        bad.addfile(entry)

    done = cozyfs(group, "install", ALICE, "drive", path.with_name("bad.tar"))

    assert (done.code, done.out) == (1, "")
    assert is_one_line(done.err)
    assert done.err.startswith(f"cozyfs: {message}")
    assert cozyfs(group, "ls", ALICE, "--json").json() == []
    assert cozyfs(group, "install", ALICE, "drive", archive(), "--json").json()["copied"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", "has no version"),
        (" " * ((2 << 20) + 1), "is too large: more than 2 MiB"),
    ],
)
def test_a_bad_manifest_is_one_line(cozyfs, group, archive, manifest, message):
    name = MANIFESTS[group]
    done = cozyfs(group, "install", ALICE, "drive", archive(**{name: manifest}))
    assert (done.code, done.err) == (1, f"cozyfs: {name} {message}\n")


def test_a_url_is_installed_when_its_checksum_is_right(cozyfs, group, archive, web):
    folder, url = web
    data = archive().read_bytes()
    (folder / "drive.tgz").write_bytes(data)
    right, wrong = hashlib.sha256(data).hexdigest(), hashlib.sha256(b"").hexdigest()

    done = cozyfs(group, "install", ALICE, "drive", f"{url}/drive.tgz#{wrong}")
    assert (done.code, done.err) == (
        1,
        f"cozyfs: {url}/drive.tgz has a bad checksum: SHA-256 {right}, not {wrong}\n",
    )
    assert cozyfs(group, "ls", ALICE, "--json").json() == []

    assert cozyfs(group, "install", ALICE, "drive", f"{url}/drive.tgz#{right}").code == 0
    assert cozyfs(group, "show", ALICE, "drive", "--json").json()["source"] == f"{url}/drive.tgz"

    done = cozyfs(group, "install", ALICE, "drive", f"{url}/nothing")
    assert done.err == f"cozyfs: {url}/nothing cannot be fetched: the server answered 404\n"


def test_a_half_done_install_is_not_there(cozyfs, group, archive, both_stores):
    cozyfs(group, "install", ALICE, "drive", archive())
    cozyfs(group, "install", ALICE, "drive", archive("2.0.0"))
    url = parse_fs_url(both_stores)
    with contextlib.closing(open_store(url)) as store:
        bucket = side_bucket(url.bucket_prefix, KIND_OF[group].bucket)
        store.delete(bucket, "drive/2.0.0.cozy-installed")

    noun = group.removesuffix("s")
    for command, rest in (("cat", ["index.html"]), ("files", []), ("tarball", ["-o", "-"])):
        done = cozyfs(group, command, ALICE, "drive", "2.0.0", *rest)
        assert (done.code, done.out) == (1, "")
        assert done.err == f"cozyfs: there is no version '2.0.0' of the {noun} 'drive'\n"
    assert cozyfs(group, "install", ALICE, "drive", archive("2.0.0"), "--json").json()["copied"]
    assert cozyfs(group, "cat", ALICE, "drive", "2.0.0", "index.html").out == "<h>"


def test_the_files_of_a_version_are_listed(cozyfs, group, archive):
    cozyfs(group, "install", ALICE, "drive", archive())

    lines = cozyfs(group, "files", ALICE, "drive", "1.2.3").out.splitlines()
    assert [line.split()[-1] for line in lines] == ["NAME", "index.html", MANIFESTS[group]]
    listed = cozyfs(group, "files", ALICE, "drive", "1.2.3", "--json").json()
    assert [file["name"] for file in listed] == ["index.html", MANIFESTS[group]]
    assert all(file["stored"] > 0 for file in listed)


def test_a_version_is_taken_as_an_archive(cozyfs, group, archive, tmp_path):
    cozyfs(group, "install", ALICE, "drive", archive())

    for _ in range(2):  # made, and kept
        done = cozyfs(group, "tarball", ALICE, "drive", "1.2.3", "-o", tmp_path / "out.tgz")
        assert (done.code, done.out, done.err) == (0, "", "")
        with tarfile.open(tmp_path / "out.tgz") as tar:
            content = {entry.name: tar.extractfile(entry).read() for entry in tar}
        assert content["index.html"] == b"<h>"
        assert set(content) == {"index.html", MANIFESTS[group]}


def test_a_url_that_cannot_be_fetched_is_one_line(cozyfs, group):
    checksum = hashlib.sha256(b"").hexdigest()
    done = cozyfs(group, "install", ALICE, "drive", f"http://127.0.0.1:1/x?token=t#{checksum}")
    assert done.code == 1
    assert done.err == "cozyfs: http://127.0.0.1:1/x cannot be fetched: no connection\n"


def test_apps_go_with_their_instance(cozyfs, group, archive):
    cozyfs(group, "install", ALICE, "drive", archive())
    cozyfs("instances", "destroy", "--yes", ALICE)
    cozyfs("instances", "add", ALICE)
    assert cozyfs(group, "ls", ALICE, "--json").json() == []


@pytest.mark.parametrize("data", [b"", b"text", b"\x1f\x8b no gzip"])
def test_what_is_no_archive_is_one_line(cozyfs, group, tmp_path, data):
    (tmp_path / "app.tar").write_bytes(data)
    done = cozyfs(group, "install", ALICE, "drive", tmp_path / "app.tar")
    assert (done.code, done.out) == (1, "")
    assert is_one_line(done.err)


def test_ctrl_c_ends_an_install_and_leaves_nothing(cozyfs, group, tmp_path, both_stores):
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / MANIFESTS[group]).write_text('{"version": "1"}')
    # It is stored last, and takes a while to be compressed.
    (folder / "z").write_bytes(os.urandom(128 << 20))
    url = parse_fs_url(both_stores)
    bucket = side_bucket(url.bucket_prefix, KIND_OF[group].bucket)
    command = [sys.executable, "-m", "cozyfs", group, "install", ALICE, "drive", folder]
    with (
        contextlib.closing(open_store(url)) as store,
        subprocess.Popen(command, stderr=subprocess.PIPE, cwd=PROJECT) as process,
    ):
        eventually(lambda: list(store.list(bucket)), pause_s=0.01)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
        assert (process.returncode, complaints.strip()) == (130, b"")
        assert list(store.list(bucket)) == []
    assert cozyfs(group, "ls", ALICE, "--json").json() == []
