"""``cozyfs assets`` over both stores."""

import hashlib
import os

import pytest

from .conftest import is_one_line

DATA = b"a { color: red }"
SHASUM = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def place(both_stores):
    return both_stores


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "theme.css"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def added(cozyfs, source):
    return cozyfs("assets", "add", "--context", "acme", "--name", "css/theme.css", source)


@pytest.mark.usefixtures("added")
def test_an_asset_that_was_added_is_got_again(cozyfs, added, tmp_path):
    assert (added.code, added.err) == (0, "")
    assert added.out == f"added /css/theme.css to acme, SHA-256 {SHASUM}\n"

    outcome = cozyfs("assets", "get", "acme", "/css/theme.css", "-o", tmp_path / "copy")

    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert (tmp_path / "copy").read_bytes() == DATA


@pytest.mark.usefixtures("added")
def test_it_goes_to_the_standard_output_too(cozyfs):
    assert cozyfs("assets", "get", "acme", "css/theme.css", "-o", "-").out == DATA.decode()


def test_programs_are_told_what_it_is(cozyfs, source, tmp_path):
    args = ["--context", "acme", "--name", "theme.css", "--shasum", SHASUM, "--json"]
    added = cozyfs("assets", "add", *args, source.as_uri()).json()
    assert added == {
        "name": "/theme.css",
        "context": "acme",
        "url": source.as_uri(),
        "shasum": SHASUM,
        "is_custom": True,
        "etag": f'"{SHASUM[:10]}"',
        "name_with_sum": f"/theme.{SHASUM[:10]}.css",
        "mime": "text/css",
        "size": len(DATA),
    }
    got = cozyfs("assets", "get", "acme", "theme.css", "-o", tmp_path / "copy", "--json").json()
    assert got == added | {"url": ""}


def test_the_list_is_by_context_and_name(cozyfs, source):
    for context, name in (("b", "x.css"), ("a", "y.css"), ("b", "/a.css")):
        cozyfs("assets", "add", "--context", context, "--name", name, source)

    lines = cozyfs("assets", "ls").out.splitlines()
    assert [line.split() for line in lines] == [
        ["CONTEXT", "NAME", "SIZE"],
        ["a", "/y.css", "16", "B"],
        ["b", "/a.css", "16", "B"],
        ["b", "/x.css", "16", "B"],
    ]
    listed = cozyfs("assets", "ls", "--context", "b", "--json").json()
    assert [asset["name"] for asset in listed["b"]] == ["/a.css", "/x.css"]
    assert list(listed) == ["b"]


def test_no_assets_are_an_empty_list(cozyfs):
    assert cozyfs("assets", "ls", "--json").json() == {}
    plain = cozyfs("assets", "ls")
    assert (plain.code, plain.out) == (0, "")


@pytest.mark.usefixtures("added")
def test_removing_it_twice_is_fine(cozyfs):
    assert cozyfs("assets", "rm", "acme", "css/theme.css").code == 0
    assert cozyfs("assets", "rm", "acme", "/css/theme.css").code == 0
    assert cozyfs("assets", "ls", "--json").json() == {}


def test_an_asset_that_is_not_there_is_one_line(cozyfs):
    outcome = cozyfs("assets", "get", "acme", "theme.css", "-o", "-")

    assert outcome.code == 1
    assert outcome.err == "cozyfs: there is no asset /theme.css in the context acme\n"


def test_another_sum_is_refused_and_nothing_is_stored(cozyfs, source):
    args = ["--context", "acme", "--name", "theme.css", "--shasum", "0" * 64]
    outcome = cozyfs("assets", "add", *args, source)

    assert outcome.code == 1
    assert outcome.err == (f"cozyfs: the SHA-256 of /theme.css is {SHASUM}, not {'0' * 64}\n")
    assert cozyfs("assets", "ls", "--json").json() == {}


@pytest.mark.parametrize(
    "args",
    [
        ["add", "--name", "a", "SOURCE"],
        ["add", "--context", "", "--name", "a", "SOURCE"],
        ["add", "--context", "c", "--name", "..", "SOURCE"],
        ["add", "--context", "c", "--name", "a", "--shasum", "x", "SOURCE"],
        ["add", "--context", "c", "--name", "a", "ftp://example.com/a"],
        ["get", "c", "a"],
        ["get", "c", "a", "-o", "-", "--json"],
        ["rm", "c", ""],
        ["ls", "--context", "a/b"],
    ],
)
def test_bad_input_is_exit_code_2(cozyfs, source, args):
    outcome = cozyfs("assets", *[source if arg == "SOURCE" else arg for arg in args])

    assert outcome.code == 2
    assert is_one_line(outcome.err)


def test_an_asset_comes_from_a_url_too(cozyfs, web):
    folder, url = web
    (folder / "theme.css").write_bytes(DATA)
    args = ["assets", "add", "--context", "acme", "--name", "theme.css"]

    assert cozyfs(*args, f"{url}/theme.css", "--shasum", SHASUM).code == 0

    assert cozyfs("assets", "get", "acme", "theme.css", "-o", "-").out == DATA.decode()
    outcome = cozyfs(*args, f"{url}/nothing")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == f"cozyfs: {url} answered 404 instead of the asset\n"


def test_an_asset_of_more_than_50_mib_is_refused(cozyfs, source):
    os.truncate(source, (50 << 20) + 1)

    outcome = cozyfs("assets", "add", "--context", "c", "--name", "a", source)

    assert outcome.code == 1
    assert outcome.err == (
        f"cozyfs: {source} has more than the 52428800 bytes that an asset can have\n"
    )
    assert cozyfs("assets", "ls", "--json").json() == {}


@pytest.mark.usefixtures("added")
def test_no_name_reaches_another_context(cozyfs):
    outcome = cozyfs("assets", "get", "other", "../acme/css/theme.css", "-o", "-")
    assert outcome.err == "cozyfs: there is no asset /acme/css/theme.css in the context other\n"
    assert cozyfs("assets", "rm", "other", "../acme/css/theme.css").code == 0
    assert cozyfs("assets", "get", "acme", "css/theme.css", "-o", "-").code == 0


def test_the_status_is_the_time_of_an_answer(cozyfs):
    assert cozyfs("assets", "status").out.startswith("the store answers in ")
    assert cozyfs("assets", "status", "--json").json()["latency_s"] >= 0


def test_a_source_that_is_not_there_is_one_line(cozyfs):
    outcome = cozyfs("assets", "add", "--context", "c", "--name", "a", "/does/not/exist")

    assert outcome.code == 1
    assert outcome.err == "cozyfs: /does/not/exist: No such file or directory\n"


def test_a_store_that_does_not_answer_is_one_line(cozyfs, monkeypatch):
    monkeypatch.setenv("COZYFS_FS_URL", "s3://127.0.0.1:1?access_key=a&secret_key=b&use_ssl=false")
    outcome = cozyfs("assets", "status")

    assert (outcome.code, outcome.out) == (1, "")
    assert is_one_line(outcome.err)
