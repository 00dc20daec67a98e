"""How a command ends: exit codes, and one line for what went wrong."""

import subprocess
import sys
import time

import click
import pytest

import cozyfs as package
from cozyfs.cli import cli, run
from cozyfs.errors import CozyError, StoreUnavailable, UsageError

from .conftest import is_one_line


def ending_with(exc, monkeypatch):
    """Run a command that raises *exc*."""

    @click.command()
    def command():
        raise exc

    monkeypatch.setattr(cli, "get_command", lambda ctx, name: command)
    return run(["anything"])


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (CozyError("no"), 1),
        (StoreUnavailable("no"), 1),
        (UsageError("no"), 2),
        (click.UsageError("no"), 2),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (KeyError("bug"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_is_one_line_and_an_exit_code(exc, code, monkeypatch, capsys):
    assert ending_with(exc, monkeypatch) == code
    assert is_one_line(capsys.readouterr().err)


def test_a_message_of_several_lines_becomes_one(monkeypatch, capsys):
    ending_with(CozyError("one\n  two"), monkeypatch)
    assert capsys.readouterr().err == "cozyfs: one two\n"


def test_credentials_in_a_message_are_hidden(monkeypatch, capsys):
    ending_with(CozyError("s3://h?secret_key=t0psecret"), monkeypatch)
    assert "t0psecret" not in capsys.readouterr().err


def test_ctrl_c_is_quiet(monkeypatch, capsys):
    assert ending_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize(
    "args",
    [
        ["bogus"],
        ["--bogus"],
        ["mount"],
        ["mount", "alice"],
        ["mount", "a", "b", "c"],
        ["umount"],
        ["status", "a", "b"],
        ["instances", "bogus"],
        ["instances", "add"],
        ["instances", "add", "alice", "--disk-quota", "lots"],
        ["completion", "tcsh"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_code_2(cozyfs, args):
    outcome = cozyfs(*args)
    assert outcome.code == 2
    assert is_one_line(outcome.err)
    assert outcome.out == ""


def test_the_version_is_told(cozyfs):
    assert cozyfs("--version").out == f"cozyfs {package.__version__}\n"


@pytest.mark.parametrize(
    "args", [[], ["mount"], ["umount"], ["status"], ["instances"]], ids=" ".join
)
def test_help_is_given_and_shows_an_example(cozyfs, args):
    outcome = cozyfs(*args, "--help")
    assert outcome.code == 0
    assert f"  {' '.join(['cozyfs', *args])}" in outcome.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(cozyfs, shell):
    outcome = cozyfs("completion", shell)
    assert outcome.code == 0
    assert "_COZYFS_COMPLETE" in outcome.out


def test_completion_knows_commands_and_options(monkeypatch, capsys):
    monkeypatch.setenv("_COZYFS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "cozyfs mount --fs")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        run([])
    assert "--fs-url" in capsys.readouterr().out


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys; from cozyfs.cli import run; run(['--help']); "
        "heavy = {'trio', 'minio', 'pyfuse3', 'apsw', 'rich', 'yaml'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - began < 5


def test_python_m_cozyfs_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "cozyfs", "bogus"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert is_one_line(done.stderr)


def test_only_what_speaks_to_s3_loads_its_client():
    code = (
        "import sys; import cozyfs.cli.mount, cozyfs.config, cozyfs.mount; "
        "from cozyfs.store import open_store, parse_fs_url; "
        "loaded = lambda: 'minio' in sys.modules; "
        "before = loaded(); open_store(parse_fs_url('s3://host')); print(before, loaded())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True
    )
    assert done.stdout == "False True\n"
