"""Where log lines go and how they look; no credentials in any of them, at any level.

The last step before a line is written takes credentials out of it, tracebacks and other
libraries' lines included. Two nets: the patterns in which S3 clients and URLs carry them, and
the very values that :func:`hide` was told.

Any thread may log; :func:`set_up` is called once, before the mount starts.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from cozyfs.errors import CozyError

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = ("debug", "info", "warning", "error")

HIDDEN = "[hidden]"

_NAMES = (
    r"x-amz-(?:security-token|signature|credential|server-side-encryption[a-z-]*key[a-z0-9-]*)"
    r"|(?:aws_?)?(?:access|secret)(?:[_-]?access)?[_-]?key(?:[_-]?id)?"
    r"|session[_-]?token|security[_-]?token|signature|credential|password|passwd"
)
_PATTERNS = (
    # An Authorization header, whole: scheme, key id and signature.
    re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?)[^'\"\r\n}]+"),
    # name=value, "name": "value", <Name>value</Name>
    re.compile(rf"(?i)((?<![a-z])(?:{_NAMES})['\"]?\s*(?:[:=>]|%3D)\s*['\"]?)[^\s'\"&,;<>)}}\]]+"),
    # user:password@ of a URL
    re.compile(r"(://[^\s/@:]*:)[^\s/@]+(?=@)"),
)
_secrets: set[str] = set()


def hide(*values: str | None) -> None:
    """These exact texts never reach a log line from now on, nor as they look in a URL. Short
    ones are left alone: hiding ``a`` would make every line unreadable and ``a`` no secret."""
    for value in values:
        if value and len(value) >= 4:
            _secrets.update((value, quote(value), quote(value, safe=""), quote_plus(value)))


def redact(text: str) -> str:
    """*text* without credentials."""
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text


class Formatter(logging.Formatter):
    """Plain lines, credentials taken out."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class JournalFormatter(Formatter):
    """Lines as journald wants them on stderr: ``<N>`` and no time, which it adds itself; see
    sd-daemon(3)."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def set_up(
    level: str = "info", log_file: Path | None = None, *, rotate_bytes: int | None = None
) -> None:
    """Send log lines of *level* and above to *log_file*, else to stderr.

    *rotate_bytes* keeps the file below that size, with one older file beside it; without, the
    file is reopened when logrotate moved it. Raises CozyError when it cannot be written.
    Replaces what an earlier call set up."""
    handler = _handler(log_file, rotate_bytes)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    # urllib3 reports each request at DEBUG and each reconnection at WARNING: of use only to
    # those who ask for everything, since failures that matter are logged by the store.
    logging.getLogger("urllib3").setLevel("DEBUG" if level == "debug" else "ERROR")
    logging.raiseExceptions = False  # a full log disk must not print tracebacks from a mount


def _handler(log_file: Path | None, rotate_bytes: int | None) -> logging.Handler:
    plain = Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler: logging.Handler
    if log_file is None:
        handler = logging.StreamHandler(sys.stderr)
        journal = JournalFormatter("%(name)s: %(message)s")
        handler.setFormatter(journal if "JOURNAL_STREAM" in os.environ else plain)
        return handler
    try:
        if rotate_bytes is None:
            handler = logging.handlers.WatchedFileHandler(log_file, encoding="utf-8")
        else:
            handler = logging.handlers.RotatingFileHandler(
                log_file, maxBytes=rotate_bytes, backupCount=1, encoding="utf-8"
            )
    except OSError as exc:
        raise CozyError(f"cannot write the log file {log_file}: {exc.strerror}") from exc
    handler.setFormatter(plain)
    return handler


def _priority(level: int) -> int:
    """syslog(3)'s number for a level of Python."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7
