"""Log lines: where they go, and that credentials are in none of them."""

import logging
import subprocess
import sys

import pytest

from cozyfs import logs
from cozyfs.errors import CozyError

LEAKS = [
    "Authorization: AWS4-HMAC-SHA256 Credential=t0psecret/20240101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=t0psecret",
    "{'Authorization': 'Bearer t0psecret', 'Host': 'x'}",
    "s3://host?access_key=t0psecret&secret_key=t0psecret&region=eu",
    "s3://host?region=eu&secret_key=t0psecret%2Fmore",
    'GET /b/k?X-Amz-Signature=t0psecret&X-Amz-Credential=t0psecret%2F2024 HTTP/1.1" 403',
    "x-amz-security-token: t0psecret",
    '{"secretKey": "t0psecret", "accessKey": "t0psecret", "sessionToken": "t0psecret"}',
    "<SecretAccessKey>t0psecret</SecretAccessKey><AccessKeyId>t0psecret</AccessKeyId>",
    "AWS_SECRET_ACCESS_KEY=t0psecret AWS_ACCESS_KEY_ID=t0psecret",
    "https://user:t0psecret@s3.example.com/",
]


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = True
    logs._secrets.clear()


@pytest.mark.parametrize("text", LEAKS)
def test_credentials_are_taken_out(text):
    assert "t0psecret" not in logs.redact(text)


@pytest.mark.parametrize("text", LEAKS)
def test_credentials_reach_no_log_file_at_any_level(text, tmp_path):
    logs.set_up("debug", tmp_path / "log")
    logging.getLogger("urllib3.connectionpool").debug("%s", text)
    assert "t0psecret" not in (tmp_path / "log").read_text()
    assert logs.HIDDEN in (tmp_path / "log").read_text()


def test_a_traceback_does_not_carry_them_either(tmp_path):
    logs.set_up("info", tmp_path / "log")
    try:
        raise ValueError("s3://h?secret_key=t0psecret")
    except ValueError:
        logging.getLogger("cozyfs").exception("failed")
    assert "ValueError" in (tmp_path / "log").read_text()
    assert "t0psecret" not in (tmp_path / "log").read_text()


def test_a_known_secret_is_hidden_wherever_it_stands():
    logs.hide("hunter/22", "", None, "abc")
    assert logs.redact("the word hunter/22, abc") == f"the word {logs.HIDDEN}, abc"
    assert logs.redact("hunter%2F22") == logs.HIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "key cozy/abc/def of 3 bytes",
        "upload 12 of 14 parts",
        "monkey=3",
        "the secret key is wrong",
    ],
)
def test_ordinary_lines_stay_as_they_are(text):
    assert logs.redact(text) == text


def test_lines_for_the_journal_carry_a_priority(monkeypatch, capsys):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    logs.set_up("debug")
    logging.getLogger("cozyfs.x").error("first\nsecond")
    logging.getLogger("cozyfs.x").debug("third")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["<3>cozyfs.x: first", "<3>second", "<7>cozyfs.x: third"]


def test_lines_on_a_terminal_are_plain(monkeypatch, capsys):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    logs.set_up("info")
    logging.getLogger("cozyfs.x").warning("careful")
    assert capsys.readouterr().err.rstrip().endswith("WARNING cozyfs.x: careful")


def test_levels_below_are_not_logged(tmp_path):
    logs.set_up("warning", tmp_path / "log")
    logging.getLogger("cozyfs").info("quiet")
    assert (tmp_path / "log").read_text() == ""


def test_a_log_file_that_was_moved_away_is_opened_again(tmp_path):
    logs.set_up("info", tmp_path / "log")
    logging.getLogger("cozyfs").info("one")
    (tmp_path / "log").rename(tmp_path / "log.1")
    logging.getLogger("cozyfs").info("two")
    assert "two" in (tmp_path / "log").read_text()


def test_the_log_in_the_state_directory_stays_small(tmp_path):
    logs.set_up("info", tmp_path / "log", rotate_bytes=1000)
    for number in range(100):
        logging.getLogger("cozyfs").info("line %d", number)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000


def test_a_log_file_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(CozyError, match="cannot write the log file"):
        logs.set_up("info", tmp_path / "missing" / "log")


def test_a_full_disk_for_the_log_prints_no_traceback():
    code = (
        "import logging, pathlib; from cozyfs import logs\n"
        "logs.set_up('info', pathlib.Path('/dev/full')); logging.getLogger('x').error('hello')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert "Traceback" not in done.stderr
