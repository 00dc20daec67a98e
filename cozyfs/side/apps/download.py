"""The archive of an app, fetched over HTTP into a temporary file and compared with its checksum.

What a URL may hold of credentials (user, password, query) is in no message, and only the query
is remembered. Blocking.
"""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import (
    HTTPError,
    LocationValueError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ResponseError,
    SSLError,
    TimeoutError,
)

from cozyfs.errors import AppRefused, CozyError, UsageError
from cozyfs.side.apps.encoding import PIECE_SIZE, temporary_file, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse

TIMEOUT_S = 60.0
"""For the whole download, as on the Cozy server; a server that falls silent in the last of them
is given up a few seconds later."""

MAX_DOWNLOAD = 1 << 30
"""Bytes of an archive."""

_SILENCE_S = 15.0
_REDIRECTS = 5


@contextmanager
def download(
    url: str, *, timeout_s: float = TIMEOUT_S, limit: int = MAX_DOWNLOAD
) -> Iterator[tuple[IO[bytes], str]]:
    """A temporary file with what *url* gives, and *url* without user, password and checksum.
    Raises UsageError for a bad URL, AppRefused for a bad checksum or too much, CozyError for a
    server that fails."""
    parts, sha256 = _parsed(url)
    shown = urlunsplit(parts._replace(query=""))
    location = urlunsplit(parts)
    with temporary_file() as file, file:
        digest = hashlib.sha256()
        size = 0
        for piece in _fetched(url.partition("#")[0], shown, timeout_s):
            size += len(piece)
            if size > limit:
                raise AppRefused(f"{shown} is too large: more than {limit >> 20} MiB")
            digest.update(piece)
            write_all(file, piece)
        if sha256 and digest.hexdigest() != sha256:
            raise AppRefused(
                f"{shown} has a bad checksum: SHA-256 {digest.hexdigest()}, not {sha256}"
            )
        yield file, location


def _parsed(url: str) -> tuple[SplitResult, str]:
    """The parts of *url* without credentials and fragment, and the SHA-256 of its fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port = f":{parts.port}" if parts.port else ""
    except ValueError as exc:
        raise UsageError("the URL of the app is not valid") from exc
    if not host:
        raise UsageError("the URL of the app has no host")
    fragment = parts.fragment.lower()
    if fragment and not re.fullmatch(r"[0-9a-f]{64}", fragment):
        raise UsageError("what follows '#' in the URL of the app is not a SHA-256 in hexadecimal")
    host = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=host + port, fragment=""), fragment


def _fetched(url: str, shown: str, timeout_s: float) -> Iterator[bytes]:
    """The body of *url*, byte for byte; *shown* is its name in messages."""
    deadline = time.monotonic() + timeout_s
    silence = min(_SILENCE_S, timeout_s)
    try:
        with urllib3.PoolManager() as pool, closing(_answer(pool, url, silence)) as answer:
            if answer.status != 200:
                raise CozyError(f"{shown} cannot be fetched: the server answered {answer.status}")
            while piece := answer.read1(PIECE_SIZE):
                yield piece
                if time.monotonic() > deadline:
                    raise CozyError(f"{shown} cannot be fetched within {timeout_s:.0f} seconds")
    except HTTPError as exc:
        raise CozyError(f"{shown} cannot be fetched: {_reason(exc)}") from exc


def _answer(pool: urllib3.PoolManager, url: str, silence_s: float) -> BaseHTTPResponse:
    parts = urlsplit(url)
    headers = {"Accept-Encoding": "identity", "User-Agent": "cozyfs"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers |= urllib3.make_headers(basic_auth=user)
    return pool.request(
        "GET",
        url,
        headers=headers,
        preload_content=False,
        decode_content=False,
        timeout=urllib3.Timeout(connect=silence_s, read=silence_s),
        retries=urllib3.Retry(total=_REDIRECTS, connect=0, read=0, status=0, other=0),
    )


def _reason(exc: Exception) -> str:
    if isinstance(exc, MaxRetryError) and exc.reason is not None:
        exc = exc.reason
    if isinstance(exc, ResponseError):
        return "too many redirects"
    if isinstance(exc, TimeoutError) and not isinstance(exc, NewConnectionError):
        return "the server does not answer in time"
    if isinstance(exc, ProtocolError):
        return "the connection was cut"
    if isinstance(exc, SSLError):
        return "the server's certificate is not accepted, or it does not speak TLS"
    if isinstance(exc, LocationValueError):
        return "the URL is not valid"
    return "no connection"
