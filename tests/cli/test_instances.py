"""``cozyfs instances`` over a local store."""

import pytest

from cozyfs.state import InstanceState

from .conftest import is_one_line

PREFIX = "cozy0d88385e5e731af27c0f1c0a312135b9"  # of alice.example.com


@pytest.fixture
def alice(cozyfs):
    return cozyfs("instances", "add", "alice.example.com", "--json").json()


def test_an_instance_that_was_added_is_listed(cozyfs):
    added = cozyfs("instances", "add", "alice.example.com", "--org", "acme", "--disk-quota", "3GB")
    assert (added.code, added.out, added.err) == (0, "", "")
    (listed,) = cozyfs("instances", "ls", "--json").json()
    assert listed["domain"] == "alice.example.com"
    assert listed["org"] == "acme"
    assert listed["bucket"] == "cozy-acme"
    assert listed["quota"] == 3_000_000_000
    assert listed["db_prefix"] == PREFIX


def test_the_list_is_a_table_by_domain(cozyfs):
    for domain in ("bob.example.com", "alice.example.com"):
        cozyfs("instances", "add", domain)
    lines = cozyfs("instances", "ls").out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "DOMAIN",
        "alice.example.com",
        "bob.example.com",
    ]


def test_an_empty_store_has_an_empty_list(cozyfs):
    assert cozyfs("instances", "ls", "--json").json() == []
    plain = cozyfs("instances", "ls")
    assert (plain.code, plain.out) == (0, "")


@pytest.mark.usefixtures("alice")
def test_adding_twice_is_refused(cozyfs):
    outcome = cozyfs("instances", "add", "alice.example.com")
    assert outcome.code == 1
    assert is_one_line(outcome.err)


def test_show_tells_the_same_as_add(cozyfs, alice):
    assert cozyfs("instances", "show", "--json", "alice.example.com").json() == alice
    assert PREFIX in cozyfs("instances", "show", "alice.example.com").out


@pytest.mark.parametrize("command", ["show", "destroy"])
def test_an_unknown_instance_is_one_line(cozyfs, command):
    outcome = cozyfs("instances", command, "nobody.example.com")
    assert outcome.code == 1
    assert is_one_line(outcome.err)


@pytest.mark.parametrize(
    "args",
    [
        ["", "--json"],
        ["a/b"],
        ["alice", "--db-prefix", ""],
        ["alice", "--fs-url", "s3://h?bogus=1"],
        ["alice", "--fs-url", "ftp://h"],
        ["alice", "--org", "assets"],
        ["alice", "--config", "/does/not/exist.yaml"],
    ],
)
def test_bad_input_is_exit_code_2(cozyfs, args):
    outcome = cozyfs("instances", "add", *args)
    assert outcome.code == 2
    assert is_one_line(outcome.err)


@pytest.mark.usefixtures("alice")
def test_destroy_deletes_the_instance_and_its_state_and_nothing_else(cozyfs, tmp_path):
    cozyfs("instances", "add", "alice.example.com.au")
    state = InstanceState.open(tmp_path / "state", "cozy-default", PREFIX)
    state.index_path.write_bytes(b"tree")
    outcome = cozyfs("instances", "destroy", "--yes", "alice.example.com")
    assert outcome.code == 0
    assert not state.directory.exists()
    (left,) = cozyfs("instances", "ls", "--json").json()
    assert left["domain"] == "alice.example.com.au"


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize("answer", ["n\n", "\n", ""], ids=["no", "enter", "end of input"])
def test_destroy_asks_and_deletes_nothing_without_a_yes(cozyfs, answer, monkeypatch):
    answers = iter(answer.splitlines())
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _="": next_or_eof(answers))
    outcome = cozyfs("instances", "destroy", "alice.example.com")
    assert outcome.code == 1
    assert cozyfs("instances", "show", "alice.example.com").code == 0


def next_or_eof(answers):
    for answer in answers:
        return answer
    raise EOFError


@pytest.mark.usefixtures("alice")
def test_destroy_is_refused_while_mounted_here(cozyfs, tmp_path):
    state = InstanceState.open(tmp_path / "state", "cozy-default", PREFIX)
    state.lock(tmp_path / "mnt", instance="alice.example.com", store="s")
    outcome = cozyfs("instances", "destroy", "--yes", "alice.example.com")
    state.unlock()
    assert outcome.code == 1
    assert str(tmp_path / "mnt") in outcome.err
    assert cozyfs("instances", "show", "alice.example.com").code == 0


@pytest.mark.usefixtures("alice")
def test_destroy_leaves_the_state_of_another_store_alone(cozyfs, tmp_path):
    state = InstanceState.open(tmp_path / "state", "cozy-default", PREFIX)
    state.lock(tmp_path / "mnt", instance="alice.example.com", store="S3 at elsewhere")
    state.unlock()
    assert cozyfs("instances", "destroy", "--yes", "alice.example.com").code == 0
    assert state.directory.exists()


def test_the_store_may_come_from_a_configuration_file(cozyfs, tmp_path, monkeypatch):
    monkeypatch.delenv("COZYFS_FS_URL")
    config = tmp_path / "cozy.yaml"
    config.write_text(f"fs:\n  url: file://{tmp_path}/other\ncouchdb:\n  url: http://x\n")
    cozyfs("instances", "add", "alice.example.com", "--config", config)
    assert (tmp_path / "other" / "cozy-default").is_dir()
    assert len(cozyfs("instances", "ls", "--json", "--config", config).json()) == 1


@pytest.mark.usefixtures("alice")
def test_settings_of_versions_are_shown_once_they_are_modified(cozyfs):
    assert "as configured" in cozyfs("instances", "show", "alice.example.com").out

    done = cozyfs(
        *("instances", "modify", "alice.example.com", "--max-versions", "7"),
        *("--version-delay", "1h"),
    )

    assert (done.code, done.out, done.err) == (0, "", "")
    shown = cozyfs("instances", "show", "alice.example.com", "--json").json()
    assert (shown["max_versions"], shown["version_delay_s"]) == (7, 3600)


@pytest.mark.usefixtures("alice")
def test_modifying_nothing_is_bad_input(cozyfs):
    outcome = cozyfs("instances", "modify", "alice.example.com")
    assert outcome.code == 2
    assert is_one_line(outcome.err)


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(("size", "quota"), [("3GB", 3 * 10**9), ("1GiB", 1 << 30), ("0", 0)])
@pytest.mark.parametrize(
    "command",
    [["set-disk-quota", "alice.example.com"], ["modify", "alice.example.com", "--disk-quota"]],
)
def test_a_quota_has_decimal_units_and_0_removes_it(cozyfs, command, size, quota):
    done = cozyfs("instances", *command, size)
    assert (done.code, done.out, done.err) == (0, "", "")
    shown = cozyfs("instances", "show", "--json", "alice.example.com").json()
    assert (shown["quota"], shown["context"]) == (quota, "")


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["alice.example.com", "lots"], 2),
        (["alice.example.com"], 2),
        (["bob.example.com", "3GB"], 1),
    ],
)
def test_set_disk_quota_refuses_in_one_line(cozyfs, args, code):
    done = cozyfs("instances", "set-disk-quota", *args)
    assert done.code == code
    assert is_one_line(done.err)
