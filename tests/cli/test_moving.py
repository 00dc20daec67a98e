"""``cozyfs instances export``, ``import``, ``copy`` and ``exports`` as people run them."""

import io
import sys

import pytest
import trio
from failing_store import FailingStore
from moving_world import entries, fill
from test_cozy_parts import ROOT, Parts

from cozyfs import instances
from cozyfs import store as cozyfs_store
from cozyfs.cli import run
from cozyfs.errors import AccessDenied
from cozyfs.store import LocalStore

from .conftest import is_one_line

ALICE, BOB = "alice.example.com", "bob.example.com"


@pytest.fixture
def full(cozyfs, tmp_path):
    """alice, with everything, in the store of the environment; bob, empty."""
    cozyfs("instances", "add", ALICE)
    cozyfs("instances", "add", BOB)
    store = LocalStore(tmp_path / "store", durable=False)
    alice = instances.find(store, "cozy", ALICE)
    trio.run(fill, store, alice, tmp_path / "elsewhere")
    store.close()


@pytest.fixture
def archive(cozyfs, full, tmp_path):
    path = tmp_path / "alice.tgz"
    assert cozyfs("instances", "export", ALICE, "-o", path).code == 0
    return path


LACKS = (
    f"cozyfs: the store lacks the files of drive 1.2.3:"
    f" cozyfs apps install {BOB} drive registry://drive\n"
)


def exported(cozyfs, tmp_path, domain, *options):
    path = tmp_path / f"{domain}.again.tgz"
    assert cozyfs("instances", "export", domain, "-o", path, *options).code == 0
    return entries(path)


def test_an_archive_fills_another_instance(cozyfs, archive, tmp_path):
    done = cozyfs("instances", "import", BOB, archive)
    assert (done.code, done.err) == (0, LACKS + "imported 10 files, 2 versions\n")
    assert exported(cozyfs, tmp_path, BOB) == entries(archive)


def test_a_pipe_moves_an_instance(cozyfs, archive, tmp_path, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(archive.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cozyfs("instances", "import", BOB, "-").code == 0
    assert exported(cozyfs, tmp_path, BOB) == entries(archive)


@pytest.mark.usefixtures("full")
def test_the_archive_can_go_to_standard_output(tmp_path, monkeypatch):
    made = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", made)
    assert run(["instances", "export", ALICE, "-o", "-"]) == 0
    path = tmp_path / "piped.tgz"
    path.write_bytes(made.buffer.getvalue())
    assert "Files/Photos/report.odt" in dict(entries(path))


@pytest.mark.usefixtures("full")
def test_exports_of_the_store_are_listed_fetched_imported_and_removed(cozyfs, tmp_path):
    made = cozyfs("instances", "export", ALICE)
    export_id = made.out.strip()
    (listed,) = cozyfs("instances", "exports", "ls", ALICE, "--json").json()
    assert listed["id"] == export_id
    assert export_id in cozyfs("instances", "exports", "ls", ALICE).out
    path = tmp_path / "got.tgz"
    assert cozyfs("instances", "exports", "get", ALICE, export_id, "-o", path).code == 0
    assert len(entries(path)) > 10
    assert cozyfs("instances", "import", BOB, f"{ALICE}/{export_id}").code == 0
    assert exported(cozyfs, tmp_path, BOB) == entries(path)
    assert cozyfs("instances", "exports", "rm", ALICE, export_id).code == 0
    assert cozyfs("instances", "exports", "ls", ALICE, "--json").json() == []


@pytest.mark.usefixtures("full")
def test_a_copy_on_one_store_and_one_to_another(cozyfs, archive, tmp_path):
    assert cozyfs("instances", "copy", ALICE, BOB).code == 0
    assert exported(cozyfs, tmp_path, BOB) == entries(archive)
    other = f"file://{tmp_path}/other"
    cozyfs("instances", "add", "carol.example.com", "--fs-url", other)
    copied = cozyfs(
        "instances", "copy", ALICE, "carol.example.com", "--to-fs-url", other, "--json"
    )
    assert copied.json()["problems"] == []
    again = exported(cozyfs, tmp_path, "carol.example.com", "--fs-url", other)
    assert again == entries(archive)


def test_documents_without_a_place_here_are_told(cozyfs, tmp_path):
    cozyfs("instances", "add", BOB)
    parts = Parts(tmp_path).begin()
    parts.add("Data/io.cozy.contacts/a.json", "{}")
    parts.file("one", "one", ROOT, "/one", b"1")
    parts.end()
    done = cozyfs("instances", "import", BOB, *parts.paths)
    told = "documents without a place here: 1 of io.cozy.apps, 1 of io.cozy.contacts"
    assert (done.code, done.err) == (0, f"cozyfs: {told}\nimported 1 files, 0 versions\n")
    again = cozyfs("instances", "destroy", "--yes", BOB)
    assert again.code == 0
    cozyfs("instances", "add", BOB)
    done = cozyfs("instances", "import", BOB, "--json", *parts.paths)
    assert done.json()["left_out"] == {"io.cozy.apps": 1, "io.cozy.contacts": 1}


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    ("call", "nth", "args"),
    [
        ("get", 10, ["export", ALICE, "-o", "OUT"]),
        ("upload_part", 1, ["export", ALICE]),
        ("complete_multipart", 1, ["export", ALICE]),
        ("list", 1, ["export", ALICE, "-o", "OUT"]),
        ("copy", 5, ["copy", ALICE, BOB]),
        ("put", 4, ["copy", ALICE, BOB]),
    ],
)
def test_an_error_of_the_store_is_told_in_its_words_and_what_was_cut_is_run_again(
    cozyfs, tmp_path, monkeypatch, call, nth, args
):
    open_store, words = cozyfs_store.open_store, "the S3 server refused access"

    def failing(*args, **kwargs):
        store = FailingStore(open_store(*args, **kwargs))
        store.fail(call, nth=nth, times=float("inf"), error=AccessDenied(words))
        return store

    args = [tmp_path / "out.tgz" if arg == "OUT" else arg for arg in args]
    with monkeypatch.context() as patch:
        patch.setattr(cozyfs_store, "open_store", failing)
        done = cozyfs("instances", *args)
    assert done.code == 1
    assert done.err.startswith(f"cozyfs: {words}")
    assert is_one_line(done.err)
    assert cozyfs("instances", *args, *(["--force-lease"] if args[0] == "copy" else [])).code == 0


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["import", BOB, "no-such-archive"], 1),
        (["import", ALICE, "ARCHIVE"], 1),
        (["copy", ALICE, ALICE], 2),
        (["copy", ALICE, "nobody.example.com"], 1),
        (["export", BOB], 1),
        (["export", ALICE, "-o", "-", "--json"], 2),
        (["export", ALICE, "-o", "/does/not/exist/x.tgz"], 1),
        (["exports", "get", ALICE, "nothing"], 1),
        (["exports", "rm", ALICE, "nothing"], 1),
        (["modify", ALICE], 2),
    ],
)
def test_what_cannot_be_is_one_line(cozyfs, archive, args, code):
    outcome = cozyfs("instances", *(str(archive) if arg == "ARCHIVE" else arg for arg in args))
    assert outcome.code == code
    assert is_one_line(outcome.err)


@pytest.mark.usefixtures("full")
def test_the_context_can_be_modified(cozyfs):
    assert (
        cozyfs("instances", "modify", ALICE, "--context", "beta", "--json").json()["context"]
        == "beta"
    )
    assert cozyfs("instances", "show", ALICE, "--json").json()["context"] == "beta"
